//! RunInstances and TerminateInstances: who gets an instance, which address, and how often.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Aws, Instance, Network, REGION, cloud, code, eventually, launched, name, processes_in, profile,
    web_server,
};

#[tokio::test]
async fn a_vpc_moves_into_loopback() {
    let aws = Aws::new();
    for (asked, given) in [("10.77.0.0/16", "127.77.0.0/16"), ("172.31.0.0/20", "127.31.0.0/20")] {
        let (vpc, block) = aws.vpc(asked).await;
        assert_eq!(block, given);
        let outside = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block(asked).send().await;
        assert_eq!(code(outside), "InvalidSubnet.Range");
    }
}

#[tokio::test]
async fn a_resource_with_a_client_token_is_made_once() {
    let aws = Aws::new();
    let (vpc, _) = aws.vpc("10.80.0.0/16").await;
    let table = async |token: &str, vpc: &str| {
        let created = aws.ec2.create_route_table().vpc_id(vpc).client_token(token).send().await;
        created
            .map(|created| created.route_table().and_then(|table| table.route_table_id()).map(str::to_owned))
    };
    let first = table("one", &vpc).await.expect("a table");
    assert_eq!(table("one", &vpc).await.expect("the same"), first);
    assert_ne!(table("two", &vpc).await.expect("another"), first);
    let (other, _) = aws.vpc("10.81.0.0/16").await;
    assert_eq!(code(table("one", &other).await), "IdempotentParameterMismatch");
    let gateway = async || {
        let created =
            aws.ec2.create_egress_only_internet_gateway().vpc_id(&vpc).client_token("one").send().await;
        let gateway = created.expect("a gateway").egress_only_internet_gateway.expect("a gateway");
        gateway.egress_only_internet_gateway_id
    };
    assert_eq!(gateway().await, gateway().await);
}

#[tokio::test]
async fn an_unknown_instance_profile_is_refused() {
    let aws = Aws::new();
    let network = aws.network().await;
    let refused = aws.launch(&network).iam_instance_profile(profile("unknown")).send().await;
    let error = refused.expect_err("refused");
    assert_eq!(error.code(), Some("InvalidParameterValue"));
    let message = error.message().expect("a message");
    // AWS's wording: callers tell by it that a new profile has not reached EC2 yet.
    assert_eq!(
        message,
        "Value (unknown) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
    );
}

#[tokio::test]
async fn an_unsupported_launch_is_refused() {
    let aws = Aws::new();
    let network = aws.network().await;
    let without_subnet = aws.ec2.run_instances().min_count(1).max_count(1).send().await;
    assert_eq!(code(without_subnet), "UnsupportedOperation");
    let two = aws.launch(&network).max_count(2).send().await;
    assert_eq!(code(two), "UnsupportedOperation");
    let not_base64 = aws.launch(&network).user_data("%%%").send().await;
    assert_eq!(code(not_base64), "InvalidParameterValue");
    let not_text = aws.launch(&network).user_data(STANDARD.encode([0x1f, 0x8b, 0xff])).send().await;
    assert_eq!(code(not_text), "UnsupportedOperation");
    let nowhere = Network { subnet: "subnet-12345678".to_owned(), vpc: network.vpc };
    assert_eq!(code(aws.launch(&nowhere).send().await), "InvalidSubnetID.NotFound");
    let default = aws.ec2.describe_subnets().send().await.expect("described");
    let default = default.subnets().iter().find(|subnet| subnet.default_for_az() == Some(true));
    let subnet = default.and_then(|subnet| subnet.subnet_id()).expect("moto makes a default VPC").to_owned();
    let elsewhere = Network { subnet, ..nowhere };
    assert_eq!(code(aws.launch(&elsewhere).send().await), "UnsupportedOperation");
}

#[tokio::test]
async fn the_same_token_gives_the_same_instance() {
    let aws = Aws::new();
    let network = aws.network().await;
    let request = || {
        let launch = aws.launch(&network).client_token("twice").tag_specifications(name("twice"));
        launch.user_data(web_server().encode())
    };
    let first = launched(request()).await;
    let pid = first.answers().await;
    let second = launched(request()).await;
    assert_eq!((&second.id, second.address), (&first.id, first.address));
    assert_eq!(second.answers().await, pid);
    assert_eq!(processes_in(&first.disk()).len(), 1);
    assert_eq!(aws.named("twice").await, [first.id]);
}

#[tokio::test]
async fn a_token_stands_for_one_set_of_parameters() {
    let aws = Aws::new();
    let network = aws.network().await;
    launched(aws.launch(&network).client_token("same")).await;
    let other = aws.launch(&network).client_token("same").image_id("ami-87654321").send().await;
    assert_eq!(code(other), "IdempotentParameterMismatch");
}

#[tokio::test]
async fn the_token_of_a_terminated_instance_is_spent() {
    let aws = Aws::new();
    let network = aws.network().await;
    let request = || aws.launch(&network).client_token("spent");
    let instance = launched(request()).await;
    aws.terminate(&instance.id).await;
    assert_eq!(code(request().send().await), "IdempotentInstanceTerminated");
}

#[tokio::test]
async fn two_calls_at_once_with_one_token_launch_once() {
    let aws = Aws::new();
    let network = aws.network().await;
    let request = || launched(aws.launch(&network).client_token("race").tag_specifications(name("race")));
    let (a, b, c) = futures::join!(request(), request(), request());
    assert_eq!((&a.id, &a.id), (&b.id, &c.id));
    assert_eq!(aws.named("race").await, [a.id]);
}

