//! Debian packages, installed only by root, and only after asking on a terminal or with `CI=true`.
//!
//! If an optional package is missing, a message says which part is left out. No service is started: Debian asks
//! `policy-rc.d` first, and the answer here is no.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::shown;
use crate::failure::{PREREQUISITE, output_of, stop};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub name: &'static str,
    /// The program that shows whether it is there.
    program: &'static str,
    /// Packages that it needs here and does not depend on.
    with: &'static [&'static str],
    pub megabytes: u32,
    pub purpose: &'static str,
    without: Without,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Fails,
    /// The message; the target goes on without the package.
    LeavesOut(&'static str),
}

const PLAIN: Package =
    Package { name: "", program: "", with: &[], megabytes: 1, purpose: "", without: Without::Fails };

pub(super) const PYTHON_VENV: Package =
    Package { name: "python3-venv", purpose: "makes Python environments", ..PLAIN };
pub(super) const CHROMIUM: Package = Package {
    name: "chromium",
    program: "chromium",
    with: &["fonts-dejavu-core"],
    megabytes: 350,
    purpose: "the pages are tested in it",
    without: Without::LeavesOut("warning: chromium is missing; the pages are not tried in a browser"),
};
pub(super) const CLOUD_INIT: Package = Package {
    name: "cloud-init",
    program: "cloud-init",
    megabytes: 3,
    purpose: "checks user data",
    without: Without::LeavesOut("NOT RUN: cloud-init is missing; the user data is not held against it"),
    ..PLAIN
};
pub(super) const SYSTEMD: Package = Package {
    name: "systemd",
    program: "systemd-analyze",
    megabytes: 10,
    purpose: "checks units",
    without: Without::LeavesOut("NOT RUN: systemd is missing; the units are not held against it"),
    ..PLAIN
};
pub(super) const NGINX: Package = Package {
    name: "nginx",
    program: "nginx",
    megabytes: 2,
    purpose: "a peer in the benchmarks",
    without: Without::LeavesOut("nginx is missing; the benchmarks leave it out"),
    ..PLAIN
};
pub(super) const HAPROXY: Package = Package {
    name: "haproxy",
    program: "haproxy",
    megabytes: 4,
    purpose: "a peer in the benchmarks",
    without: Without::LeavesOut("haproxy is missing; the benchmarks leave it out"),
    ..PLAIN
};
pub(super) const DEBOOTSTRAP: Package =
    Package { name: "debootstrap", program: "debootstrap", purpose: "makes the root of boot-test", ..PLAIN };
pub(super) const SYSTEMD_CONTAINER: Package = Package {
    name: "systemd-container",
    program: "systemd-nspawn",
    purpose: "boots the root of boot-test",
    ..PLAIN
};
pub(super) const CMAKE: Package =
    Package { name: "cmake", program: "cmake", megabytes: 30, purpose: "builds Pingora", ..PLAIN };

impl Package {
    pub(super) fn is_missing(&self) -> bool {
        find(self.program).is_none()
    }
}

/// Finds a program in the search path and in Debian's directories for the administrator.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    dirs.map(|dir| dir.join(program)).find(is_program)
}

/// How to handle missing packages.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Install,
    Ask,
    /// Print the command to run, and why it does not run here.
    Tell(&'static str),
}

fn way(is_debian: bool, is_root: bool, is_ci: bool, is_terminal: bool) -> Way {
    match (is_debian, is_root, is_ci, is_terminal) {
        (false, ..) => Way::Tell("this is no Debian"),
        (_, false, ..) => Way::Tell("only root can install packages"),
        (.., true, _) => Way::Install,
        (.., true) => Way::Ask,
        _ => Way::Tell("packages are installed only after asking on a terminal, or with CI=true"),
    }
}

/// Installs packages, or prints the command that does. Fails if a required package is missing afterwards.
pub(super) fn install(packages: &[Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages
        .iter()
        .flat_map(|package| [package.name].into_iter().chain(package.with.iter().copied()))
        .collect();
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let is_debian = find("apt-get").is_some();
    let is_root = is_debian && output_of(Command::new("id").arg("-u"))?.trim() == "0";
    let is_wanted = match way(is_debian, is_root, is_ci, is_terminal) {
        Way::Install => true,
        Way::Ask => ask(&names)?,
        Way::Tell(why) => {
            let sudo = if is_root { "" } else { "sudo " };
            eprintln!("not installed, because {why}. On Debian this command installs them:");
            eprintln!("  {sudo}apt-get install --no-install-recommends {}", names.join(" "));
            if names.contains(&"cloud-init") {
                eprintln!(
                    "  (before it: {sudo}mkdir -p /etc/cloud && {sudo}touch /etc/cloud/cloud-init.disabled, or it runs at the next boot)"
                );
            }
            false
        }
    };
    if is_wanted {
        apt(packages)?;
    }
    let missing =
        |package: &&Package| if package.program.is_empty() { !is_wanted } else { package.is_missing() };
    for package in packages.iter().filter(missing) {
        match package.without {
            Without::LeavesOut(said) => eprintln!("{said}"),
            Without::Fails => {
                return Err(stop(
                    PREREQUISITE,
                    format!(
                        "the package {} is missing; it {}.\n  Install it (Debian: apt-get install {}) and try again.",
                        package.name, package.purpose, package.name
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn ask(names: &[&str]) -> Result<bool> {
    eprint!("Install the Debian packages {} with apt-get now? [y/N] ", names.join(", "));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn apt(packages: &[Package]) -> Result<()> {
    if packages.contains(&CLOUD_INIT) {
        // It would run at this machine's next boot, and take a cloud server for a new one.
        fs::create_dir_all("/etc/cloud").context("cannot make /etc/cloud")?;
        fs::File::create("/etc/cloud/cloud-init.disabled").context("cannot switch cloud-init off")?;
    }
    let _guard = NoServices::set()?;
    // An old list of packages names files that are gone; without a network, the old list may do.
    if let Err(error) = shown::run(apt_get(&["update"]), |line| Some(format!("apt-get update: {line}"))) {
        eprintln!("warning: {error:#}");
    }
    // One by one: a package that fails must not stop the others.
    for package in packages {
        let arguments = [&["install", "-y", "--no-install-recommends", package.name], package.with].concat();
        if let Err(error) = shown::run(apt_get(&arguments), |line| Some(format!("{}: {line}", package.name)))
        {
            eprintln!("warning: {error:#}");
        }
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Forbids starting services, until it is dropped.
struct NoServices(Option<&'static Path>);

impl NoServices {
    fn set() -> Result<Self> {
        let path = Path::new("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self(None));
        }
        let write = || -> std::io::Result<()> {
            fs::write(path, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(Some(path)))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_need_root_and_an_answer_or_ci() {
        assert_eq!(way(true, true, true, false), Way::Install);
        assert_eq!(way(true, true, true, true), Way::Install);
        assert_eq!(way(true, true, false, true), Way::Ask);
        for (is_debian, is_root, is_ci, is_terminal) in
            [(false, true, true, true), (true, false, true, true), (true, true, false, false)]
        {
            assert!(matches!(way(is_debian, is_root, is_ci, is_terminal), Way::Tell(_)));
        }
    }

    #[test]
    fn a_program_is_found_in_the_search_path() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program").is_none());
    }
}
