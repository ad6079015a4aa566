//! Guards the public address: the instance that has it is the load balancer.
//!
//! ```text
//! holder answers, is as released ------------> a successor goes, former holders go
//! holder answers, of another definition -\
//! holder keeps crashing ------------------+
//! holder dead or gone --------------------+-> successor launched --> it answers --> the address moves
//!                                                  \--> no answer in 180 s --> given up, the next one
//! ```
//!
//! The address is the fence: a load balancer without it gets no traffic, whatever it believes. So
//! the successor may take it over although the old holder may only be cut off from us.
//!
//! A load balancer that serves is renewed from the released definition only. A dead one is replaced by
//! what served last, unless that fails more often: a definition that was just released may be broken.
//!
//! A stack may have several addresses. Each is a *place* with load balancers, attempts and memory of its
//! own, and is guarded as if there were no other; only one address moves in a tick.

mod crashes;

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::WorkerId;
use fleet::memory::{Balancer, Boots, Holder, Phase, Slot};
use fleet::release::BalancerSpec;
use jiff::SignedDuration;

use super::follow;
use super::limit::Need;
use super::resize::pause;
use super::{Association, Tick};
use crate::decision::{BalancerDecision, Dismissal, LaunchCause, MoveCause};
use crate::effect::Launch;
use crate::held_back::{BalancerBrake, HeldBack, HolderDoubt, HolderFault, NoSubnet, TerminationBrake, Who};
use crate::observation::{Instance, Probe, Role, admin_addr};
use crate::token::client_token;

enum Verdict {
    Answers,
    /// Not to be judged in this tick, and why.
    Open(HolderDoubt),
    Dead(HolderFault),
}

impl Tick<'_> {
    pub(super) fn guard_addresses(&mut self) {
        let Some(spec) = self.release.balancer.clone() else { return };
        for (place, allocation) in spec.places() {
            let mut guard = Guard::new(self, place);
            guard.guard_address(&spec, allocation);
            guard.finish();
        }
        let places = 1 + spec.more_allocations.len();
        self.memory.more_balancers.retain(|place, _| (*place as usize) < places);
        self.end_without_place(places);
    }

    /// Ends load balancers of an address that the stack does not have any more. The deployment that gave the
    /// address up ends them as well, unless it is cut before.
    fn end_without_place(&mut self, places: usize) {
        let is_surplus = |row: &&Instance| {
            may_be_ended(row)
                && row.slot.unwrap_or(0) as usize >= places
                && row.launched.is_some_and(|launched| self.age(launched) > self.policy.stranger_age)
        };
        let surplus = self.balancers.values().copied().filter(is_surplus).map(|row| row.id.clone());
        for id in surplus.collect::<Vec<_>>() {
            self.record(BalancerDecision::WithoutPlace { id: id.clone() });
            let holder = self.memory.balancer.holder.as_ref().map(|holder| holder.id.clone());
            self.end_balancer(&id, holder.as_ref());
        }
    }

    /// Terminates a load balancer, unless it has the address.
    fn end_balancer(&mut self, id: &WorkerId, holder: Option<&WorkerId>) {
        let may_be_ended = self.balancers.get(id).is_some_and(|row| may_be_ended(row));
        if may_be_ended && holder != Some(id) && !self.terminations.contains(id) {
            self.terminations.push(id.clone());
        }
    }

    /// In a look: returns whether a successor answers for the first time.
    pub(super) fn notice_successor(&mut self) -> bool {
        let Some(spec) = self.release.balancer.clone() else { return false };
        let mut is_news = false;
        for (place, _) in spec.places() {
            let mut guard = Guard::new(self, place);
            let was_booting = guard.successor_boots();
            guard.notice_successor_instance();
            is_news |= was_booting && !guard.successor_boots() && guard.state.successor.is_some();
            guard.finish();
        }
        is_news
    }

    /// Whether any instance was heard, if only to refuse.
    fn is_anybody_heard(&self) -> bool {
        self.observation.probes.values().any(|probe| matches!(probe, Probe::Answered | Probe::Refused))
    }
}

