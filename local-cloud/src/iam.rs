//! IAM, enforced: every call is checked against its caller's policies before it is carried out.
//!
//! | caller | policies |
//! |---|---|
//! | a placeholder key, `test` or another | none: it is the account's root, which may do everything |
//! | an instance, a function, a session of AssumeRole | those of its role, within the role's boundary |
//! | a user of IAM, by an access key | its own, within its boundary |
//!
//! A bucket's own policy counts as well, against the root too. `needs.rs` says which permissions a call
//! needs; all of them must be allowed. The evaluator (`policy`, `condition`, `pattern`, `evaluate`) is pure;
//! `books` asks the emulator that keeps policies. `README.md` lists the elements that are not evaluated.

pub mod context;
mod pattern;
mod document;
mod condition;
pub mod policy;
pub mod evaluate;
mod books;
pub mod verdicts;
mod refuse;
pub(crate) mod simulate;
pub mod people;

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use parking_lot::RwLock;
use quick_xml::escape::escape;
use serde::{Deserialize, Serialize};

use crate::ACCOUNT;
use crate::call::Call;
use crate::credentials::{Credentials, Principal};
use crate::forward::Ministack;
use crate::needs::{Asked, Needs};
use crate::reply::xml;

use context::Context;
use evaluate::{Decision, OfResource, decide};
use policy::Policy;

pub(crate) use books::Books;
use people::KeyFile;
pub(crate) use refuse::refuse;

/// The callers and their permissions.
pub(crate) struct Iam {
    pub credentials: Arc<Credentials>,
    pub books: Books,
    pub keys: KeyFile,
    pub ministack: Ministack,
}

/// The principal whose policies count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    Root,
    User(String),
    Role {
        name: String,
        /// The instance's id, the function's name, or the session name of AssumeRole.
        session: String,
        /// The ARN of the function in whose environment the call was made.
        function: Option<String>,
    },
    /// A function that is not known, or no longer has a role. It may do nothing.
    Unknown,
}

impl Identity {
    /// Returns the ARN in AWS's refusals, and the `aws:PrincipalArn` of a user.
    pub fn arn(&self) -> String {
        match self {
            Self::Root => format!("arn:aws:iam::{ACCOUNT}:root"),
            Self::User(name) => format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
            Self::Role { name, session, .. } => {
                format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}")
            }
            Self::Unknown => format!("arn:aws:sts::{ACCOUNT}:assumed-role/unknown/unknown"),
        }
    }

    /// Returns the ARN of the user or role whose policies count.
    pub fn principal_arn(&self) -> String {
        match self {
            Self::Role { name, .. } => format!("arn:aws:iam::{ACCOUNT}:role/{name}"),
            other => other.arn(),
        }
    }

    /// Records which function made a call.
    fn with_origin(&self, mut asked: Asked) -> Asked {
        if let Self::Role { function: Some(function), .. } = self {
            asked.context.insert("lambda:SourceFunctionArn".to_owned(), function.clone());
        }
        asked
    }

    /// Adds the keys that every call of this caller has in its context.
    fn describe(&self, context: &mut Context) {
        context.set("aws:PrincipalArn", vec![self.principal_arn()]);
        context.set("aws:PrincipalAccount", vec![ACCOUNT.to_owned()]);
        // The endpoint is plain HTTP.
        context.set("aws:SecureTransport", vec!["false".to_owned()]);
        context.set("aws:CurrentTime", vec![jiff::Timestamp::now().to_string()]);
        if let Self::User(name) = self {
            context.set("aws:username", vec![name.clone()]);
        }
        if let Self::Role { function: Some(function), .. } = self {
            context.set("lambda:SourceFunctionArn", vec![function.clone()]);
        }
    }
}

