//! The goals of issues 4 and 15 for the load balancer, against the measurements.

use serde::Serialize;

use super::memory::CLIENTS;
use super::peer::Peer;
use super::results::{Results, Row};
use super::scenario::Scenario;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    Met,
    Missed,
    /// The peer is missing. If ec2-lb cannot do it, the goal is missed.
    NotMeasured,
}

#[derive(Debug, Serialize)]
pub struct Goal {
    pub text: String,
    pub outcome: Outcome,
}

impl Goal {
    pub fn line(&self) -> String {
        let word = match self.outcome {
            Outcome::Met => "met:   ",
            Outcome::Missed => "MISSED:",
            Outcome::NotMeasured => "not measured:",
        };
        format!("{word} {}", self.text)
    }

    pub fn of(text: String, is_met: bool) -> Self {
        Self { text, outcome: if is_met { Outcome::Met } else { Outcome::Missed } }
    }

    pub fn is_met(&self) -> bool {
        self.outcome == Outcome::Met
    }

    /// Makes a goal without a figure, because ec2-lb or the peer has none.
    fn open(text: String, ours: Option<&Row>) -> Self {
        match ours {
            None => Self { text: format!("{text}, but ec2-lb was not"), outcome: Outcome::Missed },
            Some(_) => Self { text, outcome: Outcome::NotMeasured },
        }
    }
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Copy)]
enum Quantity {
    Cpu,
    PerSecond,
}

/// Ratios of ec2-lb to a peer, by medians.
const RATIOS: [(Scenario, Quantity, Peer, Bound); 9] = {
    use Bound::{AtLeast, AtMost};
    use Quantity::{Cpu, PerSecond};
    use Scenario::{Churn, Download, KeepAlive64, Tls, Upload};
    [
        (KeepAlive64, Cpu, Peer::Nginx, AtMost(0.75)),
        (KeepAlive64, Cpu, Peer::Haproxy, AtMost(0.70)),
        (KeepAlive64, Cpu, Peer::Pingora, AtMost(0.40)),
        (KeepAlive64, PerSecond, Peer::Nginx, AtLeast(1.3)),
        (KeepAlive64, PerSecond, Peer::Haproxy, AtLeast(1.3)),
        (Download, Cpu, Peer::Nginx, AtMost(1.0)),
        (Upload, Cpu, Peer::Nginx, AtMost(0.95)),
        (Churn, Cpu, Peer::Nginx, AtMost(0.95)),
        (Tls, Cpu, Peer::Nginx, AtMost(1.1)),
    ]
};

/// Scenarios whose tail is compared with the best peer's.
const TAILS: [Scenario; 3] = [Scenario::KeepAlive64, Scenario::KeepAlive256, Scenario::Steady];

const KIB_PER_IDLE_CLIENT: f64 = 0.6;

pub fn judge(results: &Results) -> Vec<Goal> {
    let mut goals: Vec<Goal> = RATIOS.iter().map(|goal| ratio(results, *goal)).collect();
    goals.extend(TAILS.iter().map(|scenario| tail(results, *scenario)));
    goals.push(idle_client(results));
    goals.push(failures(results));
    goals
}

fn ratio(results: &Results, goal: (Scenario, Quantity, Peer, Bound)) -> Goal {
    let (scenario, quantity, peer, bound) = goal;
    let what = match quantity {
        Quantity::Cpu => "CPU per request",
        Quantity::PerSecond => "requests per core",
    };
    let asked = match bound {
        Bound::AtMost(most) => format!("at most {most:.2}"),
        Bound::AtLeast(least) => format!("at least {least:.2}"),
    };
    let text = format!("{what}, ratio to {peer}'s, {}: ", scenario.title());
    let rows = (results.row(scenario, Peer::Ours), results.row(scenario, peer));
    let (Some(ours), Some(theirs)) = rows else {
        return Goal::open(format!("{text}(goal: {asked})"), rows.0.as_ref());
    };
    let value = |row: &Row| match quantity {
        Quantity::Cpu => row.cpu_seconds_per_100k.median,
        Quantity::PerSecond => row.per_second.median,
    };
    let ratio = value(&ours) / value(&theirs);
    let is_met = match bound {
        Bound::AtMost(most) => ratio <= most,
        Bound::AtLeast(least) => ratio >= least,
    };
    Goal::of(format!("{text}{ratio:.2} (goal: {asked})"), is_met)
}

