//! The secrets of the stack: the keys that seal sessions and the hash of the admin token.
//!
//! They are in the control bucket, not beside the users: one leaked bucket must not be enough to
//! forge sessions. A key is rotated by adding it, waiting for the workers to have read it, and
//! making it active; so workers read again every minute and keep what they have when that fails.

use std::sync::Arc;
use std::time::Duration;

use fleet::{Profile, keys, telemetry};
use tokio::sync::watch;

use crate::admin::{AdminTokenHash, AdminTokenHashError};
use crate::cookies::{KeyRing, KeyRingError};
use crate::store::{Bucket, StoreError};

/// A minute is how long a rotation has to wait for the slowest worker; it costs two reads a minute.
pub const REFRESH: Duration = Duration::from_secs(60);

/// A ring of eight keys is about a kilobyte.
const MAX_BYTES: usize = 16 * 1024;

pub struct Secrets {
    pub ring: KeyRing,
    /// `None` when the object is missing, and in classic, which asks for no token.
    pub admin: Option<AdminTokenHash>,
}

#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("cannot read the secrets")]
    Store(#[from] StoreError),
    #[error("{key} is missing from the control bucket; run the deployment again", key = keys::SESSION_KEYS)]
    Missing,
    #[error("{key} {0}; run the deployment again", key = keys::SESSION_KEYS)]
    KeyRing(KeyRingError),
    #[error("{key} {0}; run the deployment again", key = keys::ADMIN_TOKEN_HASH)]
    Admin(AdminTokenHashError),
}

pub async fn fetch(control: &Bucket, profile: Profile) -> Result<Secrets, SecretsError> {
    let (ring, admin) = tokio::try_join!(fetch_ring(control), fetch_admin(control, profile))?;
    Ok(Secrets { ring, admin })
}

/// Reads the secrets again and again; never ends.
pub async fn keep_fresh(
    control: Bucket,
    profile: Profile,
    every: Duration,
    current: watch::Sender<Arc<Secrets>>,
) {
    loop {
        tokio::time::sleep(every).await;
        match fetch(&control, profile).await {
            Ok(secrets) => drop(current.send_replace(Arc::new(secrets))),
            Err(error) => tracing::warn!(
                error = telemetry::error_chain(&error),
                "the secrets cannot be read again; those read before stay in force"
            ),
        }
    }
}

async fn fetch_ring(control: &Bucket) -> Result<KeyRing, SecretsError> {
    let object = control.get(keys::SESSION_KEYS, MAX_BYTES).await?.ok_or(SecretsError::Missing)?;
    KeyRing::from_json(&zeroize::Zeroizing::new(object.bytes)).map_err(SecretsError::KeyRing)
}

async fn fetch_admin(control: &Bucket, profile: Profile) -> Result<Option<AdminTokenHash>, SecretsError> {
    match profile {
        Profile::Classic => Ok(None),
        Profile::Secure => {
            let object = control.get(keys::ADMIN_TOKEN_HASH, MAX_BYTES).await?;
            object
                .map(|object| AdminTokenHash::from_object(&object.bytes))
                .transpose()
                .map_err(SecretsError::Admin)
        }
    }
}
