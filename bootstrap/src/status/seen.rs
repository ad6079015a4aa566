//! Reads the facts that drift is judged from, in seven calls to AWS.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_ec2::types::{Instance, InstanceStateName, IpPermission, RouteState, Tag};
use aws_sdk_eventbridge::types::RuleState;
use fleet::stack::{TAG_RELEASE, TAG_ROLE};
use jiff::Timestamp;

use crate::aws::Aws;
use crate::error::{Result, Step as _, found};
use crate::resources::network::ipv6::Ipv6;
use crate::resources::network::stack_filter;
use crate::resources::{function, instance, load_balancer, schedule};

/// Each part, or why it could not be read; the error is a sentence for people.
pub(super) struct Seen {
    pub instances: Look<Vec<InstanceSeen>>,
    pub schedule: Look<ScheduleSeen>,
    pub function: Look<FunctionSeen>,
    /// By their places.
    pub addresses: Look<BTreeMap<u32, AddressSeen>>,
    pub rules: Look<RulesSeen>,
    pub subnets: Look<Vec<SubnetSeen>>,
    pub tables: Look<Vec<TableSeen>>,
}

pub(super) type Look<T> = std::result::Result<T, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstanceSeen {
    pub id: String,
    /// Empty if it has none.
    pub role: String,
    pub release: Option<String>,
    pub launched: Option<Timestamp>,
    /// Pending or running.
    pub is_live: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressSeen {
    pub ip: String,
    /// The instance with the address.
    pub holder: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScheduleSeen {
    Right,
    Missing,
    Disabled,
    /// Another period.
    Every(String),
    WithoutTarget,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FunctionSeen {
    Right,
    Missing,
    NotActive(String),
    OtherProgram,
    WithoutIpv6,
}

/// The ingress and egress of the stack's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RulesSeen {
    pub groups: Vec<String>,
    pub incoming: Vec<RuleSeen>,
    /// `from` is their destination.
    pub outgoing: Vec<RuleSeen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SubnetSeen {
    /// `private-0`: the last part of its name.
    pub name: String,
    pub ipv6: Ipv6,
}

/// A route table, and the destinations of its working routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableSeen {
    pub name: String,
    pub routes: Vec<String>,
}

/// One source on one port of one of the stack's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleSeen {
    /// `lb`, `worker` or `reconciler`: the last part of its name.
    pub group: String,
    pub port: Port,
    pub from: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Tcp(u16),
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Block(String),
    /// The last part of its name, or its id if it is not the stack's.
    Group(String),
}

impl Port {
    /// All protocols and all ports.
    pub(super) fn everything() -> Self {
        Self::Other("every port".to_owned())
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "port {port}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(block) => f.write_str(block),
            Self::Group(group) => write!(f, "the {group}"),
        }
    }
}

impl Seen {
    pub(super) async fn look(aws: &Aws) -> Self {
        let (instances, schedule, function, addresses, rules, subnets, tables) = tokio::join!(
            instances(aws),
            schedule(aws),
            function(aws),
            addresses(aws),
            rules(aws),
            subnets(aws),
            tables(aws)
        );
        Self {
            instances: instances.map_err(|error| error.what),
            schedule: schedule.map_err(|error| error.what),
            function: function.map_err(|error| error.what),
            addresses: addresses.map_err(|error| error.what),
            rules: rules.map_err(|error| error.what),
            subnets: subnets.map_err(|error| error.what),
            tables: tables.map_err(|error| error.what),
        }
    }

    pub(super) fn instance(&self, id: &str) -> Option<&InstanceSeen> {
        self.instances.as_ref().ok()?.iter().find(|one| one.id == id)
    }

    pub(super) fn address(&self, place: u32) -> Option<&AddressSeen> {
        self.addresses.as_ref().ok()?.get(&place)
    }

    /// Returns the instances with an address of the stack.
    pub(super) fn holders(&self) -> impl Iterator<Item = &str> {
        let addresses = self.addresses.iter().flat_map(BTreeMap::values);
        addresses.filter_map(|address| address.holder.as_deref())
    }

    /// The first address.
    pub(super) fn ip(&self) -> Option<&str> {
        Some(self.address(0)?.ip.as_str())
    }
}

async fn instances(aws: &Aws) -> Result<Vec<InstanceSeen>> {
    let seen = instance::list(aws, &instance::NOT_GONE).await?;
    let row = |one: &Instance| {
        let state = one.state().and_then(|state| state.name());
        InstanceSeen {
            id: one.instance_id().unwrap_or_default().to_owned(),
            role: instance::tag(one, TAG_ROLE).unwrap_or_default().to_owned(),
            release: instance::tag(one, TAG_RELEASE).map(str::to_owned),
            launched: one.launch_time().and_then(|at| Timestamp::from_second(at.secs()).ok()),
            is_live: matches!(state, Some(InstanceStateName::Pending | InstanceStateName::Running)),
        }
    };
    Ok(seen.iter().map(row).collect())
}

async fn addresses(aws: &Aws) -> Result<BTreeMap<u32, AddressSeen>> {
    let addresses = load_balancer::find_addresses(aws).await?;
    let seen = addresses.into_iter().filter_map(|(place, address)| {
        let holder = address.instance_id().filter(|id| !id.is_empty()).map(str::to_owned);
        Some((place, AddressSeen { ip: address.public_ip()?.to_owned(), holder }))
    });
    Ok(seen.collect())
}

