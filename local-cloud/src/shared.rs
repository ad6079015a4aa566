//! The state of a running local cloud.

use std::sync::Arc;

use parking_lot::MutexGuard;
use tokio::sync::Mutex;

use crate::account::Account;
use crate::api_faults::ApiFaults;
use crate::calls::Calls;
use crate::consistency::Consistency;
use crate::ec2::Ec2;
use crate::emulators::Emulator;
use crate::forward::Ministack;
use crate::iam::Iam;
use crate::iam::verdicts::Verdicts;
use crate::uses::Uses;

pub(crate) struct Shared {
    pub ec2: Ec2,
    pub account: Arc<Account>,
    pub ministack: Ministack,
    pub faults: parking_lot::Mutex<ApiFaults>,
    pub calls: Calls,
    pub uses: Uses,
    pub iam: Iam,
    pub verdicts: Verdicts,
    pub consistency: Consistency,
    /// Both children; emptied when they are stopped.
    pub emulators: Mutex<Vec<Emulator>>,
    /// Locked while the local cloud runs: two of them must not share a directory.
    pub _lock: std::fs::File,
}

impl Shared {
    pub(crate) fn api_faults(&self) -> MutexGuard<'_, ApiFaults> {
        self.faults.lock()
    }
}
