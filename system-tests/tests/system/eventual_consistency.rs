//! AWS is eventually consistent: some servers do not know a new resource yet. Emulators know all at once, so the
//! tests cause these errors on purpose, in AWS's words. An error that passes is waited for; an error that
//! stays ends the deployment within its bound, with a hint.
//!
//! `MalformedPolicy` for a principal that is too new cannot happen, because no policy of a stack names a
//! principal.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Cloud, deployer_of, say, stripped, text};

/// An error, and the message when it stays.
struct Row {
    service: &'static str,
    action: &'static str,
    /// Part of the path, for services that have one action for everything.
    path: &'static str,
    status: u16,
    code: &'static str,
    message: &'static str,
    /// How many times it comes.
    times: u32,
    hint: &'static str,
}

const BUCKET: &str = "/vigia-slow-control-000000000000-us-east-1";

/// In the order in which a deployment meets them.
const ROWS: [Row; 17] = [
    Row {
        service: "s3",
        action: "PUT",
        path: "/vigia-slow-control-000000000000-us-east-1/?publicAccessBlock",
        status: 404,
        code: "NoSuchBucket",
        message: "The specified bucket does not exist",
        times: 2,
        hint: "same command again",
    },
    Row {
        service: "s3",
        action: "PUT",
        path: BUCKET,
        status: 409,
        code: "OperationAborted",
        message: "A conflicting conditional operation is currently in progress against this resource. \
                  Please try again.",
        times: 2,
        hint: "a bucket of this name was deleted a moment ago",
    },
    Row {
        service: "iam",
        action: "CreateRole",
        path: "",
        status: 409,
        code: "ConcurrentModification",
        message: "Request processing failed because of a conflict with another request. Please try again.",
        times: 1,
        hint: "same command again",
    },
    Row {
        service: "iam",
        action: "PutRolePolicy",
        path: "",
        status: 409,
        code: "ConcurrentModification",
        message: "Request processing failed because of a conflict with another request. Please try again.",
        times: 1,
        hint: "same command again",
    },
    Row {
        service: "iam",
        action: "PutRolePolicy",
        path: "",
        status: 404,
        code: "NoSuchEntity",
        message: "The role with name vigia-slow-worker cannot be found.",
        times: 2,
        hint: "same command again",
    },
    Row {
        service: "iam",
        action: "AddRoleToInstanceProfile",
        path: "",
        status: 409,
        code: "ConcurrentModification",
        message: "Request processing failed because of a conflict with another request. Please try again.",
        times: 1,
        hint: "same command again",
    },
    Row {
        service: "ec2",
        action: "ModifyVpcAttribute",
        path: "",
        status: 400,
        code: "InvalidVpcID.NotFound",
        message: "The vpc ID 'vpc-1' does not exist",
        times: 2,
        hint: "same command again",
    },
    Row {
        service: "ec2",
        action: "AttachInternetGateway",
        path: "",
        status: 400,
        code: "InvalidInternetGatewayID.NotFound",
        message: "The internetGateway ID 'igw-1' does not exist",
        times: 2,
        hint: "same command again",
    },
    Row {
        service: "ec2",
        action: "AssociateRouteTable",
        path: "",
        status: 400,
        code: "InvalidRouteTableID.NotFound",
        message: "The routeTable ID 'rtb-1' does not exist",
        times: 2,
        hint: "same command again",
    },
    Row {
        service: "ec2",
        action: "AuthorizeSecurityGroupIngress",
        path: "",
        status: 400,
        code: "InvalidGroup.NotFound",
        message: "The security group 'sg-1' does not exist",
        times: 2,
        hint: "same command again",
    },
    Row {
        service: "ec2",
        action: "RunInstances",
        path: "",
        status: 400,
        code: "InvalidParameterValue",
        message: "Value (vigia-slow-lb) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance \
                  Profile name",
        times: 2,
        hint: "same command again",
    },
    Row {
        service: "lambda",
        action: "POST",
        path: "/functions",
        status: 400,
        code: "InvalidParameterValueException",
        message: "The role defined for the function cannot be assumed by Lambda.",
        times: 1,
        hint: "same command again",
    },
    Row {
        service: "lambda",
        action: "POST",
        path: "/functions",
        status: 400,
        code: "InvalidParameterValueException",
        message: "Lambda was unable to configure access to your environment variables because the KMS key is \
                  invalid for CreateGrant.",
        times: 1,
        hint: "same command again",
    },
    Row {
        service: "lambda",
        action: "POST",
        path: "/functions",
        status: 400,
        code: "InvalidParameterValueException",
        message: "The provided execution role does not have permissions to call CreateNetworkInterface on EC2",
        times: 1,
        hint: "same command again",
    },
    Row {
        service: "lambda",
        action: "POST",
        path: "/functions",
        status: 409,
        code: "ResourceConflictException",
        message: "The operation cannot be performed at this time. An update is in progress for resource: \
                  vigia-slow-reconciler",
        times: 1,
        hint: "same command again",
    },
    Row {
        service: "events",
        action: "PutRule",
        path: "",
        status: 400,
        code: "ConcurrentModificationException",
        message: "Rule vigia-slow-reconcile was modified concurrently.",
        times: 1,
        hint: "same command again",
    },
    Row {
        service: "events",
        action: "PutTargets",
        path: "",
        status: 400,
        code: "ConcurrentModificationException",
        message: "Rule vigia-slow-reconcile was modified concurrently.",
        times: 1,
        hint: "same command again",
    },
];

