//! The values that a deployment's options request; an omitted option keeps the stack's value.

use fleet::Policy;
use fleet::release::{Credits, Market, Release, Rollout};
use jiff::Timestamp;

use crate::cli::{Arch, Deploy, Switch};
use crate::error::{DeployError, Exit, Result};
use crate::tls::Wanted;

/// Most blocks that may reach the load balancer: each is a rule on two ports, and a security group has room
/// for 60 rules of each family.
pub(crate) const MOST_BLOCKS: usize = 25;

/// Checks the arguments without any call.
pub fn check(options: &Deploy) -> Result<()> {
    if options.allow_cidr.len() > MOST_BLOCKS {
        let what =
            format!("--allow-cidr has {} blocks; the maximum is {MOST_BLOCKS}", options.allow_cidr.len());
        return Err(DeployError::new(Exit::Usage, what).hint(
            "Nothing was changed. Merge the blocks into \
            fewer, larger ones.",
        ));
    }
    Wanted::read(&options.tls, Timestamp::now()).map(drop)
}

/// Returns the requested market, or else the workers' present one.
pub(crate) fn market(options: &Deploy, before: Option<&Release>) -> Market {
    match options.spot {
        Some(Switch::On) => Market::Spot,
        Some(Switch::Off) => Market::OnDemand,
        None => before.map_or(Market::OnDemand, |before| before.worker.market),
    }
}

/// Returns the kind of rollout that the quotas allow. If they are unknown, the stack's stays.
pub(crate) fn rollout(allowed: Option<Rollout>, before: Option<&Release>) -> Rollout {
    let kept = || before.map_or_else(Rollout::default, |before| before.rollout);
    allowed.unwrap_or_else(kept)
}

/// Returns the requested policy, or else the stack's.
pub(crate) fn policy(options: &Deploy, before: Option<&Release>) -> Policy {
    match &options.policy {
        Some(policy) => policy.as_ref().clone(),
        None => before.map_or_else(Policy::default, |before| before.policy.clone()),
    }
}

/// Returns the requested credit option, or else the workers' present one.
pub(crate) fn credits(options: &Deploy, before: Option<&Release>) -> Credits {
    match options.credits {
        Some(option) => option.into(),
        None => before.map_or_else(Credits::default, |before| before.worker.credits),
    }
}

/// Returns the requested type, or else the workers' present one, unless the processor changes.
pub(crate) fn instance_type(options: &Deploy, before: Option<&Release>) -> String {
    let before = before.map(|before| before.worker.instance_type.clone());
    let before = before.filter(|kind| Arch::of_instance_type(kind) == options.arch);
    let asked = options.instance_type.clone().or(before);
    asked.unwrap_or_else(|| options.arch.default_instance_type().to_owned())
}
