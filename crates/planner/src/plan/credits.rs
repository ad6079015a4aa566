//! Caps CPU credits: an instance that has served for five minutes may spend only the credits it earns.
//!
//! T3 and T4g get no launch credits in the mode `standard`, so they boot as `unlimited`. Left so, a
//! flood of sign-ins would run up a bill. A switch is remembered once EC2 has confirmed it: after a
//! lost answer, or a lost memory, EC2 is asked once more, which changes nothing.

use fleet::WorkerId;
use fleet::memory::Phase;
use fleet::release::{Credits, InstanceSpec};

use super::Tick;
use crate::grid;
use crate::held_back::HeldBack;
use crate::observation::{Probe, State};

impl Tick<'_> {
    pub(super) fn cap_credits(&mut self) {
        self.forget_capped();
        let mut uncapped: Vec<WorkerId> = self.uncapped_workers().chain(self.uncapped_balancers()).collect();
        if uncapped.is_empty() {
            return;
        }
        if let Some((why, _)) = self.memory.credits.refused.as_ref().filter(|(_, until)| *until > self.now) {
            let (instances, why) = (uncapped.len(), why.clone());
            return self.hold(HeldBack::Credits { instances, why });
        }
        self.memory.credits.refused = None;
        // Which ones first changes from tick to tick, so that none waits for ever.
        let (number, most) = (uncapped.len(), self.policy.credits_per_tick);
        uncapped.rotate_left(grid::turn(self.policy, self.now) * most % number);
        uncapped.truncate(most);
        self.credits = uncapped;
    }

    fn uncapped_workers(&self) -> impl Iterator<Item = WorkerId> {
        self.memory.slots.values().filter_map(|slot| {
            let id = slot.worker.as_ref()?;
            let definition = self.definition(&slot.release).unwrap_or(self.release);
            let has_served =
                slot.phase == Phase::Healthy && self.age(slot.since) >= self.policy.credits_after;
            (has_served && is_capped(&definition.worker) && self.may_be_asked(id)).then(|| id.clone())
        })
    }

    fn uncapped_balancers(&self) -> impl Iterator<Item = WorkerId> {
        let spec = self.release.balancer.as_ref();
        self.memory.balancers().filter_map(move |balancer| {
            let holder = balancer.holder.as_ref()?;
            let proven = balancer.proven.as_ref().filter(|it| Some(&it.id) == holder.release.as_ref());
            let has_served = self.probe(&holder.id) == Some(Probe::Answered)
                && holder.answered
                && self.age(holder.since) >= self.policy.credits_after;
            let is_capped = is_capped(&proven.or(spec)?.instance);
            (has_served && is_capped && self.may_be_asked(&holder.id)).then(|| holder.id.clone())
        })
    }

    fn may_be_asked(&self, id: &WorkerId) -> bool {
        let row = self.workers.get(id).or_else(|| self.balancers.get(id));
        let is_done = self.memory.credits.done.contains(id);
        !is_done && row.is_some_and(|row| row.state == State::Running)
    }

    fn forget_capped(&mut self) {
        if self.observation.is_partial {
            return;
        }
        let mut done = std::mem::take(&mut self.memory.credits.done);
        let is_remembered = |id: &WorkerId| {
            let holders = self.memory.balancers().filter_map(|balancer| balancer.holder.as_ref());
            let mut slots = self.memory.slots.values();
            slots.any(|slot| slot.worker.as_ref() == Some(id)) || holders.into_iter().any(|it| it.id == *id)
        };
        done.retain(|id| {
            let row = self.workers.get(id).or_else(|| self.balancers.get(id));
            row.map_or_else(|| is_remembered(id), |row| row.state.is_live())
        });
        self.memory.credits.done = done;
    }
}

fn is_capped(spec: &InstanceSpec) -> bool {
    spec.is_burstable() && spec.credits == Credits::Standard
}
