//! `make bench-lb`, `bench-kill`, `bench-slow`, `bench-soak`. It fails if a goal is missed.

use std::process::ExitCode;

use bench::balancer::compare::{self, Compare};
use bench::balancer::kill::{self, Kill};
use bench::balancer::slow::{self, Slow};
use bench::balancer::soak::{self, Soak};
use clap::Parser;

/// Measures the load balancer and its peers.
#[derive(Parser)]
#[command(version)]
enum Cli {
    /// The cost of a request and of an idle client.
    Compare(Compare),
    /// Failures that clients see when a worker is killed.
    Kill(Kill),
    /// How slow clients affect normal ones.
    Slow(Slow),
    /// Failures and memory growth in a long run with faults.
    Soak(Soak),
}

fn main() -> anyhow::Result<ExitCode> {
    let are_met = match Cli::parse() {
        Cli::Compare(compare) => compare::run(&compare)?,
        Cli::Kill(kill) => kill::run(&kill)?,
        Cli::Slow(slow) => slow::run(&slow)?,
        Cli::Soak(soak) => soak::run(&soak)?,
    };
    Ok(if are_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
