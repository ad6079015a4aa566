//! `make check`: formatting, lints, documentation, dependencies, structure and prose. Fast checks come first.

use std::process::Command;

use anyhow::Result;

use super::{features, test_only};
use crate::cargo::{cargo, compile, watch};
use crate::failure::run as run_program;
use crate::settings::Settings;
use crate::{cycles, prose, setup, unused};

pub(super) fn run(settings: &Settings) -> Result<()> {
    run_program(cargo().args(["fmt", "--all", "--check"]))?;
    prose::check()?;
    cycles::check()?;
    features::check()?;
    unused::check()?;
    test_only::check()?;
    compile("clippy", &["--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // They are built on demand only, and not among all targets.
    compile(
        "clippy",
        &["--workspace", "--test", "system", "--test", "cloud", "--test", "boot", "--", "-D", "warnings"],
    )?;
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    watch(&doc, 1)?;
    setup::install(settings, setup::CHECK)?;
    let mut deny = Command::new(setup::deny(settings));
    run_program(deny.args(["--locked", "--log-level", "error", "check", "bans", "licenses", "sources"]))
}
