//! Runs of many seeds, on all cores.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleet::Policy;

use crate::clock::Millis;
use crate::course::Course;
use crate::fault::{Faults, Kind, Strike};
use crate::ledger::Violation;
use crate::scenario::Scenario;
use crate::world::{Stats, World};

/// What came of one seed.
pub struct Outcome {
    pub seed: u64,
    pub hash: u64,
    pub length: Millis,
    pub violation: Option<Violation>,
    pub stats: Stats,
    pub faults: Vec<u32>,
    pub struck: Vec<Strike>,
    pub course: Course,
}

/// Runs one seed, without the suppressed faults, and prints it as a story if wanted.
pub fn run_seed(scenario: Scenario, suppressed: BTreeSet<Strike>, is_told: bool) -> Outcome {
    let seed = scenario.seed;
    let faults = Faults::new(seed, suppressed);
    let mut world = World::new(scenario, faults, is_told);
    world.run();
    Outcome {
        seed,
        hash: world.hash(),
        length: world.now,
        violation: world.checks.violation.take(),
        stats: std::mem::take(&mut world.stats),
        faults: std::mem::take(&mut world.faults.counts),
        struck: std::mem::take(&mut world.faults.struck),
        course: std::mem::take(&mut world.course),
    }
}

/// All of many seeds.
pub struct Total {
    pub seeds: u64,
    pub length: Millis,
    pub stats: Stats,
    pub faults: Vec<u64>,
    pub violations: Vec<(u64, Violation)>,
    /// Over all hashes; the order of the seeds does not matter.
    pub hash: u64,
    pub elapsed: Duration,
}

/// How a campaign goes about it.
pub struct Campaign {
    pub first_seed: u64,
    pub seeds: u64,
    pub length: Millis,
    pub policy: Policy,
    pub threads: usize,
    /// Violations after which no new seed is begun.
    pub stop_after: usize,
    /// Say on standard error how far it is.
    pub shows_progress: bool,
}

impl Campaign {
    pub fn run(&self) -> Total {
        let begun = Instant::now();
        let next = AtomicU64::new(0);
        let is_enough = AtomicBool::new(false);
        let total = Mutex::new(Total {
            seeds: 0,
            length: 0,
            stats: Stats::default(),
            faults: vec![0; Kind::ALL.len()],
            violations: Vec::new(),
            hash: 0,
            elapsed: Duration::ZERO,
        });
        let last_shown = Mutex::new(begun);
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= self.seeds || is_enough.load(Ordering::Relaxed) {
                            return;
                        }
                        let policy = self.policy.clone();
                        let scenario =
                            Scenario { policy, ..Scenario::stormy(self.first_seed + n, self.length) };
                        let outcome = run_seed(scenario, BTreeSet::new(), false);
                        let mut total = total.lock().expect("no run panics with the total in hand");
                        total.add(outcome);
                        if total.violations.len() >= self.stop_after {
                            is_enough.store(true, Ordering::Relaxed);
                        }
                        self.show(&total, begun, &last_shown);
                    }
                });
            }
        });
        let mut total = total.into_inner().expect("all threads have ended");
        total.violations.sort_by_key(|(seed, _)| *seed);
        total.elapsed = begun.elapsed();
        total
    }

    fn show(&self, total: &Total, begun: Instant, last: &Mutex<Instant>) {
        let Ok(mut last) = last.try_lock() else { return };
        if !self.shows_progress || last.elapsed() < Duration::from_secs(10) {
            return;
        }
        *last = Instant::now();
        let line = format!(
            "{} of {} seeds, {} violations, {} s\n",
            total.seeds,
            self.seeds,
            total.violations.len(),
            begun.elapsed().as_secs()
        );
        // A closed standard error is no reason to stop.
        std::io::stderr().write_all(line.as_bytes()).ok();
    }
}

impl Total {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.length += outcome.length;
        self.hash ^= outcome.hash;
        self.stats.add(&outcome.stats);
        for (sum, count) in self.faults.iter_mut().zip(&outcome.faults) {
            *sum += u64::from(*count);
        }
        if let Some(violation) = outcome.violation {
            self.violations.push((outcome.seed, violation));
        }
    }

    pub fn years(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let hours = self.length as f64 / 3_600_000.0;
        hours / (24.0 * 365.25)
    }
}

impl Stats {
    pub fn add(&mut self, other: &Self) {
        self.ticks += other.ticks;
        self.invocations += other.invocations;
        self.launches += other.launches;
        self.terminations += other.terminations;
        self.moves += other.moves;
        self.recoveries.extend(&other.recoveries);
    }
}
