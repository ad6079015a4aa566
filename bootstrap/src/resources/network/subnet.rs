//! Subnets, found by their names.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::ResourceType;
use fleet::release::SubnetSpec;

use super::{Site, filter, id, name_in_stack, tagged};
use crate::aws::Aws;
use crate::blueprint::{Side, Subnet};
use crate::error::{Result, Step as _, found};
use crate::part::{NEW, Part};

/// A subnet as it is; in a plan, as it would be.
pub(super) struct Placed {
    pub(super) side: Side,
    pub(super) spec: SubnetSpec,
    pub(super) block: String,
}

impl Site<'_> {
    /// A subnet is never changed: its zone and its block stay those that it was made with.
    pub(super) async fn subnets(&mut self, wanted: &[Subnet]) -> Result<Vec<Placed>> {
        let mut there = self.find_subnets().await?;
        let mut placed = Vec::new();
        for wanted in wanted {
            let found = there.remove(&wanted.what);
            let part = Part::found(format!("subnet {}", wanted.what), found.is_some());
            let (spec, block) = match found {
                Some(found) => found,
                None if self.doing.applies(&part) => {
                    (self.create_subnet(wanted).await?, wanted.block.clone())
                }
                None => {
                    let spec = SubnetSpec { id: NEW.to_owned(), zone: wanted.zone.clone() };
                    (spec, wanted.block.clone())
                }
            };
            self.note(part);
            placed.push(Placed { side: wanted.side, spec, block });
        }
        Ok(placed)
    }

    async fn find_subnets(&self) -> Result<BTreeMap<String, (SubnetSpec, String)>> {
        let Some(filters) = self.filters() else { return Ok(BTreeMap::new()) };
        let described = self.aws.ec2.describe_subnets().set_filters(Some(filters)).send().await;
        let described = described.step(|| "look for the subnets".to_owned())?;
        let mut there = BTreeMap::new();
        for subnet in described.subnets() {
            let Some(what) = name_in_stack(self.aws, subnet.tags()) else { continue };
            let zone = subnet.availability_zone().unwrap_or_default().to_owned();
            let spec = SubnetSpec { id: id(subnet.subnet_id(), "subnet")?, zone };
            there.insert(what.to_owned(), (spec, subnet.cidr_block().unwrap_or_default().to_owned()));
        }
        Ok(there)
    }

    async fn create_subnet(&self, wanted: &Subnet) -> Result<SubnetSpec> {
        let create = self
            .aws
            .ec2
            .create_subnet()
            .set_vpc_id(self.vpc.clone())
            .availability_zone(&wanted.zone)
            .cidr_block(&wanted.block)
            .set_ipv6_cidr_block(wanted.ipv6_block.clone())
            .tag_specifications(tagged(self.aws, ResourceType::Subnet, &wanted.what));
        let make = async || -> Result<SubnetSpec> {
            let created = create.clone().send().await;
            let created = created.step(|| format!("create the subnet {}", wanted.what))?;
            let id = id(created.subnet().and_then(|subnet| subnet.subnet_id()), "subnet")?;
            Ok(SubnetSpec { id, zone: wanted.zone.clone() })
        };
        let find = async || -> Result<Option<SubnetSpec>> {
            Ok(self.find_subnets().await?.remove(&wanted.what).map(|(spec, _)| spec))
        };
        self.aws.patience.made(make, find).await
    }
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let subnets = aws.ec2.describe_subnets().filters(filter("vpc-id", vpc)).send().await;
    let subnets = subnets.step(|| "list the subnets".to_owned())?;
    let mut parts = Vec::new();
    for id in subnets.subnets().iter().filter_map(|subnet| subnet.subnet_id()) {
        found(aws.ec2.delete_subnet().subnet_id(id).send().await.step(|| format!("delete {id}")))?;
        parts.push(Part::removed(format!("subnet {id}")));
    }
    Ok(parts)
}
