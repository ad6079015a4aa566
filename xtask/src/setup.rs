//! `make setup`: the only place that installs anything. `make local`, `test`, `check` and the benchmarks call it too, each
//! for its own needs.
//!
//! | thing | where | if the installation fails |
//! |---|---|---|
//! | emulators of AWS, cargo-lambda, zig | `VENV` | error |
//! | driver of the browser | `VENV` | error |
//! | second evaluator of IAM policies | `TOOLS/second-judge` | one comparison is not run, and says so |
//! | schemathesis, for `make contract` | `TOOLS/contract` | error |
//! | cargo-deny | `TOOLS/bin` | error |
//! | Debian packages ([`debian`]) | the machine | as the list of packages says |
//!
//! Setup looks at files and times only. If nothing is missing, it takes milliseconds and prints nothing.

mod debian;
mod python;
mod shown;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use self::debian::Package;
pub(crate) use self::debian::find;
use self::python::Environment;
use crate::cargo;
use crate::failure::{USAGE, stop};
use crate::settings::Settings;

const CARGO_DENY: &str = "0.20.2";

/// A thing that can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Emulators,
    BrowserDriver,
    Chromium,
    BootTools,
    SecondJudge,
    CargoDeny,
    Peers,
    Contract,
    BootTest,
    Cmake,
}

pub(crate) const LOCAL: &[Thing] = &[Thing::Emulators];
pub(crate) const TEST: &[Thing] =
    &[Thing::Emulators, Thing::BrowserDriver, Thing::SecondJudge, Thing::Chromium, Thing::BootTools];
pub(crate) const CHECK: &[Thing] = &[Thing::CargoDeny];
pub(crate) const BENCH: &[Thing] = &[Thing::Peers];
pub(crate) const CONTRACT: &[Thing] = &[Thing::Contract];
pub(crate) const BOOT_TEST: &[Thing] = &[Thing::Emulators, Thing::BootTest];
pub(crate) const PINGORA: &[Thing] = &[Thing::Cmake];

/// `make setup`.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let mut things = Vec::new();
    for purpose in settings.get_or("FOR", "local,test,check,bench").split(',') {
        things.extend_from_slice(match purpose {
            "local" => LOCAL,
            "test" => TEST,
            "check" => CHECK,
            "bench" => BENCH,
            "contract" => CONTRACT,
            "boot-test" => BOOT_TEST,
            "pingora" => PINGORA,
            other => return Err(stop(USAGE, format!("setup installs for local, test, check, bench, contract, boot-test or pingora, not for `{other}`"))),
        });
    }
    if things.iter().all(|thing| thing.is_there(settings)) {
        eprintln!("everything is installed");
    }
    install(settings, &things)
}

/// Installs the missing ones of these things. Prints first which they are and how large.
pub(crate) fn install(settings: &Settings, things: &[Thing]) -> Result<()> {
    let mut missing: Vec<Thing> = things.iter().copied().filter(|thing| !thing.is_there(settings)).collect();
    missing.sort_by_key(|thing| things.iter().position(|other| other == thing));
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let needs_python = missing.iter().any(|thing| thing.environment(settings).is_some());
    let mut packages = if needs_python { python::packages()? } else { Vec::new() };
    packages.extend(missing.iter().flat_map(|thing| thing.packages()).filter(Package::is_missing));
    announce(settings, &missing, &packages);
    debian::install(&packages)?;
    missing.retain(|thing| thing.is_no_package(settings));
    for (at, thing) in missing.iter().enumerate() {
        thing.install(settings, &format!("[{} of {}]", at + 1, missing.len()))?;
    }
    Ok(())
}

fn announce(settings: &Settings, missing: &[Thing], packages: &[Package]) {
    eprintln!("missing, to be installed once:");
    for thing in missing {
        if let Some(line) = thing.announcement(settings) {
            eprintln!("  {line}");
        }
    }
    for package in packages {
        eprintln!("  the Debian package {}: {}, {} MB", package.name, package.purpose, package.megabytes);
    }
}

