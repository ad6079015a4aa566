//! `fleet/state.json`: the reconciler's memory from one tick to the next.
//!
//! Only the reconciler writes it, by compare-and-swap; `status` reads it. It holds intents (a launch is
//! written here before it is sent) and observations, never a decision about the future: a tick plans from its
//! own observation.
//!
//! A *slot* is a place for one worker. Its number and *attempt* make the client token of the launch, so a
//! launch repeated after a crash or a lost reply returns the same instance. The attempt grows when an
//! instance is gone or given up, and is never used twice.

mod reason;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::document::{self, TooLarge};
use crate::release::{BalancerSpec, Market, Release, Rollout};
use crate::{DesiredCount, Registry, WorkerAddr, WorkerId, keys};

pub use reason::LeavingReason;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Changes with each write; after a lost reply, it tells this reconciler's own write from another's.
    pub nonce: String,
    /// When this memory began, empty. A young memory that follows a loss terminates no worker.
    pub began: Option<Timestamp>,
    /// Whether a fleet existed then: another memory was lost.
    pub follows_loss: bool,
    /// Scheduled time of the last tick that was carried out.
    pub last_tick: Option<Timestamp>,
    /// The last valid desired count.
    pub desired: Option<DesiredCount>,
    /// A count less than half of the one in force, which must be read again before it counts.
    pub lowering: Option<Lowering>,
    /// Why the object desired-count is ignored.
    pub notice: Option<String>,
    /// Actions that the last tick deliberately held back, and why.
    pub held: Vec<String>,
    pub slots: BTreeMap<u32, Slot>,
    /// Highest attempt used so far, per slot; kept when a slot empties.
    pub attempts: BTreeMap<u32, u32>,
    /// Instances on their way out.
    pub leaving: BTreeMap<WorkerId, Leaving>,
    /// The load balancer of the first Elastic IP.
    pub balancer: Balancer,
    /// The load balancers of further Elastic IPs, by their places, from 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more_balancers: BTreeMap<u32, Balancer>,
    /// Revision of the last registry planned.
    pub revision: u64,
    /// Subnets whose zone had no capacity, and until when they are left alone.
    pub avoid: BTreeMap<String, Timestamp>,
    /// Zones in which most workers became silent while others answered, and since when.
    pub dark_zones: BTreeMap<String, Timestamp>,
    /// Results of the boots of a release, for the releases that matter.
    pub boots: BTreeMap<String, Boots>,
    /// When workers were lost within the last hour: they died, or their boot failed.
    pub losses: Vec<Timestamp>,
    /// When workers were terminated for their health within the last ten minutes.
    pub terminations: Vec<Timestamp>,
    pub last_launch: Option<Timestamp>,
    /// The newest [`Memory::MAX_EVENTS`] decisions, oldest first, each in one sentence.
    pub events: Vec<Event>,
    /// The last release that a worker has served from: the fleet falls back on it while a newer one does not
    /// boot.
    pub proven: Option<Release>,
    /// The last release that was read, unless it is `proven`. Launches use it while the document cannot be
    /// read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released: Option<Release>,
    /// Workers and load balancers whose program was restarted recently.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub restarts: BTreeMap<WorkerId, Restarts>,
    /// Launches that EC2 refuses because of the account. On-demand and spot instances have quotas of
    /// their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<Market, Refusal>,
    /// Definitions that no zone has capacity for, by their ids.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub no_capacity: BTreeMap<String, Refusal>,
    /// Subnets whose zone does not offer the instance type of a definition, by its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_offered: BTreeMap<String, BTreeSet<String>>,
    /// The release whose rollout stops one worker first, because EC2 refused an extra one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_first: Option<String>,
    /// The worker that leaves its place in the account's quota to another instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    #[serde(skip_serializing_if = "CreditCap::is_empty")]
    pub credits: CreditCap,
}

