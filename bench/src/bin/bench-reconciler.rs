//! `make bench-reconciler`. It fails if a figure misses its goal.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bench::process;
use bench::reconciler::stack::MOST;
use bench::reconciler::{package, planning, tick};
use bench::table::{Figure, line, print, progress};
use clap::Parser;
use fleet::DesiredCount;

/// Measures the reconciler: its plans, and with a built function its ticks and its package.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The built function. Without it, only plans are measured.
    #[arg(long, value_parser = process::absolute)]
    function: Option<PathBuf>,
    /// Numbers of workers.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000, 10_000])]
    sizes: Vec<usize>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Cli { function, sizes } = Cli::parse();
    anyhow::ensure!(sizes.iter().all(|size| (2..=MOST).contains(size)), "from 2 to {MOST} workers");
    if let Some(function) = &function {
        let tried = package::start(function).await;
        tried.with_context(|| format!("nothing was measured: {} cannot be run", function.display()))?;
    }
    let cores = std::thread::available_parallelism()?;
    line(&format!("{cores} cores, shared with the stand-ins for AWS and for the workers."));
    line(&format!(
        "At most {} workers may be desired. The surplus is kept because memory",
        DesiredCount::MAX
    ));
    line("was lost half a minute ago, so a stack of any size can be at rest.");
    progress("plans");
    heading("Plans");
    let (rows, mut figures) = planning::measure(&sizes);
    print(&rows);
    if let Some(function) = function {
        let mut ticks = tick::measure(&function, &sizes).await?;
        heading(&format!("Ticks of {}: medians of 5 after the first", function.display()));
        print(&ticks.costs);
        heading("The same on a share of a core, which Lambda gives by memory");
        print(&ticks.shares);
        progress("cold starts");
        heading("Package");
        print(&package::measure(&function).await?);
        figures.append(&mut ticks.figures);
    }
    line("");
    for Figure { text, is_met } in &figures {
        line(&format!("{} {text}", if *is_met { "met:   " } else { "MISSED:" }));
    }
    let are_met = figures.iter().all(|figure| figure.is_met);
    Ok(if are_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn heading(text: &str) {
    line("");
    line(text);
}
