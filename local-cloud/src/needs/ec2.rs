//! EC2: a query names ids, and the beginning of an id tells its kind.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Needs, arn};
use crate::ACCOUNT;
use crate::call::Call;
use crate::call::Tags;

/// Kinds of resources by the beginning of their ids.
const KINDS: [(&str, &str); 12] = [
    ("eigw-", "egress-only-internet-gateway"),
    ("eipalloc-", "elastic-ip"),
    ("eni-", "network-interface"),
    ("i-", "instance"),
    ("igw-", "internet-gateway"),
    ("rtb-", "route-table"),
    ("sg-", "security-group"),
    ("sgr-", "security-group-rule"),
    ("subnet-", "subnet"),
    ("vol-", "volume"),
    ("vpc-", "vpc"),
    ("vpce-", "vpc-endpoint"),
];

/// The resources that a call makes.
const MAKES: [(&str, &[&str]); 10] = [
    ("AllocateAddress", &["elastic-ip"]),
    ("CreateEgressOnlyInternetGateway", &["egress-only-internet-gateway"]),
    ("CreateInternetGateway", &["internet-gateway"]),
    ("CreateRouteTable", &["route-table"]),
    ("CreateSecurityGroup", &["security-group"]),
    ("CreateSubnet", &["subnet"]),
    ("CreateVpc", &["vpc"]),
    ("CreateVpcEndpoint", &["vpc-endpoint"]),
    ("RunInstances", &["instance", "volume", "network-interface"]),
    // It makes nothing, but concerns the instance's interface, whose id is looked up later.
    ("AssociateAddress", &["network-interface"]),
];

pub(super) fn needs(call: &Call, region: &str) -> Needs {
    let action = format!("ec2:{}", call.action);
    let names = names(call);
    if !call.is_judged_by_resource() {
        return Needs { all: vec![Asked::new(action, "*")], names, ..Needs::default() };
    }
    let tags = tags(call);
    let mut all = Vec::new();
    let made = MAKES.iter().find(|(name, _)| *name == call.action).map_or(&[][..], |(_, kinds)| kinds);
    let is_spot = call.parameter("InstanceMarketOptions.MarketType") == Some("spot");
    for kind in made.iter().chain(is_spot.then_some(&"spot-instances-request")) {
        let new = arn("ec2", region, &format!("{kind}/*"));
        let own = tags.get(*kind).cloned().unwrap_or_default();
        all.push(Asked::new(&action, &new).with_tags(&own));
        if !own.is_empty() {
            let tagging = Asked::new("ec2:CreateTags", new).with_tags(&own);
            all.push(tagging.with("ec2:CreateAction", &call.action));
        }
    }
    for id in ids(call) {
        all.extend(resource(id, region).map(|resource| Asked::new(&action, resource)));
    }
    if let Some(profile) = call.profile() {
        // The role is looked up later, because the call names only its profile.
        all.push(pass_role(profile, "ec2.amazonaws.com"));
    }
    if all.is_empty() {
        all.push(Asked::new(action, "*"));
    }
    Needs { all, names, region: region.to_owned(), ..Needs::default() }
}

pub(super) fn resource(id: &str, region: &str) -> Option<String> {
    if id.starts_with("ami-") {
        // Images of other owners have no account in their ARNs.
        return Some(format!("arn:aws:ec2:{region}::image/{id}"));
    }
    let (_, kind) = KINDS.iter().find(|(prefix, _)| id.starts_with(prefix))?;
    Some(arn("ec2", region, &format!("{kind}/{id}")))
}

fn ids<'a>(call: &'a Call) -> BTreeSet<&'a str> {
    let is_id = |text: &&'a str| {
        let known = KINDS.iter().map(|(prefix, _)| *prefix).chain(["ami-"]);
        known.into_iter().any(|prefix| {
            text.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
    };
    call.parameters().iter().map(|(_, value)| value.as_str()).filter(is_id).collect()
}

/// Returns ids, and the values of filters.
fn names(call: &Call) -> BTreeSet<String> {
    let filters =
        call.parameters().iter().filter(|(key, _)| key.starts_with("Filter.") && key.contains(".Value"));
    ids(call).into_iter().map(str::to_owned).chain(filters.map(|(_, value)| value.clone())).collect()
}

/// Returns the tags that a call sets, by kind of resource.
fn tags(call: &Call) -> BTreeMap<String, Tags> {
    let mut tags = BTreeMap::<String, Tags>::new();
    for number in 1_u32.. {
        let specification = format!("TagSpecification.{number}");
        let Some(kind) = call.parameter(&format!("{specification}.ResourceType")) else { break };
        tags.entry(kind.to_owned()).or_default().extend(numbered(
            call,
            &format!("{specification}.Tag"),
            "Key",
        ));
    }
    tags
}

pub(super) fn numbered(call: &Call, list: &str, key: &str) -> Tags {
    let of = |number: u32| {
        let key = call.parameter(&format!("{list}.{number}.{key}"))?;
        let value = call.parameter(&format!("{list}.{number}.Value")).unwrap_or("");
        Some((key.to_owned(), value.to_owned()))
    };
    (1..).map_while(of).collect()
}

pub(super) fn pass_role(role: &str, to: &str) -> Asked {
    Asked::new("iam:PassRole", format!("arn:aws:iam::{ACCOUNT}:role/{role}")).with("iam:PassedToService", to)
}

/// Returns the permission to pass a function its role.
pub(super) fn pass_to_lambda(role: &str) -> Asked {
    pass_role(role, "lambda.amazonaws.com")
}
