//! A stack with any number of workers: its memory, EC2's list, the published registry.
//!
//! More workers than [`DesiredCount::MAX`] are a surplus, which a plan begins to remove. So that a large
//! stack can be at rest all the same, its memory then follows a loss half a minute ago: a young memory does
//! everything but launch and remove, and says that it does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use fleet::memory::{Balancer, CreditCap, Holder, Memory, Phase, Slot};
use fleet::registry::RegisteredWorker;
use fleet::release::{BalancerSpec, Credits, InstanceSpec, Market, Release, SubnetSpec};
use fleet::{DesiredCount, LB_ADMIN_PORT, Profile, Registry, WORKER_PORT, WorkerAddr, WorkerId};
use jiff::{SignedDuration, Timestamp};
use planner::observation::{Address, Instance, Observation, Probe, Role, State};

pub const NAME: &str = "bench";
pub const ALLOCATION: &str = "eipalloc-0123456789abcdef0";
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 88, 0, 10);
const ZONES: [&str; 2] = ["us-east-1a", "us-east-1b"];
const SUBNETS: [&str; 2] = ["subnet-0aaaaaaaaaaaaaaa1", "subnet-0bbbbbbbbbbbbbbb2"];
/// Hosts in each /24 of the block.
const HOSTS: usize = 250;
/// Addresses run from 127.88.1.1; beyond this the block is full.
pub const MOST: usize = 254 * HOSTS;

pub struct Stack {
    pub size: usize,
    pub release: Arc<Release>,
    pub now: Timestamp,
}

impl Stack {
    pub fn new(size: usize, now: Timestamp) -> Self {
        let instance = |ami: &str| InstanceSpec {
            ami: ami.to_owned(),
            instance_type: "t4g.nano".to_owned(),
            subnets: (0..2)
                .map(|n| SubnetSpec { id: SUBNETS[n].to_owned(), zone: ZONES[n].to_owned() })
                .collect(),
            security_group: "sg-0123456789abcdef0".to_owned(),
            instance_profile: "vigia-bench-worker".to_owned(),
            // As long as a real one.
            user_data: format!("#cloud-config\n{}", "# padding\n".repeat(200)),
            market: Market::OnDemand,
            credits: Credits::Standard,
        };
        let name = NAME.parse().expect("a name");
        let mut release =
            Release::new(name, Profile::Secure, "1".to_owned(), instance("ami-0123456789abcdef0"));
        release.balancer = Some(BalancerSpec::new(ALLOCATION.to_owned(), instance("ami-0fedcba9876543210")));
        Self { size, release: Arc::new(release), now }
    }

    /// Returns as many as there are, if that is a valid count.
    pub fn desired(&self) -> DesiredCount {
        let number = u32::try_from(self.size).unwrap_or(u32::MAX).min(DesiredCount::MAX);
        number.try_into().expect("within bounds")
    }

    pub fn is_surplus(&self) -> bool {
        self.size > self.desired().get() as usize
    }

    pub fn ids(&self) -> impl Iterator<Item = (u32, WorkerId)> {
        (0..).take(self.size).map(|number| (number, id(number)))
    }

    /// Returns the memory: all workers serve. Young if there is a surplus, so that it stays.
    pub fn memory(&self) -> Memory {
        let began = if self.is_surplus() { self.ago(30) } else { self.ago(3600) };
        let mut memory = Memory {
            nonce: "0123456789abcdef-1".to_owned(),
            began: Some(began),
            follows_loss: self.is_surplus(),
            last_tick: Some(self.ago(60)),
            desired: Some(self.desired()),
            slots: self.ids().map(|(number, id)| (number, self.slot(number, id))).collect(),
            attempts: self.ids().map(|(number, _)| (number, 1)).collect(),
            balancer: Balancer {
                attempt: 1,
                holder: Some(self.holder()),
                boots_of: self.balancer_spec().id.clone(),
                proven: Some(self.balancer_spec().clone()),
                ..Balancer::default()
            },
            revision: 7,
            proven: Some(self.release.as_ref().clone()),
            credits: CreditCap {
                done: self.ids().map(|(_, id)| id).chain([balancer()]).collect(),
                refused: None,
            },
            ..Memory::default()
        };
        for number in 0..Memory::MAX_EVENTS {
            let text = format!("{} serves, 47 s after its launch; event {number} of many like it.", id(1));
            memory.record(self.ago(3600), text);
        }
        memory
    }

