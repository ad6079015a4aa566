//! CPU credits: EC2's answers about them, and the slowness of an instance without any.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_ec2::types::{
    CreditSpecificationRequest, InstanceCreditSpecificationRequest, InstanceType,
    UnsuccessfulInstanceCreditSpecificationErrorCode as ErrorCode,
};
use serde_json::json;

use crate::support::{Aws, Instance, REGION, UserData, code, eventually, inject, launched, processes_in};

fn credits(name: &str) -> CreditSpecificationRequest {
    CreditSpecificationRequest::builder().cpu_credits(name).build()
}

impl Aws {
    async fn credits(&self, ids: &[&str]) -> BTreeMap<String, String> {
        self.caught_up().await;
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let described = self.ec2.describe_instance_credit_specifications().set_instance_ids(Some(ids));
        let described = described.send().await.expect("described");
        let pair = |one: &aws_sdk_ec2::types::InstanceCreditSpecification| {
            Some((one.instance_id()?.to_owned(), one.cpu_credits()?.to_owned()))
        };
        described.instance_credit_specifications().iter().filter_map(pair).collect()
    }

    /// Returns the result of each change.
    async fn set_credits(&self, name: &str, ids: &[&str]) -> BTreeMap<String, Option<ErrorCode>> {
        self.caught_up().await;
        let mut request = self.ec2.modify_instance_credit_specification();
        for id in ids {
            let one =
                InstanceCreditSpecificationRequest::builder().instance_id(*id).cpu_credits(name).build();
            request = request.instance_credit_specifications(one);
        }
        let answer = request.send().await.expect("answered");
        let done = answer.successful_instance_credit_specifications().iter();
        let done = done.filter_map(|one| Some((one.instance_id()?.to_owned(), None)));
        let failed = answer.unsuccessful_instance_credit_specifications().iter();
        let failed =
            failed.filter_map(|one| Some((one.instance_id()?.to_owned(), one.error()?.code().cloned())));
        done.chain(failed).collect()
    }
}

#[tokio::test]
async fn the_credit_option_of_a_launch_is_kept() {
    let aws = Aws::new();
    let network = aws.network().await;
    let standard = launched(aws.launch(&network).credit_specification(credits("standard"))).await;
    let by_itself = launched(aws.launch(&network).instance_type(InstanceType::T4gNano)).await;
    let other = launched(aws.launch(&network).instance_type(InstanceType::M5Large)).await;
    let told = aws.credits(&[&standard.id, &by_itself.id, &other.id]).await;
    let expected = [(&standard.id, "standard"), (&by_itself.id, "unlimited"), (&other.id, "standard")];
    assert_eq!(told, expected.map(|(id, name)| (id.clone(), name.to_owned())).into());
}

#[tokio::test]
async fn without_ids_the_unlimited_ones_are_listed() {
    let aws = Aws::new();
    let network = aws.network().await;
    let standard = launched(aws.launch(&network).credit_specification(credits("standard"))).await;
    let unlimited = launched(aws.launch(&network).credit_specification(credits("unlimited"))).await;
    let told = aws.credits(&[]).await;
    assert_eq!(told.get(&unlimited.id).map(String::as_str), Some("unlimited"));
    assert_eq!(told.get(&standard.id), None);
}

#[tokio::test]
async fn the_credit_option_can_be_changed() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = launched(aws.launch(&network)).await;
    assert_eq!(aws.set_credits("standard", &[&instance.id]).await, [(instance.id.clone(), None)].into());
    assert_eq!(aws.credits(&[&instance.id]).await, [(instance.id.clone(), "standard".to_owned())].into());
}

#[tokio::test]
async fn each_instance_that_cannot_be_changed_is_named() {
    let aws = Aws::new();
    let network = aws.network().await;
    let good = launched(aws.launch(&network)).await.id;
    let other = launched(aws.launch(&network).instance_type(InstanceType::M5Large)).await.id;
    let gone = launched(aws.launch(&network)).await.id;
    aws.terminate(&gone).await;
    let unknown = "i-0123456789abcdef0";
    let outcome = aws.set_credits("standard", &[&good, &other, &gone, unknown]).await;
    let expected = [
        (good, None),
        (other, Some(ErrorCode::InstanceCreditSpecificationNotSupported)),
        (gone, Some(ErrorCode::IncorrectInstanceState)),
        (unknown.to_owned(), Some(ErrorCode::InstanceNotFound)),
    ];
    assert_eq!(outcome, expected.into());
}

