//! Maps the names of targets to functions.

mod artifacts;
mod bench;
mod check;
mod features;
mod flags;
mod lanes;
mod local;
mod simulate;
mod stack;
mod steps;
mod test_only;
mod tests;

use anyhow::Result;

use crate::cargo::compile;
use crate::failure::{USAGE, stop};
use crate::settings::Settings;
use crate::setup::{self, Thing};
use crate::{cycles, prose, unused};

type Target = fn(&Settings) -> Result<()>;

const TARGETS: &[(&str, Target)] = &[
    // Installations and builds.
    ("setup", setup::run),
    ("venv", |settings| setup::install(settings, setup::LOCAL)),
    ("browser", |settings| {
        setup::install(settings, &[Thing::Emulators, Thing::BrowserDriver, Thing::Chromium])
    }),
    ("boot-tools", |settings| setup::install(settings, &[Thing::BootTools])),
    ("second-judge", |settings| setup::install(settings, &[Thing::SecondJudge])),
    ("build", |_| build()),
    ("release-artifacts", artifacts::build),
    // The system on this machine.
    ("local", local::start),
    ("local-url", |settings| local::bootstrap(settings, "url")),
    ("local-token", |settings| local::bootstrap(settings, "token")),
    ("local-status", |settings| local::bootstrap(settings, "status")),
    ("local-kill", local::kill),
    // The system on AWS.
    ("deploy", stack::deploy),
    ("plan", stack::plan),
    ("status", |settings| stack::call(settings, &["status"], &[("WATCH", "--watch")])),
    ("logs", stack::logs),
    ("doctor", stack::doctor),
    ("iam-policy", stack::iam_policy),
    ("completions", stack::completions),
    ("man", stack::man),
    ("scale", |settings| stack::call(settings, &["scale", settings.get_or("N", "")], &[])),
    ("url", |settings| stack::call(settings, &["url"], &[])),
    ("token", |settings| stack::call(settings, &["token"], &[("ROTATE", "rotate")])),
    ("rotate-session-keys", |settings| stack::call(settings, &["rotate-session-keys"], &[("NOW", "--now")])),
    ("migrate-profile", |settings| {
        stack::call(
            settings,
            &["migrate-profile"],
            &[("SKIP_UNUSABLE", "--skip-unusable"), ("DRY_RUN", "--dry-run")],
        )
    }),
    ("destroy", |settings| stack::call(settings, &["destroy"], &[("YES", "--yes")])),
    ("aws-acceptance", stack::acceptance),
    // Tests.
    ("test", tests::short),
    ("test-full", tests::full),
    ("attacks", tests::attacks),
    ("cuts", tests::cuts),
    ("consistency", tests::consistency),
    ("contract", tests::contract),
    ("boot-test", tests::boot),
    ("sim", simulate::run),
    ("sim-fresh", simulate::fresh),
    ("sim-latency", simulate::latency),
    ("sim-mutants", simulate::mutants),
    ("mutants", simulate::generated_mutants),
    // Checks.
    ("check", check::run),
    ("one-sdk", |_| features::check()),
    ("prose", |settings| prose::run(settings.has_option("--write"))),
    ("unused", |_| unused::check()),
    ("cycles", |settings| cycles::run(settings.has_option("--write"))),
    // Benchmarks.
    ("bench", bench::all),
    ("bench-reconciler", bench::reconciler),
    ("bench-login", bench::login),
    ("bench-lb", bench::compare),
    ("bench-kill", bench::kill),
    ("bench-slow", bench::slow),
    ("bench-soak", bench::soak),
    ("bench-pingora", bench::pingora),
];

/// Runs a target.
pub fn run(name: &str, settings: &Settings) -> Result<()> {
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, target)) => target(settings),
        None => Err(stop(USAGE, format!("there is no target `{name}`\n  {}", usage()))),
    }
}

/// Returns how xtask is called.
pub fn usage() -> String {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    format!("usage: xtask TARGET [NAME=value]..., with one of {}", names.join(", "))
}

/// Builds all programs: one command for everything, so that features, and with them the AWS SDK, are compiled once.
fn build() -> Result<()> {
    compile("build", &["--workspace", "--bins"])
}

#[cfg(test)]
mod table {
    use super::*;

    /// The Makefile calls xtask with the target's own name, except for the targets that must work without xtask.
    #[test]
    fn the_makefile_names_every_target() {
        const WITHOUT: [&str; 4] = ["help", "local-down", "local-reset", "fmt"];
        let makefile = include_str!("../../Makefile");
        let named: Vec<&str> = makefile
            .lines()
            .filter_map(|line| line.split_once(':').filter(|(_, rest)| rest.contains("## ")))
            .map(|(name, _)| name)
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
            .filter(|name| !WITHOUT.contains(name))
            .collect();
        assert!(named.len() > 40, "{named:?}");
        for name in named {
            assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
        }
        for (name, _) in TARGETS {
            assert!(makefile.lines().any(|line| line.starts_with(&format!("{name}:"))), "{name}");
        }
    }
}
