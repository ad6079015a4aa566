//! What a tick believes about the world. Anything that could not be learned is an `Err` with the
//! reason, never an empty list.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleet::release::Release;
use fleet::{DesiredCount, Registry, WorkerId};
use jiff::Timestamp;

/// How much of the fleet is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every worker is probed, with repetitions: verdicts follow.
    Fleet,
    /// Only those that boot, once: a silence means nothing.
    Boots,
}

#[derive(Clone, Debug)]
pub struct Observation {
    /// Scheduled time of the tick.
    pub tick: Timestamp,
    pub desired: Result<DesiredCount, String>,
    pub release: Result<Release, String>,
    /// The registry that readers have now; `Ok(None)` if there is none yet.
    pub registry: Result<Option<Registry>, String>,
    pub registry_etag: Option<String>,
    /// All instances of the stack in any state.
    pub instances: Result<Vec<Instance>, String>,
    pub probes: BTreeMap<WorkerId, Probe>,
}

/// An instance as EC2 shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: WorkerId,
    pub role: Role,
    pub state: State,
    pub address: Option<IpAddr>,
    pub subnet: String,
    pub zone: String,
    pub slot: Option<u32>,
    pub attempt: Option<u32>,
    pub release: String,
    pub launched: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Worker,
    LoadBalancer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    /// Stopping or stopped: nothing of ours stops instances, so it will not serve again.
    Stopped,
}

impl State {
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }
}

/// What a worker said when it was asked for its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Answered,
    /// Every try was refused or reset: the host is there, the program is not, and systemd did not
    /// bring it back.
    Refused,
    /// At least one try got no answer in time.
    Silent,
}
