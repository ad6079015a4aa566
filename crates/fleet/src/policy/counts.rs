//! How many instances a desired count allows: the arithmetic of a policy.

use super::Policy;
use crate::DesiredCount;

impl Policy {
    /// Whether a new desired count takes most workers away.
    pub fn takes_most(&self, before: DesiredCount, desired: DesiredCount) -> bool {
        let is_less = !self.lowering_share.is_reached_by(desired.workers(), before.workers());
        desired < before && (desired.is_zero() || is_less)
    }

    /// Returns how many instances may exist, in any state.
    pub const fn cap(&self, desired: DesiredCount) -> usize {
        self.cap_per_worker * desired.workers() + self.cap_extra
    }

    /// Returns how many instances may exist if no worker answers.
    pub const fn stuck_cap(&self, desired: DesiredCount) -> usize {
        self.stuck_cap_per_worker * desired.workers() + self.stuck_cap_extra
    }

    /// Returns how many losses within `losses_window` are replaced at once.
    pub const fn loss_budget(&self, desired: DesiredCount) -> usize {
        self.budget_per_worker * desired.workers() + self.budget_extra
    }

    /// Returns how many replacements may boot at a time while no worker answers.
    pub fn deaf_boots(&self, desired: DesiredCount) -> usize {
        self.deaf_share.of_rounded_up(desired.workers()).max(self.deaf_least)
    }

    /// Returns how many workers a rollout replaces at a time.
    pub fn rollout_batch(&self, desired: DesiredCount) -> usize {
        self.rollout_share.of(desired.workers()).max(self.rollout_least)
    }

    /// Returns how many crashing workers are replaced at a time.
    pub fn crash_batch(&self, desired: DesiredCount) -> usize {
        self.crash_share.of(desired.workers()).max(self.crash_least)
    }

    /// Returns how many unknown instances are removed in one tick.
    pub fn orphan_batch(&self, desired: DesiredCount) -> usize {
        self.orphan_share.of(desired.workers()).max(self.orphan_least)
    }
}
