//! The stack's own VPC: two zones, public subnets for load balancers, private ones for workers and
//! the function.
//!
//! ```text
//!             world :5000, and :5443 with TLS
//!                 |
//!   public-0  [ load balancer ] ----:8080----> private-0, private-1 [ workers ]
//!                 ^  :9000                              ^ :8080
//!                 +--------------- [ reconciler ] ------+
//! ```
//!
//! Nothing in the private subnets has a public IPv4 address. S3 is reached through a gateway
//! endpoint (free), the EC2 API over IPv6 through an egress-only gateway (free).

use aws_sdk_ec2::types::{
    AttributeBooleanValue, Filter, IpPermission, IpRange, Ipv6Range, ResourceType, Tag, TagSpecification,
    UserIdGroupPair, VpcEndpointType,
};
use fleet::aws_code::AwsErrorKind;
use fleet::release::{SubnetSpec, short_hash};
use fleet::stack::TAG_STACK;
use fleet::{LB_ADMIN_PORT, PUBLIC_PORT, TLS_PORT, WORKER_PORT};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::output::Change;
use crate::patience;

/// Private addresses of a stack. Two stacks may have the same: their VPCs are not connected.
const VPC_BLOCK: &str = "10.77.0.0/16";
/// Two zones survive the loss of one; a third would cost nothing but a load balancer in it.
const ZONES: usize = 2;

#[derive(Clone, Debug)]
pub struct Network {
    pub vpc: String,
    pub public: Vec<SubnetSpec>,
    pub private: Vec<SubnetSpec>,
    /// IPv4 blocks of the public subnets, sorted: whatever comes from there is a load balancer.
    pub public_blocks: Vec<String>,
    pub lb_group: String,
    pub worker_group: String,
    pub reconciler_group: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Public,
    Private,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// Collects what changed while the network is brought in line.
struct Builder<'a> {
    aws: &'a Aws,
    changes: Vec<Change>,
}

/// Who may reach the load balancer, and where.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// An IPv4 block.
    pub from: &'a str,
    pub tls: TlsPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPort {
    Open,
    Closed,
}

pub async fn ensure(aws: &Aws, access: Access<'_>) -> Result<(Network, Vec<Change>)> {
    let mut builder = Builder { aws, changes: Vec::new() };
    let vpc = builder.vpc().await?;
    let (first, ipv6) = blocks(aws, &vpc).await?;
    let zones = zones(aws).await?;
    let mut public = Vec::new();
    let mut private = Vec::new();
    let mut public_blocks = Vec::new();
    for (index, zone) in zones.iter().enumerate() {
        let wanted =
            |side| SubnetWanted { side, index, zone, vpc: &vpc, first: &first, ipv6: ipv6.as_deref() };
        let (subnet, block) = builder.subnet(&wanted(Side::Public)).await?;
        public.push(subnet);
        public_blocks.push(block);
        private.push(builder.subnet(&wanted(Side::Private)).await?.0);
    }
    public_blocks.sort();
    let internet = builder.internet_gateway(&vpc).await?;
    let egress = builder.egress_only_gateway(&vpc).await?;
    let public_table = builder.route_table(&vpc, Side::Public, &public).await?;
    let private_table = builder.route_table(&vpc, Side::Private, &private).await?;
    builder.route(&public_table, Route::Ipv4ToInternet(&internet)).await?;
    builder.route(&public_table, Route::Ipv6ToInternet(&internet)).await?;
    builder.route(&private_table, Route::Ipv6Out(&egress)).await?;
    builder.s3_endpoint(&vpc, &[public_table, private_table]).await?;
    let lb_group = builder.group(&vpc, "lb", "Load balancers of Vigia").await?;
    let worker_group = builder.group(&vpc, "worker", "Workers of Vigia").await?;
    let reconciler_group = builder.group(&vpc, "reconciler", "The reconciler of Vigia").await?;
    builder.open_to_world(&lb_group, PUBLIC_PORT, access.from).await?;
    match access.tls {
        TlsPort::Open => builder.open_to_world(&lb_group, TLS_PORT, access.from).await?,
        TlsPort::Closed => builder.close(&lb_group, TLS_PORT).await?,
    }
    builder.open_to_group(&lb_group, LB_ADMIN_PORT, &reconciler_group).await?;
    builder.open_to_group(&worker_group, WORKER_PORT, &lb_group).await?;
    builder.open_to_group(&worker_group, WORKER_PORT, &reconciler_group).await?;
    let network = Network { vpc, public, private, public_blocks, lb_group, worker_group, reconciler_group };
    Ok((network, builder.changes))
}

