//! The VPC, found by the stack's tag, and its IPv6 block.
//!
//! EC2 associates the block after it has answered, and shows it empty until then. Everything in the network
//! depends on the block, so the deployment waits for it before it makes anything in the VPC.

use std::time::Duration;

use aws_sdk_ec2::types::{AttributeBooleanValue, Filter, ResourceType, Vpc, VpcAttributeName};
use fleet::stack::TAG_STACK;
use ipnet::Ipv4Net;

use super::ipv6::Ipv6;
use super::{id, stack_filter, tagged};
use crate::aws::Aws;
use crate::blueprint::Blocks;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{Part, RunMode};
use crate::patience::{self, Look};

const NAMES: &str = "DNS names for its instances";
const IPV6: &str = "no IPv6 block";

/// A block is associated within seconds. This is ten times the delay that other deployers start with.
const ASSOCIATED_DEADLINE: Duration = Duration::from_secs(120);

pub(super) struct There {
    pub(super) id: String,
    /// Empty if EC2 does not show it.
    ipv4: String,
    ipv6: Ipv6,
    /// Ids of all associations, whatever their state.
    associations: Vec<String>,
}

/// The VPC, as the rest of the network needs it.
pub(super) struct Ready {
    /// `None` in a plan that would make it.
    pub(super) id: Option<String>,
    pub(super) blocks: Blocks,
    pub(super) parts: Vec<Part>,
}

/// The stack's VPCs: its own, and empty ones.
#[derive(Default)]
pub(super) struct All {
    pub(super) own: Option<There>,
    /// VPCs of the stack with nothing in them, other than the one in use. `CreateVpc` takes no client token,
    /// so a run that is cut right after it leaves a VPC that the next run may not see yet.
    pub(super) empty: Vec<String>,
}

/// Finds the stack's own VPC. Of several VPCs it is the VPC with subnets, because subnets are the first
/// things made in it.
pub(super) async fn find(aws: &Aws) -> Result<All> {
    let described = aws.ec2.describe_vpcs().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the VPC".to_owned())?;
    let mut there: Vec<There> =
        described.vpcs().iter().map(|vpc| There::new(vpc, &[])).collect::<Result<_>>()?;
    if there.len() < 2 {
        return Ok(All { own: there.pop(), empty: Vec::new() });
    }
    there.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: Vec<String> = there.iter().map(|vpc| vpc.id.clone()).collect();
    let inside = Filter::builder().name("vpc-id").set_values(Some(ids)).build();
    let subnets = aws.ec2.describe_subnets().filters(inside).send().await;
    let subnets = subnets.step(|| "list the subnets of the VPCs".to_owned())?;
    let has_subnets =
        |vpc: &There| subnets.subnets().iter().any(|subnet| subnet.vpc_id() == Some(vpc.id.as_str()));
    let (mut used, mut empty): (Vec<There>, Vec<There>) = there.into_iter().partition(has_subnets);
    if used.len() > 1 {
        let ids: Vec<&str> = used.iter().map(|vpc| vpc.id.as_str()).collect();
        let (count, ids, stack) = (ids.len(), ids.join(", "), &aws.names.stack);
        let what = format!("{count} VPCs with subnets carry the tag {TAG_STACK}={stack}: {ids}");
        return Err(DeployError::new(Exit::Failed, what)
            .hint("Delete the VPCs that no instance uses, then try again."));
    }
    let own = used.pop().unwrap_or_else(|| empty.remove(0));
    Ok(All { own: Some(own), empty: empty.into_iter().map(|vpc| vpc.id).collect() })
}

impl There {
    fn new(vpc: &Vpc, past: &[String]) -> Result<Self> {
        let associations = vpc.ipv6_cidr_block_association_set();
        Ok(Self {
            id: id(vpc.vpc_id(), "VPC")?,
            ipv4: vpc.cidr_block().unwrap_or_default().to_owned(),
            ipv6: Ipv6::of_vpc(associations, past),
            associations: associations
                .iter()
                .filter_map(|one| one.association_id().map(str::to_owned))
                .collect(),
        })
    }

    /// Returns the /16 block that subnets are cut from. It may differ from the requested block.
    fn ipv4(&self) -> Result<Ipv4Net> {
        let wanted = Blocks::default().ipv4;
        let block = if self.ipv4.is_empty() { Ok(wanted) } else { self.ipv4.parse::<Ipv4Net>() };
        block.ok().filter(|block| block.prefix_len() == wanted.prefix_len()).ok_or_else(|| {
            let what = format!("{} has the block {}, but a stack needs a /16", self.id, self.ipv4);
            DeployError::new(Exit::Failed, what).hint("Run `destroy`, which removes it, then deploy again.")
        })
    }
}