/// Guards one Elastic IP, as if there were no other.
struct Guard<'t, 'a> {
    tick: &'t mut Tick<'a>,
    /// The number of the Elastic IP.
    place: u32,
    /// Load balancers of this place.
    balancers: BTreeMap<&'a WorkerId, &'a Instance>,
    /// Memory of this place, taken out of the tick's until the guard is finished.
    state: Balancer,
}

impl<'t, 'a> Guard<'t, 'a> {
    fn new(tick: &'t mut Tick<'a>, place: u32) -> Self {
        let is_here = |row: &Instance| row.slot.unwrap_or(0) == place;
        let here = tick.balancers.iter().filter(|(_, row)| is_here(row));
        let balancers = here.map(|(id, row)| (*id, *row)).collect();
        let state = match place {
            0 => std::mem::take(&mut tick.memory.balancer),
            place => tick.memory.more_balancers.remove(&place).unwrap_or_default(),
        };
        Self { tick, place, balancers, state }
    }

    fn finish(self) {
        match self.place {
            0 => self.tick.memory.balancer = self.state,
            place => drop(self.tick.memory.more_balancers.insert(place, self.state)),
        }
    }

    fn guard_address(&mut self, spec: &BalancerSpec, allocation: &str) {
        follow::hear_holder(self.tick.observation, &mut self.state);
        let place = self.place;
        let address = match &self.tick.observation.addresses {
            Ok(addresses) => addresses.iter().find(|address| address.allocation == allocation),
            Err(why) => return self.tick.hold(HeldBack::Address { place, why: why.clone() }),
        };
        let Some(address) = address else {
            return self.tick.hold(HeldBack::AddressMissing { place });
        };
        let attempts = self.balancers.values().filter_map(|row| row.attempt);
        self.state.attempt = attempts.fold(self.state.attempt, u32::max);
        self.follow_definition(spec);
        self.follow_holder(address.instance.as_ref());
        self.follow_crashes();
        self.follow_successor(spec);
        match self.judge_holder() {
            Verdict::Answers if self.is_outdated(spec) => self.renew(spec, allocation),
            Verdict::Answers => self.rest(spec),
            Verdict::Open(why) => self.tick.hold(HeldBack::HolderDecision { place, why }),
            Verdict::Dead(why) => self.replace(spec, allocation, why),
        }
    }

    /// The record of the definition before goes on if it is what the fleet falls back on.
    fn follow_definition(&mut self, spec: &BalancerSpec) {
        let balancer = &mut self.state;
        if balancer.boots_of == spec.id {
            return;
        }
        let boots = std::mem::take(&mut balancer.boots);
        if balancer.proven.as_ref().is_some_and(|proven| proven.id == balancer.boots_of) {
            balancer.proven_boots = boots;
        }
        balancer.boots_of.clone_from(&spec.id);
    }

    fn successor_boots(&self) -> bool {
        self.state.successor.as_ref().is_some_and(|slot| slot.phase != Phase::Healthy)
    }

    fn follow_holder(&mut self, id: Option<&WorkerId>) {
        let before = self.state.holder.take();
        let Some(id) = id else {
            if let Some(before) = before {
                self.tick.record(BalancerDecision::LostAddress { id: before.id.clone() });
                self.state.former.push(before.id);
            }
            return;
        };
        let mut holder = match before {
            Some(holder) if holder.id == *id => holder,
            before => {
                self.tick.record(BalancerDecision::HasAddress { id: id.clone() });
                let successor = self.state.successor.as_ref();
                let is_successor = successor.and_then(|slot| slot.worker.as_ref()) == Some(id);
                let left = before.map(|before| before.id);
                // Another one of several that keep crashing may have taken over: they must not take turns.
                let left = left.filter(|id| is_successor || self.tick.memory.keeps_crashing(id));
                self.state.former.extend(left);
                if is_successor {
                    self.state.successor = None;
                }
                Holder {
                    id: id.clone(),
                    addr: None,
                    since: self.tick.now,
                    answered: false,
                    silent_since: None,
                    missing_since: None,
                    release: None,
                    zone: None,
                    started: None,
                }
            }
        };
        let row = self.balancers.get(id);
        holder.release = row.map(|row| row.release.clone()).or(holder.release);
        holder.zone = row.map(|row| row.zone.clone()).or(holder.zone);
        holder.addr = row.and_then(|row| row.address).map(admin_addr).or(holder.addr);
        // Where only known instances are listed, it may not be among them.
        let is_missing = row.is_none() && !self.tick.observation.is_partial;
        holder.missing_since = is_missing.then(|| holder.missing_since.unwrap_or(self.tick.now));
        match self.tick.probe(id) {
            Some(Probe::Answered) => holder.answered = true,
            Some(Probe::Silent) => {
                holder.silent_since.get_or_insert(self.tick.now);
            }
            Some(Probe::Refused) | None => {}
        }
        self.state.former.retain(|former| former != id);
        self.state.holder = Some(holder);
    }

