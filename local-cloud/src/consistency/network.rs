//! EC2: which ids a call names, EC2's errors for an unknown id, and the omissions of its lists.

use std::collections::BTreeMap;
use std::time::Instant;

use super::behaviour::Behaviour;
use super::seed::Seed;
use super::young::Young;
use super::{Refused, refused};
use crate::call::Call;
use crate::xml::Element;

/// Beginnings of ids, EC2's code for a missing resource, and its words for the kind.
const KINDS: [(&str, &str, &str); 9] = [
    ("vpc-", "InvalidVpcID.NotFound", "vpc"),
    ("subnet-", "InvalidSubnetID.NotFound", "subnet"),
    ("igw-", "InvalidInternetGatewayID.NotFound", "internetGateway"),
    ("eigw-", "InvalidGatewayID.NotFound", "gateway"),
    ("rtb-", "InvalidRouteTableID.NotFound", "routeTable"),
    ("sg-", "InvalidGroup.NotFound", "security group"),
    ("vpce-", "InvalidVpcEndpointId.NotFound", "Vpc Endpoint"),
    ("eipalloc-", "InvalidAllocationID.NotFound", "allocation"),
    ("i-", "InvalidInstanceID.NotFound", "instance"),
];

/// Calls that make something, the kind they make, and the element of the answer with its id.
const MAKERS: [(&str, &str, &str); 9] = [
    ("CreateVpc", "vpc", "vpcId"),
    ("CreateSubnet", "subnet", "subnetId"),
    ("CreateInternetGateway", "internet gateway", "internetGatewayId"),
    ("CreateEgressOnlyInternetGateway", "egress-only gateway", "egressOnlyInternetGatewayId"),
    ("CreateRouteTable", "route table", "routeTableId"),
    ("CreateSecurityGroup", "security group", "groupId"),
    ("CreateVpcEndpoint", "endpoint", "vpcEndpointId"),
    ("AllocateAddress", "address", "allocationId"),
    ("RunInstances", "instance", "instanceId"),
];

/// Calls that list, the list, and the element of its items with their ids. Instances are listed inside their
/// reservations.
const LISTS: [(&str, &str, &str); 9] = [
    ("DescribeVpcs", "vpcSet", "vpcId"),
    ("DescribeSubnets", "subnetSet", "subnetId"),
    ("DescribeInternetGateways", "internetGatewaySet", "internetGatewayId"),
    ("DescribeEgressOnlyInternetGateways", "egressOnlyInternetGatewaySet", "egressOnlyInternetGatewayId"),
    ("DescribeRouteTables", "routeTableSet", "routeTableId"),
    ("DescribeSecurityGroups", "securityGroupInfo", "groupId"),
    ("DescribeVpcEndpoints", "vpcEndpointSet", "vpcEndpointId"),
    ("DescribeAddresses", "addressesSet", "allocationId"),
    ("DescribeInstances", "instancesSet", "instanceId"),
];

/// Calls that delete something, and the parameter that names it. Endpoints and instances are missing, because
/// the emulator keeps listing them.
const DELETERS: [(&str, &str); 7] = [
    ("DeleteVpc", "VpcId"),
    ("DeleteSubnet", "SubnetId"),
    ("DeleteInternetGateway", "InternetGatewayId"),
    ("DeleteEgressOnlyInternetGateway", "EgressOnlyInternetGatewayId"),
    ("DeleteRouteTable", "RouteTableId"),
    ("DeleteSecurityGroup", "GroupId"),
    ("ReleaseAddress", "AllocationId"),
];

/// One in this many reads by id that miss a new resource answers with an empty list instead of an error.
const EMPTY: u64 = 3;

/// Returns the refusal of a call that names something that EC2 does not know yet.
pub(super) fn refuse(young: &mut Young, seed: Seed, call: &Call, now: Instant) -> Option<Refused> {
    if call.parameter("DryRun") == Some("true") {
        return None;
    }
    let is_read = call.action.starts_with("Describe");
    for id in ids(call) {
        let Some(word) = young.word(id) else { continue };
        // Missing egress-only gateways are left out of the answer, without an error
        // (hashicorp/terraform-provider-aws #6190).
        let is_left_out = id.starts_with("eigw-") || seed.one_in(EMPTY, &[word, &call.action, "empty"]);
        if is_read && is_left_out {
            continue;
        }
        if young.misses(id, &call.action, now) {
            let (code, message) = not_found(id, &call.action)?;
            return Some(refused(Behaviour::NotFound, 400, code, message));
        }
    }
    let profile = ["IamInstanceProfile.Name", "IamInstanceProfile.Arn"].map(|key| call.parameter(key));
    let profile = profile.into_iter().flatten().next().and_then(|name| name.rsplit('/').next())?;
    young.misses(&profile_in_ec2(profile), &call.action, now).then(|| {
        let message = format!(
            "Value ({profile}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance \
             Profile name"
        );
        refused(Behaviour::ProfileNotInEc2, 400, "InvalidParameterValue", message)
    })
}

/// Returns the name of a profile in EC2, which learns of a profile and its role later than IAM.
pub(super) fn profile_in_ec2(name: &str) -> String {
    format!("instance profile {name} in EC2")
}

/// Returns EC2's code and message for an unknown resource.
pub(super) fn not_found(id: &str, action: &str) -> Option<(&'static str, String)> {
    let (prefix, code, words) = *KINDS.iter().find(|(prefix, ..)| id.starts_with(prefix))?;
    Some(match prefix {
        // A route names gateways of several kinds in the same way.
        "igw-" if action.ends_with("Route") => {
            ("InvalidGatewayID.NotFound", format!("The gateway ID '{id}' does not exist"))
        }
        "sg-" => (code, format!("The {words} '{id}' does not exist")),
        "vpce-" => (code, format!("The {words} Id '{id}' does not exist")),
        _ => (code, format!("The {words} ID '{id}' does not exist")),
    })
}

