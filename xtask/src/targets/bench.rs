//! The benchmarks. Each fails when a goal is missed; `bench/src` says which.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::build;
use crate::cargo::compile;
use crate::failure::{Failure, run};
use crate::settings::Settings;
use crate::setup;
use crate::workspace::{built, target};

type Benchmark = fn(&Settings) -> Result<()>;

/// `make bench`: runs all benchmarks, even if one fails.
pub(super) fn all(settings: &Settings) -> Result<()> {
    let each: [(&str, Benchmark); 5] = [
        ("bench-lb", compare),
        ("bench-kill", kill),
        ("bench-slow", slow),
        ("bench-reconciler", reconciler),
        ("bench-login", login),
    ];
    let mut result = Ok(());
    for (name, benchmark) in each {
        if let Err(error) = benchmark(settings) {
            eprintln!("error: {name}: {error:#}");
            result = Err(Failure::Said(1).into());
        }
    }
    result
}

/// Plans, ticks and package. Without `FUNCTION`, ticks and package are those of the dev profile, whose AWS SDK is not
/// optimised. A release build of it takes a quarter of an hour and 8 GB: `cargo build --release -p reconciler`.
pub(super) fn reconciler(settings: &Settings) -> Result<()> {
    build()?;
    compile("build", &["--profile", "sim", "--package", "bench"])?;
    let function = settings.get("FUNCTION").map_or_else(|| built("reconciler"), PathBuf::from);
    // Each of its workers is a socket.
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -n hard; exec \"$0\" \"$@\""]).arg(target().join("sim/bench-reconciler"));
    run(command.arg("--function").arg(function))
}

/// The login service. `PARTS` empty: all; `ROUNDS` of sign-ins and hashes, `SECONDS` of the flood.
pub(super) fn login(settings: &Settings) -> Result<()> {
    if !settings.is_given("WORKER") {
        compile("build", &["--release", "--package", "ec2-worker"])?;
    }
    compile("build", &["--release", "--package", "bench"])?;
    let worker = settings.get("WORKER").map_or_else(|| release("ec2-worker"), PathBuf::from);
    let mut command = Command::new(release("bench-login"));
    command.arg("--worker").arg(worker);
    given(&mut command, settings, &[("PARTS", "--parts"), ROUNDS, SECONDS]);
    run(&mut command)
}

/// The load balancer against its peers, each alone on a core.
pub(super) fn compare(settings: &Settings) -> Result<()> {
    balancer(settings, "compare", settings.get("PEERS"), &[ROUNDS, SECONDS], &["--out", settings.bench_out()])
}

pub(super) fn kill(settings: &Settings) -> Result<()> {
    balancer(settings, "kill", settings.get("PEERS"), &[ROUNDS], &[])
}

pub(super) fn slow(settings: &Settings) -> Result<()> {
    balancer(settings, "slow", Some(settings.get_or("PEERS", "ours")), &[ROUNDS, SECONDS], &[])
}

pub(super) fn soak(settings: &Settings) -> Result<()> {
    balancer(settings, "soak", settings.get("PEERS"), &[("MINUTES", "--minutes")], &[])
}

/// Builds Pingora as a peer, in a workspace of its own.
pub(super) fn pingora(settings: &Settings) -> Result<()> {
    setup::install(settings, setup::PINGORA)?;
    let dir = target().join("pingora");
    let manifest = ["--manifest-path", "bench/pingora/Cargo.toml", "--target-dir", &dir.to_string_lossy()]
        .map(str::to_owned);
    let arguments: Vec<&str> =
        ["--release", "--locked"].into_iter().chain(manifest.iter().map(String::as_str)).collect();
    compile("build", &arguments)
}

const ROUNDS: (&str, &str) = ("ROUNDS", "--rounds");
const SECONDS: (&str, &str) = ("SECONDS", "--seconds");

fn balancer(
    settings: &Settings,
    command: &str,
    peers: Option<&str>,
    optional: &[(&str, &str)],
    more: &[&str],
) -> Result<()> {
    setup::install(settings, setup::BENCH)?;
    if !settings.is_given("LB") {
        compile("build", &["--release", "--package", "ec2-lb"])?;
    }
    compile("build", &["--release", "--package", "bench"])?;
    let ours = settings.get("LB").map_or_else(|| release("ec2-lb"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]))?;
    let mut program = Command::new(release("bench-balancer"));
    program.env("PATH", path).arg(command).arg("--ours").arg(ours);
    program.arg("--pingora").arg(target().join("pingora/release/pingora-peer"));
    if let Some(peers) = peers {
        program.args(["--peers", peers]);
    }
    given(&mut program, settings, optional);
    run(program.args(more))
}

fn release(program: &str) -> PathBuf {
    target().join("release").join(program)
}

fn given(command: &mut Command, settings: &Settings, optional: &[(&str, &str)]) {
    for (name, flag) in optional {
        if let Some(value) = settings.get(name) {
            command.args([flag, value]);
        }
    }
}
