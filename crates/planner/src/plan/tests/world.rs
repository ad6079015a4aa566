//! EC2, the workers and the readers of the registry, as far as a plan can notice them: time passes
//! only from tick to tick, and faults happen when a test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{Event, Memory, Phase};
use fleet::release::{BalancerSpec, Credits, InstanceSpec, Market, Release, SubnetSpec};
use fleet::{DesiredCount, LB_ADMIN_PORT, Profile, Registry, WORKER_PORT, WorkerAddr, WorkerId};
use jiff::{SignedDuration, Timestamp};

use crate::decision::Decision;
use crate::effect::{Failure, Launch};
use crate::held_back::HeldBack;
use crate::observation::{
    Address, Instance, Observation, Probe, Role, Scope, State, Target, is_booting, known_by_zone, targets,
};
use crate::plan::{Outcomes, Plan, look, plan, settle};

/// Whether the last tick held back an action of this pattern.
macro_rules! holds {
    ($world:expr, $pattern:pat $(if $guard:expr)?) => {
        $world.held_back.iter().any(|held| matches!(held, $pattern $(if $guard)?))
    };
}
pub(super) use holds;

/// Whether a decision of this pattern was taken since the world began.
macro_rules! decided {
    ($world:expr, $pattern:pat $(if $guard:expr)?) => {
        $world.decisions.iter().any(|decision| matches!(decision, $pattern $(if $guard)?))
    };
}
pub(super) use decided;

pub(super) const TICK: SignedDuration = SignedDuration::from_secs(20);
/// A new worker answers in the second tick after its launch.
const BOOT: SignedDuration = SignedDuration::from_secs(30);
/// Ticks without any change after which nothing more is to come: longer than a boot may take and
/// than an orphan is left alone.
const CALM: usize = 10;
/// Ticks of two hours: the longest pause of the policy takes half an hour.
const MOST_TICKS: usize = 360;
pub(super) const SUBNETS: [&str; 2] = ["subnet-a", "subnet-b"];

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) memory: Memory,
    /// The actions that the last tick held back.
    pub(super) held_back: Vec<HeldBack>,
    /// All decisions so far, oldest first.
    pub(super) decisions: Vec<Decision>,
    pub(super) desired: Result<DesiredCount, String>,
    pub(super) release: Release,
    pub(super) registry: Option<Registry>,
    pub(super) machines: Vec<Machine>,
    /// What happens to the next launches, in their order.
    pub(super) launch_faults: VecDeque<LaunchFault>,
    pub(super) without_capacity: BTreeSet<String>,
    /// Definitions whose image, group or type EC2 refuses.
    pub(super) unlaunchable: BTreeSet<String>,
    /// Subnets whose zone does not offer the instance type.
    pub(super) not_offered: BTreeSet<String>,
    /// Instances that the account may run.
    pub(super) quota: Option<usize>,
    /// How EC2 refuses the next caps on CPU credits.
    pub(super) credit_refusals: VecDeque<AwsErrorKind>,
    /// Releases whose program never starts.
    pub(super) broken: BTreeSet<String>,
    /// Releases whose program keeps crashing.
    pub(super) crashing: BTreeSet<String>,
    /// The prober hears no instance, whatever the workers do.
    pub(super) is_deaf: bool,
    pub(super) can_publish: bool,
    pub(super) can_terminate: bool,
    /// Who has the Elastic IP.
    pub(super) holder: Option<WorkerId>,
    /// Who has the further addresses, by their places.
    pub(super) more_holders: BTreeMap<u32, WorkerId>,
    pub(super) can_associate: bool,
    /// EC2 answers nothing about this zone: of the others it shows what memory knows, by its ids.
    pub(super) zone_out: Option<String>,
}

