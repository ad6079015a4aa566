//! The VPC, found by the stack's tag.

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, VpcAttributeName};
use fleet::stack::TAG_STACK;

use super::{id, stack_filter, tagged};
use crate::aws::Aws;
use crate::blueprint::Blocks;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{Change, Doing, Part};
use crate::patience;

const NAMES: &str = "names for its instances";

pub(super) struct There {
    pub(super) id: String,
    gives_names: bool,
}

pub(super) async fn find(aws: &Aws) -> Result<Option<There>> {
    let described = aws.ec2.describe_vpcs().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the VPC".to_owned())?;
    let vpc = match described.vpcs() {
        [] => return Ok(None),
        [vpc] => id(vpc.vpc_id(), "VPC")?,
        several => {
            let ids: Vec<&str> = several.iter().filter_map(|vpc| vpc.vpc_id()).collect();
            let what = format!(
                "{} VPCs carry the tag {TAG_STACK}={}: {}",
                ids.len(),
                aws.names.stack,
                ids.join(", ")
            );
            return Err(DeployError::new(Exit::Failed, what)
                .mend("Delete those that no instance uses, then try again."));
        }
    };
    let attribute =
        aws.ec2.describe_vpc_attribute().vpc_id(&vpc).attribute(VpcAttributeName::EnableDnsHostnames).send();
    let attribute = attribute.await.step(|| format!("look at {vpc}"))?;
    let gives_names = attribute.enable_dns_hostnames().and_then(|value| value.value()).unwrap_or(false);
    Ok(Some(There { id: vpc, gives_names }))
}

fn compare(there: Option<&There>) -> Part {
    match there {
        None => Part::created("VPC"),
        Some(There { id, gives_names }) => Part::compared(
            format!("VPC {id}"),
            if *gives_names { Vec::new() } else { vec![NAMES.to_owned()] },
        ),
    }
}

/// The VPC's id, if there is one after this.
pub(super) async fn ensure(aws: &Aws, doing: Doing, there: Option<There>) -> Result<(Option<String>, Part)> {
    let part = compare(there.as_ref());
    let there = there.map(|there| there.id);
    if !doing.applies(&part) {
        return Ok((there, part));
    }
    let vpc = match (part.change, there) {
        (Change::Created, _) | (_, None) => create(aws).await?,
        (_, Some(vpc)) => vpc,
    };
    aws.ec2
        .modify_vpc_attribute()
        .vpc_id(&vpc)
        .enable_dns_hostnames(AttributeBooleanValue::builder().value(true).build())
        .send()
        .await
        .step(|| "give the VPC DNS names".to_owned())?;
    Ok((Some(vpc), part))
}

async fn create(aws: &Aws) -> Result<String> {
    let create = aws
        .ec2
        .create_vpc()
        .cidr_block(Blocks::default().ipv4)
        .amazon_provided_ipv6_cidr_block(true)
        .tag_specifications(tagged(aws, ResourceType::Vpc, "vpc"));
    let make = async || {
        let created = create.clone().customize().config_override(patience::once()).send().await;
        let created = created.step(|| "create the VPC".to_owned())?;
        id(created.vpc().and_then(|vpc| vpc.vpc_id()), "VPC")
    };
    let find = async || -> Result<Option<String>> { Ok(find(aws).await?.map(|there| there.id)) };
    aws.patience.made(make, find).await
}

pub(super) async fn blocks(aws: &Aws, vpc: &str) -> Result<Blocks> {
    let described = aws.ec2.describe_vpcs().vpc_ids(vpc).send().await.step(|| format!("look at {vpc}"))?;
    let vpc = described.vpcs().first();
    let ipv4 = vpc.and_then(|vpc| vpc.cidr_block()).map_or_else(|| Blocks::default().ipv4, str::to_owned);
    let ipv6 = vpc
        .and_then(|vpc| vpc.ipv6_cidr_block_association_set().first())
        .and_then(|association| association.ipv6_cidr_block())
        .map(str::to_owned);
    Ok(Blocks { ipv4, ipv6 })
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Part> {
    found(aws.ec2.delete_vpc().vpc_id(vpc).send().await.step(|| format!("delete {vpc}")))?;
    Ok(Part::removed(format!("VPC {vpc}")))
}
