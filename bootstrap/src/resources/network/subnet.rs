//! Subnets, found by their names, and their IPv6 blocks.
//!
//! The zone and the IPv4 block of a subnet never change. Its IPv6 block is added if it has none: without
//! it Lambda refuses the function, and the function could not reach the API of EC2. Instances get no IPv6
//! address (nothing assigns one at creation), because they need none.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ec2::types::ResourceType;
use fleet::aws_code::AwsErrorKind;
use fleet::release::SubnetSpec;

use super::ipv6::Ipv6;
use super::{Site, filter, id, name_in_stack, tagged};
use crate::aws::Aws;
use crate::blueprint::{Side, Subnet};
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{NEW, Part, RunMode};
use crate::patience::Look;

const IPV6: &str = "no IPv6 block";

/// As for the VPC's block.
const ASSOCIATED_DEADLINE: Duration = Duration::from_secs(120);

/// An existing subnet; in a plan, the planned one.
pub(super) struct Placed {
    pub(super) side: Side,
    pub(super) spec: SubnetSpec,
    pub(super) block: String,
}

struct There {
    spec: SubnetSpec,
    block: String,
    ipv6: Ipv6,
}

impl Site<'_> {
    pub(super) async fn subnets(&mut self, wanted: &[Subnet]) -> Result<Vec<Placed>> {
        let mut there = self.find_subnets().await?;
        let mut placed = Vec::new();
        for wanted in wanted {
            let found = there.remove(&wanted.what);
            let part = compare(&wanted.what, found.as_ref());
            let is_made = self.mode.applies(&part);
            let (spec, block) = match found {
                Some(found) => {
                    if is_made {
                        self.add_ipv6(wanted, &found.spec.id).await?;
                    }
                    (found.spec, found.block)
                }
                None if is_made => (self.create_subnet(wanted).await?, wanted.block.clone()),
                None => {
                    let spec = SubnetSpec { id: NEW.to_owned(), zone: wanted.zone.clone() };
                    (spec, wanted.block.clone())
                }
            };
            self.note(part);
            placed.push(Placed { side: wanted.side, spec, block });
        }
        if self.mode == RunMode::Apply {
            for subnet in &placed {
                self.wait_for_ipv6(&subnet.spec.id).await?;
            }
        }
        Ok(placed)
    }

    async fn find_subnets(&self) -> Result<BTreeMap<String, There>> {
        let Some(filters) = self.filters() else { return Ok(BTreeMap::new()) };
        let described = self.aws.ec2.describe_subnets().set_filters(Some(filters)).send().await;
        let described = described.step(|| "look for the subnets".to_owned())?;
        let mut there = BTreeMap::new();
        for subnet in described.subnets() {
            let Some(what) = name_in_stack(self.aws, subnet.tags()) else { continue };
            let zone = subnet.availability_zone().unwrap_or_default().to_owned();
            let subnet = There {
                spec: SubnetSpec { id: id(subnet.subnet_id(), "subnet")?, zone },
                block: subnet.cidr_block().unwrap_or_default().to_owned(),
                ipv6: Ipv6::of_subnet(subnet.ipv6_cidr_block_association_set()),
            };
            there.insert(what.to_owned(), subnet);
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
            let created = created.step(|| format!("create the subnet {}", wanted.what));
            let created = created.map_err(block_is_new)?;
            let id = id(created.subnet().and_then(|subnet| subnet.subnet_id()), "subnet")?;
            Ok(SubnetSpec { id, zone: wanted.zone.clone() })
        };
        let find = async || -> Result<Option<SubnetSpec>> {
            Ok(self.find_subnets().await?.remove(&wanted.what).map(|there| there.spec))
        };
        self.aws.patience.made(self.vpc.as_deref(), make, find).await
    }

    async fn add_ipv6(&self, wanted: &Subnet, subnet: &str) -> Result<()> {
        let block = wanted.ipv6_block.clone().ok_or_else(|| {
            let what = format!("the VPC has no IPv6 block for the subnet {}", wanted.what);
            DeployError::new(Exit::Failed, what).hint("Run `destroy`, then deploy again.")
        })?;
        let add = self.aws.ec2.associate_subnet_cidr_block().subnet_id(subnet).ipv6_cidr_block(block);
        let added = async || {
            let added = add.clone().send().await.step(|| format!("add an IPv6 block to {subnet}"));
            added.map_err(block_is_new)
        };
        let added = self.aws.patience.depends_on(subnet, added).await.map(drop);
        // This run's first try, if its reply was lost; otherwise the wait that follows reports the missing
        // block.
        super::exists_is_fine(added)
    }

    async fn wait_for_ipv6(&self, subnet: &str) -> Result<()> {
        let look = async || {
            let described = self.aws.ec2.describe_subnets().subnet_ids(subnet).send().await;
            let described = described.step(|| format!("look at {subnet}"))?;
            match described.subnets().first() {
                Some(seen) => Ipv6::of_subnet(seen.ipv6_cidr_block_association_set()).awaited(subnet),
                None => Ok(Look::NotYet("not visible yet".to_owned())),
            }
        };
        let what = format!("the IPv6 block of {subnet}");
        self.aws.patience.until(&what, ASSOCIATED_DEADLINE, look).await.map(drop)
    }
}

