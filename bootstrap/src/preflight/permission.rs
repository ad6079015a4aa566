//! Turns the answers about each permission that `iam-policy` prints into checks. Pure.
//!
//! | asked | answer | means |
//! |---|---|---|
//! | a dry run | `DryRunOperation` | allowed |
//! | a call that only reads | an answer, or "not found" | allowed |
//! | either | `UnauthorizedOperation`, `AccessDenied` | denied |
//! | `SimulatePrincipalPolicy` | `allowed`, `implicitDeny`, `explicitDeny` | the same, unless a dry run or a read knows better |
//! | anything else | | not known, which is never allowed |

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::check::{Check, Verdict};

pub(crate) const NAME: &str = "permissions";
/// Actions that an ordinary deployment does not need: they serve `doctor` and `logs`, a region without a
/// dual-stack API, spot workers, or an option.
const OCCASIONAL: [&str; 10] = [
    "ec2:DescribeAccountAttributes",
    "ec2:DescribeInstanceTypes",
    "ec2:GetConsoleOutput",
    "iam:CreateServiceLinkedRole",
    "iam:ListRoles",
    "iam:PutRolePermissionsBoundary",
    "iam:SimulatePrincipalPolicy",
    "lambda:GetAccountSettings",
    "route53:AssociateVPCWithHostedZone",
    "servicequotas:GetServiceQuota",
];
/// Calls of this program that the policy allows by patterns, because it has few characters to spare.
const UNDER_PATTERNS: [&str; 21] = [
    "ec2:DescribeAccountAttributes",
    "ec2:DescribeAddresses",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeEgressOnlyInternetGateways",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeVpcAttribute",
    "ec2:DescribeVpcEndpoints",
    "ec2:DescribeVpcs",
    "iam:GetRole",
    "iam:GetRolePolicy",
    "lambda:GetFunction",
    "lambda:GetFunctionConfiguration",
    "lambda:GetFunctionEventInvokeConfig",
    "lambda:GetPolicy",
    "lambda:ListTags",
    "lambda:ListVersionsByFunction",
    "s3:GetBucketTagging",
    "s3:GetLifecycleConfiguration",
    "s3:ListBucket",
    "s3:ListBucketVersions",
];
/// Actions that remove resources: `destroy` needs them, and a deployment that changes existing resources.
const TAKING_AWAY: [&str; 6] = ["Delete", "Detach", "Disassociate", "Release", "Remove", "Revoke"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Allowed,
    Denied(Denial),
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) action: String,
    pub(crate) resource: Option<String>,
    /// A policy denies it, so that no other policy can allow it.
    pub(crate) is_explicit: bool,
}

/// The result of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) action: String,
    pub(crate) answer: Answer,
}

/// Returns whether an error says that the caller lacks a permission.
pub(crate) fn is_denial(code: &str, status: Option<u16>) -> bool {
    let by_code = matches!(code, "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException");
    // S3 answers HEAD without a body.
    by_code || (status == Some(403) && matches!(code, "" | "403" | "Forbidden"))
}

/// Parses AWS's words: "User: … is not authorized to perform: ACTION on resource: ARN because …".
pub(crate) fn denial(action: &str, resource: Option<&str>, message: &str) -> Denial {
    let after = |text: &str| message.split_once(text).map(|(_, rest)| rest);
    let word =
        |text: &str| text.split([' ', ',', '\n']).next().unwrap_or("").trim_end_matches('.').to_owned();
    let said = after("not authorized to perform: ").map(word);
    Denial {
        action: said.filter(|said| said.contains(':')).unwrap_or_else(|| action.to_owned()),
        resource: after("on resource: ").map(word).or_else(|| resource.map(str::to_owned)),
        is_explicit: message.contains("explicit deny"),
    }
}

/// Returns the actions of a policy, each with the statements that allow it. A pattern stands for the actions
/// in [`UNDER_PATTERNS`] that it covers.
pub(crate) fn actions(policy: &Value) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for statement in policy["Statement"].as_array().into_iter().flatten() {
        if statement["Effect"] != "Allow" {
            continue;
        }
        for action in texts(&statement["Action"]) {
            for action in spelled_out(action) {
                let sids = all.entry(action).or_default();
                sids.extend(statement["Sid"].as_str().map(str::to_owned));
            }
        }
    }
    all
}