/// EC2 refuses launches, whatever their zone and slot, for a reason outside their definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refusal {
    pub cause: RefusalCause,
    /// EC2's message, in whole sentences.
    pub why: String,
    /// Ids of the definitions that were refused. Any other is tried at once.
    pub definitions: BTreeSet<String>,
    /// Since when launches have been refused. Starts again when a worker was terminated to make room.
    pub since: Timestamp,
    pub last: Timestamp,
    /// Refused launches since the first.
    pub count: u32,
    /// Refused tries in a row since room was made: the pause before the next one grows with it.
    pub tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCause {
    /// A quota is used up: terminating an instance of the stack makes room.
    Limit,
    /// AWS has not verified the account yet.
    Verification,
    /// A permission is missing, or a role is not known yet.
    Denied,
    /// No zone has capacity.
    Capacity,
}

/// A worker is stopped so that the instance in its place fits into the account's quota.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Room {
    pub purpose: RoomFor,
    /// The worker that leaves; `None` until it is chosen.
    pub worker: Option<WorkerId>,
    pub since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoomFor {
    /// A worker of the released definition.
    Worker,
    /// The successor of a load balancer.
    Balancer,
}

/// Instances that must not spend more CPU credits than they earn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct CreditCap {
    /// EC2 has switched these to `standard`.
    pub done: BTreeSet<WorkerId>,
    /// EC2 refused a switch: why, and the time of the next try.
    pub refused: Option<(String, Timestamp)>,
}

impl CreditCap {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lowering {
    pub to: DesiredCount,
    /// When it was read first.
    pub since: Timestamp,
}

/// Boots of one release that failed, since its last successful boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Boots {
    pub failures: u32,
    pub last_failure: Option<Timestamp>,
    /// Some were instances that kept crashing: then a first answer of the next one proves nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crashes: bool,
    /// EC2's message, if it refused the definition the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Restarts of an instance's program that the reconciler inferred from later observations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Restarts {
    /// The last ones: the ticks that noticed them.
    pub seen: Vec<Timestamp>,
    /// It keeps crashing, and counts against its release.
    pub is_loop: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    pub attempt: u32,
    pub release: String,
    pub subnet: String,
    pub zone: String,
    pub phase: Phase,
    /// When the slot entered its phase.
    pub since: Timestamp,
    pub worker: Option<WorkerId>,
    pub addr: Option<WorkerAddr>,
    /// Since when EC2 has not shown the instance, although it should, and its launch is not repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// It was found, not launched by this memory, so its launch cannot be repeated.
    #[serde(default)]
    pub is_adopted: bool,
    /// Its launch is no longer wanted, and it is unknown whether it took place. The launch is not repeated,
    /// and the slot is kept until EC2 shows the instance or has not shown it for long.
    #[serde(default)]
    pub is_unwanted: bool,
    /// Whether it ever answered, or may have before memory was lost.
    #[serde(default)]
    pub served: bool,
}

/// The phase of a slot's worker.
///
/// ```text
/// Launching --seen--> Booting --answers--> Healthy <--answers-- Suspect
///     |                  |                    \---times out---/    |
///   180 s without        |                     \--refuses--> Dead <-- times out again
///   a word of EC2        \--180 s--> given up          (waits for a brake, or is terminated)
///     v
/// Unresolved --seen--> Booting
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The launch is intended; it is not known yet whether EC2 carried it out.
    Launching,
    /// The instance exists and has not answered yet.
    Booting,
    /// It answered the last probe.
    Healthy,
    /// It answered before and timed out in the last tick.
    Suspect,
    /// It does not answer, and a brake forbids to terminate it now.
    Dead,
    /// It cannot be learned whether the launch took place: another slot replaces it for now.
    Unresolved,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Leaving {
    pub stage: LeavingStage,
    pub since: Timestamp,
    pub reason: LeavingReason,
    /// When a registry without it was written, as far as is known: drains are counted from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpublished: Option<Timestamp>,
    /// Its probes failed; it is taken back if it answers after all.
    #[serde(default)]
    pub judged: bool,
    /// Whether it ever answered.
    #[serde(default)]
    pub served: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeavingStage {
    /// Out of the registry; requests in flight may finish.
    Draining,
    /// Termination is requested until EC2 shows it.
    Terminating,
}

/// A load balancer: the holder of the public address, and its successor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Balancer {
    /// Highest attempt used so far.
    pub attempt: u32,
    pub holder: Option<Holder>,
    /// The instance that is launched to take the address over.
    pub successor: Option<Slot>,
    /// Earlier holders of the address, to be terminated once the present holder answers.
    pub former: Vec<WorkerId>,
    /// The definition that `boots` is about: another one has a record of its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub boots_of: String,
    pub boots: Boots,
    /// The last definition of which a load balancer with the address has answered: a dead one is replaced
    /// from it until a newer one has served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven: Option<BalancerSpec>,
    /// Boots of it, while it is not the released one.
    pub proven_boots: Boots,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    pub id: WorkerId,
    pub addr: Option<WorkerAddr>,
    /// Since when it has the address.
    pub since: Timestamp,
    /// Whether it answered since then.
    pub answered: bool,
    /// Since when it has been silent.
    pub silent_since: Option<Timestamp>,
    /// Since when EC2 has not shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// The definition that it was launched from, once EC2 has shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Its zone, once EC2 has shown it: while a zone is out, EC2 shows instances only by their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// When its program started, as far as it says so. A later start is a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// When it happened last.
    pub at: Timestamp,
    /// What happened last.
    pub text: String,
    /// When it happened first, if it was repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// How often it happened.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u32,
}

