//! `make bench-slow`: how ten thousand other clients, half of them slow, affect well-behaved clients.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;

use super::child::Program;
use super::goals::Goal;
use super::peer::{Entrant, Entrants, Peer};
use super::proxy::Proxy;
use super::rig::{Rig, Way};
use super::statistics::Spread;
use crate::load::{Plan, Report};
use crate::table::{line, print, progress, thousands};

#[derive(Args, Debug)]
pub struct Slow {
    #[command(flatten)]
    pub entrants: Entrants,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of each measurement, without the attack and with it.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Size of the attack: half are idle, a quarter sends heads slowly, a fifth bodies, the rest does not
    /// read.
    #[arg(long, default_value_t = 10_000)]
    pub connections: usize,
}

impl Slow {
    fn way(&self, peer: Peer) -> Way {
        Way { connections: self.connections * 2 + SPARE, ..Way::usual(peer) }
    }
}

/// Requests per second of the well-behaved: so few that a proxy is never full.
const RATE: u32 = 2000;
/// The goal.
const MOST_TIMES: f64 = 2.0;
/// Wait until the crowd is in: it connects 2,000 a second.
const PATIENCE: Duration = Duration::from_secs(90);
/// Slots of a peer beyond the crowd, which occupies one each.
const SPARE: usize = 8192;

struct Run {
    quiet: Report,
    attacked: Report,
    /// KiB of PSS: before, at most during, and after the attack.
    before_kib: usize,
    peak_kib: usize,
    after_kib: usize,
    /// The last line of the crowd's output.
    crowd: String,
}

/// Returns whether ec2-lb meets the goal.
pub fn run(slow: &Slow) -> anyhow::Result<bool> {
    let (entrants, missing) = slow.entrants.find()?;
    missing.iter().for_each(|sentence| line(sentence));
    let mut rig = Rig::new(2, Duration::ZERO)?;
    rig.try_each(&entrants, |peer| [slow.way(peer)])?;
    let mut goals = Vec::new();
    for entrant in &entrants {
        let mut runs = Vec::new();
        for round in 1..=slow.rounds {
            progress(&format!("round {round} of {}: {}", slow.rounds, entrant.peer));
            runs.push(one(&mut rig, entrant, slow)?);
        }
        line(&format!(
            "\n{}: {RATE} requests per second during a crowd of {}",
            entrant.peer,
            thousands(slow.connections)
        ));
        print(&table(&runs));
        for failures in runs.iter().flat_map(|run| [&run.quiet.failures, &run.attacked.failures]) {
            if !failures.is_empty() {
                line(&format!("  failed: {failures:?}"));
            }
        }
        goals.push(judge(entrant, &runs));
    }
    line("");
    goals.iter().for_each(|goal| line(&format!("bench-slow: {}", goal.line())));
    // ec2-lb is the first; the others have no goal.
    Ok(goals.first().is_some_and(Goal::is_met))
}

fn one(rig: &mut Rig, entrant: &Entrant, slow: &Slow) -> anyhow::Result<Run> {
    let mut proxy = rig.start(entrant, slow.way(entrant.peer))?;
    let plan =
        Plan { rate: Some(RATE), seconds: slow.seconds, warm_up_seconds: 1.0, ..Plan::new(proxy.addr) };
    let quiet = rig.load(&plan)?;
    let before_kib = proxy.pss_kib()?;
    let mut crowd = attack(rig, &proxy, slow.connections)?;
    let mut peak_kib = before_kib;
    wait(&proxy, &mut crowd, slow, &mut peak_kib)?;
    let load = rig.begin(&plan)?;
    let end = Instant::now() + plan.warm_up() + plan.measured();
    // Counting pages takes milliseconds of the core on which latencies are measured.
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    let attacked = load.report()?;
    peak_kib = peak_kib.max(proxy.pss_kib()?);
    let word = crowd.last_words();
    crowd.close()?;
    std::thread::sleep(Duration::from_secs(2));
    proxy.check()?;
    Ok(Run { quiet, attacked, before_kib, peak_kib, after_kib: proxy.pss_kib()?, crowd: word })
}

fn attack(rig: &Rig, proxy: &Proxy, connections: usize) -> anyhow::Result<Program> {
    let parts = [("idle", 2, 1), ("slow-heads", 4, 1), ("slow-bodies", 5, 1), ("deaf", 20, 1)];
    // Attackers have machines of their own. Here they share a core with the measured clients, so they run
    // only when it is idle.
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(rig.program("bench-attack")?);
    command.arg(format!("--target={}", proxy.addr));
    command.args(parts.map(|(kind, of, part)| format!("--{kind}={}", connections * part / of)));
    Program::start(&mut command, &rig.dir.path().join("attack.log"))
}

/// Waits until the crowd is in.
fn wait(proxy: &Proxy, crowd: &mut Program, slow: &Slow, peak_kib: &mut usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // Some are always just being turned away, and a proxy may limit how many are slow at once.
    while tried(&crowd.last_words()) < slow.connections * 9 / 10 {
        let ended = crowd.ended()?;
        let is_in_time = Instant::now() < deadline && ended.is_none();
        ensure!(is_in_time, "the crowd does not get in: {}", crowd.last_words());
        std::thread::sleep(Duration::from_millis(250));
        *peak_kib = (*peak_kib).max(proxy.pss_kib()?);
    }
    Ok(())
}

/// Returns how many of a crowd are in or were turned away, according to its output.
fn tried(word: &str) -> usize {
    word.split(' ').filter_map(|word| word.parse::<usize>().ok()).sum()
}

fn table(runs: &[Run]) -> Vec<Vec<String>> {
    let heads = [
        "round",
        "p50 ms quiet",
        "attacked",
        "p99 ms quiet",
        "attacked",
        "failures",
        "MiB before",
        "at most",
        "after",
        "the crowd",
    ];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    let mib = |kib: usize| (kib / 1024).to_string();
    table.extend(runs.iter().enumerate().map(|(index, run)| {
        vec![
            (index + 1).to_string(),
            format!("{:.2}", run.quiet.latency.p50),
            format!("{:.2}", run.attacked.latency.p50),
            format!("{:.2}", run.quiet.latency.p99),
            format!("{:.2}", run.attacked.latency.p99),
            (run.quiet.failed().all() + run.attacked.failed().all()).to_string(),
            mib(run.before_kib),
            mib(run.peak_kib),
            mib(run.after_kib),
            run.crowd.clone(),
        ]
    }));
    table
}

fn judge(entrant: &Entrant, runs: &[Run]) -> Goal {
    let median =
        |tail: fn(&Run) -> f64| Spread::of(runs.iter().map(tail)).map_or(f64::NAN, |spread| spread.median);
    let quiet = median(|run| run.quiet.latency.p99);
    let attacked = median(|run| run.attacked.latency.p99);
    let times = attacked / quiet;
    let failed: u64 = runs.iter().map(|run| run.quiet.failed().all() + run.attacked.failed().all()).sum();
    let peak = runs.iter().map(|run| run.peak_kib).max().unwrap_or(0) / 1024;
    let is_met = times <= MOST_TIMES && failed == 0;
    let text = format!(
        "{}: p99 {quiet:.2} ms quiet, {attacked:.2} ms under attack: {times:.2} times (goal: at most {MOST_TIMES}); \
         {failed} failures (goal: 0); at most {peak} MiB",
        entrant.peer
    );
    Goal::of(text, is_met)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_says_how_many_are_in() {
        assert_eq!(tried("9876 open, 12 turned away"), 9888);
        assert_eq!(tried("nothing"), 0);
    }
}
