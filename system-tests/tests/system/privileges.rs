//! Least privilege, compared with the permissions really used: the local cloud reports which permissions
//! every call needed (`local-cloud uses`), and whether it allowed the call.
//!
//! Both ways: each use was allowed, and each action of each statement was used, or [`UNUSED`] gives the
//! reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Whose policy, the statement's `Sid`, the action, and why no run on the local cloud uses it.
type Unused = (&'static str, &'static str, &'static str, &'static str);

const BY_LAMBDA: &str = "Lambda itself makes, looks for and deletes the function's network interfaces";

const UNUSED: &[Unused] = &[
    ("reconciler", "InVpc", "ec2:CreateNetworkInterface", BY_LAMBDA),
    ("reconciler", "InVpc", "ec2:DescribeNetworkInterfaces", BY_LAMBDA),
    ("reconciler", "InVpc", "ec2:DeleteNetworkInterface", BY_LAMBDA),
    ("reconciler", "InVpc", "ec2:DescribeSubnets", BY_LAMBDA),
    ("reconciler", "InVpc", "ec2:AssignPrivateIpAddresses", BY_LAMBDA),
    ("reconciler", "InVpc", "ec2:UnassignPrivateIpAddresses", BY_LAMBDA),
    (
        "reconciler",
        "SetOwnCredits",
        "ec2:ModifyInstanceCreditSpecification",
        "after five minutes of serving, which no run takes",
    ),
    ("reconciler", "Log", "logs:CreateLogStream", "Lambda itself writes the function's log"),
    ("reconciler", "Log", "logs:PutLogEvents", "Lambda itself writes the function's log"),
    ("deployer", "Look", "ec2:GetSecurityGroupsForVpc", "Lambda asks it when a function gets into a VPC"),
    (
        "deployer",
        "Look",
        "route53:AssociateVPCWithHostedZone",
        "EC2 asks it for an interface endpoint with private DNS",
    ),
    (
        "deployer",
        "Buckets",
        "s3:PutBucketPolicy",
        "over plain HTTP a policy that requires TLS would lock out every client",
    ),
    ("deployer", "Roles", "iam:PutRolePermissionsBoundary", "--permissions-boundary on roles that are there"),
    ("deployer", "SpotRole", "iam:CreateServiceLinkedRole", "--spot"),
    ("deployer", "Function", "lambda:PublishVersion", "an update with Publish asks it"),
    (
        "deployer",
        "UseOwn",
        "ec2:DisassociateAddress",
        "--lbs 1; at the end the instances are gone, and with them the associations",
    ),
    ("deployer", "Interface", "ec2:DisassociateAddress", "the same, of the instance's interface"),
    ("deployer", "UseOwn", "ec2:AssociateVpcCidrBlock", "the repair of a VPC without an IPv6 block"),
    ("deployer", "UseOwn", "ec2:AssociateSubnetCidrBlock", "the repair of a subnet without one"),
    ("deployer", "UseOwn", "ec2:ReplaceRoute", "the repair of a route that leads nowhere"),
];

/// One permission that a caller used.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    /// The role, or the access key of a caller without a role.
    pub(crate) who: String,
    pub(crate) action: String,
    pub(crate) resource: String,
    pub(crate) context: BTreeMap<String, String>,
    /// The local cloud's decision: `allowed`, or why not.
    pub(crate) decision: String,
    /// Names in the calls, see `local-cloud/src/uses.rs`.
    pub(crate) names: BTreeSet<String>,
}

/// Parses the answer of `/_local-cloud/uses`. A function's role has the function's name.
pub(crate) fn uses(report: &Value) -> Vec<Use> {
    assert_eq!(report["left_out"], 0, "the local cloud has forgotten uses");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |used: &Value| Use {
        who: used["function"].as_str().map_or_else(|| text(&used["caller"]), str::to_owned),
        action: text(&used["action"]),
        resource: text(&used["resource"]),
        context: serde_json::from_value(used["context"].clone()).expect("a map"),
        decision: text(&used["decision"]),
        names: serde_json::from_value(used["names"].clone()).expect("a list"),
    };
    report["uses"].as_array().expect("a list").iter().map(of).collect()
}

/// A policy and its holder.
pub(crate) struct Policy {
    /// `worker`, `lb`, `reconciler` or `deployer`: its name in [`UNUSED`].
    pub(crate) what: &'static str,
    /// See [`Use::who`].
    pub(crate) who: String,
    pub(crate) document: Value,
}

