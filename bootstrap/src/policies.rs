//! The permissions of each role, as data. Pure, so that a test can read it.
//!
//! | role | may | so that |
//! |---|---|---|
//! | worker | read, write and delete `users/`, read and write `meta/`, `throttle/`, `revoked/` of the data bucket | it serves logins |
//! | worker | read the registry, the secrets, `desired-count`; write `desired-count` | `/checkamount`, `/setamount`, sessions |
//! | worker | read `fleet/state.json` | the operator's page shows what the reconciler did and why |
//! | lb | read the registry | it routes |
//! | lb | read `tls/`, which no other role may | it speaks TLS |
//! | worker, lb | read `artifacts/` | the instance installs its program |
//! | reconciler | read and write `fleet/`, read `desired-count` | it remembers and publishes |
//! | reconciler | describe; run with the stack's tag; terminate with the stack's tag | it heals, and only its own |
//! | reconciler | give the stack's address to an instance and interface of the stack | it replaces a load balancer |
//! | reconciler | switch CPU credits of the stack's instances | a flood of sign-ins runs up no bill |
//! | reconciler, but not its code | network interfaces | Lambda makes them with this role to run it in a VPC |
//! | reconciler | logs | Lambda writes them with this role |
//!
//! Every role may list the buckets that it reads. Without that permission S3 answers 403 for a missing key,
//! so "not there" and "not allowed" would look the same.

pub mod deployer;

use fleet::stack::TAG_STACK;
use serde_json::{Value, json};

use crate::names::Names;

/// Calls that Lambda makes with a function's role to put the function into a VPC.
const BY_LAMBDA_ALONE: [&str; 6] = [
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeSubnets",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
];

/// Returns who may assume a role: `ec2.amazonaws.com` or `lambda.amazonaws.com`.
pub fn trust(service: &str) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]
    })
}

