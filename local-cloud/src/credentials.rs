//! The credentials whose signatures the front door accepts.
//!
//! AWS refuses an unknown key. An emulator that accepts any key would hide wrong credentials until the first
//! real deployment.

use std::collections::HashMap;

use parking_lot::RwLock;
use rand::RngExt as _;
use rand::distr::Alphanumeric;

/// Placeholder names that the documentation of emulators tells people to export, as key and secret alike. Any
/// other key is wrong.
const PLACEHOLDERS: [&str; 8] = ["test", "testing", "local", "localstack", "vigia", "dummy", "mock", "fake"];

/// Who signed a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The person at the keyboard, as the account's root: allowed everything.
    Operator,
    /// A user of IAM, by an access key.
    User { name: String },
    /// A session that AssumeRole gave.
    Session { role: String, name: String },
    /// A Lambda function; ministack gives all of them the same key.
    Function,
    /// An instance, through the role of its instance profile.
    Instance { id: String, role: String },
}

#[derive(Clone, Debug)]
pub struct SessionKey {
    pub access_key: String,
    pub secret: String,
    pub token: String,
}

/// The known keys.
pub struct Credentials {
    known: RwLock<HashMap<String, (String, Principal)>>,
}

impl Credentials {
    /// Makes credentials that know the placeholders and the key of the Lambda functions.
    pub fn new(function_key: &str, function_secret: &str) -> Self {
        let mut known: HashMap<_, _> = PLACEHOLDERS
            .iter()
            .map(|name| ((*name).to_owned(), ((*name).to_owned(), Principal::Operator)))
            .collect();
        known.insert(function_key.to_owned(), (function_secret.to_owned(), Principal::Function));
        Self { known: RwLock::new(known) }
    }

    /// Makes a session for an instance, valid until the instance is gone.
    pub fn issue(&self, id: &str, role: &str) -> SessionKey {
        let session = SessionKey {
            access_key: format!("ASIA{}", random_text(16).to_uppercase()),
            secret: random_text(40),
            token: random_text(64),
        };
        let principal = Principal::Instance { id: id.to_owned(), role: role.to_owned() };
        self.write().insert(session.access_key.clone(), (session.secret.clone(), principal));
        session
    }

    pub fn forget_instance(&self, id: &str) {
        self.write().retain(
            |_, (_, principal)| !matches!(principal, Principal::Instance { id: owner, .. } if owner == id),
        );
    }

    /// Accepts a key that IAM or STS has made.
    pub fn learn(&self, access_key: &str, secret: &str, principal: Principal) {
        self.write().insert(access_key.to_owned(), (secret.to_owned(), principal));
    }

    /// Stops accepting a key. Keys of people, functions and instances stay.
    pub fn unlearn(&self, access_key: &str) {
        let mut known = self.write();
        let is_users =
            known.get(access_key).is_some_and(|(_, principal)| matches!(principal, Principal::User { .. }));
        if is_users {
            known.remove(access_key);
        }
    }

    /// Returns the access keys of users: key, secret, user.
    pub fn of_users(&self) -> Vec<(String, String, String)> {
        let known = self.known.read();
        let of_user = |(key, (secret, principal)): (&String, &(String, Principal))| match principal {
            Principal::User { name } => Some((key.clone(), secret.clone(), name.clone())),
            _ => None,
        };
        let mut keys: Vec<_> = known.iter().filter_map(of_user).collect();
        keys.sort();
        keys
    }

    pub fn find(&self, access_key: &str) -> Option<(String, Principal)> {
        self.known.read().get(access_key).cloned()
    }

    fn write(&self) -> parking_lot::RwLockWriteGuard<'_, HashMap<String, (String, Principal)>> {
        self.known.write()
    }
}

pub fn random_text(len: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(len).map(char::from).collect()
}
