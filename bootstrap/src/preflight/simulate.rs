//! `iam:SimulatePrincipalPolicy`: AWS's own evaluation of the caller's policies, for actions without a dry
//! run. If the caller may not ask, the answers are unknown.

use aws_sdk_iam::error::ProvideErrorMetadata as _;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, EvaluationResult, PolicyEvaluationDecisionType};
use futures::StreamExt as _;
use serde_json::Value;

use super::permission::{Answer, Asked, Denial, is_denial, spelled_out, texts};
use crate::aws::Aws;

/// IAM has a separate rate limit for these calls.
const AT_A_TIME: usize = 6;
/// The permission of these calls themselves; any answer proves it.
const ASKING: &str = "iam:SimulatePrincipalPolicy";
/// As policies write all resources.
const ALL: &str = "*";

/// Actions that are asked about together, because they share resource and conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    actions: Vec<String>,
    /// `*` is all.
    resource: String,
    context: Vec<(String, String)>,
}

/// Returns the answers for the policy's actions; none if the caller may not ask.
pub(crate) async fn ask(aws: &Aws, policy: &Value) -> Vec<Asked> {
    let Some(principal) = principal(&aws.caller) else { return Vec::new() };
    if principal == Principal::Root {
        return allowed(policy);
    }
    let Principal::Arn(arn) = principal else { return Vec::new() };
    let mut questions = questions(policy).into_iter();
    let Some(first) = questions.next() else { return Vec::new() };
    // The first alone: if the caller may not ask, no other question is sent.
    let mut known = match ask_one(aws, &arn, &first).await {
        Ok(known) => known,
        Err(Failed::Denied) => return Vec::new(),
        Err(Failed::Otherwise) => one_by_one(aws, &arn, &first).await,
    };
    let rest = futures::stream::iter(questions)
        .map(async |question| match ask_one(aws, &arn, &question).await {
            Ok(known) => known,
            Err(_) => one_by_one(aws, &arn, &question).await,
        })
        .buffer_unordered(AT_A_TIME)
        .collect::<Vec<_>>();
    known.extend(rest.await.into_iter().flatten());
    if !known.is_empty() {
        known.push(Asked { action: ASKING.to_owned(), answer: Answer::Allowed });
    }
    known
}

/// Asks action by action. IAM takes only actions together that need the same information, and does not
/// document which those are.
async fn one_by_one(aws: &Aws, principal: &str, question: &Question) -> Vec<Asked> {
    let mut known = Vec::new();
    if question.actions.len() > 1 {
        for action in &question.actions {
            let alone = Question { actions: vec![action.clone()], ..question.clone() };
            known.extend(ask_one(aws, principal, &alone).await.unwrap_or_default());
        }
    }
    known
}

/// Why an answer is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    Denied,
    Otherwise,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Principal {
    /// The account's root user, whom no policy of the account limits.
    Root,
    Arn(String),
}

/// Returns whose policies count, by the ARN of `GetCallerIdentity`: for a session, its role. The ARN of a
/// session lacks the role's path, so a role of IAM Identity Center is not found, and its permissions stay
/// unknown.
fn principal(caller: &str) -> Option<Principal> {
    let parts: Vec<&str> = caller.splitn(6, ':').collect();
    let [arn, partition, service, _, account, resource] = parts[..] else { return None };
    match (service, resource.split_once('/')) {
        ("iam", None) if resource == "root" => Some(Principal::Root),
        ("iam", Some(("user", _))) => Some(Principal::Arn(caller.to_owned())),
        ("sts", Some(("assumed-role", session))) => {
            let role = session.split('/').next()?;
            Some(Principal::Arn(format!("{arn}:{partition}:iam::{account}:role/{role}")))
        }
        _ => None,
    }
}

fn allowed(policy: &Value) -> Vec<Asked> {
    let all = super::permission::actions(policy).into_keys();
    all.map(|action| Asked { action, answer: Answer::Allowed }).collect()
}

/// Returns one question for each statement, and for each kind of resource in statements about all kinds.
fn questions(policy: &Value) -> Vec<Question> {
    let mut questions: Vec<Question> = Vec::new();
    let statements = policy["Statement"].as_array().into_iter().flatten();
    for statement in statements.filter(|statement| statement["Effect"] == "Allow") {
        let Some(pattern) = texts(&statement["Resource"]).next() else { continue };
        let context = context(&statement["Condition"]);
        let is_of_existing = context.iter().any(|(key, _)| key.starts_with("aws:ResourceTag/"));
        for action in texts(&statement["Action"]).flat_map(spelled_out) {
            let Some(resource) = resource(pattern, &action, is_of_existing) else { continue };
            let same = questions
                .iter_mut()
                .find(|question| question.resource == resource && question.context == context);
            match same {
                Some(question) => question.actions.push(action),
                None => {
                    questions.push(Question { actions: vec![action], resource, context: context.clone() });
                }
            }
        }
    }
    questions
}