/// Fewer errors than the SDK and `cargo lambda` retry.
const THROTTLED: [(&str, &str); 6] = [
    ("s3", "PUT"),
    ("iam", "CreateInstanceProfile"),
    ("ec2", "CreateVpc"),
    ("lambda", "POST"),
    ("events", "PutRule"),
    ("logs", "CreateLogGroup"),
];

/// The longest wait of a deployment with short deadlines: an error that stays takes until then.
const PATIENCE: Duration = Duration::from_secs(3);
/// The first tries are tenths of a second apart, later ones at least a second; three roles are made at once.
const MOST_TRIES: u64 = 3 * 9;

#[test]
fn errors_that_stay_end_a_deployment_within_its_bound() {
    let cloud = Cloud::start();
    each_error_stays(&cloud);
    cloud.must("slow", &["destroy", "--yes"]);
    let left = cloud.observer.census("slow");
    assert!(left.is_empty(), "{left}");
}

#[test]
fn errors_that_pass_are_waited_for() {
    let cloud = Cloud::start();
    all_errors_pass(&cloud);
    cloud.must("slow", &["destroy", "--yes"]);
}

fn each_error_stays(cloud: &Cloud) {
    let patience = PATIENCE.as_secs().to_string();
    for row in &ROWS {
        let rule = cloud.api_fault(&row.rule(&json!({"for_seconds": 600})));
        let output = cloud.bootstrap("slow", &deploy(&["--patience", &patience]));
        let said = text(&output);
        let hits = cloud.api_fault_hits(rule);
        assert_eq!(output.status.code(), Some(1), "{}, which came {hits} times: {said}", row.code);
        assert!(said.contains(row.code) || said.contains(row.message), "{}: {said}", row.code);
        assert!(said.contains(row.hint), "{} at {}: {said}", row.code, row.action);
        // Measures its bound without a clock: three roles are made at once, and each waits between its tries.
        let tries = cloud.api_fault_hits(rule);
        // One upload may take as long as the whole deadline.
        let least = if row.service == "lambda" { 1 } else { 2 };
        assert!((least..=MOST_TRIES).contains(&tries), "{} at {}: {tries} tries", row.code, row.action);
        cloud.clear_api_fault(rule);
    }
    passing_a_role_on_is_not_tried_again(cloud);
    say(&format!("{} errors that stay: each ended the deployment within its bound", ROWS.len()));
}

/// Waiting does not bring a missing permission.
fn passing_a_role_on_is_not_tried_again(cloud: &Cloud) {
    let message = "User: arn:aws:iam::000000000000:user/ana is not authorized to perform: iam:PassRole on resource: \
                   arn:aws:iam::000000000000:role/vigia-slow-reconciler because no identity-based policy allows the \
                   iam:PassRole action";
    // The function exists by now; without it, its role has to be passed on again.
    cloud.aws(&["lambda", "delete-function", "--function-name", "vigia-slow-reconciler"]);
    let rule = cloud.api_fault(&json!({
        "effect": {"kind": "error", "status": 403, "code": "AccessDeniedException", "message": message},
        "calls": {"service": "lambda", "changing": true, "caller": deployer_of("slow")}, "limit": {"for_seconds": 600}
    }));
    let output = cloud.bootstrap("slow", &deploy(&[]));
    let said = text(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("iam:PassRole") && said.contains("HandToFunction"), "{said}");
    assert_eq!(cloud.api_fault_hits(rule), 1, "it was tried again");
    cloud.clear_api_fault(rule);
}

fn all_errors_pass(cloud: &Cloud) {
    let errors: Vec<(u64, u64, String)> = ROWS
        .iter()
        .map(|row| {
            let rule = cloud.api_fault(&row.rule(&json!({"times": row.times})));
            (rule, u64::from(row.times), format!("{} at {} {}", row.code, row.service, row.action))
        })
        .collect();
    let throttled = THROTTLED.iter().map(|(service, action)| {
        let rule = cloud.api_fault(&json!({
            "effect": {"kind": "throttle"}, "calls": {"service": service, "action": action}, "limit": {"times": 2}
        }));
        (rule, 2, format!("throttling of {service} {action}"))
    });
    let rules: Vec<_> = errors.into_iter().chain(throttled).collect();
    let since = Instant::now();
    cloud.must("slow", &deploy(&[]));
    for (rule, times, what) in &rules {
        assert_eq!(cloud.api_fault_hits(*rule), *times, "{what} did not come");
        cloud.clear_api_fault(*rule);
    }
    let again = cloud.must("slow", &deploy(&[]));
    assert!(again.contains("nothing changed"), "{again}");
    say(&format!("{} errors that pass, waited for in {:.1} s", rules.len(), since.elapsed().as_secs_f64()));
}

fn deploy<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let artifacts = stripped().to_str().expect("a path of letters");
    [&["deploy", "--workers", "1", "--no-wait", "--artifacts", artifacts], more].concat()
}

impl Row {
    fn rule(&self, limit: &Value) -> Value {
        let Self { service, action, path, status, code, message, .. } = self;
        json!({
            "effect": {"kind": "error", "status": status, "code": code, "message": message},
            "calls": {"service": service, "action": action, "path": path},
            "limit": limit
        })
    }
}