/// Expands `ec2:DescribeInstanceType*` to its actions: a simulation takes no patterns.
pub(crate) fn spelled_out(action: &str) -> Vec<String> {
    match action.strip_suffix('*') {
        None => vec![action.to_owned()],
        Some(stem) => {
            let covered = UNDER_PATTERNS.iter().filter(|action| action.starts_with(stem));
            covered.map(|action| (*action).to_owned()).collect()
        }
    }
}

pub(crate) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_str().into_iter().chain(value.as_array().into_iter().flatten().filter_map(Value::as_str))
}

/// Turns all answers into checks; `surely` counts more than `simulated`.
pub(crate) fn checks(policy: &Value, surely: &[Asked], simulated: &[Asked]) -> Vec<Check> {
    let wanted = actions(policy);
    let mut known: BTreeMap<&str, &Answer> = BTreeMap::new();
    for one in surely {
        let entry = known.entry(&one.action).or_insert(&one.answer);
        if **entry == Answer::Unknown || matches!(one.answer, Answer::Denied(_)) {
            *entry = &one.answer;
        }
    }
    known.retain(|_, answer| **answer != Answer::Unknown);
    let sure: BTreeSet<&str> = known.keys().copied().collect();
    for one in simulated.iter().filter(|one| !sure.contains(one.action.as_str())) {
        let entry = known.entry(&one.action).or_insert(&one.answer);
        if **entry == Answer::Allowed {
            *entry = &one.answer;
        }
    }
    let mut denials: Vec<&Denial> = Vec::new();
    for answer in known.values() {
        if let Answer::Denied(denial) = answer
            && !denials.contains(&denial)
        {
            denials.push(denial);
        }
    }
    let mut checks: Vec<Check> = denials.into_iter().map(|denial| of_denial(&wanted, denial)).collect();
    let allowed =
        wanted.keys().filter(|action| known.get(action.as_str()) == Some(&&Answer::Allowed)).count();
    let unknown = wanted
        .keys()
        .filter(|action| !matches!(known.get(action.as_str()), Some(Answer::Allowed | Answer::Denied(_))));
    let unknown = unknown.count();
    checks.extend(match (unknown, allowed) {
        (0, 0) => None,
        (0, allowed) => {
            Some(Check::new(NAME, Verdict::Ok, format!("{allowed} actions of `iam-policy` are allowed")))
        }
        (unknown, allowed) => {
            let detail =
                format!("{allowed} actions of `iam-policy` are allowed, {unknown} cannot be checked");
            Some(Check::new(NAME, Verdict::NotKnownHere, detail))
        }
    });
    checks
}

fn of_denial(wanted: &BTreeMap<String, Vec<String>>, denial: &Denial) -> Check {
    let Denial { action, resource, is_explicit } = denial;
    let on = resource.as_ref().map_or_else(String::new, |resource| format!(" on {resource}"));
    let verdict = if is_for_later(action) { Verdict::Warning } else { Verdict::Failed };
    let check = Check::new(NAME, verdict, format!("these credentials are not allowed to call {action}{on}"));
    let statements = wanted.get(action).map(|sids| sids.join("` and `"));
    check.hint(match (is_explicit, statements) {
        (true, _) => "A policy denies it explicitly, which no other policy can undo: ask the account's \
                      administrator, who may have set a boundary or a service control policy."
            .to_owned(),
        (false, Some(sids)) => {
            format!("Add `{sids}` of `bootstrap iam-policy` (make iam-policy) to their policy.")
        }
        (false, None) => format!("Allow {action} in their policy."),
    })
}

