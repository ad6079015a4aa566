//! Effects that an invocation asks for, and events that answer them.
//!
//! Each effect is answered by exactly one event, unless the invocation dies before. An effect may
//! have happened although its answer says otherwise: a reply can be lost, and can be late.

use std::net::IpAddr;
use std::sync::Arc;

use fleet::aws_code::AwsErrorKind;
use fleet::memory::Memory;
use fleet::release::InstanceSpec;
use fleet::{Policy, Registry, WorkerId};
use jiff::{SignedDuration, Timestamp};

use crate::observation::{Instance, Observation, Probe, Role, Target};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Answered by [`Event::MemoryRead`].
    ReadMemory,
    /// Write memory over the version that was read; `None`: only if there is none. Answered by
    /// [`Event::MemoryWritten`].
    WriteMemory { memory: Arc<Memory>, if_match: Option<String> },
    /// Read desired count, release, registry, instances and address, all at the same time. Answered
    /// by [`Event::Surveyed`], without probes.
    Survey,
    /// Describe these instances, all of one zone, by their ids. Answered by [`Event::Described`].
    Describe { zone: String, ids: Vec<WorkerId> },
    /// Ask each target for its health. Answered by [`Event::Probed`].
    Probe { targets: Vec<Target>, knocking: Knocking },
    /// Write the registry over the version that was read. Answered by [`Event::Published`].
    Publish { registry: Arc<Registry>, if_match: Option<String> },
    /// Tell load balancers that there is a new registry, a hint. Answered by [`Event::Refreshed`].
    Refresh { addresses: Vec<IpAddr> },
    /// Run one instance. Answered by [`Event::Launched`].
    Launch(Launch),
    /// Answered by [`Event::Terminated`].
    Terminate(WorkerId),
    /// Move the Elastic IP to this instance. Answered by [`Event::Associated`].
    Associate { allocation: String, instance: WorkerId },
    /// Let it spend only the CPU credits that it earns. Answered by [`Event::CreditsCapped`].
    CapCredits(WorkerId),
    /// Answered by [`Event::Woke`], not before this time.
    Sleep { until: Timestamp },
}

/// How often and how patiently a target is asked for its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Knocking {
    pub tries: u32,
    /// Time from the start of one try to the start of the next.
    pub spacing: SignedDuration,
    /// Time limit of one try.
    pub timeout: SignedDuration,
    /// No try begins later than this after the first one.
    pub deadline: SignedDuration,
}

impl Knocking {
    pub fn new(policy: &Policy, tries: u32) -> Self {
        let &Policy { probe_spacing, probe_timeout, probe_deadline, .. } = policy;
        Self { tries, spacing: probe_spacing, timeout: probe_timeout, deadline: probe_deadline }
    }
}

/// An instance to run. The same token always comes with the same parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    pub role: Role,
    pub slot: u32,
    pub attempt: u32,
    pub subnet: String,
    /// Tag that says which definition this is.
    pub release: String,
    pub token: String,
    pub spec: Arc<InstanceSpec>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `date` is the time at which S3 answered, by its own clock.
    MemoryRead {
        object: Result<MemoryObject, String>,
        date: Option<Timestamp>,
    },
    MemoryWritten(Written),
    Surveyed(Box<Observation>),
    Described {
        zone: String,
        rows: Result<Vec<Instance>, String>,
    },
    Probed {
        probes: Vec<(WorkerId, Probe)>,
        /// See [`Observation::started`].
        started: Vec<(WorkerId, Timestamp)>,
    },
    Published(Written),
    Refreshed,
    Launched {
        launch: Launch,
        result: Result<WorkerId, Failure>,
    },
    Terminated {
        id: WorkerId,
        result: Result<(), Failure>,
    },
    Associated {
        instance: WorkerId,
        result: Result<(), Failure>,
    },
    CreditsCapped {
        id: WorkerId,
        result: Result<(), Failure>,
    },
    Woke,
}

/// The object `fleet/state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MemoryObject {
    Missing,
    Found {
        memory: Arc<Memory>,
        etag: String,
    },
    /// It is there and cannot be understood.
    Unreadable {
        why: String,
        etag: String,
    },
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    Done {
        etag: String,
    },
    /// Another version is there (412), is being written (409), or there is none any more (404). It
    /// may be our own, if a first reply was lost.
    Conflict,
    /// There was no answer, or the answer does not say whether the write took place.
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    pub kind: AwsErrorKind,
    pub why: String,
}
