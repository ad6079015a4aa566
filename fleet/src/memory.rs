//! `fleet/state.json`: what the reconciler remembers from one tick to the next.
//!
//! Only the reconciler writes it, by compare-and-swap; `status` reads it. It holds intents (a launch
//! is written here before it is sent) and observations, never a decision about the future: a tick
//! plans from what it sees now.
//!
//! A *slot* is a place for one worker. Its number and *attempt* make the client token of the launch,
//! so a launch repeated after a crash or a lost reply returns the same instance. The attempt grows
//! when an instance is known to be gone or given up, and is never used twice.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::release::{BalancerSpec, Market, Release, Rollout};
use crate::{DesiredCount, WorkerAddr, WorkerId};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Changes with each write; tells a lost reply to our own write from somebody else's.
    pub nonce: String,
    /// When this memory began, empty. A young one that follows a loss ends nobody.
    pub began: Option<Timestamp>,
    /// Whether there was a fleet then: another memory was lost.
    pub follows_loss: bool,
    /// Scheduled time of the last tick that was carried out.
    pub last_tick: Option<Timestamp>,
    /// The last good desired count.
    pub desired: Option<DesiredCount>,
    /// A count less than half of the one in force, which has to be read again to be believed.
    pub lowering: Option<Lowering>,
    /// Why the desired count object is not acted on.
    pub notice: Option<String>,
    /// What the last tick deliberately did not do, and why.
    pub held: Vec<String>,
    pub slots: BTreeMap<u32, Slot>,
    /// Highest attempt used so far, per slot; kept when a slot empties.
    pub attempts: BTreeMap<u32, u32>,
    /// Instances on their way out.
    pub leaving: BTreeMap<WorkerId, Leaving>,
    /// The load balancer of the first Elastic IP.
    pub balancer: Balancer,
    /// Those of further ones, by their places, from 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more_balancers: BTreeMap<u32, Balancer>,
    /// Revision of the last registry planned.
    pub revision: u64,
    /// Subnets whose zone had no capacity, and until when they are left alone.
    pub avoid: BTreeMap<String, Timestamp>,
    /// Zones in which most workers fell silent while others answered, and since when.
    pub dark_zones: BTreeMap<String, Timestamp>,
    /// How the boots of a release went, for the releases that matter.
    pub boots: BTreeMap<String, Boots>,
    /// When workers were lost within the last hour: they died, or their boot failed.
    pub losses: Vec<Timestamp>,
    /// When workers were terminated for their health within the last ten minutes.
    pub terminations: Vec<Timestamp>,
    pub last_launch: Option<Timestamp>,
    /// The newest [`Memory::MAX_EVENTS`] decisions, oldest first, each in one sentence.
    pub events: Vec<Event>,
    /// The last release that a worker has served from: what the fleet falls back on while a newer
    /// one does not boot.
    pub proven: Option<Release>,
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
    /// The place in the account's quota that a worker leaves to another instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    #[serde(skip_serializing_if = "CreditCap::is_empty")]
    pub credits: CreditCap,
}

/// EC2 refuses launches, whatever their zone and slot, for a reason outside their definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refusal {
    pub cause: RefusalCause,
    /// What EC2 said, in whole sentences.
    pub why: String,
    /// Ids of the definitions that were refused. Any other is tried at once.
    pub definitions: BTreeSet<String>,
    /// Since when launches have been refused. Begins anew when a worker was terminated to make room.
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
    /// A quota is used up: terminating an instance of ours makes room.
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
    /// The worker that leaves; none for the moment in which it is chosen.
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

/// Instances that are not to spend more CPU credits than they earn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct CreditCap {
    /// EC2 has switched these to `standard`.
    pub done: BTreeSet<WorkerId>,
    /// EC2 refused a switch: why, and until when none is asked for.
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

/// Boots of one release that failed, since the last one that did not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Boots {
    pub failures: u32,
    pub last_failure: Option<Timestamp>,
    /// What EC2 said, if it refused the definition the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
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
    /// It was found, not launched by this memory: its launch cannot be repeated.
    #[serde(default)]
    pub is_adopted: bool,
    /// Its launch is not wanted any more, and whether it took place is not known: it is not repeated,
    /// and the slot is kept until EC2 shows the instance or has not for long.
    #[serde(default)]
    pub is_unwanted: bool,
    /// Whether it ever answered, or may have before memory was lost.
    #[serde(default)]
    pub served: bool,
}

