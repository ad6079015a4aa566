//! The secrets of the stack: the keys that seal sessions and the hash of the admin token.
//!
//! They are in the control bucket and not with the users, because one leaked bucket must not be enough to
//! forge sessions. An operator rotates a key by adding it, waiting until the workers have read it, and
//! making it active. So workers read both secrets again every minute, each on its own: an object that
//! cannot be parsed must not keep the other one, which may have leaked, in force.
//!
//! | S3 has | session keys | hash of the admin token |
//! |---|---|---|
//! | a new one | in force at once | in force at once |
//! | nonsense | the old ones stay, for [`KEYS_TRUSTED`] | admin requests are refused |
//! | nothing | the old ones stay, for [`KEYS_TRUSTED`] | admin requests are refused |
//! | no answer | the old ones stay, for [`KEYS_TRUSTED`] | the old one stays, for [`ADMIN_TRUSTED`] |
//!
//! After that time sessions, or the operator, are refused until the object is read again. How long ago
//! each was read is part of the dashboard's picture ([`Secrets::states`]).

use std::sync::Arc;
use std::time::Duration;

use fleet::{Profile, keys};
use process::telemetry;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cookies::{KeyRing, KeyRingError};
use aws::bucket::{Bucket, StoreError};

/// A minute is how long a rotation has to wait for the slowest worker; it costs two reads a minute.
pub const REFRESH: Duration = Duration::from_secs(60);

/// Without keys no user can be signed in, so a mistake in the object should leave the operator time to
/// notice and correct it: an hour is sixty reads that failed. At double, a leaked key whose replacement
/// cannot be read would open sessions for four times as long as a session may be idle.
pub const KEYS_TRUSTED: Duration = Duration::from_secs(60 * 60);
/// Admin requests need S3 themselves, so little is lost when they are refused in an outage. At half, the
/// dashboard would close in a short outage that an operator is watching; at double, a leaked token would
/// stay in force for twice as long.
pub const ADMIN_TRUSTED: Duration = Duration::from_secs(10 * 60);

/// A ring of eight keys is about a kilobyte.
const MAX_BYTES: usize = 16 * 1024;

/// The secrets as they were read last.
#[derive(Clone)]
pub struct Secrets {
    ring: Kept<Arc<KeyRing>>,
    admin: Kept<Admin>,
}

/// A secret, when it was read, and the error of the last read.
#[derive(Clone)]
struct Kept<T> {
    value: T,
    read: Instant,
    problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admin {
    Token(AdminTokenHash),
    /// The object is missing, or the profile is classic, which needs no token.
    Missing,
    /// It is no hash, or has never been read.
    Unreadable,
}

/// How a secret is, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretState {
    pub name: &'static str,
    /// Since it was read and understood.
    pub read_seconds_ago: u64,
    /// Why it could not be read the last time.
    pub problem: Option<String>,
    /// Whether it is in force in spite of that.
    pub is_in_force: bool,
}

/// The SHA-256 of the admin token. A fast hash is right here: the token is 256 random bits, which cannot be
/// guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminTokenHash([u8; 32]);

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("is not the hexadecimal SHA-256 of a token")]
pub struct AdminTokenHashError;

impl AdminTokenHash {
    pub fn of_token(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    pub fn is_of(&self, token: &str) -> bool {
        Self::of_token(token).0.ct_eq(&self.0).into()
    }

    /// Reads the object, forgiving white space around it.
    pub fn from_object(bytes: &[u8]) -> Result<Self, AdminTokenHashError> {
        let digits = bytes.trim_ascii();
        let hash = data_encoding::HEXLOWER_PERMISSIVE.decode(digits).map_err(|_| AdminTokenHashError)?;
        hash.try_into().map(Self).map_err(|_| AdminTokenHashError)
    }
}

/// Why a secret cannot be used for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInForce {
    #[error(
        "this stack has no admin token, so all admin requests are refused; deploy the stack again to make one"
    )]
    NoAdminToken,
    #[error(
        "the workers cannot read the stored hash of the admin token, so all admin requests are refused; \
         read the workers' log, or run `make token ROTATE=1` to write a new hash"
    )]
    AdminTokenUnreadable,
    #[error(
        "the workers have not been able to read the session keys for an hour, so sessions are refused; tell the operator"
    )]
    KeysTooOld,
}

/// Why the secrets could not be read from the control bucket.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("cannot read the secrets")]
    Store(#[from] StoreError),
    #[error("{key} is missing from the control bucket; run the deployment again", key = keys::SESSION_KEYS)]
    Missing,
    #[error("{key} {0}; run the deployment again", key = keys::SESSION_KEYS)]
    KeyRing(KeyRingError),
    #[error("{key} {0}; run `make token ROTATE=1`", key = keys::ADMIN_TOKEN_HASH)]
    Admin(AdminTokenHashError),
}

