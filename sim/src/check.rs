//! The rules, checked against what truly is, after every effect.
//!
//! | rule | says | where |
//! |---|---|---|
//! | S1 | only instances that EC2 showed as the stack's are terminated | `check_terminate` |
//! | S2 | one attempt of a slot is launched once; no slot has two lives at a time, unless EC2 did not show the first for five minutes | `check_launched` |
//! | S3 | nothing is launched, ended, moved or published that is not in the memory just written | `check_issue` |
//! | S4 | a worker that served is ended for its health only if another one answered in the same round, and it failed as the rules say | `check_terminate` |
//! | S5 | ends for health: a tenth within 15 s, a third per ten minutes, beyond that only while as many that served are left as are desired | `check_velocity` |
//! | S6 | nothing is done on a survey that was blind, or is older than 15 s | `check_issue` |
//! | S7 | a worker that is well is ended only 15 s after the registry that left it out | `check_terminate` |
//! | S8 | a boot has its 180 s | `check_terminate` |
//! | S9 | the registry's revision only grows, also for load balancers when it is lost; it names no worker that EC2 showed as terminated; it is not emptied while a worker serves | `check_publish` |
//! | S10 | a rollout leaves as many healthy as are desired | `check_commit` |
//! | S11 | the address leaves an answering load balancer only if it keeps crashing or for another one of a newer definition, goes only to an answering one, and its holder is not ended | `check_issue` |
//! | S12 | launches in an hour: the requested ones, the budget of losses, and one in three minutes | `check_launched` |
//! | S15 | an instance may spend CPU credits for its first five minutes of service; at rest none may | `check_cap`, `check_rest` |
//! | S16 | launches that EC2 refuses are not sent again at once | `check_refused`, `check_hammered` |
//! | S17 | the address does not wait for launches, and launches leave a call for everything else | `check_issue`, `check_launch` |
//! | S18 | nothing is launched into a zone that EC2 does not answer for | `check_launch` |
//! | S19 | an unresolved launch is not repeated once enough serve | `check_launch` |
//! | S20 | load balancers of a definition that crashes everywhere are replaced with pauses between | `check_crashing` |
//! | S13 | at rest nothing happens any more | `check_rest` |
//! | S14 | at rest no instance is surplus, unknown or stopped | `check_rest` |
//! | L1 | when faults stop, the desired number serves again, and the load balancer does not crash | `check_calm`, `check_rest` |
//!
//! The rules of the planner's own table are in `decisions`.

mod decisions;

use std::collections::HashSet;

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{Leaving, LeavingReason, LeavingStage, Memory, Phase};
use fleet::release::Rollout;
use fleet::{Registry, WorkerId};
use planner::effect::{Effect, Launch};
use planner::observation::{Probe, Role, State};

use crate::clock::{HOUR, MINUTE, Millis, SECOND};
use crate::fault::Kind;
use crate::ledger::{Notes, Violation};
use crate::machine::{Machine, subnet_name};
use crate::world::{BALANCER, World, balancer};

const DRAIN: Millis = 15 * SECOND;
const BOOT_GRACE: Millis = 180 * SECOND;
const SECOND_LOOK: Millis = 15 * SECOND;
const STALE: Millis = 15 * SECOND;
/// Failed boots in a row after which a rollout pauses.
const FREEZE: u32 = 2;
/// How long an instance may spend CPU credits once it serves.
const SERVED: Millis = 5 * MINUTE;
/// Restarts within this time after which a load balancer may be replaced. They count for 5 min, and S3 may
/// have kept the reconciler from noticing them.
const CRASHES: usize = 3;
const CRASHED: Millis = 30 * MINUTE;
/// Replacements within an hour for a definition whose load balancers crash: two without a pause, and then 1,
/// 2, 4, 8 and 16 min apart. Each boots for a minute and crashes for another.
const CRASHING: usize = 10;
/// Ticks of 30 in which a quota may refuse launches. Pauses are up to 2 min; each launch that takes place
/// and each worker that leaves begins them again. A launch without an answer is repeated, and refused.
const REFUSED: usize = 20;
/// The same where EC2 refuses the definition, or has no capacity: after three failures the pauses are 1, 2,
/// 4 min; for capacity two zones are tried each time.
const HAMMERED: usize = 16;
/// An instance that EC2 does not show for so long may be given up if its launch cannot be repeated.
const MISSING: Millis = 5 * MINUTE;
/// The desired number serves again within this time after faults have stopped, if nothing is held back. An
/// unanswered launch has three minutes, counted from a change of the release; then its substitute boots.
const RECOVERY: Millis = 6 * MINUTE;

