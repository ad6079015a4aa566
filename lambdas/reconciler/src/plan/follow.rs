//! Moves what is remembered along with what is seen, and judges who is dead.

use std::net::SocketAddr;

use fleet::memory::{LeavingStage, Phase, Slot};
use fleet::{WORKER_PORT, WorkerAddr, WorkerId};
use jiff::SignedDuration;

use super::{Launch, Tick};
use crate::observation::{Instance, Probe, State};

/// A boot takes 40 to 70 s on EC2; one that takes thrice that will not end.
const BOOT_GRACE: SignedDuration = SignedDuration::from_secs(180);
/// A worker that leaves the registry may still be known to a load balancer for two seconds, and
/// finish requests for as long as they may last.
const DRAIN: SignedDuration = SignedDuration::from_secs(15);
/// EC2 shows a terminated instance for about an hour; one that never shows up again is forgotten.
const FORGET: SignedDuration = SignedDuration::from_hours(1);
/// An instance without a place in memory may be a launch whose intent is being written.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_secs(120);
/// Listings lag by seconds, in bad hours by minutes.
const MISSING: SignedDuration = SignedDuration::from_mins(5);

impl Tick<'_> {
    pub(super) fn follow_slots(&mut self) {
        for number in self.slot_numbers() {
            self.notice_instance(number);
            self.follow_slot(number);
        }
    }

    /// What `promote` does: instances that appear, and first answers.
    pub(super) fn notice_boots(&mut self) {
        for number in self.slot_numbers() {
            self.notice_instance(number);
            let Some(slot) = self.memory.slots.get(&number) else { continue };
            if slot.phase == Phase::Booting && self.probe(slot) == Some(Probe::Answered) {
                self.becomes_healthy(number);
            }
        }
    }

    fn slot_numbers(&self) -> Vec<u32> {
        self.memory.slots.keys().copied().collect()
    }

    fn probe(&self, slot: &Slot) -> Option<Probe> {
        self.observation.probes.get(slot.worker.as_ref()?).copied()
    }

    /// Connects a slot with the instance that EC2 shows for it, and learns its address.
    fn notice_instance(&mut self, number: u32) {
        let Some(slot) = self.memory.slots.get_mut(&number) else { return };
        let row = match &slot.worker {
            Some(id) => self.workers.get(id).copied(),
            None => self
                .workers
                .values()
                .find(|row| row.slot == Some(number) && row.attempt == Some(slot.attempt))
                .copied(),
        };
        let Some(row) = row else { return };
        slot.missing_since = None;
        slot.zone.clone_from(&row.zone);
        // An address that EC2 does not show yet is not a change of address.
        slot.addr = row.address.map(|ip| WorkerAddr(SocketAddr::new(ip, WORKER_PORT))).or(slot.addr);
        if slot.phase == Phase::Launching && row.state.is_live() {
            slot.phase = Phase::Booting;
            slot.since = row.launched.unwrap_or(self.now);
        }
        if slot.worker.is_none() {
            slot.worker = Some(row.id.clone());
            let text = format!("Found {} in slot {number} (attempt {}).", row.id, slot.attempt);
            self.record(text);
        }
    }

    fn follow_slot(&mut self, number: u32) {
        let Some(slot) = self.memory.slots.get(&number).cloned() else { return };
        let row = slot.worker.as_ref().and_then(|id| self.workers.get(id)).copied();
        match row {
            None => self.follow_unseen(number, &slot),
            Some(row) if !row.state.is_live() => self.lost(number, &slot, row),
            Some(_) => self.follow_probe(number, &slot),
        }
    }

    /// EC2 does not show the instance. If it answers, it lives; otherwise its launch is repeated:
    /// the same token returns the instance if there is one.
    fn follow_unseen(&mut self, number: u32, slot: &Slot) {
        if self.probe(slot) == Some(Probe::Answered) {
            self.follow_probe(number, slot);
            return;
        }
        let who =
            slot.worker.as_ref().map_or_else(|| format!("the launch in slot {number}"), WorkerId::to_string);
        let subnet_is_gone = !self.release.worker.subnets.iter().any(|subnet| subnet.id == slot.subnet);
        let missing_since = slot.missing_since.unwrap_or(self.now);
        let is_replayable = slot.release == self.release.id;
        if subnet_is_gone {
            // A network cannot be removed while an instance is in it.
            self.record(format!("Gave up {who}: its subnet does not exist any more."));
            self.memory.slots.remove(&number);
        } else if is_replayable {
            if let Some(slot) = self.memory.slots.get_mut(&number) {
                slot.missing_since = Some(missing_since);
            }
            self.launches.push(Launch { slot: number, attempt: slot.attempt, subnet: slot.subnet.clone() });
        } else if self.now.duration_since(missing_since) > MISSING {
            self.record(format!("Gave up {who}: EC2 has not shown it for five minutes."));
            self.memory.slots.remove(&number);
        } else {
            if let Some(slot) = self.memory.slots.get_mut(&number) {
                slot.missing_since = Some(missing_since);
            }
            self.hold(format!("a replacement for {who}: EC2 does not show it, which proves nothing yet"));
        }
    }

    /// EC2 says that the instance is on its way out or has stopped: nothing is killed by replacing it.
    fn lost(&mut self, number: u32, slot: &Slot, row: &Instance) {
        if matches!(slot.phase, Phase::Launching | Phase::Booting) {
            self.boot_failed();
        }
        let how = match row.state {
            State::Stopped => "was stopped",
            _ => "was terminated",
        };
        self.record(format!("Lost {}: it {how}, not by us.", row.id));
        self.retire(number, LeavingStage::Terminating, "lost");
    }

    fn follow_probe(&mut self, number: u32, slot: &Slot) {
        let Some(id) = slot.worker.clone() else { return };
        match (self.probe(slot), slot.phase) {
            (Some(Probe::Answered), Phase::Healthy) => {}
            (Some(Probe::Answered), _) => self.becomes_healthy(number),
            (_, Phase::Launching | Phase::Booting) => {
                if self.now.duration_since(slot.since) > BOOT_GRACE {
                    self.give_up_boot(number, &id);
                }
            }
            // Without an address there is no verdict.
            (None, _) => {}
            (Some(Probe::Silent), Phase::Healthy) => {
                self.enter(number, Phase::Suspect);
                self.record(format!("{id} did not answer in time; one more silent tick and it is replaced."));
            }
            (Some(Probe::Silent), Phase::Suspect | Phase::Dead)
            | (Some(Probe::Refused), Phase::Healthy | Phase::Suspect | Phase::Dead) => self.dead.push(number),
        }
    }

    fn becomes_healthy(&mut self, number: u32) {
        let Some(slot) = self.memory.slots.get(&number) else { return };
        let id = slot.worker.as_ref().map(ToString::to_string).unwrap_or_default();
        let text = match slot.phase {
            Phase::Launching | Phase::Booting => {
                let seconds = self.now.duration_since(slot.since).as_secs().max(0);
                self.memory.boot_failures = 0;
                format!("{id} serves, {seconds} s after its launch.")
            }
            Phase::Healthy | Phase::Suspect | Phase::Dead => format!("{id} answers again."),
        };
        self.enter(number, Phase::Healthy);
        self.record(text);
    }

    fn enter(&mut self, number: u32, phase: Phase) {
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.phase = phase;
            slot.since = self.now;
        }
    }

    /// Needs nobody else who answers: it never had traffic, so nothing is lost if the fault is ours,
    /// and to wait for an answer could be to wait for ever.
    fn give_up_boot(&mut self, number: u32, id: &WorkerId) {
        self.boot_failed();
        self.record(format!(
            "Gave up {id}: it did not answer within {} s of its launch.",
            BOOT_GRACE.as_secs()
        ));
        self.retire(number, LeavingStage::Terminating, "its boot failed");
    }

    fn boot_failed(&mut self) {
        self.memory.boot_failures += 1;
        self.memory.last_boot_failure = Some(self.now);
    }

    /// Remembered workers that answered in this tick.
    fn answering(&self) -> usize {
        self.memory.slots.values().filter(|slot| self.probe(slot) == Some(Probe::Answered)).count()
    }

    /// Retires the dead as far as the brakes allow; the others wait as `Dead`.
    pub(super) fn judge(&mut self) {
        let dead = std::mem::take(&mut self.dead);
        let served = self
            .memory
            .slots
            .values()
            .filter(|slot| matches!(slot.phase, Phase::Healthy | Phase::Suspect | Phase::Dead));
        let served = served.count();
        let is_replaced = self.desired().is_some_and(|desired| self.answering() >= desired);
        let is_panic = dead.len() >= 2 && dead.len() * 2 > served && !is_replaced;
        let per_tick = (served / 10).max(1);
        let mut retired = 0;
        for number in dead {
            let id = self.memory.slots.get(&number).and_then(|slot| slot.worker.clone());
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            let why_not = if self.answering() == 0 {
                Some("no other worker answers, so the fault may be ours; a replacement is launched first")
            } else if is_panic {
                Some("most workers fail at once; replacements are launched first")
            } else if retired >= per_tick {
                Some("enough were terminated in this tick")
            } else {
                None
            };
            match why_not {
                Some(why) => {
                    if self.memory.slots.get(&number).is_some_and(|slot| slot.phase != Phase::Dead) {
                        self.enter(number, Phase::Dead);
                        self.record(format!("{id} is dead, but not terminated yet: {why}."));
                    }
                    self.hold(format!("the termination of {id}: {why}"));
                }
                None => {
                    retired += 1;
                    self.record(format!("Terminating {id}: it does not answer, and others do."));
                    self.retire(number, LeavingStage::Terminating, "it does not answer");
                }
            }
        }
    }

    pub(super) fn follow_leaving(&mut self) {
        for (id, leaving) in self.memory.leaving.clone() {
            let age = self.now.duration_since(leaving.since);
            let row = self.workers.get(&id).copied();
            match row.map(|row| row.state) {
                Some(State::Terminated) => {
                    self.memory.leaving.remove(&id);
                }
                None if age > FORGET => {
                    self.memory.leaving.remove(&id);
                }
                None | Some(State::ShuttingDown) => {}
                Some(State::Pending | State::Running | State::Stopped) => {
                    let is_drained = age >= DRAIN && !self.is_published(&id);
                    let is_due = leaving.stage == LeavingStage::Terminating || is_drained;
                    if is_due && leaving.stage == LeavingStage::Draining {
                        self.record(format!("Terminating {id}: it is drained ({}).", leaving.reason));
                        if let Some(leaving) = self.memory.leaving.get_mut(&id) {
                            leaving.stage = LeavingStage::Terminating;
                            leaving.since = self.now;
                        }
                    }
                    if is_due && !self.terminations.contains(&id) {
                        self.terminations.push(id);
                    }
                }
            }
        }
    }

    fn is_published(&self, id: &WorkerId) -> bool {
        self.published.is_some_and(|registry| registry.workers.contains_key(id))
    }

    /// Instances of ours that are not remembered: after a lost memory, or a launch whose slot was
    /// given up before it was seen.
    pub(super) fn adopt_unknown(&mut self) {
        let mut rows: Vec<&Instance> = self.workers.values().copied().collect();
        // Of two instances of one slot, the one that answers is kept, else the later attempt.
        let answers = |row: &Instance| self.observation.probes.get(&row.id) == Some(&Probe::Answered);
        rows.sort_by_key(|row| std::cmp::Reverse((answers(row), row.attempt)));
        for row in rows {
            if let (Some(slot), Some(attempt)) = (row.slot, row.attempt) {
                let highest = self.memory.attempts.entry(slot).or_insert(0);
                *highest = (*highest).max(attempt);
            }
            let is_known = self.memory.leaving.contains_key(&row.id)
                || self.memory.slots.values().any(|slot| slot.worker.as_ref() == Some(&row.id));
            if is_known || matches!(row.state, State::ShuttingDown | State::Terminated) {
                continue;
            }
            let age = row.launched.map_or(SignedDuration::ZERO, |launched| self.now.duration_since(launched));
            match (row.slot, row.attempt) {
                (Some(number), Some(attempt))
                    if row.state.is_live() && !self.memory.slots.contains_key(&number) =>
                {
                    // One that may have served is judged as one that did, with all brakes.
                    let has_served = self.is_published(&row.id) || age > BOOT_GRACE;
                    let (phase, since) = if has_served {
                        (Phase::Suspect, self.now)
                    } else {
                        (Phase::Booting, row.launched.unwrap_or(self.now))
                    };
                    self.record(format!("Adopted {} into slot {number}.", row.id));
                    let slot = Slot {
                        attempt,
                        release: row.release.clone(),
                        subnet: row.subnet.clone(),
                        zone: row.zone.clone(),
                        phase,
                        since,
                        worker: Some(row.id.clone()),
                        addr: row.address.map(|ip| WorkerAddr(SocketAddr::new(ip, WORKER_PORT))),
                        missing_since: None,
                    };
                    self.memory.slots.insert(number, slot);
                    if self.observation.probes.get(&row.id) == Some(&Probe::Answered) {
                        self.becomes_healthy(number);
                    }
                }
                _ if age > ORPHAN_AGE => {
                    self.record(format!("Removing {}: it belongs to no slot.", row.id));
                    let leaving = fleet::memory::Leaving {
                        stage: LeavingStage::Draining,
                        since: self.now,
                        reason: "it belongs to no slot".to_owned(),
                    };
                    self.memory.leaving.insert(row.id.clone(), leaving);
                }
                _ => self.hold(format!("what to do with {}: it is new and belongs to no slot", row.id)),
            }
        }
    }
}