async fn schedule(aws: &Aws) -> Result<ScheduleSeen> {
    let rule = aws.names.stack.schedule_rule();
    let described = aws.events.describe_rule().name(&rule).send().await;
    let Some(described) = found(described.step(|| format!("look at the rule {rule}")))? else {
        return Ok(ScheduleSeen::Missing);
    };
    if described.state() != Some(&RuleState::Enabled) {
        return Ok(ScheduleSeen::Disabled);
    }
    match described.schedule_expression() {
        Some(schedule::EVERY_MINUTE) => {}
        other => return Ok(ScheduleSeen::Every(other.unwrap_or_default().to_owned())),
    }
    let listed = aws.events.list_targets_by_rule().rule(&rule).send().await;
    let listed = listed.step(|| format!("list the targets of {rule}"))?;
    let arn = aws.names.function_arn();
    let is_aimed = listed.targets().iter().any(|target| target.arn() == arn);
    Ok(if is_aimed { ScheduleSeen::Right } else { ScheduleSeen::WithoutTarget })
}

async fn function(aws: &Aws) -> Result<FunctionSeen> {
    let name = aws.names.stack.function();
    let got = aws.lambda.get_function().function_name(&name).send().await;
    let Some(got) = found(got.step(|| format!("look at the function {name}")))? else {
        return Ok(FunctionSeen::Missing);
    };
    let state = got.configuration().and_then(|configuration| configuration.state());
    Ok(match state.map(|state| state.as_str()) {
        // In any state: a function may be pending just because of the other program.
        _ if !function::is_as_uploaded(&got) => FunctionSeen::OtherProgram,
        None | Some("Active") if !got.configuration().is_some_and(function::may_use_ipv6) => {
            FunctionSeen::WithoutIpv6
        }
        None | Some("Active") => FunctionSeen::Right,
        Some(state) => FunctionSeen::NotActive(state.to_lowercase()),
    })
}

async fn rules(aws: &Aws) -> Result<RulesSeen> {
    let described = aws.ec2.describe_security_groups().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "read the security groups".to_owned())?;
    let groups = described.security_groups();
    let name_of = |id: &str| {
        let group = groups.iter().find(|group| group.group_id() == Some(id));
        group.and_then(|group| short(aws, group.group_name())).unwrap_or_else(|| id.to_owned())
    };
    let mut seen = RulesSeen::default();
    for group in groups {
        let Some(name) = short(aws, group.group_name()) else { continue };
        let rows = |permissions: &[IpPermission]| -> Vec<RuleSeen> {
            let row = |port: Port, from| RuleSeen { group: name.clone(), port, from };
            let ends =
                |it: &IpPermission| ends(it, &name_of).into_iter().map(|end| (port(it), end)).collect();
            let all = permissions.iter().flat_map(|it| -> Vec<(Port, Source)> { ends(it) });
            all.map(|(port, end)| row(port, end)).collect()
        };
        seen.incoming.extend(rows(group.ip_permissions()));
        seen.outgoing.extend(rows(group.ip_permissions_egress()));
        seen.groups.push(name);
    }
    Ok(seen)
}

/// Returns the last part of a stack resource's name.
fn short(aws: &Aws, name: Option<&str>) -> Option<String> {
    let prefix = aws.names.stack.resource("");
    name.and_then(|name| name.strip_prefix(&prefix)).map(str::to_owned)
}

/// Returns the sources or destinations of a permission.
fn ends(permission: &IpPermission, name_of: &dyn Fn(&str) -> String) -> Vec<Source> {
    let ipv4 = permission.ip_ranges().iter().filter_map(|range| range.cidr_ip());
    let ipv6 = permission.ipv6_ranges().iter().filter_map(|range| range.cidr_ipv6());
    let lists = permission.prefix_list_ids().iter().filter_map(|list| list.prefix_list_id());
    let blocks = ipv4.chain(ipv6).chain(lists).map(|block| Source::Block(block.to_owned()));
    let pairs = permission.user_id_group_pairs().iter().filter_map(|pair| pair.group_id());
    blocks.chain(pairs.map(|id| Source::Group(name_of(id)))).collect()
}

fn named(aws: &Aws, tags: &[Tag]) -> Option<String> {
    short(aws, tags.iter().find(|tag| tag.key() == Some("Name")).and_then(Tag::value))
}

async fn subnets(aws: &Aws) -> Result<Vec<SubnetSeen>> {
    let described = aws.ec2.describe_subnets().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "read the subnets".to_owned())?;
    let seen = described.subnets().iter().filter_map(|subnet| {
        let ipv6 = Ipv6::of_subnet(subnet.ipv6_cidr_block_association_set());
        Some(SubnetSeen { name: named(aws, subnet.tags())?, ipv6 })
    });
    Ok(seen.collect())
}

async fn tables(aws: &Aws) -> Result<Vec<TableSeen>> {
    let described = aws.ec2.describe_route_tables().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "read the route tables".to_owned())?;
    let seen = described.route_tables().iter().filter_map(|table| {
        let working = table.routes().iter().filter(|route| route.state() != Some(&RouteState::Blackhole));
        let to = working.filter_map(|route| {
            route.destination_cidr_block().or_else(|| route.destination_ipv6_cidr_block())
        });
        Some(TableSeen { name: named(aws, table.tags())?, routes: to.map(str::to_owned).collect() })
    });
    Ok(seen.collect())
}

fn port(permission: &IpPermission) -> Port {
    let protocol = permission.ip_protocol().unwrap_or("-1");
    let one = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
    match (protocol, one(permission.from_port()), one(permission.to_port())) {
        ("tcp", Some(from), Some(to)) if from == to => Port::Tcp(from),
        ("-1", ..) => Port::everything(),
        (protocol, Some(from), Some(to)) => Port::Other(format!("{protocol} ports {from} to {to}")),
        (protocol, ..) => Port::Other(format!("all of {protocol}")),
    }
}
