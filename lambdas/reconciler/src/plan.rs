//! Decides what to do, from what is seen and what is remembered. Pure: no clock, no network, no
//! randomness; the same input gives the same plan.
//!
//! | rule | says |
//! |---|---|
//! | blind | instances, release or registry unknown: nothing is launched, terminated or published |
//! | desired | a count that is missing or wrong is not acted on; the last good one stays in force |
//! | unseen | an instance that EC2 does not show is not gone: its launch is repeated with the same token, which returns it if it lives |
//! | dead | refuses every probe of one tick, or is silent in two ticks in a row |
//! | control | a worker that served is terminated for its health only if another one answered in the same tick |
//! | panic | more than half failing at once (and at least two): replacements only, until as many answer as are desired |
//! | velocity | at most one worker, or a tenth of the fleet, is terminated for its health per tick |
//! | boot | an instance that does not answer within 180 s is given up |
//! | boot loop | after three boots in a row that failed: one launch at a time, 1, 2, 4 … 30 min apart |
//! | drain | a surplus worker leaves the registry first and is terminated 15 s later at the earliest |
//! | surplus | who goes first: not yet serving, then suspect, then from the fullest zone, then the highest slot; the dead only if nobody is desired |
//! | zones | a new worker goes where there are fewest |
//! | unknown | an instance of ours that is not remembered is adopted if its slot is free, as one that served if it may have; else it is drained when 120 s old |
//!
//! Parts: `follow` moves what is remembered along with what is seen, `resize`
//! makes the number right, `registry` says who gets traffic.

mod follow;
mod registry;
mod resize;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{Leaving, LeavingStage, Memory, Phase};
use fleet::release::Release;
use fleet::{Registry, WorkerId};
use jiff::{SignedDuration, Timestamp};

use crate::act::Outcomes;
use crate::observation::{Instance, Observation, Role};

/// A zone without capacity is left alone this long, Karpenter's value.
const AVOID: SignedDuration = SignedDuration::from_mins(3);

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to remember, intents included; `held` in it says what was not done, and why.
    pub memory: Memory,
    pub launches: Vec<Launch>,
    pub terminations: Vec<WorkerId>,
    /// The registry to publish; `None` when readers have the right one.
    pub registry: Option<Registry>,
}

/// A launch to send. The same slot and attempt always carry the same parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub slot: u32,
    pub attempt: u32,
    pub subnet: String,
}

pub fn plan(observation: &Observation, mut memory: Memory, now: Timestamp) -> Plan {
    memory.held.clear();
    memory.last_tick = Some(observation.tick);
    resize::take_desired(observation, &mut memory, now);
    let (instances, release, published) =
        match (&observation.instances, &observation.release, &observation.registry) {
            (Ok(instances), Ok(release), Ok(published)) => (instances, release, published.as_ref()),
            (instances, release, registry) => {
                let reasons = [instances.as_ref().err(), release.as_ref().err(), registry.as_ref().err()];
                for why in reasons.into_iter().flatten() {
                    memory.held.push(format!("everything: {why}"));
                }
                return Plan { memory, launches: Vec::new(), terminations: Vec::new(), registry: None };
            }
        };
    let mut tick = Tick::new(observation, instances, release, published, memory, now);
    tick.follow_slots();
    tick.follow_leaving();
    tick.adopt_unknown();
    tick.judge();
    tick.shrink();
    tick.grow();
    tick.finish()
}

/// Between ticks: notices instances that appeared and workers that answer for the first time.
/// `None` if there is nothing new.
pub fn promote(observation: &Observation, memory: Memory, now: Timestamp) -> Option<Plan> {
    let (Ok(instances), Ok(release), Ok(published)) =
        (&observation.instances, &observation.release, &observation.registry)
    else {
        return None;
    };
    let before = memory.clone();
    let mut tick = Tick::new(observation, instances, release, published.as_ref(), memory, now);
    tick.notice_boots();
    let plan = tick.finish();
    (plan.memory != before).then_some(plan)
}

/// Writes down how the launches and terminations went.
pub fn settle(memory: &mut Memory, outcomes: &Outcomes, now: Timestamp) {
    for outcome in &outcomes.launched {
        let launch = &outcome.launch;
        let Some(slot) = memory.slots.get_mut(&launch.slot).filter(|slot| slot.attempt == launch.attempt)
        else {
            continue;
        };
        let (number, attempt, subnet) = (launch.slot, launch.attempt, slot.subnet.clone());
        match &outcome.result {
            Ok(id) if slot.worker.as_ref() == Some(id) => {}
            Ok(id) => {
                slot.worker = Some(id.clone());
                slot.missing_since = None;
                slot.phase = Phase::Booting;
                slot.since = now;
                memory.record(now, format!("Launched {id} in slot {number} (attempt {attempt})."));
            }
            Err((AwsErrorKind::NoCapacity, why)) => {
                memory.slots.remove(&number);
                memory.avoid.insert(subnet.clone(), now + AVOID);
                memory.record(
                    now,
                    format!("No capacity in {subnet} for slot {number}: {why}; another zone is next."),
                );
            }
            Err((AwsErrorKind::TokenSpent | AwsErrorKind::TokenMismatch, why)) => {
                memory.slots.remove(&number);
                memory.record(now, format!("Attempt {attempt} of slot {number} is used up: {why}."));
            }
            // Whether it was launched is not known, or it may not be allowed yet: the same launch
            // is sent again.
            Err((_, why)) => memory.held.push(format!("the launch in slot {number}: {why}")),
        }
    }
    for (id, why) in &outcomes.not_terminated {
        memory.held.push(format!("the termination of {id}: {why}"));
    }
}

/// The working state of one plan.
struct Tick<'a> {
    observation: &'a Observation,
    release: &'a Release,
    /// The registry that readers have.
    published: Option<&'a Registry>,
    memory: Memory,
    now: Timestamp,
    workers: BTreeMap<&'a WorkerId, &'a Instance>,
    /// Slots whose worker failed this tick's probes so that it counts as dead.
    dead: Vec<u32>,
    launches: Vec<Launch>,
    terminations: Vec<WorkerId>,
}

impl<'a> Tick<'a> {
    fn new(
        observation: &'a Observation,
        instances: &'a [Instance],
        release: &'a Release,
        published: Option<&'a Registry>,
        memory: Memory,
        now: Timestamp,
    ) -> Self {
        let workers =
            instances.iter().filter(|row| row.role == Role::Worker).map(|row| (&row.id, row)).collect();
        let (dead, launches, terminations) = Default::default();
        Self { observation, release, published, memory, now, workers, dead, launches, terminations }
    }

    fn record(&mut self, text: String) {
        self.memory.record(self.now, text);
    }

    fn hold(&mut self, text: String) {
        self.memory.held.push(text);
    }

    /// Takes the instance of a slot out of service for good; the slot is empty afterwards.
    fn retire(&mut self, number: u32, stage: LeavingStage, reason: &str) {
        let Some(slot) = self.memory.slots.remove(&number) else { return };
        let Some(id) = slot.worker else { return };
        if stage == LeavingStage::Terminating && self.workers.get(&id).is_some_and(|row| row.state.is_live())
        {
            self.terminations.push(id.clone());
        }
        self.memory.leaving.insert(id, Leaving { stage, since: self.now, reason: reason.to_owned() });
    }

    fn finish(mut self) -> Plan {
        let registry = self.next_registry();
        Plan { memory: self.memory, launches: self.launches, terminations: self.terminations, registry }
    }
}