    fn judge_holder(&self) -> Verdict {
        let Some(holder) = &self.state.holder else {
            return Verdict::Dead(HolderFault::NoHolder);
        };
        let row = self.balancers.get(&holder.id).copied();
        if row.is_some_and(|row| !row.state.is_live()) {
            return Verdict::Dead(HolderFault::Terminated);
        }
        let launched = row.and_then(|row| row.launched).unwrap_or(holder.since);
        let boots = !holder.answered && self.tick.age(launched) < self.tick.policy.boot_grace;
        match self.tick.probe(&holder.id) {
            Some(Probe::Answered) if self.tick.memory.keeps_crashing(&holder.id) => {
                Verdict::Dead(HolderFault::KeepsCrashing)
            }
            Some(Probe::Answered) => Verdict::Answers,
            Some(Probe::Refused | Probe::Silent) if boots => Verdict::Open(HolderDoubt::Boots),
            Some(Probe::Refused) => Verdict::Dead(HolderFault::Refuses),
            Some(Probe::Silent)
                if holder
                    .silent_since
                    .is_some_and(|since| self.tick.age(since) >= self.tick.policy.holder_silence) =>
            {
                Verdict::Dead(HolderFault::Silent)
            }
            Some(Probe::Silent) => Verdict::Open(HolderDoubt::SilentOnce),
            None if holder
                .missing_since
                .is_some_and(|since| self.tick.age(since) > self.tick.policy.missing_after) =>
            {
                Verdict::Dead(HolderFault::Unseen)
            }
            None => Verdict::Open(HolderDoubt::NoAddressShown),
        }
    }

    fn follow_successor(&mut self, spec: &BalancerSpec) {
        self.notice_successor_instance();
        let Some(slot) = self.state.successor.clone() else { return };
        let row = slot.worker.as_ref().and_then(|id| self.balancers.get(id)).copied();
        let who = Who::of_balancer(&slot);
        let answers = self.tick.probe_of(&slot) == Some(Probe::Answered);
        let is_reachable = self.tick.is_reachable(&slot.zone);
        if slot.worker.is_none() && !is_reachable {
            // It may take place after all: then it is a load balancer without the address, and goes.
            self.tick.record(BalancerDecision::ZoneUnreachable { who, zone: slot.zone });
            self.state.successor = None;
        } else if row.is_some_and(|row| !row.state.is_live()) {
            self.tick.record(BalancerDecision::Lost { who });
            self.successor_failed();
        } else if !answers && self.tick.age(slot.since) > self.tick.policy.boot_grace {
            if row.is_some() && !self.tick.is_anybody_heard() {
                return self.tick.hold(HeldBack::Termination { who, why: TerminationBrake::Deaf });
            }
            let within = self.tick.policy.boot_grace;
            self.tick.record(BalancerDecision::BootFailed { who, within });
            if is_reachable {
                self.successor_failed();
            } else {
                self.leave_successor();
            }
        } else if row.is_none() && !answers && !slot.is_adopted && is_reachable {
            let definition = self.balancer_definition(spec, &slot.release);
            let replay = definition.map(|definition| self.launch(definition, &slot));
            self.tick.replays.extend(replay);
        }
    }

