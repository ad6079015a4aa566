//! Slow clients for benchmarks. It attacks until its standard input ends.

use bench::attack::{Crowd, run};
use clap::Parser;

/// Opens many connections to an HTTP server, and uses them slowly.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    crowd: Crowd,
}

fn main() -> anyhow::Result<()> {
    run(&Cli::parse().crowd)
}
