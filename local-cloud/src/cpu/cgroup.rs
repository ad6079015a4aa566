//! Limits that the kernel enforces: a control group for each instance, in the hierarchy that this process
//! may write to. Version 2 and version 1 differ in their files only.

use std::io::Result;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Percent;
use crate::machine::processes::Processes;

/// The kernel's own default; a limit is a part of each period.
const PERIOD_MICROS: u64 = 100_000;

const PREFIX: &str = "local-cloud-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where this process makes its groups.
struct Base {
    version: Version,
    dir: PathBuf,
}

/// The control group of one instance.
pub(super) struct Group {
    version: Version,
    dir: PathBuf,
}

impl Group {
    /// `None` if this process may not make control groups.
    pub(super) fn make(name: &str) -> Option<Self> {
        let base = base()?;
        let made = Self::at(base.version, base.dir.join(name));
        made.inspect_err(|error| tracing::warn!(%error, name, "no control group")).ok()
    }

    fn at(version: Version, dir: PathBuf) -> Result<Self> {
        std::fs::create_dir(&dir)?;
        Ok(Self { version, dir })
    }

    pub(super) fn entrance(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    pub(super) fn limit(&self, limit: Option<Percent>) {
        if let Err(error) = self.write_limit(limit) {
            tracing::warn!(%error, group = %self.dir.display(), "a CPU limit could not be set");
        }
    }

    fn write_limit(&self, limit: Option<Percent>) -> Result<()> {
        let micros = limit.map(|percent| u64::from(percent.get()) * PERIOD_MICROS / 100);
        let (file, text) = match (self.version, micros) {
            (Version::One, None) => ("cpu.cfs_quota_us", "-1".to_owned()),
            (Version::One, Some(micros)) => ("cpu.cfs_quota_us", micros.to_string()),
            (Version::Two, None) => ("cpu.max", format!("max {PERIOD_MICROS}")),
            (Version::Two, Some(micros)) => ("cpu.max", format!("{micros} {PERIOD_MICROS}")),
        };
        std::fs::write(self.dir.join(file), text)
    }

    /// Moves the running processes into the group. A process may start another during the move, so it looks
    /// again.
    pub(super) fn take(&self, processes: &Processes) {
        for _ in 0..3 {
            for process in processes.members() {
                // An ended process cannot be moved, and need not be.
                drop(std::fs::write(self.entrance(), process.id.to_string()));
            }
        }
    }

    pub(super) fn remove(&self) {
        drop(std::fs::remove_dir(&self.dir));
    }
}

fn base() -> Option<&'static Base> {
    static BASE: OnceLock<Option<Base>> = OnceLock::new();
    BASE.get_or_init(Base::find).as_ref()
}

/// Removes the groups that this process made, once nothing runs in them.
pub fn clean_up() {
    if let Some(base) = base() {
        drop(std::fs::remove_dir(&base.dir));
    }
}

impl Base {
    fn find() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
        let found = parents(&own, &mounts).into_iter().find_map(|(version, dir)| Self::make(version, &dir));
        if found.is_none() {
            tracing::info!("no control groups here: CPU limits are kept by stopping processes");
        }
        found
    }

    /// Makes the base below `parent`, if limits work there: by trying one out.
    fn make(version: Version, parent: &Path) -> Option<Self> {
        remove_stale(parent);
        let dir = parent.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        let base = Self { version, dir };
        if base.works() {
            return Some(base);
        }
        drop(std::fs::remove_dir(&base.dir));
        None
    }

    fn works(&self) -> bool {
        if self.version == Version::Two
            && std::fs::write(self.dir.join("cgroup.subtree_control"), "+cpu").is_err()
        {
            return false;
        }
        let Ok(probe) = Group::at(self.version, self.dir.join("probe")) else { return false };
        let half = "50%".parse().ok();
        let enters = || {
            let mut shell = Command::new("sh");
            shell.args(["-c", "echo $$ >\"$0\""]).arg(probe.entrance());
            shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            shell.status().is_ok_and(|status| status.success())
        };
        let works = probe.write_limit(half).is_ok() && enters();
        probe.remove();
        works
    }
}

/// Returns directories below which groups might be made, the likeliest first. In version 2 a group with
/// processes has no children with limits, so the groups above it are tried too.
fn parents(own: &str, mounts: &str) -> Vec<(Version, PathBuf)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let Some((controllers, path)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))
        else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        let mount = |is_it: &dyn Fn(&str, &str) -> bool| {
            mounts.lines().find_map(|mount| {
                let [_, dir, kind, options] = mount.split(' ').take(4).collect::<Vec<_>>()[..] else {
                    return None;
                };
                is_it(kind, options).then(|| PathBuf::from(dir))
            })
        };
        let has_cpu = |list: &str| list.split(',').any(|word| word == "cpu");
        if controllers.is_empty() {
            let Some(root) = mount(&|kind, _| kind == "cgroup2") else { continue };
            found.extend(path.ancestors().map(|above| (Version::Two, root.join(above))));
        } else if has_cpu(controllers)
            && let Some(root) = mount(&|kind, options| kind == "cgroup" && has_cpu(options))
        {
            found.push((Version::One, root.join(path)));
        }
    }
    found
}

/// Removes groups of a local cloud that was killed.
fn remove_stale(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            for group in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                drop(std::fs::remove_dir(group.path()));
            }
            drop(std::fs::remove_dir(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_tried_from_the_own_group_upwards() {
        let found = parents("0::/user.slice/a.scope\n", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        let dirs: Vec<_> =
            found.iter().map(|(_, dir)| dir.to_str().expect("text").trim_end_matches('/')).collect();
        assert_eq!(
            dirs,
            ["/sys/fs/cgroup/user.slice/a.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"]
        );
    }

    #[test]
    fn version_1_is_found_by_its_controller() {
        let mounts = "x /c/acct cgroup rw,cpuacct 0 0\nx /c/cpu cgroup rw,relatime,cpu 0 0\n";
        let found = parents("2:cpuacct:/\n1:cpu:/own\n", mounts);
        assert_eq!(found, [(Version::One, PathBuf::from("/c/cpu/own"))]);
    }
}
