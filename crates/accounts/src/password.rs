//! Checks passwords: which are acceptable at sign-up, and the exact bytes that are compared.
//!
//! Secure hashes the NFKC form, so that the same keys on another keyboard give the same password. It does not
//! use PRECIS `OpaqueString`, which refuses the joiner inside family emoji, because any composition of
//! characters must be accepted. Signing in applies no rule to a password except the length bound, because a
//! new rule must not lock out existing passwords.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use fleet::Profile;
use secrecy::{ExposeSecret as _, SecretString};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::login::Login;

/// In code points after normalisation, the lowest minimum that a deployment may set. 8 is the least that
/// OWASP ASVS accepts; NIST SP 800-63B-4 requires 15 where the password is the only factor.
pub const MIN_CHARS: MinChars = MinChars(8);
/// Long enough for any phrase and any password manager, short enough to cost nothing to hash.
const MAX_CHARS: usize = 256;
/// In bytes as received; also the bound before normalisation, which can make a text 18 times longer.
const MAX_BYTES: usize = 1024;

/// One password per line, lower case, none shorter than [`MIN_CHARS`]: the passwords of 8 characters and more
/// among the 20,000 most common ones of public breaches, in alphabetical order.
const COMMON: &str = include_str!("../common-passwords.txt");

static COMMON_SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| COMMON.lines().collect());

/// How long a chosen password must be, from [`MIN_CHARS`] to 64 code points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MinChars(u16);

/// NIST and ASVS both require that 64 are allowed, so no deployment may require more.
const MAX_MIN_CHARS: u16 = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a whole number from {min} to {MAX_MIN_CHARS}", min = MIN_CHARS.0)]
pub struct MinCharsError(String);

impl MinChars {
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for MinChars {
    fn default() -> Self {
        MIN_CHARS
    }
}

impl FromStr for MinChars {
    type Err = MinCharsError;

    fn from_str(text: &str) -> Result<Self, MinCharsError> {
        let number = text.parse().ok().filter(|number| (MIN_CHARS.0..=MAX_MIN_CHARS).contains(number));
        number.map(Self).ok_or_else(|| MinCharsError(text.chars().take(20).collect()))
    }
}

impl fmt::Display for MinChars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A password in the form that is hashed or stored. Wiped when dropped; its `Debug` does not show it.
#[derive(Clone, Debug)]
pub struct Password(SecretString);

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PasswordError {
    #[error("the password is shorter than {0} characters; choose a longer one")]
    TooShort(MinChars),
    #[error("the password is longer than {MAX_CHARS} characters; choose a shorter one")]
    TooLong,
    #[error("the password is one of the most common ones, which are guessed first; choose another one")]
    Common,
    #[error("the password is the login; choose another one")]
    IsLogin,
    #[error("the password is empty; choose one of 1 to {MAX_BYTES} bytes")]
    Empty,
    #[error("the password is longer than {MAX_BYTES} bytes; choose a shorter one")]
    TooManyBytes,
}

impl Password {
    /// Returns a password for a new account, or the rule that it breaks.
    pub fn chosen(profile: Profile, min: MinChars, login: &Login, text: &str) -> Result<Self, PasswordError> {
        let password = Self::given(profile, text)?;
        match profile {
            Profile::Classic => {}
            Profile::Secure => check_strength(min, login, password.0.expose_secret())?,
        }
        Ok(password)
    }

