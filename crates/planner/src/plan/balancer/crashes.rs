//! Notices a load balancer that keeps crashing. systemd restarts it within seconds, so it answers in every tick.
//!
//! ```text
//! three restarts within 5 min --> it keeps crashing: counts as a failed boot of its definition
//!     --> a successor is launched, of the definition that served last unless that fails more often
//!         --> it answers: the address moves, and the old load balancer goes
//!     --> no restart for 5 min: a load balancer like any other
//! ```
//!
//! Its clients lose their connections at each crash, and at each move of the address as well. So where all
//! load balancers of a definition keep crashing, launches run into the pauses of a boot loop. A first answer
//! does not end them, 55 s with the address and without a restart do.

use fleet::memory::Boots;
use fleet::release::BalancerSpec;

use super::Guard;
use crate::decision::BalancerDecision;
use crate::observation::Probe;
use crate::plan::crashes::Crashes;

impl Guard<'_, '_> {
    /// Notices restarts of the holder's program.
    pub(super) fn follow_crashes(&mut self) {
        let Some(holder) = &mut self.state.holder else { return };
        if self.tick.probe(&holder.id) != Some(Probe::Answered) {
            return;
        }
        let started = self.tick.observation.started.get(&holder.id).copied();
        let latest = holder.started.map(|known| known + self.tick.policy.crash_slack);
        let is_restarted = latest.is_some_and(|latest| started.is_some_and(|started| started > latest));
        if is_restarted || holder.started.is_none() {
            holder.started = started;
        }
        let (id, release) = (holder.id.clone(), holder.release.clone());
        match self.tick.count_restarts(&id, is_restarted) {
            Crashes::Few if self.has_served() => self.forgive(release.as_deref()),
            Crashes::Few | Crashes::Loop => {}
            Crashes::LoopBegins => {
                let crash_loop = self.tick.crash_loop(&id);
                self.tick.record(BalancerDecision::KeepsCrashing(crash_loop));
                self.blame(release.as_deref());
            }
        }
    }

    /// Counts a load balancer that keeps crashing as a failed boot of its definition.
    fn blame(&mut self, release: Option<&str>) {
        let now = self.tick.now;
        if let Some(boots) = self.known_boots(release) {
            boots.failures = boots.failures.saturating_add(1);
            (boots.last_failure, boots.crashes, boots.refused) = (Some(now), true, None);
        }
    }

    /// A load balancer of the definition has served for a while without a restart.
    fn forgive(&mut self, release: Option<&str>) {
        if let Some(boots) = self.known_boots(release).filter(|boots| boots.crashes) {
            *boots = Boots::default();
        }
    }

    /// The record of a definition, if it is still known.
    fn known_boots(&mut self, release: Option<&str>) -> Option<&mut Boots> {
        let release = release?;
        let balancer = &self.state;
        let is_known = balancer.boots_of == release
            || balancer.proven.as_ref().is_some_and(|proven| proven.id == release);
        is_known.then(|| self.boots_of_balancer(release))
    }

    /// Whether the definition of the holder becomes the proven one: a first answer proves nothing if a crash
    /// follows.
    pub(super) fn is_proof(&self, spec: &BalancerSpec) -> bool {
        let is_first = self.state.proven.as_ref().is_none_or(|proven| proven.id == spec.id);
        is_first || self.has_served()
    }

    /// Whether the holder has had the address for a while without a restart.
    fn has_served(&self) -> bool {
        let Some(holder) = &self.state.holder else { return false };
        let restarts = self.tick.memory.restarts.get(&holder.id);
        let last = restarts.and_then(|restarts| restarts.seen.last().copied());
        let since = last.map_or(holder.since, |last| last.max(holder.since));
        self.tick.age(since) >= self.tick.policy.trial
    }
}