pub fn worker(names: &Names) -> Value {
    let (data, control) =
        (bucket_arn(names, &names.data_bucket()), bucket_arn(names, &names.control_bucket()));
    policy(&[
        json!({
            "Sid": "Users", "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
            "Resource": format!("{data}/users/*")
        }),
        // Ended sessions and counts of failures are never undone by deleting them.
        json!({
            "Sid": "Marks", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": [format!("{data}/meta/*"), format!("{data}/throttle/*"), format!("{data}/revoked/*")]
        }),
        json!({
            "Sid": "ReadFleet", "Effect": "Allow", "Action": "s3:GetObject",
            "Resource": [format!("{control}/desired-count"), format!("{control}/fleet/registry.json"),
                         format!("{control}/fleet/state.json"), format!("{control}/secrets/*"),
                         format!("{control}/artifacts/*")]
        }),
        json!({
            "Sid": "SetAmount", "Effect": "Allow", "Action": "s3:PutObject",
            "Resource": format!("{control}/desired-count")
        }),
        json!({"Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": [data, control]}),
    ])
}

pub fn load_balancer(names: &Names) -> Value {
    let control = bucket_arn(names, &names.control_bucket());
    policy(&[
        json!({
            "Sid": "ReadFleet", "Effect": "Allow", "Action": "s3:GetObject",
            "Resource": [format!("{control}/fleet/registry.json"), format!("{control}/tls/*"),
                         format!("{control}/artifacts/*")]
        }),
        json!({"Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": control}),
    ])
}

pub fn reconciler(names: &Names) -> Value {
    let Names { account, region, partition, stack } = names;
    let control = bucket_arn(names, &names.control_bucket());
    let ec2 = |what: &str| format!("arn:{partition}:ec2:{region}:{account}:{what}");
    let stack_tag = format!("aws:ResourceTag/{TAG_STACK}");
    policy(&[
        json!({
            "Sid": "Memory", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": format!("{control}/fleet/*")
        }),
        json!({
            "Sid": "Desired", "Effect": "Allow", "Action": "s3:GetObject",
            "Resource": format!("{control}/desired-count")
        }),
        json!({"Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": control}),
        // Describe calls cannot be limited to resources; every answer is filtered by the stack's tag.
        json!({
            "Sid": "Look", "Effect": "Allow",
            "Action": ["ec2:DescribeInstances", "ec2:DescribeAddresses"], "Resource": "*"
        }),
        json!({
            "Sid": "LaunchTagged", "Effect": "Allow", "Action": "ec2:RunInstances",
            "Resource": [ec2("instance/*"), ec2("volume/*"), ec2("network-interface/*")],
            "Condition": {"StringEquals": {(format!("aws:RequestTag/{TAG_STACK}")): stack}}
        }),
        json!({
            "Sid": "LaunchHere", "Effect": "Allow", "Action": "ec2:RunInstances",
            "Resource": [ec2("subnet/*"), ec2("security-group/*")],
            "Condition": {"StringEquals": {(stack_tag.clone()): stack}}
        }),
        json!({
            "Sid": "LaunchFrom", "Effect": "Allow", "Action": "ec2:RunInstances",
            "Resource": [ec2("spot-instances-request/*"), format!("arn:{partition}:ec2:{region}::image/*")]
        }),
        json!({
            "Sid": "TagAtLaunch", "Effect": "Allow", "Action": "ec2:CreateTags", "Resource": ec2("*/*"),
            "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
        }),
        json!({
            "Sid": "TerminateOwn", "Effect": "Allow", "Action": "ec2:TerminateInstances",
            "Resource": ec2("instance/*"), "Condition": {"StringEquals": {(stack_tag.clone()): stack}}
        }),
        json!({
            "Sid": "SetOwnCredits", "Effect": "Allow", "Action": "ec2:ModifyInstanceCreditSpecification",
            "Resource": ec2("instance/*"), "Condition": {"StringEquals": {(stack_tag.clone()): stack}}
        }),
        // A call may name an interface instead of an instance. Without the condition on interfaces, this
        // role could put the stack's address on any machine of the account.
        json!({
            "Sid": "MoveOwnAddress", "Effect": "Allow", "Action": "ec2:AssociateAddress",
            "Resource": [ec2("elastic-ip/*"), ec2("instance/*"), ec2("network-interface/*")],
            "Condition": {"StringEquals": {(stack_tag): stack}}
        }),
        json!({
            "Sid": "HandOverRoles", "Effect": "Allow", "Action": "iam:PassRole",
            "Resource": [names.role_arn(&stack.resource("worker")), names.role_arn(&stack.resource("lb"))],
            "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
        }),
        // Lambda makes the function's network interfaces with the function's own role.
        json!({
            "Sid": "InVpc", "Effect": "Allow", "Action": BY_LAMBDA_ALONE, "Resource": "*"
        }),
        // Only calls from the function's environment have this key (Lambda developer guide, "Giving Lambda
        // functions access to resources in an Amazon VPC").
        json!({
            "Sid": "NotByItsCode", "Effect": "Deny", "Action": BY_LAMBDA_ALONE, "Resource": "*",
            "Condition": {"ArnEquals": {"lambda:SourceFunctionArn": names.function_arn()}}
        }),
        json!({
            "Sid": "Log", "Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": format!("arn:{partition}:logs:{region}:{account}:log-group:{}:*", stack.log_group())
        }),
    ])
}

/// Refuses plain HTTP. Omitted on an endpoint that is itself plain HTTP, because it would lock out every
/// caller.
pub fn tls_only(names: &Names, bucket: &str) -> Value {
    let arn = bucket_arn(names, bucket);
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
            "Resource": [arn, format!("{arn}/*")], "Condition": {"Bool": {"aws:SecureTransport": "false"}}
        }]
    })
}

fn policy(statements: &[Value]) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

