//! Policies, roles and functions of the emulator, kept parsed until something changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode_str;

use super::context::Context;
use super::evaluate::Policies;
use super::policy::Policy;
use super::{Cached, Identity, get};
use crate::ACCOUNT;
use crate::call::Call;
use crate::form::encode_form;
use crate::forward::Ministack;
use crate::xml::Element;

/// The known policies. A call that may have changed any of them empties the cache: such calls are rare
/// outside of a deployment, and a wrong verdict would be noticed at once.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Counts changes. A policy read before a change is not kept after it.
    changes: AtomicU64,
    policies: Cached<Policies>,
    roles: Cached<Option<Role>>,
    functions: Cached<Option<String>>,
    buckets: Cached<Option<Arc<Policy>>>,
}

/// The facts about a role besides its policies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Role {
    pub boundary: Option<String>,
    trust: Policy,
}

impl Role {
    /// Returns whether the role's trust policy lets this caller assume it.
    pub(super) fn trusts(&self, identity: &Identity, context: &Context) -> bool {
        let names = [identity.arn(), identity.principal_arn(), Identity::Root.arn(), ACCOUNT.to_owned()];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let about = |statement: &&super::policy::Statement| {
            statement.names(&names) && statement.is_about("sts:AssumeRole", "*", context)
        };
        let effects: Vec<_> = self.trust.statements.iter().filter(about).map(|one| one.effect).collect();
        !effects.is_empty() && !effects.contains(&super::policy::Effect::Deny)
    }
}

impl Books {
    /// Forgets everything if the call may have changed a part of it.
    pub(crate) fn hear_of(&self, call: &Call) {
        let is_of_bucket =
            || call.path.split('?').next().is_some_and(|path| path.trim_matches('/').split('/').count() < 2);
        let matters = match call.service.as_str() {
            "iam" => call.is_mutating(),
            "lambda" => call.is_mutating() && !call.path.ends_with("/invocations"),
            "s3" => call.is_mutating() && is_of_bucket(),
            _ => false,
        };
        if matters {
            self.forget();
        }
    }

    pub(crate) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        clear(&self.policies);
        clear(&self.roles);
        clear(&self.functions);
        clear(&self.buckets);
    }

    fn keep<T>(&self, cache: &Cached<T>, key: &str, value: T, since: u64) -> Arc<T> {
        let value = Arc::new(value);
        let mut cache = cache.write();
        if self.changes.load(Ordering::SeqCst) == since {
            cache.insert(key.to_owned(), value.clone());
        }
        value
    }

    pub(super) async fn policies(&self, ministack: &Ministack, identity: &Identity) -> Arc<Policies> {
        let key = identity.principal_arn();
        if let Some(known) = get(&self.policies, &key) {
            return known;
        }
        let since = self.changes.load(Ordering::SeqCst);
        let policies = match identity {
            Identity::User(name) => read_policies(ministack, "User", name).await,
            Identity::Role { name, .. } => read_policies(ministack, "Role", name).await,
            Identity::Root | Identity::Unknown => Policies::default(),
        };
        self.keep(&self.policies, &key, policies, since)
    }

    /// Returns the role; `None` if there is no such role.
    pub(crate) async fn role(&self, ministack: &Ministack, name: &str) -> Option<Role> {
        if let Some(known) = get(&self.roles, name) {
            return (*known).clone();
        }
        let since = self.changes.load(Ordering::SeqCst);
        let got = iam(ministack, &[("Action", "GetRole"), ("RoleName", name)]).await;
        let role = got.map(|got| Role {
            boundary: boundary(&got),
            trust: parse(&decoded(got.text_of("AssumeRolePolicyDocument").unwrap_or("")), name),
        });
        (*self.keep(&self.roles, name, role, since)).clone()
    }

    pub(super) async fn role_of_function(
        &self,
        ministack: &Ministack,
        name: &str,
        region: &str,
    ) -> Option<String> {
        let key = format!("{region}/{name}");
        if let Some(known) = get(&self.functions, &key) {
            return (*known).clone();
        }
        let since = self.changes.load(Ordering::SeqCst);
        let path = format!("/2015-03-31/functions/{name}/configuration");
        let got = ask(ministack, "GET", &path, "lambda", region, String::new()).await;
        let configuration: Option<serde_json::Value> =
            got.and_then(|body| serde_json::from_slice(&body).ok());
        let role = configuration.and_then(|got| Some(got["Role"].as_str()?.rsplit('/').next()?.to_owned()));
        (*self.keep(&self.functions, &key, role, since)).clone()
    }

    pub(super) async fn bucket_policy(&self, ministack: &Ministack, bucket: &str) -> Option<Arc<Policy>> {
        if let Some(known) = get(&self.buckets, bucket) {
            return (*known).clone();
        }
        let since = self.changes.load(Ordering::SeqCst);
        let got = ask(ministack, "GET", &format!("/{bucket}?policy"), "s3", "us-east-1", String::new()).await;
        let policy = got.map(|document| Arc::new(parse(&String::from_utf8_lossy(&document), bucket)));
        (*self.keep(&self.buckets, bucket, policy, since)).clone()
    }
}

fn clear<T>(cache: &Cached<T>) {
    cache.write().clear();
}

