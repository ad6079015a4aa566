//! One permission is taken away, from the deployer or from a role: the call that needs it is refused, and the
//! error names the action and the statement that allows it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cloud, bootstrap, eventually, say, stripped, text};

const STACK: &str = "lacking";

/// Boots, two ticks of silence, and the next invocation.
const PATIENCE: Duration = Duration::from_secs(180);

/// In the order in which a deployment needs them, each with the statement that allows it.
const OF_DEPLOYER: [(&str, &str); 8] = [
    ("ec2:DescribeVpc*", "Look"),
    ("s3:CreateBucket", "Buckets"),
    ("iam:CreateRole", "Roles"),
    ("iam:PutRolePolicy", "Roles"),
    ("ec2:CreateVpc", "MakeTagged"),
    ("s3:PutObject", "Objects"),
    ("lambda:CreateFunction", "Function"),
    ("events:PutRule", "Schedule"),
];

#[test]
fn an_action_that_is_taken_away_is_named_by_the_error() {
    let cloud = Cloud::start();
    let whole = cloud.deployer_policy(STACK);
    for (action, statement) in OF_DEPLOYER {
        let said = deploy_without(&cloud, &whole, action);
        let start = action.trim_end_matches('*');
        assert!(said.contains(start), "{action}: {said}");
        assert!(said.contains(&format!("`{statement}`")), "{action}: {said}");
        say(&format!("without {action}: {}", said.lines().last().unwrap_or_default().trim()));
    }
    cloud.deploy(STACK, &["--workers", "1"]);
    a_role_that_lacks_an_action_is_reported(&cloud);
    let report = cloud.control("iam");
    let denials = report["denials"].as_array().expect("a list");
    for (action, _) in OF_DEPLOYER {
        let start = action.trim_end_matches('*');
        let is_it = |one: &Value| one["action"].as_str().is_some_and(|denied| denied.starts_with(start));
        assert!(denials.iter().any(is_it), "{action} is not among the denials: {report}");
    }
    say(&format!(
        "calls judged: {}, allowed: {}, denied: {}",
        report["judged"], report["allowed"], report["denied"]
    ));
    cloud.must(STACK, &["destroy", "--yes"]);
}

/// Runs a deployment whose user lacks this action; returns its output. The user may not simulate either, or
/// most calls would be known to fail before they are made.
fn deploy_without(cloud: &Cloud, whole: &Value, action: &str) -> String {
    let policy = without(&without(whole, action), "iam:SimulatePrincipalPolicy");
    let (key, secret) = cloud.user("lacks-one", &policy);
    let artifacts = stripped().to_string_lossy().into_owned();
    let arguments = ["deploy", "--workers", "1", "--artifacts", &artifacts];
    let output = bootstrap(&cloud.endpoint, (&key, &secret), STACK, &cloud.token_file(STACK), &arguments);
    assert_eq!(output.status.code(), Some(4), "without {action}: {}", text(&output));
    text(&output)
}

/// Returns a policy whose statements lack this action.
fn without(policy: &Value, action: &str) -> Value {
    let mut policy = policy.clone();
    let mut removed = 0;
    for statement in policy["Statement"].as_array_mut().expect("statements") {
        let actions = match &statement["Action"] {
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        };
        let left: Vec<Value> = actions.iter().filter(|one| **one != action).cloned().collect();
        removed += actions.len() - left.len();
        // A statement needs an action.
        statement["Action"] = if left.is_empty() { json!("none:None") } else { json!(left) };
    }
    assert!(removed > 0, "no statement has {action}");
    policy
}

fn a_role_that_lacks_an_action_is_reported(cloud: &Cloud) {
    const ACTION: &str = "ec2:RunInstances";
    let role = format!("vigia-{STACK}-reconciler");
    let name = ["--role-name", &role, "--policy-name", "vigia"];
    let how = ["--query", "PolicyDocument", "--output", "json"];
    let policy = cloud.aws(&[&["iam", "get-role-policy"], &name[..], &how].concat());
    let policy: Value = serde_json::from_str(&policy).expect("a policy");
    let lacking = without(&policy, ACTION).to_string();
    cloud.aws(&[&["iam", "put-role-policy"], &name[..], &["--policy-document", &lacking]].concat());
    cloud.must(STACK, &["scale", "2"]);
    eventually("the status says what the reconciler may not do", PATIENCE, || {
        let status = cloud.status(STACK).to_string();
        if status.contains(ACTION) { Ok(()) } else { Err(status) }
    });
    // A deployment restores the policy.
    cloud.deploy(STACK, &["--workers", "2"]);
    let principal = format!("assumed-role/{role}/");
    let report = cloud.control("iam");
    let denied = report["denials"].as_array().expect("a list").iter().filter(|one| {
        one["action"] == ACTION && one["principal"].as_str().is_some_and(|arn| arn.contains(&principal))
    });
    assert!(denied.count() > 0, "{report}");
}
