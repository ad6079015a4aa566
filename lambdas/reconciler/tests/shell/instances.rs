//! Instances and the address, as EC2 shows them.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::types::{DomainType, ResourceType, Tag, TagSpecification};
use fleet::WorkerId;
use fleet::aws_code::AwsErrorKind;
use fleet::release::{Credits, InstanceSpec, Market};
use fleet::stack::{ROLE_LB, ROLE_WORKER, TAG_ATTEMPT, TAG_RELEASE, TAG_ROLE, TAG_SLOT, TAG_STACK};
use hyper::Method;
use planner::effect::Launch;
use planner::observation::{Role, State};
use reconciler::act::Actor;
use reconciler::observe::Observer;
use testing::proxy::{ALWAYS, Fault, Proxy};

use crate::support::{Control, ec2, ec2_endpoint, make_profile};

/// An image that moto knows.
const IMAGE: &str = "ami-12c6146b";

fn tags(of: ResourceType, pairs: &[(&str, &str)]) -> TagSpecification {
    let tags = pairs.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
    TagSpecification::builder().resource_type(of).set_tags(Some(tags)).build()
}

async fn run(ec2: &Client, pairs: &[(&str, &str)]) -> WorkerId {
    run_many(ec2, pairs, 1).await.remove(0)
}

async fn run_many(ec2: &Client, pairs: &[(&str, &str)], count: i32) -> Vec<WorkerId> {
    let launched = ec2
        .run_instances()
        .image_id(IMAGE)
        .min_count(count)
        .max_count(count)
        .tag_specifications(tags(ResourceType::Instance, pairs))
        .send()
        .await
        .expect("an instance");
    let ids = launched.instances().iter().map(|row| row.instance_id().expect("an id"));
    ids.map(|id| id.parse().expect("a valid id")).collect()
}

async fn observer(stack: &str) -> Observer {
    let store = Control::new().await.store;
    Observer { ec2: ec2(ec2_endpoint()), store, stack: stack.parse().expect("a name") }
}

#[tokio::test]
async fn only_instances_with_the_stacks_tag_are_listed() {
    let observer = observer("listed").await;
    let of = |stack, role| [(TAG_STACK, stack), (TAG_ROLE, role), (TAG_RELEASE, "r1"), (TAG_ATTEMPT, "3")];
    let worker = run(&observer.ec2, &[&of("listed", ROLE_WORKER)[..], &[(TAG_SLOT, "7")]].concat()).await;
    let balancer = run(&observer.ec2, &of("listed", ROLE_LB)).await;
    run(&observer.ec2, &of("other", ROLE_WORKER)).await;
    run(&observer.ec2, &of("listed", "bastion")).await;
    let rows = observer.survey().await.instances.expect("EC2 lists them");
    assert_eq!(rows.len(), 2, "{rows:?}");
    let row = rows.iter().find(|row| row.id == worker).expect("the worker");
    assert_eq!(
        (row.role, row.slot, row.attempt, row.state),
        (Role::Worker, Some(7), Some(3), State::Running)
    );
    assert!(row.release == "r1" && row.address.is_some() && !row.zone.is_empty() && row.launched.is_some());
    let row = rows.iter().find(|row| row.id == balancer).expect("the load balancer");
    assert_eq!((row.role, row.slot), (Role::LoadBalancer, None));
}

