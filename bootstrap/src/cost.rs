//! What a stack costs in a month when nobody uses it, from the list prices in `prices.json`.
//!
//! Each figure is a unit price times a number that follows from the code, so that it can be checked.
//! What depends on use is not in it: traffic to the internet, requests of users, their objects.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::cli::Arch;

/// GB of a disk, see `instance.rs`.
const DISK_GB: f64 = 8.0;
/// Of the function: 128 MB, see `function.rs`.
const FUNCTION_GB: f64 = 0.125;
/// An invocation ends about 42 s after it began, its last tick included.
const INVOCATION_SECONDS: f64 = 42.0;
const MINUTES_PER_HOUR: f64 = 60.0;
const TICKS_PER_HOUR: f64 = 180.0;
/// A tick reads memory, release, desired count and registry, and writes memory.
const GETS_PER_TICK: f64 = 4.0;
const PUTS_PER_TICK: f64 = 1.0;
/// A load balancer looks at the registry every two seconds, a worker at its two secrets once a minute.
const GETS_PER_HOUR_OF_A_BALANCER: f64 = 1800.0;
const GETS_PER_HOUR_OF_A_WORKER: f64 = 120.0;
/// Burstable instances are not told otherwise, and so have no limit.
const CREDITS: &str = "a worker that hashes all day costs more: surplus processor credits, see docs/cost.md";

#[derive(Deserialize)]
struct Prices {
    region: String,
    as_of: String,
    source: String,
    hours_per_month: f64,
    instance_hour: BTreeMap<String, f64>,
    gp3_gb_month: f64,
    public_ipv4_hour: f64,
    interface_endpoint_zone_hour: f64,
    lambda_gb_second: BTreeMap<String, f64>,
    lambda_request: f64,
    s3_put: f64,
    s3_get: f64,
}

