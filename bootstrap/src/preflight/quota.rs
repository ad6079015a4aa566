//! Computes what a stack needs of the account's quotas, and whether that fits. Pure, so that a table can test
//! it.
//!
//! | machines | quota of vCPUs | steady | besides, for a while |
//! |---|---|---|---|
//! | workers on demand | on demand | each | one, or a tenth of them, during a rollout |
//! | spot workers | spot | each | the same |
//! | load balancers | on demand, always | each | one more of each while it is replaced |
//!
//! If the steady state does not fit, the check fails. If only the additional machines of an update do not
//! fit, the stack works and is updated by stopping one machine first.

use fleet::quota;
use fleet::release::{Market, Rollout};

use crate::check::{Check, Verdict};

/// Codes of Service Quotas, and their place in its console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) service: &'static str,
    pub(crate) code: &'static str,
    pub(crate) path: &'static str,
}

pub(crate) const ON_DEMAND: Name = Name {
    service: "ec2",
    code: quota::ON_DEMAND_VCPUS,
    path: "EC2 → Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
};
pub(crate) const SPOT: Name = Name {
    service: "ec2",
    code: quota::SPOT_VCPUS,
    path: "EC2 → All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
};
pub(crate) const ADDRESSES: Name =
    Name { service: "ec2", code: quota::ELASTIC_IPS, path: "EC2 → EC2-VPC Elastic IPs" };
pub(crate) const VPCS: Name = Name { service: "vpc", code: quota::VPCS, path: "VPC → VPCs per Region" };

impl Name {
    fn ask_for(self, count: u32) -> String {
        format!("ask for {count} in the Service Quotas console: {} ({})", self.path, self.code)
    }
}

/// The account's limit, and how much of it others than this stack use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) limit: u32,
    pub(crate) used: u32,
}

impl Room {
    const fn left(self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// The stack's size, present or planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) workers: u32,
    pub(crate) balancers: u32,
    pub(crate) market: Market,
    pub(crate) instance_type: String,
}

/// The machines of a stack that share a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) market: Market,
    workers: u32,
    balancers: u32,
}

impl Size {
    pub(crate) fn demands(&self) -> Vec<Demand> {
        let Self { workers, balancers, market, .. } = *self;
        match market {
            Market::OnDemand => vec![Demand { market, workers, balancers }],
            Market::Spot => vec![
                Demand { market: Market::OnDemand, workers: 0, balancers },
                Demand { market, workers, balancers: 0 },
            ],
        }
    }
}

impl Demand {
    pub(crate) const fn check(self) -> &'static str {
        match self.market {
            Market::OnDemand => "vCPU quota",
            Market::Spot => "spot vCPU quota",
        }
    }

    pub(crate) const fn quota(self) -> Name {
        match self.market {
            Market::OnDemand => ON_DEMAND,
            Market::Spot => SPOT,
        }
    }

    /// Returns the number of machines that run all the time.
    const fn steady(self) -> u32 {
        self.workers + self.balancers
    }

    /// Returns the most machines at any time: a tenth of the workers, or one, beyond their number during a
    /// rollout (as in the reconciler's policy), and each load balancer's replacement.
    fn peak(self) -> u32 {
        let surge = if self.workers == 0 { 0 } else { self.workers.div_ceil(10) };
        self.steady() + surge + self.balancers
    }

    fn machines(self, instance_type: &str) -> String {
        let count = |n: u32, one: &str, several: &str| match n {
            0 => None,
            1 => Some(one.to_owned()),
            n => Some(format!("{n} {several}")),
        };
        let all = [
            count(self.workers, "a worker", "workers"),
            count(self.balancers, "a load balancer", "load balancers"),
        ];
        format!("{} of {instance_type}", all.into_iter().flatten().collect::<Vec<_>>().join(" and "))
    }

    /// Returns the most workers that would fit, with the load balancers unchanged.
    fn fits(self, room: Room, each: u32) -> u32 {
        (room.left() / each).saturating_sub(self.balancers).min(self.workers)
    }
}

