//! `Worker`: what the handlers of one process share.

use std::sync::Arc;
use std::time::Duration;

use accounts::password::MinChars;
use fleet::hosts::HostNames;
use fleet::{DesiredCount, Profile, WorkerId};
use tokio::sync::{Semaphore, watch};

use crate::client::{Client, TrustedProxies};
use crate::dashboard::Fleets;
use crate::desired_count::{Change, CountError, DesiredCounts};
use crate::hash_pool::HashPool;
use crate::limits::{Limits, Shares};
use crate::secrets::Secrets;
use crate::session::cache::Sessions;
use crate::stats::Stats;
use crate::tally::Tally;
use crate::throttle::{Gates, Throttle};
use aws::bucket::Bucket;

/// Attempts at the same time, including those whose client has disconnected. Far more than the pool of
/// hashes can keep waiting; each costs some kilobytes.
const MAX_ATTEMPTS: u32 = 1024;
/// Attempts of one address at the same time. Each may wait some seconds for others at the same login; an
/// address that may have an eighth of all leaves the rest to others.
const MAX_ATTEMPTS_OF_ONE: usize = MAX_ATTEMPTS as usize / 8;

/// Cheap to clone; all clones are one worker.
#[derive(Clone)]
pub struct Worker(Arc<Shared>);

/// The parts of a worker.
pub struct Parts {
    pub id: WorkerId,
    pub profile: Profile,
    pub data: Bucket,
    pub control: Bucket,
    pub hashes: HashPool,
    pub min_password: MinChars,
    pub proxies: TrustedProxies,
    pub hosts: HostNames,
    pub limits: Limits,
}

/// A worker's parts and its state at run time. It derefs to the parts.
pub struct Shared {
    parts: Parts,
    pub throttle: Throttle,
    /// Registrations in progress, by login.
    pub sign_ups: Gates,
    /// Password changes in progress, by login.
    pub changes: Gates,
    pub sessions: Sessions,
    pub stats: Stats,
    pub tally: Tally,
    pub desired_counts: DesiredCounts,
    pub fleets: Fleets,
    attempts: Arc<Semaphore>,
    attempts_of_each: Shares,
    secrets: watch::Sender<Arc<Secrets>>,
    draining: watch::Sender<bool>,
}

/// Why an attempt was not run to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptError {
    /// The client or the worker has as many attempts as it may have.
    Busy,
    Panicked,
}

impl Worker {
    pub fn new(parts: Parts, secrets: Secrets) -> Self {
        Self(Arc::new(Shared {
            throttle: Throttle::new(parts.data.clone()),
            desired_counts: DesiredCounts::new(parts.control.clone()),
            fleets: Fleets::new(parts.control.clone()),
            parts,
            sign_ups: Gates::default(),
            changes: Gates::default(),
            sessions: Sessions::default(),
            stats: Stats::default(),
            tally: Tally::default(),
            attempts: Arc::new(Semaphore::new(MAX_ATTEMPTS as usize)),
            attempts_of_each: Shares::default(),
            secrets: watch::Sender::new(Arc::new(secrets)),
            draining: watch::Sender::new(false),
        }))
    }

    /// Runs an attempt to its end even if the client disconnects: a client that hangs up before the answer
    /// must not escape the count of failures.
    pub async fn to_the_end<T, E>(
        &self,
        client: &Client,
        attempt: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<AttemptError> + Send + 'static,
    {
        let share = self.attempts_of_each.take(client, MAX_ATTEMPTS_OF_ONE).ok_or(AttemptError::Busy)?;
        let place = Arc::clone(&self.attempts).try_acquire_owned().map_err(|_| AttemptError::Busy)?;
        let attempt = tokio::spawn(async move {
            let outcome = attempt.await;
            drop((place, share));
            outcome
        });
        attempt.await.unwrap_or_else(|_| Err(AttemptError::Panicked.into()))
    }

    /// Sets the desired count. Pictures of the fleet that were taken before are not shown again.
    pub async fn set_desired_count(&self, desired: DesiredCount) -> Result<Change, CountError> {
        let change = self.desired_counts.set(desired).await;
        self.fleets.forget();
        change
    }

    /// Waits for attempts that go on without a client.
    pub async fn attempts_are_over(&self, limit: Duration) {
        drop(tokio::time::timeout(limit, self.attempts.acquire_many(MAX_ATTEMPTS)).await);
    }

    /// The secrets in force now; a request takes them once.
    pub fn secrets(&self) -> Arc<Secrets> {
        Arc::clone(&self.0.secrets.borrow())
    }

    /// Where new secrets are put.
    pub fn secrets_slot(&self) -> watch::Sender<Arc<Secrets>> {
        self.0.secrets.clone()
    }

    /// From now on every response closes its connection.
    pub fn begin_draining(&self) {
        self.0.draining.send_replace(true);
    }

    pub fn is_draining(&self) -> bool {
        *self.0.draining.borrow()
    }

    pub fn draining(&self) -> watch::Receiver<bool> {
        self.0.draining.subscribe()
    }
}

impl std::ops::Deref for Worker {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}