/// Answers GetCallerIdentity. The emulator knows users, and no instance and no function.
pub(crate) fn who(identity: &Identity) -> Response<Body> {
    let arn = identity.arn();
    let id = match identity {
        Identity::Root => ACCOUNT.to_owned(),
        Identity::User(name) => format!("AIDA{}", name.to_uppercase()),
        Identity::Role { name, session, .. } => format!("AROA{}:{session}", name.to_uppercase()),
        Identity::Unknown => "unknown".to_owned(),
    };
    let (arn, id) = (escape(&arn), escape(&id));
    xml(format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>{arn}</Arn><UserId>{id}</UserId><Account>{ACCOUNT}</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>local-cloud</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    ))
}

/// A permission that a call needs, and whether its caller has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub asked: Asked,
    pub decision: Decision,
}

/// The decision about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub identity: Identity,
    pub all: Vec<Judged>,
}

impl Judgement {
    /// Returns the first permission that the caller lacks.
    pub(crate) fn denied(&self) -> Option<&Judged> {
        self.all.iter().find(|judged| !judged.decision.is_allowed())
    }
}

/// Identifies the caller.
pub(crate) async fn identify(iam: &Iam, call: &Call, region: &str) -> Identity {
    match iam.credentials.find(&call.caller.access_key).map(|(_, principal)| principal) {
        Some(Principal::Operator) => Identity::Root,
        Some(Principal::User { name }) => Identity::User(name),
        Some(Principal::Instance { id, role }) => Identity::Role { name: role, session: id, function: None },
        Some(Principal::Session { role, name }) => {
            Identity::Role { name: role, session: name, function: None }
        }
        Some(Principal::Function) => {
            let Some(function) = &call.caller.function else { return Identity::Unknown };
            let Some(role) = iam.books.role_of_function(&iam.ministack, function, region).await else {
                return Identity::Unknown;
            };
            let arn = format!("arn:aws:lambda:{region}:{ACCOUNT}:function:{function}");
            Identity::Role { name: role, session: function.clone(), function: Some(arn) }
        }
        None => Identity::Unknown,
    }
}

/// Decides on all permissions that a call needs.
pub(crate) async fn judge(iam: &Iam, identity: Identity, needs: &Needs) -> Judgement {
    let mut all = Vec::with_capacity(needs.all.len());
    for asked in &needs.all {
        let decision = judge_one(iam, &identity, asked).await;
        all.push(Judged { asked: identity.with_origin(asked.clone()), decision });
    }
    Judgement { identity, all }
}

/// Decides on a permission that the answer has made necessary; returns the refusal if it is missing.
pub(crate) async fn judge_also(
    iam: &Iam,
    judgement: &mut Judgement,
    asked: Asked,
    call: &Call,
) -> Option<Response<Body>> {
    let decision = judge_one(iam, &judgement.identity, &asked).await;
    judgement.all.push(Judged { asked: judgement.identity.with_origin(asked), decision });
    let denied = judgement.denied()?;
    Some(refuse(call, judgement, denied))
}

async fn judge_one(iam: &Iam, identity: &Identity, asked: &Asked) -> Decision {
    // A caller needs no permission to learn its own identity (STS API reference, GetCallerIdentity).
    if asked.action == "sts:GetCallerIdentity" {
        return Decision::Allowed;
    }
    let mut context = Context::default();
    identity.describe(&mut context);
    for (key, value) in &asked.context {
        context.set(key, vec![value.clone()]);
    }
    let bucket = match bucket(asked) {
        Some(bucket) => iam.books.bucket_policy(&iam.ministack, bucket).await,
        None => None,
    };
    if *identity == Identity::Root {
        return decide_for_root(bucket.as_deref(), asked, &context);
    }
    if let ("sts:AssumeRole", Some(role)) = (asked.action.as_str(), asked.resource.rsplit('/').next()) {
        let trusts =
            iam.books.role(&iam.ministack, role).await.is_some_and(|role| role.trusts(identity, &context));
        if !trusts {
            return Decision::NotAllowed;
        }
    }
    let policies = iam.books.policies(&iam.ministack, identity).await;
    let names = [identity.arn(), identity.principal_arn()];
    let names = [names[0].as_str(), names[1].as_str()];
    let of = bucket.as_deref().map(|policy| OfResource { policy, names: &names, account: ACCOUNT });
    decide(&policies, of, &asked.action, &asked.resource, &context)
}

