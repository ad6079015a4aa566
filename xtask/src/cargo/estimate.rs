//! Estimates how long a build still takes.
//!
//! Work is counted in seconds of one core. A few slow crates are listed with their own number; all others count the same.
//! The time left is the remaining work, divided by the speed of this build so far.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::progress::roughly;

/// Seconds of one core for the slowest crates and programs in the `dev` profile: docs/decisions/0011 for ec2, s3 and
/// bootstrap, estimates for the others. Only the ratios count: the speed is measured while the build runs.
const SLOW: [(&str, f64); 8] = [
    ("aws-sdk-ec2", 115.0),
    ("aws-sdk-s3", 26.0),
    ("bootstrap", 24.0),
    ("aws-sdk-iam", 20.0),
    ("aws-sdk-cloudwatchlogs", 16.0),
    ("aws-sdk-lambda", 16.0),
    ("aws-lc-sys", 25.0),
    ("reconciler", 12.0),
];
/// All other units: 7.5 CPU minutes without the slow crates, divided by 410 units.
const OTHER: f64 = 0.5;
/// The whole workspace has 417 units; a build of a part of it does not wait for all slow crates.
const WHOLE: usize = 300;
/// Before this much work is done, its speed says nothing; two cores are assumed.
const ENOUGH: f64 = 10.0;
const CORES: f64 = 1.7;

#[derive(Debug)]
pub(super) struct Estimate {
    /// The command names the whole workspace, so each slow crate is part of the build.
    is_everything: bool,
    start: Instant,
    done: usize,
    total: usize,
    /// Units that were there before.
    fresh: usize,
    active: Vec<String>,
    since: BTreeMap<String, Instant>,
    finished: BTreeSet<String>,
    fresh_names: BTreeSet<String>,
    wait: Option<String>,
}

impl Estimate {
    pub(super) fn new(is_everything: bool, start: Instant) -> Self {
        Self {
            is_everything,
            start,
            done: 0,
            total: 0,
            fresh: 0,
            active: Vec::new(),
            since: BTreeMap::new(),
            finished: BTreeSet::new(),
            fresh_names: BTreeSet::new(),
            wait: None,
        }
    }

    pub(super) fn finished(&mut self, name: &str, is_fresh: bool) {
        if is_fresh {
            self.fresh += 1;
            self.fresh_names.insert(name.to_owned());
        }
        self.finished.insert(name.to_owned());
    }

    pub(super) fn at(&mut self, done: usize, total: usize, active: Vec<String>, now: Instant) {
        for name in &active {
            // A program is `bootstrap(bin)`, a build script that runs `aws-lc-sys(build)`.
            let name = name.strip_suffix("(bin)").or_else(|| name.strip_suffix("(build)")).unwrap_or(name);
            self.since.entry(name.to_owned()).or_insert(now);
        }
        (self.done, self.total, self.active, self.wait) = (done, total, active, None);
    }

    pub(super) fn waits_for(&mut self, what: String) {
        self.wait = Some(what);
    }

    /// Whether something is compiled, or waited for.
    pub(super) fn is_worth_showing(&self) -> bool {
        self.wait.is_some() || !self.active.is_empty()
    }

    /// Returns the line to show.
    pub(super) fn text(&self, now: Instant) -> String {
        if let Some(wait) = &self.wait {
            return format!("cargo: {wait}");
        }
        let left = match self.left(now) {
            Some(left) => format!(", about {} left", roughly(left)),
            None => String::new(),
        };
        format!("compiled {} of {}{left}: {}", self.done, self.total, self.active.join(", "))
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        let mut slow_left = 0.0;
        let mut slow_done = 0.0;
        let mut slow_units = 0;
        for (name, seconds) in SLOW {
            let is_done = self.finished.contains(name);
            if is_done && !self.fresh_names.contains(name) {
                slow_done += seconds;
            } else if !is_done && (self.is_everything && self.total >= WHOLE || self.since.contains_key(name))
            {
                // It may take longer than here, so a rest stays.
                let worked =
                    self.since.get(name).map_or(0.0, |since| (now - *since).as_secs_f64().min(0.8 * seconds));
                (slow_left, slow_done, slow_units) =
                    (slow_left + seconds - worked, slow_done + worked, slow_units + 1);
            }
        }
        let others = |units: usize| OTHER * f64::from(u32::try_from(units).unwrap_or(u32::MAX));
        let done = slow_done + others(self.done.saturating_sub(self.fresh));
        let left = slow_left + others(self.total.saturating_sub(self.done).saturating_sub(slow_units));
        let elapsed = (now - self.start).as_secs_f64();
        if elapsed < 3.0 {
            return None;
        }
        let speed = if done < ENOUGH { CORES } else { done / elapsed };
        Duration::try_from_secs_f64(left / speed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_line_says_which_crate_how_many_and_how_long() {
        let start = Instant::now();
        let mut estimate = Estimate::new(true, start);
        assert!(!estimate.is_worth_showing());
        estimate.at(100, 600, vec!["syn".to_owned(), "ring".to_owned()], after(start, 20));
        assert_eq!(estimate.text(after(start, 20)), "compiled 100 of 600, about 3 min left: syn, ring");
        assert!(estimate.is_worth_showing());
    }

    #[test]
    fn slow_crates_that_are_there_do_not_count() {
        let start = Instant::now();
        let mut estimate = Estimate::new(true, start);
        for (name, _) in SLOW.iter().filter(|(name, _)| *name != "bootstrap") {
            estimate.finished(name, true);
        }
        for at in 0..590 {
            estimate.finished(&format!("other-{at}"), true);
        }
        estimate.at(598, 600, vec!["bootstrap(bin)".to_owned()], after(start, 5));
        assert_eq!(estimate.text(after(start, 5)), "compiled 598 of 600, about 20 s left: bootstrap(bin)");
    }

    #[test]
    fn the_time_left_shrinks_while_one_crate_compiles() {
        let start = Instant::now();
        let mut estimate = Estimate::new(false, start);
        estimate.at(10, 12, vec!["aws-sdk-ec2".to_owned()], start);
        let left = [30, 60, 120, 300].map(|seconds| estimate.left(after(start, seconds)).expect("known"));
        assert!(
            left.is_sorted_by(|earlier, later| earlier > later || *later > Duration::from_secs(20)),
            "{left:?}"
        );
    }

    #[test]
    fn a_lock_is_named_until_something_compiles() {
        let start = Instant::now();
        let mut estimate = Estimate::new(true, start);
        estimate.waits_for("Blocking waiting for file lock".to_owned());
        assert_eq!(estimate.text(start), "cargo: Blocking waiting for file lock");
        estimate.at(1, 2, vec!["a".to_owned()], start);
        assert!(estimate.text(start).starts_with("compiled 1 of 2"));
    }
}
