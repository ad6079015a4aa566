//! Brings the stack's own VPC and its contents in line with the [`Blueprint`]; one file per kind.

mod endpoint;
mod gateway;
mod group;
pub(crate) mod ipv6;
mod route_table;
mod subnet;
mod vpc;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};
use fleet::aws_code::AwsErrorKind;
use fleet::release::{SubnetSpec, short_hash};
use fleet::stack::TAG_STACK;

use crate::aws::Aws;
use crate::blueprint::{self, Access, Blueprint, Ec2Api, Facts, Side, TlsPort, ZONES};
use crate::cidr::Cidr;
use crate::error::{DeployError, Exit, Result, Step as _};
use crate::part::{NEW, Part, RunMode};

/// Far longer than EC2 takes to show a new resource, and short enough for an operator who deletes one by
/// hand.
const TOKEN_SECONDS: i64 = 600;

/// Deleted resources leave the lists within seconds.
const GONE_DEADLINE: Duration = Duration::from_secs(60);

/// The network, as other resources need it. Where a plan would make a resource, its id is [`NEW`].
#[derive(Clone, Debug)]
pub struct Network {
    pub vpc: String,
    pub public: Vec<SubnetSpec>,
    pub private: Vec<SubnetSpec>,
    /// IPv4 blocks of the public subnets, sorted: only load balancers send from there.
    pub public_blocks: Vec<String>,
    pub lb_group: String,
    pub worker_group: String,
    pub reconciler_group: String,
    pub ec2_api: Ec2Api,
}

/// The requested network.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The blocks that may reach the load balancer. Without it an existing stack keeps its blocks, and a new
    /// one allows all addresses.
    pub from: Option<Vec<Cidr>>,
    pub tls: TlsPort,
    pub ec2_api: Ec2Api,
}

/// The VPC that contains everything, and the changes so far.
struct Site<'a> {
    aws: &'a Aws,
    mode: RunMode,
    /// `None` in a plan that would make it: then it is empty.
    vpc: Option<String>,
    parts: Vec<Part>,
}

pub async fn ensure(aws: &Aws, mode: RunMode, wanted: &Wanted) -> Result<(Network, Vec<Part>)> {
    let zones = zones(aws).await?;
    let vpc::Ready { id: vpc, blocks, parts } = vpc::ensure(aws, mode).await?;
    let mut site = Site { aws, mode, vpc, parts };
    let groups = site.find_groups().await?;
    let from = wanted.from.clone().or_else(|| group::blocks(&groups)).unwrap_or_else(Cidr::world);
    let access = Access { from, tls: wanted.tls };
    let facts = Facts { zones, blocks, ec2_api: wanted.ec2_api };
    let blueprint = Blueprint::new(&aws.names, &access, &facts);

    let subnets = site.subnets(&blueprint.subnets).await?;
    let mut gateways = BTreeMap::new();
    for gateway in blueprint.gateways {
        gateways.insert(gateway.what(), site.gateway(gateway).await?);
    }
    let tables = site.route_tables(&blueprint.route_tables, &subnets, &gateways).await?;
    let groups = site.groups(&blueprint.groups, &groups).await?;
    let of = |side| subnets.iter().filter(move |subnet| subnet.side == side);
    let private: Vec<SubnetSpec> = of(Side::Private).map(|subnet| subnet.spec.clone()).collect();
    site.endpoints(&blueprint.endpoints, &tables, &private, &groups).await?;

    let mut public_blocks: Vec<String> = of(Side::Public).map(|subnet| subnet.block.clone()).collect();
    public_blocks.sort();
    let group = |what| groups.get(what).cloned().unwrap_or_else(|| NEW.to_owned());
    let network = Network {
        public: of(Side::Public).map(|subnet| subnet.spec.clone()).collect(),
        private,
        public_blocks,
        lb_group: group(blueprint::LB),
        worker_group: group(blueprint::WORKER),
        reconciler_group: group(blueprint::RECONCILER),
        ec2_api: wanted.ec2_api,
        vpc: site.vpc.unwrap_or_else(|| NEW.to_owned()),
    };
    Ok((network, site.parts))
}