impl World {
    fn violate(&mut self, rule: &'static str, what: String) {
        self.tell(|| format!("VIOLATION of {rule}: {what}"));
        if self.checks.violation.is_none() {
            self.checks.violation = Some(Violation { rule, at: self.now, what });
        }
    }

    /// Two clocks that the reconciler accepts may be this far apart.
    fn skew(&self) -> Millis {
        if self.faults.counts[Kind::ClockSkew as usize] > 0 { 9 * SECOND } else { SECOND }
    }

    // --- What an invocation asks for --------------------------------------------------------------

    pub fn check_issue(&mut self, number: usize, effect: &Effect) {
        let is_change = matches!(
            effect,
            Effect::Launch(_) | Effect::Terminate(_) | Effect::Associate { .. } | Effect::Publish { .. }
        );
        if !is_change {
            return;
        }
        let Some(running) = self.invocations[number].as_ref() else { return };
        if running.is_blind {
            return self.violate("S6", format!("{} on a blind survey", name(effect)));
        }
        let age = self.now - running.surveyed;
        if !matches!(effect, Effect::Publish { .. }) && age > STALE + SECOND {
            return self.violate("S6", format!("{} on a survey of {age} ms ago", name(effect)));
        }
        let Some(memory) = running.committed.clone() else {
            return self.violate("S3", format!("{} without a memory written", name(effect)));
        };
        match effect {
            Effect::Launch(launch) => {
                self.check_launch(number, &memory, launch);
                let slot = match launch.role {
                    Role::Worker => memory.slots.get(&launch.slot),
                    Role::LoadBalancer => memory.balancer.successor.as_ref(),
                };
                if slot.is_none_or(|slot| slot.attempt != launch.attempt || slot.subnet != launch.subnet) {
                    self.violate("S3", format!("a launch in slot {} that is not intended", launch.slot));
                }
            }
            Effect::Terminate(id) => self.check_terminate(number, &memory, id),
            Effect::Associate { instance, .. } => {
                if self.invocations[number].as_ref().is_some_and(|running| running.has_launched) {
                    self.violate("S17", format!("the address waits for launches to move to {instance}"));
                }
                self.check_associate(number, instance);
            }
            Effect::Publish { registry, .. } if registry.revision != memory.revision => {
                self.violate("S3", format!("registry {} is not intended", registry.revision));
            }
            _ => {}
        }
    }

    /// A launch must not hold up anything else, nor be sent for nothing.
    fn check_launch(&mut self, number: usize, memory: &Memory, launch: &Launch) {
        let Some(running) = self.invocations[number].as_mut() else { return };
        running.has_launched = true;
        running.launches_in_flight += 1;
        let in_flight = running.launches_in_flight;
        let is_dark = running
            .reachable
            .as_ref()
            .is_some_and(|zones| !zones.iter().any(|zone| subnet_name(*zone) == launch.subnet));
        let (slot, subnet) = (launch.slot, &launch.subnet);
        if in_flight > 3 {
            return self.violate("S17", format!("{in_flight} launches leave no call for anything else"));
        }
        if is_dark {
            return self.violate(
                "S18",
                format!("slot {slot} is launched into {subnet}, which EC2 does not answer for"),
            );
        }
        let desired = memory.desired.map_or(0, |desired| desired.get() as usize);
        let is_unresolved = memory.slots.get(&slot).is_some_and(|known| {
            known.phase == Phase::Unresolved && known.worker.is_none() && known.attempt == launch.attempt
        });
        // Beyond the desired number a rollout may want one more.
        let enough = desired + (desired / 10).max(1);
        if launch.role == Role::Worker && is_unresolved && memory.healthy() >= enough {
            self.violate("S19", format!("the launch in slot {slot} is repeated, and {desired} serve"));
        }
    }

    fn heard(&self, number: usize, index: usize) -> Option<Probe> {
        let round = &self.invocations[number].as_ref()?.round;
        round.results.iter().find(|(found, _)| *found == index).map(|(_, probe)| *probe)
    }

