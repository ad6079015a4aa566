//! `make bench-login`. It fails if a goal is missed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use accounts::Cost;
use anyhow::Context as _;
use bench::balancer::cores::Cores;
use bench::balancer::interrupt;
use bench::login::ground::Ground;
use bench::login::s3::Latency;
use bench::login::worker::Worker;
use bench::login::{guessing, list, overload, protected, race, sign_ins, starting, timing};
use bench::process;
use bench::table::{line, progress};
use clap::{Parser, ValueEnum};

/// Measures the login service: workers as they are deployed, against S3 in memory.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The worker, a release build.
    #[arg(long, value_parser = process::absolute)]
    worker: PathBuf,
    /// The measurement to run [default: all].
    #[arg(long, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Rounds in which sign-ins and hashes alternate.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long the flood lasts.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Delay of S3's answer to a read.
    #[arg(long, default_value_t = 20)]
    read_milliseconds: u64,
    /// Delay of S3's answer to a write.
    #[arg(long, default_value_t = 30)]
    write_milliseconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    SignIns,
    Protected,
    Overload,
    Timing,
    Guessing,
    Race,
    List,
    Start,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    anyhow::ensure!(cli.rounds > 0 && cli.seconds > 1, "at least one round, and more than a second");
    // Before there is a second thread.
    let cores = Cores::split()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let are_met = runtime.block_on(run(&cli, cores))?;
    Ok(if are_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(cli: &Cli, cores: Cores) -> anyhow::Result<bool> {
    let latency = Latency {
        read: Duration::from_millis(cli.read_milliseconds),
        write: Duration::from_millis(cli.write_milliseconds),
    };
    let mut ground = Ground::prepare(&cli.worker, cores.proxy, latency).await?;
    interrupt::watch(ground.dir.path().to_owned())?;
    let tried = Worker::start(&mut ground, &Cost::default()).await;
    drop(tried.with_context(|| format!("nothing was measured: {} cannot be run", cli.worker.display()))?);
    line(&format!(
        "{} cores: workers alone on core {}, S3 and clients on the rest. S3 answers reads after {} ms and writes after {} ms.",
        cores.others + 1,
        cores.proxy,
        cli.read_milliseconds,
        cli.write_milliseconds
    ));
    let parts = if cli.parts.is_empty() { Part::value_variants() } else { &cli.parts };
    let mut are_met = true;
    for part in parts {
        let found = match part {
            Part::SignIns => sign_ins::measure(&mut ground, cli.rounds).await,
            Part::Protected => protected::measure(&mut ground).await,
            Part::Overload => overload::measure(&mut ground, Duration::from_secs(cli.seconds)).await,
            Part::Timing => timing::measure(&mut ground).await,
            Part::Guessing => guessing::measure(&mut ground).await,
            Part::Race => race::measure(&mut ground).await,
            Part::List => list::measure(&mut ground).await,
            Part::Start => starting::measure(&mut ground).await,
        };
        match found {
            Ok(found) => {
                found.show();
                are_met &= found.are_met();
            }
            // The other parts are still measured.
            Err(error) => {
                progress(&format!("{error:#}"));
                line("");
                line(&format!("MISSED: {part:?} could not be measured: {error:#}"));
                are_met = false;
            }
        }
    }
    Ok(are_met)
}