fn compare(there: Option<(&There, bool)>) -> Part {
    let Some((there, gives_names)) = there else { return Part::created("VPC") };
    let wrong = [(!gives_names, NAMES), (there.ipv6.is_to_be_added(), IPV6)];
    let differs = wrong.iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, what)| (*what).to_owned());
    Part::compared(format!("VPC {}", there.id), differs.collect())
}

pub(super) async fn ensure(aws: &Aws, mode: RunMode) -> Result<Ready> {
    let (there, empty) = find_with_names(aws).await?;
    let mut parts = vec![compare(there.as_ref().map(|(there, gives_names)| (there, *gives_names)))];
    for vpc in empty {
        parts.push(match mode {
            RunMode::Plan => Part::removed(format!("VPC {vpc}")),
            RunMode::Apply => delete(aws, &vpc).await?,
        });
    }
    if mode == RunMode::Plan {
        let blocks = match &there {
            Some((there, _)) => Blocks { ipv4: there.ipv4()?, ipv6: there.ipv6.block() },
            None => Blocks::default(),
        };
        return Ok(Ready { id: there.map(|(there, _)| there.id), blocks, parts });
    }
    let (vpc, past) = match &there {
        None => {
            let vpc = create(aws).await?;
            give_names(aws, &vpc).await?;
            (vpc, Vec::new())
        }
        Some((there, gives_names)) => {
            if !gives_names {
                give_names(aws, &there.id).await?;
            }
            let mut past = Vec::new();
            if there.ipv6.is_to_be_added() {
                add_ipv6(aws, &there.id).await?;
                past.clone_from(&there.associations);
            }
            (there.id.clone(), past)
        }
    };
    let blocks = wait_for_blocks(aws, &vpc, &past).await?;
    Ok(Ready { id: Some(vpc), blocks, parts })
}

/// Returns the VPC, and whether it has DNS names; and the empty VPCs. EC2 may list a VPC that it deleted a
/// moment ago, and may list a new one before all its servers know it. So the list is read again until both
/// answers fit.
async fn find_with_names(aws: &Aws) -> Result<(Option<(There, bool)>, Vec<String>)> {
    let look = async || {
        let All { own, empty } = find(aws).await?;
        let Some(there) = own else { return Ok(Look::Reached((None, empty))) };
        let asked = aws
            .ec2
            .describe_vpc_attribute()
            .vpc_id(&there.id)
            .attribute(VpcAttributeName::EnableDnsHostnames);
        let attribute = asked.send().await.step(|| format!("look at {}", there.id))?;
        let gives_names = attribute.enable_dns_hostnames().and_then(|value| value.value()).unwrap_or(false);
        Ok(Look::Reached((Some((there, gives_names)), empty)))
    };
    aws.patience.until("the VPC of the stack", patience::SETTLING, look).await
}

async fn create(aws: &Aws) -> Result<String> {
    let create = aws
        .ec2
        .create_vpc()
        .cidr_block(Blocks::default().ipv4.to_string())
        .amazon_provided_ipv6_cidr_block(true)
        .tag_specifications(tagged(aws, ResourceType::Vpc, "vpc"));
    let make = async || {
        let created = create.clone().customize().config_override(patience::once()).send().await;
        let created = created.step(|| "create the VPC".to_owned())?;
        id(created.vpc().and_then(|vpc| vpc.vpc_id()), "VPC")
    };
    let find = async || -> Result<Option<String>> { Ok(find(aws).await?.own.map(|there| there.id)) };
    aws.patience.made(None, make, find).await
}

async fn give_names(aws: &Aws, vpc: &str) -> Result<()> {
    let value = AttributeBooleanValue::builder().value(true).build();
    let modify = aws.ec2.modify_vpc_attribute().vpc_id(vpc).enable_dns_hostnames(value);
    let modified = async || modify.clone().send().await.step(|| "give the VPC DNS names".to_owned());
    aws.patience.depends_on(vpc, modified).await.map(drop)
}

/// Requests a block from Amazon. A VPC may have one at a time, so a second request is refused and does no
/// harm.
async fn add_ipv6(aws: &Aws, vpc: &str) -> Result<()> {
    let add = aws.ec2.associate_vpc_cidr_block().vpc_id(vpc).amazon_provided_ipv6_cidr_block(true);
    let added = async || add.clone().send().await.step(|| format!("add an IPv6 block to {vpc}"));
    aws.patience.depends_on(vpc, added).await.map(drop)
}