struct SubnetWanted<'a> {
    side: Side,
    index: usize,
    zone: &'a str,
    vpc: &'a str,
    /// First two octets of the VPC's block, with their dots.
    first: &'a str,
    /// The VPC's /56.
    ipv6: Option<&'a str>,
}

impl SubnetWanted<'_> {
    fn what(&self) -> String {
        format!("{}-{}", self.side.name(), self.index)
    }

    /// /20s: public ones from the lower half of the VPC's /16, private ones from the upper.
    fn block(&self) -> String {
        let third = self.index * 16 + if self.side == Side::Private { 128 } else { 0 };
        format!("{}{third}.0/20", self.first)
    }

    /// /64s out of the /56: the last byte of the fourth group tells them apart.
    fn ipv6_block(&self) -> Option<String> {
        let number = self.index + if self.side == Side::Private { 0x80 } else { 0 };
        let prefix = self.ipv6?.strip_suffix("00::/56")?;
        Some(format!("{prefix}{number:02x}::/64"))
    }
}

#[derive(Clone, Copy)]
enum Route<'a> {
    Ipv4ToInternet(&'a str),
    Ipv6ToInternet(&'a str),
    Ipv6Out(&'a str),
}

impl Builder<'_> {
    fn note(&mut self, change: Change) {
        self.changes.push(change);
    }

    async fn vpc(&mut self) -> Result<String> {
        if let Some(vpc) = find_vpc(self.aws).await? {
            self.note(Change::Unchanged);
            return Ok(vpc);
        }
        let create = self
            .aws
            .ec2
            .create_vpc()
            .cidr_block(VPC_BLOCK)
            .amazon_provided_ipv6_cidr_block(true)
            .tag_specifications(tagged(self.aws, ResourceType::Vpc, "vpc"));
        let make = async || {
            let created = create.clone().customize().config_override(patience::once()).send().await;
            let created = created.step(|| "create the VPC".to_owned())?;
            id(created.vpc().and_then(|vpc| vpc.vpc_id()), "VPC")
        };
        let vpc = self.aws.patience.made(make, async || find_vpc(self.aws).await).await?;
        self.aws
            .ec2
            .modify_vpc_attribute()
            .vpc_id(&vpc)
            .enable_dns_hostnames(AttributeBooleanValue::builder().value(true).build())
            .send()
            .await
            .step(|| "give the VPC DNS names".to_owned())?;
        self.note(Change::Created);
        Ok(vpc)
    }

    /// The subnet, and the IPv4 block that it has.
    async fn subnet(&mut self, wanted: &SubnetWanted<'_>) -> Result<(SubnetSpec, String)> {
        let what = wanted.what();
        let found = self
            .aws
            .ec2
            .describe_subnets()
            .set_filters(Some(named(self.aws, wanted.vpc, &what)))
            .send()
            .await
            .step(|| format!("look for the subnet {what}"))?;
        if let Some(subnet) = found.subnets().first() {
            self.note(Change::Unchanged);
            let zone = subnet.availability_zone().unwrap_or(wanted.zone).to_owned();
            let block = subnet.cidr_block().map_or_else(|| wanted.block(), str::to_owned);
            return Ok((SubnetSpec { id: id(subnet.subnet_id(), "subnet")?, zone }, block));
        }
        let created = self
            .aws
            .ec2
            .create_subnet()
            .vpc_id(wanted.vpc)
            .availability_zone(wanted.zone)
            .cidr_block(wanted.block())
            .set_ipv6_cidr_block(wanted.ipv6_block())
            .tag_specifications(tagged(self.aws, ResourceType::Subnet, &what))
            .send()
            .await
            .step(|| format!("create the subnet {what}"))?;
        self.note(Change::Created);
        let id = id(created.subnet().and_then(|subnet| subnet.subnet_id()), "subnet")?;
        Ok((SubnetSpec { id, zone: wanted.zone.to_owned() }, wanted.block()))
    }

    async fn internet_gateway(&mut self, vpc: &str) -> Result<String> {
        let found = self
            .aws
            .ec2
            .describe_internet_gateways()
            .filters(stack_filter(self.aws))
            .send()
            .await
            .step(|| "look for the internet gateway".to_owned())?;
        let gateway = found.internet_gateways().first();
        let is_attached = gateway.is_some_and(|gateway| !gateway.attachments().is_empty());
        let gateway = match gateway {
            Some(gateway) => id(gateway.internet_gateway_id(), "internet gateway")?,
            None => {
                let create = self.aws.ec2.create_internet_gateway().tag_specifications(tagged(
                    self.aws,
                    ResourceType::InternetGateway,
                    "internet",
                ));
                let make = async || {
                    let created = create.clone().customize().config_override(patience::once()).send().await;
                    let created = created.step(|| "create the internet gateway".to_owned())?;
                    let gateway =
                        created.internet_gateway().and_then(|gateway| gateway.internet_gateway_id());
                    id(gateway, "internet gateway")
                };
                self.aws.patience.made(make, async || find_internet_gateway(self.aws).await).await?
            }
        };
        if is_attached {
            self.note(Change::Unchanged);
            return Ok(gateway);
        }
        let attached =
            self.aws.ec2.attach_internet_gateway().internet_gateway_id(&gateway).vpc_id(vpc).send().await;
        exists_is_fine(attached.map(drop).step(|| "attach the internet gateway".to_owned()))?;
        self.note(Change::Created);
        Ok(gateway)
    }

    async fn egress_only_gateway(&mut self, vpc: &str) -> Result<String> {
        if let Some(gateway) = find_egress_only_gateway(self.aws).await? {
            self.note(Change::Unchanged);
            return Ok(gateway);
        }
        let created = self
            .aws
            .ec2
            .create_egress_only_internet_gateway()
            .client_token(token(vpc, "egress"))
            .vpc_id(vpc)
            .tag_specifications(tagged(self.aws, ResourceType::EgressOnlyInternetGateway, "egress"))
            .send()
            .await
            .step(|| "create the egress-only gateway".to_owned())?;
        self.note(Change::Created);
        let gateway = created.egress_only_internet_gateway();
        id(gateway.and_then(|gateway| gateway.egress_only_internet_gateway_id()), "egress-only gateway")
    }

    async fn route_table(&mut self, vpc: &str, side: Side, subnets: &[SubnetSpec]) -> Result<String> {
        let what = side.name();
        let found = self
            .aws
            .ec2
            .describe_route_tables()
            .set_filters(Some(named(self.aws, vpc, what)))
            .send()
            .await
            .step(|| format!("look for the {what} route table"))?;
        let table = found.route_tables().first();
        let associated: Vec<String> = table
            .iter()
            .flat_map(|table| table.associations())
            .filter_map(|association| association.subnet_id().map(str::to_owned))
            .collect();
        let table = match table {
            Some(table) => {
                self.note(Change::Unchanged);
                id(table.route_table_id(), "route table")?
            }
            None => {
                let created = self
                    .aws
                    .ec2
                    .create_route_table()
                    .client_token(token(vpc, what))
                    .vpc_id(vpc)
                    .tag_specifications(tagged(self.aws, ResourceType::RouteTable, what))
                    .send()
                    .await
                    .step(|| format!("create the {what} route table"))?;
                self.note(Change::Created);
                id(created.route_table().and_then(|table| table.route_table_id()), "route table")?
            }
        };
        for subnet in subnets.iter().filter(|subnet| !associated.contains(&subnet.id)) {
            let done = self
                .aws
                .ec2
                .associate_route_table()
                .route_table_id(&table)
                .subnet_id(&subnet.id)
                .send()
                .await;
            exists_is_fine(done.map(drop).step(|| format!("use the {what} route table in {}", subnet.id)))?;
            self.note(Change::Created);
        }
        Ok(table)
    }

    /// Looks first, so that a second run changes nothing; a route that somebody adds meanwhile is an
    /// error that means done.
    async fn route(&mut self, table: &str, route: Route<'_>) -> Result<()> {
        let described = self
            .aws
            .ec2
            .describe_route_tables()
            .route_table_ids(table)
            .send()
            .await
            .step(|| "read the routes".to_owned())?;
        let exists =
            described.route_tables().iter().flat_map(|table| table.routes()).any(|existing| match route {
                Route::Ipv4ToInternet(_) => existing.destination_cidr_block() == Some("0.0.0.0/0"),
                Route::Ipv6ToInternet(_) | Route::Ipv6Out(_) => {
                    existing.destination_ipv6_cidr_block() == Some("::/0")
                }
            });
        if exists {
            self.note(Change::Unchanged);
            return Ok(());
        }
        let create = self.aws.ec2.create_route().route_table_id(table);
        let create = match route {
            Route::Ipv4ToInternet(gateway) => create.destination_cidr_block("0.0.0.0/0").gateway_id(gateway),
            Route::Ipv6ToInternet(gateway) => create.destination_ipv6_cidr_block("::/0").gateway_id(gateway),
            Route::Ipv6Out(gateway) => {
                create.destination_ipv6_cidr_block("::/0").egress_only_internet_gateway_id(gateway)
            }
        };
        exists_is_fine(create.send().await.map(drop).step(|| "add a route".to_owned()))?;
        self.note(Change::Created);
        Ok(())
    }

    async fn s3_endpoint(&mut self, vpc: &str, tables: &[String]) -> Result<()> {
        if !find_endpoints(self.aws, vpc).await?.is_empty() {
            self.note(Change::Unchanged);
            return Ok(());
        }
        self.aws
            .ec2
            .create_vpc_endpoint()
            .client_token(token(vpc, "s3"))
            .vpc_endpoint_type(VpcEndpointType::Gateway)
            .vpc_id(vpc)
            .service_name(format!("com.amazonaws.{}.s3", self.aws.names.region))
            .set_route_table_ids(Some(tables.to_vec()))
            .tag_specifications(tagged(self.aws, ResourceType::VpcEndpoint, "s3"))
            .send()
            .await
            .step(|| "create the S3 endpoint".to_owned())?;
        self.note(Change::Created);
        Ok(())
    }

    async fn group(&mut self, vpc: &str, what: &str, description: &str) -> Result<String> {
        let name = self.aws.names.stack.resource(what);
        let found = self
            .aws
            .ec2
            .describe_security_groups()
            .filters(filter("vpc-id", vpc))
            .filters(filter("group-name", &name))
            .send()
            .await
            .step(|| format!("look for the security group {name}"))?;
        if let Some(group) = found.security_groups().first() {
            self.note(Change::Unchanged);
            return id(group.group_id(), "security group");
        }
        let created = self
            .aws
            .ec2
            .create_security_group()
            .vpc_id(vpc)
            .group_name(&name)
            .description(description)
            .tag_specifications(tagged(self.aws, ResourceType::SecurityGroup, what))
            .send()
            .await
            .step(|| format!("create the security group {name}"))?;
        self.note(Change::Created);
        id(created.group_id(), "security group")
    }

    async fn open_to_world(&mut self, group: &str, port: u16, cidr: &str) -> Result<()> {
        let rule = tcp(port).ip_ranges(IpRange::builder().cidr_ip(cidr).build());
        // All of IPv4 means everybody, so all of IPv6 as well; a smaller block means just that.
        let rule = if cidr == "0.0.0.0/0" {
            rule.ipv6_ranges(Ipv6Range::builder().cidr_ipv6("::/0").build())
        } else {
            rule
        };
        let is_there = |permission: &IpPermission| {
            permission.ip_ranges().iter().any(|range| range.cidr_ip() == Some(cidr))
        };
        self.open(group, port, rule.build(), is_there).await
    }

    async fn open_to_group(&mut self, group: &str, port: u16, from: &str) -> Result<()> {
        let rule = tcp(port).user_id_group_pairs(UserIdGroupPair::builder().group_id(from).build()).build();
        let is_there = |permission: &IpPermission| {
            permission.user_id_group_pairs().iter().any(|pair| pair.group_id() == Some(from))
        };
        self.open(group, port, rule, is_there).await
    }

    async fn open(
        &mut self,
        group: &str,
        port: u16,
        rule: IpPermission,
        is_there: impl Fn(&IpPermission) -> bool,
    ) -> Result<()> {
        if self.rules(group, port).await?.iter().any(is_there) {
            self.note(Change::Unchanged);
            return Ok(());
        }
        let opened =
            self.aws.ec2.authorize_security_group_ingress().group_id(group).ip_permissions(rule).send().await;
        exists_is_fine(opened.map(drop).step(|| format!("open port {port} of {group}")))?;
        self.note(Change::Created);
        Ok(())
    }

    /// Closes the port to everybody it was ever opened to.
    async fn close(&mut self, group: &str, port: u16) -> Result<()> {
        let rules = self.rules(group, port).await?;
        if rules.is_empty() {
            self.note(Change::Unchanged);
            return Ok(());
        }
        let revoke = self.aws.ec2.revoke_security_group_ingress().group_id(group);
        let closed = revoke.set_ip_permissions(Some(rules)).send().await;
        found(closed.step(|| format!("close port {port} of {group}")))?;
        self.note(Change::Removed);
        Ok(())
    }

    /// The rules of a group for exactly this port.
    async fn rules(&self, group: &str, port: u16) -> Result<Vec<IpPermission>> {
        let described = self.aws.ec2.describe_security_groups().group_ids(group).send().await;
        let described = described.step(|| format!("read the rules of {group}"))?;
        let all = described.security_groups().iter().flat_map(|group| group.ip_permissions());
        let port = Some(i32::from(port));
        Ok(all.filter(|rule| rule.from_port() == port && rule.to_port() == port).cloned().collect())
    }
}

/// Removes the network from the leaves to the root. Instances and network interfaces must be gone.
pub async fn delete(aws: &Aws) -> Result<Change> {
    let ec2 = &aws.ec2;
    let Some(vpc) = find_vpc(aws).await? else { return Ok(Change::Unchanged) };
    let endpoints = find_endpoints(aws, &vpc).await?;
    if !endpoints.is_empty() {
        let deleted = ec2.delete_vpc_endpoints().set_vpc_endpoint_ids(Some(endpoints)).send().await;
        found(deleted.step(|| "delete the S3 endpoint".to_owned()))?;
    }
    let in_vpc = || filter("vpc-id", &vpc);
    let groups = ec2.describe_security_groups().filters(in_vpc()).filters(stack_filter(aws)).send().await;
    let groups = groups.step(|| "list the security groups".to_owned())?;
    // Groups name each other in their rules, and a group that is named cannot be deleted.
    for group in groups.security_groups() {
        let (Some(id), rules) = (group.group_id(), group.ip_permissions()) else { continue };
        if !rules.is_empty() {
            let revoked = ec2
                .revoke_security_group_ingress()
                .group_id(id)
                .set_ip_permissions(Some(rules.to_vec()))
                .send()
                .await;
            found(revoked.step(|| format!("close {id}")))?;
        }
    }
    for id in groups.security_groups().iter().filter_map(|group| group.group_id()) {
        found(ec2.delete_security_group().group_id(id).send().await.step(|| format!("delete {id}")))?;
    }
    let subnets =
        ec2.describe_subnets().filters(in_vpc()).send().await.step(|| "list the subnets".to_owned())?;
    let tables = ec2.describe_route_tables().filters(in_vpc()).filters(stack_filter(aws)).send().await;
    let tables = tables.step(|| "list the route tables".to_owned())?;
    for association in tables.route_tables().iter().flat_map(|table| table.associations()) {
        if let (Some(id), Some(_)) = (association.route_table_association_id(), association.subnet_id()) {
            let done = ec2.disassociate_route_table().association_id(id).send().await;
            found(done.step(|| format!("release the route table association {id}")))?;
        }
    }
    for id in subnets.subnets().iter().filter_map(|subnet| subnet.subnet_id()) {
        found(ec2.delete_subnet().subnet_id(id).send().await.step(|| format!("delete {id}")))?;
    }
    for id in tables.route_tables().iter().filter_map(|table| table.route_table_id()) {
        found(ec2.delete_route_table().route_table_id(id).send().await.step(|| format!("delete {id}")))?;
    }
    if let Some(id) = find_egress_only_gateway(aws).await? {
        let deleted =
            ec2.delete_egress_only_internet_gateway().egress_only_internet_gateway_id(&id).send().await;
        found(deleted.step(|| format!("delete {id}")))?;
    }
    let gateways = ec2.describe_internet_gateways().filters(stack_filter(aws)).send().await;
    let gateways = gateways.step(|| "list the internet gateways".to_owned())?;
    for id in gateways.internet_gateways().iter().filter_map(|gateway| gateway.internet_gateway_id()) {
        let detached = ec2.detach_internet_gateway().internet_gateway_id(id).vpc_id(&vpc).send().await;
        found(detached.step(|| format!("detach {id}")))?;
        found(
            ec2.delete_internet_gateway()
                .internet_gateway_id(id)
                .send()
                .await
                .step(|| format!("delete {id}")),
        )?;
    }
    found(ec2.delete_vpc().vpc_id(&vpc).send().await.step(|| format!("delete {vpc}")))?;
    Ok(Change::Removed)
}

async fn find_vpc(aws: &Aws) -> Result<Option<String>> {
    let described = aws.ec2.describe_vpcs().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the VPC".to_owned())?;
    match described.vpcs() {
        [] => Ok(None),
        [vpc] => id(vpc.vpc_id(), "VPC").map(Some),
        several => {
            let ids: Vec<&str> = several.iter().filter_map(|vpc| vpc.vpc_id()).collect();
            let what = format!(
                "{} VPCs carry the tag {TAG_STACK}={}: {}",
                ids.len(),
                aws.names.stack,
                ids.join(", ")
            );
            Err(DeployError::new(Exit::Failed, what)
                .mend("Delete those that no instance uses, then try again."))
        }
    }
}

async fn find_internet_gateway(aws: &Aws) -> Result<Option<String>> {
    let described = aws.ec2.describe_internet_gateways().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the internet gateway".to_owned())?;
    let gateway = described.internet_gateways().first();
    gateway.map(|gateway| id(gateway.internet_gateway_id(), "internet gateway")).transpose()
}

/// Makes the call recognisable when it is repeated, by the SDK or by the next run, before EC2 shows what
/// the first one made. It counts for some minutes only: what somebody deletes by hand is made anew.
fn token(vpc: &str, what: &str) -> String {
    let minutes = jiff::Timestamp::now().as_second() / 60;
    short_hash(format!("{vpc}/{what}/{}", minutes / 10).as_bytes())
}

async fn find_egress_only_gateway(aws: &Aws) -> Result<Option<String>> {
    let described = aws.ec2.describe_egress_only_internet_gateways().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the egress-only gateway".to_owned())?;
    let stack = aws.names.stack.as_str();
    // Filtered once more here: moto ignores filters on this call.
    let own = described.egress_only_internet_gateways().iter().find(|gateway| {
        gateway.tags().iter().any(|tag| tag.key() == Some(TAG_STACK) && tag.value() == Some(stack))
    });
    Ok(own.and_then(|gateway| gateway.egress_only_internet_gateway_id()).map(str::to_owned))
}

async fn find_endpoints(aws: &Aws, vpc: &str) -> Result<Vec<String>> {
    let described = aws.ec2.describe_vpc_endpoints().filters(filter("vpc-id", vpc)).send().await;
    let described = described.step(|| "look for the S3 endpoint".to_owned())?;
    let live = described.vpc_endpoints().iter().filter(|endpoint| {
        !endpoint.state().is_some_and(|state| state.as_str().to_ascii_lowercase().starts_with("delet"))
    });
    Ok(live.filter_map(|endpoint| endpoint.vpc_endpoint_id().map(str::to_owned)).collect())
}

/// First two octets of the VPC's IPv4 block as AWS shows it, and its IPv6 block. The block that was
/// asked for is not assumed: subnets must lie in the one that is there.
async fn blocks(aws: &Aws, vpc: &str) -> Result<(String, Option<String>)> {
    let described = aws.ec2.describe_vpcs().vpc_ids(vpc).send().await.step(|| format!("look at {vpc}"))?;
    let vpc = described.vpcs().first();
    let block = vpc.and_then(|vpc| vpc.cidr_block()).unwrap_or(VPC_BLOCK);
    let octets: Vec<&str> = block.split('.').take(2).collect();
    let ipv6 = vpc
        .and_then(|vpc| vpc.ipv6_cidr_block_association_set().first())
        .and_then(|association| association.ipv6_cidr_block())
        .map(str::to_owned);
    Ok((format!("{}.", octets.join(".")), ipv6))
}

async fn zones(aws: &Aws) -> Result<Vec<String>> {
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
        return Err(DeployError::new(Exit::Failed, format!("{} has no availability zone", aws.names.region)));
    }
    Ok(zones)
}