/// Returns all faults: uses that the caller's policy does not allow, allowed actions that were neither used
/// nor explained, and explanations of actions that were used.
pub(crate) fn wrong(policies: &[Policy], uses: &[Use]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for policy in policies {
        for one in uses.iter().filter(|one| one.who == policy.who) {
            let allowing: Vec<(String, String)> =
                statements(policy).flat_map(|statement| allowing(statement, one)).collect();
            used.extend(allowing.iter().map(|(sid, action)| (policy.what, sid.clone(), action.clone())));
            // IAM needs no permission for a caller to learn its own identity.
            let is_free = one.action == "sts:GetCallerIdentity";
            if one.decision != "allowed" || (allowing.is_empty() && !is_free) {
                wrong.push(format!(
                    "{} is not allowed {} on {} {:?}",
                    policy.who, one.action, one.resource, one.context
                ));
            }
        }
    }
    let explained: BTreeSet<_> = UNUSED
        .iter()
        .map(|(what, sid, action, _)| (*what, (*sid).to_owned(), (*action).to_owned()))
        .filter(|(what, ..)| policies.iter().any(|policy| policy.what == *what))
        .collect();
    let mut there = BTreeSet::new();
    for policy in policies {
        for statement in statements(policy) {
            let sid = statement["Sid"].as_str().expect("every statement has a Sid").to_owned();
            there.extend(
                texts(&statement["Action"]).map(|action| (policy.what, sid.clone(), action.to_owned())),
            );
        }
    }
    for (what, sid, action) in there.difference(&used).filter(|one| !explained.contains(one)) {
        wrong.push(format!("{what} may {action} ({sid}), and no call used it and no reason explains it"));
    }
    for (what, sid, action) in explained.intersection(&used) {
        wrong.push(format!("{what} has used {action} ({sid}), and an explanation says that it does not"));
    }
    for (what, sid, action) in explained.difference(&there) {
        wrong.push(format!("{what} has no {action} ({sid}), and an explanation says why it is there"));
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

/// Returns the statements that allow something. The local cloud obeys the statements that deny.
fn statements(policy: &Policy) -> impl Iterator<Item = &Value> {
    let all = policy.document["Statement"].as_array().expect("a policy has statements").iter();
    all.filter(|statement| statement["Effect"] == "Allow")
}

/// Returns the actions by which a statement allows this use, each with the `Sid`.
fn allowing(statement: &Value, one: &Use) -> Vec<(String, String)> {
    let sid = statement["Sid"].as_str().unwrap_or_default();
    let is_resource = texts(&statement["Resource"]).any(|pattern| fits(pattern, &one.resource));
    if !is_resource || !conditions_hold(&statement["Condition"], &one.context) {
        return Vec::new();
    }
    let action = one.action.to_ascii_lowercase();
    let actions = texts(&statement["Action"]).filter(|pattern| fits(&pattern.to_ascii_lowercase(), &action));
    actions.map(|pattern| (sid.to_owned(), pattern.to_owned())).collect()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let several = value.as_array().into_iter().flatten();
    value.as_str().into_iter().chain(several.filter_map(Value::as_str))
}

/// Returns whether all operators, and all keys of each, agree; one of a key's values is enough.
fn conditions_hold(conditions: &Value, context: &BTreeMap<String, String>) -> bool {
    conditions.as_object().into_iter().flatten().all(|(operator, keys)| {
        keys.as_object().expect("keys").iter().all(|(key, wanted)| {
            let given = context.get(key);
            match operator.as_str() {
                "StringEquals" | "ArnEquals" => {
                    given.is_some_and(|given| texts(wanted).any(|one| one == given))
                }
                "StringLike" | "ArnLike" => {
                    given.is_some_and(|given| texts(wanted).any(|one| fits(one, given)))
                }
                "Null" => given.is_none() == texts(wanted).any(|one| one == "true"),
                "StringEqualsIfExists" => given.is_none_or(|given| texts(wanted).any(|one| one == given)),
                other => panic!("this test cannot judge the operator {other}"),
            }
        })
    })
}

/// IAM's patterns: `*` is any text, `?` any character.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // The beginnings of the text that fit the pattern so far.
    let mut fitting = vec![false; text.len() + 1];
    fitting[0] = true;
    for wanted in pattern {
        let mut next = vec![false; text.len() + 1];
        for end in 0..=text.len() {
            next[end] = match wanted {
                '*' => fitting[end] || (end > 0 && next[end - 1]),
                '?' => end > 0 && fitting[end - 1],
                wanted => end > 0 && fitting[end - 1] && text[end - 1] == wanted,
            };
        }
        fitting = next;
    }
    fitting[text.len()]
}

#[cfg(test)]
mod tests {
    use ::bootstrap::names::Names;
    use ::bootstrap::policies::reconciler;
    use serde_json::json;

    use super::*;

    fn one(action: &str, resource: &str, context: &[(&str, &str)]) -> Use {
        let context = context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (who, decision, names) = ("me".to_owned(), "allowed".to_owned(), BTreeSet::new());
        Use { who, action: action.to_owned(), resource: resource.to_owned(), context, decision, names }
    }

    #[test]
    fn a_pattern_fits_as_iam_says() {
        for (pattern, text, is_fit) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("arn:aws:s3:::b/users/*", "arn:aws:s3:::b/users/ana", true),
            ("arn:aws:s3:::b/users/*", "arn:aws:s3:::b/meta/x", false),
            ("arn:aws:s3:::b", "arn:aws:s3:::b2", false),
        ] {
            assert_eq!(fits(pattern, text), is_fit, "{pattern} {text}");
        }
    }

    #[test]
    fn a_use_is_judged_by_action_resource_and_condition() {
        let statement = json!({
            "Sid": "S", "Effect": "Allow", "Action": ["ec2:TerminateInstances"],
            "Resource": "arn:aws:ec2:r:a:instance/*",
            "Condition": {"StringEquals": {"aws:ResourceTag/vigia:stack": "a"}}
        });
        let tag = |stack| [("aws:ResourceTag/vigia:stack", stack)];
        let on = |action, resource, tag: &[(&str, &str)]| {
            !allowing(&statement, &one(action, resource, tag)).is_empty()
        };
        assert!(on("ec2:TerminateInstances", "arn:aws:ec2:r:a:instance/i-1", &tag("a")));
        assert!(!on("ec2:TerminateInstances", "arn:aws:ec2:r:a:instance/i-1", &tag("b")));
        assert!(!on("ec2:TerminateInstances", "arn:aws:ec2:r:a:instance/i-1", &[]));
        assert!(!on("ec2:TerminateInstances", "arn:aws:ec2:r:a:volume/v-1", &tag("a")));
        assert!(!on("ec2:StopInstances", "arn:aws:ec2:r:a:instance/i-1", &tag("a")));
    }

    /// Lambda itself makes the function's interfaces with the same role, which the function's code may not.
    #[test]
    fn lambda_makes_interfaces_and_the_functions_code_does_not() {
        use local_cloud::iam::context::Context;
        use local_cloud::iam::evaluate::{Decision, Policies, decide};
        use local_cloud::iam::policy::Policy;

        let names = Names {
            stack: "a".parse().expect("a name"),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            partition: "aws".to_owned(),
        };
        let document = reconciler(&names).to_string();
        let policies = Policies { identity: vec![Policy::parse(&document).expect("valid")], boundary: None };
        let from_code = Context::default().with("lambda:SourceFunctionArn", names.function_arn());
        let by_lambda = UNUSED.iter().filter(|(_, _, _, why)| *why == BY_LAMBDA);
        let actions: Vec<&str> = by_lambda.map(|(_, _, action, _)| *action).collect();
        assert_eq!(actions.len(), 6);
        for action in actions {
            let decision = |context: &Context| decide(&policies, None, action, "*", context);
            assert_eq!(decision(&Context::default()), Decision::Allowed, "{action}");
            assert_eq!(decision(&from_code), Decision::DeniedByIdentity, "{action}");
        }
    }

    #[test]
    fn missing_and_unused_permissions_are_named() {
        let document = json!({"Statement": [
            {"Sid": "S", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::b/*"}
        ]});
        let policy = Policy { what: "lb", who: "me".to_owned(), document };
        let mut uses = [
            one("s3:GetObject", "arn:aws:s3:::b/k", &[]),
            one("s3:GetObject", "arn:aws:s3:::c/k", &[]),
            one("s3:GetObject", "arn:aws:s3:::b/refused", &[]),
        ];
        uses[2].decision = "not-allowed".to_owned();
        let wrong = wrong(&[policy], &uses);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].starts_with("lb may s3:PutObject (S)"), "{wrong:?}");
        assert!(
            wrong[1].starts_with("me is not allowed s3:GetObject on arn:aws:s3:::b/refused"),
            "{wrong:?}"
        );
        assert!(wrong[2].starts_with("me is not allowed s3:GetObject on arn:aws:s3:::c/k"), "{wrong:?}");
    }
}
