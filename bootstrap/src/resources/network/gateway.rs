//! The ways out: the internet gateway of the public subnets, the egress-only one of the private ones.

use aws_sdk_ec2::types::ResourceType;
use fleet::stack::TAG_STACK;

use super::{Site, exists_is_fine, id, stack_filter, tagged};
use crate::aws::Aws;
use crate::blueprint::Gateway;
use crate::error::{Result, Step as _, found};
use crate::part::{NEW, Part};
use crate::patience;

struct There {
    id: String,
    is_attached: bool,
}

impl Site<'_> {
    /// The gateway's id.
    pub(super) async fn gateway(&mut self, wanted: Gateway) -> Result<String> {
        let there = find(self.aws, wanted).await?;
        let what = match wanted {
            Gateway::Internet => "internet gateway",
            Gateway::EgressOnly => "egress-only gateway",
        };
        let part = match &there {
            None => Part::created(what),
            Some(there) if there.is_attached => Part::unchanged(what),
            Some(_) => Part::compared(what, vec!["not attached".to_owned()]),
        };
        let mut gateway = there.map_or(NEW.to_owned(), |there| there.id);
        if self.doing.applies(&part) {
            gateway = match wanted {
                Gateway::Internet => self.make_internet_gateway(gateway).await?,
                Gateway::EgressOnly => self.create_egress_only_gateway().await?,
            };
        }
        self.note(part);
        Ok(gateway)
    }

    /// Makes it, unless it is there, and attaches it.
    async fn make_internet_gateway(&self, there: String) -> Result<String> {
        let ec2 = &self.aws.ec2;
        let gateway = if there == NEW {
            let create = ec2.create_internet_gateway().tag_specifications(tagged(
                self.aws,
                ResourceType::InternetGateway,
                Gateway::Internet.what(),
            ));
            let make = async || {
                let created = create.clone().customize().config_override(patience::once()).send().await;
                let created = created.step(|| "create the internet gateway".to_owned())?;
                let gateway = created.internet_gateway().and_then(|gateway| gateway.internet_gateway_id());
                id(gateway, "internet gateway")
            };
            let find = async || -> Result<Option<String>> {
                Ok(find(self.aws, Gateway::Internet).await?.map(|there| there.id))
            };
            self.aws.patience.made(None, make, find).await?
        } else {
            there
        };
        let attach = ec2.attach_internet_gateway().internet_gateway_id(&gateway).set_vpc_id(self.vpc.clone());
        let attached = async || attach.clone().send().await.step(|| "attach the internet gateway".to_owned());
        let both = format!("{gateway} and {}", self.vpc_id());
        exists_is_fine(self.aws.patience.depends_on(&both, attached).await.map(drop))?;
        Ok(gateway)
    }

    async fn create_egress_only_gateway(&self) -> Result<String> {
        let kind = ResourceType::EgressOnlyInternetGateway;
        let create = self
            .aws
            .ec2
            .create_egress_only_internet_gateway()
            .client_token(self.token(Gateway::EgressOnly.what()))
            .set_vpc_id(self.vpc.clone())
            .tag_specifications(tagged(self.aws, kind, Gateway::EgressOnly.what()));
        let created =
            async || create.clone().send().await.step(|| "create the egress-only gateway".to_owned());
        let created = self.aws.patience.depends_on(self.vpc_id(), created).await?;
        let gateway = created.egress_only_internet_gateway();
        id(gateway.and_then(|gateway| gateway.egress_only_internet_gateway_id()), "egress-only gateway")
    }
}

async fn find(aws: &Aws, wanted: Gateway) -> Result<Option<There>> {
    match wanted {
        Gateway::Internet => {
            let found = aws.ec2.describe_internet_gateways().filters(stack_filter(aws)).send().await;
            let found = found.step(|| "look for the internet gateway".to_owned())?;
            let Some(gateway) = found.internet_gateways().first() else { return Ok(None) };
            let is_attached = !gateway.attachments().is_empty();
            Ok(Some(There { id: id(gateway.internet_gateway_id(), "internet gateway")?, is_attached }))
        }
        Gateway::EgressOnly => {
            let gateway = find_egress_only(aws).await?;
            Ok(gateway.map(|id| There { id, is_attached: true }))
        }
    }
}

async fn find_egress_only(aws: &Aws) -> Result<Option<String>> {
    let described = aws.ec2.describe_egress_only_internet_gateways().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the egress-only gateway".to_owned())?;
    let stack = aws.names.stack.as_str();
    // Filtered once more here: moto ignores filters on this call.
    let own = described.egress_only_internet_gateways().iter().find(|gateway| {
        gateway.tags().iter().any(|tag| tag.key() == Some(TAG_STACK) && tag.value() == Some(stack))
    });
    Ok(own.and_then(|gateway| gateway.egress_only_internet_gateway_id()).map(str::to_owned))
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let ec2 = &aws.ec2;
    let mut parts = Vec::new();
    if let Some(id) = find_egress_only(aws).await? {
        let delete = ec2.delete_egress_only_internet_gateway().egress_only_internet_gateway_id(&id);
        let deleted = async || delete.clone().send().await.step(|| format!("delete {id}"));
        found(aws.patience.settled(deleted).await)?;
        parts.push(Part::removed(format!("egress-only gateway {id}")));
    }
    let gateways = ec2.describe_internet_gateways().filters(stack_filter(aws)).send().await;
    let gateways = gateways.step(|| "list the internet gateways".to_owned())?;
    for id in gateways.internet_gateways().iter().filter_map(|gateway| gateway.internet_gateway_id()) {
        let detach = ec2.detach_internet_gateway().internet_gateway_id(id).vpc_id(vpc);
        let detached = async || detach.clone().send().await.step(|| format!("detach {id}"));
        found(aws.patience.settled(detached).await)?;
        let delete = ec2.delete_internet_gateway().internet_gateway_id(id);
        let deleted = async || delete.clone().send().await.step(|| format!("delete {id}"));
        found(aws.patience.settled(deleted).await)?;
        parts.push(Part::removed(format!("internet gateway {id}")));
    }
    Ok(parts)
}