/// Decides for the root, which may do everything that a bucket's policy does not deny. It may always delete
/// that policy.
fn decide_for_root(bucket: Option<&Policy>, asked: &Asked, context: &Context) -> Decision {
    let unlocks = matches!(
        asked.action.as_str(),
        "s3:PutBucketPolicy" | "s3:DeleteBucketPolicy" | "s3:GetBucketPolicy"
    );
    let root = Identity::Root.arn();
    let names = [root.as_str()];
    let of = bucket.map(|policy| OfResource { policy, names: &names, account: ACCOUNT });
    let decision = decide(&evaluate::Policies::default(), of, &asked.action, &asked.resource, context);
    if decision == Decision::DeniedByResource && !unlocks { decision } else { Decision::Allowed }
}

/// Returns the bucket that a permission is about.
fn bucket(asked: &Asked) -> Option<&str> {
    let rest = asked.resource.strip_prefix("arn:aws:s3:::")?;
    Some(rest.split('/').next().unwrap_or(rest))
        .filter(|bucket| asked.action != "s3:CreateBucket" && *bucket != "*")
}

/// A cache that is emptied by every change.
type Cached<T> = RwLock<std::collections::HashMap<String, Arc<T>>>;

fn get<T>(cache: &Cached<T>, key: &str) -> Option<Arc<T>> {
    cache.read().get(key).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_named_as_aws_names_them() {
        let function = Some(format!("arn:aws:lambda:r:{ACCOUNT}:function:f"));
        let role = Identity::Role { name: "r".to_owned(), session: "f".to_owned(), function };
        assert_eq!(role.arn(), format!("arn:aws:sts::{ACCOUNT}:assumed-role/r/f"));
        assert_eq!(role.principal_arn(), format!("arn:aws:iam::{ACCOUNT}:role/r"));
        let user = Identity::User("u".to_owned());
        assert_eq!(
            (user.arn(), user.principal_arn()),
            (format!("arn:aws:iam::{ACCOUNT}:user/u"), user.arn())
        );
    }

    #[test]
    fn only_a_call_from_a_functions_environment_says_so() {
        let context = |function: Option<&str>| {
            let mut context = Context::default();
            let function = function.map(str::to_owned);
            Identity::Role { name: "r".to_owned(), session: "s".to_owned(), function }.describe(&mut context);
            context
        };
        let deny = r#"{"Statement": [
            {"Effect": "Allow", "Action": "ec2:CreateNetworkInterface", "Resource": "*"},
            {"Effect": "Deny", "Action": "ec2:CreateNetworkInterface", "Resource": "*",
             "Condition": {"ArnEquals": {"lambda:SourceFunctionArn": "arn:f"}}}]}"#;
        let deny = deny.replace("arn:f", "arn:aws:lambda:r:1:function:f");
        let policies =
            evaluate::Policies { identity: vec![Policy::parse(&deny).expect("valid")], boundary: None };
        let decided =
            |function| decide(&policies, None, "ec2:CreateNetworkInterface", "*", &context(function));
        assert_eq!(decided(Some("arn:aws:lambda:r:1:function:f")), Decision::DeniedByIdentity);
        assert_eq!(decided(Some("arn:aws:lambda:r:1:function:g")), Decision::Allowed);
        assert_eq!(decided(None), Decision::Allowed, "Lambda's own calls");
    }

    #[test]
    fn a_bucket_policy_can_lock_the_root_out_except_of_the_policy() {
        let lock =
            r#"{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}}"#;
        let lock = Policy::parse(lock).expect("valid");
        let decided = |action: &str| {
            let asked = Asked {
                action: action.to_owned(),
                resource: "arn:aws:s3:::b".to_owned(),
                context: std::collections::BTreeMap::new(),
            };
            decide_for_root(Some(&lock), &asked, &Context::default())
        };
        assert_eq!(decided("s3:ListBucket"), Decision::DeniedByResource);
        assert_eq!(decided("s3:DeleteBucketPolicy"), Decision::Allowed);
    }
}
