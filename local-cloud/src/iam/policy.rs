//! Policy documents, parsed once: a call is then checked without reading JSON.

use serde_json::Value;

use super::condition::Condition;
use super::context::Context;
use super::document::{Invalid, texts};
use super::pattern::{fits_action, fits_arn};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    pub(super) statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub effect: Effect,
    principals: Option<Principals>,
    actions: Patterns,
    resources: Option<Patterns>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// `Action` or `NotAction`, `Resource` or `NotResource`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Patterns {
    Of(Vec<String>),
    NotOf(Vec<String>),
}

/// The principals of a resource's policy, or of a role's trust policy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Principals {
    All,
    /// ARNs, account ids and names of services.
    Of(Vec<String>),
    NotOf(Vec<String>),
}

impl Policy {
    pub fn parse(document: &str) -> Result<Self, Invalid> {
        let document: Value = serde_json::from_str(document).map_err(|_| Invalid::Json)?;
        let statements = match &document["Statement"] {
            Value::Array(several) => several.iter().map(Statement::parse).collect::<Result<_, _>>()?,
            one @ Value::Object(_) => vec![Statement::parse(one)?],
            _ => return Err(Invalid::Shape("Statement")),
        };
        Ok(Self { statements })
    }

    /// Replaces an unreadable policy: it allows nothing.
    pub(super) fn deny_all() -> Self {
        let all = || Patterns::Of(vec!["*".to_owned()]);
        let statement = Statement {
            effect: Effect::Deny,
            principals: None,
            actions: all(),
            resources: Some(all()),
            conditions: Vec::new(),
        };
        Self { statements: vec![statement] }
    }
}

impl Statement {
    fn parse(statement: &Value) -> Result<Self, Invalid> {
        let effect = match statement["Effect"].as_str() {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(Invalid::Shape("Effect")),
        };
        let actions = Patterns::parse(statement, "Action", "NotAction").ok_or(Invalid::Shape("Action"))?;
        let principals = match (&statement["Principal"], &statement["NotPrincipal"]) {
            (Value::Null, Value::Null) => None,
            (Value::Null, others) => Some(Principals::NotOf(principals(others))),
            (Value::String(all), _) if all == "*" => Some(Principals::All),
            (some, _) => Some(Principals::Of(principals(some))),
        };
        Ok(Self {
            effect,
            principals,
            actions,
            resources: Patterns::parse(statement, "Resource", "NotResource"),
            conditions: Condition::parse_all(&statement["Condition"])?,
        })
    }

    /// Returns whether the statement is about this use of a permission, whatever its caller.
    pub(super) fn is_about(&self, action: &str, resource: &str, context: &Context) -> bool {
        let is_action = self.actions.contains(|pattern| fits_action(pattern, action));
        // Trust policies name no resource: it is the role.
        let is_resource = self
            .resources
            .as_ref()
            .is_none_or(|resources| resources.contains(|pattern| fits_arn(pattern, resource, context)));
        is_action && is_resource && self.conditions.iter().all(|condition| condition.holds(context))
    }

    /// Returns whether the statement names one of these: a principal's ARNs, its account, `*`.
    pub(super) fn names(&self, names: &[&str]) -> bool {
        let is_in = |list: &[String]| list.iter().any(|one| one == "*" || names.contains(&one.as_str()));
        match &self.principals {
            None => false,
            Some(Principals::All) => true,
            Some(Principals::Of(list)) => is_in(list),
            Some(Principals::NotOf(list)) => !is_in(list),
        }
    }
}

impl Patterns {
    fn parse(statement: &Value, of: &str, not_of: &str) -> Option<Self> {
        match (&statement[of], &statement[not_of]) {
            (Value::Null, Value::Null) => None,
            (Value::Null, others) => Some(Self::NotOf(texts(others))),
            (some, _) => Some(Self::Of(texts(some))),
        }
    }

    fn contains(&self, fits: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Of(patterns) => patterns.iter().any(|pattern| fits(pattern)),
            Self::NotOf(patterns) => !patterns.iter().any(|pattern| fits(pattern)),
        }
    }
}

fn principals(value: &Value) -> Vec<String> {
    match value {
        Value::Object(kinds) => kinds.values().flat_map(texts).collect(),
        other => texts(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_about(statement: &Value, action: &str, resource: &str) -> bool {
        let document = json!({"Version": "2012-10-17", "Statement": statement}).to_string();
        let policy = Policy::parse(&document).expect("valid");
        policy.statements.iter().any(|one| one.is_about(action, resource, &Context::default()))
    }

    #[test]
    fn not_action_and_not_resource_are_about_all_the_rest() {
        let statement = json!({"Effect": "Allow", "NotAction": "iam:*", "NotResource": "arn:aws:s3:::b/*"});
        assert!(is_about(&statement, "s3:GetObject", "arn:aws:s3:::c/k"));
        assert!(!is_about(&statement, "s3:GetObject", "arn:aws:s3:::b/k"));
        assert!(!is_about(&statement, "iam:GetRole", "arn:aws:s3:::c/k"));
    }

    #[test]
    fn one_statement_needs_no_list() {
        let statement = json!({"Effect": "Allow", "Action": ["s3:Get*"], "Resource": "*"});
        assert!(is_about(&statement, "s3:GetObject", "arn:aws:s3:::b/k"));
        assert!(is_about(&json!([statement]), "s3:GetObject", "arn:aws:s3:::b/k"));
    }

    #[test]
    fn principals_are_named_by_arn_account_or_star() {
        let names = |principal: Value| {
            let statement = json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Principal": principal});
            let policy = Policy::parse(&json!({"Statement": statement}).to_string()).expect("valid");
            policy.statements[0].names(&["arn:aws:iam::1:role/r", "1"])
        };
        assert!(names(json!("*")) && names(json!({"AWS": "*"})));
        assert!(names(json!({"AWS": ["arn:aws:iam::1:role/r"]})) && names(json!({"AWS": "1"})));
        assert!(!names(json!({"Service": "ec2.amazonaws.com"})));
    }

    #[test]
    fn a_document_that_is_no_policy_is_refused() {
        for document in [
            "",
            "{}",
            r#"{"Statement": [{"Effect": "Perhaps", "Action": "*", "Resource": "*"}]}"#,
            r#"{"Statement": [{"Effect": "Allow", "Resource": "*"}]}"#,
            r#"{"Statement": [{"Effect": "Allow", "Action": "*", "Condition": {"Is": {"k": "v"}}}]}"#,
        ] {
            assert!(Policy::parse(document).is_err(), "{document}");
        }
    }
}