/// Returns inline and attached policies of a user or role, and its boundary. A missing user or role has none.
async fn read_policies(ministack: &Ministack, kind: &str, name: &str) -> Policies {
    let key = format!("{kind}Name");
    let of = |action: &str| vec![("Action".to_owned(), action.to_owned()), (key.clone(), name.to_owned())];
    let Some(got) = iam_owned(ministack, of(&format!("Get{kind}"))).await else { return Policies::default() };
    let mut identity = Vec::new();
    let inline = iam_owned(ministack, of(&format!("List{kind}Policies"))).await.unwrap_or_default();
    for policy in inline.all("member") {
        let mut form = of(&format!("Get{kind}Policy"));
        form.push(("PolicyName".to_owned(), policy.text.clone()));
        if let Some(document) = iam_owned(ministack, form).await.and_then(|got| document(&got)) {
            identity.push(parse(&document, &policy.text));
        }
    }
    let attached = iam_owned(ministack, of(&format!("ListAttached{kind}Policies"))).await.unwrap_or_default();
    for arn in attached.all("PolicyArn") {
        identity.extend(managed(ministack, &arn.text).await);
    }
    let boundary = match boundary(&got) {
        // A missing boundary allows nothing.
        Some(arn) => Some(managed(ministack, &arn).await.unwrap_or_default()),
        None => None,
    };
    Policies { identity, boundary }
}

fn boundary(got: &Element) -> Option<String> {
    got.text_of("PermissionsBoundaryArn").map(str::to_owned)
}

/// Returns the version of a managed policy that is in force.
async fn managed(ministack: &Ministack, arn: &str) -> Option<Policy> {
    let got = iam(ministack, &[("Action", "GetPolicy"), ("PolicyArn", arn)]).await?;
    let version = got.text_of("DefaultVersionId")?;
    let got =
        iam(ministack, &[("Action", "GetPolicyVersion"), ("PolicyArn", arn), ("VersionId", version)]).await?;
    Some(parse(&decoded(got.text_of("Document")?), arn))
}

fn document(got: &Element) -> Option<String> {
    got.text_of("PolicyDocument").map(decoded)
}

/// IAM returns documents percent-encoded.
fn decoded(document: &str) -> String {
    percent_decode_str(document).decode_utf8_lossy().into_owned()
}

/// Parses a policy. AWS refuses an unreadable policy, the emulator accepts it.
fn parse(document: &str, name: &str) -> Policy {
    Policy::parse(document).unwrap_or_else(|error| {
        tracing::warn!(policy = name, %error, "a policy cannot be read, so it denies everything");
        Policy::deny_all()
    })
}

/// Sends a call to the emulator of IAM; `None` if it refuses.
async fn iam(ministack: &Ministack, form: &[(&str, &str)]) -> Option<Element> {
    let form = form.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    iam_owned(ministack, form).await
}

pub(super) async fn iam_owned(ministack: &Ministack, mut form: Vec<(String, String)>) -> Option<Element> {
    form.push(("Version".to_owned(), "2010-05-08".to_owned()));
    let body = ask(ministack, "POST", "/", "iam", "us-east-1", encode_form(&form)).await?;
    Element::parse(&body).ok()
}

/// Returns the body of a successful answer of the emulator.
async fn ask(
    ministack: &Ministack,
    method: &str,
    path: &str,
    service: &str,
    region: &str,
    body: String,
) -> Option<Bytes> {
    let scope = format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    );
    let request = hyper::Request::builder().method(method).uri(format!("http://local-cloud{path}"));
    let (mut parts, ()): (Parts, ()) = request.body(()).ok()?.into_parts();
    parts.headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&scope).ok()?);
    if method == "POST" {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        parts.headers.insert(header::CONTENT_TYPE, form);
    }
    let answer = ministack.forward(parts, Bytes::from(body)).await;
    let is_success = answer.status().is_success();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    is_success.then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_policies_roles_functions_and_buckets_are_heard_of() {
        let is_heard = |service, action, path| {
            let books = Books::default();
            books.hear_of(&Call::example(service, action, path));
            books.changes.load(Ordering::SeqCst) == 1
        };
        assert!(is_heard("iam", "PutRolePolicy", "/"));
        assert!(is_heard("lambda", "PUT", "/2015-03-31/functions/f/configuration"));
        assert!(is_heard("s3", "PUT", "/bucket?policy"));
        assert!(is_heard("s3", "DELETE", "/bucket/"));
        assert!(!is_heard("iam", "GetRolePolicy", "/"));
        assert!(!is_heard("lambda", "POST", "/2015-03-31/functions/f/invocations"));
        assert!(!is_heard("s3", "PUT", "/bucket/users/ana"));
        assert!(!is_heard("ec2", "RunInstances", "/"));
    }

    #[test]
    fn a_policy_read_before_a_change_is_not_kept_after_it() {
        let books = Books::default();
        let since = books.changes.load(Ordering::SeqCst);
        books.forget();
        books.keep(&books.functions, "f", Some("old".to_owned()), since);
        assert_eq!(get(&books.functions, "f"), None);
        books.keep(&books.functions, "f", Some("new".to_owned()), since + 1);
        assert_eq!(get(&books.functions, "f"), Some(Arc::new(Some("new".to_owned()))));
    }

    fn role(trust: &str) -> Role {
        Role { boundary: None, trust: parse(trust, "r") }
    }

    #[test]
    fn a_role_is_assumed_by_its_trusted_principals() {
        let trusts = |principal: &str| {
            let trust = format!(
                r#"{{"Statement": {{"Effect": "Allow", "Principal": {principal}, "Action": "sts:AssumeRole"}}}}"#
            );
            role(&trust).trusts(&Identity::User("u".to_owned()), &Context::default())
        };
        assert!(trusts(&format!(r#"{{"AWS": "arn:aws:iam::{ACCOUNT}:root"}}"#)));
        assert!(trusts(&format!(r#"{{"AWS": "arn:aws:iam::{ACCOUNT}:user/u"}}"#)));
        assert!(!trusts(&format!(r#"{{"AWS": "arn:aws:iam::{ACCOUNT}:user/v"}}"#)));
        assert!(!trusts(r#"{"Service": "ec2.amazonaws.com"}"#));
    }
}