#[tokio::test]
async fn a_type_that_cannot_burst_takes_no_credit_option() {
    let aws = Aws::new();
    let network = aws.network().await;
    let launch = aws.launch(&network).instance_type(InstanceType::M5Large);
    let refused = launch.credit_specification(credits("standard")).send().await;
    assert_eq!(code(refused), "InstanceCreditSpecification.NotSupported");
    let refused = aws.launch(&network).credit_specification(credits("some")).send().await;
    assert_eq!(code(refused), "InvalidParameterValue");
}

/// Returns user data that uses a whole core, or as much as it gets.
fn greedy() -> UserData {
    UserData::new()
        .file("/srv/greedy", "0755", "#!/bin/sh\necho busy\nwhile :; do :; done\n")
        .service("ExecStart=/srv/greedy\nWorkingDirectory=/srv\nRestart=always")
}

/// Returns the processor time of the instance's processes, in hundredths of a second.
fn ticks(instance: &Instance) -> u64 {
    let of = |line: &String| {
        let id = line.split(' ').next()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields: Vec<u64> =
            stat.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        Some(fields[11] + fields[12])
    };
    processes_in(&instance.disk()).iter().filter_map(of).sum()
}

/// Returns how long it takes the instance to use half a second more than `before`.
async fn half_a_second(instance: &Instance, before: u64) -> Duration {
    let since = Instant::now();
    eventually("it has used half a second", async || match ticks(instance).saturating_sub(before) {
        50.. => Ok(()),
        used => Err(format!("{used} ticks")),
    })
    .await;
    since.elapsed()
}

#[tokio::test]
async fn an_instance_without_credits_runs_at_its_baseline() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = launched(aws.launch(&network).user_data(greedy().encode())).await;
    aws.shows(&instance.id, "busy").await;
    aws.set_credits("standard", &[&instance.id]).await;
    let limited = half_a_second(&instance, ticks(&instance)).await;
    // Five seconds at 10 % of a core; a busy machine only makes it longer.
    assert!(limited >= Duration::from_secs(3), "it used half a second within {limited:?}");
    aws.terminate(&instance.id).await;
}

#[tokio::test]
async fn an_instance_is_limited_before_its_first_step() {
    let aws = Aws::new();
    let network = aws.network().await;
    let launch = aws.launch(&network).credit_specification(credits("standard"));
    let instance = launched(launch.user_data(greedy().encode())).await;
    let limited = half_a_second(&instance, 0).await;
    assert!(limited >= Duration::from_secs(3), "it used half a second within {limited:?}");
    aws.terminate(&instance.id).await;
}

#[tokio::test]
async fn a_quota_on_purpose_is_shown_and_lifted() {
    let aws = Aws::new();
    let network = aws.network().await;
    let instance = launched(aws.launch(&network).user_data(greedy().encode())).await;
    aws.shows(&instance.id, "busy").await;
    let limit = async || {
        let status =
            local_cloud::daemon::status(&crate::support::cloud().endpoint).await.expect("it answers");
        let view = status.machines.into_iter().find(|view| view.id == instance.id).expect("it is listed");
        view.cpu_limit.map(local_cloud::cpu::Percent::get)
    };
    let fault =
        |percent| json!({"kind": "cpu-quota", "instance": instance.id, "region": REGION, "percent": percent});
    inject(&fault(Some(10))).await.expect("done");
    assert_eq!(limit().await, Some(10));
    assert!(half_a_second(&instance, ticks(&instance)).await >= Duration::from_secs(3));
    inject(&fault(None)).await.expect("done");
    assert_eq!(limit().await, None);
    aws.terminate(&instance.id).await;
}
