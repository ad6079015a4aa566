//! EC2, the workers and the readers of the registry, as far as a plan can notice them: time passes
//! only from tick to tick, and faults happen when a test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{Memory, Phase};
use fleet::release::{InstanceSpec, Release, SubnetSpec};
use fleet::{DesiredCount, Profile, Registry, WORKER_PORT, WorkerAddr, WorkerId};
use jiff::{SignedDuration, Timestamp};

use crate::act::{LaunchOutcome, Outcomes};
use crate::observation::{Instance, Observation, Probe, Role, Scope, State};
use crate::observe::targets;
use crate::plan::{Launch, Plan, plan, promote, settle};

pub(super) const TICK: SignedDuration = SignedDuration::from_secs(20);
/// A new worker answers in the second tick after its launch.
const BOOT: SignedDuration = SignedDuration::from_secs(30);
/// Ticks without any change after which nothing more is to come: longer than a boot may take and
/// than an orphan is left alone.
const CALM: usize = 10;
pub(super) const SUBNETS: [&str; 2] = ["subnet-a", "subnet-b"];

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) memory: Memory,
    pub(super) desired: Result<DesiredCount, String>,
    pub(super) release: Release,
    pub(super) registry: Option<Registry>,
    pub(super) machines: Vec<Machine>,
    /// What happens to the next launches, in their order.
    pub(super) launch_faults: VecDeque<LaunchFault>,
    pub(super) without_capacity: BTreeSet<String>,
    /// The prober hears nobody, whatever the workers do.
    pub(super) is_deaf: bool,
    pub(super) can_publish: bool,
    pub(super) can_terminate: bool,
}

pub(super) struct Machine {
    pub(super) row: Instance,
    pub(super) health: Health,
    /// EC2 does not list it before this time.
    pub(super) hidden_until: Timestamp,
    pub(super) serves_from: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// The program is gone.
    Refuses,
    /// The program hangs, or the host is gone.
    Silent,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum LaunchFault {
    Refused(AwsErrorKind),
    /// The instance is launched, and we are not told.
    ReplyLost,
}

impl World {
    /// A stack that was just deployed.
    pub(super) fn empty(desired: u32) -> Self {
        Self {
            now: Timestamp::from_second(1_800_000_000).expect("a time"),
            memory: Memory::default(),
            desired: Ok(count(desired)),
            release: release("ami-1", &SUBNETS),
            registry: None,
            machines: Vec::new(),
            launch_faults: VecDeque::new(),
            without_capacity: BTreeSet::new(),
            is_deaf: false,
            can_publish: true,
            can_terminate: true,
        }
    }

    /// A stack at rest, with workers in the slots from 0 on.
    pub(super) fn serving(desired: u32) -> Self {
        let mut world = Self::empty(desired);
        world.settle_down();
        assert_eq!(world.memory.healthy(), desired as usize);
        world
    }

    pub(super) fn tick(&mut self) -> Plan {
        let seen = self.observe(Scope::Fleet);
        self.tick_seeing(&seen)
    }

    /// A tick that believes this.
    pub(super) fn tick_seeing(&mut self, seen: &Observation) -> Plan {
        let planned = plan(seen, self.memory.clone(), self.now);
        self.carry_out(&planned);
        for machine in self.machines.iter_mut().filter(|machine| machine.row.state == State::ShuttingDown) {
            machine.row.state = State::Terminated;
        }
        self.now += TICK;
        planned
    }

    pub(super) fn ticks(&mut self, number: usize) {
        for _ in 0..number {
            self.tick();
        }
    }

    /// A look between two ticks.
    pub(super) fn watch(&mut self) -> Option<Plan> {
        let seen = self.observe(Scope::Boots);
        let planned = promote(&seen, self.memory.clone(), self.now)?;
        self.carry_out(&planned);
        Some(planned)
    }

    fn carry_out(&mut self, planned: &Plan) {
        self.memory = planned.memory.clone();
        if let Some(registry) = planned.registry.clone().filter(|_| self.can_publish) {
            self.registry = Some(registry);
        }
        let mut outcomes = Outcomes::default();
        for launch in &planned.launches {
            let result = self.launch(launch);
            outcomes.launched.push(LaunchOutcome { launch: launch.clone(), result });
        }
        for id in &planned.terminations {
            if self.can_terminate {
                self.terminate(id);
            } else {
                outcomes.not_terminated.push((id.clone(), "on purpose".to_owned()));
            }
        }
        settle(&mut self.memory, &outcomes, self.now);
    }

