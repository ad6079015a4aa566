//! Computes the monthly cost of an idle stack from the list prices in `prices.json`.
//!
//! Each figure is a unit price times a number derived from the code, so that it can be checked. Costs that
//! depend on use are excluded: traffic to the internet, users' requests and objects.

use fleet::release::Credits;
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
/// A machine boots in at most three minutes, is switched to `standard` after five minutes of serving, and a
/// tick may come 20 s late.
const SURPLUS_HOURS: f64 = 9.0 / 60.0;
const VCPUS: f64 = 2.0;
/// Lambda's free tier in a month, which never expires.
const FREE_GB_SECONDS: f64 = 400_000.0;
const FREE_REQUESTS: f64 = 1_000_000.0;

#[derive(Deserialize)]
struct Prices {
    region: String,
    as_of: String,
    source: String,
    hours_per_month: f64,
    instance_hour: BTreeMap<String, f64>,
    /// Price by family, for CPU time beyond the earned credits while the instance is `unlimited`.
    surplus_vcpu_hour: BTreeMap<String, f64>,
    gp3_gb_month: f64,
    public_ipv4_hour: f64,
    interface_endpoint_zone_hour: f64,
    lambda_gb_second: BTreeMap<String, f64>,
    lambda_request: f64,
    s3_put: f64,
    s3_get: f64,
}

/// The resources that AWS bills.
#[derive(Clone, Debug)]
pub struct Size {
    pub workers: u32,
    pub is_spot: bool,
    pub balancers: u32,
    pub instance_type: String,
    pub credits: Credits,
    pub arch: Arch,
    /// Zones with an interface endpoint.
    pub endpoint_zones: u32,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub region: String,
    pub as_of: String,
    pub source: String,
    /// In US dollars per month; `None` if a line has no price.
    pub total: Option<f64>,
    /// The same for an account whose Lambda free tier covers the function, as most accounts' does.
    pub total_with_free_function: Option<f64>,
    pub lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Line {
    pub what: String,
    pub dollars: Option<f64>,
    /// Remarks about the figure.
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
    let spot = "at the on-demand price; spot instances cost less, at a price that changes hourly";
    let notes: Vec<String> =
        size.is_spot.then(|| spot.to_owned()).into_iter().chain(credits(size, &prices)).collect();
    let workers_note = (!notes.is_empty()).then(|| notes.join("; "));
    let line = |what: String, dollars| Line { what, dollars: Some(dollars), note: None };
    let gb_second = prices.lambda_gb_second[size.arch.as_str()];
    let invocations = MINUTES_PER_HOUR * hours;
    let gb_seconds = invocations * INVOCATION_SECONDS * FUNCTION_GB;
    let function = gb_seconds * gb_second + invocations * prices.lambda_request;
    let is_free = gb_seconds <= FREE_GB_SECONDS && invocations <= FREE_REQUESTS;
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
        line("the reconciler's function, always on".to_owned(), function),
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
    let total: Option<f64> = lines.iter().map(|line| line.dollars).sum();
    Estimate {
        region: prices.region,
        as_of: prices.as_of,
        source: prices.source,
        total,
        total_with_free_function: total.filter(|_| is_free).map(|total| total - function),
        lines,
    }
}

/// Returns the most that a flood of sign-ins can add: hashing takes more CPU time than a burstable instance
/// earns.
fn credits(size: &Size, prices: &Prices) -> Option<String> {
    let family = size.instance_type.split('.').next().unwrap_or_default();
    let surplus = prices.surplus_vcpu_hour.get(family)?;
    Some(match size.credits {
        Credits::Standard => format!(
            "CPU credits are capped: at most {:.1} cents for each launch",
            100.0 * surplus * VCPUS * SURPLUS_HOURS
        ),
        Credits::Unlimited => format!(
            "CPU credits are unlimited: a worker that hashes all the time costs up to {:.0} more, see docs/cost.md",
            surplus * VCPUS * prices.hours_per_month
        ),
    })
}

impl Estimate {
    /// Formats the cost for people; `region` is the stack's.
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
            Some(total) => format!("{total:>8.2}  in all"),
            None => {
                let known: f64 = self.lines.iter().filter_map(|line| line.dollars).sum();
                format!("{known:>8.2}  in all, without what has no price")
            }
        };
        text.push_str(&format!("\n  {total}"));
        if let Some(total) = self.total_with_free_function {
            text.push_str(&format!("\n  {total:>8.2}  while Lambda's free tier covers the function"));
        }
        text.push_str(&format!("\n  {}.", self.source));
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
            credits: Credits::Standard,
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
    fn a_missing_price_is_reported_and_not_guessed() {
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
    fn three_small_workers_cost_at_most_20_dollars() {
        let estimate = estimate(&size("t4g.nano"));
        let total = estimate.total_with_free_function.expect("the function fits the free tier");
        assert!((19.0..=20.0).contains(&total), "{total}");
        assert!(estimate.table("us-east-1").contains("19.97  while Lambda's free tier"), "{estimate:?}");
    }

    #[test]
    fn surplus_credits_are_in_the_note() {
        let note = |instance_type, credits| {
            let size = Size { credits, ..size(instance_type) };
            estimate(&size).lines[0].note.clone().unwrap_or_default()
        };
        assert!(note("t4g.nano", Credits::Standard).contains("at most 1.2 cents for each launch"));
        assert!(note("t3.nano", Credits::Standard).contains("at most 1.5 cents"));
        assert!(note("t3.nano", Credits::Unlimited).contains("up to 73 more"));
        assert!(!note("m9z.huge", Credits::Standard).contains("credits"), "it earns none");
    }

    #[test]
    fn an_interface_endpoint_is_paid_for_in_each_zone() {
        let with = estimate(&Size { endpoint_zones: 2, ..size("t4g.micro") });
        let extra = with.total.expect("a price") - estimate(&size("t4g.micro")).total.expect("a price");
        assert!((extra - 14.6).abs() < 0.001, "{extra}");
    }
}
