//! `make bench-kill`: the failures that clients see when one of two workers is killed under load, and comes
//! back.

use std::time::Duration;

use clap::Args;

use super::compare::by_chance;
use super::config::Posts;
use super::goals::Goal;
use super::peer::{Entrant, Entrants, Peer};
use super::rig::{Rig, Way};
use super::statistics::Spread;
use crate::load::report::ByMethod;
use crate::load::{Plan, Report};
use crate::table::{line, print, progress};

#[derive(Args, Debug)]
pub struct Kill {
    #[command(flatten)]
    pub entrants: Entrants,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
}

/// A run lasts 5 s: kill, return, and as long again to settle.
const LASTS_SECONDS: f64 = 5.0;
const KILLED_AFTER: Duration = Duration::from_millis(1500);
const DEAD_FOR: Duration = Duration::from_millis(1500);
/// Delay of each answer, so that a dying worker has requests to lose.
const PAUSE: Duration = Duration::from_millis(5);
/// The goal.
const LONGEST_STALL_MS: f64 = 100.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    Gets,
    PostsOnce,
    PostsRetried,
}

impl Mix {
    const ALL: [Self; 3] = [Self::Gets, Self::PostsOnce, Self::PostsRetried];

    fn title(self) -> &'static str {
        match self {
            Self::Gets => "GET, 3,000 requests per second",
            Self::PostsOnce => "30 % POST, 2,000 requests per second; a POST that was sent is not sent again",
            Self::PostsRetried => "30 % POST, 2,000 requests per second; POSTs are sent again, which is set",
        }
    }

    fn posts(self) -> Posts {
        match self {
            Self::Gets | Self::PostsOnce => Posts::Once,
            Self::PostsRetried => Posts::Retried,
        }
    }

    fn plan(self, target: std::net::SocketAddr) -> Plan {
        let plan = Plan { seconds: LASTS_SECONDS, warm_up_seconds: 0.0, ..Plan::new(target) };
        match self {
            Self::Gets => Plan { rate: Some(3000), ..plan },
            Self::PostsOnce | Self::PostsRetried => Plan { rate: Some(2000), post_percent: 30, ..plan },
        }
    }

    /// Returns whether the peer can. Pingora and Caddy, as configured here, cannot.
    fn suits(self, peer: Peer) -> bool {
        self != Self::PostsRetried || matches!(peer, Peer::Ours | Peer::Nginx | Peer::Haproxy)
    }
}

struct Run {
    mix: Mix,
    peer: Peer,
    report: Report,
}

/// Returns whether every goal is met.
pub fn run(kill: &Kill) -> anyhow::Result<bool> {
    let (entrants, missing) = kill.entrants.find()?;
    missing.iter().for_each(|sentence| line(sentence));
    let mut rig = Rig::new(2, PAUSE)?;
    rig.try_each(&entrants, |peer| [Way::usual(peer)])?;
    let mut runs = Vec::new();
    for round in 1..=kill.rounds {
        for mix in Mix::ALL {
            for entrant in by_chance(&entrants).into_iter().filter(|entrant| mix.suits(entrant.peer)) {
                progress(&format!("round {round} of {}: {}: {}", kill.rounds, mix.title(), entrant.peer));
                match one(&mut rig, entrant, mix) {
                    Ok(report) => runs.push(Run { mix, peer: entrant.peer, report }),
                    Err(error) => line(&format!("{} was not measured: {error:#}", entrant.peer)),
                }
                rig.revive()?;
            }
        }
    }
    for mix in Mix::ALL {
        line(&format!("\n{}", mix.title()));
        print(&table(&runs, mix));
    }
    line("");
    let goals = judge(&runs, kill.rounds);
    goals.iter().for_each(|goal| line(&goal.line()));
    let met = goals.iter().filter(|goal| goal.is_met()).count();
    line(&format!("bench-kill: {met} of {} goals met in {} rounds", goals.len(), kill.rounds));
    Ok(met == goals.len())
}

fn one(rig: &mut Rig, entrant: &Entrant, mix: Mix) -> anyhow::Result<Report> {
    let mut proxy = rig.start(entrant, Way { posts: mix.posts(), ..Way::usual(entrant.peer) })?;
    let load = rig.begin(&mix.plan(proxy.addr))?;
    std::thread::sleep(KILLED_AFTER);
    rig.workers.iter_mut().take(1).for_each(|worker| worker.kill());
    std::thread::sleep(DEAD_FOR);
    rig.revive()?;
    let report = load.report()?;
    proxy.check()?;
    Ok(report)
}

fn of(runs: &[Run], mix: Mix, peer: Peer) -> impl Iterator<Item = &Report> {
    runs.iter().filter(move |run| run.mix == mix && run.peer == peer).map(|run| &run.report)
}

