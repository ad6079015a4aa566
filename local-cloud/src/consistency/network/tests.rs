use std::time::Duration;

use super::*;
use crate::consistency::young::WINDOW;

fn call(action: &str, parameters: &[(&str, &str)]) -> Call {
    parameters.iter().fold(Call::example("ec2", action, "/"), |call, (key, value)| call.with(key, value))
}

/// Returns the answers of clouds of many seeds to a call that names a new resource.
fn refusals(kind: &'static str, id: &str, call: &Call, age: Duration) -> Vec<Option<Refused>> {
    let now = Instant::now();
    let ask = |seed| {
        let mut young = Young::new(Seed(seed));
        young.made(kind, id, now);
        refuse(&mut young, Seed(seed), call, now + age)
    };
    (0..60).map(ask).collect()
}

#[test]
fn a_new_resource_is_not_found_by_some_calls() {
    for (id, action, parameter, code) in [
        ("vpc-1", "CreateSubnet", "VpcId", "InvalidVpcID.NotFound"),
        ("vpc-1", "ModifyVpcAttribute", "VpcId", "InvalidVpcID.NotFound"),
        ("subnet-1", "AssociateRouteTable", "SubnetId", "InvalidSubnetID.NotFound"),
        ("igw-1", "AttachInternetGateway", "InternetGatewayId", "InvalidInternetGatewayID.NotFound"),
        ("igw-1", "CreateRoute", "GatewayId", "InvalidGatewayID.NotFound"),
        ("eigw-1", "CreateRoute", "EgressOnlyInternetGatewayId", "InvalidGatewayID.NotFound"),
        ("rtb-1", "CreateRoute", "RouteTableId", "InvalidRouteTableID.NotFound"),
        (
            "sg-1",
            "AuthorizeSecurityGroupIngress",
            "IpPermissions.1.Groups.1.GroupId",
            "InvalidGroup.NotFound",
        ),
        ("sg-1", "RunInstances", "SecurityGroupId.1", "InvalidGroup.NotFound"),
        ("vpce-1", "ModifyVpcEndpoint", "VpcEndpointId", "InvalidVpcEndpointId.NotFound"),
        ("eipalloc-1", "AssociateAddress", "AllocationId", "InvalidAllocationID.NotFound"),
        ("i-1", "AssociateAddress", "InstanceId", "InvalidInstanceID.NotFound"),
        ("i-1", "CreateTags", "ResourceId.1", "InvalidInstanceID.NotFound"),
        ("vpc-1", "DescribeVpcs", "VpcId.1", "InvalidVpcID.NotFound"),
    ] {
        let call = call(action, &[(parameter, id)]);
        let answers = refusals("kind", id, &call, Duration::ZERO);
        let refused: Vec<&Refused> = answers.iter().flatten().collect();
        assert!((6..50).contains(&refused.len()), "{action}: {} of 60", refused.len());
        for one in refused {
            assert_eq!((one.behaviour, one.status, one.code), (Behaviour::NotFound, 400, code), "{action}");
            assert!(one.message.contains(&format!("'{id}' does not exist")), "{}", one.message);
        }
        assert!(refusals("kind", id, &call, WINDOW).iter().all(Option::is_none), "{action}");
    }
}

#[test]
fn a_new_resource_that_a_call_does_not_use_is_no_obstacle() {
    for call in [
        call("DescribeSubnets", &[("Filter.1.Name", "vpc-id"), ("Filter.1.Value.1", "vpc-1")]),
        call("CreateVpc", &[("TagSpecification.1.Tag.1.Value", "vpc-1")]),
        call("RunInstances", &[("UserData", "vpc-1")]),
        call("CreateSubnet", &[("VpcId", "vpc-1"), ("DryRun", "true")]),
        call("CreateSubnet", &[("VpcId", "vpc-2")]),
    ] {
        let answers = refusals("vpc", "vpc-1", &call, Duration::ZERO);
        assert!(answers.iter().all(Option::is_none), "{call:?}");
    }
}