pub(super) struct Machine {
    pub(super) row: Instance,
    /// Client token it was launched with.
    token: Option<String>,
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
    /// The program crashes every few seconds, and is restarted.
    Crashes,
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
            held_back: Vec::new(),
            decisions: Vec::new(),
            desired: Ok(count(desired)),
            release: release("ami-1", &SUBNETS),
            registry: None,
            machines: Vec::new(),
            launch_faults: VecDeque::new(),
            without_capacity: BTreeSet::new(),
            unlaunchable: BTreeSet::new(),
            not_offered: BTreeSet::new(),
            quota: None,
            credit_refusals: VecDeque::new(),
            broken: BTreeSet::new(),
            crashing: BTreeSet::new(),
            is_deaf: false,
            can_publish: true,
            can_terminate: true,
            holder: None,
            more_holders: BTreeMap::new(),
            can_associate: true,
            zone_out: None,
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
        let planned = plan(seen, self.memory.clone(), &self.release.policy, self.now);
        self.held_back.clear();
        self.carry_out(&planned);
        for machine in self.machines.iter_mut().filter(|machine| machine.row.state == State::ShuttingDown) {
            machine.row.state = State::Terminated;
        }
        self.now += self.release.policy.tick_every;
        planned
    }

    pub(super) fn ticks(&mut self, number: usize) {
        for _ in 0..number {
            self.tick();
        }
    }

    /// Ticks until a condition is met.
    #[track_caller]
    pub(super) fn tick_until(&mut self, what: &str, is_met: impl Fn(&Self) -> bool) {
        for _ in 0..MOST_TICKS {
            if is_met(self) {
                return;
            }
            self.tick();
        }
        panic!("waited in vain until {what}: {:?} {:#?}", self.held_back, self.memory);
    }

    /// Ticks until something is launched, and calls `before` after each tick without a launch.
    #[track_caller]
    pub(super) fn tick_until_launch(&mut self, mut before: impl FnMut(&Self)) {
        for _ in 0..MOST_TICKS {
            if !self.tick().launches.is_empty() {
                return;
            }
            before(self);
        }
        panic!("waited in vain for a launch: {:?} {:#?}", self.held_back, self.memory);
    }

    /// A look between two ticks.
    pub(super) fn watch(&mut self) -> Option<Plan> {
        let seen = self.observe(Scope::Boots);
        let planned = look(&seen, self.memory.clone(), &self.release.policy, self.now).plan?;
        self.carry_out(&planned);
        Some(planned)
    }

    fn carry_out(&mut self, planned: &Plan) {
        self.memory = planned.memory.clone();
        self.held_back.extend(planned.held_back.iter().cloned());
        self.decisions.extend(planned.decisions.iter().cloned());
        if let Some(registry) = planned.registry.clone().filter(|_| self.can_publish) {
            self.registry = Some(registry);
        }
        let mut outcomes = Outcomes { last_launch: planned.last_launch, ..Outcomes::default() };
        for launch in &planned.launches {
            let result = self.launch(launch);
            outcomes.launched.push((launch.clone(), result));
        }
        if let Some(to) = &planned.association {
            if self.can_associate {
                let spec = self.release.balancer.as_ref().expect("a definition");
                let places = spec.places().find(|(_, allocation)| *allocation == to.allocation);
                match places.expect("an address of the stack's").0 {
                    0 => self.holder = Some(to.instance.clone()),
                    place => drop(self.more_holders.insert(place, to.instance.clone())),
                }
            } else {
                outcomes.not_associated.push((to.instance.clone(), "on purpose".to_owned()));
            }
        }
        for id in &planned.terminations {
            if self.can_terminate {
                self.terminate(id);
            } else {
                outcomes.not_terminated.push((id.clone(), "on purpose".to_owned()));
            }
        }
        for id in &planned.credits {
            let refusal = self.credit_refusals.pop_front();
            let result = refusal.map_or(Ok(()), |kind| Err(Failure { kind, why: "on purpose".to_owned() }));
            outcomes.credits.push((id.clone(), result));
        }
        let settled = settle(&mut self.memory, &outcomes, &self.release.policy, self.now);
        self.held_back.extend(settled.held_back);
        self.decisions.extend(settled.decisions.into_iter().map(Decision::from));
    }

    pub(super) fn observe(&self, scope: Scope) -> Observation {
        let by_zone = known_by_zone(&self.memory);
        let known = |row: &Instance| by_zone.values().flatten().any(|id| *id == row.id);
        let is_listed = |machine: &&Machine| match &self.zone_out {
            Some(zone) => machine.row.zone != *zone && known(&machine.row),
            None => machine.hidden_until <= self.now,
        };
        let listed = self.machines.iter().filter(is_listed);
        let rows: Vec<Instance> = listed.map(|machine| machine.row.clone()).collect();
        // Without an id to ask for, nothing is known at all.
        let instances = match &self.zone_out {
            Some(_) if rows.is_empty() => Err("a zone is out".to_owned()),
            Some(_) | None => Ok(rows),
        };
        // EC2 is not asked about a zone without a remembered instance.
        let dark = self.zone_out.iter().filter(|zone| by_zone.contains_key(*zone));
        let targets = targets(instances.as_deref().unwrap_or_default(), &self.memory, scope);
        Observation {
            desired: self.desired.clone(),
            release: Ok(Some(Arc::new(self.release.clone()))),
            registry: Ok(self.registry.clone().map(Arc::new)),
            registry_etag: None,
            instances,
            addresses: Ok(self.addresses()),
            is_partial: self.zone_out.is_some(),
            dark: dark.map(|zone| (zone.clone(), "out".to_owned())).collect(),
            started: targets.iter().filter_map(|target| self.started(target)).collect(),
            probes: targets.into_iter().map(|target| (target.id, self.probe(target.addr))).collect(),
        }
    }

    fn probe(&self, addr: WorkerAddr) -> Probe {
        let at_addr = |machine: &&Machine| machine.addr() == Some(addr) && machine.row.state.is_live();
        match self.machines.iter().find(at_addr) {
            Some(machine) if !self.is_deaf && !self.broken.contains(&machine.row.release) => {
                machine.probe(self.now)
            }
            Some(_) if !self.is_deaf => Probe::Refused,
            _ => Probe::Silent,
        }
    }

    /// What a worker that answers says of itself.
    fn started(&self, target: &Target) -> Option<(WorkerId, Timestamp)> {
        let machine = self.machines.iter().find(|machine| machine.row.id == target.id)?;
        let crashes = machine.health == Health::Crashes || self.crashing.contains(&machine.row.release);
        let started = if crashes { self.now - SignedDuration::from_secs(3) } else { machine.serves_from };
        (self.probe(target.addr) == Probe::Answered).then(|| (target.id.clone(), started))
    }

    fn addresses(&self) -> Vec<Address> {
        let Some(spec) = &self.release.balancer else { return Vec::new() };
        let holder =
            |place| if place == 0 { self.holder.clone() } else { self.more_holders.get(&place).cloned() };
        let address = |(place, allocation): (u32, &str)| Address {
            allocation: allocation.to_owned(),
            instance: holder(place),
        };
        spec.places().map(address).collect()
    }

    fn launch(&mut self, launch: &Launch) -> Result<WorkerId, Failure> {
        let is_out = self.zone_out == Some(launch.subnet.replace("subnet", "zone"));
        let launched = match self.launch_faults.pop_front() {
            _ if is_out => Err(AwsErrorKind::Other),
            Some(LaunchFault::Refused(kind)) if self.may_refuse(launch, kind) => Err(kind),
            Some(LaunchFault::ReplyLost) => self.run_instance(launch).and(Err(AwsErrorKind::Other)),
            _ => self.run_instance(launch),
        };
        launched.map_err(|kind| Failure { kind, why: "on purpose.".to_owned() })
    }

    /// Errors about an instance to be never answer a launch that took place.
    fn may_refuse(&self, launch: &Launch, kind: AwsErrorKind) -> bool {
        use AwsErrorKind::{AccountLimit, NoCapacity, PendingVerification, TokenMismatch, TokenSpent};
        let is_definite =
            matches!(kind, NoCapacity | AccountLimit | PendingVerification | TokenMismatch | TokenSpent);
        !is_definite || self.launched(launch).is_none()
    }

    /// The instance with the client token of a launch, which holds within one zone.
    fn launched(&self, launch: &Launch) -> Option<&Machine> {
        let is_it = |machine: &&Machine| {
            machine.token.as_ref() == Some(&launch.token) && machine.row.subnet == launch.subnet
        };
        self.machines.iter().find(is_it)
    }

    /// RunInstances.
    fn run_instance(&mut self, launch: &Launch) -> Result<WorkerId, AwsErrorKind> {
        if let Some(Machine { row, .. }) = self.launched(launch) {
            let parameters = (row.role, row.slot, row.attempt, &row.release);
            return match row.state {
                State::ShuttingDown | State::Terminated => Err(AwsErrorKind::TokenSpent),
                _ if parameters
                    != (launch.role, Some(launch.slot), Some(launch.attempt), &launch.release) =>
                {
                    Err(AwsErrorKind::TokenMismatch)
                }
                State::Pending | State::Running | State::Stopped => Ok(row.id.clone()),
            };
        }
        if self.unlaunchable.contains(&launch.release) {
            return Err(AwsErrorKind::Definition);
        }
        if self.not_offered.contains(&launch.subnet) {
            return Err(AwsErrorKind::NotOffered);
        }
        let running = self.machines.iter().filter(|machine| machine.row.state.is_live()).count();
        if self.quota.is_some_and(|quota| running >= quota) {
            return Err(AwsErrorKind::AccountLimit);
        }
        if self.without_capacity.contains(&launch.subnet) {
            return Err(AwsErrorKind::NoCapacity);
        }
        let id = self.add(Some((launch.slot, launch.attempt)), &launch.subnet);
        let machine = self.machine(&id);
        machine.token = Some(launch.token.clone());
        machine.row.role = launch.role;
        machine.row.release.clone_from(&launch.release);
        Ok(id)
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
        self.machines.push(Machine {
            row,
            token: None,
            health: Health::Well,
            hidden_until: self.now,
            serves_from,
        });
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

    /// The workers that EC2 would bill.
    pub(super) fn live(&self) -> Vec<WorkerId> {
        self.live_of(Role::Worker)
    }

    pub(super) fn live_of(&self, role: Role) -> Vec<WorkerId> {
        let live = self.machines.iter().filter(|machine| machine.row.state.is_live());
        let live = live.filter(|machine| machine.row.role == role);
        live.map(|machine| machine.row.id.clone()).collect()
    }

    /// Slots whose worker has not answered yet.
    pub(super) fn booting(&self) -> usize {
        self.memory.slots.values().filter(|slot| is_booting(slot.phase)).count()
    }

    /// The events in memory that such decisions have left.
    pub(super) fn events_of(&self, is_it: impl Fn(&Decision) -> bool) -> Vec<&Event> {
        let sentences = self.decisions.iter().filter(|decision| is_it(decision)).map(Decision::to_string);
        let sentences: BTreeSet<String> = sentences.collect();
        self.memory.events.iter().filter(|event| sentences.contains(&event.text)).collect()
    }

    /// Boots of the present release that failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.memory.boots.get(&self.release.id).map_or(0, |boots| boots.failures)
    }

    pub(super) fn published(&self) -> Vec<WorkerId> {
        self.registry.iter().flat_map(|registry| registry.workers.keys().cloned()).collect()
    }

    pub(super) fn desire(&mut self, desired: u32) {
        self.desired = Ok(count(desired));
    }

    /// A count that takes most of the fleet away, read often enough to be believed.
    pub(super) fn desire_surely(&mut self, desired: u32) {
        self.desire(desired);
        self.tick();
    }

    /// A load balancer that has served for long, and the definition to replace it.
    pub(super) fn add_balancer(&mut self) -> WorkerId {
        let instance = spec("ami-lb", &SUBNETS);
        let allocation = "eipalloc-1".to_owned();
        let more_allocations = Vec::new();
        let id = "lb-1".to_owned();
        self.release.balancer = Some(BalancerSpec { id, allocation, more_allocations, instance });
        let id = self.add(None, SUBNETS[0]);
        let launched = self.now - SignedDuration::from_hours(1);
        let machine = self.machine(&id);
        machine.row.role = Role::LoadBalancer;
        "lb-1".clone_into(&mut machine.row.release);
        machine.row.launched = Some(launched);
        machine.serves_from = launched;
        self.holder = Some(id.clone());
        id
    }

    /// A second one, with an address of its own.
    pub(super) fn add_second_balancer(&mut self) -> WorkerId {
        let spec = self.release.balancer.as_mut().expect("there is a first");
        spec.more_allocations.push("eipalloc-2".to_owned());
        let id = self.add(Some((1, 0)), SUBNETS[1]);
        let launched = self.now - SignedDuration::from_hours(1);
        let machine = self.machine(&id);
        machine.row.role = Role::LoadBalancer;
        "lb-1".clone_into(&mut machine.row.release);
        machine.row.launched = Some(launched);
        machine.serves_from = launched;
        self.more_holders.insert(1, id.clone());
        id
    }

    /// A new definition of a worker, with the same load balancer.
    pub(super) fn deploy(&mut self, ami: &str) {
        let balancer = self.release.balancer.take();
        let policy = self.release.policy.clone();
        self.release = Release { balancer, policy, ..release(ami, &SUBNETS) };
    }

    /// A new definition of the load balancer; it keeps its address.
    pub(super) fn deploy_balancer(&mut self, id: &str) {
        let mut release = self.release.clone();
        let balancer = release.balancer.as_mut().expect("there is one");
        (balancer.id, balancer.instance.ami) = (id.to_owned(), format!("ami-{id}"));
        self.release = release;
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
            let Memory { desired, slots, attempts, leaving, balancer, revision, events, .. } = memory.clone();
            (desired, slots, attempts, leaving, balancer, revision, events)
        };
        let before = lasting(&self.memory);
        let planned = self.tick();
        let Plan { launches, terminations, association, registry, .. } = &planned;
        let is_idle =
            launches.is_empty() && terminations.is_empty() && association.is_none() && registry.is_none();
        let is_same = lasting(&self.memory) == before;
        (!is_idle || !is_same).then(|| format!("{planned:#?}"))
    }
}

