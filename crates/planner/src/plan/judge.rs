//! The brakes: who of the dead is terminated now, and who waits.
//!
//! The dead do not count as workers, so a replacement is launched in the same tick either way; a
//! brake costs money for a dead machine, never capacity.

use std::collections::{BTreeMap, BTreeSet};

use fleet::DesiredCount;
use fleet::memory::{LeavingReason, LeavingStage, Phase};
use jiff::Timestamp;

use super::Tick;
use crate::decision::{EndCause, WorkerDecision};
use crate::held_back::{HeldBack, TerminationBrake, Who};
use crate::observation::Probe;

/// What a worker is terminated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Health,
    /// It is dead, and its replacement needs its place in the account's quota.
    Room,
}

/// The facts of a tick that the brakes depend on.
struct BrakeInput {
    /// Workers that ever answered.
    served: usize,
    answering: usize,
    /// Dead workers that may be terminated because another worker answers in their place.
    replaced: usize,
    is_many: bool,
    is_panic: bool,
    /// Earlier terminations, so few seconds ago that this tick adds to them.
    just_now: usize,
    retired: usize,
}

impl Tick<'_> {
    pub(super) fn judge(&mut self) {
        let dead = std::mem::take(&mut self.dead);
        self.follow_zones(&dead);
        if dead.is_empty() {
            return;
        }
        let mut input = self.brake_input(&dead);
        self.is_panic = input.is_panic;
        for number in dead {
            match self.brake(number, &input, Cause::Health) {
                None => self.end(number, &mut input, Cause::Health),
                Some(_)
                    if self.waits_for_room(number) && self.brake(number, &input, Cause::Room).is_none() =>
                {
                    self.end(number, &mut input, Cause::Room);
                }
                Some(brake) => self.keep_dead(number, brake),
            }
        }
    }

    fn brake_input(&self, dead: &[u32]) -> BrakeInput {
        let has_served = |number: &u32| self.memory.slots.get(number).is_some_and(|slot| slot.served);
        let served = self.memory.slots.values().filter(|slot| slot.served).count();
        let dead = dead.iter().copied().filter(has_served).count();
        let answering = self.answering();
        let desired = self.desired().map_or(served, DesiredCount::workers);
        let policy = self.policy;
        let is_many = dead >= policy.degraded_least && policy.degraded_share.is_exceeded_by(dead, served);
        let is_recent = |at: &&Timestamp| self.age(**at) < policy.velocity_window;
        BrakeInput {
            served,
            answering,
            replaced: (answering + dead).saturating_sub(desired),
            is_many,
            is_panic: dead >= policy.panic_least && policy.panic_share.is_exceeded_by(dead, served),
            // A tick that a look asked for may follow another at once.
            just_now: self.memory.terminations.iter().filter(is_recent).count(),
            retired: 0,
        }
    }

    /// Whether it has been dead for as long as a quota has refused its replacement.
    pub(super) fn waits_for_room(&self, number: u32) -> bool {
        let Some(slot) = self.memory.slots.get(&number) else { return false };
        let has_waited = slot.phase == Phase::Dead && self.age(slot.since) >= self.policy.room_dead_for;
        let market = self.market_of(slot);
        let fits = market == self.release.worker.market && self.is_out_of_room(market);
        has_waited && fits
    }

    /// Returns the first brake that holds the worker, if one does.
    fn brake(&self, number: u32, input: &BrakeInput, cause: Cause) -> Option<TerminationBrake> {
        let slot = self.memory.slots.get(&number)?;
        let is_seen = slot.worker.as_ref().is_some_and(|id| self.workers.contains_key(id));
        let last = self.memory.terminations.last();
        let policy = self.policy;
        let most = policy.velocity_share.of(input.served).max(policy.velocity_least);
        let often = policy.often_share.of(input.served).max(policy.often_least);
        let is_degraded = input.is_many || self.memory.terminations.len() >= often;
        // A worker that refuses has no program any more. A silent worker may only be overloaded, and without
        // it the others would have more to do.
        let may_serve = self.probe_of(slot) != Some(Probe::Refused);
        // If no worker is left that could answer, a load balancer shows that probes arrive.
        let is_heard_otherwise = cause == Cause::Room && self.balancer_answers();
        let was_just_now = last.is_some_and(|last| self.age(*last) < policy.panic_spacing);
        let is_unreplaced = input.replaced <= input.retired && cause == Cause::Health;
        if !is_seen {
            Some(TerminationBrake::Unseen)
        } else if self.is_young() {
            Some(TerminationBrake::Young)
        } else if !slot.served && !self.is_deaf() {
            None
        } else if input.answering == 0 && !is_heard_otherwise {
            Some(TerminationBrake::Control)
        } else if self.is_dark(&slot.zone) && self.probe_of(slot) == Some(Probe::Silent) {
            Some(TerminationBrake::Zone)
        } else if is_degraded && is_unreplaced {
            Some(TerminationBrake::Degraded)
        } else if may_serve && is_unreplaced {
            Some(TerminationBrake::Silent)
        } else if input.is_panic && (was_just_now || input.retired > 0) {
            Some(TerminationBrake::Panic)
        } else if input.just_now + input.retired >= most {
            Some(TerminationBrake::Velocity)
        } else {
            None
        }
    }

    fn keep_dead(&mut self, number: u32, brake: TerminationBrake) {
        let Some(slot) = self.memory.slots.get(&number) else { return };
        let who = Who::of_slot(number, slot);
        if slot.phase != Phase::Dead {
            self.memory.losses.push(self.now);
            self.enter(number, Phase::Dead);
            self.record(WorkerDecision::Dead { who: who.clone(), brake });
        }
        self.hold(HeldBack::Termination { who, why: brake });
    }

    fn end(&mut self, number: u32, input: &mut BrakeInput, cause: Cause) {
        let Some(slot) = self.memory.slots.get(&number) else { return };
        let who = Who::of_slot(number, slot);
        if slot.phase != Phase::Dead {
            self.memory.losses.push(self.now);
        }
        let served = slot.served;
        if served {
            input.retired += 1;
            self.memory.terminations.push(self.now);
        }
        let end = match cause {
            _ if !served => EndCause::Boot,
            Cause::Health => EndCause::Health,
            Cause::Room => EndCause::Room { refused: self.policy.room_after },
        };
        self.record(WorkerDecision::Terminating { who, cause: end });
        let reason = match cause {
            Cause::Health => LeavingReason::Dead,
            Cause::Room => LeavingReason::ReplacementRefused,
        };
        self.retire(number, LeavingStage::Terminating, reason, true);
    }

    /// Notices zones that fall silent as a whole, and zones that are heard again.
    fn follow_zones(&mut self, dead: &[u32]) {
        #[derive(Default)]
        struct Zone {
            served: usize,
            silent: usize,
            dead: usize,
            answering: usize,
        }
        if dead.is_empty() && self.memory.dark_zones.is_empty() {
            return;
        }
        let dead: BTreeSet<u32> = dead.iter().copied().collect();
        let mut zones: BTreeMap<&str, Zone> = BTreeMap::new();
        for (number, slot) in self.memory.slots.iter().filter(|(_, slot)| slot.served) {
            let zone = zones.entry(slot.zone.as_str()).or_default();
            let probe = self.probe_of(slot);
            zone.served += 1;
            zone.answering += usize::from(probe == Some(Probe::Answered));
            if dead.contains(number) {
                zone.dead += 1;
                zone.silent += usize::from(probe == Some(Probe::Silent));
            }
        }
        let (least, share) = (self.policy.dark_zone_least, self.policy.dark_zone_share);
        let is_silent = |zone: &Zone| zone.silent >= least && share.is_reached_by(zone.silent, zone.served);
        let all_dead: usize = zones.values().map(|zone| zone.dead).sum();
        let all_answering: usize = zones.values().map(|zone| zone.answering).sum();
        let goes_dark =
            |zone: &Zone| is_silent(zone) && all_dead == zone.dead && all_answering > zone.answering;
        let dark: Vec<String> =
            zones.iter().filter(|(_, zone)| goes_dark(zone)).map(|(name, _)| (*name).to_owned()).collect();
        let still: Vec<String> = zones
            .iter()
            .filter(|(_, zone)| zone.answering == 0 && zone.silent > 0)
            .map(|(name, _)| (*name).to_owned())
            .collect();
        self.memory.dark_zones.retain(|name, _| still.contains(name) || dark.contains(name));
        for name in dark {
            if !self.memory.dark_zones.contains_key(&name) {
                let during = self.policy.dark_zone_for;
                self.record(WorkerDecision::ZoneSpared { zone: name.clone(), during });
                self.memory.dark_zones.insert(name, self.now);
            }
        }
    }

    pub(super) fn is_dark(&self, zone: &str) -> bool {
        self.memory.dark_zones.get(zone).is_some_and(|since| self.age(*since) < self.policy.dark_zone_for)
    }
}