/// Returns the check, and the kind of rollout that fits.
pub(crate) fn vcpus(demand: Demand, room: Room, instance_type: &str, each: u32) -> (Check, Rollout) {
    let Room { limit, used } = room;
    let name = demand.check();
    let [steady, one_more, peak] = [demand.steady(), demand.steady() + 1, demand.peak()].map(|n| n * each);
    let quota = demand.quota();
    let machines = demand.machines(instance_type);
    let kind = match demand.market {
        Market::OnDemand => "",
        Market::Spot => "spot ",
    };
    let rollout = if one_more > room.left() { Rollout::StopFirst } else { Rollout::SurgeFirst };
    let may_have = format!("the account may have {limit}, {used} are in use by others");
    let check = if steady > room.left() {
        let fits = demand.fits(room, each);
        let (fitting, first) = match (demand.workers, fits) {
            (0, _) => (String::new(), String::new()),
            (_, 0) => (": not even N=1 fits".to_owned(), String::new()),
            (_, n) => (format!(": N={n} fits"), format!("Deploy with N={n} (--workers {n}), or ")),
        };
        let ask = quota.ask_for(peak + used);
        let hint = if first.is_empty() { capitalised(&ask) } else { first + &ask };
        let detail = format!("needs {steady} {kind}vCPUs for {machines}; {may_have}{fitting}");
        Check::new(name, Verdict::Failed, detail).hint(format!("{hint}."))
    } else if peak > room.left() {
        let way = match rollout {
            Rollout::StopFirst => {
                "an update stops one machine before it launches the next, and a replacement waits until the \
                 machine that it replaces is gone"
            }
            Rollout::SurgeFirst => "an update replaces fewer machines at a time",
        };
        let detail = format!(
            "{steady} {kind}vCPUs for {machines} fit, {peak} for an update or a replacement do not; \
             {may_have}: {way}"
        );
        Check::new(name, Verdict::Warning, detail)
            .hint(format!("To keep all machines running during an update, {}.", quota.ask_for(peak + used)))
    } else {
        let detail = format!(
            "{steady} {kind}vCPUs for {machines}, {peak} with a rollout and replacements; {may_have}"
        );
        Check::new(name, Verdict::Ok, detail)
    };
    (check, rollout)
}

/// Over all demands together: if one has no room for a surge, the rollout stops first.
pub(crate) fn slowest(rollouts: impl IntoIterator<Item = Rollout>) -> Option<Rollout> {
    rollouts.into_iter().reduce(|all, one| if all == Rollout::StopFirst { all } else { one })
}

/// Checks things that a stack has a fixed number of, never one more for a while.
pub(crate) fn count(name: &'static str, what: &str, needed: u32, room: Room, quota: Name) -> Check {
    let Room { limit, used } = room;
    let detail = format!("needs {needed} {what}; the account may have {limit}, {used} are in use by others");
    if needed <= room.left() {
        return Check::new(name, Verdict::Ok, detail);
    }
    let ask = quota.ask_for(used + needed);
    Check::new(name, Verdict::Failed, detail).hint(format!("Delete an unused one, or {ask}."))
}