/// Where the worker of a slot is in its life.
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
    /// The launch is intended; whether EC2 did it is not known yet.
    Launching,
    /// The instance exists and has not answered yet.
    Booting,
    /// It answered the last probe.
    Healthy,
    /// It answered before and timed out in the last tick.
    Suspect,
    /// It does not answer, and a brake forbids to terminate it now.
    Dead,
    /// Whether the launch took place cannot be learned: another slot takes its place meanwhile.
    Unresolved,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Leaving {
    pub stage: LeavingStage,
    pub since: Timestamp,
    pub reason: String,
    /// When a registry without it was written, as far as is known: drains are counted from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpublished: Option<Timestamp>,
    /// It was judged by its probes, and is taken back if it answers after all.
    #[serde(default)]
    pub judged: bool,
    /// Whether it ever answered.
    #[serde(default)]
    pub served: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeavingStage {
    /// Out of the registry; requests in flight may end.
    Draining,
    /// Termination is asked for until EC2 shows it.
    Terminating,
}

/// The load balancer: who has the public address, and who is to take it over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Balancer {
    /// Highest attempt used so far.
    pub attempt: u32,
    pub holder: Option<Holder>,
    /// The instance that is launched to take the address over.
    pub successor: Option<Slot>,
    /// Instances that had the address before, to be terminated once the holder answers.
    pub former: Vec<WorkerId>,
    /// The definition that `boots` is about: another one has a record of its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub boots_of: String,
    pub boots: Boots,
    /// The last definition of which a load balancer with the address has answered: what a dead one is
    /// replaced by until a newer one has served.
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
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    pub text: String,
}

impl Boots {
    /// After so many failures in a row a release is frozen: one failed boot may be bad luck.
    pub const FREEZE: u32 = 2;

    /// How the last boots went, in the words that `status` shows.
    pub fn story(&self) -> String {
        let times = self.failures;
        match &self.refused {
            Some(why) => format!("EC2 refuses to launch its definition ({times} times in a row): {why}"),
            None => format!("{times} boots in a row failed"),
        }
    }
}

impl Slot {
    /// Its launch is not wanted any more, and may have taken place or may still: the slot waits for what
    /// comes of it.
    pub fn unwant(&mut self, now: Timestamp) {
        (self.phase, self.since, self.is_unwanted) = (Phase::Unresolved, now, true);
        self.missing_since.get_or_insert(now);
    }
}

impl Memory {
    /// 200 events are about a day of an unlucky fleet and 30 KiB of JSON, written every 20 seconds.
    pub const MAX_EVENTS: usize = 200;
    /// Readers refuse a larger object: 100 slots, 100 leaving and 200 events stay under 200 KiB.
    pub const MAX_BYTES: usize = 1024 * 1024;

    /// Adds an event and forgets the oldest beyond the bound.
    pub fn record(&mut self, at: Timestamp, text: impl Into<String>) {
        self.events.push(Event { at, text: text.into() });
        if self.events.len() > Self::MAX_EVENTS {
            self.events.drain(..self.events.len() - Self::MAX_EVENTS);
        }
    }

    /// Whether the rollout of this release stops one worker before it launches the next.
    pub fn stops_first(&self, release: &Release) -> bool {
        release.rollout == Rollout::StopFirst || self.stop_first.as_ref() == Some(&release.id)
    }

    pub fn balancers(&self) -> impl Iterator<Item = &Balancer> {
        std::iter::once(&self.balancer).chain(self.more_balancers.values())
    }

    /// The load balancer of a place, if it is known.
    pub fn balancer_mut(&mut self, place: u32) -> Option<&mut Balancer> {
        if place == 0 { Some(&mut self.balancer) } else { self.more_balancers.get_mut(&place) }
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
            memory.record(Timestamp::UNIX_EPOCH, n.to_string());
        }
        assert_eq!(memory.events.len(), Memory::MAX_EVENTS);
        assert_eq!(memory.events[0].text, "5");
    }

    #[test]
    fn a_document_of_an_older_version_still_reads() {
        let memory: Memory = serde_json::from_str(r#"{"nonce":"x"}"#).expect("missing fields default");
        assert_eq!(memory.nonce, "x");
    }

    #[test]
    fn what_an_older_version_does_not_know_is_written_only_if_needed() {
        let text = serde_json::to_string(&Memory::default()).expect("plain data");
        for key in ["refusals", "no_capacity", "not_offered", "stop_first", "room", "credits"] {
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
