//! Updates the slots from the observation.

use fleet::memory::{Balancer, LeavingReason, LeavingStage, Memory, Phase, Slot};
use fleet::{WorkerAddr, WorkerId};
use jiff::Timestamp;

use super::{News, Tick};
use crate::decision::{Loss, WorkerDecision};
use crate::grid;
use crate::held_back::{HeldBack, Who};
use crate::observation::{Instance, Observation, Probe, State, is_booting, worker_addr};

impl Tick<'_> {
    pub(super) fn follow_slots(&mut self) {
        for number in self.slot_numbers() {
            self.notice_instance(number);
            self.follow_slot(number);
        }
        self.bound_replays();
    }

    /// What a look does: instances that appear, and first answers. Says whether there was one.
    pub(super) fn notice_boots(&mut self) -> bool {
        let mut somebody_answers = false;
        for number in self.slot_numbers() {
            self.notice_instance(number);
            let Some(slot) = self.memory.slots.get(&number) else { continue };
            if slot.phase == Phase::Booting && self.probe_of(slot) == Some(Probe::Answered) {
                self.becomes_healthy(number);
                somebody_answers = true;
            }
        }
        somebody_answers
    }

    fn slot_numbers(&self) -> Vec<u32> {
        self.memory.slots.keys().copied().collect()
    }

    /// Connects a slot with the instance that EC2 shows for it, and learns its address.
    fn notice_instance(&mut self, number: u32) {
        let Some(slot) = self.memory.slots.get_mut(&number) else { return };
        let row = match &slot.worker {
            Some(id) => self.workers.get(id).copied(),
            None => self.workers.values().find(|row| is_launch_of(row, number, slot)).copied(),
        };
        let Some(row) = row else { return };
        let published = self.published.and_then(|published| published.workers.get(&row.id));
        slot.missing_since = None;
        slot.is_unwanted = false;
        if slot.zone != row.zone {
            slot.zone.clone_from(&row.zone);
        }
        // An address that EC2 does not show yet is not a change of address.
        slot.addr = row.address.map(worker_addr).or(slot.addr).or(published.map(|worker| worker.addr));
        if is_booting(slot.phase) && self.observation.registry.is_ok() && published.is_none() {
            // It was adopted while the registry could not be read; now it is known that it never served.
            slot.served = false;
        }
        if published.is_some() && is_booting(slot.phase) && row.state.is_live() {
            // The launch of a memory that was lost: readers know the worker.
            slot.served = true;
            slot.phase = Phase::Suspect;
            slot.since = self.now;
        }
        if matches!(slot.phase, Phase::Launching | Phase::Unresolved) && row.state.is_live() {
            slot.phase = Phase::Booting;
            slot.since = row.launched.unwrap_or(self.now);
        }
        if slot.worker.is_none() {
            slot.worker = Some(row.id.clone());
            let (id, attempt) = (row.id.clone(), slot.attempt);
            self.record(WorkerDecision::Found { id, slot: number, attempt });
        }
    }

    fn follow_slot(&mut self, number: u32) {
        let Some(slot) = self.memory.slots.get(&number) else { return };
        let row = slot.worker.as_ref().and_then(|id| self.workers.get(id)).copied();
        match row {
            None => self.follow_unseen(number),
            Some(row) if !row.state.is_live() => self.lost(number, row),
            Some(_) => self.follow_probe(number),
        }
    }

    /// EC2 does not show the instance. If it answers, it lives; otherwise its launch is repeated:
    /// the same token returns the instance if there is one.
    fn follow_unseen(&mut self, number: u32) {
        let Some(slot) = self.memory.slots.get(&number).cloned() else { return };
        if self.probe_of(&slot) == Some(Probe::Answered) {
            return self.follow_probe(number);
        }
        let who = Who::of_slot(number, &slot);
        let missing_since = slot.missing_since.unwrap_or(self.now);
        let launch = self.launch_of(number, &slot).filter(|_| !slot.is_adopted);
        let subnet_is_gone = !self.release.worker.subnets.iter().any(|subnet| subnet.id == slot.subnet);
        if subnet_is_gone {
            // A network cannot be removed while an instance is in it.
            self.record(WorkerDecision::SubnetGone { who });
            self.memory.slots.remove(&number);
            return;
        }
        let is_dark = self.observation.is_partial || !self.is_reachable(&slot.zone);
        if (launch.is_none() || slot.is_unwanted)
            && self.age(missing_since) > self.policy.missing_after
            && !is_dark
        {
            self.record(WorkerDecision::Unseen { who, during: self.policy.missing_after });
            self.memory.slots.remove(&number);
            return;
        }
        // A launch that is repeated may take place each time, the last time as well.
        let is_reachable = self.is_reachable(&slot.zone);
        let is_repeated = launch.is_some() && !slot.is_unwanted && is_reachable;
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            // Only what EC2 leaves out of a list is missing.
            slot.missing_since = (!is_repeated && !is_dark).then_some(missing_since);
        }
        match launch {
            Some(_) if slot.is_unwanted => {}
            Some(launch) if is_repeated => self.replays.push(launch),
            Some(_) => self.hold(HeldBack::Repetition { who: who.clone(), zone: slot.zone.clone() }),
            None => self.hold(HeldBack::Decision { who: who.clone() }),
        }
        let is_overdue = match slot.phase {
            // Where the call cannot even be made, nothing will be known soon.
            Phase::Launching => self.age(slot.since) > self.policy.unresolved_after || !is_reachable,
            Phase::Booting => self.age(slot.since) > self.policy.boot_grace,
            Phase::Healthy | Phase::Suspect | Phase::Dead | Phase::Unresolved => false,
        };
        if is_overdue {
            self.enter(number, Phase::Unresolved);
            self.record(WorkerDecision::Unresolved { who });
        } else if !is_booting(slot.phase) {
            self.follow_probe(number);
        }
    }

    /// The same launch in another zone.
    /// Which ones first changes from tick to tick, so that none waits for ever.
    fn bound_replays(&mut self) {
        let (number, most) = (self.replays.len(), self.policy.repeats_per_tick);
        if number > most {
            self.replays.rotate_left(grid::turn(self.policy, self.now) * most % number);
            self.replays.truncate(most);
        }
    }

    /// EC2 says that the instance is on its way out or has stopped: nothing is killed by replacing it.
    fn lost(&mut self, number: u32, row: &Instance) {
        let Some(slot) = self.memory.slots.get(&number) else { return };
        if slot.phase != Phase::Dead {
            self.memory.losses.push(self.now);
        }
        if is_booting(slot.phase) {
            let release = slot.release.clone();
            self.boot_failed(&release);
        }
        let how = match row.state {
            State::Stopped => Loss::Stopped,
            State::Pending | State::Running | State::ShuttingDown | State::Terminated => Loss::Terminated,
        };
        self.record(WorkerDecision::Lost { id: row.id.clone(), how });
        self.retire(number, LeavingStage::Terminating, LeavingReason::Lost, false);
    }

    fn follow_probe(&mut self, number: u32) {
        let Some(slot) = self.memory.slots.get(&number) else { return };
        let Some(id) = slot.worker.clone() else { return };
        if self.follow_crashes(number, &id) {
            return;
        }
        let Some(slot) = self.memory.slots.get(&number) else { return };
        match (self.probe_of(slot), slot.phase) {
            (Some(Probe::Answered), Phase::Healthy) => {}
            (Some(Probe::Answered), _) => self.becomes_healthy(number),
            (_, Phase::Launching | Phase::Booting | Phase::Unresolved) => {
                if self.age(slot.since) > self.policy.boot_grace {
                    self.give_up_boot(number, &id);
                }
            }
            // Without an address there is no verdict, until it is plain that there will be none.
            (None, Phase::Dead) if !slot.served || slot.addr.is_none() => self.dead.push(number),
            (None, Phase::Suspect) if self.age(slot.since) > self.policy.missing_after => {
                self.dead.push(number)
            }
            (None, Phase::Healthy)
                if slot.addr.is_none() && self.age(slot.since) > self.policy.missing_after =>
            {
                self.dead.push(number);
            }
            (None, _) => {}
            (Some(Probe::Silent), Phase::Healthy) => {
                self.enter(number, Phase::Suspect);
                self.record(WorkerDecision::SilentOnce { id });
            }
            (Some(Probe::Silent), Phase::Suspect) if self.age(slot.since) < self.policy.silence_spacing => {}
            (Some(Probe::Silent), Phase::Suspect | Phase::Dead)
            | (Some(Probe::Refused), Phase::Healthy | Phase::Suspect | Phase::Dead) => self.dead.push(number),
        }
    }

    pub(super) fn becomes_healthy(&mut self, number: u32) {
        let Some(slot) = self.memory.slots.get(&number) else { return };
        let who = Who::of_slot(number, slot);
        let decision = if is_booting(slot.phase) {
            let after = self.age(slot.since);
            // A release that keeps crashing answers first as well.
            self.memory.boots.retain(|release, boots| *release != slot.release || boots.crashes);
            WorkerDecision::Serves { who, after }
        } else {
            WorkerDecision::AnswersAgain { who }
        };
        if self.memory.proven.is_none() && slot.release == self.release.id {
            self.memory.proven = Some(self.release.as_ref().clone());
        }
        self.enter(number, Phase::Healthy);
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.served = true;
        }
        self.record(decision);
    }

    pub(super) fn enter(&mut self, number: u32, phase: Phase) {
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.phase = phase;
            slot.since = self.now;
        }
    }

    /// Gives up a boot. No other worker has to answer, because it never had traffic. If no worker at all is
    /// heard, the fault may be the prober's, and it is kept as dead.
    fn give_up_boot(&mut self, number: u32, id: &WorkerId) {
        let Some(slot) = self.memory.slots.get(&number) else { return };
        let release = slot.release.clone();
        self.boot_failed(&release);
        self.memory.losses.push(self.now);
        let (id, within) = (id.clone(), self.policy.boot_grace);
        if !self.is_deaf() && !self.is_young() {
            self.record(WorkerDecision::BootFailed { id, within });
            self.retire(number, LeavingStage::Terminating, LeavingReason::BootFailed, true);
        } else {
            self.enter(number, Phase::Dead);
            self.record(WorkerDecision::BootKept { id, within });
        }
    }

    pub(super) fn boot_failed(&mut self, release: &str) {
        let boots = self.memory.boots.entry(release.to_owned()).or_default();
        boots.failures = boots.failures.saturating_add(1);
        (boots.last_failure, boots.refused) = (Some(self.now), None);
    }
}

