//! Makes a failing run small: as few faults as still break the same rule.
//!
//! Faults are left out in halves, quarters and so on (delta debugging), then one by one. Each kind
//! of fault has its own random numbers, so leaving one out disturbs the others little; where it does,
//! the smaller run is tried all the same and kept only if it fails in the same way.

use std::collections::BTreeSet;

use crate::fault::Strike;
use crate::run::{Outcome, run_seed};
use crate::scenario::Scenario;

/// Runs at the most; each takes some milliseconds.
const MOST_RUNS: usize = 3_000;

pub struct Shrunk {
    pub outcome: Outcome,
    pub suppressed: BTreeSet<Strike>,
    pub runs: usize,
}

/// `None` if the seed does not fail.
pub fn shrink(scenario: &Scenario) -> Option<Shrunk> {
    let first = run_seed(scenario.clone(), BTreeSet::new(), false);
    let rule = first.violation.as_ref()?.rule;
    let mut best = Shrunk { outcome: first, suppressed: BTreeSet::new(), runs: 1 };
    let mut share = 2;
    loop {
        let struck = best.outcome.struck.clone();
        let size = struck.len().div_ceil(share).max(1);
        let mut is_smaller = false;
        for part in struck.chunks(size) {
            if best.runs >= MOST_RUNS {
                return Some(best);
            }
            let mut suppressed = best.suppressed.clone();
            suppressed.extend(part.iter().copied());
            best.runs += 1;
            let outcome = run_seed(scenario.clone(), suppressed.clone(), false);
            let is_same = outcome.violation.as_ref().is_some_and(|violation| violation.rule == rule);
            if is_same && outcome.struck.len() < best.outcome.struck.len() {
                best = Shrunk { outcome, suppressed, runs: best.runs };
                is_smaller = true;
                break;
            }
        }
        if is_smaller {
            continue;
        }
        if size == 1 {
            return Some(best);
        }
        share *= 2;
    }
}