    /// The definition with this id, if it is still known.
    fn balancer_definition<'s>(&'s self, spec: &'s BalancerSpec, id: &str) -> Option<&'s BalancerSpec> {
        if spec.id == id {
            return Some(spec);
        }
        self.state.proven.as_ref().filter(|proven| proven.id == id)
    }

    /// The record of a definition's boots.
    fn boots_of_balancer(&mut self, id: &str) -> &mut Boots {
        let balancer = &mut self.state;
        if balancer.boots_of == id { &mut balancer.boots } else { &mut balancer.proven_boots }
    }

    /// Whether the holder is known to be of another definition than the released one.
    fn is_outdated(&self, spec: &BalancerSpec) -> bool {
        let holder = self.state.holder.as_ref();
        let release = holder.and_then(|holder| holder.release.as_ref());
        release.is_some_and(|release| *release != spec.id)
    }

    /// It has the address, or had it.
    fn is_taken(&self, id: &WorkerId) -> bool {
        let balancer = &self.state;
        balancer.holder.as_ref().is_some_and(|holder| holder.id == *id) || balancer.former.contains(id)
    }

    fn successor_failed(&mut self) {
        let Some(slot) = &self.state.successor else { return };
        let (now, release) = (self.tick.now, slot.release.clone());
        let boots = self.boots_of_balancer(&release);
        boots.failures = boots.failures.saturating_add(1);
        (boots.last_failure, boots.refused) = (Some(now), None);
        self.leave_successor();
    }

    /// Another one is to take its place.
    fn leave_successor(&mut self) {
        if let Some(id) = self.state.successor.take().and_then(|slot| slot.worker) {
            self.end_balancer(&id);
            self.state.former.push(id);
        }
    }

    fn notice_successor_instance(&mut self) {
        let Some(mut slot) = self.state.successor.take() else { return };
        let row = match &slot.worker {
            Some(id) => self.balancers.get(id).copied(),
            None => self
                .balancers
                .values()
                .find(|row| {
                    row.attempt == Some(slot.attempt)
                        && row.release == slot.release
                        && !self.is_taken(&row.id)
                })
                .copied(),
        };
        if let Some(row) = row {
            if slot.worker.is_none() {
                self.tick.record(BalancerDecision::Found { id: row.id.clone() });
                slot.worker = Some(row.id.clone());
            }
            if slot.phase == Phase::Launching {
                slot.phase = Phase::Booting;
                slot.since = row.launched.unwrap_or(self.tick.now);
            }
            slot.zone.clone_from(&row.zone);
            slot.addr = row.address.map(admin_addr).or(slot.addr);
        }
        if self.tick.probe_of(&slot) == Some(Probe::Answered) {
            slot.phase = Phase::Healthy;
            // Its silence is counted from its last answer.
            slot.since = self.tick.now;
            slot.served = true;
            let boots = self.boots_of_balancer(&slot.release);
            // A definition that keeps crashing answers first as well.
            if !boots.crashes {
                *boots = Boots::default();
            }
        }
        self.state.successor = Some(slot);
    }

    /// The holder is healthy: removes all other load balancers.
    fn rest(&mut self, spec: &BalancerSpec) {
        let Some(holder) = self.state.holder.clone() else { return };
        if holder.release.as_ref() == Some(&spec.id)
            && self.state.proven.as_ref() != Some(spec)
            && self.is_proof(spec)
        {
            self.state.proven = Some(spec.clone());
            self.state.proven_boots = Boots::default();
        }
        self.dismiss_successor(Dismissal::HolderAnswers);
        self.end_strangers(&holder);
        self.end_former();
    }

    fn dismiss_successor(&mut self, why: Dismissal) {
        let place = self.place;
        self.tick.replays.retain(|launch| launch.role != Role::LoadBalancer || launch.slot != place);
        if let Some(id) = self.state.successor.take().and_then(|slot| slot.worker) {
            self.tick.record(BalancerDecision::Dismissed { id: id.clone(), why });
            self.state.former.push(id);
        }
    }

