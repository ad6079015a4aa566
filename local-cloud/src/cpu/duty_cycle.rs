//! A limit without the kernel's help: the processes are stopped for the rest of each period in which they
//! have used their share.
//!
//! It is coarser than a control group. The time of an ended process is known only through its parent, and a
//! step is as long as the clock that the kernel counts with, so a period may be overdrawn; the next ones pay
//! for it.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Percent;
use crate::machine::processes::Processes;

/// Two ticks of the clock of `/proc`.
const STEP: Duration = Duration::from_millis(20);

/// Time that is not used within a period is lost, as with the kernel.
const PERIOD: Duration = Duration::from_millis(100);

/// Searching for new processes reads the whole process table of this machine.
const SEARCH: Duration = Duration::from_millis(200);

/// Runs as long as there is a limit.
pub(super) async fn run(processes: &Processes, limit: &watch::Receiver<Option<Percent>>) {
    let mut budget = Budget::default();
    let (mut members, mut searched) = (processes.members(), Instant::now());
    let mut used = processes.cpu_time(&members);
    let mut at = Instant::now();
    loop {
        tokio::time::sleep(STEP).await;
        let Some(percent) = *limit.borrow() else { break };
        if searched.elapsed() >= SEARCH {
            (members, searched) = (processes.members(), Instant::now());
        }
        let now = processes.cpu_time(&members);
        let may_run = budget.step(percent, at.elapsed(), now.saturating_sub(used));
        (used, at) = (now, Instant::now());
        // Listed again each time, because a process may have started since.
        processes.throttle(if may_run { Signal::SIGCONT } else { Signal::SIGSTOP });
    }
    processes.throttle(Signal::SIGCONT);
}

/// Remaining processor time, or overdrawn time.
#[derive(Debug, Default)]
struct Budget {
    micros: i64,
}

impl Budget {
    /// Returns whether the processes may run, `elapsed` after the last look, having used `used` since.
    fn step(&mut self, percent: Percent, elapsed: Duration, used: Duration) -> bool {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let share = |time: Duration| micros(time).saturating_mul(i64::from(percent.get())) / 100;
        let earned = self.micros.saturating_add(share(elapsed)).min(share(PERIOD));
        self.micros = earned.saturating_sub(micros(used));
        self.micros >= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the share of a core of a greedy process, which uses all of each step it may run in.
    fn share(percent: &str, cores: u32) -> f64 {
        let percent = percent.parse().expect("valid");
        let (mut budget, mut used, mut may_run) = (Budget::default(), Duration::ZERO, true);
        for _ in 0..10_000 {
            let now = if may_run { STEP * cores } else { Duration::ZERO };
            used += now;
            may_run = budget.step(percent, STEP, now);
        }
        used.as_secs_f64() / (STEP * 10_000).as_secs_f64()
    }

    #[test]
    fn a_greedy_process_gets_its_share() {
        for (percent, cores, expected) in
            [("10%", 1, 0.10), ("10%", 2, 0.10), ("50%", 1, 0.5), ("150%", 2, 1.5)]
        {
            let share = share(percent, cores);
            assert!((share - expected).abs() < 0.01, "{percent} of {cores} cores: {share}");
        }
    }

    #[test]
    fn unused_time_is_lost() {
        let (mut budget, percent) = (Budget::default(), "10%".parse().expect("valid"));
        assert!(budget.step(percent, Duration::from_secs(60), Duration::ZERO));
        assert!(!budget.step(percent, STEP, STEP), "a minute of rest gave more than a period's share");
    }
}