    fn check_terminate(&mut self, number: usize, memory: &Memory, id: &WorkerId) {
        let Some(index) = self.ec2.find(id) else {
            return self.violate("S1", format!("{id} is not the stack's"));
        };
        if self.ec2.machines[index].row.role == Role::LoadBalancer {
            if self.ec2.holder == Some(index) && self.ec2.machines[index].is_live() {
                self.violate("S11", format!("{id} has the address and is terminated"));
            }
            return;
        }
        let Some(leaving) =
            memory.leaving.get(id).filter(|leaving| leaving.stage == LeavingStage::Terminating)
        else {
            return self.violate("S3", format!("the termination of {id} is not intended"));
        };
        let leaving = leaving.clone();
        if leaving.judged {
            self.check_judged(number, memory, index, &leaving);
        } else {
            self.check_unjudged(index, &leaving);
        }
    }

    /// A termination for its health.
    fn check_judged(&mut self, number: usize, memory: &Memory, index: usize, leaving: &Leaving) {
        let machine = &self.ec2.machines[index];
        let id = machine.row.id.clone();
        let age = self.now - machine.launched;
        let record = machine.record.clone();
        let heard = self.heard(number, index);
        let round = self.invocations[number].as_ref().map(|running| running.round.results.clone());
        let others: Vec<(usize, Probe)> =
            round.unwrap_or_default().into_iter().filter(|(other, _)| self.is_worker(*other)).collect();
        let is_wish = memory.desired.is_some_and(|desired| desired.get() == 0);
        if !machine.is_live() || is_wish {
            return;
        }
        if heard == Some(Probe::Answered) || (heard.is_none() && record.was_published) {
            return self.violate("S4", format!("{id} did not fail in this round ({heard:?})"));
        }
        if record.was_published || leaving.served {
            let is_heard = others.iter().any(|(other, probe)| *other != index && *probe == Probe::Answered)
                || (leaving.reason == LeavingReason::ReplacementRefused && self.hears_balancer(number));
            if !is_heard {
                return self
                    .violate("S4", format!("{id} served, and no other worker answered in this round"));
            }
        } else if !others.is_empty()
            && others.iter().all(|(_, probe)| *probe == Probe::Silent)
            && !(leaving.reason == LeavingReason::ReplacementRefused && self.hears_balancer(number))
        {
            return self.violate("S4", format!("{id} did not boot, and no worker was heard in this round"));
        }
        if record.was_published || leaving.served {
            let now = self.now;
            let skew = self.skew();
            let is_refused = heard == Some(Probe::Refused);
            let surveyed = self.invocations[number].as_ref().map_or(now, |running| running.surveyed);
            let is_verdict = |(at, probe): &(Millis, Probe)| {
                *at < surveyed && *probe == Probe::Refused || now - at >= SECOND_LOOK - skew
            };
            let is_second = record.failures.iter().any(is_verdict);
            // A worker that keeps crashing counts as dead already, and its replacement answers.
            if !is_refused && !is_second && !self.has_crashed(index) {
                self.violate("S4", format!("{id} was silent once only: {:?}", record.failures));
            }
        } else if age < BOOT_GRACE - self.skew() {
            self.violate("S8", format!("{id} had only {age} ms to boot"));
        }
    }

    /// Whether a load balancer answered in the round of an invocation.
    fn hears_balancer(&self, number: usize) -> bool {
        let round = self.invocations[number].as_ref().map(|running| &running.round.results);
        let mut results = round.into_iter().flatten();
        results.any(|(index, probe)| !self.is_worker(*index) && *probe == Probe::Answered)
    }

    /// A cap on an instance's CPU credits.
    pub fn check_cap(&mut self, index: usize) {
        let machine = &self.ec2.machines[index];
        let (id, served) = (machine.row.id.clone(), self.now - machine.serves_from());
        let losses = u32::try_from(self.checks.lost.len()).unwrap_or(u32::MAX);
        let is_asked_again = machine.asked_again > 20 + 5 * losses;
        if served < SERVED - self.skew() {
            self.violate("S15", format!("{id} is capped {served} ms after its first answer"));
        } else if is_asked_again {
            self.violate("S15", format!("{id} is capped, and asked for again and again"));
        }
    }

    /// Checks a launch that a quota refused. Each tick may send definitions that were not refused yet, and
    /// after that one launch.
    pub fn check_refused(&mut self, launch: &Launch) {
        let now = self.now;
        let tick = now / (20 * SECOND);
        let refused = &mut self.checks.refused;
        refused.retain(|at| tick - at < 30);
        self.checks.ends.retain(|at| now - at < 10 * MINUTE);
        if refused.back() != Some(&tick) {
            refused.push_back(tick);
        }
        let ended = self.checks.ends.iter().filter(|at| now - **at < 10 * MINUTE).count();
        if self.checks.refused.len() > REFUSED + 2 * ended {
            let what = format!(
                "the quota refuses slot {} in {} of 30 ticks",
                launch.slot,
                self.checks.refused.len()
            );
            self.violate("S16", what);
        }
    }

