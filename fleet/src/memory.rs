//! `fleet/state.json`: what the reconciler remembers from one tick to the next.
//!
//! Only the reconciler writes it, by compare-and-swap; `status` reads it. It holds intents (a launch
//! is written here before it is sent) and observations, never a decision about the future: a tick
//! plans from what it sees now.
//!
//! A *slot* is a place for one worker. Its number and *attempt* make the client token of the launch,
//! so a launch repeated after a crash or a lost reply returns the same instance. The attempt grows
//! when an instance is known to be gone or given up, and is never used twice.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{DesiredCount, WorkerAddr, WorkerId};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Changes with each write; tells a lost reply to our own write from somebody else's.
    pub nonce: String,
    /// Scheduled time of the last tick that was carried out.
    pub last_tick: Option<Timestamp>,
    /// The last good desired count.
    pub desired: Option<DesiredCount>,
    /// Why the desired count object is not acted on.
    pub notice: Option<String>,
    /// What the last tick deliberately did not do, and why.
    pub held: Vec<String>,
    pub slots: BTreeMap<u32, Slot>,
    /// Highest attempt used so far, per slot; kept when a slot empties.
    pub attempts: BTreeMap<u32, u32>,
    /// Instances on their way out.
    pub leaving: BTreeMap<WorkerId, Leaving>,
    /// Revision of the last registry planned.
    pub revision: u64,
    /// Subnets whose zone had no capacity, and until when they are left alone.
    pub avoid: BTreeMap<String, Timestamp>,
    /// Boot failures in a row, over the whole fleet, and when the last one was.
    pub boot_failures: u32,
    pub last_boot_failure: Option<Timestamp>,
    /// The newest [`Memory::MAX_EVENTS`] decisions, oldest first, each in one sentence.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Since when EC2 has not shown the instance, although it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
}

/// Where the worker of a slot is in its life.
///
/// ```text
/// Launching --seen--> Booting --answers--> Healthy <--answers-- Suspect
///                        |                    \---times out---/    |
///                        |                     \--refuses--> Dead <-- times out again
///                        \--180 s--> given up          (waits for a brake, or is terminated)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    pub stage: LeavingStage,
    pub since: Timestamp,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeavingStage {
    /// Out of the registry; requests in flight may end.
    Draining,
    /// Termination is asked for until EC2 shows it.
    Terminating,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    pub text: String,
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
}
