//! The same on the local cloud, whose quotas and policies are enforced when the machines are launched.

use serde_json::{Value, json};

use crate::support::{Cloud, bootstrap, say, stripped, text};

const STACK: &str = "small";

fn set_vcpus(cloud: &Cloud, count: u32) {
    let url = format!("{}/_local-cloud/quotas", cloud.endpoint);
    let client = reqwest::blocking::Client::new();
    let answer = client.put(url).json(&json!({"vcpus": count})).send().expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
}

#[test]
fn a_small_quota_refuses_three_workers_and_runs_one() {
    let cloud = Cloud::start();
    set_vcpus(&cloud, 5);
    let artifacts = stripped().to_str().expect("a path of letters");
    let deploy = |count: &str| {
        cloud
            .bootstrap(STACK, &["deploy", "--artifacts", artifacts, "--workers", count, "--until", "healthy"])
    };
    let output = deploy("3");
    let said = text(&output);
    say(&said);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("N=1 fits") && said.contains("Nothing was changed"), "{said}");
    assert_eq!(cloud.calls_since(0), Vec::<Value>::new(), "nothing was made");

    let output = deploy("1");
    assert!(output.status.success(), "{}", text(&output));
    let plan = cloud.must(STACK, &["plan", "--artifacts", artifacts]);
    assert!(plan.contains("stops one machine before it launches the next"), "{plan}");
    let release = cloud.aws(&[
        "s3",
        "cp",
        &format!("s3://vigia-{STACK}-control-000000000000-us-east-1/fleet/release.json"),
        "-",
    ]);
    let release: Value = serde_json::from_str(&release).expect("JSON");
    assert_eq!(release["rollout"], "stop-first");
}

#[test]
fn a_denied_permission_stops_a_deployment_before_any_change() {
    let cloud = Cloud::start();
    let policy = cloud.deployer_policy(STACK).to_string().replace("\"ec2:CreateVpc\",", "");
    let key = cloud.user("deployer", &serde_json::from_str(&policy).expect("JSON"));
    let artifacts = stripped().to_str().expect("a path of letters");
    let output = bootstrap(
        &cloud.endpoint,
        (&key.0, &key.1),
        STACK,
        &cloud.dir.path().join("token"),
        &["deploy", "--artifacts", artifacts, "--workers", "1"],
    );
    let said = text(&output);
    say(&said);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("ec2:CreateVpc") && said.contains("`MakeTagged`"), "{said}");
    let by_deployer = cloud.calls_since(0).iter().filter(|call| call["access_key"] == key.0.as_str()).count();
    assert_eq!(by_deployer, 0, "nothing was made");
}