pub(crate) fn concurrency(limit: i32, unreserved: i32) -> Check {
    let name = "Lambda concurrency";
    let detail =
        format!("{unreserved} of {limit} concurrent executions are left to functions without a reservation");
    let ask = "ask for more in the Service Quotas console: Lambda → Concurrent executions (L-B99A9384)";
    match unreserved {
        ..=0 => Check::new(name, Verdict::Failed, detail).hint(format!("The reconciler needs one: {ask}.")),
        // New accounts have 10. The reconciler needs one, and shares it with all other functions.
        1..=10 => Check::new(name, Verdict::Warning, detail).hint(format!(
            "The reconciler needs one, which is enough unless other functions take them all: {ask}."
        )),
        _ => Check::new(name, Verdict::Ok, detail),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(workers: u32, balancers: u32, market: Market) -> Size {
        Size { workers, balancers, market, instance_type: "t4g.nano".to_owned() }
    }

    /// Returns verdict and rollout of each demand, in a room for both quotas.
    fn judged(size: &Size, limit: u32, used: u32) -> Vec<(Verdict, Rollout)> {
        let all = size.demands().into_iter();
        all.map(|demand| vcpus(demand, Room { limit, used }, &size.instance_type, 2))
            .map(|(check, rollout)| (check.verdict, rollout))
            .collect()
    }

    #[test]
    fn a_quota_is_judged_by_steady_state_and_peak() {
        use Market::{OnDemand, Spot};
        use Rollout::{StopFirst, SurgeFirst};
        use Verdict::{Failed, Ok, Warning};
        for (workers, balancers, market, limit, used, expected) in [
            // Three workers and a load balancer: 8 vCPUs all the time, 12 at most.
            (3, 1, OnDemand, 12, 0, vec![(Ok, SurgeFirst)]),
            (3, 1, OnDemand, 11, 0, vec![(Warning, SurgeFirst)]),
            (3, 1, OnDemand, 10, 0, vec![(Warning, SurgeFirst)]),
            (3, 1, OnDemand, 9, 0, vec![(Warning, StopFirst)]),
            (3, 1, OnDemand, 8, 0, vec![(Warning, StopFirst)]),
            (3, 1, OnDemand, 7, 0, vec![(Failed, StopFirst)]),
            (3, 1, OnDemand, 12, 4, vec![(Warning, StopFirst)]),
            (3, 1, OnDemand, 12, 5, vec![(Failed, StopFirst)]),
            // A new account.
            (1, 1, OnDemand, 5, 0, vec![(Warning, StopFirst)]),
            (1, 1, OnDemand, 1, 0, vec![(Failed, StopFirst)]),
            (1, 1, OnDemand, 5, 7, vec![(Failed, StopFirst)]),
            (20, 2, OnDemand, 52, 0, vec![(Ok, SurgeFirst)]),
            // Spot workers do not count towards the on-demand quota, nor load balancers towards the spot
            // quota.
            (2, 1, Spot, 5, 0, vec![(Ok, SurgeFirst), (Warning, StopFirst)]),
            (3, 1, Spot, 5, 0, vec![(Ok, SurgeFirst), (Failed, StopFirst)]),
            (3, 2, Spot, 7, 0, vec![(Warning, SurgeFirst), (Warning, StopFirst)]),
        ] {
            let got = judged(&size(workers, balancers, market), limit, used);
            assert_eq!(got, expected, "{workers} workers, {balancers} lbs, {market:?}, {limit}, {used} used");
        }
    }

    #[test]
    fn a_failure_names_the_fitting_number_and_the_needed_quota() {
        let fails = |workers, balancers, market, limit, used| {
            let size = size(workers, balancers, market);
            let all = size.demands().into_iter();
            let mut all = all.map(|demand| vcpus(demand, Room { limit, used }, "t4g.nano", 2).0);
            let failed = all.rfind(|check| check.verdict == Verdict::Failed).expect("one fails");
            format!("{} | {}", failed.detail, failed.hint.expect("what to do"))
        };
        assert_eq!(
            fails(3, 1, Market::OnDemand, 5, 0),
            "needs 8 vCPUs for 3 workers and a load balancer of t4g.nano; the account may have 5, 0 are in use \
             by others: N=1 fits | Deploy with N=1 (--workers 1), or ask for 12 in the Service Quotas console: \
             EC2 → Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances (L-1216C47A)."
        );
        let nothing = fails(1, 1, Market::OnDemand, 5, 4);
        assert!(nothing.contains("not even N=1 fits | Ask for 12 "), "{nothing}");
        let spot = fails(9, 1, Market::Spot, 5, 0);
        assert!(spot.contains("18 spot vCPUs for 9 workers of") && spot.contains("N=2 fits"), "{spot}");
        assert!(spot.contains("L-34B43A08"), "{spot}");
        let balancers = fails(1, 2, Market::Spot, 3, 0);
        assert!(balancers.starts_with("needs 4 vCPUs for 2 load balancers of t4g.nano"), "{balancers}");
        assert!(balancers.contains("by others | Ask for 8 "), "{balancers}");
    }

    #[test]
    fn one_market_without_room_for_a_surge_decides() {
        use Rollout::{StopFirst, SurgeFirst};
        assert_eq!(slowest([SurgeFirst, StopFirst]), Some(StopFirst));
        assert_eq!(slowest([StopFirst, SurgeFirst]), Some(StopFirst));
        assert_eq!(slowest([SurgeFirst]), Some(SurgeFirst));
        assert_eq!(slowest([]), None);
    }

    #[test]
    fn addresses_and_vpcs_either_fit_or_do_not() {
        let judge = |needed, limit, used| {
            count("Elastic IP quota", "Elastic IPs", needed, Room { limit, used }, ADDRESSES)
        };
        assert_eq!(judge(1, 5, 4).verdict, Verdict::Ok);
        assert_eq!(judge(2, 5, 4).verdict, Verdict::Failed);
        assert_eq!(judge(1, 5, 6).verdict, Verdict::Failed);
        assert!(judge(2, 5, 4).hint.expect("what to do").contains("ask for 6 in"));
    }

    #[test]
    fn the_reconciler_needs_one_concurrent_execution() {
        assert_eq!(
            [0, 10, 1000].map(|left| concurrency(1000, left).verdict),
            [Verdict::Failed, Verdict::Warning, Verdict::Ok]
        );
    }
}
