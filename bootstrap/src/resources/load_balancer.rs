//! The load balancer's instance and its Elastic IP.
//!
//! The address is the fence: a load balancer without it gets no traffic, whatever it believes. A
//! new definition is launched beside the old one, takes the address over, and is taken back if it
//! does not serve.
//!
//! The reconciler may do the same at the same moment, because the old one dies. So whoever has the
//! address is looked at anew before each step, and these rules make both safe:
//!
//! | rule | because |
//! |---|---|
//! | a live one with the wanted release is not launched again; the holder of the address comes first | it may be the reconciler's |
//! | the address is not taken from one with the wanted release | the reconciler was faster |
//! | only instances of other releases that do not have the address are terminated | a booting one may be the reconciler's replacement |
//! | a new one that lost the address to the one before is terminated, and the deployment fails | the reconciler gave it back, since the new one did not answer |
//! | nothing is launched with a token or an attempt that the reconciler may use | each must know its own launches |
//!
//! What a run that was cut leaves behind is found by the next one, or by the reconciler, which
//! removes load balancers without the address after ten minutes.

use std::net::Ipv4Addr;

use aws_sdk_ec2::types::{Address, DomainType, Instance, InstanceStateName, ResourceType};
use fleet::aws_code::AwsErrorKind;
use fleet::release::{BalancerSpec, short_hash};
use fleet::stack::{ROLE_LB, TAG_RELEASE, TAG_ROLE};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::output::Change;
use crate::patience;
use crate::resources::instance;
use crate::resources::network::{id, stack_filter, tagged};

/// Tokens tried for one launch; each that is spent belongs to an instance of the last days.
const MOST_TOKENS: usize = 20;

/// The stack's Elastic IP.
#[derive(Clone, Debug)]
pub struct PublicAddress {
    pub allocation: String,
    pub ip: Ipv4Addr,
}

pub struct LoadBalancer {
    pub address: String,
    pub instance: String,
    /// Who had the address before this run took it.
    moved_from: Option<String>,
    release: String,
    allocation: String,
}

pub async fn ensure(aws: &Aws, spec: &BalancerSpec) -> Result<(LoadBalancer, Vec<Change>)> {
    let seen = all(aws).await?;
    let (address, holder) = address_and_holder(aws).await?;
    let current = current(&seen, &spec.id, holder.as_deref());
    let (instance, launched) = match current.and_then(Instance::instance_id) {
        Some(id) => (id.to_owned(), Change::Unchanged),
        // One number more than all that are seen: a token is not used for two lives.
        None => (launch(aws, spec, seen.len()).await?, Change::Created),
    };
    let mut balancer = LoadBalancer {
        address: address.public_ip().unwrap_or_default().to_owned(),
        instance,
        moved_from: None,
        release: spec.id.clone(),
        allocation: spec.allocation.clone(),
    };
    if holder.as_ref() == Some(&balancer.instance) {
        return Ok((balancer, vec![launched]));
    }
    instance::wait_until_running(aws, &balancer.instance).await?;
    // The wait is long enough for the reconciler to have replaced the holder.
    let (_, holder) = address_and_holder(aws).await?;
    let seen = all(aws).await?;
    match holder.as_deref().and_then(|holder| live(&seen, holder)) {
        Some(holder) if instance::tag(holder, TAG_RELEASE) == Some(&spec.id) => {
            balancer.instance = id(holder.instance_id(), "instance")?;
            Ok((balancer, vec![launched]))
        }
        before => {
            balancer.moved_from = before.and_then(Instance::instance_id).map(str::to_owned);
            associate(aws, &balancer.allocation, &balancer.instance).await?;
            Ok((balancer, vec![launched, Change::Created]))
        }
    }
}

/// The live instance of this release: the one with the address, if it is one.
fn current<'a>(seen: &'a [Instance], release: &str, holder: Option<&str>) -> Option<&'a Instance> {
    let of_release = seen.iter().filter(|i| is_live(i) && instance::tag(i, TAG_RELEASE) == Some(release));
    of_release.min_by_key(|i| i.instance_id() != holder)
}

