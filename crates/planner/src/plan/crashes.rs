//! Replaces workers that keep crashing.
//!
//! systemd restarts a program within seconds, and a probe asks three times: a worker that crashes all the
//! time answers in every tick. Its health check says since when its process runs, and a process that began
//! after the last tick is a restart.
//!
//! ```text
//! three restarts within 5 min --> it keeps crashing: counts as a failed boot of its release
//!     --> one (or a tenth) at a time counts as dead, and a replacement is launched
//!         --> as many others answer as are desired: it drains
//!     --> no restart for 5 min: a worker like any other
//! ```
//!
//! It still serves between two crashes, so it never goes before its replacement answers. A release that
//! crashes everywhere runs into the pauses of a boot loop, and its rollout is frozen; a first answer does
//! not end that, 55 s without a restart do.

use fleet::WorkerId;
use fleet::memory::{LeavingStage, Phase};
use jiff::SignedDuration;

use super::Tick;
use crate::held_back::{HeldBack, Who, in_words};
use crate::observation::Probe;

impl Tick<'_> {
    /// Notices restarts. Says whether the worker keeps crashing: then its answer in this tick is no health.
    pub(super) fn follow_crashes(&mut self, number: u32, id: &WorkerId) -> bool {
        let (now, policy) = (self.now, self.policy);
        let (most, within) = (policy.crash_restarts, policy.crash_window);
        let Some(slot) = self.memory.slots.get_mut(&number) else { return false };
        let is_asked = self.observation.probes.get(id) == Some(&Probe::Answered);
        if !is_asked || !matches!(slot.phase, Phase::Healthy | Phase::Suspect | Phase::Dead) {
            return false;
        }
        let known = self.memory.restarts.get(id);
        let last_seen =
            known.and_then(|it| it.seen.last().copied()).map_or(slot.since, |at| at.max(slot.since));
        let started = self.observation.started.get(id).copied();
        if started.is_some_and(|started| started > last_seen + policy.crash_slack) {
            let restarts = self.memory.restarts.entry(id.clone()).or_default();
            restarts.seen.push(now);
            if restarts.seen.len() > most {
                restarts.seen.remove(0);
            }
            if slot.phase == Phase::Healthy {
                // It has served without a break since then only.
                slot.since = now;
            }
        }
        let (phase, since, release) = (slot.phase, slot.since, slot.release.clone());
        let restarts = self.memory.restarts.get_mut(id);
        let Some(restarts) = restarts.filter(|it| it.seen.last().is_some_and(|at| now - within < *at)) else {
            self.memory.restarts.remove(id);
            self.forgive(&release, phase, now.duration_since(since));
            return false;
        };
        if !restarts.is_loop {
            restarts.seen.retain(|at| now - within < *at);
        }
        if restarts.seen.len() >= most && !restarts.is_loop {
            restarts.is_loop = true;
            self.boot_failed(&release);
            self.memory.boots.entry(release).or_default().crashes = true;
            let within = in_words(within);
            self.record(format!("{id} keeps crashing: {most} restarts were seen within {within}."));
        } else if !restarts.is_loop {
            self.forgive(&release, phase, now.duration_since(since));
            return false;
        }
        if phase == Phase::Suspect {
            self.enter(number, Phase::Healthy);
        }
        true
    }

    /// A worker of the release has served for a while without a restart.
    fn forgive(&mut self, release: &str, phase: Phase, served: SignedDuration) {
        if phase == Phase::Healthy && served >= self.policy.trial {
            self.memory.boots.retain(|id, boots| id != release || !boots.crashes);
        }
    }

    /// Replaces some of the workers that keep crashing, after their replacements answer.
    pub(super) fn judge_crashes(&mut self) {
        let slots = &self.memory.slots;
        let is_known = |id: &WorkerId| slots.values().any(|slot| slot.worker.as_ref() == Some(id));
        self.memory.restarts.retain(|id, _| is_known(id));
        let Some(desired) = self.desired().filter(|desired| !desired.is_zero()) else { return };
        if self.memory.restarts.is_empty() || self.is_young() {
            return;
        }
        let keep_crashing = |number: &u32| {
            let slot = &self.memory.slots[number];
            self.probe_of(slot) == Some(Probe::Answered)
                && slot.worker.as_ref().is_some_and(|id| self.memory.keeps_crashing(id))
        };
        let crashing: Vec<u32> = self.memory.slots.keys().copied().filter(keep_crashing).collect();
        let is_dead = |number: &u32| self.memory.slots[number].phase == Phase::Dead;
        let (dead, next): (Vec<u32>, Vec<u32>) = crashing.iter().partition(|number| is_dead(number));
        let well = self.answering().saturating_sub(next.len());
        let most = self.policy.crash_batch(desired);
        for (n, number) in dead.iter().enumerate() {
            let is_replaced = n < most && self.answering() >= desired.workers();
            if is_replaced || (n == 0 && well > 0 && self.waits_for_room(*number)) {
                self.drain_crashing(*number);
            } else {
                let who = self.who(*number);
                self.hold(HeldBack::CrashingStays { who });
            }
        }
        for (n, number) in next.into_iter().enumerate() {
            let who = self.who(number);
            if dead.len() + n < most {
                self.memory.losses.push(self.now);
                self.enter(number, Phase::Dead);
                self.record(format!("{who} is to be replaced, because it keeps crashing."));
            } else {
                self.hold(HeldBack::CrashingWaits { who });
            }
        }
    }

    fn drain_crashing(&mut self, number: u32) {
        let who = self.who(number);
        self.record(format!("Removing {who}: it keeps crashing, and others answer."));
        self.memory.terminations.push(self.now);
        self.retire(number, LeavingStage::Draining, "it keeps crashing", false);
    }

    fn who(&self, number: u32) -> Who {
        Who::of_slot(number, &self.memory.slots[&number])
    }
}