const fn once() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
const fn is_once(count: &u32) -> bool {
    *count == 1
}

impl Event {
    /// Returns the event with its number of occurrences in the text.
    #[must_use]
    pub fn told(&self) -> Self {
        let text = match self.first {
            Some(first) => format!("{} ({} times since {first:.0})", self.text, self.count),
            None => self.text.clone(),
        };
        Self { text, ..self.clone() }
    }
}

/// Returns whether two sentences differ only in whole numbers: slots, attempts, seconds. Ids of instances and
/// zones do not count as numbers.
fn is_same_kind(one: &str, other: &str) -> bool {
    let is_number = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_same = |(one, other): (&str, &str)| one == other || (is_number(one) && is_number(other));
    let (mut one, mut other) = (one.split(' '), other.split(' '));
    one.by_ref().zip(other.by_ref()).all(is_same) && one.next().is_none() && other.next().is_none()
}

/// EC2's messages may be long; its encoded messages are useless without the permission to decode them.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(Memory::MAX_EVENT_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Slot {
    fn times(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        std::iter::once(&mut self.since).chain(&mut self.missing_since)
    }
}

impl Balancer {
    fn times(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        let holder = self.holder.iter_mut().flat_map(|holder| {
            let times = [&mut holder.silent_since, &mut holder.missing_since, &mut holder.started];
            std::iter::once(&mut holder.since).chain(times.into_iter().flatten())
        });
        let boots = [&mut self.boots.last_failure, &mut self.proven_boots.last_failure];
        holder.chain(self.successor.iter_mut().flat_map(Slot::times)).chain(boots.into_iter().flatten())
    }
}

impl Boots {
    /// Returns how the last boots went, in the words that `status` shows.
    pub fn story(&self) -> String {
        let times = self.failures;
        match &self.refused {
            Some(why) => format!("EC2 refuses to launch its definition ({times} times in a row): {why}"),
            None => format!("{times} boots in a row failed"),
        }
    }
}

impl Slot {
    /// Marks a launch that is no longer wanted, and may have taken place or may still: the slot waits for its
    /// outcome.
    pub fn unwant(&mut self, now: Timestamp) {
        (self.phase, self.since, self.is_unwanted) = (Phase::Unresolved, now, true);
        self.missing_since.get_or_insert(now);
    }
}

impl Memory {
    /// 200 events are about a day of an unlucky fleet and 30 KiB of JSON, written every 20 seconds.
    pub const MAX_EVENTS: usize = 200;
    /// Enough for AWS's message about a quota and the place to raise it.
    pub const MAX_EVENT_CHARS: usize = 600;
    /// Readers refuse a larger object: 100 slots, 100 leaving and 200 events stay under 200 KiB.
    pub const MAX_BYTES: usize = 1024 * 1024;

    /// The highest attempt that is accepted, also from a tag: a launch each second for 68 years.
    pub const MAX_ATTEMPT: u32 = i32::MAX.unsigned_abs();
    /// An event that comes again later than this counts as a new event. At half of this, an event that recurs
    /// every five minutes would be listed each time; at twice, two incidents would look like one.
    const REPEATS: SignedDuration = SignedDuration::from_mins(10);
    /// Zones and CPU credits are left alone for minutes.
    const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(10);

