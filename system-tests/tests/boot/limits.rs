//! The limits of a small machine: a share of a core and an amount of memory, enforced by this machine's
//! kernel.
//!
//! With systemd on this machine they are properties of the machine's scope; without it, a control group of
//! the test holds the machine. A machine's use is read where the kernel counts it: in the group of its
//! process 1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1024 * 1024;
const PERIOD_MICROS: u64 = 100_000;

#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) percent_of_a_core: u64,
    pub(crate) memory_mib: u64,
}

/// Control groups that hold a machine; they are removed with it.
pub(crate) struct Groups(Vec<PathBuf>);

impl Limits {
    /// Returns `systemd-nspawn` under these limits, still without arguments.
    pub(crate) fn command(self, name: &str) -> (Command, Groups) {
        if Path::new("/run/systemd/system").exists() {
            let mut nspawn = Command::new("systemd-nspawn");
            nspawn.arg(format!("--property=CPUQuota={}%", self.percent_of_a_core));
            nspawn.arg(format!("--property=MemoryMax={}M", self.memory_mib));
            nspawn.arg("--property=MemorySwapMax=0");
            return (nspawn, Groups(Vec::new()));
        }
        let quota = self.percent_of_a_core * PERIOD_MICROS / 100;
        let memory = self.memory_mib * MIB;
        let groups: Vec<PathBuf> = match hierarchy("cgroup2", "") {
            Some(root) if has(&root, "cpu") && has(&root, "memory") => vec![made(
                &root,
                name,
                &[("cpu.max", format!("{quota} {PERIOD_MICROS}")), ("memory.max", memory.to_string())],
            )],
            _ => {
                let root = |controller| {
                    hierarchy("cgroup", controller)
                        .unwrap_or_else(|| panic!("no control groups for {controller}"))
                };
                vec![
                    made(&root("cpu"), name, &[("cpu.cfs_quota_us", quota.to_string())]),
                    made(&root("memory"), name, &[("memory.limit_in_bytes", memory.to_string())]),
                ]
            }
        };
        let mut shell = Command::new("sh");
        shell.args(["-c", "while [ \"$1\" != -- ]; do echo $$ >\"$1/cgroup.procs\" || exit; shift; done; shift; exec \"$@\"", "sh"]);
        shell.args(&groups).args(["--", "systemd-nspawn"]);
        (shell, Groups(groups))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in &self.0 {
            remove(group);
        }
    }
}

/// A machine's own systemd may have made groups inside.
fn remove(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    std::fs::remove_dir(group).ok();
}

fn made(root: &Path, name: &str, settings: &[(&str, String)]) -> PathBuf {
    let group = root.join(name);
    std::fs::create_dir(&group).unwrap_or_else(|error| panic!("{}: {error}", group.display()));
    for (file, value) in settings {
        std::fs::write(group.join(file), value).unwrap_or_else(|error| panic!("{file}={value}: {error}"));
    }
    group
}

fn has(root: &Path, controller: &str) -> bool {
    let enabled = std::fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_whitespace().any(|name| name == controller)
}

/// Returns where a hierarchy is mounted.
fn hierarchy(kind: &str, option: &str) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("Linux");
    mounts.lines().find_map(|line| {
        let [_, directory, its_kind, options] = line.split(' ').take(4).collect::<Vec<_>>()[..] else {
            return None;
        };
        let is_it = its_kind == kind && (option.is_empty() || options.split(',').any(|word| word == option));
        is_it.then(|| PathBuf::from(directory))
    })
}

/// A machine's use of memory, in MiB.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Everything that the kernel charged, including files that it could reclaim.
    pub(crate) charged: u64,
    pub(crate) peak: u64,
    /// Memory that the kernel cannot reclaim: of processes, of files in memory, and the kernel's own for
    /// them.
    pub(crate) needed: u64,
    /// The kernel's part of it: sockets, page tables, descriptors.
    pub(crate) kernel: u64,
    /// Processes that were killed for lack of memory.
    pub(crate) killed: u64,
}

impl Memory {
    /// Reads the memory of the machine with this process 1.
    pub(crate) fn of(init: u32) -> Self {
        let groups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).expect("it runs");
        let path = |wanted: &str| {
            groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                let is_it = controllers.split(',').any(|name| name == wanted);
                is_it.then(|| path.trim_start_matches('/').to_owned())
            })
        };
        match (hierarchy("cgroup", "memory"), path("memory")) {
            (Some(root), Some(path)) => Self::version_1(&above_init(&root.join(path))),
            _ => {
                let root = hierarchy("cgroup2", "").expect("control groups");
                Self::version_2(&above_init(&root.join(path("").expect("a group"))))
            }
        }
    }

    fn version_1(group: &Path) -> Self {
        let stat = numbers(&group.join("memory.stat"));
        let charged = number(&group.join("memory.usage_in_bytes"));
        let files = stat["total_inactive_file"] + stat["total_active_file"];
        let killed = numbers(&group.join("memory.oom_control")).get("oom_kill").copied().unwrap_or(0);
        Self {
            charged: charged / MIB,
            peak: number(&group.join("memory.max_usage_in_bytes")) / MIB,
            needed: charged.saturating_sub(files) / MIB,
            kernel: number(&group.join("memory.kmem.usage_in_bytes")) / MIB,
            killed,
        }
    }

    fn version_2(group: &Path) -> Self {
        let stat = numbers(&group.join("memory.stat"));
        let charged = number(&group.join("memory.current"));
        let files = stat["inactive_file"] + stat["active_file"];
        Self {
            charged: charged / MIB,
            peak: number(&group.join("memory.peak")) / MIB,
            needed: charged.saturating_sub(files) / MIB,
            kernel: stat.get("kernel").copied().unwrap_or(0) / MIB,
            killed: numbers(&group.join("memory.events")).get("oom_kill").copied().unwrap_or(0),
        }
    }
}

/// In version 2, process 1 of a machine is in a group of its own below the machine's.
fn above_init(group: &Path) -> PathBuf {
    match group.ancestors().find(|above| above.file_name().is_some_and(|name| name == "payload")) {
        Some(payload) => payload.parent().unwrap_or(payload).to_owned(),
        None if group.ends_with("init.scope") => group.parent().unwrap_or(group).to_owned(),
        None => group.to_owned(),
    }
}

fn number(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Parses lines of a name and a number.
fn numbers(file: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let pair = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}