    /// A launch that was refused for its definition, or for want of capacity in any zone.
    pub fn check_hammered(&mut self, launch: &Launch, why: AwsErrorKind) {
        let now = self.now;
        let tick = now / (20 * SECOND);
        let refused = self.checks.hammered.entry(launch.release.clone()).or_default();
        refused.retain(|at| tick - at < 30);
        if refused.back() != Some(&tick) {
            refused.push_back(tick);
        }
        let refused = refused.len();
        let losses = self.checks.lost.iter().filter(|at| now - **at < 15 * MINUTE).count();
        let ended = self.checks.ends.iter().filter(|at| now - **at < 10 * MINUTE).count();
        if refused > HAMMERED + 8 * losses + 4 * ended {
            let what = format!("{} is refused ({why:?}) in {refused} of 30 ticks", launch.release);
            self.violate("S16", what);
        }
    }

    /// How often workers that served are condemned for their health. What counts is the decision, which
    /// is in a memory that was written; its effect may have to be repeated.
    fn check_velocity(&mut self, before: Option<&Memory>, memory: &Memory) {
        let now = self.now;
        let skew = self.skew();
        let is_condemned = |leaving: &Leaving| {
            leaving.judged && leaving.served && leaving.stage == LeavingStage::Terminating
        };
        let condemned = memory.leaving.iter().filter(|(_, leaving)| is_condemned(leaving));
        let beginning = crate::clock::timestamp(0).as_millisecond();
        let news: Vec<(usize, Millis)> = condemned
            .filter_map(|(id, leaving)| {
                Some((self.ec2.find(id)?, leaving.since.as_millisecond() - beginning))
            })
            .collect();
        let still: HashSet<usize> = news.iter().map(|(index, _)| *index).collect();
        self.checks.condemned.retain(|index| still.contains(index));
        let left = memory.slots.values().filter(|slot| slot.served).count();
        let known = before.map_or(0, |before| before.slots.values().filter(|slot| slot.served).count());
        let known = known.max(left + memory.leaving.values().filter(|leaving| leaving.served).count());
        // One in two minutes, for a replacement that a quota refuses: rule `limit`.
        let makes_room = |id: &WorkerId| {
            memory.leaving.get(id).is_some_and(|leaving| leaving.reason == LeavingReason::ReplacementRefused)
        };
        for (index, at) in news {
            if !self.checks.condemned.insert(index) {
                continue;
            }
            let served = known;
            self.checks.ended.retain(|(at, _)| now - at < 20 * MINUTE);
            self.checks.ended.push_back((at, index));
            let within =
                |window: Millis| self.checks.ended.iter().filter(|(other, _)| at - other < window).count();
            let (just_now, in_ten_minutes) = (within(SECOND_LOOK - skew), within(10 * MINUTE - skew));
            let desired = memory.desired.map_or(0, |desired| desired.get() as usize);
            let id = self.ec2.machines[index].row.id.clone();
            if just_now > (served / 10).max(1) {
                self.violate("S5", format!("{id} is number {just_now} within 15 s, of {served}"));
            } else if in_ten_minutes > (served / 3).max(2) && left < desired && !makes_room(&id) {
                let what = format!(
                    "{id} is number {in_ten_minutes} within ten minutes, and leaves {left} of {desired}"
                );
                self.violate("S5", what);
            }
        }
    }

    /// Checks the termination of a worker that is lost, drained, or was never needed.
    fn check_unjudged(&mut self, index: usize, leaving: &Leaving) {
        let machine = &self.ec2.machines[index];
        if !machine.is_up(self.now) || !machine.record.was_published {
            return;
        }
        let id = machine.row.id.clone();
        if self.s3.registry().is_some_and(|registry| registry.workers.contains_key(&id)) {
            return self.violate("S7", format!("{id} is well and published ({})", leaving.reason));
        }
        let out = self.checks.unpublished.get(&index).map(|since| self.now - since);
        if out.is_some_and(|out| out < DRAIN - self.skew()) {
            self.violate(
                "S7",
                format!("{id} is well and out of the registry for {out:?} ms ({})", leaving.reason),
            );
        }
    }

