//! `fleet/release.json`: the definition of a worker, and of a load balancer.
//!
//! `deploy` writes it, the reconciler launches from it. It names everything by value (an AMI id, an
//! artifact's hash inside the user data), never by a moving alias: a launch that is repeated with
//! the same client token must carry the same parameters, or EC2 refuses it.

use serde::{Deserialize, Serialize};

use crate::{Policy, Profile, StackName};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    /// Short hash of what a worker is; the value of the tag `vigia:release`.
    pub id: String,
    pub stack: StackName,
    pub profile: Profile,
    pub version: String,
    pub worker: InstanceSpec,
    /// What a load balancer is, as far as one has served; a change of it is no new release of the
    /// workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancer: Option<BalancerSpec>,
    /// How a rollout proceeds. Not part of `id`: a quota that was raised makes no new release.
    #[serde(default, skip_serializing_if = "Rollout::is_surge_first")]
    pub rollout: Rollout,
    /// The numbers that the reconciler decides by. Not part of `id`: another policy makes no new release.
    #[serde(default, skip_serializing_if = "Policy::is_default")]
    pub policy: Policy,
}

/// Which comes first when workers of an older release are replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rollout {
    /// A new worker is launched beyond the desired number, and an old one goes when it serves.
    #[default]
    SurgeFirst,
    /// The account's quota has no room for an extra worker: an old one goes, then a new one is launched.
    StopFirst,
}

impl Rollout {
    fn is_surge_first(&self) -> bool {
        *self == Self::SurgeFirst
    }
}

/// What the reconciler needs to replace a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BalancerSpec {
    /// Short hash of `instance`; the value of the tag `vigia:release` on load balancers.
    pub id: String,
    /// The Elastic IP's allocation id.
    pub allocation: String,
    /// Elastic IPs of further load balancers, which are the same but for their address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_allocations: Vec<String>,
    pub instance: InstanceSpec,
}

/// Everything `RunInstances` needs apart from the slot: subnet, tags and client token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstanceSpec {
    pub ami: String,
    pub instance_type: String,
    pub subnets: Vec<SubnetSpec>,
    pub security_group: String,
    pub instance_profile: String,
    /// Plain text; encoded when it is sent. At most 16 KiB, EC2's limit.
    pub user_data: String,
    /// Left out on demand, so that a definition from before there was a choice has the same id.
    #[serde(default, skip_serializing_if = "Market::is_on_demand")]
    pub market: Market,
    /// Left out if standard, for the same reason.
    #[serde(default, skip_serializing_if = "Credits::is_standard")]
    pub credits: Credits,
}

/// What EC2 may do with an instance that it needs back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    #[default]
    OnDemand,
    /// Cheaper, and EC2 ends it two minutes after it has said so.
    Spot,
}

impl Market {
    fn is_on_demand(&self) -> bool {
        *self == Self::OnDemand
    }
}

/// What an instance of a burstable type (t2, t3, t3a, t4g) may spend on CPU time beyond its baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credits {
    /// Nothing, so that a flood of sign-ins runs up no bill. T3 and T4g get no launch credits in the mode
    /// `standard` and would boot at their baseline, so they are launched as `unlimited` and switched when
    /// they have served for five minutes.
    #[default]
    Standard,
    /// Whatever it takes: CPU time beyond the credits earned is billed.
    Unlimited,
}