/// Removes the network. Instances and network interfaces must be gone.
///
/// EC2 may leave a resource that was made moments ago out of a list and call its VPC not found, so the lists
/// are read again until they are empty.
pub async fn delete(aws: &Aws) -> Result<Vec<Part>> {
    let mut removed = Vec::new();
    let mut wait = aws.patience.wait(GONE_DEADLINE);
    loop {
        let parts = delete_listed(aws).await?;
        if parts.is_empty() {
            return Ok(removed);
        }
        // A resource that is listed once more is removed once.
        removed.extend(parts.into_iter().filter(|part| !removed.contains(part)).collect::<Vec<_>>());
        if wait.is_over() {
            let what = format!("EC2 still shows the network after {} s", wait.waited().as_secs());
            return Err(DeployError::new(Exit::Failed, what)
                .hint("Run destroy again in a few minutes; it continues where this run stopped."));
        }
        wait.pause(|| "waiting until EC2 shows nothing of the network".to_owned()).await;
    }
}

/// Deletes the listed resources, dependent resources first.
async fn delete_listed(aws: &Aws) -> Result<Vec<Part>> {
    let vpc::All { own, empty } = vpc::find(aws).await?;
    let mut parts = Vec::new();
    for vpc in &empty {
        parts.push(vpc::delete(aws, vpc).await?);
    }
    let Some(vpc) = own.map(|vpc| vpc.id) else { return Ok(parts) };
    parts.extend(endpoint::delete(aws, &vpc).await?);
    parts.extend(group::delete(aws, &vpc).await?);
    route_table::release(aws, &vpc).await?;
    parts.extend(subnet::delete(aws, &vpc).await?);
    parts.extend(route_table::delete(aws, &vpc).await?);
    parts.extend(gateway::delete(aws, &vpc).await?);
    parts.push(vpc::delete(aws, &vpc).await?);
    Ok(parts)
}

/// Returns the blocks that may reach the load balancer now; `None` if there is none yet.
pub async fn reachable_from(aws: &Aws) -> Result<Option<Vec<Cidr>>> {
    let Some(vpc) = vpc::find(aws).await?.own else { return Ok(None) };
    let site = Site { aws, mode: RunMode::Plan, vpc: Some(vpc.id), parts: Vec::new() };
    Ok(group::blocks(&site.find_groups().await?))
}

/// Returns whether the stack reaches the EC2 API through an endpoint of its own.
pub async fn has_ec2_endpoint(aws: &Aws) -> Result<bool> {
    let Some(vpc) = vpc::find(aws).await?.own else { return Ok(false) };
    endpoint::exists(aws, &vpc.id, blueprint::EC2_ENDPOINT).await
}

impl Site<'_> {
    /// Returns the filters for the stack's resources in the VPC; `None` if there is no VPC yet.
    fn filters(&self) -> Option<Vec<Filter>> {
        let vpc = self.vpc.as_ref()?;
        Some(vec![filter("vpc-id", vpc), stack_filter(self.aws)])
    }

    /// Makes a call recognisable when it is repeated, by the SDK or by the next run, before EC2 shows what
    /// the first one made. It is valid for some minutes only: a resource that an operator deletes by hand is
    /// then made again.
    fn token(&self, what: &str) -> String {
        let vpc = self.vpc_id();
        let window = jiff::Timestamp::now().as_second() / TOKEN_SECONDS;
        short_hash(format!("{vpc}/{what}/{window}").as_bytes())
    }

    fn vpc_id(&self) -> &str {
        self.vpc.as_deref().unwrap_or(NEW)
    }

    fn note(&mut self, part: Part) {
        self.parts.push(part);
    }
}