    /// Adds an event and forgets the oldest beyond the bound. An event that differs from one of the last ten
    /// minutes in numbers alone is counted there: otherwise twenty refusals in each tick would push out their
    /// own cause within minutes. Returns the number of new events.
    pub fn record(&mut self, at: Timestamp, text: impl Into<String>) -> usize {
        let text = text.into();
        let repeats =
            |event: &Event| at.duration_since(event.at) < Self::REPEATS && is_same_kind(&event.text, &text);
        let Some(position) = self.events.iter().rposition(repeats) else {
            self.record_each(at, text);
            return 1;
        };
        let before = self.events.remove(position);
        let first = Some(before.first.unwrap_or(before.at));
        let count = before.count.saturating_add(1);
        self.events.push(Event { at, text: shortened(text), first, count });
        0
    }

    /// Adds an event whose numbers matter.
    pub fn record_each(&mut self, at: Timestamp, text: impl Into<String>) {
        self.events.push(Event { at, text: shortened(text.into()), first: None, count: 1 });
        if self.events.len() > Self::MAX_EVENTS {
            self.events.drain(..self.events.len() - Self::MAX_EVENTS);
        }
    }

    /// Moves each time that is more than `ahead` in the future back to now, and returns their number, because
    /// waiting for such a time would never end. A last tick in the future was not made. Times until which
    /// something is left alone may be further ahead.
    pub fn bound_times(&mut self, now: Timestamp, ahead: SignedDuration) -> usize {
        let is_to_come = self.last_tick.is_some_and(|last| last > now + ahead);
        let mut moved = usize::from(is_to_come);
        if is_to_come {
            self.last_tick = None;
        }
        self.each_time(&mut |time, may_be_ahead| {
            if *time > now + if may_be_ahead { Self::LONGEST_PAUSE } else { ahead } {
                *time = now;
                moved += 1;
            }
        });
        moved
    }

    /// Forgets attempts and a revision beyond their bounds: the ones in use are learned from tags and from
    /// the registry, as after a loss of memory. Returns their number.
    pub fn forget_wild_numbers(&mut self) -> usize {
        let before = self.attempts.len();
        self.attempts.retain(|_, attempt| *attempt <= Self::MAX_ATTEMPT);
        let mut forgotten = before - self.attempts.len();
        for balancer in std::iter::once(&mut self.balancer).chain(self.more_balancers.values_mut()) {
            if balancer.attempt > Self::MAX_ATTEMPT {
                balancer.attempt = 0;
                forgotten += 1;
            }
        }
        if self.revision > Registry::MAX_REVISION {
            self.revision = 0;
            forgotten += 1;
        }
        forgotten
    }

    /// Visits every time. It names all fields, so that a new one is not forgotten here. The second argument
    /// says whether it is a time until which something is left alone.
    fn each_time(&mut self, see: &mut dyn FnMut(&mut Timestamp, bool)) {
        let Self {
            nonce: _,
            began,
            follows_loss: _,
            // It is handled separately.
            last_tick: _,
            desired: _,
            lowering,
            notice: _,
            held: _,
            slots,
            attempts: _,
            leaving,
            balancer,
            more_balancers,
            revision: _,
            avoid,
            dark_zones,
            boots,
            losses,
            terminations,
            last_launch,
            events,
            proven: _,
            released: _,
            restarts,
            refusals,
            no_capacity,
            not_offered: _,
            stop_first: _,
            room,
            credits,
        } = self;
        let boots_times = boots.values_mut().filter_map(|boots| boots.last_failure.as_mut());
        let slot_times = slots.values_mut().flat_map(Slot::times);
        let balancer_times = std::iter::once(balancer).chain(more_balancers.values_mut());
        let leaving_times = leaving.values_mut();
        let refusal_times = refusals.values_mut().chain(no_capacity.values_mut());
        [began, last_launch].into_iter().flatten().for_each(|time| see(time, false));
        lowering.iter_mut().for_each(|lowering| see(&mut lowering.since, false));
        room.iter_mut().for_each(|room| see(&mut room.since, false));
        slot_times.for_each(|time| see(time, false));
        leaving_times
            .flat_map(|it| std::iter::once(&mut it.since).chain(it.unpublished.as_mut()))
            .for_each(|time| see(time, false));
        balancer_times.flat_map(Balancer::times).for_each(|time| see(time, false));
        restarts.values_mut().flat_map(|it| &mut it.seen).for_each(|time| see(time, false));
        dark_zones.values_mut().chain(losses).chain(terminations).for_each(|time| see(time, false));
        boots_times.for_each(|time| see(time, false));
        refusal_times.flat_map(|it| [&mut it.since, &mut it.last]).for_each(|time| see(time, false));
        let event_times = events.iter_mut().flat_map(|it| std::iter::once(&mut it.at).chain(&mut it.first));
        event_times.for_each(|time| see(time, false));
        avoid.values_mut().for_each(|time| see(time, true));
        credits.refused.iter_mut().for_each(|(_, until)| see(until, true));
    }

