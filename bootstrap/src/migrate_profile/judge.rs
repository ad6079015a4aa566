//! Decides which classic users can become secure ones, and under which key. Pure.
//!
//! | an object below `users/` | becomes |
//! |---|---|
//! | written by this migration | is left alone; the classic object that it came from is deleted |
//! | its login and its password are within the secure profile's bounds | converted |
//! | its login is another spelling of one with an object of its own | unusable; the exact spelling is converted |
//! | only other spellings, several of them | all unusable: the owner of the login is ambiguous |
//! | its key is no login's, or its login or password is out of bounds | unusable |
//!
//! An unusable object may stay where it is if no secure worker would look for a user there.

use std::collections::BTreeMap;
use std::fmt;

use accounts::{Login, LoginError, Password, PasswordError, login_of, object_key};
use fleet::Profile;

/// More bytes than any password has; no more of an object is read.
pub(super) const MAX_BYTES: usize = 1024;

/// The verdict on an object by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// By this migration, from the object of this key.
    Converted {
        from: String,
    },
    Usable(Login),
    Unusable(Reason),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    #[error("no login has this key")]
    Key,
    #[error("{0}")]
    Login(LoginError),
    #[error("the password is not UTF-8 text")]
    Encoding,
    #[error("{0}")]
    Password(PasswordError),
    #[error("it would become the login `{0}`, and so would another user")]
    SameAs(Login),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    pub(super) key: String,
    pub(super) reason: Reason,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The classic object.
    pub(super) key: String,
    pub(super) login: Login,
    pub(super) step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Convert,
    /// Its secure object is already written.
    DeleteOld,
}

impl Candidate {
    /// Returns the key of the secure object.
    pub(super) fn target(&self) -> String {
        object_key(Profile::Secure, &self.login)
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) convert: Vec<Candidate>,
    /// Users that are already secure.
    pub(super) done: usize,
    /// Unusable, where no secure worker looks.
    pub(super) left: Vec<Unusable>,
    /// Unusable, where a secure worker would look.
    pub(super) blocking: Vec<Unusable>,
}

/// Judges an object that this migration has not written.
pub(super) fn judge(key: &str, content: &[u8]) -> Judged {
    let Some(classic) = login_of(Profile::Classic, key) else { return Judged::Unusable(Reason::Key) };
    let login = match Login::parse(Profile::Secure, classic.as_str()) {
        Ok(login) => login,
        Err(error) => return Judged::Unusable(Reason::Login(error)),
    };
    match password(content) {
        Ok(_) => Judged::Usable(login),
        Err(reason) => Judged::Unusable(reason),
    }
}

/// Returns the password in the form in which the secure profile hashes it.
pub(super) fn password(content: &[u8]) -> Result<Password, Reason> {
    if content.len() > MAX_BYTES {
        return Err(Reason::Password(PasswordError::TooManyBytes));
    }
    let text = std::str::from_utf8(content).map_err(|_| Reason::Encoding)?;
    Password::given(Profile::Secure, text).map_err(Reason::Password)
}

pub(super) fn plan(objects: Vec<(String, Judged)>) -> Plan {
    let mut plan = Plan::default();
    let mut origins = BTreeMap::new();
    let mut spellings: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for (key, judged) in objects {
        match judged {
            Judged::Converted { from } => {
                plan.done += 1;
                origins.insert(key, from);
            }
            Judged::Usable(login) => {
                let candidate = Candidate { key, login, step: Step::Convert };
                spellings.entry(candidate.target()).or_default().push(candidate);
            }
            Judged::Unusable(reason) => plan.unusable(Unusable { key, reason }),
        }
    }
    for (target, candidates) in spellings {
        let is_alone = candidates.len() == 1;
        for candidate in candidates {
            match origins.get(&target) {
                Some(from) if *from == candidate.key => {
                    plan.done -= 1;
                    plan.convert.push(Candidate { step: Step::DeleteOld, ..candidate });
                }
                None if is_alone || candidate.key == target => plan.convert.push(candidate),
                Some(_) | None => {
                    let reason = Reason::SameAs(candidate.login);
                    plan.unusable(Unusable { key: candidate.key, reason });
                }
            }
        }
    }
    plan
}

impl Plan {
    fn unusable(&mut self, unusable: Unusable) {
        if is_read_by_secure(&unusable.key) { self.blocking.push(unusable) } else { self.left.push(unusable) }
    }
}

