//! Whether the checks notice: one planted bug after the other, until a seed breaks a rule.
//!
//! A seed that breaks a rule without the bug as well proves nothing and does not count. A bug is
//! planted in the whole process, so seeds run in parallel and bugs do not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use planner::planted::{self, Bug};

use crate::check::Violation;
use crate::clock::{HOUR, Millis};
use crate::report::line;
use crate::run::{Campaign, run_seed};
use crate::scenario::Scenario;

/// As `sim run` has it.
const LENGTH: Millis = 6 * HOUR;
/// Seeds without a bug that have to be clean before any is planted.
const CLEAN: u64 = 300;

/// Whether rules can be broken in this build.
pub const CAN_PLANT: bool = cfg!(feature = "planted");

/// Plants a bug by its name. Says whether there is such a bug.
pub fn plant(name: &str) -> bool {
    let bug = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
    planted::plant(bug);
    CAN_PLANT && bug.is_some()
}

pub struct Hunt {
    pub first_seed: u64,
    /// At the most, for each bug.
    pub seeds: u64,
    /// Part of the names of the bugs to plant; empty for all.
    pub only: String,
    pub threads: usize,
}

struct Catch {
    /// How many it took.
    seeds: u64,
    violation: Violation,
}

impl Hunt {
    /// Prints a line for each bug. Says whether all were caught.
    pub fn run(&self) -> bool {
        planted::plant(None);
        if let Some((n, violation)) = self.first_failure(0, CLEAN) {
            let seed = self.first_seed + n;
            line(&format!("seed {seed} breaks {} without any bug: {}", violation.rule, violation.what));
            return false;
        }
        line(&format!("{CLEAN} seeds without a bug break no rule"));
        line(&format!("{:<31} {:>6} {:>8}  {:<9} what is wrong", "planted bug", "seeds", "seconds", "rule"));
        let mut caught = 0;
        let bugs: Vec<&Bug> = Bug::ALL.iter().filter(|bug| bug.name().contains(&self.only)).collect();
        for bug in &bugs {
            let begun = Instant::now();
            let catch = self.hunt(**bug);
            caught += usize::from(catch.is_some());
            tell(**bug, catch.as_ref(), begun.elapsed());
        }
        line(&format!("{caught} of {} planted bugs caught", bugs.len()));
        caught == bugs.len()
    }

    fn hunt(&self, bug: Bug) -> Option<Catch> {
        let mut from = 0;
        loop {
            planted::plant(Some(bug));
            let failure = self.first_failure(from, self.seeds);
            planted::plant(None);
            let (n, violation) = failure?;
            if breaks_nothing(self.first_seed + n) {
                return Some(Catch { seeds: n + 1, violation });
            }
            from = n + 1;
        }
    }

    /// The first of these seeds that breaks a rule, counted from the first seed of all.
    fn first_failure(&self, from: u64, to: u64) -> Option<(u64, Violation)> {
        let campaign = Campaign {
            first_seed: self.first_seed + from,
            seeds: to.saturating_sub(from),
            length: LENGTH,
            threads: self.threads,
            stop_after: 1,
            shows_progress: true,
        };
        let (seed, violation) = campaign.run().violations.into_iter().next()?;
        Some((seed - self.first_seed, violation))
    }
}

fn breaks_nothing(seed: u64) -> bool {
    run_seed(Scenario::stormy(seed, LENGTH), BTreeSet::new(), false).violation.is_none()
}

fn tell(bug: Bug, catch: Option<&Catch>, took: Duration) {
    let (seeds, rule) = match catch {
        Some(catch) => (catch.seeds.to_string(), catch.violation.rule),
        None => ("none".to_owned(), "NOT CAUGHT"),
    };
    line(&format!("{:<31} {seeds:>6} {:>8.1}  {rule:<9} {}", bug.name(), took.as_secs_f64(), bug.wrong()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "planted"))]
    #[test]
    fn nothing_is_planted_without_the_feature() {
        const { assert!(!CAN_PLANT && !planted::is(Bug::NoCompareAndSwap)) };
        for bug in Bug::ALL {
            planted::plant(Some(*bug));
            assert!(!planted::is(*bug), "{}", bug.name());
        }
    }

    #[test]
    fn each_bug_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
    }
}
