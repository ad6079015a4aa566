//! Says who gets traffic.
//!
//! A worker that fell silent once keeps its place: load balancers watch it themselves and are
//! faster. If nobody is left, those given up are published again: a fleet that is not heard is not
//! a fleet that is gone.

use fleet::memory::{LeavingStage, Phase, Slot};
use fleet::registry::RegisteredWorker;
use fleet::{Registry, WorkerId};

use super::Tick;

impl Tick<'_> {
    /// The next registry, or `None` if readers have it already.
    pub(super) fn next_registry(&mut self) -> Option<Registry> {
        let published = self.published;
        let desired = self.memory.desired?;
        let serving = |slot: &Slot| matches!(slot.phase, Phase::Healthy | Phase::Suspect);
        let anybody_serves = self.memory.slots.values().any(serving);
        let workers = self
            .memory
            .slots
            .values()
            .filter(|slot| serving(slot) || (!anybody_serves && slot.phase == Phase::Dead));
        let mut next = Registry {
            revision: 0,
            written_at: self.now,
            desired,
            notice: self.memory.notice.clone(),
            workers: workers.filter_map(entry).collect(),
        };
        if published.is_some_and(|published| published.same_content(&next)) {
            self.memory.revision =
                self.memory.revision.max(published.map_or(0, |published| published.revision));
            return None;
        }
        next.revision = self.memory.revision.max(published.map_or(0, |published| published.revision)) + 1;
        self.memory.revision = next.revision;
        self.begin_drains(published, &next);
        Some(next)
    }
}

impl Tick<'_> {
    /// A drain is counted from the registry that takes the worker out, which is not the one of the
    /// tick that decided it if publishing failed then.
    fn begin_drains(&mut self, published: Option<&Registry>, next: &Registry) {
        let leaves = |id: &WorkerId| {
            published.is_some_and(|published| published.workers.contains_key(id))
                && !next.workers.contains_key(id)
        };
        for (_, leaving) in self.memory.leaving.iter_mut().filter(|(id, _)| leaves(id)) {
            if leaving.stage == LeavingStage::Draining {
                leaving.since = self.now;
            }
        }
    }
}

fn entry(slot: &Slot) -> Option<(WorkerId, RegisteredWorker)> {
    Some((slot.worker.clone()?, RegisteredWorker { addr: slot.addr?, zone: slot.zone.clone() }))
}
