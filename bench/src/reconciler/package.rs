//! The size of the uploaded package, and how long it takes to start.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;

use super::cloud::Cloud;
use super::function::Function;
use super::stack::Stack;
use crate::process;
use crate::table::{median, milliseconds, thousands};

const STARTS: usize = 10;

/// Makes the zip that Lambda accepts: one file of this name, deflated.
const ZIP: &str = "import sys, zipfile
with zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_DEFLATED) as package:
    package.write(sys.argv[1], 'bootstrap')";

pub async fn measure(program: &Path) -> anyhow::Result<Vec<Vec<String>>> {
    let cloud = small()?;
    let mut starts = Vec::new();
    let (mut resident, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let function = Function::start(program, &cloud).await?;
        starts.push(function.cold_start);
        resident.push(process::resident_kib(function.pid()?, "VmRSS")?);
        cpu.push(process::cpu(function.pid()?)?);
        function.stop().await?;
    }
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    Ok(vec![
        row("program, bytes", thousands(usize::try_from(std::fs::metadata(program)?.len())?)),
        row("zip, bytes", thousands(zip_size(program)?)),
        row(
            "cold start (process start to first request for an invocation), ms, median of 10",
            milliseconds(median(&starts).unwrap_or_default()),
        ),
        row("  slowest of them, ms", milliseconds(starts.iter().max().copied().unwrap_or_default())),
        row("  CPU, ms, median", milliseconds(median(&cpu).unwrap_or_default())),
        row("resident after it, MiB, median", (median(&resident).unwrap_or(0) / 1024).to_string()),
    ])
}

/// Starts it, and ends it.
pub async fn start(program: &Path) -> anyhow::Result<()> {
    Function::start(program, &small()?).await?.stop().await
}

fn small() -> anyhow::Result<Cloud> {
    Cloud::new(&Stack::new(3, Timestamp::now()))
}

fn zip_size(program: &Path) -> anyhow::Result<usize> {
    let directory = tempfile::tempdir()?;
    let zip = directory.path().join("function.zip");
    let status =
        Command::new("python3").args(["-c", ZIP]).arg(program).arg(&zip).status().context("python3")?;
    ensure!(status.success(), "the program could not be packed");
    Ok(usize::try_from(std::fs::metadata(zip)?.len())?)
}