impl Machine {
    pub(super) fn addr(&self) -> Option<WorkerAddr> {
        let port = match self.row.role {
            Role::Worker => WORKER_PORT,
            Role::LoadBalancer => LB_ADMIN_PORT,
        };
        self.row.address.map(|ip| WorkerAddr(SocketAddr::new(ip, port)))
    }

    fn probe(&self, now: Timestamp) -> Probe {
        match self.health {
            Health::Well | Health::Crashes if now >= self.serves_from => Probe::Answered,
            Health::Well | Health::Crashes | Health::Refuses => Probe::Refused,
            Health::Silent => Probe::Silent,
        }
    }
}

pub(super) fn count(number: u32) -> DesiredCount {
    number.try_into().expect("within bounds")
}

pub(super) fn release(ami: &str, subnets: &[&str]) -> Release {
    let worker = spec(ami, subnets);
    Release::new("test".parse().expect("a name"), Profile::Secure, "1".to_owned(), worker)
}

fn spec(ami: &str, subnets: &[&str]) -> InstanceSpec {
    let subnet = |id: &&str| SubnetSpec { id: (*id).to_owned(), zone: id.replace("subnet", "zone") };
    InstanceSpec {
        ami: ami.to_owned(),
        instance_type: "t4g.nano".to_owned(),
        subnets: subnets.iter().map(subnet).collect(),
        security_group: "sg-1".to_owned(),
        instance_profile: "worker".to_owned(),
        user_data: "#cloud-config\n".to_owned(),
        market: Market::OnDemand,
        credits: Credits::Standard,
    }
}

/// How many live workers there are in each zone.
pub(super) fn crowds(world: &World) -> BTreeMap<String, usize> {
    let mut crowds = BTreeMap::new();
    for machine in world.machines.iter().filter(|machine| machine.row.state.is_live()) {
        *crowds.entry(machine.row.zone.clone()).or_insert(0) += 1;
    }
    crowds
}