    fn slot(&self, number: u32, id: WorkerId) -> Slot {
        Slot {
            attempt: 1,
            release: self.release.id.clone(),
            subnet: SUBNETS[zone(number)].to_owned(),
            zone: ZONES[zone(number)].to_owned(),
            phase: Phase::Healthy,
            since: self.ago(3600),
            worker: Some(id),
            addr: Some(worker_addr(number)),
            missing_since: None,
            is_adopted: false,
            is_unwanted: false,
            served: true,
        }
    }

    fn holder(&self) -> Holder {
        Holder {
            id: balancer(),
            addr: Some(WorkerAddr(balancer_addr())),
            since: self.ago(3600),
            answered: true,
            silent_since: None,
            missing_since: None,
            release: Some(self.balancer_spec().id.clone()),
            zone: None,
            started: None,
        }
    }

    fn balancer_spec(&self) -> &BalancerSpec {
        self.release.balancer.as_ref().expect("ours has a load balancer")
    }

    pub fn rows(&self) -> Vec<Instance> {
        let row = |role, id, ip, number, release: &str| Instance {
            id,
            role,
            state: State::Running,
            address: Some(IpAddr::V4(ip)),
            subnet: SUBNETS[zone(number)].to_owned(),
            zone: ZONES[zone(number)].to_owned(),
            slot: (role == Role::Worker).then_some(number),
            attempt: Some(1),
            release: release.to_owned(),
            launched: Some(self.ago(3700)),
        };
        let workers =
            self.ids().map(|(number, id)| row(Role::Worker, id, ip(number), number, &self.release.id));
        workers.chain([row(Role::LoadBalancer, balancer(), BALANCER, 0, &self.balancer_spec().id)]).collect()
    }

    /// Returns the registry of the readers: all workers.
    pub fn registry(&self) -> Registry {
        let entry =
            |number| RegisteredWorker { addr: worker_addr(number), zone: ZONES[zone(number)].to_owned() };
        Registry {
            revision: 7,
            written_at: self.ago(3600),
            desired: self.desired(),
            notice: None,
            workers: self.ids().map(|(number, id)| (id, entry(number))).collect(),
        }
    }

    pub fn observation(&self, probe: impl Fn(u32) -> Probe) -> Observation {
        let mut probes: BTreeMap<WorkerId, Probe> =
            self.ids().map(|(number, id)| (id, probe(number))).collect();
        probes.insert(balancer(), Probe::Answered);
        Observation {
            desired: Ok(self.desired()),
            release: Ok(Some(self.release.clone())),
            registry: Ok(Some(Arc::new(self.registry()))),
            registry_etag: Some("\"1\"".to_owned()),
            instances: Ok(self.rows()),
            addresses: Ok(vec![Address { allocation: ALLOCATION.to_owned(), instance: Some(balancer()) }]),
            dark: BTreeMap::new(),
            is_partial: false,
            probes,
            started: BTreeMap::new(),
        }
    }

    pub fn ago(&self, seconds: i64) -> Timestamp {
        self.now - SignedDuration::from_secs(seconds)
    }
}

fn zone(number: u32) -> usize {
    number as usize % 2
}

pub fn id(number: u32) -> WorkerId {
    format!("i-0{number:016x}").parse().expect("an id")
}

pub fn balancer() -> WorkerId {
    "i-0fffffffffffffff0".parse().expect("an id")
}

pub fn balancer_addr() -> SocketAddr {
    SocketAddr::from((BALANCER, LB_ADMIN_PORT))
}

fn ip(number: u32) -> Ipv4Addr {
    let byte = |number: usize| u8::try_from(number + 1).expect("there is room in the block");
    let number = number as usize;
    Ipv4Addr::new(127, 88, byte(number / HOSTS), byte(number % HOSTS))
}

pub fn worker_addr(number: u32) -> WorkerAddr {
    WorkerAddr(SocketAddr::from((ip(number), WORKER_PORT)))
}

#[cfg(test)]
mod tests {
    use fleet::Policy;
    use planner::plan::plan;

    use super::*;

    #[test]
    fn a_stack_of_any_size_is_at_rest() {
        for size in [1, 100, 101, 600] {
            let stack = Stack::new(size, Timestamp::UNIX_EPOCH);
            let (seen, policy) = (stack.observation(|_| Probe::Answered), Policy::default());
            let planned = plan(&seen, stack.memory(), &policy, stack.now);
            assert_eq!((planned.launches.len(), planned.terminations.len()), (0, 0), "{size}");
            assert_eq!((planned.registry, planned.association, planned.news), (None, None, 0), "{size}");
            assert_eq!(planned.memory.healthy(), size);
        }
    }
}