fn live<'a>(seen: &'a [Instance], id: &str) -> Option<&'a Instance> {
    seen.iter().find(|i| is_live(i) && i.instance_id() == Some(id))
}

fn is_live(instance: &Instance) -> bool {
    let state = instance.state().and_then(|state| state.name());
    matches!(state, Some(InstanceStateName::Pending | InstanceStateName::Running))
}

/// Every load balancer that EC2 shows, terminated ones included.
async fn all(aws: &Aws) -> Result<Vec<Instance>> {
    let states = [&instance::NOT_GONE[..], &[InstanceStateName::Terminated]].concat();
    let mut seen = instance::list(aws, &states).await?;
    seen.retain(|i| instance::tag(i, TAG_ROLE) == Some(ROLE_LB));
    Ok(seen)
}

/// Launches where there is capacity.
async fn launch(aws: &Aws, spec: &BalancerSpec, number: usize) -> Result<String> {
    let mut refused = DeployError::new(Exit::Failed, "the network has no subnet");
    for subnet in &spec.instance.subnets {
        for number in number..number + MOST_TOKENS {
            let group = &spec.instance.security_group;
            let seed = format!("{group}/{ROLE_LB}/{}/{}/deploy/{number}", spec.id, subnet.id);
            let token = short_hash(seed.as_bytes());
            match instance::launch(aws, ROLE_LB, &spec.id, &spec.instance, subnet, &token).await {
                Ok(id) => return Ok(id),
                Err(error) => refused = error,
            }
            match refused.kind {
                AwsErrorKind::TokenSpent | AwsErrorKind::TokenMismatch => {}
                AwsErrorKind::NoCapacity => break,
                _ => return Err(refused),
            }
        }
    }
    Err(refused)
}

impl LoadBalancer {
    /// Whether another had the address before this run.
    pub fn is_replacement(&self) -> bool {
        self.moved_from.is_some()
    }

    pub fn url(&self) -> String {
        url(&self.address)
    }

    /// Ends a replacement: the old instances go if the new one serves, and the other way round.
    pub async fn settle(&self, aws: &Aws, serves: bool) -> Result<()> {
        let (_, holder) = address_and_holder(aws).await?;
        let seen = all(aws).await?;
        let is_ours = |i: &Instance| instance::tag(i, TAG_RELEASE) == Some(&self.release);
        let was_given_back = holder.is_some() && holder == self.moved_from;
        if was_given_back {
            // The reconciler asked it for minutes; it is of no use.
            instance::terminate(aws, &self.instance).await?;
        }
        if !serves {
            return match &self.moved_from {
                Some(old) if holder.as_ref() == Some(&self.instance) => {
                    associate(aws, &self.allocation, old).await?;
                    instance::terminate(aws, &self.instance).await
                }
                _ => Ok(()),
            };
        }
        if !holder.as_deref().and_then(|holder| live(&seen, holder)).is_some_and(is_ours) {
            let what = match &holder {
                Some(holder) if was_given_back => format!(
                    "the new load balancer did not answer, and the reconciler gave the address back to {holder}"
                ),
                Some(holder) => format!("{holder}, of another release, took the address meanwhile"),
                None => "the load balancer has lost its address".to_owned(),
            };
            return Err(DeployError::new(Exit::NotHealthy, what).mend(
                "The service answers. `make status` says what the reconciler did; then deploy again.",
            ));
        }
        for old in seen.iter().filter(|i| is_live(i) && !is_ours(i)).filter_map(Instance::instance_id) {
            instance::terminate(aws, old).await?;
        }
        Ok(())
    }
}

pub fn url(address: &str) -> String {
    format!("http://{address}:{}", fleet::PUBLIC_PORT)
}

pub fn https_url(address: &str) -> String {
    format!("https://{address}:{}", fleet::TLS_PORT)
}