    fn check_associate(&mut self, number: usize, instance: &WorkerId) {
        let Some(index) = self.ec2.find(instance) else {
            return self.violate("S11", format!("{instance} is not the stack's"));
        };
        if self.heard(number, index) != Some(Probe::Answered) {
            return self.violate("S11", format!("{instance} is to have the address and did not answer"));
        }
        let Some(holder) = self.ec2.holder.filter(|holder| *holder != index) else { return };
        let heard = self.heard(number, holder);
        let record = &self.ec2.machines[holder].record;
        let is_second = record.failures.iter().any(|(at, _)| self.now - at >= SECOND_LOOK - self.skew());
        let is_dead = !self.ec2.machines[holder].is_live() || heard == Some(Probe::Refused) || is_second;
        let number = |index: usize| {
            let release = &self.ec2.machines[index].row.release;
            release.strip_prefix(BALANCER).and_then(|number| number.parse::<u32>().ok())
        };
        if number(index) > number(holder) {
            return;
        }
        if heard == Some(Probe::Answered) && self.has_crashed(holder) {
            let definition = self.ec2.machines[holder].row.release.clone();
            return self.check_crashing(&definition, "left by the address");
        }
        if heard == Some(Probe::Answered) || !is_dead {
            let holder = self.ec2.machines[holder].row.id.clone();
            self.violate("S11", format!("the address leaves {holder}, which was heard: {heard:?}"));
        }
    }

    /// Whether an instance restarted so often that it may be replaced.
    fn has_crashed(&self, index: usize) -> bool {
        // The first start was none.
        let latest: Vec<Millis> = self.ec2.machines[index].starts(self.now).take(CRASHES + 1).collect();
        latest.len() > CRASHES && self.now - latest[CRASHES - 1] < CRASHED
    }

    /// Checks how often load balancers of a definition that crashes everywhere are replaced. `how` is either
    /// their launch, or the move of the address to another one.
    fn check_crashing(&mut self, definition: &str, how: &'static str) {
        if !self.ec2.crashing.contains_key(definition) {
            return;
        }
        let now = self.now;
        let times = self.checks.crashing.entry((definition.to_owned(), how)).or_default();
        times.push_back(now);
        times.retain(|at| now - at < HOUR);
        let times = times.len();
        let losses = self.checks.lost.iter().filter(|at| now - **at < HOUR + 10 * MINUTE).count();
        if times > CRASHING * (1 + losses) {
            self.violate("S20", format!("{definition} crashes and is {how} {times} times in an hour"));
        }
    }

    // --- What truly happened ----------------------------------------------------------------------

    pub fn check_commit(&mut self, before: Option<&Memory>, memory: &Memory) {
        self.check_decisions(before, memory);
        self.follow_course(memory);
        self.note_what_was_learned(memory);
        self.note_given_up(before, memory);
        for id in memory.leaving.keys() {
            if let Some(index) = self.ec2.find(id) {
                self.ec2.machines[index].record.was_leaving = true;
            }
        }
        self.check_velocity(before, memory);
        self.note_wanted(memory);
        let is_rollout = |leaving: &Leaving| {
            leaving.stage == LeavingStage::Draining && leaving.reason == LeavingReason::Replaced
        };
        let begun = memory
            .leaving
            .iter()
            .filter(|(id, leaving)| {
                is_rollout(leaving) && before.as_ref().is_none_or(|before| !before.leaving.contains_key(*id))
            })
            .count();
        let desired = memory.desired.map_or(0, |desired| desired.get() as usize);
        if begun > 0 && memory.healthy() < desired {
            self.violate(
                "S10",
                format!("{begun} leave for a newer release, {} of {desired} are healthy", memory.healthy()),
            );
        }
        self.check_calm();
    }

    /// Counts learned facts once a memory that knows them is written, which may be late.
    pub fn keep_notes(&mut self, number: usize, memory: &Memory) {
        let Some(running) = self.invocations[number].as_mut() else { return };
        let heard = std::mem::take(&mut running.round.noted);
        let shown = std::mem::take(&mut running.shown);
        if !heard.is_empty() || !shown.is_empty() {
            let notes = Notes { heard, shown, surveyed: running.surveyed };
            self.checks.notes.insert(memory.nonce.clone(), notes);
        }
    }

