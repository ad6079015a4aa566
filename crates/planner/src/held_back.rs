//! Actions that a tick deliberately does not take, and why. Tests and checks match the variants; `status`, the
//! dashboard and `state.json` have the sentences.
//!
//! The sentences are stored: an older or newer version shows them as they are. Nothing reads them back.

use std::fmt::{self, Display, Formatter};

use fleet::memory::{Refusal, Slot};
use fleet::release::SubnetSpec;
use fleet::{DesiredCount, WorkerId};
use jiff::SignedDuration;

use crate::observation::Role;

/// An action that waits, and its reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeldBack {
    // --- What cannot be read ---
    /// The tick is blind.
    Everything {
        why: String,
    },
    NewerRelease {
        why: String,
    },
    /// The registry cannot be read.
    PublishingAndEnding {
        why: String,
    },
    /// The desired count cannot be read, or is wrong.
    Count {
        why: String,
        in_force: Option<DesiredCount>,
    },
    /// A count that takes most workers away.
    Lowering {
        to: DesiredCount,
        from: DesiredCount,
        after: SignedDuration,
    },
    // --- Instances ---
    /// EC2 does not answer for the zone of a launch that would be repeated.
    Repetition {
        who: Who,
        zone: String,
    },
    /// EC2 does not show the instance.
    Decision {
        who: Who,
    },
    /// A new instance that belongs to no slot.
    Unknown {
        id: WorkerId,
    },
    Termination {
        who: Who,
        why: TerminationBrake,
    },
    /// The call to EC2 failed.
    TerminationFailed {
        id: WorkerId,
        why: String,
    },
    /// A worker that keeps crashing stays until its replacement answers.
    CrashingStays {
        who: Who,
    },
    /// Other workers that keep crashing are replaced first.
    CrashingWaits {
        who: Who,
    },
    /// The removal of workers that are not needed; the state was lost a moment ago.
    Removal {
        workers: usize,
    },
    // --- Launches ---
    Launches {
        workers: usize,
        why: LaunchBrake,
    },
    NoSubnet {
        why: NoSubnet,
    },
    /// EC2 refuses launches, and the next try is later.
    NewWorkers {
        workers: usize,
        why: WaitedOut,
    },
    /// EC2 did not say whether it launched the instance.
    Launch {
        role: Role,
        slot: u32,
        why: String,
    },
    NoCapacity {
        role: Role,
        subnet: String,
        why: String,
    },
    DefinitionRefused {
        role: Role,
        release: String,
        why: String,
    },
    Refused {
        role: Role,
        why: String,
    },
    // --- Rollouts and room ---
    Rollout {
        release: String,
        why: RolloutBrake,
    },
    /// A worker was stopped so that a load balancer fits into the quota.
    WorkerForBalancer,
    /// The only worker would have to make room for a second load balancer.
    Renewal,
    /// The last worker that answers would have to make room for a load balancer.
    RoomForBalancer,
    // --- Load balancers ---
    /// The addresses cannot be read.
    Address {
        place: u32,
        why: String,
    },
    AddressMissing {
        place: u32,
    },
    /// The address moves in a later tick, because another one moves in this tick.
    AddressWaits {
        place: u32,
    },
    /// The call to EC2 failed.
    AddressFailed {
        id: WorkerId,
        why: String,
    },
    /// Whether the holder of the address is dead is not known yet.
    HolderDecision {
        place: u32,
        why: HolderDoubt,
    },
    /// The holder is dead, and its successor does not answer yet.
    Move {
        why: HolderFault,
    },
    NewBalancer {
        why: BalancerBrake,
    },
    // --- Credits ---
    Credits {
        instances: usize,
        why: String,
    },
    /// The call to EC2 failed.
    CreditsFailed {
        id: WorkerId,
        why: String,
    },
}