impl Secrets {
    pub fn new(ring: KeyRing, admin: Option<AdminTokenHash>) -> Self {
        let admin = admin.map_or(Admin::Missing, Admin::Token);
        Self { ring: Kept::new(Arc::new(ring)), admin: Kept::new(admin) }
    }

    /// Returns the keys, unless they were last read too long ago.
    pub fn ring(&self) -> Result<&KeyRing, NotInForce> {
        if self.ring.age() < KEYS_TRUSTED { Ok(&self.ring.value) } else { Err(NotInForce::KeysTooOld) }
    }

    /// Returns the keys, however old, for keyed hashes in names and in the log, which prove nothing.
    pub fn ring_for_names(&self) -> &KeyRing {
        &self.ring.value
    }

    pub fn admin(&self) -> Result<&AdminTokenHash, NotInForce> {
        match &self.admin.value {
            Admin::Token(hash) if self.admin.age() < ADMIN_TRUSTED => Ok(hash),
            Admin::Token(_) | Admin::Unreadable => Err(NotInForce::AdminTokenUnreadable),
            Admin::Missing => Err(NotInForce::NoAdminToken),
        }
    }

    /// Returns the secrets after a read. A secret that could not be read keeps its old value and age.
    fn refreshed(&self, ring: Result<KeyRing, SecretsError>, admin: Result<Admin, SecretsError>) -> Self {
        let admin = match admin {
            // S3 has answered, so the object was replaced: the old token must not stay in force.
            Err(error @ SecretsError::Admin(_)) => Kept::but_with(Admin::Unreadable, &self.admin, &error),
            Err(error) => Kept::but_with(self.admin.value, &self.admin, &error),
            Ok(admin) => Kept::new(admin),
        };
        let ring = match ring {
            Ok(ring) => Kept::new(Arc::new(ring)),
            Err(error) => Kept::but_with(Arc::clone(&self.ring.value), &self.ring, &error),
        };
        Self { ring, admin }
    }

    pub fn states(&self) -> [SecretState; 2] {
        [
            self.ring.state(keys::SESSION_KEYS, self.ring().is_ok()),
            self.admin.state(keys::ADMIN_TOKEN_HASH, self.admin().is_ok()),
        ]
    }
}

impl<T> Kept<T> {
    fn new(value: T) -> Self {
        Self { value, read: Instant::now(), problem: None }
    }

    fn but_with(value: T, before: &Self, error: &SecretsError) -> Self {
        Self { value, read: before.read, problem: Some(telemetry::error_chain(error)) }
    }

    fn age(&self) -> Duration {
        self.read.elapsed()
    }

    fn state(&self, name: &'static str, is_in_force: bool) -> SecretState {
        let read_seconds_ago = self.age().as_secs();
        SecretState { name, read_seconds_ago, problem: self.problem.clone(), is_in_force }
    }
}

impl SecretState {
    /// Returns a sentence about the problem, if there is one.
    pub fn complaint(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        let since = self.read_seconds_ago;
        let result = if self.is_in_force {
            "The last good value is in force."
        } else {
            "Requests that need it are refused."
        };
        Some(format!("{} was last read {since} s ago: {problem}. {result}", self.name))
    }
}

/// Reads the secrets of a worker that starts. Without keys it cannot serve; without a hash it refuses only
/// admin requests.
pub async fn fetch(control: &Bucket, profile: Profile) -> Result<Secrets, SecretsError> {
    let (ring, admin) = tokio::join!(fetch_ring(control), fetch_admin(control, profile));
    let unread = Secrets::new(ring?, None);
    let unread = Secrets { admin: Kept::new(Admin::Unreadable), ..unread };
    Ok(match admin {
        Ok(admin) => Secrets { admin: Kept::new(admin), ..unread },
        Err(error) => {
            tracing::error!(
                error = telemetry::error_chain(&error),
                "the hash of the admin token cannot be read; admin requests are refused"
            );
            Secrets { admin: Kept::but_with(Admin::Unreadable, &unread.admin, &error), ..unread }
        }
    })
}

/// Reads the secrets again in intervals of `every`; never returns.
pub async fn keep_fresh(
    control: Bucket,
    profile: Profile,
    every: Duration,
    current: watch::Sender<Arc<Secrets>>,
) {
    loop {
        tokio::time::sleep(every).await;
        let (ring, admin) = tokio::join!(fetch_ring(&control), fetch_admin(&control, profile));
        current.send_modify(|secrets| *secrets = Arc::new(secrets.refreshed(ring, admin)));
        let states = current.borrow().states();
        for complaint in states.iter().filter_map(SecretState::complaint) {
            tracing::warn!(complaint, "a secret cannot be read again");
        }
    }
}

