//! SimulatePrincipalPolicy, answered by the evaluator that checks the calls.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use quick_xml::escape::escape;

use super::Iam;
use super::Identity;
use super::context::Context;
use super::evaluate::{Decision, decide};
use crate::ACCOUNT;
use crate::call::Call;
use crate::reply::{refusal, xml};

/// The caller's question (IAM API reference, SimulatePrincipalPolicy).
#[derive(Debug, PartialEq)]
struct Question {
    source: Identity,
    actions: Vec<String>,
    resources: Vec<String>,
    context: Context,
}

pub(crate) async fn answer(iam: &Iam, call: &Call) -> Response<Body> {
    let source = call.parameter("PolicySourceArn").unwrap_or("");
    let Some(question) = Question::read(call) else {
        let message = format!("{source} is not the ARN of a user or role of this account");
        return refusal("iam", StatusCode::BAD_REQUEST, "InvalidInput", &message);
    };
    let policies = iam.books.policies(&iam.ministack, &question.source).await;
    let mut results = String::new();
    for action in &question.actions {
        for resource in &question.resources {
            let decision = decide(&policies, None, action, resource, &question.context);
            results.push_str(&result(action, resource, decision));
        }
    }
    xml(format!(
        "<SimulatePrincipalPolicyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
         <SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>\
         <EvaluationResults>{results}</EvaluationResults></SimulatePrincipalPolicyResult>\
         <ResponseMetadata><RequestId>local-cloud</RequestId></ResponseMetadata>\
         </SimulatePrincipalPolicyResponse>"
    ))
}

fn result(action: &str, resource: &str, decision: Decision) -> String {
    let (action, resource, decided) = (escape(action), escape(resource), decision.simulated());
    format!(
        "<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName>\
         <EvalDecision>{decided}</EvalDecision><MatchedStatements/><MissingContextValues/></member>"
    )
}

impl Question {
    fn read(call: &Call) -> Option<Self> {
        let source = identity(call.parameter("PolicySourceArn")?)?;
        let list = |name: &str| -> Vec<String> {
            let one = |number: u32| call.parameter(&format!("{name}.member.{number}")).map(str::to_owned);
            (1..).map_while(one).collect()
        };
        let mut context = Context::default();
        source.describe(&mut context);
        for number in 1_u32.. {
            let entry = format!("ContextEntries.member.{number}");
            let Some(key) = call.parameter(&format!("{entry}.ContextKeyName")) else { break };
            context.set(key, list(&format!("{entry}.ContextKeyValues")));
        }
        let mut resources = list("ResourceArns");
        if resources.is_empty() {
            resources.push("*".to_owned());
        }
        Some(Self { source, actions: list("ActionNames"), resources, context })
    }
}

/// Returns the user or role of an ARN.
fn identity(arn: &str) -> Option<Identity> {
    let rest = arn.strip_prefix(&format!("arn:aws:iam::{ACCOUNT}:"))?;
    let name = rest.rsplit('/').next()?.to_owned();
    match rest.split_once('/')?.0 {
        "user" => Some(Identity::User(name)),
        "role" => Some(Identity::Role { name, session: "simulated".to_owned(), function: None }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_a_source_actions_resources_and_context() {
        let call = Call::example("iam", "SimulatePrincipalPolicy", "/")
            .with("PolicySourceArn", &format!("arn:aws:iam::{ACCOUNT}:role/path/r"))
            .with("ActionNames.member.1", "ec2:RunInstances")
            .with("ActionNames.member.2", "iam:PassRole")
            .with("ContextEntries.member.1.ContextKeyName", "iam:PassedToService")
            .with("ContextEntries.member.1.ContextKeyType", "string")
            .with("ContextEntries.member.1.ContextKeyValues.member.1", "ec2.amazonaws.com");
        let question = Question::read(&call).expect("complete");
        assert_eq!(question.source.principal_arn(), format!("arn:aws:iam::{ACCOUNT}:role/r"));
        assert_eq!(question.actions, ["ec2:RunInstances", "iam:PassRole"]);
        assert_eq!(question.resources, ["*"]);
        assert_eq!(question.context.values("iam:PassedToService"), ["ec2.amazonaws.com"]);
    }

    #[test]
    fn only_users_and_roles_of_the_account_are_simulated() {
        assert_eq!(identity(&format!("arn:aws:iam::{ACCOUNT}:user/u")), Some(Identity::User("u".to_owned())));
        for arn in
            ["", "arn:aws:iam::1:user/u", &format!("arn:aws:iam::{ACCOUNT}:group/g"), &Identity::Root.arn()]
        {
            assert_eq!(identity(arn), None, "{arn}");
        }
    }
}
