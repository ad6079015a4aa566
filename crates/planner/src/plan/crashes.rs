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
use fleet::memory::{LeavingReason, LeavingStage, Phase};
use jiff::SignedDuration;

use super::Tick;
use crate::decision::{CrashLoop, WorkerDecision};
use crate::held_back::{HeldBack, Who};
use crate::observation::Probe;

/// What the restarts of a program say.
pub(super) enum Crashes {
    Few,
    /// It keeps crashing, and did not before this tick.
    LoopBegins,
    Loop,
}

impl Tick<'_> {
    /// Notices restarts. Says whether the worker keeps crashing: then its answer in this tick is no health.
    pub(super) fn follow_crashes(&mut self, number: u32, id: &WorkerId) -> bool {
        let policy = self.policy;
        let Some(slot) = self.memory.slots.get_mut(&number) else { return false };
        let is_asked = self.observation.probes.get(id) == Some(&Probe::Answered);
        if !is_asked || !matches!(slot.phase, Phase::Healthy | Phase::Suspect | Phase::Dead) {
            return false;
        }
        let known = self.memory.restarts.get(id);
        let last_seen =
            known.and_then(|it| it.seen.last().copied()).map_or(slot.since, |at| at.max(slot.since));
        let started = self.observation.started.get(id).copied();
        let is_restarted = started.is_some_and(|started| started > last_seen + policy.crash_slack);
        if is_restarted && slot.phase == Phase::Healthy {
            // It has served without a break since then only.
            slot.since = self.now;
        }
        let (phase, since, release) = (slot.phase, slot.since, slot.release.clone());
        match self.count_restarts(id, is_restarted) {
            Crashes::Few => {
                self.forgive(&release, phase, self.age(since));
                return false;
            }
            Crashes::LoopBegins => {
                self.boot_failed(&release);
                self.memory.boots.entry(release).or_default().crashes = true;
                let crash_loop = self.crash_loop(id);
                self.record(WorkerDecision::KeepsCrashing(crash_loop));
            }
            Crashes::Loop => {}
        }
        if phase == Phase::Suspect {
            self.enter(number, Phase::Healthy);
        }
        true
    }

    /// Counts a restart that was seen in this tick, and forgets restarts that are long ago.
    pub(super) fn count_restarts(&mut self, id: &WorkerId, is_restarted: bool) -> Crashes {
        let (now, most, within) = (self.now, self.policy.crash_restarts, self.policy.crash_window);
        if is_restarted {
            let restarts = self.memory.restarts.entry(id.clone()).or_default();
            restarts.seen.push(now);
            if restarts.seen.len() > most {
                restarts.seen.remove(0);
            }
        }
        let restarts = self.memory.restarts.get_mut(id);
        let Some(restarts) = restarts.filter(|it| it.seen.last().is_some_and(|at| now - within < *at)) else {
            self.memory.restarts.remove(id);
            return Crashes::Few;
        };
        if restarts.is_loop {
            return Crashes::Loop;
        }
        restarts.seen.retain(|at| now - within < *at);
        restarts.is_loop = restarts.seen.len() >= most;
        if restarts.is_loop { Crashes::LoopBegins } else { Crashes::Few }
    }

    pub(super) fn crash_loop(&self, id: &WorkerId) -> CrashLoop {
        let (restarts, within) = (self.policy.crash_restarts, self.policy.crash_window);
        CrashLoop { id: id.clone(), restarts, within }
    }

    /// A worker of the release has served for a while without a restart.
    fn forgive(&mut self, release: &str, phase: Phase, served: SignedDuration) {
        if phase == Phase::Healthy && served >= self.policy.trial {
            self.memory.boots.retain(|id, boots| id != release || !boots.crashes);
        }
    }

    /// Replaces some of the workers that keep crashing, after their replacements answer.
    pub(super) fn judge_crashes(&mut self) {
        self.forget_restarts();
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
                self.record(WorkerDecision::CrashingReplaced { who });
            } else {
                self.hold(HeldBack::CrashingWaits { who });
            }
        }
    }

    /// Forgets the restarts of instances that are gone. Those of a load balancer that has lost the address
    /// count for their time, so that it does not get the address back at once.
    fn forget_restarts(&mut self) {
        let (now, within) = (self.now, self.policy.crash_window);
        let mut restarts = std::mem::take(&mut self.memory.restarts);
        restarts.retain(|id, restarts| {
            let mut slots = self.memory.slots.values();
            let mut holders = self.memory.balancers().filter_map(|balancer| balancer.holder.as_ref());
            let is_recent = restarts.seen.last().is_some_and(|at| now - within < *at);
            slots.any(|slot| slot.worker.as_ref() == Some(id))
                || holders.any(|holder| holder.id == *id)
                || (is_recent && self.balancers.contains_key(id))
        });
        self.memory.restarts = restarts;
    }

    fn drain_crashing(&mut self, number: u32) {
        let who = self.who(number);
        self.record(WorkerDecision::CrashingRemoved { who });
        self.memory.terminations.push(self.now);
        self.retire(number, LeavingStage::Draining, LeavingReason::KeepsCrashing, false);
    }

    fn who(&self, number: u32) -> Who {
        Who::of_slot(number, &self.memory.slots[&number])
    }
}
