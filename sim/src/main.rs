//! The simulator's command line. Exit codes: 0 all rules held, 1 one was broken, 2 wrong arguments.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fleet::Policy;
use sim::bad_policy::{self, BadPolicy};
use sim::clock::{HOUR, Millis, SECOND};
use sim::output::line;
use sim::report;
use sim::run::{Campaign, run_seed};
use sim::scenario::Scenario;
use sim::shrink::shrink;

/// A simulated hour is a million small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates the reconciler under faults, in virtual time.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Many seeds; the last line counts the violations.
    Run {
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Simulated hours of each seed.
        #[arg(long, default_value_t = 6)]
        hours: i64,
        /// One per core if not given.
        #[arg(long)]
        threads: Option<usize>,
        /// Go on after this many seeds that failed.
        #[arg(long, default_value_t = 20)]
        stop_after: usize,
    },
    /// Prints the first seed that breaks a rule, and the rule. `make sim-mutants` calls it.
    Search {
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// With a bad policy, by name.
        #[arg(long, value_parser = find_policy)]
        bad_policy: Option<&'static BadPolicy>,
    },
    /// Prints the names of the bad policies with their effects, separated by tabs.
    BadPolicies,
    /// Single faults of a fleet at rest: how long until each is noticed and repaired.
    Latency {
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
    },
    /// Prints every number of the reconciler's policy, with its bounds and its reason, as Markdown.
    Policy,
    /// One seed again, as a story.
    Replay {
        seed: u64,
        #[arg(long, default_value_t = 6)]
        hours: i64,
        /// First leave out every fault that is not needed for it to fail.
        #[arg(long)]
        shrink: bool,
        /// With a bad policy, by name.
        #[arg(long, value_parser = find_policy)]
        bad_policy: Option<&'static BadPolicy>,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { seeds, first_seed, hours, threads, stop_after } => {
            let threads = threads.unwrap_or_else(cores);
            line(&format!("first seed {first_seed}"));
            let length: Millis = hours * HOUR;
            let policy = Policy::default();
            let campaign =
                Campaign { first_seed, seeds, length, policy, threads, stop_after, shows_progress: true };
            let total = campaign.run();
            report::total(&total, threads);
            if let Some((seed, _)) = total.violations.first() {
                line(&format!("Replay the first one: sim replay {seed} --hours {hours} --shrink"));
                line(&format!(
                    "{} seeds, {:.2} simulated years, {} violations",
                    total.seeds,
                    total.years(),
                    total.violations.len()
                ));
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Command::Search { seeds, first_seed, bad_policy } => {
            let policy = policy_of(bad_policy);
            let (length, threads) = (6 * HOUR, cores());
            let campaign =
                Campaign { first_seed, seeds, length, policy, threads, stop_after: 1, shows_progress: true };
            let Some((seed, violation)) = campaign.run().violations.into_iter().next() else {
                return ExitCode::SUCCESS;
            };
            line(&format!("{seed}\t{}\t{}", violation.rule, violation.what));
            ExitCode::FAILURE
        }
        Command::BadPolicies => {
            for bad in bad_policy::ALL {
                line(&format!("{}\t{}", bad.name, bad.wrong));
            }
            ExitCode::SUCCESS
        }
        Command::Latency { seeds, first_seed } => {
            if sim::latency::measure(first_seed, seeds) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Command::Policy => {
            line(&report::policy());
            ExitCode::SUCCESS
        }
        Command::Replay { seed, hours, shrink, bad_policy } => {
            let policy = policy_of(bad_policy);
            replay(Scenario { policy, ..Scenario::stormy(seed, hours * HOUR) }, shrink)
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn find_policy(name: &str) -> Result<&'static BadPolicy, String> {
    bad_policy::ALL.iter().find(|bad| bad.name == name).ok_or_else(|| "see `sim bad-policies`".to_owned())
}

fn policy_of(bad: Option<&BadPolicy>) -> Policy {
    bad.map_or_else(Policy::default, BadPolicy::policy)
}

fn replay(scenario: Scenario, is_small: bool) -> ExitCode {
    let seed = scenario.seed;
    let suppressed = if is_small {
        let Some(shrunk) = shrink(&scenario) else {
            line(&format!("seed {seed} breaks no rule"));
            return ExitCode::SUCCESS;
        };
        line(&format!("{} faults are left after {} runs", shrunk.outcome.struck.len(), shrunk.runs));
        shrunk.suppressed
    } else {
        BTreeSet::new()
    };
    let outcome = run_seed(scenario, suppressed, true);
    line(&format!("trace hash {:016x}", outcome.hash));
    match outcome.violation {
        Some(violation) => {
            line(&format!(
                "seed {seed} breaks {} at {} s: {}",
                violation.rule,
                violation.at / SECOND,
                violation.what
            ));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