async fn associate(aws: &Aws, allocation: &str, instance: &str) -> Result<()> {
    aws.ec2
        .associate_address()
        .allocation_id(allocation)
        .instance_id(instance)
        .allow_reassociation(true)
        .send()
        .await
        .step(|| "give the load balancer its address".to_owned())?;
    Ok(())
}

/// Allocates an address if the stack has none.
pub async fn ensure_address(aws: &Aws) -> Result<(PublicAddress, Change)> {
    if let Some(address) = find_address(aws).await? {
        return Ok((public(address.allocation_id(), address.public_ip())?, Change::Unchanged));
    }
    let allocate = aws.ec2.allocate_address().domain(DomainType::Vpc).tag_specifications(tagged(
        aws,
        ResourceType::ElasticIp,
        "lb",
    ));
    let make = async || {
        let allocated = allocate.clone().customize().config_override(patience::once()).send().await;
        let allocated = allocated.step(|| "allocate an Elastic IP".to_owned())?;
        public(allocated.allocation_id(), allocated.public_ip())
    };
    let find = async || {
        let found = find_address(aws).await?;
        found.map(|address| public(address.allocation_id(), address.public_ip())).transpose()
    };
    Ok((aws.patience.made(make, find).await?, Change::Created))
}

fn public(allocation: Option<&str>, ip: Option<&str>) -> Result<PublicAddress> {
    let ip = ip.and_then(|ip| ip.parse().ok()).ok_or_else(|| {
        DeployError::new(Exit::Failed, "AWS answered with an Elastic IP that is no IPv4 address")
    })?;
    Ok(PublicAddress { allocation: id(allocation, "address")?, ip })
}

async fn address_and_holder(aws: &Aws) -> Result<(Address, Option<String>)> {
    let address = find_address(aws).await?.ok_or_else(|| {
        DeployError::new(Exit::Failed, "the new Elastic IP is not visible yet")
            .mend("Run the deployment again.")
    })?;
    let holder = address.instance_id().filter(|id| !id.is_empty()).map(str::to_owned);
    Ok((address, holder))
}

/// The stack's address, if it has one.
pub async fn find_address(aws: &Aws) -> Result<Option<Address>> {
    let described = aws.ec2.describe_addresses().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the Elastic IP".to_owned())?;
    Ok(described.addresses.unwrap_or_default().into_iter().next())
}

/// Gives every address of the stack back: an address that is kept costs money for ever.
pub async fn release_addresses(aws: &Aws) -> Result<Change> {
    let described = aws.ec2.describe_addresses().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the Elastic IP".to_owned())?;
    let mut change = Change::Unchanged;
    for address in described.addresses() {
        if let Some(association) = address.association_id() {
            let done = aws.ec2.disassociate_address().association_id(association).send().await;
            found(done.step(|| "take the Elastic IP away".to_owned()))?;
        }
        let allocation = id(address.allocation_id(), "address")?;
        let released = aws.ec2.release_address().allocation_id(allocation).send().await;
        found(released.step(|| "release the Elastic IP".to_owned()))?;
        change = Change::Removed;
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{InstanceState, Tag};

    use super::*;

    fn row(id: &str, release: &str, state: InstanceStateName) -> Instance {
        Instance::builder()
            .instance_id(id)
            .state(InstanceState::builder().name(state).build())
            .tags(Tag::builder().key(TAG_RELEASE).value(release).build())
            .build()
    }

    #[test]
    fn the_holder_of_the_address_is_current_before_others_of_its_release() {
        let seen = [
            row("i-1", "new", InstanceStateName::Running),
            row("i-2", "new", InstanceStateName::Running),
            row("i-3", "old", InstanceStateName::Running),
            row("i-4", "gone", InstanceStateName::Terminated),
        ];
        let current = |release, holder| current(&seen, release, holder).and_then(Instance::instance_id);
        assert_eq!(current("new", Some("i-2")), Some("i-2"));
        assert_eq!(current("new", Some("i-3")), Some("i-1"), "one that a cut run launched");
        assert_eq!(current("gone", Some("i-4")), None, "the dead are not current");
    }
}
