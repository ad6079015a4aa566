//! A plan shows the changes of a deployment, and changes nothing; options keep their values until new ones
//! are given.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::types::InstanceLifecycleType;
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use bootstrap::aws::Aws;
use bootstrap::blueprint::{Ec2Api, TlsPort};
use bootstrap::names::Names;
use bootstrap::part::{Part, RunMode};
use bootstrap::resources::network;
use serde_json::Value;

use crate::support::{Cloud, deployer_of, eventually, stripped, text};

const STACK: &str = "omega";
const BOUNDARY: &str = "arn:aws:iam::aws:policy/AdministratorAccess";

/// Boots, two ticks of silence, and the next invocation.
const PATIENCE: Duration = Duration::from_secs(180);

/// The change of each resource that is not in the wanted state.
type Changes = BTreeMap<String, String>;

#[test]
fn a_deployment_makes_the_planned_changes_and_a_plan_makes_none() {
    let cloud = Cloud::start();
    let first = ["--workers", "1", "--spot", "--permissions-boundary", BOUNDARY];
    let before = mutating_calls(&cloud);
    let planned = plan(&cloud, &first, 3);
    assert_eq!(mutating_calls(&cloud), before, "a plan changes nothing");
    assert!(planned.len() > 30, "{planned:?}");
    assert!(planned.values().all(|change| change == "created"), "{planned:?}");
    assert_eq!(deploy(&cloud, &first), planned);
    plan_and_deployment_agree_that_nothing_is_left(&cloud, &[]);
    the_first_options_are_in_force(&cloud);

    blocks_take_the_place_of_those_before(&cloud);
    a_boundary_is_changed_on_all_roles(&cloud);
    one_that_is_refused_changes_nothing(&cloud);
    a_removed_rule_is_found(&cloud);
    cloud.must(STACK, &["destroy", "--yes"]);
    assert!(plan(&cloud, &[], 3).values().all(|change| change == "created"));
}

fn plan_and_deployment_agree_that_nothing_is_left(cloud: &Cloud, options: &[&str]) {
    // The reconciler may have launched an instance moments ago, which EC2 does not list everywhere yet.
    cloud.wait_until_all_is_known();
    let before = mutating_calls(cloud);
    assert_eq!(plan(cloud, options, 0), Changes::new());
    assert_eq!(deploy(cloud, options), Changes::new());
    // Only the reconciler's memory may have changed; the operator's own key makes no change.
    assert_eq!(mutating_calls(cloud), before, "a resource that needs no change is left alone");
}

fn the_first_options_are_in_force(cloud: &Cloud) {
    let lifecycle = |role| {
        cloud.instances_of(STACK, role, "running", |one| {
            one.instance_lifecycle().map(InstanceLifecycleType::as_str)
        })
    };
    // EC2 gives no lifecycle for an on-demand instance.
    assert_eq!((lifecycle("worker"), lifecycle("lb")), (vec!["spot".to_owned()], Vec::new()));
    assert_eq!(boundaries(cloud), [BOUNDARY; 3]);
    assert_eq!(blocks(cloud, 5000), ["0.0.0.0/0", "::/0"]);
}

fn blocks_take_the_place_of_those_before(cloud: &Cloud) {
    let narrow = ["--allow-cidr", "127.0.0.0/8,2001:db8::/32"];
    let planned = plan(cloud, &narrow, 3);
    let port = |change: &str, block: &str| {
        (format!("port 5000 of security group lb from {block}"), change.to_owned())
    };
    let expected = [
        port("created", "127.0.0.0/8"),
        port("created", "2001:db8::/32"),
        port("removed", "0.0.0.0/0"),
        port("removed", "::/0"),
    ];
    assert_eq!(planned, Changes::from(expected));
    assert_eq!(deploy(cloud, &narrow), planned);
    assert_eq!(blocks(cloud, 5000), ["127.0.0.0/8", "2001:db8::/32"]);
    plan_and_deployment_agree_that_nothing_is_left(cloud, &[]);

    // The allowed sources are the same with TLS and without.
    deploy(cloud, &["--tls", "self-signed"]);
    assert_eq!(blocks(cloud, 5443), ["127.0.0.0/8", "2001:db8::/32"]);
    deploy(cloud, &["--tls", "off", "--allow-cidr", "127.0.0.0/8"]);
    assert_eq!((blocks(cloud, 5443), blocks(cloud, 5000)), (Vec::new(), vec!["127.0.0.0/8".to_owned()]));
    plan_and_deployment_agree_that_nothing_is_left(cloud, &[]);
}