impl Display for HeldBack {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything { why } => write!(f, "everything: {why}"),
            Self::NewerRelease { why } => write!(f, "a newer release: {why}"),
            Self::PublishingAndEnding { why } => {
                write!(f, "publishing, drains and terminations for health: {why}")
            }
            Self::Count { why, in_force: Some(count) } => write!(f, "{why}; {count} stays in force"),
            Self::Count { why, in_force: None } => write!(f, "{why}; nothing is in force"),
            Self::Lowering { to, from, after } => write!(
                f,
                "the desired count {to}: it takes most of {from} workers away, and counts once it was read for {}",
                in_words(*after)
            ),
            Self::Repetition { who, zone } => write!(f, "{who}: EC2 does not answer for {zone}"),
            Self::Decision { who } => {
                write!(f, "a verdict on {who}: EC2 does not show it, which proves nothing yet")
            }
            Self::Unknown { id } => write!(f, "what to do with {id}: it is new and belongs to no slot"),
            Self::Termination { who, why } => write!(f, "the termination of {who}: {why}"),
            Self::TerminationFailed { id, why } => write!(f, "the termination of {id}: {why}"),
            Self::CrashingStays { who } => {
                write!(f, "the end of {who}: it keeps crashing, and its replacement has to answer first")
            }
            Self::CrashingWaits { who } => {
                write!(f, "the replacement of {who}: others that keep crashing come first")
            }
            Self::Removal { workers } => {
                write!(f, "the removal of {workers} workers: memory was lost a moment ago")
            }
            Self::Launches { workers, why } => write!(f, "{workers} launches: {why}"),
            Self::NoSubnet { why } => write!(f, "launches: {why}"),
            Self::NewWorkers { workers: 1, why } => write!(f, "a new worker: {why}"),
            Self::NewWorkers { workers, why } => write!(f, "{workers} new workers: {why}"),
            Self::Launch { role, slot, why } => write!(f, "the launch in {}: {why}", place(*role, *slot)),
            Self::NoCapacity { role, subnet, why } => {
                write!(f, "{}: no capacity in {subnet}: {why}", new_instance(*role))
            }
            Self::DefinitionRefused { role, release, why } => {
                write!(f, "{}: EC2 refuses to launch {release}: {why}", new_instance(*role))
            }
            Self::Refused { role, why } => write!(f, "{}: {why}", new_instance(*role)),
            Self::Rollout { release, why } => write!(f, "the rollout of release {release}: {why}"),
            Self::WorkerForBalancer => f.write_str(
                "a worker: it was stopped so that a new load balancer fits into the account's quota",
            ),
            Self::Renewal => f.write_str(
                "the renewal of the load balancer: the account has no room for a second one, and the only worker is \
                 not stopped without notice; raise the quota, or deploy again",
            ),
            Self::RoomForBalancer => f.write_str(
                "room for a new load balancer: it is not made by stopping the last worker that answers",
            ),
            Self::Address { place, why } => write!(f, "{}: {why}", balancer(*place)),
            Self::AddressMissing { place } => {
                write!(f, "{}: its Elastic IP is not there", balancer(*place))
            }
            Self::AddressWaits { place } => {
                write!(f, "the address of {}: another one moves in this tick", balancer(*place))
            }
            Self::AddressFailed { id, why } => write!(f, "the address for {id}: {why}"),
            Self::HolderDecision { place, why } => write!(f, "a verdict on {}: {why}", balancer(*place)),
            Self::Move { why } => {
                write!(f, "the public address: {why}, and its successor does not answer yet")
            }
            Self::NewBalancer { why } => write!(f, "a new load balancer: {why}"),
            Self::Credits { instances, why } => {
                write!(f, "the cap on the CPU credits of {instances} instances: {why}")
            }
            Self::CreditsFailed { id, why } => write!(f, "the cap on the CPU credits of {id}: {why}"),
        }
    }
}

/// An instance, or a launch whose instance is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    Instance(WorkerId),
    LaunchInSlot(u32),
    LaunchOfBalancer,
}

impl Who {
    /// The worker of a slot, or its launch.
    pub(crate) fn of_slot(number: u32, slot: &Slot) -> Self {
        slot.worker.clone().map_or(Self::LaunchInSlot(number), Self::Instance)
    }

