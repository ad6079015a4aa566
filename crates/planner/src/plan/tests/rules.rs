//! The rules of the table, as conditions on one tick: its memory, its observation and its plan. They are
//! written from the table, not from the planner: each asks whether the outcome is allowed, and none asks
//! how it was found.

use std::collections::BTreeSet;

use fleet::memory::{Leaving, LeavingReason, LeavingStage, Memory, Phase, RoomFor, Slot};
use fleet::release::Release;
use fleet::{Registry, WorkerId};
use jiff::{SignedDuration, Timestamp};

use crate::effect::Launch;
use crate::observation::{Address, Instance, Observation, Probe, Role, State, is_booting};
use crate::plan::Plan;

/// One tick, from the outside.
pub(super) struct Deed<'a> {
    pub(super) before: &'a Memory,
    pub(super) seen: &'a Observation,
    pub(super) planned: &'a Plan,
    /// The registry that readers had before.
    pub(super) readers: Option<&'a Registry>,
    pub(super) now: Timestamp,
}

const fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

const fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// Reasons to leave that are verdicts on a worker's health.
const VERDICTS: [LeavingReason; 2] = [LeavingReason::Dead, LeavingReason::BootFailed];
const SURPLUS: [LeavingReason; 2] = [LeavingReason::Surplus, LeavingReason::Replaced];