fn compare(what: &str, there: Option<&There>) -> Part {
    let what = format!("subnet {what}");
    match there {
        None => Part::created(what),
        Some(there) if there.ipv6.is_to_be_added() => Part::compared(what, vec![IPV6.to_owned()]),
        Some(_) => Part::unchanged(what),
    }
}

/// Recognises a passing error. The block is cut from the VPC's own, so EC2 calls it outside of the VPC only
/// while its server does not know the VPC's block yet.
fn block_is_new(mut error: DeployError) -> DeployError {
    if error.code == "InvalidSubnet.Range" {
        error.kind = AwsErrorKind::Propagating;
    }
    error
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let subnets = aws.ec2.describe_subnets().filters(filter("vpc-id", vpc)).send().await;
    let subnets = subnets.step(|| "list the subnets".to_owned())?;
    let mut parts = Vec::new();
    for id in subnets.subnets().iter().filter_map(|subnet| subnet.subnet_id()) {
        let delete = aws.ec2.delete_subnet().subnet_id(id);
        let deleted = async || delete.clone().send().await.step(|| format!("delete {id}"));
        found(aws.patience.settled(deleted).await)?;
        parts.push(Part::removed(format!("subnet {id}")));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;
    use crate::part::Change;

    #[test]
    fn a_subnet_without_an_ipv6_block_gets_one() {
        let change = |ipv6| {
            let spec = SubnetSpec { id: "subnet-1".to_owned(), zone: "z".to_owned() };
            compare("private-0", Some(&There { spec, block: "10.77.128.0/20".to_owned(), ipv6 })).change
        };
        assert_eq!(change(Ipv6::Missing), Change::Updated);
        assert_eq!(change(Ipv6::Associating), Change::Unchanged);
        assert_eq!(
            change(Ipv6::Associated("2600:1f16:abc::/64".parse().expect("a block"))),
            Change::Unchanged
        );
    }

    const CREATED: &str = "<subnet><subnetId>subnet-1</subnetId></subnet>";

    /// Returns the list of subnets with one whose block is in this state; without a block if it is empty.
    fn described(state: &str) -> String {
        let item = format!(
            "<item><ipv6CidrBlock>2600:1f16:abc::/64</ipv6CidrBlock>\
             <ipv6CidrBlockState><state>{state}</state></ipv6CidrBlockState></item>"
        );
        let block = if state.is_empty() { "" } else { &item };
        format!(
            "<subnetSet><item><subnetId>subnet-1</subnetId><cidrBlock>10.77.0.0/20</cidrBlock>\
             <availabilityZone>z</availabilityZone>\
             <tagSet><item><key>Name</key><value>vigia-a-public-0</value></item></tagSet>\
             <ipv6CidrBlockAssociationSet>{block}</ipv6CidrBlockAssociationSet></item></subnetSet>"
        )
    }

    async fn ensured(stub: &Stub) -> Result<Vec<Placed>> {
        let wanted = Subnet {
            what: "public-0".to_owned(),
            side: Side::Public,
            zone: "z".to_owned(),
            block: "10.77.0.0/20".to_owned(),
            ipv6_block: Some("2600:1f16:abc::/64".to_owned()),
        };
        let aws = stub.serve().await;
        let vpc = Some("vpc-1".to_owned());
        let mut site = Site { aws: &aws, mode: RunMode::Apply, vpc, parts: Vec::new() };
        site.subnets(&[wanted]).await
    }

    #[tokio::test]
    async fn a_new_subnet_is_waited_for_until_it_has_its_block() {
        let stub = Stub::default()
            .answers("DescribeSubnets", "<subnetSet/>")
            .answers("CreateSubnet", CREATED)
            .answers("DescribeSubnets", "<subnetSet/>")
            .answers("DescribeSubnets", &described("associating"))
            .answers("DescribeSubnets", &described("associated"));
        assert_eq!(ensured(&stub).await.expect("it settles").len(), 1);
        assert_eq!((stub.count("CreateSubnet"), stub.count("DescribeSubnets")), (1, 4));
    }

    #[tokio::test]
    async fn a_vpcs_block_that_ec2_does_not_know_yet_is_waited_for() {
        let stub = Stub::default()
            .answers("DescribeSubnets", "<subnetSet/>")
            .refuses("CreateSubnet", "InvalidSubnet.Range")
            .answers("CreateSubnet", CREATED)
            .answers("DescribeSubnets", &described("associated"));
        assert_eq!(ensured(&stub).await.expect("it settles").len(), 1);
        assert_eq!(stub.count("CreateSubnet"), 2);
    }

    #[tokio::test]
    async fn an_existing_subnet_is_given_its_block() {
        let stub = Stub::default()
            .answers("DescribeSubnets", &described(""))
            .answers("AssociateSubnetCidrBlock", "<subnetId>subnet-1</subnetId>")
            .answers("DescribeSubnets", &described("associated"));
        assert_eq!(ensured(&stub).await.expect("it settles").len(), 1);
        assert_eq!(stub.count("AssociateSubnetCidrBlock"), 1);
    }
}
