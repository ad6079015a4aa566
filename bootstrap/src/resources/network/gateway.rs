//! The gateways: the internet gateway of the public subnets, the egress-only one of the private ones.

use aws_sdk_ec2::types::{InternetGateway, ResourceType};
use fleet::stack::TAG_STACK;

use super::{Site, exists_is_fine, id, stack_filter, tagged};
use crate::aws::Aws;
use crate::blueprint::Gateway;
use crate::error::{Result, Step as _, found};
use crate::part::{NEW, Part, RunMode};
use crate::patience;

struct There {
    id: String,
    is_attached: bool,
}

impl Site<'_> {
    /// Ensures the gateway and returns its id.
    pub(super) async fn gateway(&mut self, wanted: Gateway) -> Result<String> {
        let mut all = find(self.aws, wanted).await?;
        let there = if all.is_empty() { None } else { Some(all.remove(0)) };
        let what = name(wanted);
        let part = match &there {
            None => Part::created(what),
            Some(there) if there.is_attached => Part::unchanged(what),
            Some(_) => Part::compared(what, vec!["not attached".to_owned()]),
        };
        let mut gateway = there.map_or(NEW.to_owned(), |there| there.id);
        if self.mode.applies(&part) {
            gateway = match wanted {
                Gateway::Internet => self.make_internet_gateway(gateway).await?,
                Gateway::EgressOnly => self.create_egress_only_gateway().await?,
            };
        }
        self.note(part);
        // Leftovers of a run that was cut right after the creation.
        for spare in all.into_iter().filter(|spare| !spare.is_attached) {
            if self.mode == RunMode::Apply {
                remove(self.aws, wanted, &spare.id).await?;
            }
            self.note(Part::removed(format!("{what} {}", spare.id)));
        }
        Ok(gateway)
    }

    /// Makes the gateway, unless it exists, and attaches it.
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
                Ok(find(self.aws, Gateway::Internet).await?.into_iter().next().map(|there| there.id))
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

fn name(wanted: Gateway) -> &'static str {
    match wanted {
        Gateway::Internet => "internet gateway",
        Gateway::EgressOnly => "egress-only gateway",
    }
}

/// Returns all gateways of the stack, the one in use first.
async fn find(aws: &Aws, wanted: Gateway) -> Result<Vec<There>> {
    let mut all = match wanted {
        Gateway::Internet => {
            let found = aws.ec2.describe_internet_gateways().filters(stack_filter(aws)).send().await;
            let found = found.step(|| "look for the internet gateway".to_owned())?;
            let there = |gateway: &InternetGateway| -> Result<There> {
                let is_attached = !gateway.attachments().is_empty();
                Ok(There { id: id(gateway.internet_gateway_id(), "internet gateway")?, is_attached })
            };
            found.internet_gateways().iter().map(there).collect::<Result<Vec<There>>>()?
        }
        // One belongs to its VPC from its creation, and a client token keeps a run from making a second one.
        Gateway::EgressOnly => {
            let ids = find_egress_only(aws).await?;
            ids.into_iter().map(|id| There { id, is_attached: true }).collect()
        }
    };
    all.sort_by(|a, b| (!a.is_attached, &a.id).cmp(&(!b.is_attached, &b.id)));
    Ok(all)
}

async fn find_egress_only(aws: &Aws) -> Result<Vec<String>> {
    let described = aws.ec2.describe_egress_only_internet_gateways().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the egress-only gateway".to_owned())?;
    let stack = aws.names.stack.as_str();
    // Filtered again here, because moto ignores filters on this call.
    let own = described.egress_only_internet_gateways().iter().filter(|gateway| {
        gateway.tags().iter().any(|tag| tag.key() == Some(TAG_STACK) && tag.value() == Some(stack))
    });
    Ok(own.filter_map(|gateway| gateway.egress_only_internet_gateway_id().map(str::to_owned)).collect())
}

async fn remove(aws: &Aws, wanted: Gateway, id: &str) -> Result<()> {
    match wanted {
        Gateway::Internet => {
            let delete = aws.ec2.delete_internet_gateway().internet_gateway_id(id);
            let deleted = async || delete.clone().send().await.step(|| format!("delete {id}")).map(drop);
            found(aws.patience.settled(deleted).await)?;
        }
        Gateway::EgressOnly => {
            let delete = aws.ec2.delete_egress_only_internet_gateway().egress_only_internet_gateway_id(id);
            let deleted = async || delete.clone().send().await.step(|| format!("delete {id}")).map(drop);
            found(aws.patience.settled(deleted).await)?;
        }
    }
    Ok(())
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for wanted in [Gateway::EgressOnly, Gateway::Internet] {
        for There { id, is_attached } in find(aws, wanted).await? {
            if is_attached && wanted == Gateway::Internet {
                let detach = aws.ec2.detach_internet_gateway().internet_gateway_id(&id).vpc_id(vpc);
                let detached = async || detach.clone().send().await.step(|| format!("detach {id}"));
                found(aws.patience.settled(detached).await)?;
            }
            remove(aws, wanted, &id).await?;
            parts.push(Part::removed(format!("{} {id}", name(wanted))));
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;

    /// Returns the list of internet gateways: id, and the VPC of each attached one.
    fn listed(gateways: &[(&str, Option<&str>)]) -> String {
        let item = |(id, vpc): &(&str, Option<&str>)| {
            let attached = vpc.map(|vpc| format!("<item><vpcId>{vpc}</vpcId></item>")).unwrap_or_default();
            format!(
                "<item><internetGatewayId>{id}</internetGatewayId>\
                 <attachmentSet>{attached}</attachmentSet></item>"
            )
        };
        let items: String = gateways.iter().map(item).collect();
        format!("<internetGatewaySet>{items}</internetGatewaySet>")
    }

    #[tokio::test]
    async fn a_detached_internet_gateway_is_attached() {
        let stub = Stub::default()
            .answers("DescribeInternetGateways", &listed(&[("igw-1", None)]))
            .answers("AttachInternetGateway", "<return>true</return>");
        let aws = stub.serve().await;
        let vpc = Some("vpc-1".to_owned());
        let mut site = Site { aws: &aws, mode: RunMode::Apply, vpc, parts: Vec::new() };
        assert_eq!(site.gateway(Gateway::Internet).await.expect("attached"), "igw-1");
        let attached = stub.last("AttachInternetGateway");
        assert!(attached.contains("InternetGatewayId=igw-1&VpcId=vpc-1"), "{attached}");
    }

    #[tokio::test]
    async fn a_gateway_that_a_cut_run_left_is_removed() {
        for (mode, deleted) in [(RunMode::Plan, 0), (RunMode::Apply, 1)] {
            let stub = Stub::default()
                .answers("DescribeInternetGateways", &listed(&[("igw-1", None), ("igw-2", Some("vpc-1"))]))
                .answers("DeleteInternetGateway", "<return>true</return>");
            let aws = stub.serve().await;
            let mut site = Site { aws: &aws, mode, vpc: Some("vpc-1".to_owned()), parts: Vec::new() };
            assert_eq!(site.gateway(Gateway::Internet).await.expect("found"), "igw-2");
            let wanted = [Part::unchanged("internet gateway"), Part::removed("internet gateway igw-1")];
            assert_eq!(site.parts, wanted);
            assert_eq!(stub.count("DeleteInternetGateway"), deleted);
        }
    }
}