    fn note_what_was_learned(&mut self, memory: &Memory) {
        let Some(notes) = self.checks.notes.remove(&memory.nonce) else { return };
        for index in notes.shown {
            self.ec2.machines[index].record.shown = notes.surveyed;
        }
        for (index, probe, at) in notes.heard {
            let record = &mut self.ec2.machines[index].record;
            if probe == Probe::Answered {
                record.failures.clear();
            } else {
                record.failures.push((at, probe));
            }
        }
    }

    /// Notes instances that memory forgot although nothing ended them. It may do so only if EC2 did not show
    /// them for long. If such an instance lives after all, it is an orphan, and S14 says that it goes.
    fn note_given_up(&mut self, before: Option<&Memory>, after: &Memory) {
        let is_kept = |number: &u32, attempt| after.slots.get(number).is_some_and(|s| s.attempt == attempt);
        let slots = before.iter().flat_map(|before| &before.slots);
        for (number, slot) in slots.filter(|(number, slot)| !is_kept(number, slot.attempt)) {
            let is_it = |machine: &Machine| match &slot.worker {
                Some(id) => machine.row.id == *id,
                None => machine.row.slot == Some(*number) && machine.row.attempt == Some(slot.attempt),
            };
            let (now, skew) = (self.now, self.skew());
            for machine in self.ec2.machines.iter_mut().filter(|machine| machine.is_live() && is_it(machine))
            {
                let shown = machine.record.shown.max(machine.launched);
                machine.record.was_given_up |= now - shown >= MISSING - skew;
            }
        }
    }

    fn note_wanted(&mut self, memory: &Memory) {
        let now = self.now;
        let desired = memory.desired.map_or(0, |desired| desired.get() as usize);
        let known = self.checks.wanted.iter().map(|(_, number)| *number).max().unwrap_or(0);
        if known != desired {
            self.checks.wanted.push_back((now, desired));
        }
    }

    /// Checks a launch that took place. If it arrives after its time-out, its slot may belong to another
    /// launch: then it is an orphan, and S14 says that it goes. The same is true if a lost memory intended it.
    pub fn check_launched(&mut self, index: usize, launch: &Launch) {
        let last_loss = self.checks.lost.last().copied().unwrap_or(-1);
        let machine = &mut self.ec2.machines[index];
        machine.intended = self.intended;
        machine.is_orphan = self.is_late;
        let id = machine.row.id.clone();
        let is_forgotten = self.intended <= last_loss;
        if !is_forgotten {
            let key = (launch.role, launch.slot, launch.attempt, launch.release.clone());
            let before = self.checks.lives.insert(key, index).map(|before| &self.ec2.machines[before]);
            let is_known = |before: &&Machine| before.intended > last_loss && !before.is_orphan;
            if let Some(before) = before.filter(is_known).map(|before| before.row.id.clone()) {
                let (slot, attempt) = (launch.slot, launch.attempt);
                return self.violate("S2", format!("slot {slot} attempt {attempt} is {before} and {id}"));
            }
        }
        if launch.role == Role::LoadBalancer {
            return self.check_crashing(&launch.release, "launched");
        }
        if self.is_late {
            return;
        }
        self.check_budget();
        if is_forgotten {
            return;
        }
        let memory = self.s3.memory().cloned();
        let is_leaving =
            |id: &WorkerId| memory.as_ref().is_some_and(|memory| memory.leaving.contains_key(id));
        let twin = self.ec2.live(Role::Worker).find(|(other, machine)| {
            *other != index
                && !machine.is_orphan
                && !machine.record.was_leaving
                && !machine.record.was_given_up
                && machine.row.slot == Some(launch.slot)
                && machine.intended > last_loss
                && !is_leaving(&machine.row.id)
        });
        if let Some((_, twin)) = twin {
            let twin = twin.row.id.clone();
            self.violate("S2", format!("slot {} has {twin} and now {id}", launch.slot));
        }
    }

    fn check_budget(&mut self) {
        let now = self.now;
        self.checks.launched.push_back(now);
        self.checks.launched.retain(|at| now - at < HOUR);
        let most = self.scenario.most_workers.max(self.scenario.workers) as usize;
        let asked = self.checks.wanted.iter().filter(|(at, _)| now - at < HOUR + 10 * MINUTE).count();
        let losses = self.checks.lost.iter().filter(|at| now - **at < HOUR + 10 * MINUTE).count();
        // Each wish and each loss of memory may renew the whole fleet; losses have their budget, and
        // past it one launch in three minutes is allowed.
        let budget = (1 + asked + losses) * (most + 1) + (1 + losses) * (3 * most + 10) + 20;
        let launched = self.checks.launched.len();
        if launched > budget {
            self.violate("S12", format!("{launched} launches in an hour, {budget} are the most"));
        }
    }

