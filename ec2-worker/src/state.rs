//! `Worker`: what the handlers of one process share.

use std::sync::Arc;

use fleet::{Profile, WorkerId};
use tokio::sync::watch;
use users::password::MinChars;

use crate::client::TrustedProxies;
use crate::hash_pool::HashPool;
use crate::secrets::Secrets;
use crate::store::Bucket;

/// Cheap to clone; all clones are one worker.
#[derive(Clone)]
pub struct Worker(Arc<Shared>);

pub struct Shared {
    pub id: WorkerId,
    pub profile: Profile,
    pub data: Bucket,
    pub control: Bucket,
    pub hashes: HashPool,
    pub min_password: MinChars,
    pub proxies: TrustedProxies,
    secrets: watch::Sender<Arc<Secrets>>,
    draining: watch::Sender<bool>,
}

impl Worker {
    pub fn new(
        id: WorkerId,
        profile: Profile,
        data: Bucket,
        control: Bucket,
        hashes: HashPool,
        min_password: MinChars,
        proxies: TrustedProxies,
        secrets: Secrets,
    ) -> Self {
        Self(Arc::new(Shared {
            id,
            profile,
            data,
            control,
            hashes,
            min_password,
            proxies,
            secrets: watch::Sender::new(Arc::new(secrets)),
            draining: watch::Sender::new(false),
        }))
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