/// Returns whether an ordinary deployment works without the action.
fn is_for_later(action: &str) -> bool {
    let verb = action.split_once(':').map_or("", |(_, verb)| verb);
    OCCASIONAL.contains(&action) || TAKING_AWAY.iter().any(|prefix| verb.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::Names;
    use crate::policies::deployer::deployer;

    fn policy() -> Value {
        deployer(&Names::example("a"), None)
    }

    fn asked(action: &str, answer: Answer) -> Asked {
        Asked { action: action.to_owned(), answer }
    }

    fn denied(action: &str) -> Answer {
        Answer::Denied(Denial { action: action.to_owned(), resource: None, is_explicit: false })
    }

    #[test]
    fn the_words_of_aws_name_action_and_resource() {
        let message = "You are not authorized to perform this operation. User: arn:aws:iam::1:user/u is not \
                       authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:eu-west-1:1:vpc/* \
                       because no identity-based policy allows the ec2:CreateTags action. Encoded …";
        let expected = Denial {
            action: "ec2:CreateTags".to_owned(),
            resource: Some("arn:aws:ec2:eu-west-1:1:vpc/*".to_owned()),
            is_explicit: false,
        };
        assert_eq!(denial("ec2:CreateVpc", None, message), expected);
        let bare = denial("s3:ListBucket", Some("arn:aws:s3:::b"), "");
        assert_eq!(
            (bare.action.as_str(), bare.resource.as_deref()),
            ("s3:ListBucket", Some("arn:aws:s3:::b"))
        );
        let explicit = denial("a:B", None, "… with an explicit deny in a service control policy");
        assert!(explicit.is_explicit);
    }

    #[test]
    fn only_a_refusal_of_the_caller_is_a_denial() {
        for (code, status, is_it) in [
            ("UnauthorizedOperation", Some(403), true),
            ("AccessDenied", Some(403), true),
            ("AccessDeniedException", Some(400), true),
            ("", Some(403), true),
            ("ExpiredToken", Some(403), false),
            ("InvalidVpcID.NotFound", Some(400), false),
            ("DryRunOperation", Some(412), false),
            ("", None, false),
        ] {
            assert_eq!(is_denial(code, status), is_it, "{code} {status:?}");
        }
    }

    #[test]
    fn a_denial_names_the_statement_to_add() {
        let checks = checks(&policy(), &[asked("ec2:CreateVpc", denied("ec2:CreateVpc"))], &[]);
        assert_eq!((checks[0].verdict, checks.len()), (Verdict::Failed, 2));
        assert!(checks[0].detail.contains("ec2:CreateVpc"), "{checks:?}");
        let hint = checks[0].hint.clone().expect("what to do");
        assert!(hint.contains("`MakeTagged`") && hint.contains("iam-policy"), "{hint}");
        assert_eq!(checks[1].verdict, Verdict::NotKnownHere, "of the others nothing is known");
    }

    #[test]
    fn an_explicit_denial_is_for_the_administrator() {
        let denial = Denial { action: "ec2:CreateVpc".to_owned(), resource: None, is_explicit: true };
        let checks = checks(&policy(), &[asked("ec2:CreateVpc", Answer::Denied(denial))], &[]);
        let hint = checks[0].hint.clone().expect("what to do");
        assert!(hint.contains("administrator") && !hint.contains("Add"), "{hint}");
    }

    #[test]
    fn a_dry_run_knows_better_than_a_simulation() {
        let verdict = |surely: Answer, simulated: Answer| {
            let all = checks(
                &json!({"Statement": [{"Sid": "S", "Effect": "Allow", "Action": "ec2:CreateVpc"}]}),
                &[asked("ec2:CreateVpc", surely)],
                &[asked("ec2:CreateVpc", simulated)],
            );
            all[0].verdict
        };
        let denied = || denied("ec2:CreateVpc");
        assert_eq!(verdict(Answer::Allowed, denied()), Verdict::Ok);
        assert_eq!(verdict(denied(), Answer::Allowed), Verdict::Failed);
        assert_eq!(verdict(Answer::Unknown, denied()), Verdict::Failed);
        assert_eq!(verdict(Answer::Unknown, Answer::Allowed), Verdict::Ok);
        assert_eq!(verdict(Answer::Unknown, Answer::Unknown), Verdict::NotKnownHere);
    }

    #[test]
    fn an_action_only_destroy_needs_is_a_warning() {
        for (action, verdict) in [
            ("ec2:DeleteVpc", Verdict::Warning),
            ("servicequotas:GetServiceQuota", Verdict::Warning),
            ("iam:PassRole", Verdict::Failed),
        ] {
            assert_eq!(
                checks(&policy(), &[], &[asked(action, denied(action))])[0].verdict,
                verdict,
                "{action}"
            );
        }
    }

    #[test]
    fn every_pattern_stands_for_an_action() {
        let policy = policy();
        let statements = policy["Statement"].as_array().expect("statements");
        for action in statements.iter().flat_map(|statement| texts(&statement["Action"])) {
            let all = spelled_out(action);
            assert!(!all.is_empty() && all.iter().all(|one| !one.contains('*')), "{action}");
        }
    }

    #[test]
    fn every_occasional_action_is_one_of_the_policys() {
        let all = actions(&policy());
        let missing: Vec<_> = OCCASIONAL
            .iter()
            .filter(|action| !all.contains_key(**action) && **action != "iam:SimulatePrincipalPolicy")
            .collect();
        assert_eq!(missing, [&""; 0]);
    }
}
