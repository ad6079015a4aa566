//! What a tick believes about the world. Anything that could not be learned is an `Err` with the
//! reason, never an empty list.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fleet::memory::{Memory, Phase};
use fleet::release::Release;
use fleet::{DesiredCount, LB_ADMIN_PORT, Registry, WORKER_PORT, WorkerAddr, WorkerId};
use jiff::Timestamp;

/// How much of the fleet is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All instances are probed, with repetitions. Verdicts follow.
    Fleet,
    /// Only booting instances are probed, once. A silence means nothing.
    Boots,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observation {
    pub desired: Result<DesiredCount, String>,
    /// `Ok(None)` if there is none: the stack is being removed.
    pub release: Result<Option<Arc<Release>>, String>,
    /// The registry that readers have now; `Ok(None)` if there is none yet.
    pub registry: Result<Option<Arc<Registry>>, String>,
    pub registry_etag: Option<String>,
    /// All instances of the stack in any state.
    pub instances: Result<Vec<Instance>, String>,
    /// The stack's Elastic IPs.
    pub addresses: Result<Vec<Address>, String>,
    /// Zones for which EC2 did not answer, and why: of the others, only instances that memory knows
    /// are in `instances`.
    pub dark: BTreeMap<String, String>,
    /// Only instances that memory knows are listed.
    pub is_partial: bool,
    /// Who was asked, and what came back. Empty until they were asked.
    pub probes: BTreeMap<WorkerId, Probe>,
    /// Since when the process of each instance that answered runs, as far as it says so.
    pub started: BTreeMap<WorkerId, Timestamp>,
}

/// An instance as EC2 shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    pub id: WorkerId,
    pub role: Role,
    pub state: State,
    pub address: Option<IpAddr>,
    pub subnet: String,
    pub zone: String,
    /// Of a worker its slot, of a load balancer its place; without one it is in the first.
    pub slot: Option<u32>,
    pub attempt: Option<u32>,
    pub release: String,
    pub launched: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Worker,
    LoadBalancer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    /// Stopping or stopped. Vigia never stops an instance, so it will not serve again.
    Stopped,
}

impl State {
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    /// Whether EC2 has ended it, or is about to. A stopped instance keeps its disk, costs money and may
    /// be started again: it has to be terminated.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::ShuttingDown | Self::Terminated)
    }
}

/// An Elastic IP, and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub allocation: String,
    pub instance: Option<WorkerId>,
}

/// The outcome of a health probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    Answered,
    /// Every try was refused or reset: the host is there, the program is not, and systemd did not
    /// bring it back.
    Refused,
    /// At least one try got no answer in time.
    Silent,
}

/// An instance to probe: a worker at its port, a load balancer at its admin port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub id: WorkerId,
    pub role: Role,
    pub addr: WorkerAddr,
}

pub fn worker_addr(ip: IpAddr) -> WorkerAddr {
    WorkerAddr(SocketAddr::new(ip, WORKER_PORT))
}

pub fn admin_addr(ip: IpAddr) -> WorkerAddr {
    WorkerAddr(SocketAddr::new(ip, LB_ADMIN_PORT))
}

/// Returns the instances to probe. An instance that EC2 does not list now is probed at its last address. A
/// worker that was judged by its probes is probed until it is gone, and taken back if it answers.
pub fn targets(instances: &[Instance], memory: &Memory, scope: Scope) -> Vec<Target> {
    let mut targets: BTreeMap<&WorkerId, Target> = BTreeMap::new();
    let mut add = |id, role, addr| {
        let id: &WorkerId = id;
        targets.insert(id, Target { id: id.clone(), role, addr });
    };
    for slot in memory.slots.values() {
        if let (Some(id), Some(addr)) = (&slot.worker, slot.addr) {
            add(id, Role::Worker, addr);
        }
    }
    for balancer in memory.balancers() {
        if let Some(holder) = &balancer.holder
            && let Some(addr) = holder.addr
        {
            add(&holder.id, Role::LoadBalancer, addr);
        }
        if let Some(successor) = &balancer.successor
            && let (Some(id), Some(addr)) = (&successor.worker, successor.addr)
        {
            add(id, Role::LoadBalancer, addr);
        }
    }
    for row in instances {
        match row.address {
            Some(ip) if row.state.is_live() => {
                let addr = match row.role {
                    Role::Worker => worker_addr(ip),
                    Role::LoadBalancer => admin_addr(ip),
                };
                targets.insert(&row.id, Target { id: row.id.clone(), role: row.role, addr });
            }
            _ if !row.state.is_live() => {
                targets.remove(&row.id);
            }
            _ => {}
        }
    }
    targets.retain(|id, _| memory.leaving.get(*id).is_none_or(|leaving| leaving.judged));
    if scope == Scope::Boots {
        let heard = memory.slots.values().filter(|slot| !is_booting(slot.phase));
        let heard: BTreeSet<&WorkerId> = heard.filter_map(|slot| slot.worker.as_ref()).collect();
        let successors = memory.balancers().filter_map(|balancer| balancer.successor.as_ref());
        let successors: BTreeSet<&WorkerId> = successors.filter_map(|slot| slot.worker.as_ref()).collect();
        // Those whose first answer would be news.
        targets.retain(|id, target| match target.role {
            Role::Worker => !heard.contains(id),
            Role::LoadBalancer => successors.contains(id),
        });
    }
    targets.into_values().collect()
}

/// Remembered instances, by zone: while one is out, EC2 describes those of the others by their ids. The
/// zone of a holder that EC2 never showed is not known; it is asked for alone.
pub fn known_by_zone(memory: &Memory) -> BTreeMap<String, Vec<WorkerId>> {
    let successors = memory.balancers().filter_map(|balancer| balancer.successor.as_ref());
    let slots = memory.slots.values().chain(successors);
    let slots = slots.filter_map(|slot| Some((slot.zone.clone(), slot.worker.clone()?)));
    let holders = memory.balancers().filter_map(|balancer| balancer.holder.as_ref());
    let holders = holders.map(|holder| (holder.zone.clone().unwrap_or_default(), holder.id.clone()));
    let mut zones: BTreeMap<String, Vec<WorkerId>> = BTreeMap::new();
    for (zone, id) in slots.chain(holders) {
        zones.entry(zone).or_default().push(id);
    }
    zones
}

/// Whether the first answer is still to come.
pub const fn is_booting(phase: Phase) -> bool {
    matches!(phase, Phase::Launching | Phase::Booting | Phase::Unresolved)
}
