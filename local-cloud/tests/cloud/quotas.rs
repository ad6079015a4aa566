//! Quotas of an account: EC2's refusals, and the answers of Service Quotas and Lambda. Each test has a region
//! of its own, in which only its own launches count.

use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use aws_sdk_ec2::types::{
    AccountAttributeName, InstanceMarketOptionsRequest, InstanceType, LocationType, MarketType,
};
use serde_json::{Value, json};

use crate::support::{Aws, Cloud, code, known, launched, other_cloud, web_server};

fn aws(cloud: &Cloud, region: &str) -> Aws {
    Aws::at(&cloud.endpoint, region, ("test", "test", None))
}

async fn put(cloud: &Cloud, path: &str, body: &Value) -> Value {
    let url = format!("{}/_local-cloud/{path}", cloud.endpoint);
    let response = reqwest::Client::new().put(url).json(body).send().await.expect("an answer");
    assert!(response.status().is_success(), "{path}: {}", response.status());
    response.json().await.expect("JSON")
}

fn spot() -> InstanceMarketOptionsRequest {
    InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).build()
}

#[tokio::test]
async fn a_launch_above_the_vcpu_quota_is_refused() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "us-east-2");
    put(cloud, "quotas", &json!({"vcpus": 4})).await;
    let network = aws.network().await;
    launched(aws.launch(&network)).await;
    launched(aws.launch(&network)).await;
    let error = aws.launch(&network).send().await.expect_err("refused");
    assert_eq!(error.code(), Some("VcpuLimitExceeded"));
    assert_eq!(error.raw_response().map(|response| response.status().as_u16()), Some(400));
    let message = error.message().expect("a message");
    assert!(
        message.starts_with("You have requested more vCPU capacity than your current vCPU limit of 4 allows")
    );
}

#[tokio::test]
async fn a_terminated_instance_gives_its_vcpus_back() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "us-west-1");
    put(cloud, "quotas", &json!({"vcpus": 2})).await;
    let network = aws.network().await;
    let first = launched(aws.launch(&network)).await;
    assert_eq!(code(aws.launch(&network).send().await), "VcpuLimitExceeded");
    aws.terminate(&first.id).await;
    launched(aws.launch(&network)).await;
}

#[tokio::test]
async fn two_launches_at_once_do_not_share_the_last_vcpus() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "us-west-2");
    put(cloud, "quotas", &json!({"vcpus": 2})).await;
    let network = aws.network().await;
    let launch = || aws.launch(&network).send();
    let answers = futures::future::join_all([launch(), launch(), launch()]).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn a_known_token_is_answered_above_the_quota() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "ca-central-1");
    put(cloud, "quotas", &json!({"vcpus": 2})).await;
    let network = aws.network().await;
    let request = || aws.launch(&network).client_token("known");
    let first = launched(request()).await;
    assert_eq!(launched(request()).await.id, first.id);
}

#[tokio::test]
async fn spot_has_a_quota_of_its_own() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "eu-west-1");
    put(cloud, "quotas", &json!({"vcpus": 2, "spot-vcpus": 2})).await;
    let network = aws.network().await;
    launched(aws.launch(&network)).await;
    launched(aws.launch(&network).instance_market_options(spot())).await;
    let error = aws.launch(&network).instance_market_options(spot()).send().await.expect_err("refused");
    let said = (error.code(), error.message());
    assert_eq!(said, (Some("MaxSpotInstanceCountExceeded"), Some("Max spot instance count exceeded")));
}

#[tokio::test]
async fn a_dry_run_is_not_judged_by_the_quota() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "eu-west-2");
    put(cloud, "quotas", &json!({"vcpus": 0})).await;
    let network = aws.network().await;
    assert_eq!(code(aws.launch(&network).dry_run(true).send().await), "DryRunOperation");
}

#[tokio::test]
async fn service_quotas_tells_each_quota() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "eu-west-3");
    let quotas = json!({"vcpus": 5, "spot-vcpus": 6, "addresses": 7, "vpcs": 8, "concurrency": 10});
    put(cloud, "quotas", &quotas).await;
    let all = [
        ("ec2", "L-1216C47A", 5.0),
        ("ec2", "L-34B43A08", 6.0),
        ("ec2", "L-0263D0A3", 7.0),
        ("vpc", "L-F678F1CE", 8.0),
        ("lambda", "L-B99A9384", 10.0),
    ];
    for (service, quota, value) in all {
        let got = aws.quotas.get_service_quota().service_code(service).quota_code(quota).send().await;
        let got = got.expect("a quota").quota.expect("a quota");
        assert_eq!((got.value(), got.quota_code()), (Some(value), Some(quota)));
    }
    let listed = aws.quotas.list_service_quotas().service_code("ec2").send().await.expect("a list");
    assert_eq!(listed.quotas().len(), 3);
    let default = aws.quotas.get_aws_default_service_quota().service_code("vpc").quota_code("L-F678F1CE");
    let default = default.send().await.expect("a quota").quota.expect("a quota");
    assert_eq!(default.value(), Some(5.0));
}

