//! The load balancer's instance and its Elastic IP.
//!
//! The address is the fence: a load balancer without it gets no traffic, whatever it believes. A
//! new definition is launched beside the old one, takes the address over, and is taken back if it
//! does not serve.

use aws_sdk_ec2::types::{Address, DomainType, Instance, InstanceStateName, ResourceType};
use fleet::release::{InstanceSpec, short_hash};
use fleet::stack::{ROLE_LB, TAG_RELEASE, TAG_ROLE};

use crate::aws::Aws;
use crate::error::{Result, Step as _, found};
use crate::output::Change;
use crate::resources::instance;
use crate::resources::network::{id, stack_filter, tagged};

pub struct LoadBalancer {
    pub address: String,
    /// The instance that served before, to be terminated once the new one serves.
    pub replaced: Option<String>,
    pub instance: String,
    allocation: String,
}

pub async fn ensure(aws: &Aws, spec: &InstanceSpec) -> Result<(LoadBalancer, Vec<Change>)> {
    let text = serde_json::to_vec(spec).expect("a definition is plain data");
    let release = short_hash(&text);
    let all =
        instance::list(aws, &[&instance::NOT_GONE[..], &[InstanceStateName::Terminated]].concat()).await?;
    let balancers: Vec<&Instance> =
        all.iter().filter(|i| instance::tag(i, TAG_ROLE) == Some(ROLE_LB)).collect();
    let is_live = |i: &&&Instance| {
        i.state()
            .and_then(|state| state.name())
            .is_some_and(|state| matches!(state, InstanceStateName::Pending | InstanceStateName::Running))
    };
    let current = balancers.iter().filter(is_live).find(|i| instance::tag(i, TAG_RELEASE) == Some(&release));
    let (instance_id, launched) = match current.and_then(|i| i.instance_id()) {
        Some(id) => (id.to_owned(), Change::Unchanged),
        None => {
            // One number more than all that were ever seen: a token is not used for two lives.
            let seed = format!("{}/{ROLE_LB}/{release}/{}", spec.security_group, balancers.len());
            (
                instance::launch(aws, ROLE_LB, &release, spec, &short_hash(seed.as_bytes())).await?,
                Change::Created,
            )
        }
    };
    let (address, allocated) = ensure_address(aws).await?;
    let public = address.public_ip().unwrap_or_default().to_owned();
    let allocation = id(address.allocation_id(), "address")?;
    let before = address.instance_id().filter(|id| !id.is_empty()).map(str::to_owned);
    let mut associated = Change::Unchanged;
    if before.as_deref() != Some(&instance_id) {
        instance::wait_until_running(aws, &instance_id).await?;
        associate(aws, &allocation, &instance_id).await?;
        associated = Change::Created;
    }
    let replaced = balancers
        .iter()
        .filter(is_live)
        .filter_map(|i| i.instance_id())
        .find(|id| *id != instance_id)
        .map(str::to_owned);
    let balancer = LoadBalancer { address: public, replaced, instance: instance_id, allocation };
    Ok((balancer, vec![launched, allocated, associated]))
}

impl LoadBalancer {
    pub fn url(&self) -> String {
        url(&self.address)
    }

    /// Ends a replacement: the old instance goes if the new one serves, and the other way round.
    pub async fn settle(&self, aws: &Aws, serves: bool) -> Result<()> {
        let Some(old) = &self.replaced else { return Ok(()) };
        if serves {
            instance::terminate(aws, old).await
        } else {
            associate(aws, &self.allocation, old).await?;
            instance::terminate(aws, &self.instance).await
        }
    }
}

pub fn url(address: &str) -> String {
    format!("http://{address}:{}", fleet::PUBLIC_PORT)
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

async fn ensure_address(aws: &Aws) -> Result<(Address, Change)> {
    if let Some(address) = find_address(aws).await? {
        return Ok((address, Change::Unchanged));
    }
    aws.ec2
        .allocate_address()
        .domain(DomainType::Vpc)
        .tag_specifications(tagged(aws, ResourceType::ElasticIp, "lb"))
        .send()
        .await
        .step(|| "allocate an Elastic IP".to_owned())?;
    let address = find_address(aws).await?.ok_or_else(|| {
        crate::error::DeployError::new(crate::error::Exit::Failed, "the new Elastic IP is not visible yet")
            .mend("Run the deployment again.")
    })?;
    Ok((address, Change::Created))
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