impl Thing {
    fn environment(self, settings: &Settings) -> Option<Environment> {
        let at = |dir: PathBuf, stamp: &str, requirements| Environment {
            stamp: dir.join(stamp),
            dir,
            requirements: Path::new(requirements),
            base: None,
            with_dependencies: false,
        };
        let emulators = at(settings.venv().to_owned(), ".installed", "local-cloud/requirements.txt");
        match self {
            Self::Emulators => Some(emulators),
            Self::BrowserDriver => Some(Environment {
                base: Some(emulators.stamp),
                ..at(settings.venv().to_owned(), ".browser", "system-tests/browser/requirements.txt")
            }),
            Self::SecondJudge => Some(at(
                settings.tools().join("second-judge"),
                ".installed",
                "system-tests/second_judge/requirements.txt",
            )),
            Self::Contract => Some(Environment {
                with_dependencies: true,
                ..at(
                    settings.tools().join("contract"),
                    ".installed",
                    "ec2-worker/tests/contract/requirements.txt",
                )
            }),
            _ => None,
        }
    }

    fn packages(self) -> Vec<Package> {
        match self {
            Self::Chromium => vec![debian::CHROMIUM],
            Self::BootTools => vec![debian::CLOUD_INIT, debian::SYSTEMD],
            Self::Peers => vec![debian::NGINX, debian::HAPROXY],
            Self::BootTest => vec![debian::DEBOOTSTRAP, debian::SYSTEMD_CONTAINER],
            Self::Cmake => vec![debian::CMAKE],
            _ => Vec::new(),
        }
    }

    fn is_there(self, settings: &Settings) -> bool {
        match self.environment(settings) {
            Some(environment) => environment.is_installed(),
            None if self == Self::CargoDeny => deny(settings).exists(),
            None => !self.packages().iter().any(Package::is_missing),
        }
    }

    fn is_no_package(self, settings: &Settings) -> bool {
        self == Self::CargoDeny || self.environment(settings).is_some()
    }

    /// Returns the line that announces an installation: where, what, how large. Sizes were measured on x86-64.
    fn announcement(self, settings: &Settings) -> Option<String> {
        let dir = self
            .environment(settings)
            .map(|environment| environment.dir.display().to_string())
            .unwrap_or_default();
        match self {
            Self::Emulators => Some(format!(
                "{dir}: the emulators of AWS, cargo-lambda and zig from PyPI, 800 MB, about a minute"
            )),
            Self::BrowserDriver => {
                Some(format!("{dir}: Playwright, which drives the browser, from PyPI, 170 MB"))
            }
            Self::SecondJudge => {
                Some(format!("{dir}: a second evaluator of IAM policies from PyPI, 100 MB, some seconds"))
            }
            Self::Contract => Some(format!("{dir}: schemathesis from PyPI, 100 MB, about a minute")),
            Self::CargoDeny => Some(format!(
                "{}: cargo-deny {CARGO_DENY}, compiled here, 10 MB, some minutes",
                deny(settings).display()
            )),
            _ => None,
        }
    }

    fn install(self, settings: &Settings, count: &str) -> Result<()> {
        let Some(environment) = self.environment(settings) else { return install_deny(settings) };
        let what = match self {
            Self::Emulators => "emulators of AWS",
            Self::BrowserDriver => "driver of the browser",
            Self::SecondJudge => "second evaluator",
            _ => "schemathesis",
        };
        let installed = environment.install(&format!("{count} {what}"));
        if self == Self::SecondJudge
            && let Err(error) = installed
        {
            eprintln!(
                "{error:#}\nNOT RUN: the second evaluator cannot be installed; IAM is judged by the local cloud alone"
            );
            return Ok(());
        }
        installed
    }
}

/// Returns the path of cargo-deny.
pub(crate) fn deny(settings: &Settings) -> PathBuf {
    settings.tools().join("bin/cargo-deny")
}

fn install_deny(settings: &Settings) -> Result<()> {
    let root = settings.tools().to_str().context("TOOLS is no UTF-8")?;
    cargo::compile("install", &["--locked", "--version", CARGO_DENY, "--root", root, "cargo-deny"])
}