    /// Returns the document within the size that its readers accept. If it is too large, the oldest events
    /// are left out, and then the held-back reasons: without either the fleet heals as before. A definition
    /// is never left out.
    pub fn encode(&self, at: Timestamp) -> Result<Vec<u8>, TooLarge> {
        let fits = |memory: &Self| document::encode(keys::STATE, memory, Self::MAX_BYTES);
        let too_large = match fits(self) {
            Ok(bytes) => return Ok(bytes),
            Err(too_large) => too_large,
        };
        let mut shed = self.clone();
        while !shed.events.is_empty() {
            shed.events.drain(..shed.events.len().div_ceil(2));
            let mut told = shed.clone();
            told.record_each(at, format!("{too_large}: the older events are left out."));
            if let Ok(bytes) = fits(&told) {
                return Ok(bytes);
            }
        }
        shed.held = vec![format!("{too_large}: the events and the held-back reasons are left out")];
        fits(&shed)
    }

    /// Returns the last release that could be read.
    pub fn last_release(&self) -> Option<&Release> {
        self.released.as_ref().or(self.proven.as_ref())
    }

    /// Returns whether the rollout of this release stops one worker before it launches the next.
    pub fn stops_first(&self, release: &Release) -> bool {
        release.rollout == Rollout::StopFirst || self.stop_first.as_ref() == Some(&release.id)
    }

    pub fn balancers(&self) -> impl Iterator<Item = &Balancer> {
        std::iter::once(&self.balancer).chain(self.more_balancers.values())
    }

    /// Returns the load balancer of a place, if it is known.
    pub fn balancer_mut(&mut self, place: u32) -> Option<&mut Balancer> {
        if place == 0 { Some(&mut self.balancer) } else { self.more_balancers.get_mut(&place) }
    }

    pub fn keeps_crashing(&self, id: &WorkerId) -> bool {
        self.restarts.get(id).is_some_and(|restarts| restarts.is_loop)
    }

