//! Limits how much of a processor an instance may use: EC2's credit options, and a limit that is real.
//!
//! | limit | when |
//! |---|---|
//! | of the fault `cpu-quota` | it was set for the instance |
//! | `--cpu-quota` | always, for every instance |
//! | `--cpu-baseline` | while the instance's credit option is `standard`, as if its credits were used up |
//!
//! The kernel enforces it where this process may make control groups (`cgroup.rs`), otherwise signals do
//! (`duty_cycle.rs`).

mod cgroup;
mod duty_cycle;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::machine::processes::Processes;
use cgroup::Group;

pub use cgroup::clean_up;

/// Percent of one core; 100 is a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(NonZeroU32);

/// More cores than any instance has.
const MOST_PERCENT: u32 = 100 * 1024;

impl Percent {
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text
            .strip_suffix('%')
            .unwrap_or(text)
            .parse()
            .ok()
            .filter(|n: &NonZeroU32| n.get() <= MOST_PERCENT);
        number.map(Self).ok_or_else(|| format!("`{text}` is not a share of a core, for example 10%"))
    }
}

/// The credit option of a burstable instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credits {
    Standard,
    Unlimited,
}

impl Credits {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "standard" => Some(Self::Standard),
            "unlimited" => Some(Self::Unlimited),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Unlimited => "unlimited",
        }
    }

    /// Returns the option of a type that was launched without one; `None` if it is not burstable.
    pub fn default_of(instance_type: &str) -> Option<Self> {
        match instance_type.split('.').next() {
            Some("t2") => Some(Self::Standard),
            Some("t3" | "t3a" | "t4g") => Some(Self::Unlimited),
            _ => None,
        }
    }
}

/// The limits of all instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub quota: Option<Percent>,
    pub baseline: Option<Percent>,
}

impl Policy {
    fn limit(self, credits: Option<Credits>) -> Option<Percent> {
        let baseline = self.baseline.filter(|_| credits == Some(Credits::Standard));
        [self.quota, baseline].into_iter().flatten().min()
    }
}

/// The processor of one instance.
pub struct Cpu {
    name: String,
    policy: Policy,
    processes: Arc<Processes>,
    state: Mutex<State>,
    limit: watch::Sender<Option<Percent>>,
    /// Made for the first limit; `None` if it cannot be had.
    group: OnceLock<Option<Group>>,
}

#[derive(Clone, Copy)]
struct State {
    credits: Option<Credits>,
    /// By a fault on purpose.
    forced: Option<Percent>,
}

impl Cpu {
    /// `name` is the instance's; no process of it runs yet.
    pub fn new(name: &str, policy: Policy, credits: Option<Credits>, processes: Arc<Processes>) -> Self {
        let cpu = Self {
            name: name.to_owned(),
            policy,
            processes,
            state: Mutex::new(State { credits, forced: None }),
            limit: watch::Sender::new(None),
            group: OnceLock::new(),
        };
        cpu.change(|_| ());
        cpu
    }

    pub fn credits(&self) -> Option<Credits> {
        self.state.lock().credits
    }

    pub fn set_credits(&self, credits: Credits) {
        self.change(|state| state.credits = Some(credits));
    }

    /// Limits this instance, whatever the limit of all; `None` ends that.
    pub fn force(&self, limit: Option<Percent>) {
        self.change(|state| state.forced = limit);
    }

    pub fn limit(&self) -> Option<Percent> {
        *self.limit.borrow()
    }

    /// Returns the file to which a process of the instance writes its id before it starts.
    pub fn entrance(&self) -> Option<PathBuf> {
        self.group.get()?.as_ref().map(Group::entrance)
    }

    /// Enforces the limit if the kernel does not. Never ends.
    pub async fn enforce(&self) {
        let mut limit = self.limit.subscribe();
        loop {
            let is_ours = limit.borrow_and_update().is_some() && matches!(self.group.get(), Some(None));
            if is_ours {
                duty_cycle::run(&self.processes, &limit).await;
            } else if limit.changed().await.is_err() {
                return;
            }
        }
    }

    /// Frees the kernel's group of the instance. No process of it runs any more.
    pub fn end(&self) {
        if let Some(Some(group)) = self.group.get() {
            group.remove();
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let limit = state.forced.or(self.policy.limit(state.credits));
        if limit == self.limit() {
            return;
        }
        tracing::info!(instance = self.name, percent_of_a_core = limit.map(Percent::get), "a CPU limit");
        if let Some(group) = self.group.get_or_init(|| Group::make(&self.name)) {
            group.limit(limit);
            group.take(&self.processes);
        }
        self.limit.send_replace(limit);
    }
}

#[cfg(test)]
mod tests;
