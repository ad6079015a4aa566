//! All AWS resources of a stack, listed through the API and described without ids, so that two stacks can be
//! compared; and, after `destroy`, the check that nothing is left.
//!
//! Everything in the region is listed by kind, and filtered by the stack's tag, its name, or its VPC: a
//! leftover is rarely at the expected place.

use std::collections::BTreeMap;
use std::fmt;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_ec2::types::{IpPermission, Tag, VpcCidrBlockState, VpcCidrBlockStateCode};
use aws_sdk_s3::config::Credentials;
use serde_json::Value;

/// By kind: a line for each thing, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census(BTreeMap<&'static str, Vec<String>>);

impl Census {
    fn put(&mut self, kind: &'static str, mut lines: Vec<String>) {
        lines.sort();
        if !lines.is_empty() {
            self.0.entry(kind).or_default().extend(lines);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of resources.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns the lines that are in this census and not in the other.
    pub(crate) fn beyond(&self, other: &Self) -> Vec<String> {
        let mut beyond = Vec::new();
        for (kind, lines) in &self.0 {
            let mut others = other.0.get(kind).cloned().unwrap_or_default();
            for line in lines {
                match others.iter().position(|other| other == line) {
                    Some(position) => drop(others.remove(position)),
                    None => beyond.push(format!("{kind}: {line}")),
                }
            }
        }
        beyond
    }

    /// Returns an error that lists surplus and missing lines.
    pub(crate) fn must_be(&self, wanted: &Self) -> Result<(), String> {
        let (too_much, missing) = (self.beyond(wanted), wanted.beyond(self));
        if too_much.is_empty() && missing.is_empty() {
            return Ok(());
        }
        Err(format!("too much: {too_much:#?}\nmissing: {missing:#?}"))
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, lines) in &self.0 {
            writeln!(f, "{kind}")?;
            for line in lines {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

/// Lists with a key of its own, so that faults and records of a deployer do not include it.
pub(crate) struct Observer {
    runtime: tokio::runtime::Runtime,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) s3: aws_sdk_s3::Client,
    pub(crate) iam: aws_sdk_iam::Client,
    pub(crate) lambda: aws_sdk_lambda::Client,
    events: aws_sdk_eventbridge::Client,
    logs: aws_sdk_cloudwatchlogs::Client,
}

const KEY: &str = "mock";
pub(crate) const REGION: &str = "us-east-1";

impl Observer {
    pub(crate) fn new(endpoint: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(REGION))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new(KEY, KEY, None, None, "tests"));
        let config = runtime.block_on(loader.load());
        let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        Self {
            ec2: aws_sdk_ec2::Client::new(&config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            iam: aws_sdk_iam::Client::new(&config),
            lambda: aws_sdk_lambda::Client::new(&config),
            events: aws_sdk_eventbridge::Client::new(&config),
            logs: aws_sdk_cloudwatchlogs::Client::new(&config),
            runtime,
        }
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Returns everything of a stack.
    pub(crate) fn census(&self, stack: &str) -> Census {
        let of = Stack { name: stack, prefix: format!("vigia-{stack}-") };
        self.wait(async {
            let mut census = Census::default();
            for (kind, lines) in self.network(&of).await {
                census.put(kind, lines);
            }
            let (roles, profiles, buckets, functions, rules, groups) = tokio::join!(
                self.roles(&of),
                self.profiles(&of),
                self.buckets(&of),
                self.functions(&of),
                self.rules(&of),
                self.log_groups(&of)
            );
            for (kind, lines) in [
                ("roles", roles),
                ("instance profiles", profiles),
                ("buckets", buckets),
                ("functions", functions),
                ("rules", rules),
                ("log groups", groups),
            ] {
                census.put(kind, lines);
            }
            census
        })
    }

    /// Returns the names of roles that no stack's prefix covers; `cargo lambda` makes such roles by itself.
    pub(crate) fn stray_roles(&self) -> Vec<String> {
        self.wait(async {
            let listed = self.iam.list_roles().into_paginator().items().send().collect::<Result<Vec<_>, _>>();
            let listed = listed.await.expect("the roles");
            let names = listed.iter().map(|role| role.role_name().to_owned());
            names.filter(|name| !name.starts_with("vigia-")).collect()
        })
    }

    /// Returns the EC2 ids of a stack: everything that is tagged.
    pub(crate) fn ids(&self, stack: &str) -> Vec<String> {
        let filter =
            |name: &str, value: &str| aws_sdk_ec2::types::Filter::builder().name(name).values(value).build();
        let tagged =
            self.ec2.describe_tags().filters(filter("key", "vigia:stack")).filters(filter("value", stack));
        let tags = self.wait(tagged.into_paginator().items().send().collect::<Result<Vec<_>, _>>());
        let ids = tags.expect("tags").into_iter().filter_map(|tag| tag.resource_id);
        ids.collect()
    }

    async fn network(&self, of: &Stack<'_>) -> Vec<(&'static str, Vec<String>)> {
        let ec2 = &self.ec2;
        let (vpcs, subnets, internet, egress, tables, endpoints, groups) = tokio::join!(
            ec2.describe_vpcs().send(),
            ec2.describe_subnets().send(),
            ec2.describe_internet_gateways().send(),
            ec2.describe_egress_only_internet_gateways().send(),
            ec2.describe_route_tables().send(),
            ec2.describe_vpc_endpoints().send(),
            ec2.describe_security_groups().send(),
        );
        let (addresses, instances, volumes, interfaces) = tokio::join!(
            ec2.describe_addresses().send(),
            ec2.describe_instances()
                .into_paginator()
                .page_size(1000)
                .items()
                .send()
                .collect::<Result<Vec<_>, _>>(),
            ec2.describe_volumes().send(),
            ec2.describe_network_interfaces().send(),
        );
        let vpcs: Vec<_> = vpcs.expect("VPCs").vpcs.unwrap_or_default();
        let vpcs: Vec<_> = vpcs.into_iter().filter(|vpc| of.has(vpc.tags())).collect();
        let own_vpcs: Vec<String> = vpcs.iter().filter_map(|vpc| vpc.vpc_id().map(str::to_owned)).collect();
        let is_inside = |vpc: Option<&str>| vpc.is_some_and(|vpc| own_vpcs.iter().any(|own| own == vpc));
        let is_own = |tags: &[Tag], vpc: Option<&str>| of.has(tags) || is_inside(vpc);

        let subnets = subnets.expect("subnets").subnets.unwrap_or_default();
        let tables = tables.expect("route tables").route_tables.unwrap_or_default();
        let groups = groups.expect("security groups").security_groups.unwrap_or_default();
        let mut names = BTreeMap::<String, String>::new();
        let subnet_names = subnets.iter().map(|subnet| (subnet.subnet_id(), of.name(subnet.tags())));
        let group_names =
            groups.iter().map(|group| (group.group_id(), of.generic(group.group_name().unwrap_or(""))));
        let table_names = tables.iter().map(|table| (table.route_table_id(), of.name(table.tags())));
        for (id, name) in subnet_names.chain(group_names).chain(table_names) {
            names.extend(id.map(|id| (id.to_owned(), name)));
        }
        let name_of =
            |id: Option<&str>| id.and_then(|id| names.get(id)).map_or("unknown", String::as_str).to_owned();

        let mut all = Vec::new();
        let mut lines = Vec::new();
        for vpc in &vpcs {
            let id = vpc.vpc_id().expect("an id");
            let attribute = aws_sdk_ec2::types::VpcAttributeName::EnableDnsHostnames;
            let hostnames = ec2.describe_vpc_attribute().vpc_id(id).attribute(attribute).send().await;
            let hostnames =
                hostnames.ok().and_then(|got| got.enable_dns_hostnames.and_then(|value| value.value));
            // An old block may be listed before the one in use.
            let blocks = vpc.ipv6_cidr_block_association_set().iter();
            let is_associated =
                |state: &VpcCidrBlockState| state.state() == Some(&VpcCidrBlockStateCode::Associated);
            let ipv6 =
                blocks.filter(|block| block.ipv6_cidr_block_state().is_some_and(is_associated)).count();
            let cidr = vpc.cidr_block().unwrap_or("");
            lines
                .push(format!("{} {cidr}, {ipv6} IPv6 blocks, DNS names {hostnames:?}", of.name(vpc.tags())));
        }
        all.push(("VPCs", lines));
        let own_subnets = subnets.iter().filter(|subnet| is_own(subnet.tags(), subnet.vpc_id()));
        let line = |subnet: &aws_sdk_ec2::types::Subnet| {
            let ipv6 =
                subnet.ipv6_cidr_block_association_set().first().and_then(|block| block.ipv6_cidr_block());
            // The first groups are AWS's choice for each VPC.
            let ipv6 = ipv6.map(number_in_vpc);
            let (zone, cidr) = (subnet.availability_zone().unwrap_or(""), subnet.cidr_block().unwrap_or(""));
            format!("{} {zone} {cidr} {}", of.name(subnet.tags()), ipv6.unwrap_or_default())
        };
        all.push(("subnets", own_subnets.map(line).collect()));
        let internet = internet.expect("internet gateways").internet_gateways.unwrap_or_default();
        let is_attached = |gateway: &aws_sdk_ec2::types::InternetGateway| {
            gateway.attachments().iter().any(|attachment| is_inside(attachment.vpc_id()))
        };
        let own = internet.iter().filter(|gateway| of.has(gateway.tags()) || is_attached(gateway));
        let line = |gateway: &aws_sdk_ec2::types::InternetGateway| {
            format!("{} attached {}", of.name(gateway.tags()), gateway.attachments().len())
        };
        all.push(("internet gateways", own.map(line).collect()));
        let egress = egress.expect("egress-only gateways").egress_only_internet_gateways.unwrap_or_default();
        let is_attached = |gateway: &aws_sdk_ec2::types::EgressOnlyInternetGateway| {
            gateway.attachments().iter().any(|attachment| is_inside(attachment.vpc_id()))
        };
        let own = egress.iter().filter(|gateway| of.has(gateway.tags()) || is_attached(gateway));
        all.push(("egress-only gateways", own.map(|gateway| of.name(gateway.tags())).collect()));
        let own = tables.iter().filter(|table| is_own(table.tags(), table.vpc_id()));
        let line = |table: &aws_sdk_ec2::types::RouteTable| {
            let mut routes: Vec<String> = table.routes().iter().map(route).collect();
            routes.sort();
            let associated =
                table.associations().iter().filter(|association| association.subnet_id().is_some());
            let mut subnets: Vec<String> =
                associated.map(|association| name_of(association.subnet_id())).collect();
            subnets.sort();
            format!("{} in {subnets:?}: {routes:?}", of.name(table.tags()))
        };
        all.push(("route tables", own.map(line).collect()));
        let endpoints = endpoints.expect("endpoints").vpc_endpoints.unwrap_or_default();
        let is_live = |endpoint: &&aws_sdk_ec2::types::VpcEndpoint| {
            !endpoint.state().is_some_and(|state| state.as_str().to_ascii_lowercase().starts_with("delet"))
        };
        let own =
            endpoints.iter().filter(is_live).filter(|endpoint| is_own(endpoint.tags(), endpoint.vpc_id()));
        let line = |endpoint: &aws_sdk_ec2::types::VpcEndpoint| {
            let mut tables: Vec<String> =
                endpoint.route_table_ids().iter().map(|id| name_of(Some(id.as_str()))).collect();
            tables.sort();
            format!("{} {} {tables:?}", of.name(endpoint.tags()), endpoint.service_name().unwrap_or(""))
        };
        all.push(("endpoints", own.map(line).collect()));
        let own = groups.iter().filter(|group| is_own(group.tags(), group.vpc_id()));
        let line = |group: &aws_sdk_ec2::types::SecurityGroup| {
            let rules = |permissions: &[IpPermission]| {
                let mut rules: Vec<String> =
                    permissions.iter().flat_map(|permission| rules(permission, &name_of)).collect();
                rules.sort();
                rules
            };
            let (into, out) = (rules(group.ip_permissions()), rules(group.ip_permissions_egress()));
            format!("{} in {into:?} out {out:?}", of.generic(group.group_name().unwrap_or("")))
        };
        all.push(("security groups", own.map(line).collect()));

        let instances = instances.expect("instances");
        let live = instances.iter().flat_map(|reservation| reservation.instances()).filter(|instance| {
            let state = instance.state().and_then(|state| state.name()).map_or("", |state| state.as_str());
            state != "terminated" && is_own(instance.tags(), instance.vpc_id())
        });
        let role = |tags: &[Tag]| tag(tags, "vigia:role").unwrap_or("no role").to_owned();
        let live: Vec<_> = live.collect();
        let line = |instance: &&aws_sdk_ec2::types::Instance| {
            let groups: Vec<String> =
                instance.security_groups().iter().map(|group| name_of(group.group_id())).collect();
            let type_ = instance.instance_type().map_or("", |type_| type_.as_str());
            format!("{} {type_} {groups:?}", role(instance.tags()))
        };
        all.push(("instances", live.iter().map(line).collect()));
        let addresses = addresses.expect("addresses").addresses.unwrap_or_default();
        let own = addresses.iter().filter(|address| of.has(address.tags()));
        let line = |address: &aws_sdk_ec2::types::Address| {
            let holder = live.iter().find(|instance| instance.instance_id() == address.instance_id());
            let holder = holder.map_or("nothing".to_owned(), |instance| role(instance.tags()));
            format!("{} at {holder}", of.name(address.tags()))
        };
        all.push(("addresses", own.map(line).collect()));
        let volumes = volumes.expect("volumes").volumes.unwrap_or_default();
        let is_live = |instance: Option<&str>| live.iter().any(|own| own.instance_id() == instance);
        let own = volumes.iter().filter(|volume| {
            let attached = volume.attachments().iter().any(|attachment| is_live(attachment.instance_id()));
            of.has(volume.tags()) || attached
        });
        let line = |volume: &aws_sdk_ec2::types::Volume| {
            format!(
                "{} {} GiB attached {}",
                of.name(volume.tags()),
                volume.size().unwrap_or(0),
                volume.attachments().len()
            )
        };
        all.push(("volumes", own.map(line).collect()));
        let interfaces = interfaces.expect("network interfaces").network_interfaces.unwrap_or_default();
        let own = interfaces.iter().filter(|interface| is_own(interface.tag_set(), interface.vpc_id()));
        let line = |interface: &aws_sdk_ec2::types::NetworkInterface| {
            let holder = interface.attachment().and_then(|attachment| attachment.instance_id());
            let holder = live.iter().find(|instance| instance.instance_id() == holder);
            format!("of {}", holder.map_or("nothing".to_owned(), |instance| role(instance.tags())))
        };
        all.push(("network interfaces", own.map(line).collect()));
        all
    }

    async fn roles(&self, of: &Stack<'_>) -> Vec<String> {
        let iam = &self.iam;
        let listed = iam.list_roles().into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
        let mut lines = Vec::new();
        for role in listed.expect("roles").iter().filter(|role| role.role_name().starts_with(&of.prefix)) {
            let name = role.role_name();
            let inline = iam.list_role_policies().role_name(name).send().await.expect("policies of a role");
            let mut policies = Vec::new();
            for policy in inline.policy_names() {
                let got =
                    iam.get_role_policy().role_name(name).policy_name(policy).send().await.expect("a policy");
                policies.push(format!("{policy}: {}", of.document(got.policy_document())));
            }
            let attached = iam.list_attached_role_policies().role_name(name).send().await.expect("policies");
            policies
                .extend(attached.attached_policies().iter().filter_map(|policy| policy.policy_name.clone()));
            let tags = iam.list_role_tags().role_name(name).send().await.expect("tags of a role");
            let mut tags: Vec<String> =
                tags.tags().iter().map(|tag| of.generic(&format!("{}={}", tag.key(), tag.value()))).collect();
            tags.sort();
            let trust = of.document(role.assume_role_policy_document().unwrap_or(""));
            lines.push(format!("{} {tags:?} trusts {trust} may {policies:?}", of.generic(name)));
        }
        lines
    }

    async fn profiles(&self, of: &Stack<'_>) -> Vec<String> {
        let listed = self.iam.list_instance_profiles().into_paginator().items().send();
        let listed = listed.collect::<Result<Vec<_>, _>>().await.expect("instance profiles");
        let own = listed.iter().filter(|profile| profile.instance_profile_name().starts_with(&of.prefix));
        let line = |profile: &aws_sdk_iam::types::InstanceProfile| {
            let roles: Vec<String> =
                profile.roles().iter().map(|role| of.generic(role.role_name())).collect();
            format!("{} {roles:?}", of.generic(profile.instance_profile_name()))
        };
        own.map(line).collect()
    }

    async fn buckets(&self, of: &Stack<'_>) -> Vec<String> {
        let listed = self.s3.list_buckets().send().await.expect("buckets");
        let mut lines = Vec::new();
        for name in listed.buckets().iter().filter_map(|bucket| bucket.name()) {
            if name.starts_with(&of.prefix) {
                lines.push(self.bucket(of, name).await);
            }
        }
        lines
    }

    async fn bucket(&self, of: &Stack<'_>, name: &str) -> String {
        let s3 = &self.s3;
        let versioning = s3.get_bucket_versioning().bucket(name).send().await.ok().and_then(|got| got.status);
        let encryption = s3.get_bucket_encryption().bucket(name).send().await.is_ok();
        let ownership = s3.get_bucket_ownership_controls().bucket(name).send().await.is_ok();
        let block = s3.get_public_access_block().bucket(name).send().await.ok();
        let block = block.and_then(|got| got.public_access_block_configuration);
        let is_blocked = block.is_some_and(|block| block.block_public_policy() == Some(true));
        let lifecycle = s3.get_bucket_lifecycle_configuration().bucket(name).send().await;
        let rules = lifecycle.ok().map(|got| got.rules.unwrap_or_default()).unwrap_or_default();
        let mut rules: Vec<&str> = rules.iter().filter_map(|rule| rule.id()).collect();
        rules.sort_unstable();
        let tags =
            s3.get_bucket_tagging().bucket(name).send().await.map(|got| got.tag_set).unwrap_or_default();
        let mut tags: Vec<String> =
            tags.iter().map(|tag| of.generic(&format!("{}={}", tag.key(), tag.value()))).collect();
        tags.sort();
        let versions = s3.list_object_versions().bucket(name).send().await.expect("versions");
        // Objects that the fleet itself writes come and go.
        let of_fleet = ["fleet/state.json", "fleet/registry.json", "meta/", "throttle/", "revoked/"];
        let keys = versions.versions().iter().filter_map(|version| version.key());
        let keys: Vec<&str> = keys.filter(|key| !of_fleet.iter().any(|own| key.starts_with(own))).collect();
        format!(
            "{} {tags:?} versioning {versioning:?} encryption {encryption} ownership {ownership} \
             blocked {is_blocked} lifecycle {rules:?} objects {keys:?}",
            of.generic(name)
        )
    }

    async fn functions(&self, of: &Stack<'_>) -> Vec<String> {
        let lambda = &self.lambda;
        let listed = lambda.list_functions().into_paginator().items().send();
        let listed = listed.collect::<Result<Vec<_>, _>>().await.expect("functions");
        let mut lines = Vec::new();
        for function in listed
            .iter()
            .filter(|function| function.function_name().is_some_and(|name| name.starts_with(&of.prefix)))
        {
            let name = function.function_name().expect("a name");
            let environment = function.environment().and_then(|environment| environment.variables());
            let environment: BTreeMap<&String, String> =
                environment.into_iter().flatten().map(|(key, value)| (key, of.generic(value))).collect();
            let vpc = function.vpc_config();
            let (subnets, groups) =
                vpc.map_or((0, 0), |vpc| (vpc.subnet_ids().len(), vpc.security_group_ids().len()));
            let statements = match lambda.get_policy().function_name(name).send().await {
                Ok(got) => of.document(got.policy().unwrap_or("")),
                Err(_) => "nothing".to_owned(),
            };
            let retries = lambda.get_function_event_invoke_config().function_name(name).send().await;
            let retries = retries.ok().and_then(|got| got.maximum_retry_attempts);
            lines.push(format!(
                "{} {} {:?} MB {:?} s {:?} {environment:?} in {subnets} subnets and {groups} groups, \
                 retries {retries:?}, may be invoked by {statements}",
                of.generic(name),
                of.generic(function.role().unwrap_or("")),
                function.memory_size(),
                function.timeout(),
                function.architectures(),
            ));
        }
        lines
    }

    async fn rules(&self, of: &Stack<'_>) -> Vec<String> {
        let listed = self.events.list_rules().send().await.expect("rules");
        let mut lines = Vec::new();
        for rule in
            listed.rules().iter().filter(|rule| rule.name().is_some_and(|name| name.starts_with(&of.prefix)))
        {
            let name = rule.name().expect("a name");
            let targets = self.events.list_targets_by_rule().rule(name).send().await.expect("targets");
            let line = |target: &aws_sdk_eventbridge::types::Target| {
                let retries = target.retry_policy().and_then(|policy| policy.maximum_retry_attempts());
                of.generic(&format!("{} {} retries {retries:?}", target.id(), target.arn()))
            };
            let targets: Vec<String> = targets.targets().iter().map(line).collect();
            let (schedule, state) = (rule.schedule_expression().unwrap_or(""), rule.state());
            lines.push(format!("{} {schedule} {state:?} to {targets:?}", of.generic(name)));
        }
        lines
    }

    async fn log_groups(&self, of: &Stack<'_>) -> Vec<String> {
        let prefix = format!("/aws/lambda/{}", of.prefix);
        let listed = self.logs.describe_log_groups().log_group_name_prefix(prefix).send().await;
        let listed = listed.expect("log groups").log_groups.unwrap_or_default();
        let line = |group: &aws_sdk_cloudwatchlogs::types::LogGroup| {
            let name = of.generic(group.log_group_name().unwrap_or(""));
            format!("{name} kept {:?} days", group.retention_in_days())
        };
        listed.iter().map(line).collect()
    }
}

/// Returns which /64 of the VPC's /56 a block is. AWS chooses the VPC's block, and the printed form depends
/// on it: `2600:1f16:abc::/64` is the first one of `2600:1f16:abc::/56`.
fn number_in_vpc(block: &str) -> String {
    let block: ipnet::Ipv6Net = block.parse().expect("a block");
    format!("/64 number {}", block.network().segments()[3] & 0xff)
}

fn route(route: &aws_sdk_ec2::types::Route) -> String {
    let to = route.destination_cidr_block().or(route.destination_ipv6_cidr_block()).unwrap_or("prefix list");
    let by = [
        route.egress_only_internet_gateway_id().map(|_| "egress-only gateway"),
        route.gateway_id().map(|id| if id == "local" { "local" } else { "gateway" }),
    ];
    // The VPC's own block of IPv6 is AWS's choice.
    let to = if to.ends_with("/56") { "own IPv6 block" } else { to };
    format!("{to} by {}", by.into_iter().flatten().next().unwrap_or("?"))
}

fn rules(permission: &IpPermission, name_of: &impl Fn(Option<&str>) -> String) -> Vec<String> {
    let ports = match (permission.from_port(), permission.to_port()) {
        (Some(from), Some(to)) if from == to => from.to_string(),
        (from, to) => format!("{from:?}-{to:?}"),
    };
    let protocol = permission.ip_protocol().unwrap_or("");
    let blocks = permission.ip_ranges().iter().filter_map(|range| range.cidr_ip());
    let ipv6 = permission.ipv6_ranges().iter().filter_map(|range| range.cidr_ipv6());
    let groups = permission.user_id_group_pairs().iter().map(|pair| name_of(pair.group_id()));
    let whom = blocks.chain(ipv6).map(str::to_owned).chain(groups);
    whom.map(|whom| format!("{protocol} {ports} {whom}")).collect()
}

fn tag<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value())
}

/// Replaces the values that differ between two equal stacks.
struct Stack<'a> {
    name: &'a str,
    prefix: String,
}

impl Stack<'_> {
    fn has(&self, tags: &[Tag]) -> bool {
        tag(tags, "vigia:stack") == Some(self.name)
    }

    fn name(&self, tags: &[Tag]) -> String {
        tag(tags, "Name").map_or("unnamed".to_owned(), |name| self.generic(name))
    }

    fn generic(&self, text: &str) -> String {
        let tag = format!("vigia:stack={}", self.name);
        let text = text.replace(&self.prefix, "vigia-STACK-");
        if text == tag || text == self.name { text.replace(self.name, "STACK") } else { text }
    }

    /// Returns a policy with its keys in order; IAM returns it percent-encoded.
    fn document(&self, text: &str) -> String {
        let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
        let quoted = format!("\"{}\"", self.name);
        self.generic(&value.to_string()).replace(&quoted, "\"STACK\"")
    }
}
