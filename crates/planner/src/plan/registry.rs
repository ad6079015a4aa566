//! Says who gets traffic.
//!
//! A worker that fell silent once keeps its place: load balancers watch it themselves and are
//! faster. If no worker is left, or most are dead at once, the dead are published as well: a fleet
//! that is not heard is not a fleet that is gone.

use fleet::memory::{Phase, Slot};
use fleet::registry::RegisteredWorker;
use fleet::{Registry, WorkerId};
use jiff::SignedDuration;

use super::Tick;

impl Tick<'_> {
    /// The next registry, or `None` if readers have it already.
    pub(super) fn next_registry(&mut self) -> Option<Registry> {
        // It is replaced by its version, which is not known.
        if self.observation.registry.is_err() {
            return None;
        }
        let published = self.published;
        let desired = self.memory.desired?;
        let serving = |slot: &Slot| matches!(slot.phase, Phase::Healthy | Phase::Suspect);
        let slots = || self.memory.slots.values();
        let with_dead = self.is_panic || !slots().any(serving);
        // A look gives no verdicts: published dead workers stay published until the next tick.
        let stays =
            |slot: &Slot| self.is_look && slot.worker.as_ref().is_some_and(|id| self.is_published(id));
        let is_gone = |slot: &Slot| {
            let row = slot.worker.as_ref().and_then(|id| self.workers.get(id));
            row.is_some_and(|row| !row.state.is_live())
        };
        let is_published = |slot: &&Slot| {
            !is_gone(slot)
                && (serving(slot) || (slot.phase == Phase::Dead && slot.served && (with_dead || stays(slot))))
        };
        let mut next = Registry {
            revision: 0,
            written_at: self.now,
            desired,
            notice: self.memory.notice.clone(),
            workers: slots().filter(is_published).filter_map(entry).chain(self.published_unknown()).collect(),
        };
        let last = self.memory.revision.max(published.map_or(0, |published| published.revision));
        // A revision below the one in memory is an old copy of the registry: readers ignore it.
        let is_followed = |published: &Registry| published.revision >= self.memory.revision;
        if published.is_some_and(|published| published.same_content(&next) && is_followed(published)) {
            self.memory.revision = last;
            return None;
        }
        next.revision = self.next_revision(last);
        self.memory.revision = next.revision;
        Some(next)
    }

    /// Returns a revision above every earlier one, because readers ignore a lower one than theirs. Memory and
    /// registry may be lost together, or restored from old copies, and a counter would then repeat itself.
    /// So the revision is the time in milliseconds, or one more than the last if that is higher.
    fn next_revision(&self, last: u64) -> u64 {
        let is_first = self.memory.revision == 0;
        // Each of two clocks may differ from that of S3. A new state may follow another one by less.
        let skew = self.policy.clock_skew * 2;
        let time = self.now + if is_first { skew } else { SignedDuration::ZERO };
        u64::try_from(time.as_millisecond()).unwrap_or(0).max(last.saturating_add(1))
    }

    /// Returns workers that the registry lists and a new memory does not know. They may serve as long as EC2
    /// does not show them, or shows them as live and they are not judged yet. A worker that a look takes back
    /// has no slot until the next tick if another one has its slot.
    fn published_unknown(&self) -> Vec<(WorkerId, RegisteredWorker)> {
        let may_serve = |id: &WorkerId| {
            let row = self.workers.get(id).copied();
            row.is_none_or(|row| row.state.is_live())
                && !self.memory.leaving.contains_key(id)
                && !self.slot_of(id, row).is_some_and(|slot| slot.served)
        };
        let published = self.published.iter().flat_map(|published| &published.workers);
        let is_known_enough = !self.memory.follows_loss
            || self.memory.began.is_some_and(|began| self.age(began) > self.policy.missing_after);
        // While a zone is out EC2 shows only instances that memory knows.
        let is_known_enough = is_known_enough && !self.observation.is_partial;
        published
            .filter(|(id, _)| may_serve(id) && (self.is_look || !is_known_enough))
            .map(|(id, worker)| (id.clone(), worker.clone()))
            .collect()
    }
}

fn entry(slot: &Slot) -> Option<(WorkerId, RegisteredWorker)> {
    Some((slot.worker.clone()?, RegisteredWorker { addr: slot.addr?, zone: slot.zone.clone() }))
}
