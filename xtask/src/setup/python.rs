//! Python environments, each with the packages that one file pins.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use super::debian::{self, Package};
use super::shown;
use crate::failure::{PREREQUISITE, stop};

pub(super) struct Environment {
    pub dir: PathBuf,
    /// Touched when everything is installed; older than the requirements, it is installed again.
    pub stamp: PathBuf,
    pub requirements: &'static Path,
    /// The stamp of the environment that this one only adds to.
    pub base: Option<PathBuf>,
    /// The file does not name all packages.
    pub with_dependencies: bool,
}

/// Returns the Debian packages without which Python makes no environment. Fails without Python.
pub(super) fn packages() -> Result<Vec<Package>> {
    if debian::find("python3").is_none() {
        return Err(stop(
            PREREQUISITE,
            "python3 is missing; the emulators of AWS are Python programs.\n  Install Python 3.9 or later (Debian: apt-get install python3 python3-venv) and try again.",
        ));
    }
    let mut python = Command::new("python3");
    python
        .args(["-c", "import ensurepip, venv"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let is_complete = python.status().context("cannot run python3")?.success();
    Ok(if is_complete { Vec::new() } else { vec![debian::PYTHON_VENV] })
}

impl Environment {
    pub(super) fn is_installed(&self) -> bool {
        let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        let is_older = |than: Option<SystemTime>| time(&self.stamp) < than;
        self.stamp.exists()
            && !is_older(time(self.requirements))
            && !self.base.as_deref().is_some_and(|base| is_older(time(base)))
    }

    pub(super) fn install(&self, label: &str) -> Result<()> {
        let _ = fs::remove_file(&self.stamp);
        if self.base.is_none() {
            let mut venv = Command::new("python3");
            venv.args(["-m", "venv", "--clear"]).arg(&self.dir);
            shown::run(venv, |_| Some(format!("{label}: making {}", self.dir.display())))?;
        }
        let text = fs::read_to_string(self.requirements)
            .with_context(|| format!("cannot read {}", self.requirements.display()))?;
        let mut count = Count { label, total: total(&text), seen: 0 };
        let mut pip = Command::new(self.dir.join("bin/pip"));
        pip.args(["install", "--disable-pip-version-check", "--progress-bar", "off"]);
        if !self.with_dependencies {
            pip.arg("--no-deps");
        }
        pip.arg("-r").arg(self.requirements);
        shown::run(pip, |line| count.text(line))?;
        File::create(&self.stamp).with_context(|| format!("cannot write {}", self.stamp.display()))?;
        Ok(())
    }
}

fn total(requirements: &str) -> usize {
    requirements.lines().filter(|line| line.starts_with(|char: char| char.is_ascii_alphanumeric())).count()
}

/// How many packages pip has begun with.
struct Count<'a> {
    label: &'a str,
    total: usize,
    seen: usize,
}

impl Count<'_> {
    fn text(&mut self, line: &str) -> Option<String> {
        let label = self.label;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["Collecting", package, ..] => {
                self.seen += 1;
                // Dependencies that the file does not name come on top.
                let total = self.total.max(self.seen);
                Some(format!("{label}: package {} of {total}, {package}", self.seen))
            }
            ["Installing", ..] => Some(format!("{label}: unpacking {} packages", self.seen)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(dir: &Path, requirements: &'static str) -> Environment {
        Environment {
            dir: dir.to_owned(),
            stamp: dir.join(".installed"),
            requirements: Path::new(requirements),
            base: None,
            with_dependencies: false,
        }
    }

    #[test]
    fn a_stamp_older_than_its_requirements_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut environment = environment(dir.path(), "Cargo.toml");
        assert!(!environment.is_installed());
        let stamp = File::create(&environment.stamp).expect("a stamp");
        assert!(environment.is_installed());
        stamp.set_modified(SystemTime::UNIX_EPOCH).expect("its time");
        assert!(!environment.is_installed());
        stamp.set_modified(SystemTime::now()).expect("its time");
        let base = dir.path().join("base");
        File::create(&base)
            .expect("a stamp")
            .set_modified(SystemTime::now() + std::time::Duration::from_secs(9))
            .expect("its time");
        environment.base = Some(base);
        assert!(!environment.is_installed());
    }

    #[test]
    fn progress_counts_the_pinned_packages() {
        let mut count =
            Count { label: "emulators", total: total("# x\nboto3==1\nmoto==2\n    # via moto\n"), seen: 0 };
        assert_eq!(
            count.text("Collecting boto3==1 (from -r x)").as_deref(),
            Some("emulators: package 1 of 2, boto3==1")
        );
        assert_eq!(count.text("  Using cached boto3.whl"), None);
    }
}