fn failed(runs: &[Run], mix: Mix, peer: Peer) -> ByMethod {
    of(runs, mix, peer)
        .map(Report::failed)
        .fold(ByMethod::default(), |sum, one| ByMethod { get: sum.get + one.get, post: sum.post + one.post })
}

fn table(runs: &[Run], mix: Mix) -> Vec<Vec<String>> {
    let heads = [
        "proxy",
        "answered",
        "failed GETs",
        "failed POSTs",
        "longest stalls ms",
        "p99 ms (min..max)",
        "kinds",
    ];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    for peer in Peer::ALL {
        let reports = || of(runs, mix, peer);
        let Some(tail) = Spread::of(reports().map(|report| report.latency.p99)) else { continue };
        let stalls: Vec<String> = reports().map(|report| format!("{:.0}", report.latency.max)).collect();
        let kinds: Vec<String> = reports()
            .flat_map(|report| &report.failures)
            .map(|(kind, count)| format!("{kind}: {} GET {} POST", count.get, count.post))
            .collect();
        let failed = failed(runs, mix, peer);
        table.push(vec![
            peer.to_string(),
            reports().map(|report| report.answered.all()).sum::<u64>().to_string(),
            failed.get.to_string(),
            failed.post.to_string(),
            stalls.join("/"),
            tail.text(1),
            kinds.join("; "),
        ]);
    }
    table
}

/// The goals of the issue. A goal without a measurement in each round is not met.
fn judge(runs: &[Run], rounds: usize) -> Vec<Goal> {
    let is_whole = |mix| of(runs, mix, Peer::Ours).count() == rounds;
    let gets: u64 = [Mix::Gets, Mix::PostsOnce].map(|mix| failed(runs, mix, Peer::Ours).get).iter().sum();
    let stall = of(runs, Mix::Gets, Peer::Ours).map(|report| report.latency.max).fold(0.0, f64::max);
    let ours = failed(runs, Mix::PostsOnce, Peer::Ours).post;
    let nginx = failed(runs, Mix::PostsOnce, Peer::Nginx).post;
    let has_nginx = of(runs, Mix::PostsOnce, Peer::Nginx).next().is_some();
    let retried = failed(runs, Mix::PostsRetried, Peer::Ours).all();
    let goals = [
        (
            format!("ec2-lb's failed GETs with default settings: {gets} (goal: 0)"),
            gets == 0 && is_whole(Mix::Gets) && is_whole(Mix::PostsOnce),
        ),
        (
            format!("ec2-lb's longest stall, GET: {stall:.0} ms (goal: under {LONGEST_STALL_MS} ms)"),
            stall < LONGEST_STALL_MS && is_whole(Mix::Gets),
        ),
        (
            format!("ec2-lb's failed POSTs by default: {ours}; nginx's by default: {nginx} (goal: no more)"),
            ours <= nginx && has_nginx && is_whole(Mix::PostsOnce),
        ),
        (
            format!("ec2-lb's failures when POSTs are sent again: {retried} (goal: 0)"),
            retried == 0 && is_whole(Mix::PostsRetried),
        ),
    ];
    goals.into_iter().map(|(text, is_met)| Goal::of(text, is_met)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::{Failure, Latency};

    fn one(mix: Mix, peer: Peer, failed: ByMethod, stall_ms: f64) -> Run {
        let mut report =
            Report { latency: Latency { max: stall_ms, ..Latency::default() }, ..Report::default() };
        if failed.all() > 0 {
            report.failures.insert(Failure::Status(502).to_string(), failed);
        }
        Run { mix, peer, report }
    }

    #[test]
    fn posts_may_fail_as_often_as_those_of_nginx() {
        let posts = |post| ByMethod { get: 0, post };
        let mut runs = vec![
            one(Mix::Gets, Peer::Ours, posts(0), 99.0),
            one(Mix::PostsOnce, Peer::Ours, posts(2), 500.0),
            one(Mix::PostsOnce, Peer::Nginx, posts(2), 10.0),
        ];
        let outcomes = |runs: &[Run]| judge(runs, 1).iter().map(Goal::is_met).collect::<Vec<_>>();
        // A goal without a measurement is not met.
        assert_eq!(outcomes(&runs), [true, true, true, false]);
        runs.push(one(Mix::PostsRetried, Peer::Ours, posts(0), 1.0));
        assert_eq!(outcomes(&runs), [true, true, true, true]);
        runs.push(one(Mix::Gets, Peer::Ours, ByMethod { get: 1, post: 0 }, 101.0));
        runs.push(one(Mix::PostsOnce, Peer::Ours, posts(1), 1.0));
        runs.push(one(Mix::PostsRetried, Peer::Ours, posts(1), 1.0));
        assert_eq!(outcomes(&runs), [false; 4]);
    }
}