    pub fn check_publish(&mut self, number: usize, before: Option<&Registry>, after: &Registry) {
        let now = self.now;
        if let Some(before) = before {
            if after.revision <= before.revision {
                return self.violate("S9", format!("revision {} after {}", after.revision, before.revision));
            }
            for id in before.workers.keys().filter(|id| !after.workers.contains_key(*id)) {
                if let Some(index) = self.ec2.find(id) {
                    self.checks.unpublished.insert(index, now);
                }
            }
        }
        let is_live = |index: &usize| self.ec2.machines[*index].is_live();
        let readers = self.readers.iter().filter(|(index, _)| is_live(index));
        if let Some((index, held)) = readers.max_by_key(|(_, held)| **held)
            && *held > after.revision
        {
            let id = self.ec2.machines[*index].row.id.clone();
            return self.violate("S9", format!("{id} has revision {held} and ignores {}", after.revision));
        }
        let shown_dead =
            self.invocations[number].as_ref().map(|running| running.shown_dead.clone()).unwrap_or_default();
        for id in after.workers.keys() {
            let Some(index) = self.ec2.find(id).filter(|index| self.is_worker(*index)) else {
                return self.violate("S9", format!("{id} is published and not a worker of this stack"));
            };
            self.checks.unpublished.remove(&index);
            self.ec2.machines[index].record.was_published = true;
            if shown_dead.contains(id) {
                return self.violate("S9", format!("{id} is published, and EC2 showed it as terminated"));
            }
        }
        let serves = |id: &&WorkerId| {
            let index = self.ec2.find(id);
            index.is_some_and(|index| self.ec2.machines[index].is_up(now))
        };
        let is_emptied = after.workers.is_empty() && after.desired.get() > 0;
        if is_emptied && let Some(id) = before.and_then(|before| before.workers.keys().find(serves)) {
            let id = id.clone();
            let is_leaving = self.s3.memory().is_some_and(|memory| memory.leaving.contains_key(&id));
            if !is_leaving {
                self.violate("S9", format!("the registry is emptied while {id} serves"));
            }
        }
    }

    // --- The time after a storm -------------------------------------------------------------------

    fn serving(&self) -> usize {
        let Some(registry) = self.s3.registry() else { return 0 };
        let is_up =
            |id: &&WorkerId| self.ec2.find(id).is_some_and(|index| self.ec2.machines[index].is_up(self.now));
        registry.workers.keys().filter(is_up).count()
    }

    fn check_calm(&mut self) {
        if self.weather.is_storm {
            return;
        }
        let stops_first = self.s3.memory().is_some_and(|memory| memory.stop_first.is_some());
        let Some(calm) = self.checks.calm.as_mut().filter(|calm| !calm.is_stuck) else { return };
        calm.stops_first |= stops_first;
        let stops_first = calm.stops_first;
        let (since, restored, is_excused) = (calm.since, calm.restored, calm.is_excused);
        let wanted = self.s3.desired.as_ref().map_or(0, |desired| desired.get() as usize);
        // One may be missing while an update goes on.
        let is_slow = self.scenario.is_tight || self.scenario.rollout == Rollout::StopFirst || stops_first;
        let least = if is_slow && restored.is_some() { wanted.saturating_sub(1) } else { wanted };
        let serving = self.serving();
        let after = self.now - since;
        if serving >= least {
            if restored.is_none() {
                self.stats.recoveries.push(after);
                if let Some(calm) = &mut self.checks.calm {
                    calm.restored = Some(self.now);
                }
            }
        } else if restored.is_some_and(|at| self.now - at > 5 * MINUTE) && after > 10 * MINUTE {
            self.violate("L1", format!("{serving} of {wanted} serve, {after} ms after the storm; all had"));
        } else if restored.is_none() && after > RECOVERY && !is_excused {
            let held = self.s3.memory().map(|memory| memory.held.clone());
            let what =
                format!("{serving} of {wanted} serve {} s after the storm; held: {held:?}", after / SECOND);
            self.violate("L1", what);
        }
    }