/// Returns whether a sign-in in the secure profile would read this object.
fn is_read_by_secure(key: &str) -> bool {
    login_of(Profile::Secure, key)
        .is_some_and(|login| Login::parse(Profile::Secure, login.as_str()).as_ref() == Ok(&login))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> Login {
        Login::parse(Profile::Secure, text).expect("valid")
    }

    fn planned(objects: &[(&str, &[u8])], converted: &[(&str, &str)]) -> Plan {
        let classic = objects.iter().map(|(key, content)| ((*key).to_owned(), judge(key, content)));
        let secure = converted
            .iter()
            .map(|(key, from)| ((*key).to_owned(), Judged::Converted { from: (*from).to_owned() }));
        plan(classic.chain(secure).collect())
    }

    fn keys(unusable: &[Unusable]) -> Vec<&str> {
        unusable.iter().map(|it| it.key.as_str()).collect()
    }

    fn converts(plan: &Plan) -> Vec<(&str, String, Step)> {
        plan.convert.iter().map(|it| (it.key.as_str(), it.target(), it.step)).collect()
    }

    #[test]
    fn a_user_goes_where_a_secure_worker_looks() {
        let plan = planned(&[("users/Ana", b"x"), ("users/bob", b"{}"), ("users/!c3!9c", b"y")], &[]);
        let to = |key: &'static str, target: &str| (key, target.to_owned(), Step::Convert);
        assert_eq!(
            converts(&plan),
            [to("users/!c3!9c", "users/!c3!bc"), to("users/Ana", "users/ana"), to("users/bob", "users/bob")]
        );
    }

    #[test]
    fn an_unusable_user_has_a_reason() {
        let long = [b'x'; MAX_BYTES + 1];
        let many = "ä".repeat(300);
        for (key, content, reason, blocks) in [
            ("users/a.b", &b"x"[..], Reason::Key, false),
            ("users/", b"x", Reason::Key, false),
            ("users/a!20b", b"x", Reason::Login(LoginError::Character), false),
            ("users/!2e!2e", b"x", Reason::Login(LoginError::Dots), false),
            ("users/Ana", b"", Reason::Password(PasswordError::Empty), false),
            ("users/ana", b"", Reason::Password(PasswordError::Empty), true),
            ("users/ana", b"\xff", Reason::Encoding, true),
            ("users/ana", &long, Reason::Password(PasswordError::TooManyBytes), true),
            ("users/ana", many.as_bytes(), Reason::Password(PasswordError::TooLong), true),
        ] {
            let plan = planned(&[(key, content)], &[]);
            let found = if blocks { &plan.blocking } else { &plan.left };
            assert_eq!(*found, [Unusable { key: key.to_owned(), reason }], "{key}");
            assert!(plan.convert.is_empty());
        }
    }

    #[test]
    fn of_several_spellings_the_exact_one_is_the_user() {
        let plan = planned(&[("users/ana", b"x"), ("users/Ana", b"y"), ("users/ANA", b"z")], &[]);
        assert_eq!(converts(&plan), [("users/ana", "users/ana".to_owned(), Step::Convert)]);
        assert_eq!(keys(&plan.left), ["users/Ana", "users/ANA"]);
        assert_eq!(plan.left[0].reason, Reason::SameAs(login("ana")));

        let plan = planned(&[("users/Ana", b"y"), ("users/ANA", b"z")], &[]);
        assert_eq!((plan.convert.len(), keys(&plan.left)), (0, vec!["users/Ana", "users/ANA"]));
    }

    #[test]
    fn a_converted_user_is_not_converted_again() {
        let plan = planned(&[("users/Ana", b"x")], &[("users/ana", "users/Ana"), ("users/bob", "users/bob")]);
        assert_eq!(converts(&plan), [("users/Ana", "users/ana".to_owned(), Step::DeleteOld)]);
        assert_eq!(plan.done, 1, "bob; Ana's old object is still to be deleted");
    }

    #[test]
    fn another_spelling_of_a_converted_user_stays_another_user() {
        for from in ["users/ana", "users/ANA"] {
            let plan = planned(&[("users/Ana", b"x")], &[("users/ana", from)]);
            assert_eq!(
                (plan.convert.len(), plan.done, keys(&plan.left)),
                (0, 1, vec!["users/Ana"]),
                "{from}"
            );
        }
    }
}