    pub(crate) fn of_balancer(slot: &Slot) -> Self {
        slot.worker.clone().map_or(Self::LaunchOfBalancer, Self::Instance)
    }
}

impl Display for Who {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => write!(f, "{id}"),
            Self::LaunchInSlot(number) => write!(f, "the launch in slot {number}"),
            Self::LaunchOfBalancer => f.write_str("the launch of a load balancer"),
        }
    }
}

/// The rule that keeps an instance from being terminated now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TerminationBrake {
    Unseen,
    Young,
    Control,
    Zone,
    Degraded,
    Silent,
    Panic,
    Velocity,
    /// A termination that was decided earlier: no other worker answers any more.
    NoOtherAnswers,
    /// A termination that was decided earlier: no worker was heard.
    NoneHeard,
    /// A termination that was decided earlier: the instance was not probed in this tick.
    NotProbed,
    /// The boot of a load balancer, while no instance was heard.
    Deaf,
}

impl Display for TerminationBrake {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unseen => "EC2 does not show it, so it may be gone or not",
            Self::Young => "memory was lost a moment ago",
            Self::Control => {
                "no other worker answers, so the fault may be the prober's; a replacement is launched first"
            }
            Self::Zone => "most of its zone is silent; replacements are launched elsewhere",
            Self::Degraded => "many fail; a replacement has to answer first",
            Self::Silent => "it is silent and may only be overloaded; its replacement has to answer first",
            Self::Panic => "most workers fail at once; one a minute is terminated",
            Self::Velocity => "enough were terminated just now",
            Self::NoOtherAnswers => "no other worker answers",
            Self::NoneHeard => "no worker was heard",
            Self::NotProbed => "it was not asked again",
            Self::Deaf => "no instance was heard, so the fault may be the prober's",
        })
    }
}

/// The rule that limits launches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LaunchBrake {
    /// Enough instances exist, whatever state they are in.
    Cap {
        most: usize,
    },
    Deaf,
    /// Many workers were lost within a time; one launch is made in each pause.
    Losses {
        within: SignedDuration,
        pause: SignedDuration,
    },
    Young,
    Busy,
    /// The release has not served yet.
    Unproven {
        release: String,
        most: usize,
    },
    /// The boots of the release fail.
    BootLoop {
        story: String,
        pause: SignedDuration,
    },
}

impl Display for LaunchBrake {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cap { most } => write!(
                f,
                "the cap of {most} instances is reached; if none of them answers, read the logs of one"
            ),
            Self::Deaf => f.write_str("no worker answers; a few replacements must answer first"),
            Self::Losses { within, pause } => write!(
                f,
                "too many workers were lost within {}; one in {}",
                in_words(*within),
                in_words(*pause)
            ),
            Self::Young => f.write_str("memory was lost a moment ago, and EC2 may not show all yet"),
            Self::Busy => f.write_str("as many as EC2 takes in a tick are under way"),
            Self::Unproven { release, most } => {
                write!(f, "release {release} has not served yet; {most} boot at a time")
            }
            Self::BootLoop { story, pause } => write!(f, "{story}; one is tried every {}", in_words(*pause)),
        }
    }
}

/// Why there is no subnet to launch into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoSubnet {
    Named,
    Reachable,
}

impl NoSubnet {
    pub(crate) const fn of(subnets: &[SubnetSpec]) -> Self {
        if subnets.is_empty() { Self::Named } else { Self::Reachable }
    }
}

impl Display for NoSubnet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "the release names no subnet",
            Self::Reachable => "EC2 answers for no zone of the release",
        })
    }
}

/// A refusal of EC2 that is waited out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WaitedOut {
    /// In the words of EC2.
    pub why: String,
    pub times: u32,
    /// The next try is at the latest after this.
    pub longest: SignedDuration,
}