    /// The only worker is not stopped again for a release that says so and failed twice: people have to
    /// deploy another one.
    fn waits_for_another_release(&self) -> bool {
        let is_only = self.s3.desired.as_ref().is_ok_and(|desired| desired.get() == 1);
        let boots = self.s3.memory().and_then(|memory| memory.boots.get(&self.s3.release.id));
        let has_failed = boots.is_some_and(|boots| boots.failures >= FREEZE);
        self.scenario.rollout == Rollout::StopFirst && is_only && has_failed
    }

    /// The end of a calm: all is as it should be, and nothing moves.
    pub fn check_rest(&mut self) {
        if self.checks.calm.as_ref().is_some_and(|calm| calm.is_stuck) || self.waits_for_another_release() {
            return;
        }
        let wanted = self.s3.desired.as_ref().map_or(0, |desired| desired.get() as usize);
        let workers: Vec<WorkerId> =
            self.ec2.live(Role::Worker).map(|(_, machine)| machine.row.id.clone()).collect();
        let serving = self.serving();
        let published = self.s3.registry().map_or(0, |registry| registry.workers.len());
        if serving != wanted || published != wanted {
            let held = self.s3.memory().map(|memory| memory.held.clone());
            return self.violate(
                "L1",
                format!("at rest {serving} serve, {published} are published, of {wanted}; held: {held:?}"),
            );
        }
        if workers.len() != wanted {
            return self.violate("S14", format!("at rest {} live of {wanted}: {workers:?}", workers.len()));
        }
        let release = self.s3.release.id.clone();
        let old = self.ec2.live(Role::Worker).find(|(_, machine)| machine.row.release != release);
        if let Some((_, machine)) = old {
            let what =
                format!("at rest {} is of release {}, not {release}", machine.row.id, machine.row.release);
            return self.violate("L1", what);
        }
        let balancers: Vec<usize> = self.ec2.live(Role::LoadBalancer).map(|(index, _)| index).collect();
        let is_well = self.ec2.holder.is_some_and(|index| self.ec2.machines[index].is_up(self.now));
        if !is_well || balancers.len() != 1 {
            let holder = self.ec2.holder;
            return self.violate("L1", format!("at rest the address is with {holder:?}, of {balancers:?}"));
        }
        let crashes = balancers.iter().find(|index| self.ec2.machines[**index].keeps_crashing(self.now));
        if let Some(index) = crashes {
            let id = &self.ec2.machines[*index].row.id;
            return self.violate("L1", format!("at rest {id} has the address and keeps crashing"));
        }
        let released = balancer(&self.s3.release);
        let outdated = balancers.iter().find(|index| self.ec2.machines[**index].row.release != released);
        if let Some(index) = outdated {
            let row = &self.ec2.machines[*index].row;
            let what = format!("at rest {} is of {}, not {released}", row.id, row.release);
            return self.violate("L1", what);
        }
        let is_stopped =
            |machine: &&Machine| machine.state(self.now) == State::Stopped && !machine.is_forgotten(self.now);
        if let Some(machine) = self.ec2.machines.iter().find(is_stopped) {
            let what = format!("at rest {} is stopped and not terminated", machine.row.id);
            return self.violate("S14", what);
        }
        let is_uncapped = |machine: &&Machine| {
            let served = self.now - machine.serves_from();
            machine.is_live() && !machine.is_capped && served > 4 * SERVED && machine.is_up(self.now)
        };
        if let Some(machine) = self.ec2.machines.iter().find(is_uncapped) {
            let what = format!("at rest {} may spend CPU credits", machine.row.id);
            return self.violate("S15", what);
        }
        let Some(memory) = self.s3.memory().cloned() else {
            return self.violate("L1", "at rest there is no memory".to_owned());
        };
        let quiet = crate::clock::timestamp(self.now - 3 * MINUTE);
        if let Some(event) = memory.events.last().filter(|event| event.at > quiet) {
            return self.violate("S13", format!("at rest still: {}", event.text));
        }
        if let Some(held) = memory.held.first() {
            self.violate("S13", format!("at rest still held back: {held}"));
        }
    }
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Launch(_) => "a launch",
        Effect::Terminate(_) => "a termination",
        Effect::Associate { .. } => "a move of the address",
        Effect::Publish { .. } => "a publication",
        Effect::ReadMemory
        | Effect::WriteMemory { .. }
        | Effect::Survey
        | Effect::Describe { .. }
        | Effect::Probe { .. }
        | Effect::Refresh { .. }
        | Effect::CapCredits(_)
        | Effect::Sleep { .. } => "a harmless thing",
    }
}