#[tokio::test]
async fn an_unknown_quota_is_not_there() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "eu-north-1");
    for (service, quota) in [("ec2", "L-00000000"), ("nothing", "L-1216C47A"), ("vpc", "L-1216C47A")] {
        let got = aws.quotas.get_service_quota().service_code(service).quota_code(quota).send().await;
        assert_eq!(code(got), "NoSuchResourceException", "{service} {quota}");
    }
}

#[tokio::test]
async fn lambda_tells_the_quota_of_concurrency() {
    let (_turn, cloud) = other_cloud().await;
    put(cloud, "quotas", &json!({"concurrency": 10})).await;
    let settings = aws(cloud, "us-east-1").lambda.get_account_settings().send().await.expect("settings");
    let limit = settings.account_limit().expect("limits");
    assert_eq!((limit.concurrent_executions(), limit.unreserved_concurrent_executions()), (10, Some(10)));
}

#[tokio::test]
async fn addresses_and_vpcs_have_quotas() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "eu-central-1");
    // One is the default VPC.
    put(cloud, "quotas", &json!({"addresses": 1, "vpcs": 2})).await;
    aws.vpc("10.90.0.0/16").await;
    assert_eq!(code(aws.ec2.create_vpc().cidr_block("10.91.0.0/16").send().await), "VpcLimitExceeded");
    let held = aws.ec2.allocate_address().send().await.expect("an address");
    assert_eq!(code(aws.ec2.allocate_address().send().await), "AddressLimitExceeded");
    let name = AccountAttributeName::from("vpc-max-elastic-ips");
    let told = aws.ec2.describe_account_attributes().attribute_names(name).send().await.expect("attributes");
    // The emulator returns all attributes, whatever is requested.
    let mut attributes = told.account_attributes().iter();
    let told = attributes.find(|one| one.attribute_name() == Some("vpc-max-elastic-ips"));
    let value = told.and_then(|attribute| attribute.attribute_values().first());
    assert_eq!(value.and_then(|value| value.attribute_value()), Some("1"));
    let release = aws.ec2.release_address().allocation_id(held.allocation_id().expect("an id"));
    known(async || release.clone().send().await).await;
    put(cloud, "quotas", &json!({"addresses": 4, "vpcs": 64})).await;
}

#[tokio::test]
async fn a_new_account_waits_for_its_verification() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "ap-south-1");
    put(cloud, "quotas", &json!({"vcpus": 64})).await;
    let network = aws.network().await;
    put(cloud, "account/verification", &json!({"state": "pending", "launches": 2})).await;
    let error = aws.launch(&network).send().await.expect_err("refused");
    assert_eq!(error.code(), Some("PendingVerification"));
    let message = error.message().expect("a message");
    assert!(message.starts_with("Your request for accessing resources in this region is being validated"));
    assert_eq!(code(aws.launch(&network).send().await), "PendingVerification");
    launched(aws.launch(&network)).await;
}

#[tokio::test]
async fn a_blocked_account_launches_nothing() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "ap-northeast-1");
    put(cloud, "quotas", &json!({"vcpus": 64})).await;
    let network = aws.network().await;
    put(cloud, "account/verification", &json!({"state": "blocked"})).await;
    assert_eq!(code(aws.launch(&network).send().await), "Blocked");
    put(cloud, "account/verification", &json!({"state": "done"})).await;
    launched(aws.launch(&network)).await;
}

#[tokio::test]
async fn a_zone_may_lack_a_type() {
    let (_turn, cloud) = other_cloud().await;
    let aws = aws(cloud, "ap-southeast-2");
    put(cloud, "quotas", &json!({"vcpus": 64})).await;
    let network = aws.network().await;
    let described = aws.ec2.describe_subnets().subnet_ids(&network.subnet).send().await.expect("a subnet");
    let zone = described.subnets()[0].availability_zone().expect("a zone").to_owned();
    let offered = async || {
        let filter = aws_sdk_ec2::types::Filter::builder().name("instance-type").values("t4g.nano").build();
        let described = aws.ec2.describe_instance_type_offerings().filters(filter);
        let described =
            described.location_type(LocationType::AvailabilityZone).send().await.expect("offerings");
        let zones = described.instance_type_offerings().iter().filter_map(|offering| offering.location());
        zones.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = offered().await;
    assert!(before.contains(&zone) && before.len() > 1, "{before:?}");
    let gap = |is_offered: bool| json!({"zone": zone, "instance-type": "t4g.nano", "is-offered": is_offered});
    put(cloud, "account/offers", &gap(false)).await;
    let others: Vec<String> = before.iter().filter(|other| **other != zone).cloned().collect();
    assert_eq!(offered().await, others);

    let launch = || aws.launch(&network).instance_type(InstanceType::T4gNano);
    let error = launch().send().await.expect_err("refused");
    assert_eq!(error.code(), Some("Unsupported"));
    let message = error.message().expect("a message");
    let says = format!(
        "Your requested instance type (t4g.nano) is not supported in your requested Availability Zone ({zone})."
    );
    assert!(message.starts_with(&says) && message.contains(&others[0]), "{message}");
    launched(aws.launch(&network).user_data(web_server().encode())).await;
    put(cloud, "account/offers", &gap(true)).await;
    launched(launch()).await;
}