#[tokio::test]
async fn without_a_token_each_call_launches() {
    let aws = Aws::new();
    let network = aws.network().await;
    let (a, b) = futures::join!(launched(aws.launch(&network)), launched(aws.launch(&network)));
    assert_ne!(a.id, b.id);
    assert_ne!(a.address, b.address);
}

/// Above all it must not leave an instance that EC2 has and that never booted.
#[tokio::test]
async fn whenever_a_caller_hangs_up_its_token_stands_for_one_instance() {
    let aws = Aws::new();
    let network = aws.network().await;
    let mut launched = Vec::new();
    for millis in 0..20 {
        let token = format!("hung up after {millis} ms");
        let launch =
            |aws: &Aws| aws.launch(&network).client_token(&token).tag_specifications(name(&token)).send();
        let endpoint = hangs_up_after(Duration::from_millis(millis)).await;
        // Sometimes the answer is quicker.
        drop(launch(&Aws::at(&endpoint, REGION, ("test", "test", None))).await);
        let again = launch(&aws).await.expect("an instance");
        let id = again.instances()[0].instance_id().expect("an id").to_owned();
        let status = local_cloud::daemon::status(&cloud().endpoint).await.expect("it answers");
        assert!(status.machines.iter().any(|machine| machine.id == id), "{id} has not booted");
        launched.push((token, id));
    }
    aws.caught_up().await;
    for (token, id) in launched {
        assert_eq!(aws.named(&token).await, std::slice::from_ref(&id), "{token}");
        aws.terminate(&id).await;
    }
}

/// An endpoint that passes one request on, and is gone a little later.
async fn hangs_up_after(delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let cloud = cloud().endpoint.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut server = TcpStream::connect(cloud).await.expect("the local cloud");
        let mut request = Vec::new();
        while !is_whole(&request) {
            assert_ne!(client.read_buf(&mut request).await.expect("readable"), 0);
        }
        server.write_all(&request).await.expect("writable");
        // No condition ends this delay; it only chooses the moment in the call that is hit.
        tokio::time::sleep(delay).await;
    });
    endpoint
}

/// Returns whether all bytes announced by `content-length` have arrived.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.is_some_and(|length| length.trim().parse() == Ok(body.len()))
}

#[tokio::test]
async fn a_terminated_instance_leaves_nothing_but_its_record() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = aws.web_server(&network).await;
    assert_eq!(aws.state(&instance.id).await, "running");
    aws.terminate(&instance.id).await;
    assert_eq!(aws.state(&instance.id).await, "terminated");
    aws.shows(&instance.id, "powered off").await;
    instance.is_gone().await;
    assert!(!instance.disk().join("srv").exists(), "its disk is still there");
}

#[tokio::test]
async fn to_terminate_twice_is_as_good_as_once() {
    let aws = Aws::new();
    let network = aws.network().await;
    let (a, b) = (launched(aws.launch(&network)).await, launched(aws.launch(&network)).await);
    aws.settled(&[&a.id, &b.id]).await;
    aws.terminate(&a.id).await;
    aws.terminate(&a.id).await;
    let both = aws.ec2.terminate_instances().instance_ids(&a.id).instance_ids(&b.id).send().await;
    let both = both.expect("terminated");
    let mut answered: Vec<_> = both.terminating_instances().iter().filter_map(|i| i.instance_id()).collect();
    answered.sort_unstable();
    let mut asked = [a.id.as_str(), &b.id];
    asked.sort_unstable();
    assert_eq!(answered, asked);
    assert_eq!(aws.state(&b.id).await, "terminated");
    let unknown = aws.ec2.terminate_instances().instance_ids("i-0123456789abcdef0").send().await;
    assert_eq!(code(unknown), "InvalidInstanceID.NotFound");
}

#[tokio::test]
async fn instances_of_different_vpcs_never_share_an_address() {
    let aws = Aws::new();
    // Any block will do, but it must differ from that of another run of this test at the same time.
    let (second, third): (u8, u8) = (rand::rng().random_range(112..=126), rand::rng().random());
    let mut networks = Vec::new();
    for _ in 0..2 {
        let (vpc, _) = aws.vpc(&format!("10.{second}.0.0/16")).await;
        // The smallest subnet that EC2 makes: eleven addresses for instances.
        let subnet = aws.subnet(&vpc, &format!("127.{second}.{third}.0/28")).await;
        networks.push(Network { vpc, subnet });
    }
    let mut instances: Vec<Instance> = Vec::new();
    let full = loop {
        let network = &networks[instances.len() % 2];
        let reply = aws.launch(network).send().await;
        let Ok(reply) = reply else { break code(reply) };
        let launched = &reply.instances()[0];
        instances.push(Instance {
            id: launched.instance_id().expect("an id").to_owned(),
            address: launched.private_ip_address().expect("an address").parse().expect("IPv4"),
        });
        assert!(instances.len() <= 11, "more instances than addresses: {instances:?}");
    };
    assert_eq!(full, "InsufficientFreeAddressesInSubnet");
    let addresses: BTreeSet<_> = instances.iter().map(|instance| instance.address).collect();
    assert_eq!(addresses.len(), instances.len(), "{instances:?}");

    // A released address can be used again, in either network.
    let gone = instances.pop().expect("at least one");
    aws.terminate(&gone.id).await;
    let next = eventually("the address is free again", async || {
        let reply = aws.launch(&networks[0]).send().await.map_err(|error| format!("{error:?}"))?;
        Ok(reply.instances()[0].private_ip_address().expect("an address").to_owned())
    });
    assert_eq!(next.await, gone.address.to_string());
}