async fn fetch_ring(control: &Bucket) -> Result<KeyRing, SecretsError> {
    let object = control.get(keys::SESSION_KEYS, MAX_BYTES).await?.ok_or(SecretsError::Missing)?;
    KeyRing::from_json(&zeroize::Zeroizing::new(object.bytes)).map_err(SecretsError::KeyRing)
}

async fn fetch_admin(control: &Bucket, profile: Profile) -> Result<Admin, SecretsError> {
    match profile {
        Profile::Classic => Ok(Admin::Missing),
        Profile::Secure => match control.get(keys::ADMIN_TOKEN_HASH, MAX_BYTES).await? {
            None => Ok(Admin::Missing),
            Some(object) => {
                AdminTokenHash::from_object(&object.bytes).map(Admin::Token).map_err(SecretsError::Admin)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn ring(byte: u8) -> KeyRing {
        let key = base64::engine::general_purpose::STANDARD.encode([byte; 64]);
        KeyRing::from_json(format!(r#"{{"active":"k","keys":[{{"kid":"k","key":"{key}"}}]}}"#).as_bytes())
            .expect("a ring")
    }

    fn name(secrets: &Secrets) -> String {
        secrets.ring_for_names().pseudonym("a", "b")
    }

    fn no_answer() -> SecretsError {
        let source = "no route".into();
        StoreError::Unavailable { operation: "GetObject", bucket: "c".to_owned(), source }.into()
    }

    fn token() -> Admin {
        Admin::Token(AdminTokenHash::of_token("t0ken"))
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_secret_does_not_hold_up_the_other() {
        let before = Secrets::new(ring(1), Some(AdminTokenHash::of_token("leaked")));
        let secrets = before.refreshed(Err(SecretsError::Missing), Ok(token()));
        assert_eq!(secrets.admin().ok(), Some(&AdminTokenHash::of_token("t0ken")));
        assert_eq!(name(&secrets), name(&before));
        let secrets = before.refreshed(Ok(ring(2)), Err(SecretsError::Admin(AdminTokenHashError)));
        assert_ne!(name(&secrets), name(&before));
        assert!(
            matches!(secrets.admin(), Err(NotInForce::AdminTokenUnreadable)),
            "the leaked one is not in force"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn secrets_that_cannot_be_read_expire() {
        let mut secrets = Secrets::new(ring(1), Some(AdminTokenHash::of_token("t0ken")));
        let mut refused = Vec::new();
        for minute in 1..=61 {
            tokio::time::advance(Duration::from_secs(60)).await;
            secrets = secrets.refreshed(Err(no_answer()), Err(no_answer()));
            if minute % 10 == 9 || minute % 10 == 0 {
                refused.push((minute, secrets.ring().is_err(), secrets.admin().is_err()));
            }
        }
        assert_eq!(refused[..2], [(9, false, false), (10, false, true)]);
        assert_eq!(refused[10..], [(59, false, true), (60, true, true)]);
        let secrets = secrets.refreshed(Ok(ring(1)), Ok(token()));
        assert!(secrets.ring().is_ok() && secrets.admin().is_ok(), "read again, they are believed again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_state_says_how_old_a_secret_is() {
        let secrets = Secrets::new(ring(1), Some(AdminTokenHash::of_token("t0ken")));
        tokio::time::advance(Duration::from_secs(90)).await;
        let [keys, admin] = secrets.refreshed(Err(SecretsError::Missing), Ok(token())).states();
        assert_eq!((keys.read_seconds_ago, admin.read_seconds_ago), (90, 0));
        assert_eq!(admin.complaint(), None);
        let complaint = keys.complaint().expect("something is wrong");
        assert!(complaint.contains("90 s ago") && complaint.contains("is missing"), "{complaint}");
        assert!(complaint.contains("is in force"), "{complaint}");
    }

    #[test]
    fn the_object_is_hexadecimal_text() {
        let hex = data_encoding::HEXLOWER.encode(&Sha256::digest(b"t0ken"));
        for text in [hex.clone(), format!("{hex}\n"), hex.to_uppercase()] {
            assert_eq!(
                AdminTokenHash::from_object(text.as_bytes()),
                Ok(AdminTokenHash::of_token("t0ken")),
                "{text}"
            );
        }
        for text in ["", "t0ken", &hex[..62]] {
            assert_eq!(AdminTokenHash::from_object(text.as_bytes()), Err(AdminTokenHashError), "{text}");
        }
    }
}
