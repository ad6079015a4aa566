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
    /// What a request costs, and what an idle client.
    Compare(Compare),
    /// What clients see when a worker is killed.
    Kill(Kill),
    /// What they notice of slow ones.
    Slow(Slow),
    /// Whether a long run of trouble fails a request or takes memory.
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