/// Whether the launch that a slot intends gave this instance. After memory was lost an attempt may be
/// used again, for EC2 may not have shown it yet: that earlier instance is in another subnet, or of
/// another release, and to take it for the new one would call an old worker new.
fn is_launch_of(row: &Instance, number: u32, slot: &Slot) -> bool {
    row.slot == Some(number)
        && row.attempt == Some(slot.attempt)
        && row.subnet == slot.subnet
        && row.release == slot.release
}

/// In a tick that sees too little to judge, an answer is still an answer: a silence before it and
/// one after it are not two in a row.
pub(super) fn take_good_news(
    observation: &Observation,
    memory: &mut Memory,
    news: &mut News,
    now: Timestamp,
) {
    let answers = |id: &WorkerId| observation.probes.get(id) == Some(&Probe::Answered);
    let mut decisions = Vec::new();
    let restarts = &memory.restarts;
    let keeps_crashing = |id: &WorkerId| restarts.get(id).is_some_and(|restarts| restarts.is_loop);
    for slot in memory.slots.values_mut().filter(|slot| matches!(slot.phase, Phase::Suspect | Phase::Dead)) {
        if let Some(id) = slot.worker.as_ref().filter(|id| answers(id) && !keeps_crashing(id)) {
            decisions.push(WorkerDecision::AnswersAgain { who: Who::Instance(id.clone()) });
            slot.phase = Phase::Healthy;
            slot.since = now;
            slot.served = true;
        }
    }
    memory.leaving.retain(|id, leaving| {
        let is_taken_back = leaving.judged && answers(id);
        if is_taken_back {
            decisions.push(WorkerDecision::TakenBack { id: id.clone() });
        }
        !is_taken_back
    });
    for balancer in std::iter::once(&mut memory.balancer).chain(memory.more_balancers.values_mut()) {
        hear_holder(observation, balancer);
    }
    decisions.into_iter().for_each(|decision| news.record(memory, now, decision));
}

/// An answer of the holder counts although EC2 may not show its address in this tick.
pub(super) fn hear_holder(observation: &Observation, balancer: &mut Balancer) {
    if let Some(holder) = &mut balancer.holder
        && observation.probes.get(&holder.id) == Some(&Probe::Answered)
    {
        holder.answered = true;
        holder.silent_since = None;
    }
}

pub(super) fn addr(row: &Instance) -> Option<WorkerAddr> {
    row.address.map(worker_addr)
}