impl WaitedOut {
    pub(crate) fn new(refusal: &Refusal, longest: SignedDuration) -> Self {
        Self { why: refusal.why.clone(), times: refusal.count, longest }
    }
}

impl Display for WaitedOut {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} EC2 has refused ", self.why)?;
        match self.times {
            1 => f.write_str("once")?,
            times => write!(f, "{times} times")?,
        }
        write!(f, "; it is tried again within {}", in_words(self.longest))
    }
}

/// The rule that holds a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RolloutBrake {
    OnTrial,
    Frozen {
        story: String,
        retry: SignedDuration,
    },
    /// An extra worker is refused, and the only one is not stopped for it.
    NoRoom,
    /// The only worker was stopped first.
    NoWorker,
    /// One of several workers was stopped first.
    OneStopped,
    /// The only worker is not stopped again for a release that does not boot.
    BootsFailed,
}

impl Display for RolloutBrake {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnTrial => f.write_str("its first worker is on trial"),
            Self::Frozen { story, retry } => write!(
                f,
                "{story}; the old workers keep serving, and it is tried again every {}",
                in_words(*retry)
            ),
            Self::NoRoom => f.write_str(
                "the account has no room for an extra worker, and the only one is not stopped without notice; raise \
                 the quota, or deploy again",
            ),
            Self::NoWorker => f.write_str(
                "there is no worker for a moment, because the account has no room for an extra one",
            ),
            Self::OneStopped => {
                f.write_str("one worker was stopped first, because the account has no room for an extra one")
            }
            Self::BootsFailed => f.write_str(
                "its boots failed, and the only worker is not stopped for it again; deploy one that works",
            ),
        }
    }
}

/// Why the holder of an address counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HolderFault {
    NoHolder,
    Terminated,
    Refuses,
    Silent,
    Unseen,
    /// It answers between two crashes.
    KeepsCrashing,
}

impl Display for HolderFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHolder => "no instance has the address",
            Self::Terminated => "it was terminated or stopped, not by us",
            Self::Refuses => "it refuses connections",
            Self::Silent => "it was silent twice",
            Self::Unseen => "EC2 does not show it",
            Self::KeepsCrashing => "it keeps crashing",
        })
    }
}

/// Why it is not known whether the holder of an address is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HolderDoubt {
    Boots,
    SilentOnce,
    NoAddressShown,
}

impl Display for HolderDoubt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boots => "it boots",
            Self::SilentOnce => "it did not answer in time once",
            Self::NoAddressShown => "EC2 shows no address of it",
        })
    }
}

/// The rule that keeps a load balancer from being launched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BalancerBrake {
    /// The boots of the definition fail.
    BootLoop {
        story: String,
        pause: SignedDuration,
    },
    /// So many instances exist already.
    Cap {
        live: usize,
    },
    Refused(WaitedOut),
    NoSubnet(NoSubnet),
}

impl Display for BalancerBrake {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::BootLoop { story, pause } => write!(f, "{story}; one is tried every {}", in_words(*pause)),
            Self::Cap { live } => write!(f, "there are {live} instances already"),
            Self::Refused(why) => write!(f, "{why}"),
            Self::NoSubnet(why) => write!(f, "{why}"),
        }
    }
}