    /// Returns a password to compare with a stored one.
    pub fn given(profile: Profile, text: &str) -> Result<Self, PasswordError> {
        if text.is_empty() {
            return Err(PasswordError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(PasswordError::TooManyBytes);
        }
        match profile {
            Profile::Classic => Ok(Self(text.into())),
            Profile::Secure => {
                // Room for the longest expansion, so that no copy is left behind by growing.
                let mut normal = Zeroizing::new(String::with_capacity(text.len() * 18));
                normal.extend(text.nfkc());
                if normal.chars().count() > MAX_CHARS {
                    Err(PasswordError::TooLong)
                } else {
                    Ok(Self(normal.as_str().into()))
                }
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

fn check_strength(min: MinChars, login: &Login, normal: &str) -> Result<(), PasswordError> {
    if normal.chars().count() < min.get() {
        return Err(PasswordError::TooShort(min));
    }
    let folded = Zeroizing::new(normal.to_lowercase());
    if *folded == login.as_str().to_lowercase() {
        return Err(PasswordError::IsLogin);
    }
    if COMMON_SET.contains(folded.as_str()) {
        return Err(PasswordError::Common);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secure(text: &str) -> Result<(), PasswordError> {
        let login = Login::parse(Profile::Secure, "anamaria").expect("valid");
        Password::chosen(Profile::Secure, MIN_CHARS, &login, text).map(|_| ())
    }

    #[test]
    fn each_rule_refuses_with_its_own_message() {
        let long = "ä".repeat(257);
        let huge = "x".repeat(MAX_BYTES + 1);
        let table = [
            ("", PasswordError::Empty),
            ("1234567", PasswordError::TooShort(MIN_CHARS)),
            ("ééééééé", PasswordError::TooShort(MIN_CHARS)),
            (long.as_str(), PasswordError::TooLong),
            (huge.as_str(), PasswordError::TooManyBytes),
            ("password", PasswordError::Common),
            ("PassWord", PasswordError::Common),
            ("ｐａｓｓｗｏｒｄ", PasswordError::Common),
            ("AnaMaria", PasswordError::IsLogin),
        ];
        for (text, rule) in table {
            assert_eq!(secure(text), Err(rule), "{text:?}");
        }
    }

    #[test]
    fn any_composition_of_characters_will_do() {
        for text in [
            "zzyzx road",
            "👨‍👩‍👧‍👦👨‍👩‍👧‍👦",
            "éééééééé",
            "a/b?c#d%e",
            &"ä".repeat(256),
            "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}",
        ] {
            assert_eq!(secure(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn the_same_keys_on_another_keyboard_give_the_same_password() {
        let bytes = |text| Password::given(Profile::Secure, text).map(|p| p.as_bytes().to_vec());
        assert_eq!(bytes("pa\u{308}sswort9"), bytes("p\u{e4}sswort9"));
        assert_eq!(bytes("ﬁfteenmen"), bytes("fifteenmen"));
    }

    #[test]
    fn classic_has_no_rule_but_the_bound() {
        let login = Login::parse(Profile::Classic, "a").expect("valid");
        let classic = |text: &str| Password::chosen(Profile::Classic, MIN_CHARS, &login, text).map(|_| ());
        for text in ["a", "1", "password", &"x".repeat(MAX_BYTES)] {
            assert_eq!(classic(text), Ok(()));
        }
        assert_eq!(classic(""), Err(PasswordError::Empty));
        assert_eq!(classic(&"x".repeat(MAX_BYTES + 1)), Err(PasswordError::TooManyBytes));
    }

    #[test]
    fn a_deployment_may_ask_for_longer_ones() {
        let login = Login::parse(Profile::Secure, "anamaria").expect("valid");
        let nist: MinChars = "15".parse().expect("within bounds");
        let chosen = |text: &str| Password::chosen(Profile::Secure, nist, &login, text).map(|_| ());
        assert_eq!(chosen("fourteen chars"), Err(PasswordError::TooShort(nist)));
        assert_eq!(chosen("fifteen chars !"), Ok(()));
        for bad in ["", "7", "65", "-1", "many"] {
            assert!(bad.parse::<MinChars>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let password = Password::given(Profile::Secure, "sentinel!").expect("a password");
        assert!(!format!("{password:?}").contains("sentinel"));
    }

    #[test]
    fn the_list_holds_only_passwords_that_no_other_rule_refuses() {
        let mut lines: Vec<&str> = COMMON.lines().collect();
        assert!(lines.len() >= 3000, "{}", lines.len());
        for line in &lines {
            assert!(line.chars().count() >= MIN_CHARS.get(), "{line}");
            assert_eq!(*line, line.trim().to_lowercase(), "{line}");
        }
        let written = lines.clone();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines, written, "sorted and without duplicates");
    }
}