#[tokio::test]
async fn an_id_that_ec2_does_not_know_hides_no_other() {
    let observer = observer("described").await;
    let of = |stack| [(TAG_STACK, stack), (TAG_ROLE, ROLE_WORKER)];
    let ours = run(&observer.ec2, &of("described")).await;
    let also_ours = run(&observer.ec2, &of("described")).await;
    let strange = run(&observer.ec2, &of("other")).await;
    let unknown = |n: u32| format!("i-{n:017x}").parse::<WorkerId>().expect("an id");
    let asked = [unknown(1), ours.clone(), unknown(2), also_ours.clone(), strange];
    let rows = observer.describe(&asked).await.expect("EC2 describes them");
    let mut seen: Vec<WorkerId> = rows.into_iter().map(|row| row.id).collect();
    seen.sort();
    let mut expected = vec![ours, also_ours];
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(observer.describe(&[unknown(3)]).await, Ok(Vec::new()));
    assert_eq!(observer.describe(&[]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn more_ids_than_fit_into_one_request_are_described() {
    let observer = observer("many").await;
    let many = run_many(&observer.ec2, &[(TAG_STACK, "many"), (TAG_ROLE, ROLE_WORKER)], 101).await;
    let rows = observer.describe(&many).await.expect("EC2 describes them");
    assert_eq!(rows.len(), 101);
}

#[tokio::test]
async fn no_answer_from_ec2_is_not_an_empty_fleet() {
    let mut observer = observer("blind").await;
    observer.ec2 = ec2("http://127.0.0.1:9");
    let seen = observer.survey().await;
    assert!(
        seen.instances.expect_err("EC2 does not answer").starts_with("EC2 does not list the instances: ")
    );
    assert!(
        seen.addresses.expect_err("EC2 does not answer").starts_with("EC2 does not show the Elastic IP: ")
    );
    let asked = ["i-1".parse().expect("an id")];
    let why = observer.describe(&asked).await.expect_err("EC2 does not answer");
    assert!(why.starts_with("EC2 does not describe instances by their ids: "), "{why}");
}

#[tokio::test]
async fn the_address_moves_from_one_instance_to_another() {
    let observer = observer("moved").await;
    let of = [(TAG_STACK, "moved"), (TAG_ROLE, ROLE_LB)];
    let (first, second) = (run(&observer.ec2, &of).await, run(&observer.ec2, &of).await);
    assert_eq!(observer.survey().await.addresses, Ok(Vec::new()));
    let allocated = observer
        .ec2
        .allocate_address()
        .domain(DomainType::Vpc)
        .tag_specifications(tags(ResourceType::ElasticIp, &[(TAG_STACK, "moved")]))
        .send()
        .await
        .expect("an address");
    let allocation = allocated.allocation_id().expect("an id");
    let holder = async || {
        let address = observer.survey().await.addresses.expect("EC2 shows it").pop().expect("there is one");
        assert_eq!(address.allocation, allocation);
        address.instance
    };
    assert_eq!(holder().await, None);
    let actor = Actor { ec2: observer.ec2.clone(), stack: observer.stack.clone() };
    for instance in [&first, &second, &second] {
        actor.associate(allocation, instance).await.expect("it is moved");
        assert_eq!(holder().await.as_ref(), Some(instance));
    }
    let failure = actor.associate("eipalloc-0", &first).await.expect_err("there is no such address");
    assert_eq!(failure.kind, AwsErrorKind::NotFound, "{failure:?}");
}

/// A definition that moto can launch, and a subnet for it.
async fn launchable(ec2: &Client, profile: &str) -> (InstanceSpec, String) {
    make_profile(profile).await;
    let subnets = ec2.describe_subnets().send().await.expect("subnets");
    let subnet = subnets.subnets()[0].subnet_id().expect("an id").to_owned();
    let groups = ec2.describe_security_groups().send().await.expect("groups");
    let spec = InstanceSpec {
        ami: IMAGE.to_owned(),
        instance_type: "t4g.nano".to_owned(),
        subnets: Vec::new(),
        security_group: groups.security_groups()[0].group_id().expect("an id").to_owned(),
        instance_profile: profile.to_owned(),
        user_data: "#cloud-config\n".to_owned(),
        market: Market::OnDemand,
        credits: Credits::Standard,
    };
    (spec, subnet)
}

#[tokio::test]
async fn a_launched_instance_is_found_by_its_tags_and_terminated() {
    let observer = observer("launched").await;
    let actor = Actor { ec2: observer.ec2.clone(), stack: observer.stack.clone() };
    let (spec, subnet) = launchable(&observer.ec2, "launched").await;
    let launch = |role, slot, attempt: u32| Launch {
        role,
        slot,
        attempt,
        subnet: subnet.clone(),
        release: "r2".to_owned(),
        token: format!("{role:?}-{slot}-{attempt}"),
        spec: Arc::new(spec.clone()),
    };
    // The first place of a load balancer is the one without a number.
    for (role, place, slot) in [
        (Role::Worker, 2, Some(2)),
        (Role::Worker, 0, Some(0)),
        (Role::LoadBalancer, 0, None),
        (Role::LoadBalancer, 1, Some(1)),
    ] {
        let id = actor.launch(&launch(role, place, 5)).await.expect("it is launched");
        let rows = observer.survey().await.instances.expect("EC2 lists them");
        let row = rows.iter().find(|row| row.id == id).expect("it is listed");
        let seen = (row.role, row.slot, row.attempt, row.release.as_str(), row.subnet.as_str());
        assert_eq!(seen, (role, slot, Some(5), "r2", subnet.as_str()));
        actor.terminate(&id).await.expect("it is ended");
        let rows = observer.survey().await.instances.expect("EC2 lists them");
        assert!(!rows.iter().any(|row| row.id == id && row.state.is_live()));
    }
    let unknown = "i-0000000000000dead".parse().expect("an id");
    assert_eq!(actor.terminate(&unknown).await, Ok(()), "terminating an unknown instance succeeds");
    let blind = Actor { ec2: ec2("http://127.0.0.1:9"), stack: observer.stack.clone() };
    let failure = blind.launch(&launch(Role::Worker, 2, 6)).await.expect_err("EC2 does not answer");
    assert_eq!(failure.kind, AwsErrorKind::Other, "{failure:?}");
    assert_eq!(blind.terminate(&unknown).await.expect_err("EC2 does not answer").kind, AwsErrorKind::Other);
}

#[tokio::test]
async fn a_launch_may_take_longer_than_other_calls() {
    let observer = observer("late").await;
    let (spec, subnet) = launchable(&observer.ec2, "late").await;
    let proxy = Proxy::before(ec2_endpoint()).await;
    proxy.fail(Method::POST, "", ALWAYS, Fault::Delay(Duration::from_secs(1)));
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(300)).build();
    let hasty = ec2(&proxy.endpoint).config().to_builder().timeout_config(timeouts).build();
    let actor = Actor { ec2: Client::from_conf(hasty), stack: observer.stack.clone() };
    let (role, slot, attempt, release) = (Role::Worker, 1, 1, "r1".to_owned());
    let launch =
        Launch { role, slot, attempt, subnet, release, token: "late-1".to_owned(), spec: Arc::new(spec) };
    let id = actor.launch(&launch).await.expect("it is launched");
    let rows = observer.survey().await.instances.expect("EC2 lists them");
    assert!(rows.iter().any(|row| row.id == id), "{rows:?}");
    assert!(actor.terminate(&id).await.is_err(), "another call is not waited for");
}