/// Returns a resource that the pattern covers; `None` if the action's kind of resource is unclear.
fn resource(pattern: &str, action: &str, is_of_existing: bool) -> Option<String> {
    if pattern == ALL {
        return Some(ALL.to_owned());
    }
    // A variable of the policy: the simulation would have to be given its value.
    if pattern.contains("${") {
        return None;
    }
    match pattern.strip_suffix("*/*") {
        None => Some(pattern.replace('*', "example")),
        Some(prefix) => Some(format!("{prefix}{}/example", kind(action, is_of_existing)?)),
    }
}

/// Returns the kind of resource that EC2 authorizes an action by, derived from its name. A resource made
/// inside another one is authorized by that one as well.
fn kind(action: &str, is_of_existing: bool) -> Option<&'static str> {
    const KINDS: [(&str, &str); 11] = [
        ("EgressOnlyInternetGateway", "egress-only-internet-gateway"),
        ("InternetGateway", "internet-gateway"),
        ("Route", "route-table"),
        ("SecurityGroup", "security-group"),
        ("Subnet", "subnet"),
        ("VpcEndpoint", "vpc-endpoint"),
        ("Vpc", "vpc"),
        ("Address", "elastic-ip"),
        ("NetworkInterface", "network-interface"),
        ("Instance", "instance"),
        ("ConsoleOutput", "instance"),
    ];
    let verb = action.strip_prefix("ec2:")?;
    if is_of_existing && verb == "RunInstances" {
        return Some("subnet");
    }
    if is_of_existing && verb.starts_with("Create") && verb != "CreateRoute" {
        return Some("vpc");
    }
    if verb == "CreateTags" {
        return Some("vpc");
    }
    KINDS.iter().find(|(word, _)| verb.contains(word)).map(|(_, kind)| *kind)
}

/// Returns values that fulfil the conditions.
fn context(conditions: &Value) -> Vec<(String, String)> {
    let operators = conditions.as_object().into_iter().flatten();
    let keys = operators.flat_map(|(operator, keys)| {
        keys.as_object().into_iter().flatten().map(move |(key, value)| (operator, key, value))
    });
    keys.map(|(operator, key, value)| {
        let value = match operator.as_str() {
            // Any value will do: all of these conditions are about `ec2:CreateAction`.
            "Null" => "CreateVpc",
            _ => texts(value).next().unwrap_or_default(),
        };
        (key.clone(), value.to_owned())
    })
    .collect()
}

async fn ask_one(aws: &Aws, principal: &str, question: &Question) -> std::result::Result<Vec<Asked>, Failed> {
    let Question { actions, resource, context } = question;
    let entries = context.iter().map(|(key, value)| {
        let entry = ContextEntry::builder().context_key_name(key).context_key_values(value);
        entry.context_key_type(ContextKeyTypeEnum::String).build()
    });
    let asked = aws
        .iam
        .simulate_principal_policy()
        .policy_source_arn(principal)
        .set_action_names(Some(actions.clone()))
        .set_resource_arns((resource != ALL).then(|| vec![resource.clone()]))
        .set_context_entries(Some(entries.collect()))
        .max_items(1000)
        .send()
        .await
        .map_err(|error| {
            let status = error.raw_response().map(|response| response.status().as_u16());
            let is_denied = is_denial(error.code().unwrap_or_default(), status);
            if is_denied { Failed::Denied } else { Failed::Otherwise }
        })?;
    Ok(asked.evaluation_results().iter().map(|result| judge(result, resource)).collect())
}

