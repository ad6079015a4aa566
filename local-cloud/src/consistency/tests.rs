use super::young::WINDOW;
use super::*;

fn iam_call(action: &str, parameters: &[(&str, &str)]) -> Call {
    parameters.iter().fold(Call::example("iam", action, "/"), |call, (key, value)| call.with(key, value))
}

/// Returns in how many of 60 clouds a call is refused this long after the others were done.
fn refused(before: &[&Call], wait: std::time::Duration, call: &Call) -> usize {
    let now = Instant::now();
    let is_refused = |seed| {
        let cloud = Consistency::new(Seed(seed));
        for call in before {
            cloud.answered(call, &Target::Iam, &[], now);
        }
        let refused = cloud.refuse(call, &Target::Iam, now + wait);
        refused.is_some_and(|refused| (refused.status, refused.code) == (404, "NoSuchEntity"))
    };
    (0..60).filter(|seed| is_refused(*seed)).count()
}

#[test]
fn a_new_role_or_profile_is_not_found_by_some_calls() {
    let (role, profile) = (("RoleName", "r"), ("InstanceProfileName", "p"));
    let create = iam_call("CreateRole", &[role]);
    let create_profile = iam_call("CreateInstanceProfile", &[profile]);
    for call in [
        iam_call("PutRolePolicy", &[role]),
        iam_call("GetRole", &[role]),
        iam_call("AddRoleToInstanceProfile", &[role, profile]),
    ] {
        let some = refused(&[&create, &create_profile], std::time::Duration::ZERO, &call);
        assert!((6..58).contains(&some), "{}: {some} of 60", call.action);
        assert_eq!(refused(&[&create, &create_profile], WINDOW, &call), 0, "{}", call.action);
    }
    assert_eq!(
        refused(&[&create], std::time::Duration::ZERO, &create),
        0,
        "a creation knows the existing \
        resources"
    );
}

#[test]
fn a_profile_gets_known_to_ec2_when_it_gets_its_role() {
    let now = Instant::now();
    let cloud = Consistency::new(Seed(1));
    let add = iam_call("AddRoleToInstanceProfile", &[("InstanceProfileName", "p"), ("RoleName", "r")]);
    cloud.answered(&add, &Target::Iam, &[], now);
    assert_eq!(cloud.report(now).young, [network::profile_in_ec2("p")]);
    cloud.answered(
        &iam_call("DeleteInstanceProfile", &[("InstanceProfileName", "p")]),
        &Target::Iam,
        &[],
        now,
    );
    assert!(cloud.report(now).young.is_empty());
}

#[test]
fn answers_are_counted_by_kind_and_by_caller() {
    let cloud = Consistency::new(Seed(7));
    let call = iam_call("GetRole", &[]);
    cloud.count(Behaviour::NoSuchEntity, &call);
    cloud.count(Behaviour::NoSuchEntity, &call);
    cloud.count(Behaviour::NotFound, &call);
    let report = cloud.report(Instant::now());
    assert_eq!((report.seed, report.total), (7, 3));
    assert_eq!(report.answers[&Behaviour::NoSuchEntity], 2);
    assert_eq!(report.callers["worker"][&Behaviour::NotFound], 1);
}

#[test]
fn a_read_of_ec2_is_changed_and_an_unknown_answer_is_not() {
    let now = Instant::now();
    let cloud = Consistency::new(Seed(1));
    let vpc = "<R><vpc><vpcId>vpc-1</vpcId><ipv6CidrBlockAssociationSet><item><associationId>a</associationId>\
        <ipv6CidrBlock>2400:6500:0cbe:2800::/56</ipv6CidrBlock><ipv6CidrBlockState><state>associated</state>\
        </ipv6CidrBlockState></item></ipv6CidrBlockAssociationSet></vpc></R>";
    let create = Call::example("ec2", "CreateVpc", "/");
    let answer = cloud.ec2_answered(&create, Bytes::from(vpc), now);
    let tree = Element::parse(&answer).expect("well-formed");
    assert_eq!((tree.text_of("vpcId"), tree.text_of("ipv6CidrBlock")), (Some("vpc-1"), None));
    assert_eq!(cloud.report(now).answers[&Behaviour::BlockAssociating], 1);
    let other = Bytes::from_static(b"<R>anything</R>");
    assert_eq!(cloud.ec2_answered(&Call::example("ec2", "DescribeImages", "/"), other.clone(), now), other);
}
