//! A systemd-nspawn machine: boots a root directory, with a NoCloud seed as its only difference from others.
//!
//! It shares the network of this machine, so it listens on loopback addresses that only the test knows.
//! Everything that it writes is removed with it, except its journal and its console.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::limits::{Groups, Limits, Memory};
use crate::support::{say, text};
use crate::wait;

/// From the start of an instance to its init.
const INIT_DEADLINE: Duration = Duration::from_secs(30);

/// The unit's own limit is 30 s; the rest is for the machine.
const POWER_OFF_DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Machine {
    nspawn: Child,
    /// Its process 1, by its id on this machine.
    init: u32,
    dir: tempfile::TempDir,
    name: String,
    /// Dropped after the processes in them.
    _groups: Option<Groups>,
}

/// The settings of one machine.
pub(crate) struct Seed<'a> {
    pub(crate) instance: &'a str,
    pub(crate) user_data: &'a str,
    /// Environment of all units: on AWS the defaults suffice, here AWS has another address.
    pub(crate) environment: Vec<(&'a str, String)>,
}

impl Machine {
    /// As large as this machine, unless there are limits.
    pub(crate) fn boot(root: &Path, seed: &Seed<'_>, limits: Option<Limits>) -> Self {
        let dir = tempfile::Builder::new().prefix("vigia-boot-").tempdir().expect("a temporary directory");
        let at = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).expect("writable");
            path
        };
        let (nocloud, journal, conf) = (at("nocloud"), at("journal"), at("system.conf.d"));
        let write = |file: PathBuf, content: &str| std::fs::write(file, content).expect("writable");
        write(nocloud.join("user-data"), seed.user_data);
        write(nocloud.join("meta-data"), &format!("instance-id: {}\n", seed.instance));
        let environment: Vec<String> =
            seed.environment.iter().map(|(key, value)| format!("\"{key}={value}\"")).collect();
        let environment = format!("[Manager]\nDefaultEnvironment={}\n", environment.join(" "));
        write(conf.join("environment.conf"), &environment);

        let name = format!("vigia-boot-{}-{}", std::process::id(), seed.instance);
        let console = File::create(dir.path().join("console")).expect("writable");
        let (mut nspawn, groups) = match limits {
            Some(limits) => {
                let (command, groups) = limits.command(&name);
                (command, Some(groups))
            }
            None => (Command::new("systemd-nspawn"), None),
        };
        nspawn.args(["--quiet", "--boot", "--volatile=overlay", "--register=no", "--link-journal=no"]);
        nspawn.args(["--console=read-only", "--machine", &name, "--directory"]).arg(root);
        nspawn.arg(bind("--bind-ro", &nocloud, "/var/lib/cloud/seed/nocloud"));
        nspawn.arg(bind("--bind-ro", &conf, "/etc/systemd/system.conf.d"));
        nspawn.arg(bind("--bind", &journal, "/var/log/journal"));
        // Without systemd no manager can be asked for a scope.
        if !Path::new("/run/systemd/system").exists() {
            nspawn.arg("--keep-unit");
        }
        // Ctrl-C is for the test, which ends the machine in order.
        nspawn.process_group(0).stdin(Stdio::null());
        nspawn.stdout(console.try_clone().expect("a descriptor")).stderr(console);
        let nspawn = nspawn.spawn().expect("systemd-nspawn runs");
        let mut machine = Self { nspawn, init: 0, dir, name, _groups: groups };
        let nspawn = machine.nspawn.id();
        let found = wait::until("the machine has an init", INIT_DEADLINE, || {
            child_of(nspawn, "systemd").ok_or_else(|| machine.console())
        });
        machine.init = found.0;
        machine
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::of(self.init)
    }

    pub(crate) fn console(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Runs a command in the machine; it must succeed.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let output = Command::new("nsenter")
            .args(["--all", "--target", &self.init.to_string(), "--"])
            .args(command)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/bin")
            .output()
            .expect("nsenter runs");
        assert!(output.status.success(), "{command:?} in the machine: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", property, unit])
    }

    /// Returns the main process of a unit, by its id in the machine; `None` if it does not run.
    pub(crate) fn main_process(&self, unit: &str) -> Option<u32> {
        self.property(unit, "MainPID").parse().ok().filter(|pid| *pid != 0)
    }

    /// Presses the power button. Returns without waiting.
    pub(crate) fn press_power_button(&self) {
        self.run(&["systemctl", "poweroff", "--no-block"]);
    }

    /// Waits until it is off.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let nspawn = &mut self.nspawn;
        let look =
            || nspawn.try_wait().expect("a child process of this test").ok_or_else(|| "it runs".to_owned());
        wait::until("the machine is off", POWER_OFF_DEADLINE, look).0
    }

    /// Returns the log of systemd and the program, whether the machine runs or not.
    pub(crate) fn journal(&self) -> String {
        let output = Command::new("journalctl")
            .args(["--no-pager", "--quiet", "--output=short-precise", "--directory"])
            .arg(self.dir.path().join("journal"))
            .output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && !wait::is_interrupted() {
            for line in self.journal().lines() {
                say(&format!("{}: {line}", self.name));
            }
        }
        if !matches!(self.nspawn.try_wait(), Ok(Some(_))) {
            // Its process 1 first, and the whole machine with it: it would outlive systemd-nspawn.
            for child in children_of(self.nspawn.id()) {
                Command::new("sh").args(["-c", "kill -9 \"$1\"", "sh", &child.to_string()]).status().ok();
            }
            self.nspawn.kill().ok();
            self.nspawn.wait().ok();
        }
    }
}

fn bind(option: &str, from: &Path, to: &str) -> String {
    format!("{option}={}:{to}", from.display())
}

/// Returns a child of a process, by the name of its program.
fn child_of(parent: u32, name: &str) -> Option<u32> {
    let is_it = |id: &u32| {
        let comm = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        comm.trim() == name
    };
    children_of(parent).into_iter().find(is_it)
}

fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = format!("PPid:\t{parent}");
    ids.filter(|id| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        status.lines().any(|line| line == parent)
    })
    .collect()
}
