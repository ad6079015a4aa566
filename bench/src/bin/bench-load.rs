//! The load generator, for one run. Its last line is the report, as JSON.

use bench::load::{Plan, run};
use bench::table::line;
use clap::Parser;

/// Sends requests to an HTTP server, checks each answer, and reports as JSON.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    plan: Plan,
}

fn main() -> anyhow::Result<()> {
    let report = run(&Cli::parse().plan)?;
    line(&serde_json::to_string(&report)?);
    Ok(())
}