fn bucket_arn(names: &Names, bucket: &str) -> String {
    format!("arn:{}:s3:::{bucket}", names.partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stack: &str) -> Names {
        Names::example(stack)
    }

    #[test]
    fn the_reconciler_changes_only_resources_of_its_stack() {
        let policy = reconciler(&names("a"));
        let statements = policy["Statement"].as_array().expect("statements");
        for (action, resource) in [
            ("ec2:TerminateInstances", ":instance/"),
            ("ec2:AssociateAddress", ":instance/"),
            ("ec2:AssociateAddress", ":elastic-ip/"),
            ("ec2:ModifyInstanceCreditSpecification", ":instance/"),
        ] {
            let allowing: Vec<_> = statements
                .iter()
                .filter(|s| s["Action"] == action && s["Resource"].to_string().contains(resource))
                .collect();
            assert_eq!(allowing.len(), 1, "{action} on {resource}");
            assert_eq!(allowing[0]["Condition"]["StringEquals"]["aws:ResourceTag/vigia:stack"], "a");
        }
    }

    #[test]
    fn an_address_moves_to_interfaces_of_the_stack_only() {
        let policy = reconciler(&names("a"));
        let statements = policy["Statement"].as_array().expect("statements");
        for (action, key) in [("ec2:AssociateAddress", "ResourceTag"), ("ec2:RunInstances", "RequestTag")] {
            let of_interfaces: Vec<_> = statements
                .iter()
                .filter(|s| {
                    s["Action"] == action && s["Resource"].to_string().contains(":network-interface/")
                })
                .collect();
            assert_eq!(of_interfaces.len(), 1, "{action}");
            let key = format!("aws:{key}/vigia:stack");
            assert_eq!(of_interfaces[0]["Condition"]["StringEquals"][key], "a", "{action}");
        }
    }

    #[test]
    fn the_functions_code_is_denied_what_lambda_alone_needs() {
        let names = names("a");
        let policy = reconciler(&names);
        let statements = policy["Statement"].as_array().expect("statements");
        let of = |sid: &str| statements.iter().find(|s| s["Sid"] == sid).expect("a statement").clone();
        let (allow, deny) = (of("InVpc"), of("NotByItsCode"));
        assert_eq!((&deny["Effect"], &deny["Action"]), (&json!("Deny"), &allow["Action"]));
        assert_eq!(
            deny["Condition"],
            json!({"ArnEquals": {"lambda:SourceFunctionArn": names.function_arn()}})
        );
    }

    #[test]
    fn no_role_names_a_bucket_of_another_stack() {
        for policy in [worker(&names("a")), load_balancer(&names("a")), reconciler(&names("a"))] {
            let text = policy.to_string();
            assert!(text.contains("vigia-a-control-123456789012-eu-west-1"));
            assert!(!text.contains(":::*"), "{text}");
        }
    }

    /// Returns whether a policy allows its role to get this object of the control bucket.
    fn may_get(policy: &Value, key: &str) -> bool {
        let arn = format!("arn:aws:s3:::{}/{key}", names("a").control_bucket());
        let covers = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => arn.starts_with(prefix),
            None => arn == pattern,
        };
        let all = |value: &Value| match value {
            Value::Array(several) => {
                several.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
            }
            one => one.as_str().map(str::to_owned).into_iter().collect(),
        };
        policy["Statement"].as_array().expect("statements").iter().any(|statement| {
            let gets = all(&statement["Action"]).iter().any(|action| action == "s3:GetObject");
            gets && all(&statement["Resource"]).iter().any(|pattern| covers(pattern))
        })
    }

    #[test]
    fn the_certificates_key_is_for_the_load_balancer_alone() {
        let names = names("a");
        let may = [worker(&names), load_balancer(&names), reconciler(&names)]
            .map(|policy| may_get(&policy, fleet::keys::CERTIFICATE));
        assert_eq!(may, [false, true, false]);
        assert!(may_get(&worker(&names), fleet::keys::SESSION_KEYS), "the test sees the allowed actions");
    }

    #[test]
    fn a_worker_sees_what_the_reconciler_did_and_changes_none_of_it() {
        let policy = worker(&names("a"));
        assert!(may_get(&policy, fleet::keys::STATE) && may_get(&policy, fleet::keys::REGISTRY));
        assert!(!may_get(&policy, fleet::keys::RELEASE));
        let statements = policy["Statement"].as_array().expect("statements");
        let writing = statements.iter().filter(|s| s["Action"].to_string().contains("s3:PutObject"));
        assert!(writing.into_iter().all(|s| !s["Resource"].to_string().contains("fleet/")));
    }

    #[test]
    fn the_load_balancer_reads_no_secret() {
        assert!(!load_balancer(&names("a")).to_string().contains("secrets"));
    }
}