#[test]
fn a_new_profile_is_an_invalid_parameter_of_a_launch() {
    for parameter in ["IamInstanceProfile.Name", "IamInstanceProfile.Arn"] {
        let value = if parameter.ends_with("Arn") { "arn:aws:iam::0:instance-profile/p" } else { "p" };
        let launch = call("RunInstances", &[(parameter, value)]);
        let now = Instant::now();
        let ask = |seed| {
            let mut young = Young::new(Seed(seed));
            young.named(&profile_in_ec2("p"), now);
            refuse(&mut young, Seed(seed), &launch, now)
        };
        let refused: Vec<Refused> = (0..60).filter_map(ask).collect();
        assert!(!refused.is_empty());
        assert_eq!(
            (refused[0].behaviour, refused[0].code),
            (Behaviour::ProfileNotInEc2, "InvalidParameterValue")
        );
        assert!(refused[0].message.ends_with("Invalid IAM Instance Profile name"), "{}", refused[0].message);
    }
}

fn list(xml: &str) -> Element {
    Element::parse(xml.as_bytes()).expect("well-formed")
}

fn texts(answer: &Element, name: &str) -> Vec<String> {
    answer.all(name).iter().map(|element| element.text.clone()).collect()
}

const SUBNETS: &str = "<R><subnetSet><item><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId></item>\
    <item><subnetId>subnet-2</subnetId><vpcId>vpc-1</vpcId></item></subnetSet></R>";

#[test]
fn a_new_resource_is_left_out_of_some_lists() {
    let lists = call("DescribeSubnets", &[]);
    let now = Instant::now();
    let seen = |seed, age| {
        let mut young = Young::new(Seed(seed));
        young.made("subnet", "subnet-2", now);
        young.made("vpc", "vpc-1", now);
        let mut answer = list(SUBNETS);
        let left_out = leave_out(&mut young, &lists, &mut answer, now + age);
        let seen = texts(&answer, "subnetId");
        assert_eq!(left_out, seen.len() == 1);
        seen
    };
    let all: Vec<_> = (0..60).map(|seed| seen(seed, Duration::ZERO)).collect();
    assert!(all.iter().all(|seen| seen[0] == "subnet-1"), "a resource that is not new is always listed");
    assert!(all.iter().any(|seen| seen.len() == 1) && all.iter().any(|seen| seen.len() == 2));
    assert!((0..60).all(|seed| seen(seed, WINDOW).len() == 2));
}

#[test]
fn every_list_leaves_out_new_resources() {
    let now = Instant::now();
    for (action, set, id) in [
        ("DescribeVpcs", "vpcSet", "vpcId"),
        ("DescribeSubnets", "subnetSet", "subnetId"),
        ("DescribeInternetGateways", "internetGatewaySet", "internetGatewayId"),
        ("DescribeEgressOnlyInternetGateways", "egressOnlyInternetGatewaySet", "egressOnlyInternetGatewayId"),
        ("DescribeRouteTables", "routeTableSet", "routeTableId"),
        ("DescribeSecurityGroups", "securityGroupInfo", "groupId"),
        ("DescribeVpcEndpoints", "vpcEndpointSet", "vpcEndpointId"),
        ("DescribeAddresses", "addressesSet", "allocationId"),
    ] {
        let xml = format!("<R><{set}><item><{id}>new-1</{id}></item></{set}></R>");
        let is_left_out = |seed| {
            let mut young = Young::new(Seed(seed));
            young.made("kind", "new-1", now);
            leave_out(&mut young, &call(action, &[]), &mut list(&xml), now)
        };
        assert!((0..60).any(is_left_out), "{action}");
    }
}

