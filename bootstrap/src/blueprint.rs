//! Computes the wanted network and roles of a stack, as data, from the options and from facts of the region.
//! It calls nothing, and no value in it has an AWS id.
//!
//! ```text
//!             world :5000, and :5443 with TLS
//!                 |
//!   public-0  [ load balancer ] ----:8080----> private-0, private-1 [ workers ]
//!                 ^  :9000                              ^ :8080
//!                 +--------------- [ reconciler ] ------+----:443---> [ EC2 endpoint ]
//! ```
//!
//! Nothing in the private subnets has a public IPv4 address. S3 is reached through a gateway endpoint
//! (free), the EC2 API over IPv6 through an egress-only gateway (free). A region whose EC2 API has no
//! IPv6 address gets an interface endpoint for it (not free).
//!
//! `tests/blueprint.json` is the whole of it for one stack.

use std::net::Ipv4Addr;

use fleet::{LB_ADMIN_PORT, PUBLIC_PORT, TLS_PORT, WORKER_PORT};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use crate::cidr::Cidr;
use crate::names::Names;
use crate::resources::role::{Role, RoleWanted};

/// Private addresses of a stack. Two stacks may have the same: their VPCs are not connected.
const VPC_BLOCK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 16);
/// Prefix of a subnet's IPv4 block: 16 of them fit into the VPC, each with room for 4091 machines.
const SUBNET_PREFIX: u8 = 20;
/// The only prefix length that EC2 allows by default for a subnet's IPv6 block.
const SUBNET_IPV6_PREFIX: u8 = 64;
/// Two zones survive the loss of one; a third would add nothing but the cost of a load balancer.
pub const ZONES: usize = 2;
/// The port of the EC2 API.
const HTTPS: u16 = 443;

/// Who may reach the load balancer, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub from: Vec<Cidr>,
    pub tls: TlsPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPort {
    Open,
    Closed,
}

/// How the reconciler reaches the API of EC2 from a private subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ec2Api {
    /// Over IPv6.
    DualStack,
    /// Through an interface endpoint.
    Endpoint,
}

/// Facts of the region and the stack that no option changes.
#[derive(Clone, Debug)]
pub struct Facts {
    /// At most [`ZONES`], sorted.
    pub zones: Vec<String>,
    pub blocks: Blocks,
    pub ec2_api: Ec2Api,
}

