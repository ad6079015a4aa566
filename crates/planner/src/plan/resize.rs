//! Makes the number of workers right.

use std::collections::BTreeMap;

use fleet::memory::{LeavingReason, LeavingStage, Lowering, Memory, Phase, RoomFor, Slot};
use fleet::release::{Release, SubnetSpec};
use fleet::{DesiredCount, Policy, WorkerId};
use jiff::{SignedDuration, Timestamp};

use super::{News, Tick};
use crate::decision::{CountDecision, WorkerDecision};
use crate::held_back::{HeldBack, LaunchBrake, NoSubnet, Who};
use crate::observation::{Observation, Role};

/// Slots and their numbers, by zone.
type ByZone<'a> = BTreeMap<&'a str, Vec<(u32, &'a Slot)>>;

/// Takes the desired count over if it is a good one.
pub(super) fn take_desired(
    observation: &Observation,
    memory: &mut Memory,
    held_back: &mut Vec<HeldBack>,
    news: &mut News,
    policy: &Policy,
    now: Timestamp,
) {
    let published = observation.registry.as_ref().ok().and_then(Option::as_deref);
    if memory.desired.is_none()
        && let Some(registry) = published
    {
        memory.desired = Some(registry.desired);
        news.record(memory, now, CountDecision::FromRegistry { desired: registry.desired });
    }
    match &observation.desired {
        Ok(desired) => {
            let is_news = memory.desired != Some(*desired);
            if is_news && is_confirmed(*desired, memory, held_back, policy, now) {
                let changed = CountDecision::Changed { from: memory.desired, to: *desired };
                news.record(memory, now, changed);
                memory.desired = Some(*desired);
            }
            if memory.desired == Some(*desired) {
                memory.lowering = None;
            }
            memory.notice = None;
        }
        Err(why) => {
            memory.lowering = None;
            let held = HeldBack::Count { why: why.clone(), in_force: memory.desired };
            let notice = held.to_string();
            if memory.notice.as_ref() != Some(&notice) {
                news.record(memory, now, CountDecision::Ignored { notice: notice.clone() });
            }
            held_back.push(held);
            memory.notice = Some(notice);
        }
    }
}

/// Whether a new count may be acted on: a count that takes most workers away is read again first.
fn is_confirmed(
    desired: DesiredCount,
    memory: &mut Memory,
    held_back: &mut Vec<HeldBack>,
    policy: &Policy,
    now: Timestamp,
) -> bool {
    let Some(before) = memory.desired else { return true };
    if !policy.takes_most(before, desired) {
        return true;
    }
    let lowering = memory.lowering.take().filter(|lowering| lowering.to == desired);
    let lowering = lowering.unwrap_or(Lowering { to: desired, since: now });
    let is_confirmed = now.duration_since(lowering.since) >= policy.confirm_lowering;
    if !is_confirmed {
        held_back.push(HeldBack::Lowering { to: desired, from: before, after: policy.confirm_lowering });
        memory.lowering = Some(lowering);
    }
    is_confirmed
}

impl Tick<'_> {
    /// Counts workers that serve or will. A dead worker that waits for a brake does not count.
    pub(super) fn live(&self) -> usize {
        self.memory.slots.values().filter(|slot| self.counts(slot)).count()
    }

    /// Whether a slot counts as a worker. If no worker is desired the dead count as well: they would wait
    /// for ever for a replacement that answers, and removing them is the operator's wish, not a verdict.
    pub(super) fn counts(&self, slot: &Slot) -> bool {
        let is_worker = !matches!(slot.phase, Phase::Dead | Phase::Unresolved);
        !slot.is_unwanted && (is_worker || self.is_none_desired())
    }

    pub(super) fn shrink(&mut self) {
        let Some(desired) = self.desired() else { return };
        let live = self.live();
        let surplus = live.saturating_sub((desired.workers() + self.surge).saturating_sub(self.deficit));
        let purpose = self.memory.room.as_ref().filter(|room| room.worker.is_none() && self.deficit > 0);
        let purpose = purpose.map(|room| room.purpose);
        if surplus > 0 && self.is_young() {
            return self.hold(HeldBack::Removal { workers: surplus });
        }
        let is_rollout =
            self.new_ones_serve() && self.surge == 0 && surplus <= self.policy.rollout_batch(desired);
        let most = self.policy.surplus_share.of(live).max(self.policy.surplus_least);
        for number in self.least_needed(surplus.min(most)) {
            let Some(slot) = self.memory.slots.get(&number) else { return };
            // A worker that never served has nothing to drain.
            let stage = if slot.served { LeavingStage::Draining } else { LeavingStage::Terminating };
            let who = Who::of_slot(number, slot);
            let is_replaced = is_rollout && self.is_old(slot);
            let why = match purpose {
                Some(RoomFor::Worker) => LeavingReason::RoomForWorker,
                Some(RoomFor::Balancer) => LeavingReason::RoomForBalancer,
                None if is_replaced => LeavingReason::Replaced,
                None => LeavingReason::Surplus,
            };
            if let Some(room) = self.memory.room.as_mut().filter(|_| purpose.is_some()) {
                room.worker.clone_from(&slot.worker);
            }
            let is_unknown = slot.worker.is_none();
            self.replays.retain(|launch| launch.slot != number || launch.role != Role::Worker);
            self.record(WorkerDecision::Removing { who, why: why.clone(), desired });
            if is_unknown {
                self.unwant(number);
            } else {
                self.retire(number, stage, why, false);
            }
        }
    }

    /// Unresolved launches have substitutes. Once those serve, to repeat the launch could only give a
    /// worker too many.
    pub(super) fn unwant_unneeded(&mut self) {
        let Some(desired) = self.desired() else { return };
        if self.memory.healthy() < desired.workers() + self.surge {
            return;
        }
        let is_unneeded =
            |slot: &Slot| slot.phase == Phase::Unresolved && slot.worker.is_none() && !slot.is_unwanted;
        let slots = self.memory.slots.iter().filter(|(_, slot)| is_unneeded(slot));
        for number in slots.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.replays.retain(|launch| launch.slot != number || launch.role != Role::Worker);
            self.record(WorkerDecision::LaunchNotNeeded { slot: number });
            self.unwant(number);
        }
    }

    fn unwant(&mut self, number: u32) {
        let now = self.now;
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.unwant(now);
        }
    }

    /// Who goes first when there are too many, in this order.
    fn least_needed(&self, number: usize) -> Vec<u32> {
        let usefulness = |slot: &Slot| match slot.phase {
            Phase::Launching | Phase::Unresolved => 0,
            Phase::Booting => 1,
            Phase::Suspect => 2,
            Phase::Healthy | Phase::Dead if self.is_old(slot) => 3,
            Phase::Healthy | Phase::Dead => 4,
        };
        let mut crowds = self.zones();
        // Of the equally useful, in each zone the highest slot is the last.
        let mut ranks: BTreeMap<u8, ByZone<'_>> = BTreeMap::new();
        for (number, slot) in self.memory.slots.iter().filter(|(_, slot)| self.counts(slot)) {
            let rank = ranks.entry(usefulness(slot)).or_default();
            rank.entry(slot.zone.as_str()).or_default().push((*number, slot));
        }
        let mut chosen = Vec::new();
        for zones in ranks.values_mut() {
            while chosen.len() < number {
                let crowd = |zone: &str| crowds.get(zone).copied().unwrap_or(0);
                let last = |(zone, slots): &(&&str, &mut Vec<(u32, &Slot)>)| {
                    slots.last().map(|(number, _)| (crowd(zone), *number))
                };
                let Some((zone, slots)) = zones.iter_mut().max_by_key(last) else { break };
                let Some((number, slot)) = slots.pop() else { break };
                chosen.push(number);
                // A launch that is not known yet keeps its slot for a while.
                if slot.worker.is_some()
                    && let Some(crowd) = crowds.get_mut(zone)
                {
                    *crowd -= 1;
                }
            }
        }
        chosen
    }

    fn zones(&self) -> BTreeMap<&str, usize> {
        let mut zones = BTreeMap::new();
        for slot in self.memory.slots.values() {
            *zones.entry(slot.zone.as_str()).or_insert(0) += 1;
        }
        zones
    }

    pub(super) fn grow(&mut self) {
        let Some(desired) = self.desired() else { return };
        let live = self.live();
        let missing = (desired.workers() + self.surge).saturating_sub(live + self.deficit);
        let healing = desired.workers().saturating_sub(live.saturating_sub(self.on_trial()));
        // The place that an old worker has left is for one of the release.
        let healing = healing.saturating_sub(usize::from(self.is_room_for_worker()));
        let mut allowed = self.launches_allowed(desired, missing);
        for n in 0..missing {
            if allowed == 0 {
                return;
            }
            let from_proven = n < healing && self.heals_from_proven() && !self.heals_by_trial();
            let proven = self.memory.proven.clone().filter(|_| from_proven);
            let definition = proven.unwrap_or_else(|| self.release.as_ref().clone());
            if let Some(why) = self.boots_too_often(&definition.id) {
                return self.hold(HeldBack::Launches { workers: missing - n, why });
            }
            let market = definition.worker.market;
            if let Some(why) = self.refused(&definition.id, market) {
                return self.hold(HeldBack::NewWorkers { workers: missing - n, why });
            }
            let is_sent_again = self.want_again(&definition.id);
            if !is_sent_again && (self.cap_left(desired) == 0 || !self.open_slot(&definition)) {
                return;
            }
            self.note_try(&definition.id, market);
            allowed -= 1;
        }
    }

    /// How many of the missing workers may be launched now, whatever their release.
    fn launches_allowed(&mut self, desired: DesiredCount, missing: usize) -> usize {
        if missing == 0 {
            return 0;
        }
        let slots = &self.memory.slots;
        let again = slots.values().filter(|slot| self.may_be_wanted_again(slot)).count();
        let cap = self.cap_left(desired).max(again);
        let booting = slots.values().filter(|slot| is_awaited(slot.phase)).count();
        let is_deaf =
            !self.somebody_answers() && slots.values().any(|slot| slot.served && slot.phase == Phase::Dead);
        let policy = self.policy;
        let deaf = policy.deaf_boots(desired).saturating_sub(booting);
        let is_dear = self.memory.losses.len() >= policy.loss_budget(desired);
        let is_soon = self.memory.last_launch.is_some_and(|last| self.age(last) < policy.slow_launch_every);
        let is_unsure = self.is_young() && self.memory.follows_loss;
        let losses = LaunchBrake::Losses { within: policy.losses_window, pause: policy.slow_launch_every };
        let limits = [
            (LaunchBrake::Cap { most: policy.cap(desired) }, cap),
            (LaunchBrake::Deaf, if is_deaf { deaf } else { usize::MAX }),
            (losses, if is_dear { usize::from(!is_soon) } else { usize::MAX }),
            (LaunchBrake::Young, if is_unsure { 0 } else { usize::MAX }),
            (LaunchBrake::Busy, policy.launches_per_tick.saturating_sub(self.replays.len())),
        ];
        let (brake, allowed) = limits.into_iter().min_by_key(|(_, allowed)| *allowed).expect("five limits");
        if allowed < missing {
            self.hold(HeldBack::Launches { workers: missing - allowed, why: brake });
        }
        allowed
    }

    /// How many slots may be opened until there are too many, whatever state they are in.
    fn cap_left(&self, desired: DesiredCount) -> usize {
        let is_here = |id: &WorkerId| self.workers.get(id).is_some_and(|row| row.state.is_live());
        let leaving = self.memory.leaving.keys().filter(|id| is_here(id)).count();
        let number = self.memory.slots.len() + leaving;
        let policy = self.policy;
        let most = policy.cap(desired);
        let is_stuck = !self.somebody_answers() && (most..policy.stuck_cap(desired)).contains(&number);
        let is_pausing =
            self.memory.last_launch.is_some_and(|last| self.age(last) < policy.stuck_launch_every);
        let valve = usize::from(is_stuck && !is_pausing);
        most.saturating_sub(number).max(valve)
    }

    /// A launch that was not wanted any more, and may have taken place or not. To send it again is better
    /// than to send another one: it gives the same instance, and such slots never fill the cap.
    fn want_again(&mut self, definition: &str) -> bool {
        let is_it = |slot: &Slot| slot.release == definition && self.may_be_wanted_again(slot);
        let found = self.memory.slots.iter().find(|(_, slot)| is_it(slot)).map(|(number, _)| *number);
        let Some(number) = found else { return false };
        self.enter(number, Phase::Launching);
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            (slot.is_unwanted, slot.missing_since) = (false, None);
        }
        let launch = self.memory.slots.get(&number).and_then(|slot| self.launch_of(number, slot));
        self.replays.extend(launch);
        true
    }

    fn may_be_wanted_again(&self, slot: &Slot) -> bool {
        let is_unknown = slot.is_unwanted && slot.worker.is_none() && !slot.is_adopted;
        let is_bad = self.memory.avoid.contains_key(&slot.subnet) || self.is_dark(&slot.zone);
        is_unknown && !is_bad && self.is_reachable(&slot.zone) && self.definition(&slot.release).is_some()
    }

    /// Why no more workers of a release may be launched now, if so.
    fn boots_too_often(&self, release: &str) -> Option<LaunchBrake> {
        let of_release = self.memory.slots.values().filter(|slot| slot.release == release);
        let booting = of_release.filter(|slot| is_awaited(slot.phase)).count();
        let is_proven = self.memory.proven.as_ref().is_some_and(|proven| proven.id == release);
        let most = self.policy.unproven_boots;
        if !is_proven && booting >= most {
            return Some(LaunchBrake::Unproven { release: release.to_owned(), most });
        }
        let boots = self.memory.boots.get(release).filter(|boots| boots.failures >= self.policy.boot_loop)?;
        let pause = pause(self.policy, boots.failures);
        let is_early = boots.last_failure.is_some_and(|last| self.age(last) < pause);
        (booting > 0 || is_early).then(|| LaunchBrake::BootLoop { story: boots.story(), pause })
    }

    fn open_slot(&mut self, definition: &Release) -> bool {
        let Some(subnet) = self.emptiest_subnet(&definition.id, &definition.worker.subnets) else {
            self.hold(HeldBack::NoSubnet { why: NoSubnet::of(&definition.worker.subnets) });
            return false;
        };
        // A slot whose last attempt is the highest number is used up: a token for it was used before.
        let last = |number: &u32| self.memory.attempts.get(number).copied().unwrap_or(0);
        let is_free = |number: &u32| !self.memory.slots.contains_key(number) && last(number) < u32::MAX;
        let Some(number) = (0..).find(is_free) else { return false };
        let attempt = last(&number) + 1;
        self.memory.attempts.insert(number, attempt);
        let slot = Slot {
            attempt,
            release: definition.id.clone(),
            subnet: subnet.id,
            zone: subnet.zone,
            phase: Phase::Launching,
            since: self.now,
            worker: None,
            addr: None,
            missing_since: None,
            is_adopted: false,
            is_unwanted: false,
            served: false,
        };
        self.launches.extend(self.launch_of(number, &slot));
        self.memory.slots.insert(number, slot);
        self.memory.last_launch = Some(self.now);
        true
    }

    /// The subnet in the zone with fewest workers; zones that are dark or without capacity only if
    /// there is no other, and zones that EC2 does not answer for never.
    pub(super) fn emptiest_subnet(&self, definition: &str, subnets: &[SubnetSpec]) -> Option<SubnetSpec> {
        let zones = self.zones();
        let is_bad = |subnet: &SubnetSpec| {
            let is_avoided = self.memory.avoid.contains_key(&subnet.id) || self.is_dark(&subnet.zone);
            // Where nothing is offered, nothing will be: rather where there is no capacity just now.
            (self.is_not_offered(definition, &subnet.id), is_avoided)
        };
        let crowd = |subnet: &SubnetSpec| zones.get(subnet.zone.as_str()).copied().unwrap_or(0);
        let reachable = subnets.iter().filter(|subnet| self.is_reachable(&subnet.zone));
        reachable.min_by_key(|subnet| (is_bad(subnet), crowd(subnet))).cloned()
    }
}

/// Whether its first answer is expected any moment; of an unresolved launch nothing is expected.
const fn is_awaited(phase: Phase) -> bool {
    matches!(phase, Phase::Launching | Phase::Booting)
}

/// Returns the pause after so many failed boots in a row: 1, 2, 4 … 30 minutes.
pub(super) fn pause(policy: &Policy, failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(policy.boot_loop);
    doubled(policy.boot_pause_first, doublings).min(policy.boot_pause_longest)
}

/// Doubles a pause so many times. More than 20 doublings make no difference: the longest pause is six hours.
pub(super) fn doubled(first: SignedDuration, doublings: u32) -> SignedDuration {
    first * (1 << doublings.min(20))
}
