//! Account limits: waits out launches that EC2 refuses because of the account, and makes room.
//!
//! ```text
//! a launch is refused --> the next try after 15 s, 30 s, 1 min, 2 min, 2 min …, one for all slots
//!          |                  \--> it takes place: the refusal is over
//!          |--> for two minutes, and its worker is dead: the dead one is terminated (`judge`)
//!          \--> of a rollout, or of a load balancer: one worker leaves first, and returns at the end
//! ```
//!
//! A refusal says nothing about a zone and nothing about a release. A definition that was not refused
//! yet is tried at once: a new instance type may have a quota of its own.
//!
//! At most one worker is missing at a time because of this, and none leaves before the desired number
//! answers. The only worker leaves only if the release says so: then `plan` has said so as well.

use std::collections::BTreeSet;

use fleet::memory::{Phase, Refusal, RefusalCause, Room, RoomFor, Slot};
use fleet::release::{Market, Rollout};
use fleet::{DesiredCount, Policy, WorkerId};
use jiff::SignedDuration;

use super::Tick;
use super::resize::doubled;
use crate::decision::ReleaseDecision;
use crate::held_back::{HeldBack, RolloutBrake, WaitedOut};
use crate::observation::Probe;

/// What a load balancer is launched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The one before serves.
    Renewal,
    /// The one before is dead.
    Replacement,
}