fn tail(results: &Results, scenario: Scenario) -> Goal {
    let text = format!("p99, {}: ", scenario.title());
    let peers = results.rows(scenario).into_iter().filter(|row| row.peer != Peer::Ours);
    let best = peers.min_by(|one, other| one.p99_ms.median.total_cmp(&other.p99_ms.median));
    let rows = (results.row(scenario, Peer::Ours), best);
    let (Some(ours), Some(best)) = rows else {
        return Goal::open(format!("{text}(goal: no worse than the best peer)"), rows.0.as_ref());
    };
    let (mine, theirs) = (ours.p99_ms.median, best.p99_ms.median);
    Goal::of(format!("{text}{mine:.2} ms; the best peer, {}: {theirs:.2} ms", best.peer), mine <= theirs)
}

fn idle_client(results: &Results) -> Goal {
    let goal = format!("(goal: at most {KIB_PER_IDLE_CLIENT})");
    let Some(ours) = results.memory_row(Peer::Ours) else {
        return Goal::open(format!("KiB per idle client {goal}"), None);
    };
    let kib = ours.kib_per_client.median;
    let text = format!("KiB per idle client, of {CLIENTS}: {kib:.2} {goal}");
    Goal::of(text, kib <= KIB_PER_IDLE_CLIENT)
}

fn failures(results: &Results) -> Goal {
    let ours = results.samples.iter().filter(|sample| sample.peer == Peer::Ours);
    let failed: u64 = ours.map(|sample| sample.report.failed().all()).sum();
    Goal::of(format!("ec2-lb's failures in all scenarios: {failed} (goal: 0)"), failed == 0)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::sample;
    use super::*;

    fn outcome<'a>(goals: &'a [Goal], start: &str) -> (&'a str, Outcome) {
        let goal = goals.iter().find(|goal| goal.text.starts_with(start)).expect("there is such a goal");
        (&goal.text, goal.outcome)
    }

    #[test]
    fn goals_are_judged_by_ratios() {
        let scenario = Scenario::KeepAlive64;
        let mut results = Results::default();
        results.samples.push(sample(scenario, Peer::Ours, 140_000, 1.4, 3.0));
        results.samples.push(sample(scenario, Peer::Nginx, 100_000, 1.5, 2.9));
        results.samples.push(sample(scenario, Peer::Haproxy, 110_000, 1.1, 5.0));
        let goals = judge(&results);
        let cpu = "CPU per request, ratio to nginx's, keep-alive, 64 connections: 0.67 (goal: at most 0.75)";
        assert_eq!(outcome(&goals, "CPU per request, ratio to nginx's, keep"), (cpu, Outcome::Met));
        assert_eq!(outcome(&goals, "CPU per request, ratio to HAProxy's, keep").1, Outcome::Missed);
        assert_eq!(outcome(&goals, "CPU per request, ratio to Pingora's").1, Outcome::NotMeasured);
        assert_eq!(outcome(&goals, "requests per core, ratio to nginx's").1, Outcome::Met);
        assert_eq!(outcome(&goals, "requests per core, ratio to HAProxy's").1, Outcome::Missed);
        let tail = "p99, keep-alive, 64 connections: 3.00 ms; the best peer, nginx: 2.90 ms";
        assert_eq!(outcome(&goals, "p99, keep-alive, 64 connections:"), (tail, Outcome::Missed));
        // A peer may be missing, but not ec2-lb.
        assert_eq!(outcome(&goals, "KiB per idle client").1, Outcome::Missed);
        assert_eq!(outcome(&goals, "ec2-lb's failures").1, Outcome::Met);
    }
}