impl Credits {
    fn is_standard(&self) -> bool {
        *self == Self::Standard
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubnetSpec {
    pub id: String,
    pub zone: String,
}

impl InstanceSpec {
    /// Whether the instance type has CPU credits: EC2 refuses a credit option for any other.
    pub fn is_burstable(&self) -> bool {
        let family = self.instance_type.split('.').next().unwrap_or("");
        matches!(family, "t2" | "t3" | "t3a" | "t4g")
    }
}

impl Release {
    /// Readers refuse a larger object: user data is at most 16 KiB, the rest well under 4.
    pub const MAX_BYTES: usize = 64 * 1024;

    pub fn new(stack: StackName, profile: Profile, version: String, worker: InstanceSpec) -> Self {
        let (id, balancer, rollout, policy) = (String::new(), None, Rollout::default(), Policy::default());
        let mut release = Self { id, stack, profile, version, worker, balancer, rollout, policy };
        let text = serde_json::to_vec(&release).expect("a release is plain data");
        release.id = crate::release::short_hash(&text);
        release
    }
}

impl BalancerSpec {
    pub fn new(allocation: String, instance: InstanceSpec) -> Self {
        let text = serde_json::to_vec(&instance).expect("a definition is plain data");
        Self { id: short_hash(&text), allocation, more_allocations: Vec::new(), instance }
    }

    /// Every Elastic IP with its place: the number that tells load balancers of a stack apart.
    pub fn places(&self) -> impl Iterator<Item = (u32, &str)> {
        let allocations = std::iter::once(&self.allocation).chain(&self.more_allocations);
        (0..).zip(allocations.map(String::as_str))
    }
}

/// Twelve hexadecimal digits of SHA-256: enough to tell releases apart in a tag.
pub fn short_hash(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let mut text = data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
    text.truncate(12);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ami: &str) -> InstanceSpec {
        InstanceSpec {
            ami: ami.to_owned(),
            instance_type: "t4g.nano".to_owned(),
            subnets: vec![SubnetSpec { id: "subnet-1".to_owned(), zone: "a".to_owned() }],
            security_group: "sg-1".to_owned(),
            instance_profile: "p".to_owned(),
            user_data: "#cloud-config\n".to_owned(),
            market: Market::OnDemand,
            credits: Credits::Standard,
        }
    }

    #[test]
    fn id_follows_the_content() {
        let stack: StackName = "vigia".parse().expect("valid");
        let release = |ami| Release::new(stack.clone(), Profile::Secure, "1".to_owned(), spec(ami));
        assert_eq!(release("ami-1").id, release("ami-1").id);
        assert_ne!(release("ami-1").id, release("ami-2").id);
    }

    #[test]
    fn a_market_is_written_only_where_there_is_a_choice() {
        let on_demand = serde_json::to_string(&spec("ami-1")).expect("plain data");
        assert!(!on_demand.contains("market"), "{on_demand}");
        assert_eq!(serde_json::from_str::<InstanceSpec>(&on_demand).expect("an old one"), spec("ami-1"));
        let spot = InstanceSpec { market: Market::Spot, ..spec("ami-1") };
        let text = serde_json::to_string(&spot).expect("plain data");
        assert!(text.ends_with(r#","market":"spot"}"#), "{text}");
        assert_eq!(serde_json::from_str::<InstanceSpec>(&text).expect("a new one"), spot);
        let stack: StackName = "vigia".parse().expect("valid");
        let release = |spec| Release::new(stack.clone(), Profile::Secure, "1".to_owned(), spec);
        assert_eq!(release(spec("ami-1")).id, "384757c88b0e", "releases of before keep their id");
        assert_ne!(release(spot).id, release(spec("ami-1")).id);
    }

    #[test]
    fn credits_are_written_only_if_unlimited() {
        let standard = serde_json::to_string(&spec("ami-1")).expect("plain data");
        assert!(!standard.contains("credits"), "{standard}");
        let unlimited = InstanceSpec { credits: Credits::Unlimited, ..spec("ami-1") };
        let text = serde_json::to_string(&unlimited).expect("plain data");
        assert!(text.ends_with(r#","credits":"unlimited"}"#), "{text}");
        assert_eq!(serde_json::from_str::<InstanceSpec>(&text).expect("a new one"), unlimited);
        let balancer = |spec| BalancerSpec::new("eipalloc-1".to_owned(), spec).id;
        assert_ne!(balancer(unlimited), balancer(spec("ami-1")));
    }

    #[test]
    fn a_way_to_roll_out_makes_no_new_release() {
        let stack: StackName = "vigia".parse().expect("valid");
        let before = Release::new(stack, Profile::Secure, "1".to_owned(), spec("ami-1"));
        let text = serde_json::to_string(&before).expect("plain data");
        assert!(!text.contains("rollout"), "{text}");
        assert_eq!(serde_json::from_str::<Release>(&text).expect("an old one"), before);
        let after = Release { rollout: Rollout::StopFirst, ..before.clone() };
        let text = serde_json::to_string(&after).expect("plain data");
        assert!(text.ends_with(r#","rollout":"stop-first"}"#), "{text}");
        assert_eq!(serde_json::from_str::<Release>(&text).expect("a new one"), after);
        assert_eq!(after.id, before.id);
    }

    #[test]
    fn only_burstable_types_have_credits() {
        let is_burstable =
            |kind: &str| InstanceSpec { instance_type: kind.to_owned(), ..spec("a") }.is_burstable();
        for kind in ["t2.micro", "t3.nano", "t3a.small", "t4g.nano"] {
            assert!(is_burstable(kind), "{kind}");
        }
        for kind in ["m7g.medium", "t1.micro", "c8g.large", "trn1.2xlarge", ""] {
            assert!(!is_burstable(kind), "{kind}");
        }
    }

    #[test]
    fn a_load_balancer_is_known_by_what_runs_and_not_by_its_address() {
        let balancer = |allocation: &str, ami| BalancerSpec::new(allocation.to_owned(), spec(ami)).id;
        assert_eq!(balancer("eipalloc-1", "ami-1"), balancer("eipalloc-2", "ami-1"));
        assert_ne!(balancer("eipalloc-1", "ami-1"), balancer("eipalloc-1", "ami-2"));
    }

    #[test]
    fn the_largest_release_is_within_the_bound() {
        // A quote takes two bytes in JSON, the worst that user data of ours can be.
        let large =
            InstanceSpec { user_data: "\"".repeat(8 * 1024) + &"x".repeat(8 * 1024), ..spec("ami-1") };
        let stack: StackName = "vigia".parse().expect("valid");
        let mut release = Release::new(stack, Profile::Secure, "1".to_owned(), large.clone());
        release.balancer = Some(BalancerSpec::new("eipalloc-1".to_owned(), large));
        let text = serde_json::to_vec_pretty(&release).expect("plain data");
        assert!(text.len() < Release::MAX_BYTES, "{}", text.len());
    }
}
