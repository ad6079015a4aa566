//! The test suites. [`SHORT`] and [`FULL`] are the only lists of their steps.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::lanes::{self, Lane};
use super::steps::{self, Step};
use super::{build, local, simulate};
use crate::cargo::{cargo, compile};
use crate::failure::{PREREQUISITE, become_program, run, stop};
use crate::settings::Settings;
use crate::setup;

const SHORT: &[Step] = &[
    ("setup", |settings| setup::install(settings, setup::TEST)),
    ("build of programs", |_| build()),
    ("build of tests", |_| compile("test", &["--workspace", "--no-run"])),
    ("build of tests that wait", |_| {
        compile("test", &["--workspace", "--no-run", "--test", "system", "--test", "cloud"])
    }),
    ("tests", all),
];

/// What `make test-full` has in addition.
const FULL: &[Step] = &[
    ("forged cookies", |_| {
        run(cargo().args(["test", "--workspace", "--lib", "--", "--ignored", "a_million_forgeries"]))
    }),
    ("model", |_| {
        run(cargo().args(["test", "--workspace", "--test", "model", "--", "--ignored", "from_every_start"]))
    }),
    ("attacks", attacks),
    ("consistency", consistency),
    ("sim", simulate::run),
    ("sim-mutants", simulate::mutants),
    ("cuts", cuts),
];

/// `make test`.
pub(super) fn short(settings: &Settings) -> Result<()> {
    steps::run(settings, SHORT)
}

/// `make test-full`: hours.
pub(super) fn full(settings: &Settings) -> Result<()> {
    steps::run(settings, &[SHORT, FULL].concat())
}

/// All tests, in three series at the same time. Tests of the whole system and of the local cloud mostly wait, so more of
/// them run at a time than there are cores. The others, many of which hash passwords, get the processor time that these
/// two leave.
fn all(settings: &Settings) -> Result<()> {
    let waiting = |name: &'static str, threads: &str| {
        let mut command = cargo();
        command.args(["test", "--workspace", "--test", name]);
        if std::env::var_os("RUST_TEST_THREADS").is_none_or(|given| given.is_empty()) {
            command.env("RUST_TEST_THREADS", threads);
        }
        Lane { name, commands: vec![command] }
    };
    let mut others = Command::new("nice");
    others.args(["-n", "5", "cargo", "test", "--workspace", "--no-fail-fast"]);
    let others = Lane { name: "others", commands: vec![others, simulate::fresh_once_built(settings)?] };
    lanes::run(vec![waiting("system", "8"), waiting("cloud", "6"), others])
}

/// Returns a call of the system tests with these arguments of the test program.
fn system_tests(settings: &Settings, arguments: &[&str]) -> Result<Command> {
    setup::install(settings, setup::LOCAL)?;
    build()?;
    compile("test", &["--workspace", "--no-run", "--test", "system"])?;
    let mut command = cargo();
    command.args(["test", "--workspace", "--quiet", "--test", "system", "--"]).args(arguments);
    Ok(command)
}

/// `make attacks`: on release builds, as on AWS.
pub(super) fn attacks(settings: &Settings) -> Result<()> {
    compile("build", &["--release", "--package", "ec2-lb", "--package", "ec2-worker"])?;
    let mut command = system_tests(settings, &["--ignored", "--nocapture", "--test-threads=1", "attacks::"])?;
    run(command.env("VIGIA_OPTIMISED", "1"))
}

/// `make cuts`: each cut point in a stack of its own, three at a time. The last line says how many were tried.
pub(super) fn cuts(settings: &Settings) -> Result<()> {
    let mut command = system_tests(settings, &["--ignored", "cuts::", "--nocapture", "--test-threads=1"])?;
    command
        .env("VIGIA_CUTS_FROM", settings.get_or("FROM", ""))
        .env("VIGIA_CUTS_TO", settings.get_or("TO", ""));
    with_report(command, "VIGIA_CUTS_REPORT")
}

/// `make consistency`: the last line says how many deployments failed, and how many answers of AWS's first seconds one met.
pub(super) fn consistency(settings: &Settings) -> Result<()> {
    let mut command = system_tests(settings, &["consistency::", "--nocapture"])?;
    command.env("VIGIA_CONSISTENCY_SEEDS", settings.get_or("SEEDS", "20"));
    command.env("VIGIA_CONSISTENCY_FIRST_SEED", settings.get_or("FIRST_SEED", ""));
    with_report(command, "VIGIA_CONSISTENCY_REPORT")
}

/// Runs tests with their output on standard error, and prints the report that they write.
fn with_report(mut command: Command, variable: &str) -> Result<()> {
    let report = std::env::temp_dir().join(format!("vigia-report-{}", std::process::id()));
    std::fs::write(&report, "").with_context(|| format!("cannot write {}", report.display()))?;
    let result = run(command.env(variable, &report).stdout(Stdio::from(std::io::stderr())));
    let text = std::fs::read_to_string(&report);
    let _ = std::fs::remove_file(&report);
    print!("{}", text.with_context(|| format!("cannot read {}", report.display()))?);
    result
}

/// `make contract`: the running local stack against its own `/openapi.json`.
pub(super) fn contract(settings: &Settings) -> Result<()> {
    setup::install(settings, setup::CONTRACT)?;
    build()?;
    let url = local::printed(settings, "url")?;
    let program = std::path::absolute(settings.tools().join("contract/bin/schemathesis"))
        .context("TOOLS is no path")?;
    let mut command = Command::new(program);
    command
        .current_dir("ec2-worker/tests/contract")
        .env("VIGIA_URL", &url)
        .env("VIGIA_TOKEN", local::printed(settings, "token")?)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["--config-file", "schemathesis.toml", "run", &format!("{url}/openapi.json"), "--workers", "1"])
        .args(["--max-examples", settings.get_or("CASES", "50")]);
    if let Some(seed) = settings.get("SEED") {
        command.args(["--seed", seed]);
    }
    become_program(&mut command)
}

/// `make boot-test`: no part of `make test`, because it needs root, 700 MB and a kernel with overlayfs. The root is made
/// once, in four minutes.
pub(super) fn boot(settings: &Settings) -> Result<()> {
    let is_root = crate::failure::output_of(Command::new("id").arg("-u"))?.trim() == "0";
    if !is_root {
        return Err(stop(
            PREREQUISITE,
            "a machine can be booted by root only; run `make boot-test` as root.",
        ));
    }
    setup::install(settings, setup::BOOT_TEST)?;
    build()?;
    let root: PathBuf = std::path::absolute(settings.boot_root()).context("BOOT_ROOT is no path")?;
    let mut make_root = Command::new("system-tests/tests/boot/make-root.sh");
    run(make_root.arg(&root).arg(settings.venv().join("bin/pip")).arg("local-cloud/requirements.txt"))?;
    compile("test", &["--workspace", "--no-run", "--test", "boot"])?;
    run(cargo().env("VIGIA_BOOT_ROOT", &root).args(["test", "--workspace", "--quiet", "--test", "boot"]))
}