/// Writes a duration in whole minutes if it has no others, else in seconds.
pub(crate) fn in_words(duration: SignedDuration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// The name of the load balancer at an address.
pub(crate) fn balancer(place: u32) -> String {
    match place {
        0 => "the load balancer".to_owned(),
        place => format!("load balancer {}", place + 1),
    }
}

/// The place that a launch is for.
pub(crate) fn place(role: Role, slot: u32) -> String {
    match role {
        Role::Worker => format!("slot {slot}"),
        Role::LoadBalancer if slot == 0 => "the load balancer's place".to_owned(),
        Role::LoadBalancer => format!("the place of load balancer {}", slot + 1),
    }
}

pub(crate) const fn new_instance(role: Role) -> &'static str {
    match role {
        Role::Worker => "a new worker",
        Role::LoadBalancer => "a new load balancer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are stored and shown, and `docs/operating.md` explains them.
    #[test]
    fn every_reason_has_its_sentence() {
        let (x, y) = (|| "x".to_owned(), || "y".to_owned());
        let id = || -> WorkerId { "i-1".parse().expect("an id") };
        let who = || Who::Instance(id());
        let count = |number: u32| DesiredCount::try_from(number).expect("a count");
        let (worker, balancer) = (Role::Worker, Role::LoadBalancer);
        let half_an_hour = SignedDuration::from_mins(30);
        let waited_out = |times| WaitedOut { why: x(), times, longest: SignedDuration::from_secs(90) };
        let sentences = [
            (HeldBack::Everything { why: x() }, "everything: x"),
            (HeldBack::NewerRelease { why: x() }, "a newer release: x"),
            (HeldBack::PublishingAndEnding { why: x() }, "publishing, drains and terminations for health: x"),
            (HeldBack::Count { why: x(), in_force: Some(count(3)) }, "x; 3 stays in force"),
            (HeldBack::Count { why: x(), in_force: None }, "x; nothing is in force"),
            (
                HeldBack::Lowering { to: count(1), from: count(4), after: SignedDuration::from_secs(15) },
                "the desired count 1: it takes most of 4 workers away, and counts once it was read for 15 s",
            ),
            (
                HeldBack::Repetition { who: Who::LaunchInSlot(2), zone: y() },
                "the launch in slot 2: EC2 does not answer for y",
            ),
            (
                HeldBack::Decision { who: who() },
                "a verdict on i-1: EC2 does not show it, which proves nothing yet",
            ),
            (HeldBack::Unknown { id: id() }, "what to do with i-1: it is new and belongs to no slot"),
            (
                HeldBack::Termination { who: who(), why: TerminationBrake::Silent },
                "the termination of i-1: it is silent and may only be overloaded; its replacement has to answer first",
            ),
            (
                HeldBack::Termination { who: Who::LaunchOfBalancer, why: TerminationBrake::Deaf },
                "the termination of the launch of a load balancer: no instance was heard, so the fault may be the \
                 prober's",
            ),
            (HeldBack::TerminationFailed { id: id(), why: x() }, "the termination of i-1: x"),
            (
                HeldBack::CrashingStays { who: who() },
                "the end of i-1: it keeps crashing, and its replacement has to answer first",
            ),
            (
                HeldBack::CrashingWaits { who: who() },
                "the replacement of i-1: others that keep crashing come first",
            ),
            (HeldBack::Removal { workers: 2 }, "the removal of 2 workers: memory was lost a moment ago"),
            (
                HeldBack::Launches { workers: 2, why: LaunchBrake::Cap { most: 8 } },
                "2 launches: the cap of 8 instances is reached; if none of them answers, read the logs of one",
            ),
            (
                HeldBack::Launches {
                    workers: 1,
                    why: LaunchBrake::Losses {
                        within: SignedDuration::from_hours(1),
                        pause: SignedDuration::from_secs(180),
                    },
                },
                "1 launches: too many workers were lost within 60 min; one in 3 min",
            ),
            (
                HeldBack::Launches { workers: 1, why: LaunchBrake::Unproven { release: x(), most: 3 } },
                "1 launches: release x has not served yet; 3 boot at a time",
            ),
            (
                HeldBack::Launches {
                    workers: 1,
                    why: LaunchBrake::BootLoop { story: x(), pause: half_an_hour },
                },
                "1 launches: x; one is tried every 30 min",
            ),
            (HeldBack::NoSubnet { why: NoSubnet::Named }, "launches: the release names no subnet"),
            (
                HeldBack::NoSubnet { why: NoSubnet::Reachable },
                "launches: EC2 answers for no zone of the release",
            ),
            (
                HeldBack::NewWorkers { workers: 1, why: waited_out(1) },
                "a new worker: x EC2 has refused once; it is tried again within 90 s",
            ),
            (
                HeldBack::NewWorkers { workers: 2, why: waited_out(3) },
                "2 new workers: x EC2 has refused 3 times; it is tried again within 90 s",
            ),
            (HeldBack::Launch { role: worker, slot: 0, why: x() }, "the launch in slot 0: x"),
            (
                HeldBack::Launch { role: balancer, slot: 0, why: x() },
                "the launch in the load balancer's place: x",
            ),
            (
                HeldBack::Launch { role: balancer, slot: 1, why: x() },
                "the launch in the place of load balancer 2: x",
            ),
            (
                HeldBack::NoCapacity { role: worker, subnet: y(), why: x() },
                "a new worker: no capacity in y: x",
            ),
            (
                HeldBack::DefinitionRefused { role: balancer, release: y(), why: x() },
                "a new load balancer: EC2 refuses to launch y: x",
            ),
            (HeldBack::Refused { role: worker, why: x() }, "a new worker: x"),
            (
                HeldBack::Rollout { release: y(), why: RolloutBrake::OnTrial },
                "the rollout of release y: its first worker is on trial",
            ),
            (
                HeldBack::Rollout {
                    release: y(),
                    why: RolloutBrake::Frozen { story: x(), retry: half_an_hour },
                },
                "the rollout of release y: x; the old workers keep serving, and it is tried again every 30 min",
            ),
            (
                HeldBack::Rollout { release: y(), why: RolloutBrake::NoRoom },
                "the rollout of release y: the account has no room for an extra worker, and the only one is not \
                 stopped without notice; raise the quota, or deploy again",
            ),
            (
                HeldBack::Rollout { release: y(), why: RolloutBrake::NoWorker },
                "the rollout of release y: there is no worker for a moment, because the account has no room for an \
                 extra one",
            ),
            (
                HeldBack::Rollout { release: y(), why: RolloutBrake::OneStopped },
                "the rollout of release y: one worker was stopped first, because the account has no room for an \
                 extra one",
            ),
            (
                HeldBack::WorkerForBalancer,
                "a worker: it was stopped so that a new load balancer fits into the account's quota",
            ),
            (
                HeldBack::Renewal,
                "the renewal of the load balancer: the account has no room for a second one, and the only worker is \
                 not stopped without notice; raise the quota, or deploy again",
            ),
            (
                HeldBack::RoomForBalancer,
                "room for a new load balancer: it is not made by stopping the last worker that answers",
            ),
            (HeldBack::Address { place: 0, why: x() }, "the load balancer: x"),
            (HeldBack::AddressMissing { place: 1 }, "load balancer 2: its Elastic IP is not there"),
            (
                HeldBack::AddressWaits { place: 1 },
                "the address of load balancer 2: another one moves in this tick",
            ),
            (HeldBack::AddressFailed { id: id(), why: x() }, "the address for i-1: x"),
            (
                HeldBack::HolderDecision { place: 0, why: HolderDoubt::SilentOnce },
                "a verdict on the load balancer: it did not answer in time once",
            ),
            (
                HeldBack::Move { why: HolderFault::Silent },
                "the public address: it was silent twice, and its successor does not answer yet",
            ),
            (
                HeldBack::Move { why: HolderFault::KeepsCrashing },
                "the public address: it keeps crashing, and its successor does not answer yet",
            ),
            (
                HeldBack::NewBalancer { why: BalancerBrake::Cap { live: 3 } },
                "a new load balancer: there are 3 instances already",
            ),
            (
                HeldBack::NewBalancer { why: BalancerBrake::BootLoop { story: x(), pause: half_an_hour } },
                "a new load balancer: x; one is tried every 30 min",
            ),
            (HeldBack::Credits { instances: 2, why: x() }, "the cap on the CPU credits of 2 instances: x"),
            (HeldBack::CreditsFailed { id: id(), why: x() }, "the cap on the CPU credits of i-1: x"),
        ];
        for (held_back, sentence) in sentences {
            assert_eq!(held_back.to_string(), sentence);
        }
    }
}