    /// Launches a successor of a holder that serves and is not as released.
    fn renew(&mut self, spec: &BalancerSpec, allocation: &str) {
        let Some(holder) = self.state.holder.clone() else { return };
        if self.state.successor.as_ref().is_some_and(|slot| slot.release != spec.id) {
            self.dismiss_successor(Dismissal::NotAsReleased);
        }
        self.end_strangers(&holder);
        self.end_former();
        let current = |row: &&Instance| {
            let is_former = self.state.former.contains(&row.id);
            row.release == spec.id && !is_former && !self.tick.memory.keeps_crashing(&row.id)
        };
        let answering = self.other_balancers().filter(current).find(|row| self.may_have_the_address(&row.id));
        if let Some((id, slot)) = answering.map(|row| (row.id.clone(), self.slot_for(row))) {
            // The next tick moves it. Until then both addresses belong to load balancers that answer.
            if self.tick.association.is_some() {
                return;
            }
            // Who was the holder is ended by the memory of the successor that took over.
            if self.state.successor.as_ref().is_none_or(|known| known.worker.as_ref() != Some(&id)) {
                self.dismiss_successor(Dismissal::AnotherAnswers);
                self.state.successor = Some(slot);
            }
            self.tick.record(BalancerDecision::Moving { to: id.clone(), cause: MoveCause::Renewal });
            self.tick.association = Some(Association { allocation: allocation.to_owned(), instance: id });
            return;
        }
        if self.state.successor.is_some() {
            return;
        }
        let young = self.other_balancers().filter(current).find_map(|row| self.adoptable(row));
        if let Some(slot) = young {
            return self.adopt_successor(slot);
        }
        self.launch_successor(spec, spec, LaunchCause::Renewal, Need::Renewal);
    }

    fn other_balancers(&self) -> impl Iterator<Item = &Instance> {
        let holder = self.state.holder.as_ref().map(|holder| &holder.id);
        self.balancers.values().copied().filter(move |row| row.state.is_live() && Some(&row.id) != holder)
    }

    fn may_have_the_address(&self, id: &WorkerId) -> bool {
        self.tick.probe(id) == Some(Probe::Answered)
    }

    /// Ends old load balancers that have no address and are not to get one.
    fn end_strangers(&mut self, holder: &Holder) {
        if self.tick.age(holder.since) <= self.tick.policy.stranger_age {
            return;
        }
        let successor = self.state.successor.as_ref().and_then(|slot| slot.worker.as_ref());
        let former = &self.state.former;
        let is_old = |row: &&Instance| {
            row.launched.is_some_and(|launched| self.tick.age(launched) > self.tick.policy.stranger_age)
        };
        let is_stranger = |id: &WorkerId| !former.contains(id) && Some(id) != successor;
        let others = self.balancers.values().copied().filter(|row| may_be_ended(row) && row.id != holder.id);
        let strangers = others.filter(is_old).map(|row| row.id.clone());
        for id in strangers.filter(is_stranger).collect::<Vec<_>>() {
            self.tick.record(BalancerDecision::WithoutAddress { id: id.clone() });
            self.state.former.push(id);
        }
    }

    fn end_former(&mut self) {
        for id in std::mem::take(&mut self.state.former) {
            // An instance that EC2 does not show is not forgotten before the list is full.
            match self.balancers.get(&id).map(|row| may_be_ended(row)) {
                Some(true) => {
                    self.end_balancer(&id);
                    self.state.former.push(id);
                }
                Some(false) => {}
                None => self.state.former.push(id),
            }
        }
        let surplus = self.state.former.len().saturating_sub(2 * self.tick.policy.balancers_per_address);
        self.state.former.drain(..surplus);
    }

