//! Passwords on their way in: what is acceptable at sign-up, and the exact bytes that are compared.
//!
//! Secure hashes the NFKC form, so that the same keys on another keyboard give the same password.
//! Not PRECIS `OpaqueString`: it refuses the joiner inside family emoji, and any composition of
//! characters must do. Signing in applies no rule to a password but the length bound, because a
//! rule that is new today must not lock out a password of yesterday.

use std::collections::HashSet;
use std::sync::LazyLock;

use fleet::Profile;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::login::Login;

/// In code points after normalisation. 8 is the least that OWASP ASVS accepts.
const MIN_CHARS: usize = 8;
/// Long enough for any phrase and any password manager, short enough to cost nothing to hash.
const MAX_CHARS: usize = 256;
/// In bytes as received; also the bound before normalisation, which can make a text 18 times longer.
const MAX_BYTES: usize = 1024;

/// One password per line, lower case, none shorter than [`MIN_CHARS`].
const COMMON: &str = include_str!("../common-passwords.txt");

static COMMON_SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| COMMON.lines().collect());

/// A password in the form that is hashed or stored. Wiped when dropped; has no `Debug`.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PasswordError {
    #[error("the password is shorter than {MIN_CHARS} characters; choose a longer one")]
    TooShort,
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
    /// A password for a new account, or the rule that it breaks.
    pub fn chosen(profile: Profile, login: &Login, text: &str) -> Result<Self, PasswordError> {
        let password = Self::given(profile, text)?;
        match profile {
            Profile::Classic => {}
            Profile::Secure => check_strength(login, &password.0)?,
        }
        Ok(password)
    }

    /// A password to compare with a stored one.
    pub fn given(profile: Profile, text: &str) -> Result<Self, PasswordError> {
        if text.is_empty() {
            return Err(PasswordError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(PasswordError::TooManyBytes);
        }
        match profile {
            Profile::Classic => Ok(Self(Zeroizing::new(text.to_owned()))),
            Profile::Secure => {
                // Room for the longest expansion, so that no copy is left behind by growing.
                let mut normal = Zeroizing::new(String::with_capacity(text.len() * 18));
                normal.extend(text.nfkc());
                if normal.chars().count() > MAX_CHARS {
                    Err(PasswordError::TooLong)
                } else {
                    Ok(Self(normal))
                }
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn check_strength(login: &Login, normal: &str) -> Result<(), PasswordError> {
    if normal.chars().count() < MIN_CHARS {
        return Err(PasswordError::TooShort);
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
        Password::chosen(Profile::Secure, &login, text).map(|_| ())
    }

    #[test]
    fn each_rule_refuses_with_its_own_message() {
        let long = "ä".repeat(257);
        let huge = "x".repeat(MAX_BYTES + 1);
        let table = [
            ("", PasswordError::Empty),
            ("1234567", PasswordError::TooShort),
            ("ééééééé", PasswordError::TooShort),
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
        let classic = |text: &str| Password::chosen(Profile::Classic, &login, text).map(|_| ());
        for text in ["a", "1", "password", &"x".repeat(MAX_BYTES)] {
            assert_eq!(classic(text), Ok(()));
        }
        assert_eq!(classic(""), Err(PasswordError::Empty));
        assert_eq!(classic(&"x".repeat(MAX_BYTES + 1)), Err(PasswordError::TooManyBytes));
    }

    #[test]
    fn the_list_holds_only_passwords_that_no_other_rule_refuses() {
        let mut lines: Vec<&str> = COMMON.lines().collect();
        assert!(lines.len() >= 300, "{}", lines.len());
        for line in &lines {
            assert!(line.chars().count() >= MIN_CHARS, "{line}");
            assert_eq!(*line, line.trim().to_lowercase(), "{line}");
        }
        let written = lines.clone();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines, written, "sorted and without duplicates");
    }
}
