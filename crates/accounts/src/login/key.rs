//! Maps a login to its object key and back.
//!
//! Bytes `a-z 0-9 _ -` (classic: also `A-Z`) stand for themselves, any other byte is `!hh` in lower-case
//! hexadecimal. So no login leaves `users/`, becomes `..`, or meets a client that normalises slashes; and the
//! mapping is one to one, so listing needs no read to know the logins.

use std::fmt::Write as _;

use fleet::Profile;
use fleet::keys::USERS_PREFIX;

use super::Login;

pub fn object_key(profile: Profile, login: &Login) -> String {
    let mut key = USERS_PREFIX.to_owned();
    for byte in login.as_str().bytes() {
        if is_literal(profile, byte) {
            key.push(char::from(byte));
        } else {
            write!(key, "!{byte:02x}").expect("writing to a String cannot fail");
        }
    }
    key
}

/// Returns the login with this key; `None` if no login has it.
pub fn login_of(profile: Profile, key: &str) -> Option<Login> {
    let login = Login(unescape(key.strip_prefix(USERS_PREFIX)?)?);
    // One spelling only: `!61` would otherwise be a second name for the object of `a`.
    (!login.0.is_empty() && object_key(profile, &login) == key).then_some(login)
}

fn is_literal(profile: Profile, byte: u8) -> bool {
    match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => true,
        b'A'..=b'Z' => profile == Profile::Classic,
        _ => false,
    }
}

fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'!' {
            let (digits, tail) = tail.split_at_checked(2)?;
            bytes.push(data_encoding::HEXLOWER.decode(digits).ok()?[0]);
            rest = tail;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROFILES: [Profile; 2] = [Profile::Secure, Profile::Classic];

    #[test]
    fn plain_names_read_naturally() {
        let key = |profile, text: &str| object_key(profile, &Login(text.to_owned()));
        assert_eq!(key(Profile::Secure, "ana_b-2"), "users/ana_b-2");
        assert_eq!(key(Profile::Secure, "ana.b"), "users/ana!2eb");
        assert_eq!(key(Profile::Classic, "Ana"), "users/Ana");
        assert_eq!(key(Profile::Secure, "Ana"), "users/!41na");
        assert_eq!(key(Profile::Classic, "../meta/profile"), "users/!2e!2e!2fmeta!2fprofile");
        assert_eq!(key(Profile::Secure, "ü"), "users/!c3!bc");
    }

    #[test]
    fn keys_that_no_login_has_are_not_logins() {
        for key in [
            "users/",
            "users/!",
            "users/!6",
            "users/!61",
            "users/!2E",
            "users/!zz",
            "users/!ff",
            "users/a/b",
            "users/a.b",
            "meta/profile",
        ] {
            for profile in PROFILES {
                assert_eq!(login_of(profile, key), None, "{key}");
            }
        }
        assert_eq!(login_of(Profile::Secure, "users/Ana"), None);
    }

    #[test]
    fn the_longest_login_fits_a_key() {
        let login = Login::parse(Profile::Classic, &"😀".repeat(64)).expect("64 code points");
        assert!(object_key(Profile::Classic, &login).len() <= 1024);
    }

    proptest! {
        #[test]
        fn a_key_leads_back_to_its_login_and_stays_below_users(text in ".{1,64}") {
            for profile in PROFILES {
                let login = Login(text.clone());
                let key = object_key(profile, &login);
                let name = key.strip_prefix(USERS_PREFIX).expect("below users/");
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!_-".contains(&b)));
                prop_assert_eq!(login_of(profile, &key), Some(login));
            }
        }

        #[test]
        fn different_logins_have_different_keys(a in "[aA!.0-9a-f]{1,6}", b in "[aA!.0-9a-f]{1,6}") {
            for profile in PROFILES {
                let same = object_key(profile, &Login(a.clone())) == object_key(profile, &Login(b.clone()));
                prop_assert_eq!(same, a == b);
            }
        }
    }
}
