//! EC2 as far as the reconciler can notice it: zonal client tokens, request buckets, capacity, zones
//! that are out, and an Elastic IP.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use fleet::WorkerId;
use fleet::aws_code::AwsErrorKind;
use planner::effect::{Failure, Launch};
use planner::observation::{Role, State};

use crate::clock::{Millis, NEVER, SECOND};
use crate::machine::{Boot, Machine, subnet_name};

/// RunInstances: five at once, two a second.
const LAUNCH_BURST: Millis = 5;
const LAUNCH_REFILL: Millis = SECOND / 2;
pub const ALLOCATION: &str = "eipalloc-1";

pub struct Ec2 {
    pub machines: Vec<Machine>,
    by_id: HashMap<WorkerId, usize>,
    /// By zone and token: a hash of the launch, and the index of its instance.
    tokens: HashMap<(usize, String), (u64, usize)>,
    /// When the launch bucket is full again.
    bucket_full_at: Millis,
    pub throttled_until: Millis,
    pub full_until: Vec<Millis>,
    pub out_until: Vec<Millis>,
    /// Who has the Elastic IP.
    pub holder: Option<usize>,
    /// How many instances the account may run.
    pub quota: Option<usize>,
    /// Until when it is only so many.
    pub lowered: (usize, Millis),
    pub counts_leaving: bool,
    pub unverified_until: Millis,
    /// Zones that were ever without capacity.
    pub was_full: Vec<bool>,
    /// Definitions whose image is gone.
    pub unlaunchable: HashSet<String>,
    /// Zones that do not offer an instance type.
    pub not_offered: HashSet<(usize, String)>,
    /// Until when no zone has capacity for these.
    pub types_full_until: HashMap<String, Millis>,
    pub denied_until: Millis,
    /// Definitions whose program crashes each time that it has run for so long.
    pub crashing: HashMap<String, Millis>,
    /// How often a definition was refused for its own sake.
    pub blamed: HashMap<String, u32>,
}

pub enum Ran {
    New(usize),
    Known(usize),
    Refused(Failure),
}

impl Ec2 {
    pub fn new(zones: usize) -> Self {
        Self {
            machines: Vec::new(),
            by_id: HashMap::new(),
            tokens: HashMap::new(),
            bucket_full_at: 0,
            throttled_until: 0,
            full_until: vec![0; zones],
            out_until: vec![0; zones],
            holder: None,
            quota: None,
            lowered: (0, 0),
            counts_leaving: false,
            unverified_until: 0,
            was_full: vec![false; zones],
            unlaunchable: HashSet::new(),
            not_offered: HashSet::new(),
            types_full_until: HashMap::new(),
            denied_until: 0,
            crashing: HashMap::new(),
            blamed: HashMap::new(),
        }
    }

    /// Instances that count against the quota.
    pub fn counted(&self, now: Millis) -> usize {
        let counts = |machine: &&Machine| match machine.state(now) {
            State::Pending | State::Running => true,
            State::ShuttingDown => self.counts_leaving,
            State::Stopped | State::Terminated => false,
        };
        self.machines.iter().filter(counts).count()
    }

    fn is_at_quota(&self, now: Millis) -> bool {
        let lowered = (now < self.lowered.1).then_some(self.lowered.0);
        let quota = self.quota.into_iter().chain(lowered).min();
        quota.is_some_and(|quota| self.counted(now) >= quota)
    }

    pub fn zones(&self) -> usize {
        self.full_until.len()
    }

    pub fn find(&self, id: &WorkerId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub fn is_out(&self, zone: usize, now: Millis) -> bool {
        now < self.out_until[zone]
    }

    pub fn is_any_out(&self, now: Millis) -> bool {
        self.out_until.iter().any(|until| now < *until)
    }

    /// Returns the instances that EC2 still knows.
    pub fn known(&self, now: Millis) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(move |machine| !machine.is_forgotten(now))
    }