fn judge(result: &EvaluationResult, resource: &str) -> Asked {
    let action = result.eval_action_name().to_owned();
    let resource = (resource != ALL).then(|| resource.to_owned());
    let denied = |is_explicit| Answer::Denied(Denial { action: action.clone(), resource, is_explicit });
    let answer = match result.eval_decision() {
        PolicyEvaluationDecisionType::Allowed => Answer::Allowed,
        // A condition of the caller's policy needs a fact that a simulation lacks, such as the caller's
        // address.
        _ if !result.missing_context_values().is_empty() => Answer::Unknown,
        PolicyEvaluationDecisionType::ExplicitDeny => denied(true),
        PolicyEvaluationDecisionType::ImplicitDeny => denied(false),
        _ => Answer::Unknown,
    };
    Asked { action, answer }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::names::Names;
    use crate::policies::deployer::deployer;
    use crate::preflight::permission::actions;

    #[test]
    fn policies_are_those_of_the_user_or_the_role() {
        let arn = |arn: &str| Some(Principal::Arn(arn.to_owned()));
        for (caller, expected) in [
            ("arn:aws:iam::123456789012:root", Some(Principal::Root)),
            ("arn:aws:iam::123456789012:user/a/ana", arn("arn:aws:iam::123456789012:user/a/ana")),
            ("arn:aws:sts::123456789012:assumed-role/ops/ana", arn("arn:aws:iam::123456789012:role/ops")),
            ("arn:aws-cn:sts::1:assumed-role/ops/i-1", arn("arn:aws-cn:iam::1:role/ops")),
            ("arn:aws:sts::123456789012:federated-user/ana", None),
            ("", None),
        ] {
            assert_eq!(principal(caller), expected, "{caller}");
        }
    }

    #[test]
    fn every_action_of_the_policy_is_asked_about() {
        let policy = deployer(&Names::example("a"), None);
        let questions = questions(&policy);
        let asked: BTreeSet<&str> =
            questions.iter().flat_map(|question| &question.actions).map(String::as_str).collect();
        let all = actions(&policy);
        let all: BTreeSet<&str> = all.keys().map(String::as_str).collect();
        assert_eq!(asked, all);
        assert!(questions.len() < 50, "{}", questions.len());
        for question in &questions {
            let resource = question.resource.as_str();
            assert!(resource == ALL || !resource.contains('*'), "{question:?}");
        }
    }

    #[test]
    fn a_question_brings_what_the_conditions_want() {
        let questions = questions(&deployer(&Names::example("a"), None));
        let of = |action: &str, kind: &str| {
            let is_it = |question: &&Question| {
                question.actions.iter().any(|one| one == action) && question.resource.contains(kind)
            };
            questions.iter().find(is_it).unwrap_or_else(|| panic!("{action} on {kind}"))
        };
        let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        assert_eq!(of("ec2:CreateVpc", ":vpc/").context, pair("aws:RequestTag/vigia:stack", "a"));
        assert_eq!(of("ec2:CreateSubnet", ":vpc/").context, pair("aws:ResourceTag/vigia:stack", "a"));
        assert_eq!(of("ec2:RunInstances", ":subnet/").context, pair("aws:ResourceTag/vigia:stack", "a"));
        assert_eq!(of("ec2:CreateTags", ":vpc/").context, pair("ec2:CreateAction", "CreateVpc"));
        assert_eq!(
            of("iam:PassRole", "-reconciler").context,
            pair("iam:PassedToService", "lambda.amazonaws.com")
        );
    }

    #[test]
    fn a_decision_that_lacks_context_is_not_known() {
        let result = |decision: PolicyEvaluationDecisionType, missing: &[&str]| {
            let missing = missing.iter().map(|key| (*key).to_owned()).collect();
            let result = EvaluationResult::builder()
                .eval_action_name("ec2:CreateVpc")
                .eval_decision(decision)
                .set_missing_context_values(Some(missing));
            judge(&result.build().expect("complete"), ALL).answer
        };
        use PolicyEvaluationDecisionType::{Allowed, ExplicitDeny, ImplicitDeny};
        assert_eq!(result(Allowed, &["aws:SourceIp"]), Answer::Allowed);
        assert_eq!(result(ImplicitDeny, &["aws:SourceIp"]), Answer::Unknown);
        assert!(matches!(result(ImplicitDeny, &[]), Answer::Denied(denial) if !denial.is_explicit));
        assert!(matches!(result(ExplicitDeny, &[]), Answer::Denied(denial) if denial.is_explicit));
    }

    #[tokio::test]
    async fn root_is_not_simulated_and_may_do_everything() {
        let mut aws = crate::aws::stub::client("http://127.0.0.1:1");
        "arn:aws:iam::123456789012:root".clone_into(&mut aws.caller);
        let policy = deployer(&aws.names, None);
        let known = ask(&aws, &policy).await;
        assert_eq!(known.len(), actions(&policy).len());
        assert!(known.iter().all(|asked| asked.answer == Answer::Allowed), "{known:?}");
    }
}
