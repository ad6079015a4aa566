//! Brings a new release to workers that run an older one, a few at a time.
//!
//! ```text
//! all well --> one of the new release beyond the desired number --> it serves for 55 s -->
//! as many old ones drain --> all well --> …
//!                   \--> its boot fails twice --> frozen: the old release stays, one try in 30 min
//! ```
//!
//! Where the account has no room for an extra worker, an old one drains and goes first (`limit`); the
//! rest is the same.

use fleet::DesiredCount;
use fleet::memory::{Phase, Slot};
use fleet::release::Release;

use super::Tick;
use crate::decision::ReleaseDecision;
use crate::held_back::{HeldBack, RolloutBrake};
use crate::observation::is_booting;

impl Tick<'_> {
    /// Decides how many workers there may be beyond the desired number.
    pub(super) fn roll_out(&mut self) {
        let Some(desired) = self.desired() else { return };
        self.follow_room(desired);
        if desired.is_zero() {
            return;
        }
        self.make_room_for_balancer(desired);
        self.decide_surge(desired);
        if self.is_room_open() {
            // An extra worker would take the room that one is missing for.
            self.surge = self.surge.min(self.live().saturating_sub(desired.workers()));
        }
    }

    fn decide_surge(&mut self, desired: DesiredCount) {
        let old = self.memory.slots.values().filter(|slot| self.is_old(slot)).count();
        if old == 0 {
            self.memory.stop_first = None;
            return self.prove();
        }
        let is_well = |slot: &Slot| slot.phase == Phase::Healthy;
        let well = self.memory.slots.values().filter(|slot| is_well(slot)).count();
        let all_are_well = well >= desired.workers() && self.memory.slots.values().all(is_well);
        let booting = self.memory.slots.values().filter(|slot| is_booting(slot.phase) && self.is_new(slot));
        let booting = booting.count();
        let is_tried = self.is_tried();
        if is_tried {
            self.prove();
        }
        let batch = if is_tried { self.policy.rollout_batch(desired) } else { 1 }.min(old);
        let beyond = self.live().saturating_sub(desired.workers());
        if self.on_trial() > 0 {
            // It is one more than desired until it has proved itself, even if others are lost.
            self.surge = if self.stops_first() { beyond.min(1) } else { 1 };
            return self.hold_rollout(RolloutBrake::OnTrial);
        }
        if booting > 0 || !all_are_well {
            // A batch that was begun goes on. No new batch is begun.
            self.surge = beyond.min(batch);
        } else if beyond > 0 {
            // The new ones serve, or the surplus has nothing to do with them: as many old ones leave.
            self.surge = 0;
        } else if let Some(why) = self.frozen() {
            self.hold_rollout(why);
        } else {
            self.fall_back_to_stop_first(desired);
            if self.stops_first() { self.stop_one(desired) } else { self.surge = batch }
        }
    }

    /// Counts workers of a release that has not proved itself, while another one has.
    pub(super) fn on_trial(&self) -> usize {
        let is_on_trial = |slot: &&Slot| self.is_new(slot) && self.counts(slot);
        let number = self.memory.slots.values().filter(is_on_trial).count();
        if self.is_tried() || !self.heals_from_proven() { 0 } else { number }
    }

    fn is_new(&self, slot: &Slot) -> bool {
        slot.release == self.release.id
    }

    /// Whether it is to be replaced by a worker of the present release.
    pub(super) fn is_old(&self, slot: &Slot) -> bool {
        !self.is_new(slot) && self.counts(slot)
    }

    /// Whether old workers can go because tried ones of the present release serve.
    pub(super) fn new_ones_serve(&self) -> bool {
        let serves = |slot: &Slot| self.is_new(slot) && slot.phase == Phase::Healthy;
        self.is_tried() && self.memory.slots.values().any(serves)
    }

    /// Whether a worker of the present release has served for a while.
    pub(super) fn is_tried(&self) -> bool {
        let trial = self.policy.trial;
        let is_tried =
            |slot: &Slot| self.is_new(slot) && slot.phase == Phase::Healthy && self.age(slot.since) >= trial;
        self.is_proven() || self.memory.slots.values().any(is_tried)
    }

    fn is_proven(&self) -> bool {
        self.memory.proven.as_ref().is_some_and(|proven| proven.id == self.release.id)
    }

    /// From now on the present release is what the fleet falls back on.
    fn prove(&mut self) {
        let is_tried = self.is_tried();
        if !self.is_proven() && is_tried {
            self.record(ReleaseDecision::Proven { release: self.release.id.clone() });
            self.memory.proven = Some(self.release.as_ref().clone());
        }
        if self.is_proven() {
            let id = &self.release.id;
            self.memory.boots.retain(|release, _| release == id);
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.memory.boots.get(&self.release.id).map_or(0, |boots| boots.failures)
    }

    pub(super) fn hold_rollout(&mut self, why: RolloutBrake) {
        self.hold(HeldBack::Rollout { release: self.release.id.clone(), why });
    }

    fn frozen(&self) -> Option<RolloutBrake> {
        let boots = self.memory.boots.get(&self.release.id)?;
        let since = boots.last_failure?;
        let is_frozen =
            boots.failures >= self.policy.freeze_after && self.age(since) < self.policy.frozen_retry;
        is_frozen.then(|| RolloutBrake::Frozen { story: boots.story(), retry: self.policy.frozen_retry })
    }

    /// Whether a missing worker is launched from the proven release and not from the present one:
    /// healing is no time for experiments.
    pub(super) fn heals_from_proven(&self) -> bool {
        let is_other = self.memory.proven.as_ref().is_some_and(|proven| proven.id != self.release.id);
        let has_old = self.memory.slots.values().any(|slot| !self.is_new(slot));
        is_other && (has_old || self.failures() >= self.policy.freeze_after) && !self.fails_more_than_new()
    }

    /// Whether a missing worker is launched from the present release although healing is no time for
    /// experiments: there is no room or capacity for the proven one, and people deploy another instance
    /// type or market because of that. It is one worker, on trial, until it has proved itself.
    pub(super) fn heals_by_trial(&self) -> bool {
        let is_refused = |release: &Release| self.is_refused(&release.id, release.worker.market);
        let has_new = self.memory.slots.values().any(|slot| self.is_new(slot));
        let is_untried = !has_new && self.failures() == 0 && !is_refused(self.release);
        is_untried && self.memory.proven.as_ref().is_some_and(is_refused)
    }

    /// What has proved itself may stop to boot all the same: its image is gone, for instance.
    fn fails_more_than_new(&self) -> bool {
        let proven = self.memory.proven.as_ref().and_then(|proven| self.memory.boots.get(&proven.id));
        proven.is_some_and(|boots| {
            boots.failures >= self.policy.freeze_after && boots.failures > self.failures()
        })
    }
}
