//! A worker for benchmarks that answers every request.

use std::net::SocketAddr;
use std::time::Duration;

use bench::backend::serve;
use clap::Parser;

/// Answers any GET with 128 bytes, `/64k` and `/1m` with as many, and any POST with 128 bytes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[arg(long)]
    listen: SocketAddr,
    /// Delay before each answer, except `/healthcheck`.
    #[arg(long, default_value_t = 0)]
    pause_milliseconds: u64,
}

fn main() -> anyhow::Result<()> {
    let Cli { listen, pause_milliseconds } = Cli::parse();
    match serve(listen, Duration::from_millis(pause_milliseconds))? {}
}
