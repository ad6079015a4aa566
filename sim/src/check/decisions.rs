//! Compares each new decision of a memory with the planner's own table.
//!
//! Each rule is written from the table, not from the planner: it asks whether the probes of that tick allow
//! the decision, never how it was reached. Times are the plan's, so a slow write changes nothing.
//!
//! | rule | says |
//! |---|---|
//! | desired | a count that was never asked for is not in force; a count below half was read in two ticks, 15 s apart |
//! | young | for 50 s after a loss a memory ends no worker and launches none |
//! | zone | in a zone most of which is silent, while the others are well, no worker is ended for 15 min |
//! | silent | a silent worker is ended only when another one answers in its place, or to make room |
//! | panic | two or more and over half dead: 55 s between two ends for health |
//! | surplus | no worker that served leaves as surplus while another one still boots |
//! | trial | no worker leaves for a release before a worker of it has served for 55 s |
//! | rollout | a rollout launches at most one, or a tenth, beyond the desired number |
//! | room | one worker at a time leaves for another instance: of a rollout when all are healthy and the last new one is tried, and never the last that answers |
//! | limit | a zone is avoided only if it had no capacity; a release has no more failures than instances; a dead worker makes room after two minutes of refusals |
//! | frozen | after two failed boots of an unproven release it is not tried for 30 min, but to heal |
//! | cap | twice the desired number and two; where none answers three times and six, one in 30 min |
//! | deaf | while no worker answers two, or a fifth, boot at a time |
//! | boot loop | an unproven release boots three at a time; after three failures one, 1, 2, 4 … 30 min apart |
//! | money | past the budget of losses one launch in three minutes |
//! | traffic | no worker is published before it ever served |
//! | launch | the instance of a slot is in its subnet and of its release: it is not another's |

use std::collections::HashMap;

use fleet::memory::{Leaving, LeavingReason, Memory, Phase, Slot};
use fleet::{Registry, WorkerId};
use jiff::{SignedDuration, Timestamp};
use planner::observation::Probe;

use super::BOOT_GRACE;
use crate::clock::{Millis, SECOND, timestamp};
use crate::machine::subnet_name;
use crate::world::World;

const YOUNG: SignedDuration = SignedDuration::from_secs(50);
const DARK_ZONE: SignedDuration = SignedDuration::from_mins(15);
const PANIC_SPACING: SignedDuration = SignedDuration::from_secs(55);
const TRIAL: SignedDuration = SignedDuration::from_secs(55);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(30);
const SLOW_LAUNCHES: SignedDuration = SignedDuration::from_mins(3);
/// Two minutes, and the skew of two clocks that are accepted.
const OUT_OF_ROOM: SignedDuration = SignedDuration::from_secs(111);
const CONFIRM: Millis = 15 * SECOND;

/// One tick's decisions, from the outside.
struct Decisions<'a> {
    before: &'a Memory,
    after: &'a Memory,
    heard: HashMap<WorkerId, Probe>,
    opened: Vec<&'a Slot>,
    leaving: Vec<(&'a WorkerId, &'a Leaving)>,
}

impl World {
    pub(super) fn check_decisions(&mut self, before: Option<&Memory>, after: &Memory) {
        let Some(before) = before else { return };
        self.check_count(before, after);
        self.check_instances(after);
        self.check_blame(after);
        let notes = self.checks.notes.get(&after.nonce);
        let heard = notes.iter().flat_map(|notes| &notes.heard);
        let heard =
            heard.map(|(index, probe, _)| (self.ec2.machines[*index].row.id.clone(), *probe)).collect();
        let decisions = Decisions::new(before, after, heard);
        let newest = self.s3.release.id.clone();
        let wrong = decisions
            .room(&newest, |id| self.ec2.find(id).is_some_and(|index| self.ec2.machines[index].is_live()));
        let wrong = wrong.and_then(|()| {
            decisions.leave(|id| Some(self.ec2.machines[self.ec2.find(id)?].row.zone.clone()))
        });
        if let Err((rule, what)) = wrong.and_then(|()| decisions.launch(&newest)) {
            self.violate(rule, what);
        }
    }