    pub(super) fn observe(&self, scope: Scope) -> Observation {
        let listed = self.machines.iter().filter(|machine| machine.hidden_until <= self.now);
        let rows: Vec<Instance> = listed.map(|machine| machine.row.clone()).collect();
        let targets = targets(&rows, &self.memory, scope);
        Observation {
            tick: self.now,
            desired: self.desired.clone(),
            release: Ok(self.release.clone()),
            registry: Ok(self.registry.clone()),
            registry_etag: None,
            instances: Ok(rows),
            probes: targets.into_iter().map(|(id, addr)| (id, self.probe(addr))).collect(),
        }
    }

    fn probe(&self, addr: WorkerAddr) -> Probe {
        let at_addr = |machine: &&Machine| machine.addr() == Some(addr) && machine.row.state.is_live();
        match self.machines.iter().find(at_addr).map(|machine| machine.probe(self.now)) {
            Some(probe) if !self.is_deaf => probe,
            _ => Probe::Silent,
        }
    }

    fn launch(&mut self, launch: &Launch) -> Result<WorkerId, (AwsErrorKind, String)> {
        let launched = match self.launch_faults.pop_front() {
            Some(LaunchFault::Refused(kind)) if self.may_refuse(launch, kind) => Err(kind),
            Some(LaunchFault::ReplyLost) => self.run_instance(launch).and(Err(AwsErrorKind::Other)),
            _ => self.run_instance(launch),
        };
        launched.map_err(|kind| (kind, "on purpose".to_owned()))
    }

    /// Errors about an instance to be never answer a launch that took place.
    fn may_refuse(&self, launch: &Launch, kind: AwsErrorKind) -> bool {
        use AwsErrorKind::{NoCapacity, TokenMismatch, TokenSpent};
        !matches!(kind, NoCapacity | TokenMismatch | TokenSpent) || self.launched(launch).is_none()
    }

    /// The instance with the client token of a launch: slot and attempt, within one zone.
    fn launched(&self, launch: &Launch) -> Option<&Machine> {
        let place = (Some(launch.slot), Some(launch.attempt));
        self.machines.iter().find(|machine| {
            (machine.row.slot, machine.row.attempt) == place && machine.row.subnet == launch.subnet
        })
    }

    /// RunInstances.
    fn run_instance(&mut self, launch: &Launch) -> Result<WorkerId, AwsErrorKind> {
        if let Some(machine) = self.launched(launch) {
            return match machine.row.state {
                State::ShuttingDown | State::Terminated => Err(AwsErrorKind::TokenSpent),
                State::Pending | State::Running | State::Stopped => Ok(machine.row.id.clone()),
            };
        }
        if self.without_capacity.contains(&launch.subnet) {
            return Err(AwsErrorKind::NoCapacity);
        }
        Ok(self.add(Some((launch.slot, launch.attempt)), &launch.subnet))
    }

    /// An instance of the stack's, launched now.
    pub(super) fn add(&mut self, place: Option<(u32, u32)>, subnet: &str) -> WorkerId {
        let number = u16::try_from(self.machines.len()).expect("fewer than 65536 machines in a test");
        let [high, low] = number.to_be_bytes();
        let id: WorkerId = format!("i-{number:03x}").parse().expect("an id");
        let row = Instance {
            id: id.clone(),
            role: Role::Worker,
            state: State::Running,
            address: Some(IpAddr::V4(Ipv4Addr::new(10, 0, high, low))),
            subnet: subnet.to_owned(),
            zone: subnet.replace("subnet", "zone"),
            slot: place.map(|(slot, _)| slot),
            attempt: place.map(|(_, attempt)| attempt),
            release: self.release.id.clone(),
            launched: Some(self.now),
        };
        let serves_from = self.now + BOOT;
        self.machines.push(Machine { row, health: Health::Well, hidden_until: self.now, serves_from });
        id
    }

    pub(super) fn terminate(&mut self, id: &WorkerId) {
        let row = &mut self.machine(id).row;
        if row.state != State::Terminated {
            row.state = State::ShuttingDown;
        }
    }