/// Waits until the VPC has its IPv6 block; associations with the ids in `past` do not count.
async fn wait_for_blocks(aws: &Aws, vpc: &str, past: &[String]) -> Result<Blocks> {
    let look = async || {
        let described = aws.ec2.describe_vpcs().vpc_ids(vpc).send().await;
        let described = described.step(|| format!("look at {vpc}"))?;
        let Some(seen) = described.vpcs().first() else {
            return Ok(Look::NotYet("not visible yet".to_owned()));
        };
        let there = There::new(seen, past)?;
        let ipv4 = there.ipv4()?;
        Ok(match there.ipv6.awaited(vpc)? {
            Look::Reached(block) => Look::Reached(Blocks { ipv4, ipv6: Some(block) }),
            Look::NotYet(state) => Look::NotYet(state),
        })
    };
    aws.patience.until(&format!("the IPv6 block of {vpc}"), ASSOCIATED_DEADLINE, look).await
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Part> {
    let delete = aws.ec2.delete_vpc().vpc_id(vpc);
    found(aws.patience.settled(async || delete.clone().send().await.step(|| format!("delete {vpc}"))).await)?;
    Ok(Part::removed(format!("VPC {vpc}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;
    use crate::part::Change;

    #[test]
    fn a_vpc_without_an_ipv6_block_gets_one() {
        let part = |ipv6| {
            let ipv4 = "10.77.0.0/16".to_owned();
            let there = There { id: "vpc-1".to_owned(), ipv4, ipv6, associations: Vec::new() };
            compare(Some((&there, true)))
        };
        assert_eq!(part(Ipv6::Missing).differs, [IPV6]);
        assert_eq!(part(Ipv6::Failed("why".to_owned())).differs, [IPV6]);
        assert_eq!(part(Ipv6::Associating).change, Change::Unchanged);
    }

    const ID: &str = "<vpcSet><item><vpcId>vpc-1</vpcId><cidrBlock>10.77.0.0/16</cidrBlock>";
    const NAMED: &str = "<enableDnsHostnames><value>true</value></enableDnsHostnames>";

    /// Returns the list of VPCs with these associations: id, state and block of each.
    fn described(associations: &[(&str, &str, &str)]) -> String {
        let item = |(id, state, block): &(&str, &str, &str)| {
            format!(
                "<item><associationId>{id}</associationId><ipv6CidrBlock>{block}</ipv6CidrBlock>\
                 <ipv6CidrBlockState><state>{state}</state></ipv6CidrBlockState></item>"
            )
        };
        let items: String = associations.iter().map(item).collect();
        format!("{ID}<ipv6CidrBlockAssociationSet>{items}</ipv6CidrBlockAssociationSet></item></vpcSet>")
    }

    const PAST: (&str, &str, &str) = ("a-0", "disassociated", "2600:1f16:aaa:100::/56");

    #[tokio::test]
    async fn a_new_vpc_is_ready_when_its_block_is_associated() {
        let stub = Stub::default()
            .answers("DescribeVpcs", "<vpcSet/>")
            .answers("CreateVpc", "<vpc><vpcId>vpc-1</vpcId></vpc>")
            .refuses("ModifyVpcAttribute", "InvalidVpcID.NotFound")
            .answers("ModifyVpcAttribute", "<return>true</return>")
            .refuses("DescribeVpcs", "InvalidVpcID.NotFound")
            .answers("DescribeVpcs", "<vpcSet/>")
            .answers("DescribeVpcs", &described(&[PAST, ("a-1", "associating", "")]))
            .answers("DescribeVpcs", &described(&[PAST, ("a-1", "associated", "2600:1f16:abc::/56")]));
        let ready = ensure(&stub.serve().await, RunMode::Apply).await.expect("it settles");
        assert_eq!(ready.blocks.ipv6, Some("2600:1f16:abc::/56".parse().expect("a block")));
        assert_eq!((stub.count("CreateVpc"), stub.count("ModifyVpcAttribute")), (1, 2));
    }

    #[tokio::test]
    async fn a_vpc_whose_block_failed_asks_for_another() {
        let failed = ("a-1", "failed", "");
        let stub = Stub::default()
            .answers("DescribeVpcs", &described(&[failed]))
            .answers("DescribeVpcAttribute", NAMED)
            .answers("AssociateVpcCidrBlock", "<vpcId>vpc-1</vpcId>")
            .answers("DescribeVpcs", &described(&[failed]))
            .answers("DescribeVpcs", &described(&[failed, ("a-2", "associated", "2600:1f16:abc:100::/56")]));
        let ready = ensure(&stub.serve().await, RunMode::Apply).await.expect("the second is associated");
        assert_eq!(stub.count("AssociateVpcCidrBlock"), 1);
        assert_eq!(ready.parts[0].differs, [IPV6]);
        assert_eq!(ready.blocks.ipv6, Some("2600:1f16:abc:100::/56".parse().expect("a block")));
    }

    #[tokio::test]
    async fn a_new_vpc_whose_block_fails_ends_the_run() {
        let stub = Stub::default()
            .answers("DescribeVpcs", "<vpcSet/>")
            .answers("CreateVpc", "<vpc><vpcId>vpc-1</vpcId></vpc>")
            .answers("ModifyVpcAttribute", "<return>true</return>")
            .answers("DescribeVpcs", &described(&[("a-1", "failing", "")]));
        let error = ensure(&stub.serve().await, RunMode::Apply).await.err().expect("it never comes");
        assert!(error.what.contains("could not give vpc-1 an IPv6 block"), "{}", error.what);
    }

    #[tokio::test]
    async fn a_vpc_that_was_just_deleted_is_none() {
        let stub = Stub::default()
            .answers("DescribeVpcs", &described(&[]))
            .refuses("DescribeVpcAttribute", "InvalidVpcID.NotFound")
            .answers("DescribeVpcs", "<vpcSet/>");
        let ready = ensure(&stub.serve().await, RunMode::Plan).await.expect("the list is read again");
        assert_eq!((ready.id, ready.parts[0].change), (None, Change::Created));
    }

    /// Returns VPCs without a block to wait for.
    fn listed(ids: &[&str]) -> String {
        let items: String = ids.iter().map(|id| format!("<item><vpcId>{id}</vpcId></item>")).collect();
        format!("<vpcSet>{items}</vpcSet>")
    }

    fn in_subnets(vpcs: &[&str]) -> String {
        let items: String = vpcs.iter().map(|id| format!("<item><vpcId>{id}</vpcId></item>")).collect();
        format!("<subnetSet>{items}</subnetSet>")
    }

    async fn found_among(vpcs: &[&str], used: &[&str]) -> Result<(Option<String>, Vec<String>)> {
        let stub = Stub::default()
            .answers("DescribeVpcs", &listed(vpcs))
            .answers("DescribeSubnets", &in_subnets(used));
        let All { own, empty } = find(&stub.serve().await).await?;
        Ok((own.map(|there| there.id), empty))
    }

    #[tokio::test]
    async fn a_vpc_that_a_cut_run_left_empty_does_not_hide_the_stacks_own() {
        let of = |own: &str, empty: &[&str]| {
            (Some(own.to_owned()), empty.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(found_among(&["vpc-2", "vpc-1"], &["vpc-2"]).await.expect("one"), of("vpc-2", &["vpc-1"]));
        // Every run chooses the same one.
        assert_eq!(found_among(&["vpc-2", "vpc-1"], &[]).await.expect("one"), of("vpc-1", &["vpc-2"]));
        let error = found_among(&["vpc-1", "vpc-2", "vpc-3"], &["vpc-2", "vpc-3", "vpc-3"]).await;
        let error = error.expect_err("the stack's own VPC is ambiguous");
        assert!(
            error.what.contains("2 VPCs with subnets") && !error.what.contains("vpc-1"),
            "{}",
            error.what
        );
    }

    #[tokio::test]
    async fn an_empty_vpc_is_removed_by_a_deployment_and_shown_by_a_plan() {
        let stub = || {
            Stub::default()
                .answers("DescribeVpcs", &listed(&["vpc-0", "vpc-1"]))
                .answers("DescribeSubnets", &in_subnets(&["vpc-1"]))
                .answers("DescribeVpcAttribute", NAMED)
                .answers("DeleteVpc", "<return>true</return>")
                .answers("AssociateVpcCidrBlock", "<vpcId>vpc-1</vpcId>")
                .answers("DescribeVpcs", &described(&[("a-1", "associated", "2600:1f16:abc::/56")]))
        };
        let removed = Part::removed("VPC vpc-0");
        for (mode, deleted) in [(RunMode::Plan, 0), (RunMode::Apply, 1)] {
            let stub = stub();
            let ready = ensure(&stub.serve().await, mode).await.expect("it is ready");
            assert_eq!((ready.id.as_deref(), &ready.parts[1]), (Some("vpc-1"), &removed));
            assert_eq!(stub.count("DeleteVpc"), deleted);
        }
    }
}