    fn check_count(&mut self, before: &Memory, after: &Memory) {
        let (Some(was), Some(is)) = (before.desired, after.desired) else { return };
        if was == is {
            return;
        }
        if !self.checks.counts.contains(&is) {
            return self.violate("desired", format!("{is} is in force after {was}, and was never asked for"));
        }
        let first_read =
            before.lowering.as_ref().filter(|lowering| lowering.to == is).map(|lowering| lowering.since);
        let latest = timestamp(self.now - CONFIRM + self.skew());
        if is.get() * 2 < was.get() && first_read.is_none_or(|first_read| first_read > latest) {
            self.violate(
                "desired",
                format!("{is} is in force after {was}, and was first read at {first_read:?}"),
            );
        }
    }

    fn check_instances(&mut self, after: &Memory) {
        let is_anothers = |slot: &&Slot| {
            let row = slot.worker.as_ref().and_then(|id| Some(&self.ec2.machines[self.ec2.find(id)?].row));
            row.is_some_and(|row| row.subnet != slot.subnet || row.release != slot.release)
        };
        if let Some(slot) = after.slots.values().find(is_anothers) {
            self.violate("launch", format!("another launch's instance is taken: {slot:?}"));
        }
    }

    /// Neither a zone nor a release is blamed for what the account may not.
    fn check_blame(&mut self, after: &Memory) {
        let was_full = |subnet: &String| {
            (0..self.ec2.zones()).any(|zone| subnet_name(zone) == subnet && self.ec2.was_full[zone])
        };
        if let Some(subnet) = after.avoid.keys().find(|subnet| !was_full(subnet)) {
            return self.violate("limit", format!("{subnet} is avoided, and never was without capacity"));
        }
        for (release, boots) in &after.boots {
            let launched = self.ec2.machines.iter().filter(|machine| machine.row.release == *release).count();
            let blamed = self.ec2.blamed.get(release).copied().unwrap_or(0) as usize;
            if boots.failures as usize > launched + blamed {
                let what = format!(
                    "{} boots of {release} failed, of {launched} and {blamed} refused",
                    boots.failures
                );
                return self.violate("limit", what);
            }
        }
    }

    pub fn check_first_traffic(&mut self, before: Option<&Registry>, after: &Registry) {
        let is_new = |id: &&WorkerId| before.is_none_or(|before| !before.workers.contains_key(*id));
        for id in after.workers.keys().filter(is_new) {
            let Some(index) = self.ec2.find(id) else { continue };
            let machine = &self.ec2.machines[index];
            let age = self.now - machine.launched;
            // One older than a boot takes may have served a memory that was lost.
            if self.now < machine.serves_from() && age < BOOT_GRACE - self.skew() {
                return self.violate(
                    "traffic",
                    format!("{id} is published {age} ms after its launch, and never served"),
                );
            }
        }
    }
}