impl Tick<'_> {
    pub(super) fn follow_refusals(&mut self) {
        let (now, most) = (self.now, self.policy.refusal_forgotten_after);
        self.memory.refusals.retain(|_, refusal| now.duration_since(refusal.last) < most);
        self.memory.no_capacity.retain(|_, refusal| now.duration_since(refusal.last) < most);
        let balancers = self.memory.balancers().filter_map(|balancer| balancer.proven.as_ref());
        let balancers = balancers.chain(&self.release.balancer).map(|spec| spec.id.clone());
        let workers = self.memory.proven.iter().map(|release| release.id.clone());
        let known: BTreeSet<String> = balancers.chain(workers).chain([self.release.id.clone()]).collect();
        self.memory.not_offered.retain(|id, _| known.contains(id));
    }

    /// Whether EC2 refuses this definition for a reason outside of it, as far as is known.
    pub(super) fn is_refused(&self, definition: &str, market: Market) -> bool {
        let of_account = self.memory.refusals.get(&market);
        self.memory.no_capacity.contains_key(definition)
            || of_account.is_some_and(|refusal| refusal.definitions.contains(definition))
    }

    /// Whether the zone of a subnet does not offer the instance type of a definition.
    pub(super) fn is_not_offered(&self, definition: &str, subnet: &str) -> bool {
        self.memory.not_offered.get(definition).is_some_and(|subnets| subnets.contains(subnet))
    }

    /// Why this definition may not be launched now, if EC2 refuses it because of the account, or has no
    /// capacity.
    pub(super) fn refused(&self, definition: &str, market: Market) -> Option<WaitedOut> {
        let is_tried = self.tried.iter().any(|(tried, id)| *tried == market && id == definition);
        let of_type = self.memory.no_capacity.get(definition);
        let waits =
            |refusal: &&Refusal| is_tried || self.age(refusal.last) < pause(self.policy, refusal.tries);
        if let Some(refusal) = of_type.filter(waits) {
            return Some(WaitedOut::new(refusal, self.policy.refusal_pause_longest));
        }
        let refusal = self.memory.refusals.get(&market)?;
        let is_tried = self.tried.iter().any(|(tried, id)| {
            *tried == market && (id == definition || refusal.definitions.contains(definition))
        });
        let is_new = !refusal.definitions.contains(definition);
        let is_over = self.age(refusal.last) >= pause(self.policy, refusal.tries);
        let may_try = (is_new || is_over) && !is_tried;
        (!may_try).then(|| WaitedOut::new(refusal, self.policy.refusal_pause_longest))
    }

    /// Notes a launch: while launches are refused, one in a tick is enough to learn whether they are.
    pub(super) fn note_try(&mut self, definition: &str, market: Market) {
        if self.memory.refusals.contains_key(&market) || self.memory.no_capacity.contains_key(definition) {
            self.tried.push((market, definition.to_owned()));
        }
    }

    /// Whether a quota has refused this definition.
    pub(super) fn is_limited(&self, definition: &str, market: Market) -> bool {
        let refusal = self.memory.refusals.get(&market);
        refusal.is_some_and(|it| it.cause == RefusalCause::Limit && it.definitions.contains(definition))
    }

    /// Whether a quota has refused launches for two minutes.
    pub(super) fn is_out_of_room(&self, market: Market) -> bool {
        let wait = self.policy.room_after;
        self.memory.refusals.get(&market).is_some_and(|refusal| {
            refusal.cause == RefusalCause::Limit
                && self.age(refusal.since) >= wait
                && refusal.last.duration_since(refusal.since) >= self.policy.room_still_refused.min(wait)
        })
    }

    /// Shortens the pause after a refusal, because an instance is on its way out. The two minutes begin
    /// again, so that one worker makes room at a time.
    pub(super) fn room_is_made(&mut self) {
        for refusal in self.memory.refusals.values_mut().filter(|it| it.cause == RefusalCause::Limit) {
            refusal.since = self.now;
            refusal.last = refusal.last.max(refusal.since);
            refusal.tries = 1;
        }
    }

    /// Returns the market of a worker's definition, or the released one's if it is not known any more.
    pub(super) fn market_of(&self, slot: &Slot) -> Market {
        self.definition(&slot.release).map_or(self.release.worker.market, |release| release.worker.market)
    }

    /// Whether a load balancer was heard: where no worker answers, that shows that our probes arrive.
    pub(super) fn balancer_answers(&self) -> bool {
        self.balancers.keys().any(|id| self.probe(id) == Some(Probe::Answered))
    }

    /// Whether the rollout of the release stops a worker first.
    pub(super) fn stops_first(&self) -> bool {
        self.memory.stops_first(self.release)
    }

    /// A rollout that wants an extra worker, and EC2 refuses it: the quota was not known when it was
    /// deployed. The only worker is not stopped for it, and the extra one is asked for again and again.
    pub(super) fn fall_back_to_stop_first(&mut self, desired: DesiredCount) {
        let worker = &self.release.worker;
        let is_refused = self.is_limited(&self.release.id, worker.market);
        let id = self.release.id.clone();
        if desired.get() == 1 && self.release.rollout != Rollout::StopFirst {
            self.memory.stop_first = None;
            if is_refused {
                self.hold_rollout(RolloutBrake::NoRoom);
            }
        } else if is_refused && !self.stops_first() {
            self.record(ReleaseDecision::StopsFirst { release: id.clone() });
            self.memory.stop_first = Some(id);
        }
    }

    /// How many workers are missing on purpose. Ends the room that is not needed any more.
    pub(super) fn follow_room(&mut self, desired: DesiredCount) {
        let Some(room) = self.memory.room.clone() else { return };
        let is_needed = !desired.is_zero()
            && room.worker.is_some()
            && match room.purpose {
                RoomFor::Worker => self.needs_worker_room(&room, desired),
                RoomFor::Balancer => {
                    self.balancer_waits() && self.age(room.since) < self.policy.room_again_after
                }
            };
        if !is_needed {
            self.memory.room = None;
            return;
        }
        // If fewer are desired by now, the room is there anyway.
        let is_short = self.live() < desired.workers();
        let is_waited_for = match room.purpose {
            RoomFor::Worker => !self.is_left(&room),
            RoomFor::Balancer => !self.is_room_closed(&room),
        };
        self.deficit = usize::from(is_short && is_waited_for);
        match room.purpose {
            RoomFor::Worker if desired.get() == 1 => self.hold_rollout(RolloutBrake::NoWorker),
            RoomFor::Worker => self.hold_rollout(RolloutBrake::OneStopped),
            RoomFor::Balancer if self.deficit > 0 => self.hold(HeldBack::WorkerForBalancer),
            RoomFor::Balancer => {}
        }
    }

    /// The room of a rollout lasts until its worker serves, or the release has failed.
    fn needs_worker_room(&self, room: &Room, desired: DesiredCount) -> bool {
        let is_well = self.memory.slots.values().all(|slot| slot.phase == Phase::Healthy);
        let is_filled = self.is_left(room) && is_well && self.live() >= desired.workers();
        let has_old = self.memory.slots.values().any(|slot| self.is_old(slot));
        // Failures before the room was made do not end it: it is for a try after the freeze.
        let has_failed = self.memory.boots.get(&self.release.id).is_some_and(|boots| {
            boots.failures >= self.policy.freeze_after
                && boots.last_failure.is_some_and(|last| last > room.since)
        });
        (has_old || !self.is_left(room)) && !is_filled && !has_failed
    }

    /// Whether EC2 counts the worker no more. A listing may only have left it out.
    fn is_left(&self, room: &Room) -> bool {
        let row = room.worker.as_ref().and_then(|id| self.workers.get(id));
        row.map_or_else(|| self.age(room.since) > self.policy.missing_after, |row| !row.state.is_live())
    }

    /// Whether a load balancer is on its way, or waits for room.
    fn balancer_waits(&self) -> bool {
        let mut former = self.memory.balancers().flat_map(|balancer| &balancer.former);
        // A stranger may stay for ten minutes, and is not what the worker left for.
        let is_live = |id: &WorkerId| self.balancers.get(id).is_some_and(|row| row.state.is_live());
        self.waiting.is_some() || self.has_successor() || former.any(is_live)
    }

    fn has_successor(&self) -> bool {
        self.memory.balancers().any(|balancer| balancer.successor.is_some())
    }

    /// A load balancer has not come in time; the room is not given to it again for a while.
    fn is_room_closed(&self, room: &Room) -> bool {
        room.purpose == RoomFor::Balancer
            && self.age(room.since) > self.policy.room_lasts
            && !self.has_successor()
    }

    /// Whether a worker is missing, or about to be, for another instance.
    pub(super) fn is_room_open(&self) -> bool {
        self.memory.room.as_ref().is_some_and(|room| !self.is_room_closed(room))
    }

    /// Whether the place that an old worker has left is for one of the release.
    pub(super) fn is_room_for_worker(&self) -> bool {
        self.memory.room.as_ref().is_some_and(|room| room.purpose == RoomFor::Worker)
    }

    /// A load balancer that EC2 refuses waits for room: a worker leaves, if enough are left.
    pub(super) fn make_room_for_balancer(&mut self, desired: DesiredCount) {
        let Some(need) = self.waiting.filter(|_| self.memory.room.is_none() && !desired.is_zero()) else {
            return;
        };
        let is_told = self.release.rollout == Rollout::StopFirst;
        let spec = self.release.balancer.as_ref();
        let market = spec.map_or(Market::OnDemand, |spec| spec.instance.market);
        let may_go = match need {
            Need::Renewal if desired.get() == 1 && !is_told => {
                return self.hold(HeldBack::Renewal);
            }
            Need::Renewal => self.is_calm(desired),
            Need::Replacement if !self.is_out_of_room(market) => false,
            Need::Replacement => {
                if self.answering() < 2 {
                    return self.hold(HeldBack::RoomForBalancer);
                }
                self.live() == desired.workers() && !self.is_young() && !self.makes_room_already()
            }
        };
        if may_go {
            self.open_room(RoomFor::Balancer);
        }
    }

    /// Stops one worker for the next of a new release.
    pub(super) fn stop_one(&mut self, desired: DesiredCount) {
        let release = &self.release.id;
        if desired.get() == 1 && self.failures() >= self.policy.freeze_after {
            return self.hold_rollout(RolloutBrake::BootsFailed);
        }
        let has_new = self.memory.slots.values().any(|slot| slot.release == *release);
        if has_new && !self.is_tried() {
            return self.hold_rollout(RolloutBrake::OnTrial);
        }
        if !self.is_room_open() && self.is_calm(desired) {
            self.open_room(RoomFor::Worker);
        }
    }

    /// Whether a leaving instance may still count for the quota. If EC2 does not show it, it may do so until
    /// it is forgotten.
    fn may_be_here(&self, id: &WorkerId) -> bool {
        self.workers.get(id).is_none_or(|row| row.state.is_live())
    }

    fn makes_room_already(&self) -> bool {
        let mut leaving = self.memory.leaving.iter();
        leaving.any(|(id, leaving)| leaving.reason.makes_room() && self.may_be_here(id))
    }

    fn open_room(&mut self, purpose: RoomFor) {
        self.memory.room = Some(Room { purpose, worker: None, since: self.now });
        self.deficit = 1;
    }

    /// Whether exactly the desired workers are there, all of them answer, and none is on its way out.
    fn is_calm(&self, desired: DesiredCount) -> bool {
        let is_well = self.memory.slots.values().all(|slot| slot.phase == Phase::Healthy);
        let is_leaving = self.memory.leaving.keys().any(|id| self.may_be_here(id));
        is_well
            && self.live() == desired.workers()
            && self.answering() >= desired.workers()
            && !is_leaving
            && !self.is_young()
    }
}

/// Returns the pause after so many refused tries in a row: 15, 30, 60, 120 seconds.
fn pause(policy: &Policy, tries: u32) -> SignedDuration {
    doubled(policy.refusal_pause_first, tries.saturating_sub(1)).min(policy.refusal_pause_longest)
}