pub async fn zones(aws: &Aws) -> Result<Vec<String>> {
    let described = aws
        .ec2
        .describe_availability_zones()
        .filters(filter("state", "available"))
        .filters(filter("zone-type", "availability-zone"))
        .send()
        .await
        .step(|| "list the availability zones".to_owned())?;
    let mut zones: Vec<String> = described
        .availability_zones()
        .iter()
        .filter_map(|zone| zone.zone_name().map(str::to_owned))
        .collect();
    zones.sort();
    zones.truncate(ZONES);
    if zones.is_empty() {
        return Err(DeployError::new(Exit::Failed, format!("{} has no availability zone", aws.names.region))
            .hint("Choose another region with --region (make: REGION=…)."));
    }
    Ok(zones)
}

pub fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

pub fn stack_filter(aws: &Aws) -> Filter {
    filter(&format!("tag:{TAG_STACK}"), aws.names.stack.as_str())
}

/// Returns the tags that a creation sets, so that no resource of the stack is ever without an owner.
pub fn tagged(aws: &Aws, kind: ResourceType, what: &str) -> TagSpecification {
    let tags = aws.names.tags(what).map(|(key, value)| Tag::builder().key(key).value(value).build());
    TagSpecification::builder().resource_type(kind).set_tags(Some(tags.to_vec())).build()
}

/// Returns a resource's name within the stack: its `Name` without the stack's.
fn name_in_stack<'a>(aws: &Aws, tags: &'a [Tag]) -> Option<&'a str> {
    let name = tags.iter().find(|tag| tag.key() == Some("Name")).and_then(Tag::value)?;
    name.strip_prefix(&aws.names.stack.resource(""))
}

fn exists_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind == AwsErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub fn id(id: Option<&str>, what: &str) -> Result<String> {
    id.map(str::to_owned).ok_or_else(|| {
        DeployError::new(Exit::Failed, format!("AWS answered with a {what} that has no id"))
            .hint("Try again.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;
    use crate::patience::Patience;

    const LISTED: &str =
        "<vpcSet><item><vpcId>vpc-1</vpcId><cidrBlock>10.77.0.0/16</cidrBlock></item></vpcSet>";

    /// Returns a stack whose VPC is empty.
    fn network() -> Stub {
        Stub::default()
            .answers("DescribeVpcEndpoints", "<vpcEndpointSet/>")
            .answers("DescribeSecurityGroups", "<securityGroupInfo/>")
            .answers("DescribeSubnets", "<subnetSet/>")
            .answers("DescribeRouteTables", "<routeTableSet/>")
            .answers("DescribeInternetGateways", "<internetGatewaySet/>")
            .answers("DescribeEgressOnlyInternetGateways", "<egressOnlyInternetGatewaySet/>")
    }

    #[tokio::test]
    async fn a_vpc_that_was_not_found_and_is_still_listed_is_deleted_again() {
        let stub = network()
            .answers("DescribeVpcs", LISTED)
            .answers("DescribeVpcs", LISTED)
            .answers("DescribeVpcs", "<vpcSet/>")
            .refuses("DeleteVpc", "InvalidVpcID.NotFound")
            .answers("DeleteVpc", "<return>true</return>");
        let removed = delete(&stub.serve().await).await.expect("it is gone");
        assert_eq!(removed, [Part::removed("VPC vpc-1")], "named once");
        assert_eq!(stub.count("DeleteVpc"), 2);
    }

    #[tokio::test]
    async fn a_network_that_stays_listed_is_an_error() {
        let stub = network().answers("DescribeVpcs", LISTED).answers("DeleteVpc", "<return>true</return>");
        let mut aws = stub.serve().await;
        aws.patience = Patience::at_most(Some(1));
        let error = delete(&aws).await.expect_err("it never goes").message();
        assert!(error.contains("EC2 still shows the network after 1 s"), "{error}");
        assert!(error.contains("Run destroy again"), "{error}");
    }
}