/// Returns the ids that a call names, without ids in filters and tags and without profiles for an instance.
fn ids(call: &Call) -> impl Iterator<Item = &str> {
    let is_other =
        |key: &str| ["Filter.", "TagSpecification.", "Tag.", "UserData"].iter().any(|it| key.starts_with(it));
    let named = call.parameters().iter().filter(move |(key, _)| !is_other(key));
    named.map(|(_, value)| value.as_str())
}

/// Returns whether a successful call makes something, even if only a block for an existing resource.
pub(super) fn makes(call: &Call) -> bool {
    MAKERS.iter().any(|(action, ..)| *action == call.action)
        || matches!(call.action.as_str(), "AssociateVpcCidrBlock" | "AssociateSubnetCidrBlock")
}

pub(super) fn lists(call: &Call) -> bool {
    LISTS.iter().any(|(action, ..)| *action == call.action)
}

/// Records the resources made according to an answer.
pub(super) fn made(young: &mut Young, call: &Call, answer: &Element, now: Instant) {
    let Some((_, kind, element)) = MAKERS.iter().find(|(action, ..)| *action == call.action) else { return };
    let ids = answer.all(element).into_iter();
    // An instance's answer may have several; any other answer may name others after its own.
    let most = if call.is_launch() { usize::MAX } else { 1 };
    for id in ids.take(most) {
        young.made(kind, &id.text, now);
    }
}

/// Removes from a list the resources that this call does not know yet; returns whether there were any.
pub(super) fn leave_out(young: &mut Young, call: &Call, answer: &mut Element, now: Instant) -> bool {
    let Some((action, set, id)) = LISTS.iter().find(|(action, ..)| *action == call.action) else {
        return false;
    };
    let mut left_out = false;
    let mut is_known = |item: &Element| {
        let misses = item.child_text(id).is_some_and(|id| young.misses(id, action, now));
        left_out |= misses;
        !misses
    };
    if call.action == "DescribeInstances" {
        if let Some(reservations) = answer.find_mut("reservationSet") {
            reservations.children.retain_mut(|reservation| {
                let Some(instances) = reservation.find_mut(set) else { return true };
                instances.children.retain(&mut is_known);
                !instances.children.is_empty()
            });
        }
    } else if let Some(items) = answer.find_mut(set) {
        items.children.retain(&mut is_known);
    }
    left_out
}

/// Milliseconds for which a deleted resource is still listed, one time in three.
const LINGERS: (u64, u64) = (100, 600);

/// Earlier lists, so that resources deleted since can appear in them once more.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// By the call and all its parameters: ids and items.
    lists: BTreeMap<String, Vec<(String, Element)>>,
    /// Until when it is still listed.
    deleted: BTreeMap<String, Instant>,
    /// Number of deletions so far.
    number: u32,
}

/// Most different lists; a deployer has about 20 for each stack.
const MOST_LISTS: usize = 500;

impl Lingering {
    /// Records that a call deleted something.
    pub(super) fn deleted(&mut self, seed: Seed, id: &str, now: Instant) {
        self.deleted.retain(|_, until| now < *until);
        self.number += 1;
        let number = self.number.to_string();
        let words = ["deleted", &number];
        if seed.one_in(3, &words) {
            self.deleted
                .insert(id.to_owned(), now + seed.millis(LINGERS, &[&words[..], &["length"]].concat()));
        }
    }

    /// Puts resources back into a list that the same call listed earlier and that were deleted since; returns
    /// whether there were any.
    pub(super) fn put_back(&mut self, call: &Call, answer: &mut Element, now: Instant) -> bool {
        let list = LISTS.iter().find(|(action, _, id)| *action == call.action && can_be_deleted(id));
        let Some((_, set, id)) = list else { return false };
        let Some(items) = answer.find_mut(set) else { return false };
        let parameters = call.parameters().iter().map(|(key, value)| format!("{key}={value}"));
        let key = parameters.collect::<Vec<_>>().join("&");
        let lingers = |one: &str| self.deleted.get(one).is_some_and(|until| now < *until);
        let before = self.lists.get(&key).into_iter().flatten();
        let back: Vec<Element> = before
            .filter(|(one, _)| lingers(one) && !is_listed(items, id, one))
            .map(|(_, item)| item.clone())
            .collect();
        let is_back = !back.is_empty();
        items.children.extend(back);
        let listed = items.children.iter();
        let listed =
            listed.filter_map(|item| Some((item.child_text(id)?.to_owned(), item.clone()))).collect();
        if self.lists.len() >= MOST_LISTS {
            self.lists.clear();
        }
        self.lists.insert(key, listed);
        is_back
    }
}

/// Returns whether a call exists that deletes resources with this element.
fn can_be_deleted(element: &str) -> bool {
    DELETERS.iter().any(|(_, parameter)| parameter.eq_ignore_ascii_case(element))
}

fn is_listed(items: &Element, element: &str, id: &str) -> bool {
    items.children.iter().any(|item| item.child_text(element) == Some(id))
}

/// Returns the id of the resource that a call deletes.
pub(super) fn deletes(call: &Call) -> Option<&str> {
    let (_, parameter) = DELETERS.iter().find(|(action, _)| *action == call.action)?;
    call.parameter(parameter)
}

#[cfg(test)]
mod tests;
