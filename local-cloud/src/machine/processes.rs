//! The processes of an instance: the groups of its services' main processes, and their members.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::{Mutex, MutexGuard};

/// `/proc` counts in hundredths of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub struct Processes {
    groups: Mutex<Vec<Pid>>,
    /// By a fault on purpose.
    is_hung: AtomicBool,
}

/// A process, as far as one line of `/proc` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub id: i32,
    group: i32,
    /// Its own processor time, and that of its children that have ended.
    ticks: u32,
}

impl Processes {
    pub fn add(&self, group: Pid) {
        self.lock().push(group);
    }

    pub fn remove(&self, group: Pid) {
        self.lock().retain(|other| *other != group);
    }

    pub fn signal(&self, signal: Signal) {
        for group in self.lock().iter() {
            killpg(*group, signal).ok();
        }
    }

    pub fn hang(&self) {
        self.is_hung.store(true, Ordering::Relaxed);
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.is_hung.store(false, Ordering::Relaxed);
        self.signal(Signal::SIGCONT);
    }

    /// Stops or continues the processes, except those hung on purpose.
    pub fn throttle(&self, signal: Signal) {
        if !self.is_hung.load(Ordering::Relaxed) {
            self.signal(signal);
        }
    }

    /// Returns all processes that run now.
    pub fn members(&self) -> Vec<Process> {
        let groups: Vec<i32> = self.lock().iter().map(|group| group.as_raw()).collect();
        if groups.is_empty() {
            return Vec::new();
        }
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(process)
            .filter(|process| groups.contains(&process.group))
            .collect()
    }

    /// Returns the processor time that these have used until now.
    pub fn cpu_time(&self, members: &[Process]) -> Duration {
        let now = members.iter().map(|member| process(member.id).unwrap_or(*member));
        TICK * now.map(|process| process.ticks).sum::<u32>()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.groups.lock()
    }
}

fn process(id: i32) -> Option<Process> {
    parse(id, &std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?)
}

fn parse(id: i32, stat: &str) -> Option<Process> {
    // After the name, which may contain anything: state, parent, group, and times from the 12th on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
    let ticks = (11..15).map(number).sum::<Option<u32>>()?;
    Some(Process { id, group: fields.get(2)?.parse().ok()?, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_is_read() {
        let stat = "7 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 3 4 5 6 20 0 1 0 100 0 0";
        assert_eq!(parse(7, stat), Some(Process { id: 7, group: 42, ticks: 18 }));
    }
}
