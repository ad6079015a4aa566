//! Instances on their way out, and instances that memory does not know.

use std::cmp::Reverse;

use fleet::WorkerId;
use fleet::memory::{Leaving, LeavingReason, LeavingStage, Phase, Slot};
use jiff::SignedDuration;

use super::Tick;
use super::follow::addr;
use crate::decision::WorkerDecision;
use crate::held_back::{HeldBack, TerminationBrake, Who};
use crate::observation::{Instance, Probe, State};

/// The attempt of a worker in another slot than the one it was launched for: those of launches begin
/// with 1.
const NOT_LAUNCHED: u32 = 0;

impl Tick<'_> {
    pub(super) fn follow_leaving(&mut self) {
        let ids: Vec<WorkerId> = self.memory.leaving.keys().cloned().collect();
        for id in ids {
            let Some(leaving) = self.memory.leaving.get(&id) else { continue };
            let age = self.age(leaving.since);
            if self.take_back(&id) {
                continue;
            }
            match self.workers.get(&id).map(|row| row.state) {
                Some(State::Terminated) => {
                    self.memory.leaving.remove(&id);
                }
                None if age > self.policy.leaving_forgotten_after => {
                    self.memory.leaving.remove(&id);
                }
                None | Some(State::ShuttingDown) => {}
                // Nothing is killed by ending it.
                Some(State::Stopped) => {
                    if let Some(leaving) = self.memory.leaving.get_mut(&id) {
                        leaving.stage = LeavingStage::Terminating;
                    }
                    self.end_again(&id);
                }
                Some(State::Pending | State::Running) => self.follow_out(&id),
            }
        }
    }

    /// Takes back a worker that was judged by its probes and answers after all.
    fn take_back(&mut self, id: &WorkerId) -> bool {
        let is_judged = self.memory.leaving.get(id).is_some_and(|leaving| leaving.judged);
        let is_taken_back = is_judged && self.probe(id) == Some(Probe::Answered);
        if is_taken_back {
            self.record(WorkerDecision::TakenBack { id: id.clone() });
            self.memory.leaving.remove(id);
        }
        is_taken_back
    }

    pub(super) fn take_back_all(&mut self) {
        let ids: Vec<WorkerId> = self.memory.leaving.keys().cloned().collect();
        for id in ids {
            if self.take_back(&id) {
                self.return_to_slot(&id);
            }
        }
    }

    /// Adopts a worker that was taken back into its slot. If the next tick did not hear it, it would take a
    /// worker that served for less than `boot_grace` for a boot.
    fn return_to_slot(&mut self, id: &WorkerId) {
        let Some(row) = self.workers.get(id).copied().filter(|row| row.state.is_live()) else { return };
        let (Some(number), Some(attempt)) = (row.slot, row.attempt) else { return };
        if !self.memory.slots.contains_key(&number) {
            let age = row.launched.map_or(SignedDuration::ZERO, |launched| self.age(launched));
            self.adopt(row, number, attempt, age);
        }
    }

    /// Follows a running instance that is to leave.
    fn follow_out(&mut self, id: &WorkerId) {
        self.notice_unpublished(id);
        let Some(leaving) = self.memory.leaving.get(id).cloned() else { return };
        match leaving.stage {
            LeavingStage::Draining => {
                if leaving.unpublished.is_some_and(|since| self.age(since) >= self.policy.drain) {
                    self.record(WorkerDecision::Drained { id: id.clone(), why: leaving.reason });
                    if let Some(leaving) = self.memory.leaving.get_mut(id) {
                        leaving.stage = LeavingStage::Terminating;
                        leaving.since = self.now;
                    }
                    self.end_again(id);
                    self.room_is_made();
                }
            }
            LeavingStage::Terminating if leaving.judged && leaving.served => {
                // If no worker is desired it is no verdict any more, but the operator's wish.
                let is_refused = leaving.reason == LeavingReason::ReplacementRefused;
                let is_controlled = self.somebody_answers() || (is_refused && self.balancer_answers());
                let was_asked = self.probe(id).is_some();
                let is_in_the_way = self.is_out_of_room(self.release.worker.market);
                if self.is_none_desired() || (is_controlled && was_asked) {
                    self.end_again(id);
                } else if is_in_the_way && was_asked && self.balancer_answers() && !self.is_young() {
                    // Others answered when it was judged. Now a replacement needs its place.
                    if let Some(leaving) = self.memory.leaving.get_mut(id) {
                        leaving.reason = LeavingReason::ReplacementRefused;
                    }
                    self.end_again(id);
                    self.room_is_made();
                } else {
                    self.hold_termination(id, TerminationBrake::NoOtherAnswers);
                }
            }
            LeavingStage::Terminating if leaving.judged && self.is_deaf() => {
                self.hold_termination(id, TerminationBrake::NoneHeard);
            }
            LeavingStage::Terminating if leaving.judged && !self.fails_again(id) => {
                self.hold_termination(id, TerminationBrake::NotProbed);
            }
            LeavingStage::Terminating => self.end_again(id),
        }
    }

    fn hold_termination(&mut self, id: &WorkerId, why: TerminationBrake) {
        self.hold(HeldBack::Termination { who: Who::Instance(id.clone()), why });
    }

    /// It was asked in this tick, or has no address to be asked at.
    fn fails_again(&self, id: &WorkerId) -> bool {
        self.probe(id).is_some() || self.workers.get(id).is_some_and(|row| row.address.is_none())
    }

    /// A drain is counted from the registry that takes the worker out, which may be written later
    /// than it was planned, or by a later tick.
    fn notice_unpublished(&mut self, id: &WorkerId) {
        if self.observation.registry.is_err() {
            return;
        }
        let is_published = self.is_published(id);
        let written_at = self.published.map_or(self.now, |published| published.written_at);
        if let Some(leaving) = self.memory.leaving.get_mut(id) {
            if is_published {
                leaving.unpublished = None;
            } else {
                leaving.unpublished.get_or_insert(written_at.max(leaving.since));
            }
        }
    }

    fn end_again(&mut self, id: &WorkerId) {
        if !self.terminations.contains(id) {
            self.terminations.push(id.clone());
        }
    }

    pub(super) fn is_published(&self, id: &WorkerId) -> bool {
        self.published.is_some_and(|registry| registry.workers.contains_key(id))
    }

    /// Adopts or drains instances with the stack's tags that memory does not know: after memory was lost, or
    /// after a launch whose slot was given up before EC2 showed it.
    pub(super) fn adopt_unknown(&mut self) {
        let mut rows: Vec<&Instance> = Vec::new();
        for row in self.workers.values().copied() {
            if let (Some(slot), Some(attempt)) = (row.slot, row.attempt) {
                let highest = self.memory.attempts.entry(slot).or_insert(0);
                *highest = (*highest).max(attempt);
            }
            if !row.state.is_ended() && !self.is_known(row) {
                rows.push(row);
            }
        }
        // Of two instances of one slot the answering one is kept, else the later attempt.
        rows.sort_by_cached_key(|row| Reverse((self.probe(&row.id) == Some(Probe::Answered), row.attempt)));
        let mut drained = 0;
        for row in rows {
            let age = row.launched.map_or(SignedDuration::ZERO, |launched| self.age(launched));
            let policy = self.policy;
            let most = self.desired().map_or(policy.orphan_least, |desired| policy.orphan_batch(desired));
            match (row.slot, row.attempt) {
                (Some(number), Some(attempt))
                    if row.state.is_live() && !self.memory.slots.contains_key(&number) =>
                {
                    self.adopt(row, number, attempt, age);
                }
                // It serves until there are enough, so it has a place like any other.
                _ if self.probe(&row.id) == Some(Probe::Answered)
                    && self.desired().is_some_and(|desired| self.answering() < desired.workers())
                    && !self.is_young() =>
                {
                    self.adopt(row, self.unused_slot(), NOT_LAUNCHED, age);
                }
                _ if age > self.policy.orphan_age && !self.is_young() && drained < most => {
                    drained += 1;
                    self.drain_orphan(row);
                }
                _ => self.hold(HeldBack::Unknown { id: row.id.clone() }),
            }
        }
    }

    /// Returns the first slot that no launch ever had, so that no instance can appear with its tag.
    fn unused_slot(&self) -> u32 {
        let is_used = |number: &u32| {
            self.memory.slots.contains_key(number) || self.memory.attempts.contains_key(number)
        };
        (0..).find(|number| !is_used(number)).expect("there are fewer slots than numbers")
    }

    fn is_known(&self, row: &Instance) -> bool {
        self.memory.leaving.contains_key(&row.id) || self.slot_of(&row.id, Some(row)).is_some()
    }

    fn adopt(&mut self, row: &Instance, number: u32, attempt: u32, age: SignedDuration) {
        let probe = self.probe(&row.id);
        // If it may have served it is judged like a worker that did, with all brakes.
        let has_served = self.is_published(&row.id) || age > self.policy.boot_grace;
        // If the registry cannot be read, it may list this new instance: it is drained before it ends. But
        // nothing says that it ever served, so that alone does not list it.
        let may_be_published = self.observation.registry.is_err();
        let (phase, since) = if has_served && probe.is_some() {
            (Phase::Suspect, self.now)
        } else if has_served {
            // It was not asked, so it has not been silent either.
            (Phase::Healthy, self.now)
        } else {
            (Phase::Booting, row.launched.unwrap_or(self.now))
        };
        let slot = Slot {
            attempt,
            release: row.release.clone(),
            subnet: row.subnet.clone(),
            zone: row.zone.clone(),
            phase,
            since,
            worker: Some(row.id.clone()),
            addr: addr(row).or_else(|| self.published?.workers.get(&row.id).map(|worker| worker.addr)),
            missing_since: None,
            is_adopted: true,
            is_unwanted: false,
            served: has_served || may_be_published,
        };
        self.memory.slots.insert(number, slot);
        self.record(WorkerDecision::Adopted { id: row.id.clone(), slot: number });
        if probe == Some(Probe::Answered) {
            self.becomes_healthy(number);
        }
    }

    fn drain_orphan(&mut self, row: &Instance) {
        self.record(WorkerDecision::Unknown { id: row.id.clone() });
        let leaving = Leaving {
            stage: LeavingStage::Draining,
            since: self.now,
            reason: LeavingReason::Unknown,
            unpublished: None,
            judged: false,
            served: true,
        };
        self.memory.leaving.insert(row.id.clone(), leaving);
    }
}
