//! `Login`: a user's name in the one form in which it is stored and compared.
//!
//! Secure applies PRECIS `UsernameCaseMapped` (RFC 8265), so `Alice`, `ａｌｉｃｅ` and `alice` are one user, and
//! then Vigia's own rules: PRECIS accepts `.`, `..` and `a/b`, which some client, console or shell will
//! sooner or later take for a path. Classic takes the name as it is written.

mod key;

use std::fmt;

use fleet::Profile;
use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation as _;

pub use key::{login_of, object_key};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Login(String);

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoginError {
    #[error("the login is empty; choose one of 1 to {max} characters", max = Login::MAX_CHARS)]
    Empty,
    #[error("the login is longer than {max} characters; choose a shorter one", max = Login::MAX_CHARS)]
    TooLong,
    #[error("the login contains a control character; use printable characters")]
    Control,
    #[error("a login cannot be `.` or `..`; choose another one")]
    Dots,
    #[error("a login cannot contain `/` or `\\`; choose another one")]
    Slash,
    #[error(
        "the login contains a character that is not allowed, such as a space or a symbol; use letters, digits, `.`, `-` and `_`"
    )]
    Character,
}

impl Login {
    /// 64 code points are at most 256 bytes of UTF-8 and 768 bytes of escapes, within S3's 1024 for
    /// a key.
    pub const MAX_CHARS: usize = 64;

    pub fn parse(profile: Profile, text: &str) -> Result<Self, LoginError> {
        check_length(text)?;
        if text.chars().any(char::is_control) {
            return Err(LoginError::Control);
        }
        match profile {
            Profile::Classic => Ok(Self(text.to_owned())),
            Profile::Secure => Self::normalised(text),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn normalised(text: &str) -> Result<Self, LoginError> {
        if text.contains(['/', '\\']) {
            return Err(LoginError::Slash);
        }
        let mapped = UsernameCaseMapped::enforce(text).map_err(|_| LoginError::Character)?;
        // Mapping is not idempotent for a few code points. If a login changed when it was typed as it is
        // shown, its user could not sign in.
        let is_stable = UsernameCaseMapped::enforce(mapped.as_ref()).is_ok_and(|again| again == mapped);
        if !is_stable {
            return Err(LoginError::Character);
        }
        check_length(&mapped)?;
        if mapped.chars().any(char::is_control) {
            return Err(LoginError::Control);
        }
        // Full-width forms become `/`, `\` and `.` only here.
        if mapped.contains(['/', '\\']) {
            return Err(LoginError::Slash);
        }
        if mapped == "." || mapped == ".." {
            return Err(LoginError::Dots);
        }
        Ok(Self(mapped.into_owned()))
    }
}

/// Checks the length early: a longer text cannot become short enough by mapping, except by a few combining
/// marks.
fn check_length(text: &str) -> Result<(), LoginError> {
    match text.chars().take(Login::MAX_CHARS + 1).count() {
        0 => Err(LoginError::Empty),
        1..=Login::MAX_CHARS => Ok(()),
        _ => Err(LoginError::TooLong),
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secure(text: &str) -> Result<String, LoginError> {
        Login::parse(Profile::Secure, text).map(|login| login.0)
    }

    #[test]
    fn one_user_however_the_name_is_typed() {
        for text in ["alice", "Alice", "ALICE", "ａｌｉｃｅ"] {
            assert_eq!(secure(text).as_deref(), Ok("alice"), "{text}");
        }
        assert_eq!(secure("u\u{308}"), secure("ü"), "NFC");
        assert_eq!(secure("ana.maria-2_x").as_deref(), Ok("ana.maria-2_x"));
    }

    #[test]
    fn each_rule_refuses_with_its_own_message() {
        let long = "a".repeat(65);
        let table = [
            ("", LoginError::Empty),
            (long.as_str(), LoginError::TooLong),
            (".", LoginError::Dots),
            ("..", LoginError::Dots),
            ("．．", LoginError::Dots),
            ("a/b", LoginError::Slash),
            ("a／b", LoginError::Slash),
            ("a\\b", LoginError::Slash),
            ("a\0b", LoginError::Control),
            ("a\nb", LoginError::Control),
            ("a b", LoginError::Character),
            ("😀", LoginError::Character),
            ("a\u{202e}b", LoginError::Character),
        ];
        for (text, rule) in table {
            assert_eq!(secure(text), Err(rule), "{text:?}");
        }
        assert!(secure(&"a".repeat(64)).is_ok());
    }

    #[test]
    fn classic_takes_what_is_written() {
        let classic = |text: &str| Login::parse(Profile::Classic, text).map(|login| login.0);
        for text in ["Ana", ".", "..", "a/b", "a b", "😀", "meta/profile", &"é".repeat(64)] {
            assert_eq!(classic(text).as_deref(), Ok(text));
        }
        assert_eq!(classic(""), Err(LoginError::Empty));
        assert_eq!(classic("a\0"), Err(LoginError::Control));
        assert_eq!(classic(&"é".repeat(65)), Err(LoginError::TooLong));
    }

    proptest! {
        #[test]
        fn a_shown_login_signs_in_again(text in any::<String>()) {
            if let Ok(login) = Login::parse(Profile::Secure, &text) {
                prop_assert_eq!(Login::parse(Profile::Secure, login.as_str()), Ok(login));
            }
        }
    }
}