    /// Replaces a dead holder: moves the address to a load balancer that answers, or launches one.
    fn replace(&mut self, spec: &BalancerSpec, allocation: &str, why: HolderFault) {
        let crashes = |row: &&Instance| self.tick.memory.keeps_crashing(&row.id);
        let others = self.other_balancers().filter(|row| self.may_have_the_address(&row.id));
        // Of two that keep crashing neither is better. In place of a dead one any that answers will do.
        let others = others.filter(|row| why != HolderFault::KeepsCrashing || !crashes(row));
        let answering = others.min_by_key(crashes);
        if let Some(id) = answering.map(|row| row.id.clone()) {
            if self.tick.association.is_some() {
                return self.tick.hold(HeldBack::AddressWaits { place: self.place });
            }
            let cause = MoveCause::Fault(why);
            self.tick.record(BalancerDecision::Moving { to: id.clone(), cause });
            self.tick.association = Some(Association { allocation: allocation.to_owned(), instance: id });
            return;
        }
        if self.state.successor.is_some() {
            return self.tick.hold(HeldBack::Move { why });
        }
        let former = &self.state.former;
        let mut others = self.other_balancers().filter(|row| !former.contains(&row.id));
        let young = others.find_map(|row| self.adoptable(row));
        drop(others);
        if let Some(slot) = young {
            return self.adopt_successor(slot);
        }
        self.end_failed();
        let definition = self.trusted_definition(spec).clone();
        self.launch_successor(spec, &definition, LaunchCause::Fault(why), Need::Replacement);
    }

    /// Returns the definition that served last, unless it fails more often than the released one.
    fn trusted_definition<'s>(&'s self, spec: &'s BalancerSpec) -> &'s BalancerSpec {
        let balancer = &self.state;
        let is_trusted = balancer.proven_boots.failures <= balancer.boots.failures;
        let is_refused = |spec: &BalancerSpec| self.tick.is_refused(&spec.id, spec.instance.market);
        let may_be_launched = |proven: &&BalancerSpec| !is_refused(proven) || is_refused(spec);
        balancer.proven.as_ref().filter(|_| is_trusted).filter(may_be_launched).unwrap_or(spec)
    }

    /// Returns a slot for an instance that a deployment launched a moment ago.
    fn adoptable(&self, row: &Instance) -> Option<Slot> {
        let is_young =
            row.launched.is_none_or(|launched| self.tick.age(launched) < self.tick.policy.boot_grace);
        is_young.then(|| self.slot_for(row))
    }

    /// The place of a successor that was not launched from this memory.
    fn slot_for(&self, row: &Instance) -> Slot {
        Slot {
            attempt: row.attempt.unwrap_or(0),
            release: row.release.clone(),
            subnet: row.subnet.clone(),
            zone: row.zone.clone(),
            phase: Phase::Booting,
            since: row.launched.unwrap_or(self.tick.now),
            worker: Some(row.id.clone()),
            addr: row.address.map(admin_addr),
            missing_since: None,
            is_adopted: true,
            is_unwanted: false,
            served: false,
        }
    }

    fn adopt_successor(&mut self, slot: Slot) {
        if let Some(id) = &slot.worker {
            self.tick.record(BalancerDecision::Adopted { id: id.clone() });
        }
        self.state.successor = Some(slot);
    }

    fn launch_successor(
        &mut self,
        spec: &BalancerSpec,
        definition: &BalancerSpec,
        cause: LaunchCause,
        need: Need,
    ) {
        let live = self.balancers.values().filter(|row| row.state.is_live()).count();
        let balancer = &self.state;
        // Each definition waits for its own failures only: the other one may be launched.
        let boots = if definition.id == spec.id { &balancer.boots } else { &balancer.proven_boots };
        let (most, pause) = self.brake_on(boots, need);
        let is_early = boots.last_failure.is_some_and(|last| self.tick.age(last) < pause);
        if boots.failures >= most && is_early {
            let story = boots.story();
            self.hold_launch(BalancerBrake::BootLoop { story, pause });
        } else if live >= self.tick.policy.balancers_per_address {
            self.hold_launch(BalancerBrake::Cap { live });
        } else {
            self.launch_if_not_refused(definition, cause, need);
        }
    }

    /// Returns after how many failed boots a definition pauses, and for how long. A renewal with a definition
    /// that keeps crashing costs users connections each time: it is frozen as a rollout is.
    fn brake_on(&self, boots: &Boots, need: Need) -> (u32, SignedDuration) {
        let policy = self.tick.policy;
        match need {
            Need::Renewal if boots.crashes => (policy.freeze_after, policy.frozen_retry),
            Need::Renewal | Need::Replacement => (policy.boot_loop, pause(policy, boots.failures)),
        }
    }