    pub(super) fn machine(&mut self, id: &WorkerId) -> &mut Machine {
        self.machines.iter_mut().find(|machine| machine.row.id == *id).expect("a machine with this id")
    }

    /// EC2 does not list it from now on, for so many ticks.
    pub(super) fn hide(&mut self, id: &WorkerId, ticks: i32) {
        let until = self.now + TICK * ticks;
        self.machine(id).hidden_until = until;
    }

    /// The worker in a slot falls ill, or gets well.
    pub(super) fn set(&mut self, slot: u32, health: Health) -> WorkerId {
        let id = self.id(slot);
        self.machine(&id).health = health;
        id
    }

    #[track_caller]
    pub(super) fn id(&self, slot: u32) -> WorkerId {
        self.memory.slots[&slot].worker.clone().expect("the slot's worker is known")
    }

    pub(super) fn phase(&self, slot: u32) -> Phase {
        self.memory.slots[&slot].phase
    }

    /// What EC2 would bill.
    pub(super) fn live(&self) -> Vec<WorkerId> {
        let live = self.machines.iter().filter(|machine| machine.row.state.is_live());
        live.map(|machine| machine.row.id.clone()).collect()
    }

    pub(super) fn published(&self) -> Vec<WorkerId> {
        self.registry.iter().flat_map(|registry| registry.workers.keys().cloned()).collect()
    }

    pub(super) fn desire(&mut self, desired: u32) {
        self.desired = Ok(count(desired));
    }

    pub(super) fn forget_everything(&mut self) {
        self.memory = Memory::default();
    }

    /// Ticks until there is nothing left to do.
    #[track_caller]
    pub(super) fn settle_down(&mut self) {
        let mut calm = 0;
        for _ in 0..150 {
            calm = if self.change_of_a_tick().is_none() { calm + 1 } else { 0 };
            if calm == CALM {
                return;
            }
        }
        panic!("still busy: {:#?}", self.memory);
    }

    /// Expects that there is nothing left to do.
    #[track_caller]
    pub(super) fn expect_rest(&mut self) {
        for _ in 0..CALM {
            if let Some(change) = self.change_of_a_tick() {
                panic!("not at rest: {change}");
            }
        }
    }

    fn change_of_a_tick(&mut self) -> Option<String> {
        let lasting = |memory: &Memory| {
            let Memory { desired, slots, attempts, leaving, revision, events, .. } = memory.clone();
            (desired, slots, attempts, leaving, revision, events)
        };
        let before = lasting(&self.memory);
        let planned = self.tick();
        let Plan { launches, terminations, registry, .. } = &planned;
        let is_idle = launches.is_empty() && terminations.is_empty() && registry.is_none();
        let is_same = lasting(&self.memory) == before;
        (!is_idle || !is_same).then(|| format!("{planned:#?}"))
    }
}

impl Machine {
    pub(super) fn addr(&self) -> Option<WorkerAddr> {
        self.row.address.map(|ip| WorkerAddr(SocketAddr::new(ip, WORKER_PORT)))
    }

    fn probe(&self, now: Timestamp) -> Probe {
        match self.health {
            Health::Well if now >= self.serves_from => Probe::Answered,
            Health::Well | Health::Refuses => Probe::Refused,
            Health::Silent => Probe::Silent,
        }
    }
}

pub(super) fn count(number: u32) -> DesiredCount {
    number.try_into().expect("within bounds")
}

pub(super) fn release(ami: &str, subnets: &[&str]) -> Release {
    let subnet = |id: &&str| SubnetSpec { id: (*id).to_owned(), zone: id.replace("subnet", "zone") };
    let worker = InstanceSpec {
        ami: ami.to_owned(),
        instance_type: "t4g.nano".to_owned(),
        subnets: subnets.iter().map(subnet).collect(),
        security_group: "sg-1".to_owned(),
        instance_profile: "worker".to_owned(),
        user_data: "#cloud-config\n".to_owned(),
    };
    Release::new("test".parse().expect("a name"), Profile::Secure, "1".to_owned(), worker)
}

/// How many live workers there are in each zone.
pub(super) fn crowds(world: &World) -> BTreeMap<String, usize> {
    let mut crowds = BTreeMap::new();
    for machine in world.machines.iter().filter(|machine| machine.row.state.is_live()) {
        *crowds.entry(machine.row.zone.clone()).or_insert(0) += 1;
    }
    crowds
}
