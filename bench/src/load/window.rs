//! Which part of a run is measured, and the CPU time that a process used during it.
//!
//! ```text
//! warm-up ──> measuring ──> draining
//! ```
//!
//! While it drains, only requests that were due before are begun.

use std::time::{Duration, Instant};

use super::plan::Plan;
use crate::process;

pub struct Window {
    begins: Instant,
    lasts: Duration,
    cpu_of: Option<u32>,
    stage: Stage,
}

enum Stage {
    WarmUp,
    Measuring { since: Instant, cpu: Option<Duration> },
    Draining { since: Instant },
}

/// The measured part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub time: Duration,
    pub cpu: Option<Duration>,
}

impl Window {
    pub fn new(plan: &Plan, start: Instant) -> Self {
        let (begins, lasts) = (start + plan.warm_up(), plan.measured());
        Self { begins, lasts, cpu_of: plan.cpu_of, stage: Stage::WarmUp }
    }

    /// Goes to the next stage if it is time; returns the measurement when it is over.
    pub fn advance(&mut self, now: Instant) -> anyhow::Result<Option<Measured>> {
        match self.stage {
            Stage::WarmUp if now >= self.begins => {
                self.stage = Stage::Measuring { since: now, cpu: self.cpu()? };
                Ok(None)
            }
            Stage::Measuring { since, cpu } if now >= since + self.lasts => {
                self.stage = Stage::Draining { since: now };
                let used = self.cpu()?.zip(cpu).map(|(after, before)| after.saturating_sub(before));
                Ok(Some(Measured { time: now - since, cpu: used }))
            }
            Stage::WarmUp | Stage::Measuring { .. } | Stage::Draining { .. } => Ok(None),
        }
    }

    fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        self.cpu_of.map(process::family_cpu).transpose()
    }

    /// Returns whether an answer without a due time counts now.
    pub fn is_measuring(&self) -> bool {
        matches!(self.stage, Stage::Measuring { .. })
    }

    /// Returns whether an answer due at that time counts, however late it arrives.
    pub fn is_due_in(&self, due: Instant) -> bool {
        due >= self.begins
    }

    /// Returns since when it drains.
    pub fn drains_since(&self) -> Option<Instant> {
        match self.stage {
            Stage::WarmUp | Stage::Measuring { .. } => None,
            Stage::Draining { since } => Some(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_from_the_end_of_the_warm_up() {
        let target = "127.0.0.1:1".parse().expect("valid");
        let plan = Plan { warm_up_seconds: 1.0, seconds: 2.0, ..Plan::new(target) };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::new(&plan, start);
        assert_eq!(window.advance(start).expect("no process"), None);
        assert!(!window.is_measuring() && !window.is_due_in(start));
        assert_eq!(window.advance(at(1)).expect("no process"), None);
        assert!(window.is_measuring() && window.is_due_in(at(1)));
        let measured = Measured { time: Duration::from_secs(3), cpu: None };
        assert_eq!(window.advance(at(4)).expect("no process"), Some(measured));
        assert!(!window.is_measuring());
        assert_eq!(window.drains_since(), Some(at(4)));
    }
}
