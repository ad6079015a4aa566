//! The decision (IAM user guide, "Policy evaluation logic"), for calls within one account.
//!
//! | in this order | decision |
//! |---|---|
//! | a `Deny` of any policy is about the call | denied explicitly |
//! | the resource's own policy allows it to this very principal | allowed |
//! | no policy of the principal allows it | denied implicitly |
//! | there is a permissions boundary, and it does not allow it | denied implicitly |
//! | otherwise | allowed |

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::policy::{Effect, Policy};

/// All policies that count for a principal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// Inline and attached.
    pub identity: Vec<Policy>,
    /// `None` without a permissions boundary.
    pub boundary: Option<Policy>,
}

/// The policy of the resource itself, if it has one.
#[derive(Clone, Copy, Debug)]
pub struct OfResource<'a> {
    pub policy: &'a Policy,
    /// The principal's ARNs. It is also named by its account, but that allows nothing by itself.
    pub names: &'a [&'a str],
    pub account: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    Allowed,
    /// No identity policy allows it.
    NotAllowed,
    /// Identity policies allow it, the permissions boundary does not.
    OutsideBoundary,
    DeniedByIdentity,
    DeniedByBoundary,
    DeniedByResource,
}

impl Decision {
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed
    }

    /// Returns the decision as SimulatePrincipalPolicy writes it.
    pub fn simulated(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NotAllowed | Self::OutsideBoundary => "implicitDeny",
            Self::DeniedByIdentity | Self::DeniedByBoundary | Self::DeniedByResource => "explicitDeny",
        }
    }
}

pub fn decide(
    policies: &Policies,
    of_resource: Option<OfResource<'_>>,
    action: &str,
    resource: &str,
    context: &Context,
) -> Decision {
    let says = |policy: &Policy, effect: Effect| {
        let mut about = policy.statements.iter().filter(|statement| statement.effect == effect);
        about.any(|statement| statement.is_about(action, resource, context))
    };
    let resource_says = |effect: Effect, by_account: bool| {
        of_resource.is_some_and(|of| {
            let mut names = of.names.to_vec();
            names.extend(by_account.then_some(of.account));
            let mut about = of.policy.statements.iter().filter(|statement| statement.effect == effect);
            about.any(|statement| statement.names(&names) && statement.is_about(action, resource, context))
        })
    };
    if policies.identity.iter().any(|policy| says(policy, Effect::Deny)) {
        return Decision::DeniedByIdentity;
    }
    if resource_says(Effect::Deny, true) {
        return Decision::DeniedByResource;
    }
    if policies.boundary.as_ref().is_some_and(|boundary| says(boundary, Effect::Deny)) {
        return Decision::DeniedByBoundary;
    }
    if resource_says(Effect::Allow, false) {
        return Decision::Allowed;
    }
    if !policies.identity.iter().any(|policy| says(policy, Effect::Allow)) {
        return Decision::NotAllowed;
    }
    if policies.boundary.as_ref().is_some_and(|boundary| !says(boundary, Effect::Allow)) {
        return Decision::OutsideBoundary;
    }
    Decision::Allowed
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ROLE: &str = "arn:aws:iam::1:role/r";

    fn policy(statements: &Value) -> Policy {
        Policy::parse(&json!({"Statement": statements}).to_string()).expect("valid")
    }

    fn says(effect: &str) -> Value {
        json!({"Effect": effect, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"})
    }

    /// Returns one row of the table in AWS's documentation.
    fn decision(identity: &[Value], boundary: Option<&Value>, resource: Option<Value>) -> Decision {
        let policies =
            Policies { identity: identity.iter().map(policy).collect(), boundary: boundary.map(policy) };
        let resource = resource.map(|mut statement| {
            statement["Principal"] = json!({"AWS": ROLE});
            policy(&statement)
        });
        let of = resource.as_ref().map(|policy| OfResource { policy, names: &[ROLE], account: "1" });
        decide(&policies, of, "s3:GetObject", "arn:aws:s3:::b/k", &Context::default())
    }

    #[test]
    fn decides_as_the_documented_logic_does() {
        let (allow, deny) = (says("Allow"), says("Deny"));
        for (identity, boundary, resource, expected) in [
            (vec![], None, None, Decision::NotAllowed),
            (vec![allow.clone()], None, None, Decision::Allowed),
            (vec![allow.clone(), deny.clone()], None, None, Decision::DeniedByIdentity),
            (vec![deny.clone(), allow.clone()], None, None, Decision::DeniedByIdentity),
            (vec![allow.clone()], Some(&allow), None, Decision::Allowed),
            (vec![allow.clone()], Some(&json!([])), None, Decision::OutsideBoundary),
            (
                vec![allow.clone()],
                Some(&json!([allow.clone(), deny.clone()])),
                None,
                Decision::DeniedByBoundary,
            ),
            (vec![], Some(&allow), None, Decision::NotAllowed),
            (vec![], None, Some(allow.clone()), Decision::Allowed),
            (vec![allow.clone()], None, Some(deny.clone()), Decision::DeniedByResource),
            (vec![deny.clone()], None, Some(allow.clone()), Decision::DeniedByIdentity),
        ] {
            assert_eq!(
                decision(&identity, boundary, resource.clone()),
                expected,
                "{identity:?} {boundary:?} {resource:?}"
            );
        }
    }

    #[test]
    fn a_bucket_policy_for_the_account_allows_nothing_by_itself() {
        let mut statement = says("Allow");
        statement["Principal"] = json!({"AWS": "1"});
        let bucket = policy(&statement);
        let of = OfResource { policy: &bucket, names: &[ROLE], account: "1" };
        let decided =
            decide(&Policies::default(), Some(of), "s3:GetObject", "arn:aws:s3:::b/k", &Context::default());
        assert_eq!(decided, Decision::NotAllowed);
    }

    #[test]
    fn a_policy_that_cannot_be_read_allows_nothing() {
        let policies =
            Policies { identity: vec![policy(&says("Allow")), Policy::deny_all()], boundary: None };
        let decided = decide(&policies, None, "s3:GetObject", "arn:aws:s3:::b/k", &Context::default());
        assert_eq!(decided, Decision::DeniedByIdentity);
    }
}
