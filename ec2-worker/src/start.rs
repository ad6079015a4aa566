//! The conditions for taking requests, and the exit code when one is not met.
//!
//! | code | meaning | a restart helps |
//! |---|---|---|
//! | 64 | the settings are wrong | no |
//! | 65 | the data bucket belongs to the other profile, or is being migrated | no |
//! | 69 | S3, the metadata service or the listen address is not available | yes |
//! | 78 | the secrets are missing or wrong | after a deployment |

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use fleet::{Profile, keys};
use process::telemetry;
use tokio::time::{Instant, sleep};

use crate::hash_pool::{HashLimits, HashPool};
use crate::identity::{Identity, IdentityError};
use crate::limits::Limits;
use crate::secrets::{self, SecretsError};
use crate::state::Parts;
use crate::{Config, Worker};
use aws::bucket::{Bucket, Expect, NewObject, StoreError, Write};

/// An instance's role may take up to a minute to work. Half would lose that race now and then;
/// double would only delay the restart that has to come.
const PATIENCE: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

const MAX_MARKER_BYTES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("this worker cannot find its instance id and address")]
    Identity(#[from] IdentityError),
    #[error(
        "the data bucket belongs to the profile `{found}` and this worker runs {ours}; the two never share users: \
         deploy this stack with VIGIA_PROFILE={found}, or make another stack"
    )]
    OtherProfile { found: String, ours: Profile },
    #[error("the users of the data bucket are being migrated; run `make migrate-profile` again to finish it")]
    Migrating,
    #[error("another worker is claiming the data bucket at this moment; this one tries again")]
    MarkerRace,
    #[error("S3 does not answer at start; check the instance's network and role")]
    Store(#[from] StoreError),
    #[error("the secrets cannot be used")]
    Secrets(#[source] SecretsError),
    #[error("cannot listen on {addr}; check that no other program uses it")]
    Listen {
        addr: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OtherProfile { .. } | Self::Migrating => 65,
            Self::Identity(IdentityError::TooExposed(_)) => process::settings::EX_USAGE,
            Self::Identity(_) | Self::Store(_) | Self::MarkerRace | Self::Listen { .. } => 69,
            Self::Secrets(_) => 78,
        }
    }

    /// Whether a moment later may be different.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Store(_) | Self::MarkerRace)
    }
}

impl From<SecretsError> for StartError {
    fn from(error: SecretsError) -> Self {
        match error {
            SecretsError::Store(error) => Self::Store(error),
            error => Self::Secrets(error),
        }
    }
}

/// Claims or checks the data bucket, reads the secrets, allocates the hash pool.
pub async fn prepare(
    config: &Config,
    identity: &Identity,
    data: Bucket,
    control: Bucket,
    hashing: HashLimits,
) -> Result<Worker, StartError> {
    let deadline = Instant::now() + PATIENCE;
    with_patience(deadline, || claim_bucket(&data, config.profile)).await?;
    let secrets =
        with_patience(deadline, async || Ok(secrets::fetch(&control, config.profile).await?)).await?;
    if config.profile == Profile::Classic {
        tracing::warn!("the classic profile stores plain passwords and lists them to any client");
    }
    let hashes = HashPool::new(hashing);
    let parts = Parts {
        id: identity.id.clone(),
        profile: config.profile,
        data,
        control,
        hashes,
        min_password: config.min_password,
        proxies: config.proxies.clone(),
        hosts: config.hosts.clone(),
        limits: Limits::default(),
    };
    Ok(Worker::new(parts, secrets))
}

/// The first worker writes its profile into the bucket; all others compare. Otherwise a classic
/// worker on a secure bucket would take the stored hash for the password.
pub async fn claim_bucket(data: &Bucket, profile: Profile) -> Result<(), StartError> {
    let marker =
        NewObject { content_type: "text/plain", bytes: profile.as_str().as_bytes().to_vec(), nonce: None };
    match data.put(keys::PROFILE_MARKER, &marker, &Expect::Absent).await? {
        Write::Done => {
            tracing::info!(profile = profile.as_str(), "this data bucket now belongs to this profile");
            return Ok(());
        }
        Write::Refused => {}
        Write::Raced => return Err(StartError::MarkerRace),
    }
    let found = data.get(keys::PROFILE_MARKER, MAX_MARKER_BYTES).await?.ok_or(StartError::MarkerRace)?;
    let found = String::from_utf8_lossy(&found.bytes).trim().to_owned();
    match found.as_str() {
        found if found == profile.as_str() => Ok(()),
        keys::MIGRATING => Err(StartError::Migrating),
        _ => Err(StartError::OtherProfile { found, ours: profile }),
    }
}

async fn with_patience<T, F>(deadline: Instant, mut attempt: impl FnMut() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, StartError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt().await {
            Err(error) if error.is_passing() && Instant::now() + pause < deadline => {
                tracing::warn!(error = telemetry::error_chain(&error), "not ready to start; trying again");
                sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn unavailable() -> StartError {
        let source = "no route".into();
        StartError::Store(StoreError::Unavailable { operation: "GetObject", bucket: "c".to_owned(), source })
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_works_after_a_minute_is_waited_for() {
        let begin = Instant::now();
        let attempt = async || {
            if begin.elapsed() < Duration::from_secs(60) { Err(unavailable()) } else { Ok(()) }
        };
        let outcome = with_patience(begin + PATIENCE, attempt).await;
        assert!(outcome.is_ok(), "{outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let begin = Instant::now();
        let attempts = Cell::new(0);
        let attempt = async || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(unavailable())
        };
        let error = with_patience(begin + PATIENCE, attempt).await.expect_err("S3 never answers");
        assert_eq!(error.exit_code(), 69);
        assert!(begin.elapsed() <= PATIENCE && attempts.get() > 10, "{} attempts", attempts.get());
    }

    #[tokio::test]
    async fn a_permanent_error_is_not_tried_again() {
        let attempts = Cell::new(0);
        let attempt = async || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(StartError::Secrets(SecretsError::Missing))
        };
        let outcome = with_patience(Instant::now() + PATIENCE, attempt).await;
        assert_eq!(outcome.expect_err("missing").exit_code(), 78);
        assert_eq!(attempts.get(), 1);
    }
}