/// What there is to be paid for.
#[derive(Clone, Debug)]
pub struct Size {
    pub workers: u32,
    pub is_spot: bool,
    pub balancers: u32,
    pub instance_type: String,
    pub arch: Arch,
    /// Zones in which there is an interface endpoint.
    pub endpoint_zones: u32,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub region: String,
    pub as_of: String,
    pub source: String,
    /// In US dollars per month; `None` where a line has no price.
    pub total: Option<f64>,
    pub lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Line {
    pub what: String,
    pub dollars: Option<f64>,
    /// What to know of the figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

pub fn estimate(size: &Size) -> Estimate {
    let prices: Prices =
        serde_json::from_str(include_str!("prices.json")).expect("the prices are what a test reads");
    let hours = prices.hours_per_month;
    let (workers, balancers) = (f64::from(size.workers), f64::from(size.balancers));
    let hour = prices.instance_hour.get(&size.instance_type).copied();
    let no_price = || format!("prices.json has no price of {}", size.instance_type);
    let instances = |count: f64, what: &str, note: Option<String>| Line {
        what: format!("{count} {what}, {}", size.instance_type),
        dollars: hour.map(|hour| hour * hours * count),
        note: if hour.is_some() { note } else { Some(no_price()) },
    };
    let spot = "at the price on demand; spot instances cost less, and how much changes by the hour";
    let is_burstable = size.instance_type.starts_with('t');
    let notes: Vec<&str> =
        size.is_spot.then_some(spot).into_iter().chain(is_burstable.then_some(CREDITS)).collect();
    let workers_note = (!notes.is_empty()).then(|| notes.join("; "));
    let line = |what: String, dollars| Line { what, dollars: Some(dollars), note: None };
    let gb_second = prices.lambda_gb_second[size.arch.as_str()];
    let invocations = MINUTES_PER_HOUR * hours;
    let gets = GETS_PER_TICK * TICKS_PER_HOUR
        + GETS_PER_HOUR_OF_A_BALANCER * balancers
        + GETS_PER_HOUR_OF_A_WORKER * workers;
    let puts = PUTS_PER_TICK * TICKS_PER_HOUR;
    let mut lines = vec![
        instances(workers, "workers", workers_note),
        instances(balancers, "load balancers", None),
        line(
            format!("{} disks of {DISK_GB} GB, gp3", workers + balancers),
            (workers + balancers) * DISK_GB * prices.gp3_gb_month,
        ),
        line(format!("{balancers} public IPv4 addresses"), balancers * prices.public_ipv4_hour * hours),
        line(
            "the reconciler's function, always on".to_owned(),
            invocations * (INVOCATION_SECONDS * FUNCTION_GB * gb_second + prices.lambda_request),
        ),
        line(
            "S3 requests of an idle stack".to_owned(),
            hours * (gets * prices.s3_get + puts * prices.s3_put),
        ),
    ];
    if size.endpoint_zones > 0 {
        let zones = f64::from(size.endpoint_zones);
        lines.push(line(
            format!("the interface endpoint of EC2 in {zones} zones"),
            zones * prices.interface_endpoint_zone_hour * hours,
        ));
    }
    Estimate {
        region: prices.region,
        as_of: prices.as_of,
        source: prices.source,
        total: lines.iter().map(|line| line.dollars).sum(),
        lines,
    }
}

impl Estimate {
    /// For people; `region` is the stack's.
    pub fn table(&self, region: &str) -> String {
        let dollars =
            |dollars: Option<f64>| dollars.map_or("no price".to_owned(), |dollars| format!("{dollars:.2}"));
        let mut text = format!("Cost per month in USD, list prices of {} as of {}", self.region, self.as_of);
        if region != self.region {
            text.push_str(&format!("; those of {region} differ"));
        }
        for line in &self.lines {
            text.push_str(&format!("\n  {:>8}  {}", dollars(line.dollars), line.what));
            if let Some(note) = &line.note {
                text.push_str(&format!(" ({note})"));
            }
        }
        let total = match self.total {
            Some(total) => format!("{total:.2}  in all"),
            None => {
                let known: f64 = self.lines.iter().filter_map(|line| line.dollars).sum();
                format!("{known:.2}  in all, without what has no price")
            }
        };
        text.push_str(&format!("\n  {total:>8}\n  {}.", self.source));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(instance_type: &str) -> Size {
        Size {
            workers: 3,
            is_spot: false,
            balancers: 1,
            instance_type: instance_type.to_owned(),
            arch: Arch::Arm64,
            endpoint_zones: 0,
        }
    }

    #[test]
    fn every_type_that_is_promised_has_a_price() {
        for family in ["t3", "t4g"] {
            for of in ["nano", "micro", "small", "medium"] {
                assert!(estimate(&size(&format!("{family}.{of}"))).total.is_some(), "{family}.{of}");
            }
        }
    }

    #[test]
    fn the_total_is_what_a_person_reckons() {
        let total = estimate(&size("t4g.micro")).total.expect("all have prices");
        // Instances, disks, address, function, S3.
        let by_hand = 4.0 * 6.132 + 4.0 * 0.64 + 3.65 + 3.0748 + 0.8410 + 0.657;
        assert!((total - by_hand).abs() < 0.02, "{total} instead of {by_hand}");
    }

    #[test]
    fn what_has_no_price_is_said_and_not_guessed() {
        let estimate = estimate(&size("m9z.huge"));
        assert_eq!(estimate.total, None);
        let text = estimate.table("eu-west-1");
        assert!(
            text.contains("no price  3 workers, m9z.huge (prices.json has no price of m9z.huge)"),
            "{text}"
        );
        assert!(text.contains("those of eu-west-1 differ"), "{text}");
        assert!(text.contains("in all, without what has no price"), "{text}");
    }

    #[test]
    fn it_is_said_that_a_busy_worker_may_cost_more() {
        let note = |instance_type| estimate(&size(instance_type)).lines[0].note.clone();
        assert!(note("t4g.micro").is_some_and(|note| note.contains("surplus processor credits")));
        assert!(!note("m9z.huge").is_some_and(|note| note.contains("credits")), "it earns none");
    }

    #[test]
    fn an_interface_endpoint_is_paid_for_in_each_zone() {
        let with = estimate(&Size { endpoint_zones: 2, ..size("t4g.micro") });
        let extra = with.total.expect("a price") - estimate(&size("t4g.micro")).total.expect("a price");
        assert!((extra - 14.6).abs() < 0.001, "{extra}");
    }
}
