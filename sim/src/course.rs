//! The course of a clean fault: how long until it is noticed, acted upon, and repaired.

use crate::clock::{MINUTE, Millis};

/// How long the prober hears no instance.
pub const BROKEN: Millis = 120 * MINUTE;

/// What became of a single fault; times in milliseconds since the beginning of the run.
#[derive(Clone, Debug, Default)]
pub struct Course {
    pub struck: Option<Millis>,
    pub victim: Option<usize>,
    pub decided: Option<Millis>,
    pub launched: Option<Millis>,
    pub ended: Option<Millis>,
    pub whole: Option<Millis>,
    /// Instances launched and ended since.
    pub launches: Vec<Millis>,
    pub ends: Vec<Millis>,
    pub wants_stuck_boot: bool,
}

impl Course {
    pub fn launched(&mut self, now: Millis) {
        if self.struck.is_some() {
            self.launched.get_or_insert(now);
            self.launches.push(now);
        }
    }

    pub fn ended(&mut self, index: usize, now: Millis) {
        if self.struck.is_some() {
            self.ends.push(now);
        }
        if self.victim == Some(index) {
            self.ended.get_or_insert(now);
        }
    }

    /// Whether the instance that is launched now never serves.
    pub fn takes_stuck_boot(&mut self) -> bool {
        std::mem::take(&mut self.wants_stuck_boot)
    }
}