impl Deed<'_> {
    pub(super) fn check(&self) {
        if self.is_blind() {
            return self.blind();
        }
        self.unread_registry();
        self.young();
        self.desired();
        self.intents();
        self.unseen();
        self.leaving();
        self.verdicts();
        self.brakes();
        self.boots();
        self.surplus();
        self.limits();
        self.rollout();
        self.balancer();
        self.registry();
        self.memory();
    }

    fn is_blind(&self) -> bool {
        let is_new = self.before.began.is_none();
        self.seen.instances.is_err() || self.release().is_none() || (is_new && self.seen.registry.is_err())
    }

    /// Returns the release in force: if it cannot be read, the last one.
    fn release(&self) -> Option<&Release> {
        match &self.seen.release {
            Ok(release) => release.as_deref(),
            Err(_) => self.before.last_release(),
        }
    }

    fn unread_registry(&self) {
        if self.seen.registry.is_ok() {
            return;
        }
        assert_eq!(self.planned.registry, None, "its version is not known");
        for id in &self.planned.terminations {
            let is_judged = self.after().leaving.get(id).is_some_and(|leaving| leaving.judged);
            assert!(!is_judged, "{id} may still be in the registry that readers have");
        }
    }

    fn after(&self) -> &Memory {
        &self.planned.memory
    }

    fn age(&self, since: Timestamp) -> SignedDuration {
        self.now.duration_since(since)
    }

    fn row(&self, id: &WorkerId) -> Option<&Instance> {
        self.seen.instances.iter().flatten().find(|row| row.id == *id)
    }

    fn probe(&self, id: &WorkerId) -> Option<Probe> {
        self.seen.probes.get(id).copied()
    }

    fn answers(&self, id: &WorkerId) -> bool {
        self.probe(id) == Some(Probe::Answered)
    }

    /// Whether any instance was heard, if only to refuse.
    fn is_anybody_heard(&self) -> bool {
        self.seen.probes.values().any(|probe| matches!(probe, Probe::Answered | Probe::Refused))
    }

    fn desired_count(&self) -> usize {
        self.after().desired.map_or(0, |count| count.get() as usize)
    }

    /// Workers of slots that answered in this tick.
    fn answering(&self) -> usize {
        let slots = self.before.slots.values().chain(self.after().slots.values());
        let ids: BTreeSet<&WorkerId> = slots.filter_map(|slot| slot.worker.as_ref()).collect();
        ids.into_iter().filter(|id| self.answers(id)).count()
    }

    /// Returns the instances that begin to leave in this tick.
    fn fresh_leaving(&self) -> impl Iterator<Item = (&WorkerId, &Leaving)> {
        self.after().leaving.iter().filter(|(id, _)| !self.before.leaving.contains_key(*id))
    }

    /// Workers that served and are terminated for their health because of this tick.
    fn fresh_verdicts(&self) -> Vec<&WorkerId> {
        let is_verdict = |leaving: &Leaving| leaving.served && VERDICTS.contains(&leaving.reason);
        self.fresh_leaving().filter(|(_, leaving)| is_verdict(leaving)).map(|(id, _)| id).collect()
    }

    /// Launches that no earlier tick intended.
    fn fresh_launches(&self) -> Vec<&Launch> {
        let is_repeated = |launch: &&Launch| {
            let slot = match launch.role {
                Role::Worker => self.before.slots.get(&launch.slot),
                Role::LoadBalancer => {
                    self.before.balancers().nth(launch.slot as usize).and_then(|it| it.successor.as_ref())
                }
            };
            slot.is_some_and(|slot| slot.attempt == launch.attempt)
        };
        self.planned.launches.iter().filter(|launch| !is_repeated(launch)).collect()
    }

    fn fresh_workers(&self) -> Vec<&Launch> {
        self.fresh_launches().into_iter().filter(|launch| launch.role == Role::Worker).collect()
    }

    /// Refuses every probe, or was silent in the tick before as well: dead by the rule.
    fn is_dead(&self, slot: &Slot) -> bool {
        let Some(id) = &slot.worker else { return false };
        if self.row(id).is_some_and(|row| !row.state.is_live()) {
            return false;
        }
        match self.probe(id) {
            Some(Probe::Refused) => true,
            Some(Probe::Silent) => match slot.phase {
                Phase::Suspect => self.age(slot.since) >= seconds(15),
                Phase::Dead => true,
                Phase::Launching | Phase::Booting | Phase::Healthy | Phase::Unresolved => false,
            },
            Some(Probe::Answered) | None => false,
        }
    }

    /// Dead workers that served.
    fn dead(&self) -> Vec<&Slot> {
        self.before.slots.values().filter(|slot| slot.served && self.is_dead(slot)).collect()
    }

    /// How many workers that served there were when the brakes looked.
    fn served(&self) -> usize {
        let left = self.fresh_leaving().filter(|(_, leaving)| {
            leaving.served && (VERDICTS.contains(&leaving.reason) || SURPLUS.contains(&leaving.reason))
        });
        self.after().slots.values().filter(|slot| slot.served).count() + left.count()
    }

    fn blind(&self) {
        let Plan { launches, terminations, association, registry, .. } = self.planned;
        assert_eq!((launches.len(), terminations.len()), (0, 0), "blind");
        assert_eq!((association, registry), (&None, &None), "blind");
        for (number, slot) in &self.after().slots {
            let before = &self.before.slots[number];
            let answered = slot.worker.as_ref().is_some_and(|id| self.answers(id));
            assert!(slot == before || (answered && slot.phase == Phase::Healthy), "blind: {slot:?}");
        }
        assert!(self.after().slots.keys().eq(self.before.slots.keys()), "blind");
        for (id, leaving) in &self.before.leaving {
            let is_taken_back = leaving.judged && self.answers(id);
            let after = self.after().leaving.get(id);
            assert!(after == Some(leaving) || (is_taken_back && after.is_none()), "blind: {id} {after:?}");
        }
        assert_eq!(self.fresh_leaving().count(), 0, "blind");
    }

    fn is_young(&self) -> bool {
        self.after().follows_loss && self.after().began.is_none_or(|began| self.age(began) < seconds(50))
    }

    fn young(&self) {
        if !self.is_young() {
            return;
        }
        for id in &self.planned.terminations {
            let row = self.row(id).expect("only listed instances");
            let is_life = row.role == Role::Worker && row.state != State::Stopped;
            assert!(!is_life, "{id} is terminated while memory is young");
        }
        let is_lost = self.after().follows_loss;
        assert!(!is_lost || self.fresh_workers().is_empty(), "launched a moment after memory was lost");
    }

    /// A count comes into force only if it is read; the confirmation is checked over time.
    fn desired(&self) {
        let (before, after) = (self.before.desired, self.after().desired);
        if before == after {
            return;
        }
        let registry = self.seen.registry.iter().flatten().next();
        let is_read = self.seen.desired.as_ref().ok() == after.as_ref();
        let is_published = before.is_none() && registry.map(|registry| registry.desired) == after;
        assert!(is_read || is_published, "{before:?} becomes {after:?}");
    }

    /// Whatever is launched is remembered as intended.
    fn intents(&self) {
        for launch in &self.planned.launches {
            let slot = match launch.role {
                Role::Worker => self.after().slots.get(&launch.slot),
                Role::LoadBalancer => {
                    self.after().balancers().nth(launch.slot as usize).and_then(|it| it.successor.as_ref())
                }
            };
            let intent =
                slot.map(|slot| (slot.attempt, slot.subnet.as_str(), slot.release.as_str(), slot.phase));
            let expected = (launch.attempt, launch.subnet.as_str(), launch.release.as_str());
            let is_intended =
                intent.is_some_and(|(attempt, subnet, release, _)| (attempt, subnet, release) == expected);
            assert!(is_intended, "{launch:?} is intended as {slot:?}");
        }
    }

    /// Nothing that EC2 does not show is terminated.
    fn unseen(&self) {
        for id in &self.planned.terminations {
            assert!(self.row(id).is_some(), "{id} is not seen");
        }
    }

    /// A leaving worker was drained, or never served, or is judged. No worker is judged that answers.
    fn leaving(&self) {
        for id in &self.planned.terminations {
            let row = self.row(id).expect("only listed instances");
            if row.role == Role::LoadBalancer {
                continue;
            }
            assert!(!self.answers(id), "{id} answers, and is terminated");
            if row.state == State::Stopped {
                continue;
            }
            let leaving = self.after().leaving.get(id).expect("an end is remembered");
            assert_eq!(leaving.stage, LeavingStage::Terminating, "{id}");
            match self.before.leaving.get(id) {
                Some(before) if before.stage == LeavingStage::Draining => {
                    assert!(self.age(before.since) >= seconds(15), "{id} was drained for too short");
                    let is_published = self.readers.is_some_and(|registry| registry.workers.contains_key(id));
                    assert!(!is_published, "{id} gets traffic");
                }
                Some(before) if before.judged && before.served => {
                    // If no worker is desired it is the operator's wish, and no verdict.
                    let is_wish = self.after().desired.is_some_and(|desired| desired.get() == 0);
                    let is_judged_anew = self.probe(id).is_some() && self.answering() > 0;
                    assert!(is_wish || is_judged_anew, "{id} was judged long ago");
                }
                Some(before) if before.judged => {
                    assert!(
                        self.is_anybody_heard() || self.probe(id).is_none(),
                        "{id}: no instance is heard"
                    );
                }
                Some(_) => {}
                None if leaving.judged => {}
                None => assert!(!leaving.served, "{id} served, and is not drained"),
            }
        }
    }

    /// A new verdict follows the rules on dead workers, and needs another worker that answers.
    fn verdicts(&self) {
        for (id, leaving) in self.fresh_leaving().filter(|(_, leaving)| leaving.judged) {
            let slot = self.before.slots.values().find(|slot| slot.worker.as_ref() == Some(id));
            assert!(self.row(id).is_some(), "{id} is judged, and not seen");
            if leaving.served {
                let is_dead = slot.is_some_and(|slot| self.is_dead(slot));
                assert!(is_dead, "{id} is judged, but was {slot:?} and is {:?}", self.probe(id));
                assert!(self.answering() > 0, "{id} is judged, and no worker answers");
            } else {
                let launched = self.row(id).and_then(|row| row.launched);
                let is_overdue = launched.is_none_or(|launched| self.age(launched) > seconds(180));
                assert!(is_overdue, "{id} may still boot");
                let was_asked = !self.seen.probes.is_empty();
                assert!(self.is_anybody_heard() || !was_asked, "{id} is given up, and no instance is heard");
            }
        }
    }

    fn brakes(&self) {
        let (dead, served, ended) = (self.dead().len(), self.served(), self.fresh_verdicts());
        assert!(ended.len() <= (served / 10).max(1), "velocity: {ended:?} of {served}");
        let recent = |at: &&Timestamp| self.age(**at) < minutes(10);
        let terminated = self.before.terminations.iter().filter(recent).count();
        let is_degraded = (dead >= 2 && dead * 5 > served) || terminated >= (served / 3).max(2);
        if is_degraded {
            let replaced = (self.answering() + dead).saturating_sub(self.desired_count());
            assert!(ended.len() <= replaced, "degraded: {ended:?}, and {replaced} are replaced");
        }
        if dead >= 2 && dead * 2 > served {
            assert!(ended.len() <= 1, "panic: {ended:?}");
            let last = self.before.terminations.last();
            assert!(
                ended.is_empty() || last.is_none_or(|last| self.age(*last) >= seconds(55)),
                "panic: {ended:?} after {last:?}"
            );
            for slot in self.after().slots.values().filter(|slot| slot.served && slot.phase == Phase::Dead) {
                let is_published = slot.addr.is_none()
                    || slot.worker.as_ref().is_none_or(|id| self.readable().contains(&id));
                // What readers have cannot be changed while it cannot be read.
                let is_written = self.after().desired.is_some() && self.seen.registry.is_ok();
                assert!(is_published || !is_written, "panic: {slot:?} is not published");
            }
        }
        for id in ended {
            let zone = self.row(id).map(|row| row.zone.as_str()).unwrap_or_default();
            let is_dark =
                self.after().dark_zones.get(zone).is_some_and(|since| self.age(*since) < minutes(15));
            assert!(!is_dark || self.probe(id) != Some(Probe::Silent), "{id} is in a zone that is dark");
        }
    }

    /// Whom readers will have when this tick is done.
    fn readable(&self) -> BTreeSet<&WorkerId> {
        let registry = self.planned.registry.as_ref().or(self.readers);
        registry.iter().flat_map(|registry| registry.workers.keys()).collect()
    }

    /// No worker boots for longer than it may.
    fn boots(&self) {
        for slot in self.after().slots.values() {
            let is_overdue = self.age(slot.since) > seconds(180);
            let boots = matches!(slot.phase, Phase::Launching | Phase::Booting);
            assert!(!boots || !is_overdue, "{slot:?} boots for ever");
        }
    }

    fn surplus(&self) {
        let leaves = self.fresh_leaving().filter(|(_, leaving)| SURPLUS.contains(&leaving.reason));
        let leaves = leaves.count();
        let counts = |slot: &&Slot| !matches!(slot.phase, Phase::Dead | Phase::Unresolved);
        let live = self.after().slots.values().filter(counts).count();
        assert!(leaves <= ((live + leaves) / 4).max(3), "{leaves} leave at once");
        assert!(leaves == 0 || live >= self.desired_count(), "{leaves} are no surplus");
        let orphans =
            self.fresh_leaving().filter(|(_, leaving)| leaving.reason == LeavingReason::Unknown).count();
        assert!(orphans <= (self.desired_count() / 4).max(2), "{orphans} orphans leave at once");
        assert!(orphans == 0 || !self.is_young(), "orphans leave while memory is young");
    }

    fn limits(&self) {
        let fresh = self.fresh_workers();
        if fresh.is_empty() {
            return;
        }
        let (after, desired) = (self.after(), self.desired_count());
        let is_here = |id: &WorkerId| self.row(id).is_some_and(|row| row.state.is_live());
        let leaving = after.leaving.keys().filter(|id| is_here(id)).count();
        let number = after.slots.len() + leaving;
        let is_late = self.before.last_launch.is_none_or(|last| self.age(last) >= minutes(30));
        let may_look = self.answering() == 0 && fresh.len() == 1 && is_late && number <= 3 * desired + 6;
        assert!(number <= 2 * desired + 2 || may_look, "cap: {number} of {desired}");
        assert!(self.planned.launches.len() <= 20 + usize::from(fresh.len() < self.planned.launches.len()));
        // Of an unresolved launch nothing is expected any more.
        let boots = |slot: &Slot| matches!(slot.phase, Phase::Launching | Phase::Booting);
        let booting = after.slots.values().filter(|slot| boots(slot)).count();
        if self.answering() == 0 && !self.dead().is_empty() {
            assert!(booting <= desired.div_ceil(5).max(2), "deaf: {booting} boot");
        }
        let losses = after.losses.iter().filter(|at| self.age(**at) < minutes(60)).count();
        if losses >= 3 * desired + 10 {
            assert!(fresh.len() <= 1, "money: {fresh:?}");
            let is_late = self.before.last_launch.is_none_or(|last| self.age(last) >= minutes(3));
            assert!(is_late, "money: {fresh:?}");
        }
        for launch in fresh {
            let of_release = |slot: &&Slot| slot.release == launch.release && boots(slot);
            let booting = after.slots.values().filter(of_release).count();
            let is_proven = after.proven.as_ref().is_some_and(|proven| proven.id == launch.release);
            assert!(is_proven || booting <= 3, "{booting} of a release boot that never served");
            let Some(boots) = after.boots.get(&launch.release).filter(|boots| boots.failures >= 3) else {
                continue;
            };
            let pause = [1, 2, 4, 8, 16].get(boots.failures as usize - 3).copied().unwrap_or(30);
            let is_late = boots.last_failure.is_none_or(|last| self.age(last) >= minutes(pause));
            assert!(booting == 1 && is_late, "boot loop: {booting} boot, {boots:?}");
        }
    }

    fn rollout(&self) {
        let Some(release) = self.release() else { return };
        let (after, desired) = (self.after(), self.desired_count());
        let counting = |slot: &&Slot| !matches!(slot.phase, Phase::Dead | Phase::Unresolved);
        let live = after.slots.values().filter(counting).count();
        let is_new = |id: &str| id == release.id;
        // What the fleet falls back on: another release that has proved itself, unless that one has
        // come to boot worse than the new one. None is known after memory was lost.
        let failures = |id: &str| after.boots.get(id).map_or(0, |boots| boots.failures);
        let is_usable = |id: &str| failures(id) < 2 || failures(id) <= failures(&release.id);
        let is_on_trial =
            after.proven.as_ref().is_some_and(|proven| !is_new(&proven.id) && is_usable(&proven.id));
        let old = after.slots.values().filter(|slot| counting(slot) && !is_new(&slot.release)).count();
        let new = live - old;
        let is_surplus = |id: &WorkerId| {
            let is_surplus = |left: &Leaving| left.served && SURPLUS.contains(&left.reason);
            let left = after.leaving.get(id).is_some_and(is_surplus);
            left && self.row(id).is_some_and(|row| !is_new(&row.release))
        };
        let removed = self.fresh_leaving().filter(|(id, _)| is_surplus(id)).count();
        assert!(
            removed == 0 || !is_on_trial || new != 1 || old >= desired,
            "{removed} that serve leave for a release on trial"
        );
        let fresh = self.fresh_workers();
        if fresh.is_empty() {
            return;
        }
        let beyond = live.saturating_sub(desired);
        if is_on_trial && old > 0 {
            let begun = fresh.iter().filter(|launch| is_new(&launch.release)).count();
            assert!(begun == 0 || new == 1, "{new} of a release on trial");
        }
        assert!(beyond <= (desired / 10).max(1), "rollout: {beyond} beyond {desired}");
        let of_new = fresh.iter().filter(|launch| is_new(&launch.release)).count();
        let is_recent = |boots: &fleet::memory::Boots| {
            boots.last_failure.is_some_and(|last| self.age(last) < minutes(30))
        };
        let is_frozen = failures(&release.id) >= 2 && after.boots.get(&release.id).is_some_and(is_recent);
        let is_fresh = |number: &u32| fresh.iter().any(|launch| launch.slot == *number);
        let mut rest = after.slots.iter().filter(|(number, _)| !is_fresh(number));
        let has_old = rest.any(|(_, slot)| !is_new(&slot.release));
        if is_on_trial && (has_old || failures(&release.id) >= 2) {
            // The place that an old worker has left for one of the release is no healing.
            let room = after.room.as_ref().filter(|room| room.purpose == RoomFor::Worker);
            assert!(
                of_new <= beyond + usize::from(room.is_some()),
                "healed from a release that is not proved: {fresh:?}"
            );
            assert!(!is_frozen || of_new == 0, "frozen: {fresh:?}");
        }
        if beyond > 0 {
            let rest = after.slots.iter().filter(|(number, _)| !is_fresh(number));
            let ill: Vec<_> = rest.filter(|(_, slot)| slot.phase != Phase::Healthy).collect();
            let is_begun = of_new > 0 && fresh.len() == of_new && live - fresh.len() >= desired;
            assert!(!is_begun || ill.is_empty(), "begun while workers fail: {ill:?}");
        }
    }

    fn balancer(&self) {
        let addresses: Vec<&Address> = self.seen.addresses.iter().flatten().collect();
        let Some(spec) = self.release().and_then(|release| release.balancer.as_ref()) else {
            return;
        };
        for (place, allocation) in spec.places() {
            let address = addresses.iter().find(|address| address.allocation == allocation);
            self.balancer_of(place, allocation, address.and_then(|address| address.instance.as_ref()));
        }
    }

    fn balancer_of(&self, place: u32, allocation: &str, holder: Option<&WorkerId>) {
        let is_here = |row: &Instance| row.role == Role::LoadBalancer && row.slot.unwrap_or(0) == place;
        let is_well = holder.is_some_and(|id| self.answers(id));
        if let Some(to) = self.planned.association.as_ref().filter(|to| to.allocation == allocation) {
            assert!(!is_well, "the address moves away from {holder:?}, which answers");
            assert!(self.answers(&to.instance), "the address moves to {}, which does not", to.instance);
            assert!(self.row(&to.instance).is_none_or(is_here), "{} is of another place", to.instance);
        }
        for id in &self.planned.terminations {
            let Some(row) = self.row(id).filter(|row| is_here(row)) else { continue };
            assert_ne!(Some(&row.id), holder, "the holder of the address is terminated");
            assert!(is_well || !self.answers(id), "{id} answers, and the holder does not");
        }
        let fresh = self.fresh_launches();
        let is_fresh_here = |launch: &&&Launch| launch.role == Role::LoadBalancer && launch.slot == place;
        let fresh = fresh.iter().filter(is_fresh_here).count();
        let rows = self.seen.instances.iter().flatten();
        let live = rows.filter(|row| is_here(row) && row.state.is_live()).count();
        assert!(fresh == 0 || (!is_well && fresh == 1 && live < 3), "{fresh} launched besides {live}");
    }

    fn registry(&self) {
        let Some(registry) = &self.planned.registry else { return };
        for id in registry.workers.keys() {
            let slot = self.after().slots.values().find(|slot| slot.worker.as_ref() == Some(id));
            let serves = slot.is_some_and(|slot| slot.served && !is_booting(slot.phase));
            let row = self.row(id);
            // What memory may have forgotten and EC2 may not show yet: the readers know better.
            let is_kept = row.is_none_or(|row| row.state.is_live())
                && self.after().follows_loss
                && self.readers.is_some_and(|registry| registry.workers.contains_key(id))
                && self.after().began.is_none_or(|began| self.age(began) <= minutes(5));
            assert!(
                serves || (is_kept && slot.is_none_or(|slot| !slot.served)),
                "{id} is published: {slot:?}"
            );
            assert!(row.is_none_or(|row| row.state.is_live()), "{id} is published: {row:?}");
        }
        let last = self.readers.map_or(0, |registry| registry.revision);
        assert!(registry.revision > last, "{} after {last}", registry.revision);
    }

    fn memory(&self) {
        let Memory { slots, leaving, .. } = self.after();
        let mut workers = BTreeSet::new();
        for id in slots.values().filter_map(|slot| slot.worker.as_ref()) {
            assert!(workers.insert(id), "{id} is in two slots");
            assert!(!leaving.contains_key(id), "{id} stays and leaves");
        }
        for slot in slots.values() {
            let Some(row) = slot.worker.as_ref().and_then(|id| self.row(id)) else { continue };
            let (is, seen) = ((&slot.subnet, &slot.release), (&row.subnet, &row.release));
            assert_eq!(is, seen, "{row:?} is taken for another's launch");
        }
        // A live instance is remembered, or young enough to be left alone.
        for row in self.seen.instances.iter().flatten().filter(|row| row.role == Role::Worker) {
            let is_known = workers.contains(&row.id) || leaving.contains_key(&row.id);
            let is_new = row.launched.is_none_or(|launched| self.age(launched) <= seconds(90));
            let is_held = self.after().held.iter().any(|held| held.contains(row.id.as_str()));
            assert!(is_known || !row.state.is_live() || is_new || is_held, "{row:?} is forgotten");
        }
    }
}
