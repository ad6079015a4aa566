//! A process's use of CPU and memory, as the kernel counts it, and a share of a core for it to run on.

use std::fs;
use std::iter::Sum;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// Lambda's own period is not documented; its shares are multiples of this period's too.
const PERIOD_MICROS: u32 = 20_000;

/// Returns a path that names the same file in whatever directory a program is started.
pub fn absolute(path: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}

/// Returns the CPU time so far of all live threads: to the nanosecond, where `times` has ticks of 10 ms.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The thread may have ended.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanos = text.split(' ').next().context("schedstat is empty")?.parse()?;
        total += Duration::from_nanos(nanos);
    }
    Ok(total)
}

/// Returns resident memory in KiB: the peak (`VmHWM`), or now (`VmRSS`).
pub fn resident_kib(pid: u32, field: &str) -> anyhow::Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).context("/proc has no such field")?;
    Ok(number.parse()?)
}

/// Returns a process and all its descendants, itself first.
pub fn family(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // The process may have ended.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        parents.extend(parent(&stat).map(|parent| (child, parent)));
    }
    let mut members = vec![pid];
    let mut next = 0;
    while let Some(member) = members.get(next).copied() {
        members.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(child, _)| *child));
        next += 1;
    }
    Ok(members)
}

/// Sums over a family. A descendant may end during the sum.
fn of_family<T: Sum>(pid: u32, of: impl Fn(u32) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let has_ended = |member: u32| member != pid && !Path::new("/proc").join(member.to_string()).exists();
    let parts = family(pid)?.into_iter().map(|member| (member, of(member)));
    parts.filter(|(member, part)| part.is_ok() || !has_ended(*member)).map(|(_, part)| part).sum()
}

/// Parses the parent. The fields begin after the name, which may contain anything, parentheses too.
fn parent(stat: &str) -> Option<u32> {
    stat.get(stat.rfind(')')? + 1..)?.split_whitespace().nth(1)?.parse().ok()
}

/// Returns `cpu` of a whole family.
pub fn family_cpu(pid: u32) -> anyhow::Result<Duration> {
    of_family(pid, cpu)
}

/// Returns the memory of a whole family in KiB; memory shared with other processes is divided among them.
pub fn family_pss_kib(pid: u32) -> anyhow::Result<usize> {
    of_family(pid, pss_kib)
}

fn pss_kib(pid: u32) -> anyhow::Result<usize> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("/proc tells no PSS")?;
    Ok(number.parse()?)
}

/// A share of a core for the added processes; it needs cgroups (v1) and root.
pub struct Share {
    group: PathBuf,
}

impl Share {
    pub fn new(of_a_core: f64) -> std::io::Result<Self> {
        let group = Path::new("/sys/fs/cgroup/cpu").join(format!("vigia-bench-{}", std::process::id()));
        fs::create_dir(&group)?;
        let share = Self { group };
        let quota = (f64::from(PERIOD_MICROS) * of_a_core).round();
        fs::write(share.group.join("cpu.cfs_period_us"), PERIOD_MICROS.to_string())?;
        fs::write(share.group.join("cpu.cfs_quota_us"), quota.to_string())?;
        Ok(share)
    }

    pub fn hold(&self, pid: u32) -> std::io::Result<()> {
        fs::write(self.group.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for Share {
    /// Its processes must have ended.
    fn drop(&mut self) {
        fs::remove_dir(&self.group).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_found_by_its_parents() {
        assert_eq!(parent("17 (a) b) S 4 17 17 0"), Some(4));
        let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("sleep is everywhere");
        let members = family(std::process::id()).expect("it lives");
        child.kill().and_then(|()| child.wait()).expect("it lived");
        assert_eq!(members.first(), Some(&std::process::id()));
        assert!(members.contains(&child.id()));
        assert!(family_pss_kib(std::process::id()).expect("it has memory") > 0);
    }

    #[test]
    fn a_path_names_the_same_file_everywhere() {
        let here = std::env::current_dir().expect("there is one");
        assert_eq!(absolute("target/ec2-lb").expect("a path"), here.join("target/ec2-lb"));
        assert_eq!(absolute("/built/ec2-lb").expect("a path"), Path::new("/built/ec2-lb"));
    }

    #[test]
    fn the_kernel_counts_this_process() {
        let pid = std::process::id();
        let before = cpu(pid).expect("it lives");
        while cpu(pid).expect("it lives") <= before {}
        let now = resident_kib(pid, "VmRSS").expect("it has memory");
        assert!(resident_kib(pid, "VmHWM").expect("it has memory") >= now);
        assert!(resident_kib(pid, "VmNothing").is_err());
    }
}