    pub fn healthy(&self) -> usize {
        self.slots.values().filter(|slot| slot.phase == Phase::Healthy).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_events() {
        let mut memory = Memory::default();
        for n in 0..Memory::MAX_EVENTS + 5 {
            memory.record(Timestamp::UNIX_EPOCH, format!("i-{n} serves."));
        }
        assert_eq!(memory.events.len(), Memory::MAX_EVENTS);
        assert_eq!(memory.events[0].text, "i-5 serves.");
    }

    #[test]
    fn a_repeated_event_is_one_event_with_a_count() {
        let at = |second: u32| Timestamp::from_second(1_800_000_000 + i64::from(second)).expect("a time");
        let mut memory = Memory::default();
        assert_eq!(memory.record(at(0), "No capacity in subnet-a for slot 3: full."), 1);
        assert_eq!(memory.record(at(1), "i-1 serves."), 1);
        assert_eq!(memory.record(at(2), "No capacity in subnet-b for slot 3: full."), 1, "another zone");
        assert_eq!(memory.record(at(3), "i-2 serves."), 1, "another instance");
        for n in 1..=500 {
            let news = memory.record(at(n), format!("No capacity in subnet-a for slot {n}: full."));
            assert_eq!(news, 0);
        }
        let last = memory.events.last().expect("events");
        assert_eq!((last.first, last.at, last.count), (Some(at(0)), at(500), 501));
        let told = "No capacity in subnet-a for slot 500: full. (501 times since 2027-01-15T08:00:00Z)";
        assert_eq!(last.told().text, told);
        assert_eq!(memory.events.len(), 4);
        assert_eq!(
            memory.record(at(500 + 600), "No capacity in subnet-a for slot 1: full."),
            1,
            "much later"
        );
        let text = serde_json::to_string(&memory).expect("plain data");
        assert_eq!(serde_json::from_str::<Memory>(&text).expect("own output"), memory);
    }

    /// Reads the written document back as its readers do.
    fn written(memory: &Memory) -> Memory {
        let bytes = memory.encode(Timestamp::UNIX_EPOCH).expect("it fits");
        assert!(bytes.len() <= Memory::MAX_BYTES, "{}", bytes.len());
        serde_json::from_slice(&bytes).expect("own output")
    }

    #[test]
    fn a_memory_that_is_too_large_sheds_its_history_first() {
        let events = |number| {
            let event = |n| Event {
                at: Timestamp::UNIX_EPOCH,
                text: format!("{n} {}", "x".repeat(8000)),
                first: None,
                count: 1,
            };
            (0..number).map(event).collect::<Vec<_>>()
        };
        let small = Memory { events: events(100), held: vec!["h".to_owned()], ..Memory::default() };
        assert_eq!(written(&small), small);
        let large = Memory { events: events(200), ..small.clone() };
        let read = written(&large);
        assert_eq!(read.held, small.held);
        let told = &read.events.last().expect("it is told").text;
        assert!(told.starts_with("fleet/state.json would be ") && told.ends_with("are left out."), "{told}");
        assert_eq!(read.events[..100], large.events[100..], "the newest are kept");
        let talkative = Memory { held: vec!["h".repeat(2000); 1000], slots: small.slots.clone(), ..large };
        let read = written(&talkative);
        assert!(read.events.is_empty() && read.held.len() == 1, "{:?}", read.held);
        let hopeless = Memory { nonce: "x".repeat(2 << 20), ..talkative };
        assert!(hopeless.encode(Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn an_event_whose_numbers_matter_is_never_counted_elsewhere() {
        let mut memory = Memory::default();
        for n in 1..4 {
            memory.record_each(Timestamp::UNIX_EPOCH, format!("Desired count changed to {n}."));
        }
        assert_eq!(memory.events.len(), 3);
    }

    #[test]
    fn a_long_event_is_cut() {
        let mut memory = Memory::default();
        memory.record(Timestamp::UNIX_EPOCH, "ö".repeat(5000));
        assert_eq!(memory.events[0].text.chars().count(), Memory::MAX_EVENT_CHARS + 1);
    }

    #[test]
    fn numbers_that_nothing_has_counted_to_are_forgotten() {
        let wild = Balancer { attempt: u32::MAX, ..Balancer::default() };
        let mut memory = Memory {
            attempts: BTreeMap::from([(0, u32::MAX), (1, Memory::MAX_ATTEMPT), (u32::MAX, 2)]),
            balancer: wild.clone(),
            more_balancers: BTreeMap::from([(1, wild)]),
            revision: u64::MAX,
            ..Memory::default()
        };
        assert_eq!(memory.forget_wild_numbers(), 4);
        assert_eq!(memory.attempts, BTreeMap::from([(1, Memory::MAX_ATTEMPT), (u32::MAX, 2)]));
        assert_eq!((memory.balancer.attempt, memory.more_balancers[&1].attempt, memory.revision), (0, 0, 0));
        assert_eq!(memory.forget_wild_numbers(), 0);
    }

    #[test]
    fn every_time_in_the_future_is_moved_to_now() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let later = now + SignedDuration::from_hours(1);
        let slot = |since| Slot {
            attempt: 1,
            release: "r".to_owned(),
            subnet: "subnet-a".to_owned(),
            zone: "a".to_owned(),
            phase: Phase::Healthy,
            since,
            worker: None,
            addr: None,
            missing_since: Some(since),
            is_adopted: false,
            is_unwanted: false,
            served: false,
        };
        let memory = |at: Timestamp| {
            let boots = Boots { failures: 1, last_failure: Some(at), crashes: false, refused: None };
            let holder = Holder {
                id: "i-a".parse().expect("test id"),
                addr: None,
                since: at,
                answered: true,
                silent_since: Some(at),
                missing_since: Some(at),
                release: None,
                zone: None,
                started: Some(at),
            };
            let balancer = Balancer {
                holder: Some(holder),
                successor: Some(slot(at)),
                boots: boots.clone(),
                proven_boots: boots.clone(),
                ..Balancer::default()
            };
            let leaving = Leaving {
                stage: LeavingStage::Draining,
                since: at,
                reason: LeavingReason::Lost,
                unpublished: Some(at),
                judged: false,
                served: true,
            };
            let refusal = Refusal {
                cause: RefusalCause::Limit,
                why: String::new(),
                definitions: BTreeSet::new(),
                since: at,
                last: at,
                count: 1,
                tries: 1,
            };
            Memory {
                began: Some(at),
                last_tick: Some(at),
                lowering: Some(Lowering { to: 1.try_into().expect("a count"), since: at }),
                slots: BTreeMap::from([(0, slot(at))]),
                leaving: BTreeMap::from([("i-b".parse().expect("test id"), leaving)]),
                balancer: balancer.clone(),
                more_balancers: BTreeMap::from([(1, balancer)]),
                avoid: BTreeMap::from([("subnet-a".to_owned(), at)]),
                dark_zones: BTreeMap::from([("a".to_owned(), at)]),
                boots: BTreeMap::from([("r".to_owned(), boots)]),
                restarts: BTreeMap::from([(
                    "i-a".parse().expect("test id"),
                    Restarts { seen: vec![at], is_loop: true },
                )]),
                losses: vec![at],
                terminations: vec![at],
                last_launch: Some(at),
                events: vec![Event { at, text: String::new(), first: Some(at), count: 2 }],
                refusals: BTreeMap::from([(Market::Spot, refusal)]),
                room: Some(Room { purpose: RoomFor::Worker, worker: None, since: at }),
                credits: CreditCap { done: BTreeSet::new(), refused: Some((String::new(), at)) },
                ..Memory::default()
            }
        };
        let minute = SignedDuration::from_mins(1);
        let mut moved = memory(later);
        let in_text = serde_json::to_string(&moved).expect("plain data").matches(&later.to_string()).count();
        assert_eq!(moved.bound_times(now, minute), in_text, "as many as there are");
        assert_eq!(moved, Memory { last_tick: None, ..memory(now) });
        let mut soon = memory(now + minute);
        assert_eq!(soon.bound_times(now, minute), 0, "clocks differ");
    }

    #[test]
    fn a_document_of_an_older_version_still_reads() {
        let memory: Memory = serde_json::from_str(r#"{"nonce":"x"}"#).expect("missing fields default");
        assert_eq!(memory.nonce, "x");
    }

    #[test]
    fn fields_unknown_to_older_versions_are_written_only_if_needed() {
        let text = serde_json::to_string(&Memory::default()).expect("plain data");
        for key in [
            "refusals",
            "no_capacity",
            "not_offered",
            "released",
            "restarts",
            "stop_first",
            "room",
            "credits",
        ] {
            assert!(!text.contains(&format!("\"{key}\"")), "{key}: {text}");
        }
    }

    #[test]
    fn account_limits_survive_a_round_trip() {
        let at = Timestamp::UNIX_EPOCH;
        let id: WorkerId = "i-a".parse().expect("test id");
        let refusal = Refusal {
            cause: RefusalCause::Limit,
            why: "a quota".to_owned(),
            definitions: BTreeSet::from(["r1".to_owned()]),
            since: at,
            last: at,
            count: 3,
            tries: 2,
        };
        let memory = Memory {
            refusals: BTreeMap::from([(Market::OnDemand, refusal.clone()), (Market::Spot, refusal)]),
            stop_first: Some("r1".to_owned()),
            room: Some(Room { purpose: RoomFor::Balancer, worker: Some(id.clone()), since: at }),
            credits: CreditCap { done: BTreeSet::from([id]), refused: Some(("no".to_owned(), at)) },
            ..Memory::default()
        };
        let text = serde_json::to_string(&memory).expect("plain data");
        assert_eq!(serde_json::from_str::<Memory>(&text).expect("own output"), memory);
    }
}
