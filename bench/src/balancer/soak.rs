//! `make bench-soak`: as many requests in ten minutes as in two hours, while workers leave the registry, come
//! back, are killed and start again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use super::goals::Goal;
use super::peer::{Entrants, Peer};
use super::proxy::Proxy;
use super::rig::{Rig, Way};
use crate::load::Plan;
use crate::table::{line, print, progress};

#[derive(Args, Debug)]
pub struct Soak {
    #[command(flatten)]
    pub entrants: Entrants,
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// Requests per second; in ten minutes as many as in two hours at a hundred.
    #[arg(long, default_value_t = 1200)]
    pub rate: u32,
}

const WORKERS: usize = 4;
/// Delay of each answer, so that a dying worker has requests to lose.
const PAUSE: Duration = Duration::from_millis(2);
const CHANGED_EVERY: Duration = Duration::from_secs(1);
const KILLED_EVERY: Duration = Duration::from_secs(10);
const DEAD_FOR: Duration = Duration::from_millis(1500);
/// Memory is flat if its end is at most this many times the middle of the run.
const MOST_GROWTH: f64 = 1.1;

/// The work done, and its cost in memory.
struct Course {
    changes: usize,
    kills: usize,
    /// Seconds since the start, and KiB of PSS.
    memory: Vec<(f64, usize)>,
}

/// Returns whether nothing failed and memory is flat.
pub fn run(soak: &Soak) -> anyhow::Result<bool> {
    let (entrants, missing) = soak.entrants.find()?;
    let ours = entrants.iter().find(|entrant| entrant.peer == Peer::Ours);
    let ours = ours.with_context(|| missing.join("; "))?;
    let mut rig = Rig::new(WORKERS, PAUSE)?;
    rig.try_each(std::slice::from_ref(ours), |peer| [Way::usual(peer)])?;
    let mut proxy = rig.start(ours, Way::usual(Peer::Ours))?;
    let lasts = Duration::from_secs_f64(soak.minutes * 60.0);
    let plan = Plan {
        rate: Some(soak.rate),
        seconds: lasts.as_secs_f64(),
        warm_up_seconds: 0.0,
        cpu_of: Some(proxy.pid()),
        ..Plan::new(proxy.addr)
    };
    let load = rig.begin(&plan)?;
    let course = trouble(&mut rig, &mut proxy, lasts)?;
    let report = load.report()?;
    let memory = [0, course.memory.len() / 2, course.memory.len().saturating_sub(1)]
        .map(|index| course.memory.get(index).copied().unwrap_or_default());
    let heads = ["", "start", "middle", "end"].map(str::to_owned).to_vec();
    let seconds = memory.map(|(seconds, _)| format!("{seconds:.0}"));
    let mib = memory.map(|(_, kib)| format!("{:.1}", float(kib) / 1024.0));
    let row = |name: &str, cells: [String; 3]| [vec![name.to_owned()], cells.to_vec()].concat();
    print(&[heads, row("at second", seconds), row("PSS MiB", mib)]);
    line(&format!(
        "  {} GETs answered, p99 {:.1} ms, at most {:.1} ms; {} registry changes, {} workers killed",
        report.answered.get, report.latency.p99, report.latency.max, course.changes, course.kills
    ));
    let failed = report.failed().all();
    let growth = float(memory[2].1) / float(memory[1].1.max(1));
    let is_met = failed == 0 && growth <= MOST_GROWTH && report.answered.get > 0;
    let goal = Goal::of(
        format!(
            "{failed} failures {:?} (goal: 0); memory at the end {growth:.2} times the middle's (goal: at most {MOST_GROWTH})",
            report.failures
        ),
        is_met,
    );
    line(&format!("bench-soak: {}", goal.line()));
    Ok(is_met)
}

/// Causes faults: every second a worker leaves the registry or comes back; every ten seconds one is killed.
fn trouble(rig: &mut Rig, proxy: &mut Proxy, lasts: Duration) -> anyhow::Result<Course> {
    let start = Instant::now();
    let mut course = Course { changes: 0, kills: 0, memory: Vec::new() };
    let mut next_change = start + CHANGED_EVERY;
    let mut next_kill = start + KILLED_EVERY;
    let mut next_revival = None;
    while start.elapsed() < lasts {
        let now = Instant::now();
        if now >= next_change {
            next_change += CHANGED_EVERY;
            course.changes += 1;
            rig.control.publish(&listed(&rig.addresses(), course.changes))?;
            // As the reconciler does; without a hint the load balancer looks every other second.
            proxy.refresh().ok();
            course.memory.push((start.elapsed().as_secs_f64(), proxy.pss_kib()?));
            proxy.check()?;
        }
        if now >= next_kill {
            next_kill += KILLED_EVERY;
            let victim = course.kills % WORKERS;
            course.kills += 1;
            progress(&format!("second {}: a worker is killed", start.elapsed().as_secs()));
            rig.workers.iter_mut().skip(victim).take(1).for_each(|worker| worker.kill());
            next_revival = Some(now + DEAD_FOR);
        }
        if next_revival.is_some_and(|revival| now >= revival) {
            next_revival = None;
            rig.revive()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.revive()?;
    Ok(course)
}

/// Returns the listed workers: at odd changes one is missing, at even ones none.
fn listed(workers: &[SocketAddr], change: usize) -> Vec<SocketAddr> {
    let missing = (change % 2 == 1).then_some(change / 2 % workers.len().max(1));
    let is_there = |(index, _): &(usize, &SocketAddr)| Some(*index) != missing;
    workers.iter().enumerate().filter(is_there).map(|(_, addr)| *addr).collect()
}

/// Memories here stay far below 2⁵³ KiB.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn float(kib: usize) -> f64 {
    kib as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_leaves_in_turn_and_comes_back() {
        let workers: Vec<SocketAddr> = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let ports = |change| listed(&workers, change).iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!([ports(1), ports(3), ports(5)], [vec![2, 3], vec![1, 3], vec![1, 2]]);
        assert_eq!([ports(0), ports(2), ports(8)], [vec![1, 2, 3], vec![1, 2, 3], vec![1, 2, 3]]);
    }
}