/// The blocks that the VPC has. It may differ from the requested block; subnets must lie in the block that
/// the VPC has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// A /16.
    pub ipv4: Ipv4Net,
    /// A /56 that Amazon chooses; unknown before there is a VPC.
    pub ipv6: Option<Ipv6Net>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { ipv4: VPC_BLOCK, ipv6: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blueprint {
    pub vpc: Vpc,
    pub subnets: Vec<Subnet>,
    pub gateways: [Gateway; 2],
    pub route_tables: Vec<RouteTable>,
    pub endpoints: Vec<Endpoint>,
    pub groups: Vec<Group>,
    pub roles: Vec<RoleWanted>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vpc {
    pub block: String,
    /// A private name of an endpoint is resolved only in a VPC with DNS names.
    pub dns_hostnames: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Public,
    Private,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subnet {
    /// Its name within the stack.
    pub what: String,
    pub side: Side,
    pub zone: String,
    pub block: String,
    pub ipv6_block: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gateway {
    Internet,
    /// IPv6, and only from inside.
    EgressOnly,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteTable {
    pub what: String,
    /// For all subnets of this side.
    pub side: Side,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    pub to: &'static str,
    pub via: Gateway,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub what: &'static str,
    pub service: String,
    pub kind: EndpointKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    /// In all route tables; free.
    Gateway,
    /// In all private subnets, so that it survives the loss of a zone, behind the group of this name.
    Interface { group: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub what: &'static str,
    pub description: &'static str,
    /// The allowed sources; all others are refused.
    pub rules: Vec<Rule>,
    /// Ports that no other block may reach: rules for other blocks are removed.
    pub closed_to_others: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub port: u16,
    pub from: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    Block(Cidr),
    Group(&'static str),
}

pub const LB: &str = "lb";
pub const WORKER: &str = "worker";
pub const RECONCILER: &str = "reconciler";
pub const EC2_ENDPOINT: &str = "ec2";
const ENDPOINT_GROUP: &str = "endpoint";

impl Blueprint {
    pub fn new(names: &Names, access: &Access, facts: &Facts) -> Self {
        let both = [Side::Public, Side::Private];
        let zones = facts.zones.iter().enumerate();
        Self {
            vpc: Vpc { block: facts.blocks.ipv4.to_string(), dns_hostnames: true },
            subnets: zones
                .flat_map(|(index, zone)| both.map(|side| Subnet::new(side, index, zone, &facts.blocks)))
                .collect(),
            gateways: [Gateway::Internet, Gateway::EgressOnly],
            route_tables: both.map(RouteTable::new).to_vec(),
            endpoints: endpoints(names, facts.ec2_api),
            groups: groups(access, facts.ec2_api),
            roles: Role::ALL.iter().map(|role| role.wanted(names)).collect(),
        }
    }
}

impl Side {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }

    /// Returns the index of this side's first block among `all` blocks.
    const fn half(self, all: usize) -> usize {
        match self {
            Self::Public => 0,
            Self::Private => all / 2,
        }
    }
}

impl Gateway {
    /// Its name within the stack.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::EgressOnly => "egress",
        }
    }
}

impl Subnet {
    /// Computes the blocks of a subnet. IPv4: /20s, public ones from the lower half of the VPC's /16, private
    /// ones from the upper. IPv6: /64s out of the /56, in the same halves.
    fn new(side: Side, index: usize, zone: &str, blocks: &Blocks) -> Self {
        let ipv4 = blocks.ipv4.subnets(SUBNET_PREFIX);
        let ipv4 = ipv4.ok().and_then(|mut all| all.nth(side.half(16) + index));
        let ipv6 = blocks.ipv6.and_then(|block| block.subnets(SUBNET_IPV6_PREFIX).ok());
        let ipv6 = ipv6.and_then(|mut all| all.nth(side.half(256) + index));
        Self {
            what: format!("{}-{index}", side.name()),
            side,
            zone: zone.to_owned(),
            block: ipv4.expect("a /16 has sixteen /20s, and there are two zones").to_string(),
            ipv6_block: ipv6.map(|block| block.to_string()),
        }
    }
}

impl RouteTable {
    fn new(side: Side) -> Self {
        let routes = match side {
            Side::Public => vec![
                Route { to: "0.0.0.0/0", via: Gateway::Internet },
                Route { to: "::/0", via: Gateway::Internet },
            ],
            Side::Private => vec![Route { to: "::/0", via: Gateway::EgressOnly }],
        };
        Self { what: side.name().to_owned(), side, routes }
    }
}

fn endpoints(names: &Names, ec2_api: Ec2Api) -> Vec<Endpoint> {
    let service = |name: &str| format!("com.amazonaws.{}.{name}", names.region);
    let mut all = vec![Endpoint { what: "s3", service: service("s3"), kind: EndpointKind::Gateway }];
    match ec2_api {
        Ec2Api::DualStack => {}
        Ec2Api::Endpoint => all.push(Endpoint {
            what: EC2_ENDPOINT,
            service: service("ec2"),
            kind: EndpointKind::Interface { group: ENDPOINT_GROUP },
        }),
    }
    all
}

fn groups(access: &Access, ec2_api: Ec2Api) -> Vec<Group> {
    let public = match access.tls {
        TlsPort::Open => vec![PUBLIC_PORT, TLS_PORT],
        TlsPort::Closed => vec![PUBLIC_PORT],
    };
    let from_outside = public
        .iter()
        .flat_map(|port| access.from.iter().map(|block| Rule { port: *port, from: Source::Block(*block) }));
    let from = |port, group| Rule { port, from: Source::Group(group) };
    let group = |what, description, rules| Group { what, description, rules, closed_to_others: Vec::new() };
    let mut all = vec![
        Group {
            closed_to_others: vec![PUBLIC_PORT, TLS_PORT],
            ..group(
                LB,
                "Load balancers of Vigia",
                from_outside.chain([from(LB_ADMIN_PORT, RECONCILER)]).collect(),
            )
        },
        group(WORKER, "Workers of Vigia", vec![from(WORKER_PORT, LB), from(WORKER_PORT, RECONCILER)]),
        group(RECONCILER, "The reconciler of Vigia", Vec::new()),
    ];
    match ec2_api {
        Ec2Api::DualStack => {}
        Ec2Api::Endpoint => {
            all.push(group(ENDPOINT_GROUP, "The EC2 endpoint of Vigia", vec![from(HTTPS, RECONCILER)]));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::example("a")
    }

    fn facts(ec2_api: Ec2Api) -> Facts {
        Facts {
            zones: vec!["eu-west-1a".to_owned(), "eu-west-1b".to_owned()],
            blocks: Blocks {
                ipv4: VPC_BLOCK,
                ipv6: Some("2600:1f16:abc:5f00::/56".parse().expect("a block")),
            },
            ec2_api,
        }
    }

    fn blueprint(access: &Access, ec2_api: Ec2Api) -> Blueprint {
        Blueprint::new(&names(), access, &facts(ec2_api))
    }

    fn world(tls: TlsPort) -> Access {
        Access { from: Cidr::world(), tls }
    }

    #[test]
    fn the_blueprint_equals_the_committed_one() {
        let text = serde_json::to_string_pretty(&blueprint(&world(TlsPort::Open), Ec2Api::Endpoint));
        let text = text.expect("plain data") + "\n";
        if text != include_str!("../tests/blueprint.json") {
            let new = std::env::temp_dir().join("vigia-blueprint.json");
            std::fs::write(&new, text).expect("writable");
            panic!("the blueprint has changed; if it should, copy {} to tests/blueprint.json", new.display());
        }
    }

    #[test]
    fn regions_differ_only_by_the_endpoint_and_its_group() {
        let (with, mut without) = (
            blueprint(&world(TlsPort::Open), Ec2Api::DualStack),
            blueprint(&world(TlsPort::Open), Ec2Api::Endpoint),
        );
        assert_eq!(without.endpoints.pop().expect("two").service, "com.amazonaws.eu-west-1.ec2");
        assert_eq!(without.groups.pop().expect("four").what, ENDPOINT_GROUP);
        assert_eq!(with, without);
    }

    #[test]
    fn the_tls_port_is_open_to_the_same_blocks_or_closed() {
        let from: Vec<Cidr> = ["203.0.113.0/24", "2001:db8::/32"].map(|b| b.parse().expect(b)).to_vec();
        let blocks = |tls, port| -> Vec<String> {
            let access = Access { from: from.clone(), tls };
            let rules = blueprint(&access, Ec2Api::DualStack).groups.swap_remove(0).rules;
            let of_port = rules.into_iter().filter(|rule| rule.port == port);
            of_port
                .filter_map(|rule| match rule.from {
                    Source::Block(block) => Some(block.to_string()),
                    Source::Group(_) => None,
                })
                .collect()
        };
        let given = ["203.0.113.0/24", "2001:db8::/32"];
        assert_eq!(blocks(TlsPort::Open, PUBLIC_PORT), given);
        assert_eq!(blocks(TlsPort::Open, TLS_PORT), given);
        assert_eq!(blocks(TlsPort::Closed, TLS_PORT), [""; 0]);
    }

    #[test]
    fn subnets_lie_side_by_side_in_the_vpcs_blocks() {
        let subnets = blueprint(&world(TlsPort::Closed), Ec2Api::DualStack).subnets;
        let blocks: Vec<(&str, &str, &str)> = subnets
            .iter()
            .map(|it| (it.what.as_str(), it.block.as_str(), it.ipv6_block.as_deref().expect("known")))
            .collect();
        assert_eq!(
            blocks,
            [
                ("public-0", "10.77.0.0/20", "2600:1f16:abc:5f00::/64"),
                ("private-0", "10.77.128.0/20", "2600:1f16:abc:5f80::/64"),
                ("public-1", "10.77.16.0/20", "2600:1f16:abc:5f01::/64"),
                ("private-1", "10.77.144.0/20", "2600:1f16:abc:5f81::/64"),
            ]
        );
    }

    fn ipv6_blocks(vpc: Ipv6Net) -> Vec<Ipv6Net> {
        let mut facts = facts(Ec2Api::DualStack);
        facts.blocks.ipv6 = Some(vpc);
        let subnets = Blueprint::new(&names(), &world(TlsPort::Closed), &facts).subnets;
        let blocks = subnets.iter().map(|it| it.ipv6_block.as_ref().expect("every subnet has one"));
        blocks.map(|block| block.parse().expect("a block")).collect()
    }

    #[test]
    fn a_block_whose_fourth_group_is_zero_is_divided() {
        let blocks = ipv6_blocks("2600:1f16:abc::/56".parse().expect("a block"));
        let texts: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        let expected =
            ["2600:1f16:abc::/64", "2600:1f16:abc:80::/64", "2600:1f16:abc:1::/64", "2600:1f16:abc:81::/64"];
        assert_eq!(texts, expected);
    }

    proptest::proptest! {
        #[test]
        fn subnets_of_any_block_are_distinct_and_lie_in_it(bits: u128) {
            let vpc = Ipv6Net::new(bits.into(), 56).expect("a prefix").trunc();
            let blocks = ipv6_blocks(vpc);
            let distinct: std::collections::BTreeSet<_> = blocks.iter().collect();
            proptest::prop_assert_eq!(distinct.len(), 2 * ZONES);
            proptest::prop_assert!(blocks.iter().all(|block| vpc.contains(block) && block.prefix_len() == 64));
        }
    }
}