fn tcp(port: u16) -> aws_sdk_ec2::types::builders::IpPermissionBuilder {
    IpPermission::builder().ip_protocol("tcp").from_port(i32::from(port)).to_port(i32::from(port))
}

pub fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

pub fn stack_filter(aws: &Aws) -> Filter {
    filter(&format!("tag:{TAG_STACK}"), aws.names.stack.as_str())
}

fn named(aws: &Aws, vpc: &str, what: &str) -> Vec<Filter> {
    vec![filter("vpc-id", vpc), stack_filter(aws), filter("tag:Name", &aws.names.stack.resource(what))]
}

/// Tags given with the creation, so that nothing of ours is ever without an owner.
pub fn tagged(aws: &Aws, kind: ResourceType, what: &str) -> TagSpecification {
    let tags = aws.names.tags(what).map(|(key, value)| Tag::builder().key(key).value(value).build());
    TagSpecification::builder().resource_type(kind).set_tags(Some(tags.to_vec())).build()
}

fn exists_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind == AwsErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub fn id(id: Option<&str>, what: &str) -> Result<String> {
    id.map(str::to_owned)
        .ok_or_else(|| DeployError::new(Exit::Failed, format!("AWS answered with a {what} that has no id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_lie_side_by_side_in_the_vpcs_blocks() {
        let subnet = |side, index| SubnetWanted {
            side,
            index,
            zone: "z",
            vpc: "v",
            first: "10.77.",
            ipv6: Some("2600:1f16:abc:5f00::/56"),
        };
        let all = [(Side::Public, 0), (Side::Public, 1), (Side::Private, 0), (Side::Private, 1)];
        let blocks: Vec<String> = all.iter().map(|(side, index)| subnet(*side, *index).block()).collect();
        assert_eq!(blocks, ["10.77.0.0/20", "10.77.16.0/20", "10.77.128.0/20", "10.77.144.0/20"]);
        let ipv6: Vec<_> =
            all.iter().filter_map(|(side, index)| subnet(*side, *index).ipv6_block()).collect();
        assert_eq!(
            ipv6,
            [
                "2600:1f16:abc:5f00::/64",
                "2600:1f16:abc:5f01::/64",
                "2600:1f16:abc:5f80::/64",
                "2600:1f16:abc:5f81::/64"
            ]
        );
    }
}