#[test]
fn a_new_instance_is_left_out_with_its_reservation() {
    let xml = "<R><reservationSet>\
        <item><reservationId>r-1</reservationId><instancesSet><item><instanceId>i-1</instanceId></item></instancesSet></item>\
        <item><reservationId>r-2</reservationId><instancesSet><item><instanceId>i-2</instanceId></item></instancesSet></item>\
        </reservationSet></R>";
    let now = Instant::now();
    let seen = |seed| {
        let mut young = Young::new(Seed(seed));
        young.made("instance", "i-1", now);
        let mut answer = list(xml);
        leave_out(&mut young, &call("DescribeInstances", &[]), &mut answer, now);
        texts(&answer, "reservationId")
    };
    assert!((0..60).map(seen).any(|seen| seen == ["r-2"]));
}

#[test]
fn resources_created_in_an_answer_are_young() {
    let now = Instant::now();
    let made = |action, xml: &str| {
        let mut young = Young::new(Seed(1));
        made(&mut young, &call(action, &[]), &list(xml), now);
        young.list(now)
    };
    let subnet = "<R><subnet><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId></subnet></R>";
    assert_eq!(made("CreateSubnet", subnet), ["subnet-1"]);
    assert_eq!(made("DescribeSubnets", SUBNETS), [""; 0]);
    let launch = "<R><instancesSet><item><instanceId>i-1</instanceId></item><item><instanceId>i-2</instanceId></item></instancesSet></R>";
    assert_eq!(made("RunInstances", launch), ["i-1", "i-2"]);
}

#[test]
fn every_creation_makes_something_young() {
    let now = Instant::now();
    for (action, id) in [
        ("CreateVpc", "vpcId"),
        ("CreateSubnet", "subnetId"),
        ("CreateInternetGateway", "internetGatewayId"),
        ("CreateEgressOnlyInternetGateway", "egressOnlyInternetGatewayId"),
        ("CreateRouteTable", "routeTableId"),
        ("CreateSecurityGroup", "groupId"),
        ("CreateVpcEndpoint", "vpcEndpointId"),
        ("AllocateAddress", "allocationId"),
        ("RunInstances", "instanceId"),
    ] {
        let mut young = Young::new(Seed(1));
        made(&mut young, &call(action, &[]), &list(&format!("<R><{id}>new-1</{id}></R>")), now);
        assert_eq!(young.list(now), ["new-1"], "{action}");
    }
}

#[test]
fn a_deleted_resource_is_listed_for_a_moment_in_the_same_list() {
    const ONE: &str = "<R><subnetSet><item><subnetId>subnet-1</subnetId></item></subnetSet></R>";
    let (by_vpc, by_tag) = (
        call("DescribeSubnets", &[("Filter.1.Value.1", "vpc-1")]),
        call("DescribeSubnets", &[("Filter.1.Value.1", "tag")]),
    );
    let seen = |seed, call: &Call, age: u64| {
        let now = Instant::now();
        let mut lingering = Lingering::default();
        assert!(!lingering.put_back(&by_vpc, &mut list(SUBNETS), now));
        lingering.deleted(Seed(seed), "subnet-2", now);
        let mut answer = list(ONE);
        let is_back = lingering.put_back(call, &mut answer, now + Duration::from_millis(age));
        assert_eq!(is_back, texts(&answer, "subnetId").len() == 2);
        is_back
    };
    let back = (0..60).filter(|seed| seen(*seed, &by_vpc, 0)).count();
    assert!((10..35).contains(&back), "{back} of 60");
    assert!(!(0..60).any(|seed| seen(seed, &by_tag, 0)), "another list never had it");
    assert!(!(0..60).any(|seed| seen(seed, &by_vpc, LINGERS.1)));
}

#[test]
fn deletions_are_recognised_by_their_ids() {
    assert_eq!(deletes(&call("DeleteSubnet", &[("SubnetId", "subnet-1")])), Some("subnet-1"));
    assert_eq!(deletes(&call("CreateRoute", &[("RouteTableId", "rtb-1")])), None);
}