    pub fn live(&self, role: Role) -> impl Iterator<Item = (usize, &Machine)> {
        let is_it = move |machine: &Machine| machine.row.role == role && machine.is_live();
        self.machines.iter().enumerate().filter(move |(_, machine)| is_it(machine))
    }

    /// Whether this launch took place before.
    pub fn knows(&self, launch: &Launch) -> bool {
        (0..self.zones()).any(|zone| self.tokens.contains_key(&(zone, launch.token.clone())))
    }

    pub fn run(&mut self, launch: &Launch, now: Millis, boot: Boot) -> Ran {
        let refused = |kind, why: &str| Ran::Refused(Failure { kind, why: why.to_owned() });
        let Some(zone) = (0..self.zones()).find(|zone| subnet_name(*zone) == launch.subnet) else {
            return refused(AwsErrorKind::NotFound, "InvalidSubnetID.NotFound");
        };
        if now < self.throttled_until || !self.take_from_bucket(now) {
            return refused(AwsErrorKind::Throttled, "RequestLimitExceeded");
        }
        if now < self.denied_until {
            return refused(AwsErrorKind::Denied, "UnauthorizedOperation");
        }
        let mut hasher = DefaultHasher::new();
        launch.hash(&mut hasher);
        let asked = hasher.finish();
        let key = (zone, launch.token.clone());
        if let Some((before, index)) = self.tokens.get(&key).copied() {
            if before != asked {
                return refused(AwsErrorKind::TokenMismatch, "IdempotentParameterMismatch");
            }
            if !self.machines[index].is_live() {
                return refused(AwsErrorKind::TokenSpent, "IdempotentInstanceTerminated");
            }
            return Ran::Known(index);
        }
        let explained = |kind, code: &str| {
            refused(kind, &fleet::quota::explain(code, "vCPU limit of 5 allows").expect("of the account"))
        };
        if now < self.unverified_until {
            return explained(AwsErrorKind::PendingVerification, "PendingVerification");
        }
        let kind = &launch.spec.instance_type;
        if self.unlaunchable.contains(&launch.release) {
            *self.blamed.entry(launch.release.clone()).or_default() += 1;
            return refused(AwsErrorKind::Definition, "InvalidAMIID.NotFound");
        }
        if self.not_offered.contains(&(zone, kind.clone())) {
            *self.blamed.entry(launch.release.clone()).or_default() += 1;
            return refused(AwsErrorKind::NotOffered, "Unsupported");
        }
        if self.is_at_quota(now) {
            return explained(AwsErrorKind::AccountLimit, "VcpuLimitExceeded");
        }
        let is_type_full = self.types_full_until.get(kind).is_some_and(|until| now < *until);
        if now < self.full_until[zone] || is_type_full {
            self.was_full[zone] = true;
            return refused(AwsErrorKind::NoCapacity, "InsufficientInstanceCapacity");
        }
        let tags = (Some(launch.slot), Some(launch.attempt), launch.release.as_str());
        let index = self.add(launch.role, zone, tags, launch.token.clone(), now, boot);
        self.tokens.insert(key, (asked, index));
        Ran::New(index)
    }

    pub fn add(
        &mut self,
        role: Role,
        zone: usize,
        tags: (Option<u32>, Option<u32>, &str),
        token: String,
        now: Millis,
        boot: Boot,
    ) -> usize {
        let index = self.machines.len();
        let number = u32::try_from(index).expect("a run launches few") + 1;
        let mut machine = Machine::new(number, role, zone, subnet_name(zone), tags, token, now, boot);
        if let Some(every) = self.crashing.get(&machine.row.release) {
            machine.crash(*every, machine.serves_from(), NEVER);
        }
        self.by_id.insert(machine.row.id.clone(), index);
        self.machines.push(machine);
        index
    }

    fn take_from_bucket(&mut self, now: Millis) -> bool {
        let full_at = self.bucket_full_at.max(now) + LAUNCH_REFILL;
        if full_at - now > LAUNCH_BURST * LAUNCH_REFILL {
            return false;
        }
        self.bucket_full_at = full_at;
        true
    }
}
