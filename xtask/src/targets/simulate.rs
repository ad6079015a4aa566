//! The simulator.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::build;
use crate::cargo::compile;
use crate::failure::run as run_program;
use crate::mutants;
use crate::settings::Settings;
use crate::workspace::{built, target};

pub(super) fn run(settings: &Settings) -> Result<()> {
    compile("build", &["--profile", "sim", "-p", "sim"])?;
    run_program(Command::new(target().join("sim/sim")).arg("run").args(settings.seed_flags()))
}

/// Simulates seeds that no run had before. The program of `make build` is as fast as that of `make sim`. Five hours have
/// two storms and their calms. A seed that fails becomes a named test: `sim replay SEED --shrink` tells its story.
pub(super) fn fresh(settings: &Settings) -> Result<()> {
    build()?;
    run_program(&mut fresh_once_built(settings)?)
}

pub(super) fn fresh_once_built(settings: &Settings) -> Result<Command> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis().to_string();
    let (seeds, first) = (settings.get_or("SEEDS", "2000"), settings.get_or("FIRST_SEED", &now));
    let mut command = Command::new(built("sim"));
    command.args(["run", "--hours", "5", "--seeds", seeds, "--first-seed", first]);
    Ok(command)
}

pub(super) fn latency(settings: &Settings) -> Result<()> {
    compile("build", &["--profile", "sim", "-p", "sim"])?;
    run_program(Command::new(target().join("sim/sim")).arg("latency").args(settings.seed_flags()))
}

/// Plants bugs in a copy of the pure crates.
pub(super) fn mutants(settings: &Settings) -> Result<()> {
    mutants::planted(settings)
}

pub(super) fn generated_mutants(settings: &Settings) -> Result<()> {
    mutants::generated(settings)
}
