//! Whether the checks notice: one planted bug after the other, until a seed breaks a rule.
//!
//! A planted bug is a bad policy, or a rule that is broken in the code. A seed that breaks a rule without
//! the bug as well proves nothing and does not count. A broken rule is planted in the whole process, so
//! seeds run in parallel and bugs do not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fleet::Policy;
use planner::planted::{self, Bug};

use crate::bad_policy::{self, BadPolicy};
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

/// A planted bug.
#[derive(Clone, Copy)]
pub enum Mutant {
    Rule(Bug),
    Policy(&'static BadPolicy),
}

impl Mutant {
    /// Returns all planted bugs.
    pub fn all() -> impl Iterator<Item = Self> {
        bad_policy::ALL.iter().map(Self::Policy).chain(Bug::ALL.iter().copied().map(Self::Rule))
    }

    /// Returns the planted bug with this name, if this build can plant it.
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|mutant| mutant.name() == name).filter(|mutant| mutant.can_be_planted())
    }

    const fn can_be_planted(self) -> bool {
        CAN_PLANT || matches!(self, Self::Policy(_))
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Rule(bug) => bug.name(),
            Self::Policy(policy) => policy.name,
        }
    }

    const fn wrong(self) -> &'static str {
        match self {
            Self::Rule(bug) => bug.wrong(),
            Self::Policy(policy) => policy.wrong,
        }
    }

    /// Breaks the rule, if it is one, and returns the policy to run with.
    pub fn plant(self) -> Policy {
        match self {
            Self::Rule(bug) => {
                planted::plant(Some(bug));
                Policy::default()
            }
            Self::Policy(policy) => policy.policy(),
        }
    }
}

pub struct Hunt {
    pub first_seed: u64,
    /// At the most, for each bug.
    pub seeds: u64,
    /// Part of the names of the bugs to plant; empty for all.
    pub only: String,
    /// Leave out rules that are broken in the code.
    pub only_policies: bool,
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
        if let Some((n, violation)) = self.first_failure(&Policy::default(), 0, CLEAN) {
            let seed = self.first_seed + n;
            line(&format!("seed {seed} breaks {} without any bug: {}", violation.rule, violation.what));
            return false;
        }
        line(&format!("{CLEAN} seeds without a bug break no rule"));
        line(&format!("{:<31} {:>6} {:>8}  {:<9} effect", "planted bug", "seeds", "seconds", "rule"));
        let mut caught = 0;
        let is_wanted = |mutant: &Mutant| {
            let is_of_kind = !self.only_policies || matches!(mutant, Mutant::Policy(_));
            is_of_kind && mutant.name().contains(&self.only)
        };
        let mutants: Vec<Mutant> = Mutant::all().filter(is_wanted).collect();
        for mutant in &mutants {
            let begun = Instant::now();
            let catch = self.hunt(*mutant);
            caught += usize::from(catch.is_some());
            tell(*mutant, catch.as_ref(), begun.elapsed());
        }
        line(&format!("{caught} of {} planted bugs caught", mutants.len()));
        caught == mutants.len()
    }

    fn hunt(&self, mutant: Mutant) -> Option<Catch> {
        let mut from = 0;
        loop {
            let policy = mutant.plant();
            let failure = self.first_failure(&policy, from, self.seeds);
            planted::plant(None);
            let (n, violation) = failure?;
            if breaks_nothing(self.first_seed + n) {
                return Some(Catch { seeds: n + 1, violation });
            }
            from = n + 1;
        }
    }

    /// The first of these seeds that breaks a rule, counted from the first seed of all.
    fn first_failure(&self, policy: &Policy, from: u64, to: u64) -> Option<(u64, Violation)> {
        let campaign = Campaign {
            first_seed: self.first_seed + from,
            seeds: to.saturating_sub(from),
            length: LENGTH,
            policy: policy.clone(),
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

fn tell(mutant: Mutant, catch: Option<&Catch>, took: Duration) {
    let (seeds, rule) = match catch {
        Some(catch) => (catch.seeds.to_string(), catch.violation.rule),
        None => ("none".to_owned(), "NOT CAUGHT"),
    };
    let (name, seconds, wrong) = (mutant.name(), took.as_secs_f64(), mutant.wrong());
    line(&format!("{name:<31} {seeds:>6} {seconds:>8.1}  {rule:<9} {wrong}"));
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
    fn every_bug_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Mutant::all().map(Mutant::name).collect();
        assert_eq!(names.len(), Mutant::all().count());
    }
}
