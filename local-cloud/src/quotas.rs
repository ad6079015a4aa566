//! The account's quotas: their names at AWS, their names here, and the resources that count towards them.
//!
//! The values apply to each region separately, as at AWS, but are the same in all of them, unlike at AWS.
//! They can be changed while the local cloud runs.

use std::collections::BTreeMap;

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Quota {
    Vcpus,
    SpotVcpus,
    Addresses,
    Vpcs,
    Concurrency,
}

/// A quota's entry in Service Quotas.
pub struct Listing {
    pub service: &'static str,
    pub service_name: &'static str,
    pub code: &'static str,
    pub name: &'static str,
    /// The value in an account that never requested more.
    pub default: u32,
}

impl Quota {
    pub const ALL: [Self; 5] = [Self::Vcpus, Self::SpotVcpus, Self::Addresses, Self::Vpcs, Self::Concurrency];

    pub fn listing(self) -> Listing {
        let ec2 = ("ec2", "Amazon Elastic Compute Cloud (Amazon EC2)");
        let vpc = ("vpc", "Amazon Virtual Private Cloud (Amazon VPC)");
        let ((service, service_name), code, name, default) = match self {
            Self::Vcpus => {
                (ec2, "L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5)
            }
            Self::SpotVcpus => {
                (ec2, "L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 5)
            }
            Self::Addresses => (ec2, "L-0263D0A3", "EC2-VPC Elastic IPs", 5),
            Self::Vpcs => (vpc, "L-F678F1CE", "VPCs per Region", 5),
            Self::Concurrency => (("lambda", "AWS Lambda"), "L-B99A9384", "Concurrent executions", 1000),
        };
        Listing { service, service_name, code, name, default }
    }
}

/// Values by quota; also a change, which omits unchanged values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quotas(BTreeMap<Quota, u32>);

impl Quotas {
    /// More than a fleet on one machine and its tests need. There are as many Elastic IPs as addresses.
    pub fn generous(addresses: usize) -> Self {
        let addresses = u32::try_from(addresses).unwrap_or(u32::MAX);
        Self(BTreeMap::from([
            (Quota::Vcpus, 64),
            (Quota::SpotVcpus, 64),
            (Quota::Addresses, addresses),
            (Quota::Vpcs, 64),
            (Quota::Concurrency, 1000),
        ]))
    }

    pub fn change(mut self, changes: &Self) -> Self {
        self.0.extend(&changes.0);
        self
    }

    pub fn of(&self, quota: Quota) -> u32 {
        self.0.get(&quota).copied().unwrap_or_else(|| quota.listing().default)
    }

    /// Parses `vcpus=5` and so on.
    pub fn parse(pairs: &[(Quota, u32)]) -> Self {
        Self(pairs.iter().copied().collect())
    }

    pub fn pairs(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(quota, value)| {
            let name = quota.to_possible_value().map(|value| value.get_name().to_owned());
            format!("{}={value}", name.unwrap_or_default())
        })
    }
}

/// Parses `vcpus=5` of the command line.
pub fn pair(text: &str) -> Result<(Quota, u32), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not QUOTA=NUMBER"))?;
    let quota = Quota::from_str(name, false).map_err(|_| {
        let names: Vec<String> = Quotas::generous(0).pairs().collect();
        let names: Vec<&str> = names.iter().filter_map(|pair| pair.split('=').next()).collect();
        format!("there is no quota `{name}`; the quotas are {}", names.join(", "))
    })?;
    let value = value.parse().map_err(|_| format!("`{value}` is not a whole number"))?;
    Ok((quota, value))
}

/// Families whose vCPUs share one quota. The family of `im4gn.large` is `im`; `inf1.xlarge` belongs to
/// another.
const STANDARD: [&str; 11] = ["a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"];

/// Returns the vCPUs that an instance of this type uses of the quota for standard instances. `None` if it
/// belongs to another quota, which the local cloud does not have.
pub fn standard_vcpus(instance_type: &str) -> Option<u32> {
    let (generation, size) = instance_type.split_once('.')?;
    let family = generation.split(|letter: char| letter.is_ascii_digit()).next()?;
    STANDARD.contains(&family).then(|| vcpus(generation, size))
}

/// Returns the vCPUs of EC2's sizes. Burstable types have two vCPUs up to `large`, since T3; Graviton's
/// `medium` has one.
fn vcpus(generation: &str, size: &str) -> u32 {
    let times = size.strip_suffix("xlarge").map(|times| if times.is_empty() { Ok(1) } else { times.parse() });
    match (generation, size, times) {
        (_, _, Some(Ok(times))) => 4_u32.saturating_mul(times),
        ("t1" | "t2", "nano" | "micro" | "small", _) | ("m1", "small" | "medium", _) => 1,
        (generation, "medium", _) if !generation.starts_with('t') => 1,
        (_, "nano" | "micro" | "small" | "medium" | "large", _) => 2,
        // The largest of the family.
        _ => 96,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_vcpus_that_ec2_says() {
        let known = [
            ("t4g.nano", 2),
            ("t3.micro", 2),
            ("t3a.medium", 2),
            ("t2.nano", 1),
            ("t2.medium", 2),
            ("t4g.xlarge", 4),
            ("m7g.medium", 1),
            ("m5.large", 2),
            ("c7gn.16xlarge", 64),
            ("im4gn.large", 2),
            ("m5.metal", 96),
        ];
        for (name, vcpus) in known {
            assert_eq!(standard_vcpus(name), Some(vcpus), "{name}");
        }
    }

    #[test]
    fn other_families_have_other_quotas() {
        for name in
            ["inf1.xlarge", "g5.xlarge", "p4d.24xlarge", "hpc7g.4xlarge", "mac2.metal", "x2gd.large", "t3"]
        {
            assert_eq!(standard_vcpus(name), None, "{name}");
        }
    }

    #[test]
    fn a_change_leaves_the_others_alone() {
        let change = Quotas::parse(&[pair("spot-vcpus=3").expect("valid")]);
        let changed = Quotas::generous(4).change(&change);
        assert_eq!([Quota::SpotVcpus, Quota::Vcpus, Quota::Addresses].map(|of| changed.of(of)), [3, 64, 4]);
        let back: Quotas = serde_json::from_str(r#"{"spot-vcpus": 3}"#).expect("JSON");
        assert_eq!(back, change);
    }

    #[test]
    fn a_wrong_pair_is_refused_with_the_known_quotas() {
        let error = pair("cpus=3").expect_err("no such quota");
        assert_eq!(
            error,
            "there is no quota `cpus`; the quotas are vcpus, spot-vcpus, addresses, vpcs, concurrency"
        );
        assert!(pair("vcpus").is_err() && pair("vcpus=many").is_err());
    }
}