fn a_boundary_is_changed_on_all_roles(cloud: &Cloud) {
    const OTHER: &str = "arn:aws:iam::000000000000:policy/limits";
    let limits = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"},
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"}]}"#;
    cloud.aws(&["iam", "create-policy", "--policy-name", "limits", "--policy-document", limits]);
    let other = ["--permissions-boundary", OTHER];
    let planned = plan(cloud, &other, 3);
    assert_eq!(planned.len(), 3, "{planned:?}");
    assert!(planned.iter().all(|(what, change)| what.starts_with("role ") && change == "updated"));
    assert_eq!(deploy(cloud, &other), planned);
    assert_eq!(boundaries(cloud), [OTHER; 3]);
}

fn one_that_is_refused_changes_nothing(cloud: &Cloud) {
    let before = mutating_calls(cloud);
    for wrong in
        [["--allow-cidr", "10.0.0.1/8"], ["--permissions-boundary", "limits"], ["--spot=maybe", "-n1"]]
    {
        let output = cloud.bootstrap(STACK, &[&["deploy"], &wrong[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", text(&output));
    }
    assert_eq!(mutating_calls(cloud), before);
}

fn a_removed_rule_is_found(cloud: &Cloud) {
    let group = group(cloud);
    let vpc = ["--protocol", "tcp", "--port", "5000", "--cidr", "127.0.0.0/8"];
    cloud.aws(&[&["ec2", "revoke-security-group-ingress", "--group-id", &group], &vpc[..]].concat());
    let options = ["--allow-cidr", "127.0.0.0/8"];
    let planned = plan(cloud, &options, 3);
    let rule = "port 5000 of security group lb from 127.0.0.0/8".to_owned();
    assert_eq!(planned, Changes::from([(rule, "created".to_owned())]));
    assert_eq!(deploy(cloud, &options), planned);
}

/// Returns the deployer's calls; the reconciler and the emulators' services have keys of their own.
fn mutating_calls(cloud: &Cloud) -> Vec<String> {
    let url = format!("{}/_local-cloud/calls", cloud.endpoint);
    let calls: Value = reqwest::blocking::get(url).expect("an answer").json().expect("JSON");
    let calls = calls.as_array().expect("a list").iter().filter(|call| call["caller"] == deployer_of(STACK));
    calls.map(|call| format!("{} {} {}", call["number"], call["service"], call["action"])).collect()
}

fn plan(cloud: &Cloud, options: &[&str], exit: i32) -> Changes {
    changes(cloud, &[&["plan", "--detailed-exitcode"], options].concat(), exit)
}

fn deploy(cloud: &Cloud, options: &[&str]) -> Changes {
    changes(cloud, &[&["deploy"], options].concat(), 0)
}

fn changes(cloud: &Cloud, command: &[&str], exit: i32) -> Changes {
    let artifacts = stripped().to_string_lossy().into_owned();
    let output = cloud.bootstrap(STACK, &[command, &["--json", "--artifacts", &artifacts]].concat());
    assert_eq!(output.status.code(), Some(exit), "{command:?}: {}", text(&output));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let parts = said["parts"].as_array().expect("a list").iter();
    let word = |part: &Value, key: &str| part[key].as_str().expect("text").to_owned();
    let changed = parts.filter(|part| part["change"] != "unchanged");
    let changed: Changes = changed.map(|part| (word(part, "what"), word(part, "change"))).collect();
    assert_eq!(said["changes"], changed.len(), "each resource is named once: {said}");
    changed
}

fn boundaries(cloud: &Cloud) -> Vec<String> {
    let role = |what: &str| {
        let name = format!("vigia-{STACK}-{what}");
        let query = "Role.PermissionsBoundary.PermissionsBoundaryArn";
        cloud.aws(&["iam", "get-role", "--role-name", &name, "--query", query])
    };
    ["worker", "lb", "reconciler"].map(role).to_vec()
}

fn group(cloud: &Cloud) -> String {
    let name = format!("Name=group-name,Values=vigia-{STACK}-lb");
    cloud.aws(&["ec2", "describe-security-groups", "--filters", &name, "--query", "SecurityGroups[].GroupId"])
}

/// Returns the allowed sources of this port of the load balancer, sorted.
fn blocks(cloud: &Cloud, port: u16) -> Vec<String> {
    let rules = format!("SecurityGroups[].IpPermissions[?FromPort==`{port}`][]");
    let of = |list: &str, field: &str| {
        let query = format!("{rules}.{list}[].{field}");
        let group = group(cloud);
        cloud.aws(&["ec2", "describe-security-groups", "--group-ids", &group, "--query", &query])
    };
    let text = format!("{} {}", of("IpRanges", "CidrIp"), of("Ipv6Ranges", "CidrIpv6"));
    let mut blocks: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    blocks.sort();
    blocks
}

#[test]
fn two_load_balancers_serve_are_replaced_and_can_become_one() {
    let cloud = Cloud::start();
    let both = ["--workers", "2", "--lbs", "2", "--tls", "self-signed"];
    let planned = plan(&cloud, &both, 3);
    assert_eq!(planned.get("load balancer 2").map(String::as_str), Some("created"), "{planned:?}");
    assert_eq!(deploy(&cloud, &both), planned);
    plan_and_deployment_agree_that_nothing_is_left(&cloud, &[]);
    let urls = |status: &Value| {
        let more = status["more_load_balancers"].as_array().into_iter().flatten();
        let all = std::iter::once(&status["load_balancer"]).chain(more);
        all.map(|lb| lb["url"].as_str().expect("a URL").to_owned()).collect::<Vec<String>>()
    };
    let urls = urls(&cloud.status(STACK));
    assert_eq!((urls.len(), urls[0].as_str()), (2, cloud.url(STACK).as_str()));
    let answers = |url: &str| {
        let client = reqwest::blocking::Client::builder().timeout(Duration::from_secs(2)).build();
        client.expect("a client").get(format!("{url}/healthcheck")).send().is_ok_and(|it| it.status() == 200)
    };
    assert!(urls.iter().all(|url| answers(url)), "{urls:?}");
    let before = cloud.balancers(STACK, "running");
    let zones = cloud.instances_of(STACK, "lb", "running", |one| one.placement()?.availability_zone());
    assert_eq!(zones, ["us-east-1a", "us-east-1b"]);

    eventually("the reconciler knows both", PATIENCE, || {
        let status = cloud.status(STACK);
        let states = (&status["load_balancer"]["state"], &status["more_load_balancers"][0]["state"]);
        let is_known = states.0 == "healthy" && states.1 == "healthy";
        if is_known { Ok(()) } else { Err(format!("{states:?}")) }
    });
    let second = cloud.status(STACK)["more_load_balancers"][0]["id"].as_str().expect("an id").to_owned();
    cloud.aws(&["ec2", "terminate-instances", "--instance-ids", &second]);
    eventually("the second is replaced and serves at its address", PATIENCE, || {
        let now = cloud.balancers(STACK, "running");
        let is_replaced = now.len() == 2 && !now.contains(&second) && answers(&urls[1]);
        if is_replaced { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let now = cloud.balancers(STACK, "running");
    assert_eq!(now.iter().filter(|id| before.contains(id)).count(), 1, "the first is left alone");
    plan_and_deployment_agree_that_nothing_is_left(&cloud, &[]);

    let planned = plan(&cloud, &["--lbs", "1"], 3);
    let removed = planned.values().filter(|change| *change == "removed").count();
    assert_eq!(removed, 2, "an address and an instance: {planned:?}");
    assert_eq!(deploy(&cloud, &["--lbs", "1"]), planned);
    assert!(answers(&urls[0]) && !answers(&urls[1]));
    plan_and_deployment_agree_that_nothing_is_left(&cloud, &[]);
    cloud.must(STACK, &["destroy", "--yes"]);
    assert_eq!(cloud.aws(&["ec2", "describe-addresses", "--query", "Addresses[].PublicIp"]), "");
}

#[test]
fn a_region_without_a_dual_stack_api_gets_an_interface_endpoint() {
    let cloud = Cloud::start();
    let aws = client(&cloud);
    let wanted = network::Wanted { from: None, tls: TlsPort::Closed, ec2_api: Ec2Api::Endpoint };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ensure = |mode| runtime.block_on(network::ensure(&aws, mode, &wanted)).expect("a network").1;
    let named = |parts: Vec<Part>| parts.into_iter().map(|part| part.what).collect::<Vec<String>>();
    let planned = named(ensure(RunMode::Plan));
    assert_eq!(named(ensure(RunMode::Apply)), planned);
    // A list may leave out a resource that is seconds old, and then the next run makes it again, as on AWS.
    cloud.wait_until_all_is_known();
    assert!(ensure(RunMode::Apply).iter().all(|part| !part.is_change()));
    assert!(runtime.block_on(network::has_ec2_endpoint(&aws)).expect("a look"));

    let of_endpoint = |query: &str| {
        let service = "Name=service-name,Values=com.amazonaws.us-east-1.ec2";
        let query = format!("VpcEndpoints[].{query}");
        cloud.aws(&["ec2", "describe-vpc-endpoints", "--filters", service, "--query", &query])
    };
    let kind = of_endpoint("[VpcEndpointType,PrivateDnsEnabled,length(SubnetIds)]");
    assert_eq!(kind.split_whitespace().collect::<Vec<&str>>(), ["Interface", "True", "2"]);
    let group = of_endpoint("Groups[].GroupId");
    let rules = "SecurityGroups[].IpPermissions[].[FromPort,ToPort,UserIdGroupPairs[0].GroupName]";
    let rules = cloud.aws(&["ec2", "describe-security-groups", "--group-ids", &group, "--query", rules]);
    assert!(rules.starts_with("443\t443"), "{rules}");

    let removed = runtime.block_on(network::delete(&aws)).expect("removed");
    assert!(removed.len() >= 14, "{removed:?}");
    // EC2 lists a deleted resource for a moment longer.
    eventually("nothing is left to be removed", Duration::from_secs(20), || {
        let left = runtime.block_on(network::delete(&aws)).expect("nothing to do");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(of_endpoint("State"), "deleted");
}

fn client(cloud: &Cloud) -> Aws {
    let key = Credentials::new("test", "test", None, None, "tests");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(&cloud.endpoint)
        .credentials_provider(SharedCredentialsProvider::new(key))
        .build();
    Aws {
        names: Names {
            stack: STACK.parse().expect("valid"),
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            partition: "aws".to_owned(),
        },
        caller: "arn:aws:iam::000000000000:root".to_owned(),
        patience: bootstrap::patience::Patience::at_most(None),
        endpoint_url: Some(cloud.endpoint.clone()),
        ec2: aws_sdk_ec2::Client::new(&config),
        s3: aws_sdk_s3::Client::new(&config),
        iam: aws_sdk_iam::Client::new(&config),
        lambda: aws_sdk_lambda::Client::new(&config),
        events: aws_sdk_eventbridge::Client::new(&config),
        logs: aws_sdk_cloudwatchlogs::Client::new(&config),
        quotas: aws_sdk_servicequotas::Client::new(&config),
    }
}