type Verdict = Result<(), (&'static str, String)>;

fn fail(rule: &'static str, what: String) -> Verdict {
    Err((rule, what))
}

impl<'a> Decisions<'a> {
    fn new(before: &'a Memory, after: &'a Memory, heard: HashMap<WorkerId, Probe>) -> Self {
        let is_opened = |number: &u32, slot: &Slot| {
            let is_known = before.slots.get(number).is_some_and(|known| known.attempt == slot.attempt);
            slot.phase == Phase::Launching && !is_known
        };
        let opened =
            after.slots.iter().filter(|(number, slot)| is_opened(number, slot)).map(|(_, slot)| slot);
        let leaving = after.leaving.iter().filter(|(id, _)| !before.leaving.contains_key(*id));
        Self { before, after, heard, opened: opened.collect(), leaving: leaving.collect() }
    }

    fn desired(&self) -> usize {
        self.after.desired.map_or(0, |desired| desired.get() as usize)
    }

    fn slots(&self) -> impl Iterator<Item = &'a Slot> {
        self.after.slots.values()
    }

    fn heard(&self, slot: &Slot) -> Option<Probe> {
        self.heard.get(slot.worker.as_ref()?).copied()
    }

    fn is_young(&self, planned: Timestamp) -> bool {
        self.after.follows_loss && self.after.began.is_none_or(|began| planned.duration_since(began) < YOUNG)
    }

    // --- Who leaves -------------------------------------------------------------------------------

    fn leave(&self, zone_of: impl Fn(&WorkerId) -> Option<String>) -> Verdict {
        for (id, leaving) in &self.leaving {
            if leaving.reason != LeavingReason::Lost && self.is_young(leaving.since) {
                return fail("young", format!("{id} leaves ({})", leaving.reason));
            }
            // If no worker is desired the dead leave as surplus, and do not count as dead here.
            if leaving.judged && leaving.served && self.desired() > 0 {
                self.spare_silent(id, leaving)?;
                self.spare_zone(id, leaving.since, &zone_of)?;
                self.panic(id, leaving.since)?;
            }
            let boots = |slot: &Slot| {
                is_awaited(slot) && !slot.is_unwanted && !self.opened.iter().any(|opened| **opened == *slot)
            };
            let is_surplus = matches!(leaving.reason, LeavingReason::Surplus | LeavingReason::Replaced);
            if is_surplus && leaving.served && self.slots().any(boots) {
                return fail("surplus", format!("{id} leaves ({}) while another boots", leaving.reason));
            }
            if leaving.reason == LeavingReason::Replaced {
                self.trial(id, leaving.since)?;
            }
        }
        Ok(())
    }

    /// Who leaves so that another instance fits into the account's quota.
    fn room(&self, newest: &str, is_live: impl Fn(&WorkerId) -> bool) -> Verdict {
        let is_room = |leaving: &Leaving| leaving.reason.makes_room();
        let leaving = self.leaving.iter().filter(|(_, leaving)| is_room(leaving));
        let leaving: Vec<_> = leaving.collect();
        let before =
            self.before.leaving.iter().filter(|(id, leaving)| is_room(leaving) && is_live(id)).count();
        let healthy = self.slots().filter(|slot| slot.phase == Phase::Healthy).count();
        if let Some((id, it)) = leaving.first() {
            if leaving.len() + before > 1 {
                return fail("room", format!("{id} is one of {} who make room", leaving.len() + before));
            }
            let is_rollout = it.reason == LeavingReason::RoomForWorker;
            if is_rollout && healthy + 1 < self.desired() || healthy == 0 && self.desired() > 1 {
                return fail("room", format!("{id} makes room and leaves {healthy} of {}", self.desired()));
            }
            let is_proven = self.before.proven.as_ref().is_none_or(|proven| proven.id == newest);
            let is_tried =
                |slot: &Slot| slot.phase == Phase::Healthy && it.since.duration_since(slot.since) >= TRIAL;
            let mut new = self.slots().filter(|slot| slot.release == newest).peekable();
            if is_rollout && !is_proven && new.peek().is_some() && !new.any(is_tried) {
                return fail("room", format!("{id} makes room for a release on trial"));
            }
        }
        let ended =
            self.leaving.iter().filter(|(_, leaving)| leaving.reason == LeavingReason::ReplacementRefused);
        for (n, (id, leaving)) in ended.enumerate() {
            let latest = leaving.since - OUT_OF_ROOM;
            let is_late = self.before.refusals.values().any(|refusal| refusal.since <= latest);
            if n > 0 || !is_late {
                let refusals = &self.before.refusals;
                return fail("limit", format!("{id} makes room, the {n}th, of {refusals:?}"));
            }
        }
        Ok(())
    }

    fn condemned(&self) -> impl Iterator<Item = &'a WorkerId> {
        self.leaving.iter().filter(|(_, leaving)| leaving.judged && leaving.served).map(|(id, _)| *id)
    }

    /// Workers that were judged and are not ended yet.
    fn dead(&self) -> impl Iterator<Item = &'a Slot> {
        self.slots().filter(|slot| slot.served && slot.phase == Phase::Dead)
    }

    /// A silent worker is ended when another one answers in its place.
    fn spare_silent(&self, id: &WorkerId, leaving: &Leaving) -> Verdict {
        let is_spared = self.heard.get(id) != Some(&Probe::Refused)
            && leaving.reason != LeavingReason::ReplacementRefused;
        let answering = self.slots().filter(|slot| self.heard(slot) == Some(Probe::Answered)).count();
        let dead = self.condemned().count() + self.dead().count();
        if is_spared && answering + dead <= self.desired() {
            let what = format!("{id} is silent and ended, {answering} answer of {}", self.desired());
            return fail("silent", what);
        }
        Ok(())
    }

    fn spare_zone(
        &self,
        id: &WorkerId,
        planned: Timestamp,
        zone_of: impl Fn(&WorkerId) -> Option<String>,
    ) -> Verdict {
        let Some(zone) = zone_of(id) else { return Ok(()) };
        let is_silent = |id: &WorkerId| self.heard.get(id) == Some(&Probe::Silent);
        let is_here = |id: &WorkerId| zone_of(id).as_ref() == Some(&zone);
        let dead: Vec<&WorkerId> =
            self.condemned().chain(self.dead().filter_map(|slot| slot.worker.as_ref())).collect();
        let silent = dead.iter().filter(|id| is_here(id) && is_silent(id)).count();
        let kept = self.slots().filter(|slot| slot.served && slot.zone == zone).count();
        let served = kept + self.leaving.iter().filter(|(id, leaving)| leaving.served && is_here(id)).count();
        let is_well_elsewhere = dead.iter().all(|id| is_here(id))
            && self
                .slots()
                .any(|slot| slot.served && slot.zone != zone && self.heard(slot) == Some(Probe::Answered));
        let was_spared = self.before.dark_zones.get(&zone);
        let is_over = was_spared.is_some_and(|since| planned.duration_since(*since) >= DARK_ZONE);
        if is_silent(id) && silent >= 2 && silent * 100 >= served * 55 && is_well_elsewhere && !is_over {
            return fail(
                "zone",
                format!("{id} is ended, {silent} of {served} in {zone} are silent, the others well"),
            );
        }
        Ok(())
    }

    fn panic(&self, id: &WorkerId, planned: Timestamp) -> Verdict {
        let failed = |slot: &&Slot| matches!(self.heard(slot), Some(Probe::Silent | Probe::Refused));
        let condemned = self.condemned().count();
        let dead = condemned + self.dead().filter(failed).count();
        let served = self.slots().filter(|slot| slot.served).count()
            + self.leaving.iter().filter(|(_, leaving)| leaving.served).count();
        let last = self.before.terminations.last();
        let is_soon = last.is_some_and(|last| planned.duration_since(*last) < PANIC_SPACING);
        if dead >= 2 && dead * 2 > served && (condemned > 1 || is_soon) {
            let what = format!(
                "{id} is one of {condemned}, {dead} of {served} are dead, the last ended at {last:?}"
            );
            return fail("panic", what);
        }
        Ok(())
    }

    fn trial(&self, id: &WorkerId, planned: Timestamp) -> Verdict {
        // What a slot was launched for counts: a stranger may pose as another release.
        let slot = self.before.slots.values().find(|slot| slot.worker.as_ref() == Some(id));
        let (Some(proven), Some(left)) = (&self.before.proven, slot) else { return Ok(()) };
        let is_tried = |slot: &Slot| {
            let is_trusted = proven.id == slot.release;
            let has_served = slot.phase == Phase::Healthy && planned.duration_since(slot.since) >= TRIAL;
            slot.release != left.release && (is_trusted || has_served)
        };
        if self.slots().any(is_tried) {
            Ok(())
        } else {
            fail("trial", format!("{id} leaves for a release on trial"))
        }
    }

    // --- Who is launched --------------------------------------------------------------------------

    fn launch(&self, newest: &str) -> Verdict {
        let (Some(planned), false) = (self.after.last_launch, self.opened.is_empty()) else { return Ok(()) };
        let desired = self.desired();
        let opened = self.opened.len();
        if self.is_young(planned) {
            return fail("young", format!("{opened} are launched"));
        }
        let since_last = self.before.last_launch.map(|last| planned.duration_since(last));
        let is_answered = self.slots().any(|slot| self.heard(slot) == Some(Probe::Answered));
        let number = self.after.slots.len();
        if number > 2 * desired + 2 {
            let is_pausing = since_last.is_some_and(|since| since < LONGEST_PAUSE);
            if opened > 1 || is_answered || is_pausing || number > 3 * desired + 6 {
                return fail(
                    "cap",
                    format!("{opened} are launched and make {number} where {desired} are desired"),
                );
            }
        }
        let booting = self.slots().filter(|slot| is_awaited(slot)).count();
        if !is_answered && self.dead().next().is_some() && booting > desired.div_ceil(5).max(2) {
            return fail("deaf", format!("{booting} boot of {desired}, and no worker answers"));
        }
        let is_dear = self.after.losses.len() >= 3 * desired + 10;
        if is_dear && (opened > 1 || since_last.is_some_and(|since| since < SLOW_LAUNCHES)) {
            let losses = self.after.losses.len();
            return fail(
                "money",
                format!("{opened} are launched after {losses} losses, the last {since_last:?} ago"),
            );
        }
        let live = self.slots().filter(|slot| counts(slot)).count();
        if live > desired + (desired / 10).max(1) {
            return fail(
                "rollout",
                format!("{opened} are launched and make {live} where {desired} are desired"),
            );
        }
        let is_beyond = live - opened >= desired;
        self.opened
            .iter()
            .try_for_each(|slot| self.boot(&slot.release, planned, is_beyond && slot.release == newest))
    }

    /// `is_tried`: it is launched for no other reason than to try it.
    fn boot(&self, release: &str, planned: Timestamp, is_tried: bool) -> Verdict {
        let booting = self.slots().filter(|slot| slot.release == release && is_awaited(slot)).count();
        let is_proven = self.after.proven.as_ref().is_some_and(|proven| proven.id == release);
        if !is_proven && booting > 3 {
            return fail("boot loop", format!("{booting} of release {release} boot, which never served"));
        }
        let Some(boots) = self.after.boots.get(release) else { return Ok(()) };
        let since = boots.last_failure.map_or(SignedDuration::MAX, |last| planned.duration_since(last));
        if is_tried && !is_proven && boots.failures >= 2 && since < LONGEST_PAUSE {
            return fail(
                "frozen",
                format!("release {release} is tried {since:#} after failure {}", boots.failures),
            );
        }
        let pause =
            SignedDuration::from_mins(1 << boots.failures.saturating_sub(3).min(5)).min(LONGEST_PAUSE);
        if boots.failures >= 3 && (booting > 1 || since < pause) {
            let what =
                format!("{booting} of release {release} boot {since:#} after failure {}", boots.failures);
            return fail("boot loop", what);
        }
        Ok(())
    }
}

fn is_awaited(slot: &Slot) -> bool {
    matches!(slot.phase, Phase::Launching | Phase::Booting)
}

/// As one of the desired number.
fn counts(slot: &Slot) -> bool {
    !slot.is_unwanted && !matches!(slot.phase, Phase::Dead | Phase::Unresolved)
}