    fn hold_launch(&mut self, why: BalancerBrake) {
        self.tick.hold(HeldBack::NewBalancer { why });
    }

    /// Launches a load balancer, or waits for room if a quota refuses it.
    fn launch_if_not_refused(&mut self, definition: &BalancerSpec, cause: LaunchCause, need: Need) {
        let market = definition.instance.market;
        if self.tick.is_limited(&definition.id, market) {
            self.tick.waiting = Some(need);
        }
        match self.tick.refused(&definition.id, market) {
            Some(refused) => self.hold_launch(BalancerBrake::Refused(refused)),
            None => {
                self.tick.note_try(&definition.id, market);
                self.launch_balancer(definition, cause);
            }
        }
    }

    /// Ends load balancers that do not answer, remembered or not.
    fn end_failed(&mut self) {
        if !self.tick.is_anybody_heard() {
            return;
        }
        let is_old = |row: &Instance| {
            row.launched.is_some_and(|launched| self.tick.age(launched) > self.tick.policy.boot_grace)
        };
        let fails = |id: &WorkerId| matches!(self.tick.probe(id), Some(Probe::Refused | Probe::Silent));
        let failed = self.balancers.values().filter(|row| is_old(row) && fails(&row.id));
        for id in failed.map(|row| row.id.clone()).collect::<Vec<_>>() {
            self.end_balancer(&id);
        }
    }

    fn launch_balancer(&mut self, spec: &BalancerSpec, cause: LaunchCause) {
        let zone = self.state.holder.as_ref().and_then(|holder| holder.zone.clone());
        let is_bad = |id: &String, name: &String| {
            // The zone of the one before may be the only one with capacity.
            let is_before = zone.as_ref() == Some(name);
            (self.tick.is_not_offered(&spec.id, id), self.tick.memory.avoid.contains_key(id), is_before)
        };
        let subnets = spec.instance.subnets.iter().filter(|subnet| self.tick.is_reachable(&subnet.zone));
        let Some(subnet) = subnets.min_by_key(|subnet| is_bad(&subnet.id, &subnet.zone)).cloned() else {
            return self.hold_launch(BalancerBrake::NoSubnet(NoSubnet::of(&spec.instance.subnets)));
        };
        let highest = self.balancers.values().filter_map(|row| row.attempt).max().unwrap_or(0);
        let attempt = self.state.attempt.max(highest).saturating_add(1);
        let slot = Slot {
            attempt,
            release: spec.id.clone(),
            subnet: subnet.id,
            zone: subnet.zone,
            phase: Phase::Launching,
            since: self.tick.now,
            worker: None,
            addr: None,
            missing_since: None,
            is_adopted: false,
            is_unwanted: false,
            served: false,
        };
        // A refused launch is repeated often, and the refusal is an event already.
        if !self.tick.is_refused(&spec.id, spec.instance.market) {
            self.tick.record(BalancerDecision::Launching { attempt, cause });
        }
        self.state.attempt = attempt;
        self.tick.launches.push(self.launch(spec, &slot));
        self.state.successor = Some(slot);
    }

    /// Terminates a load balancer of this place, unless it has the address.
    fn end_balancer(&mut self, id: &WorkerId) {
        let holder = self.state.holder.as_ref().map(|holder| &holder.id);
        if self.balancers.contains_key(id) {
            self.tick.end_balancer(id, holder);
        }
    }

    fn launch(&self, spec: &BalancerSpec, slot: &Slot) -> Launch {
        let stack = &self.tick.release.stack;
        Launch {
            role: Role::LoadBalancer,
            slot: self.place,
            attempt: slot.attempt,
            subnet: slot.subnet.clone(),
            release: spec.id.clone(),
            token: client_token(stack, &spec.instance, Role::LoadBalancer, self.place, slot.attempt),
            spec: Arc::new(spec.instance.clone()),
        }
    }
}

/// Whether EC2 has not ended it yet. A stopped instance serves no requests that ending it would cut.
fn may_be_ended(row: &Instance) -> bool {
    !row.state.is_ended()
}
