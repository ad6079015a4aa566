//! One request to AWS, in any of its formats, and who signed it.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::credentials::Principal;
use crate::form::{Form, parse_form};

/// Of one resource.
pub type Tags = BTreeMap<String, String>;

/// A request that was let in.
pub(crate) struct Admitted {
    pub service: String,
    pub caller: Caller,
    pub parts: Parts,
    pub body: Bytes,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    pub service: String,
    /// `Action` of EC2, IAM and STS; the operation in `X-Amz-Target` (`PutRule`); otherwise the method, as in
    /// S3 and Lambda.
    pub action: String,
    /// Path and query, decoded: `/bucket/key?x-id=PutObject`.
    pub path: String,
    pub caller: Caller,
    /// Of the subnet that the call names; known only if a rule or a reader asked for it.
    pub zone: Option<String>,
    parameters: Form,
    /// See [`crate::calls::Record::parameters`].
    pub(crate) digest: Option<String>,
}

/// Who signed a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The role of an instance or session, the user, `function` for any Lambda function, or the access key.
    #[serde(rename = "caller")]
    pub name: String,
    pub access_key: String,
    pub instance: Option<String>,
    /// Name of the Lambda function.
    pub function: Option<String>,
}

impl Caller {
    pub(crate) fn new(access_key: &str, principal: &Principal) -> Self {
        let (name, instance) = match principal {
            Principal::Operator => (access_key.to_owned(), None),
            Principal::Function => ("function".to_owned(), None),
            Principal::Instance { id, role } => (role.clone(), Some(id.clone())),
            Principal::User { name } => (name.clone(), None),
            Principal::Session { role, .. } => (role.clone(), None),
        };
        Self { name, access_key: access_key.to_owned(), instance, function: None }
    }

    /// Sets which of the functions it is.
    pub(crate) fn of_function(self, function: Option<String>) -> Self {
        Self { function, ..self }
    }

    /// Returns whether this is one of the caller's names.
    pub fn is(&self, name: &str) -> bool {
        [&self.instance, &self.function].into_iter().flatten().any(|own| own == name)
            || self.name == name
            || self.access_key == name
    }
}

impl Call {
    pub(crate) fn of(admitted: &Admitted) -> Self {
        let Admitted { service, caller, parts, body } = admitted;
        let is_query = matches!(service.as_str(), "ec2" | "iam" | "sts");
        let parameters = if is_query { parse_form(body) } else { Vec::new() };
        let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let operation = target.and_then(|target| target.rsplit('.').next()).map(str::to_owned);
        let digest = if is_query {
            let lasting = parameters.iter().filter(|(key, _)| key != "ClientToken");
            Some(digest(lasting.flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()])))
        } else {
            operation.as_ref().map(|_| digest([&body[..]]))
        };
        let action = operation.or_else(|| value(&parameters, "Action").map(str::to_owned));
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        Self {
            service: service.clone(),
            action: action.unwrap_or_else(|| parts.method.to_string()),
            path: percent_decode_str(path).decode_utf8_lossy().into_owned(),
            caller: caller.clone(),
            zone: None,
            parameters,
            digest,
        }
    }

    /// Returns a parameter of a query, in EC2's format.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        value(&self.parameters, name)
    }

    pub(crate) fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// Returns the association of a subnet with a route table, if the call ends it. IAM judges by the table.
    pub fn association(&self) -> Option<&str> {
        let is_it = self.service == "ec2" && self.action == "DisassociateRouteTable";
        self.parameter("AssociationId").filter(|_| is_it)
    }

    /// Returns whether EC2's permissions for the call may depend on the resources that it names. Lists are
    /// allowed as a whole; an instance's console output is read by its id.
    pub(crate) fn is_judged_by_resource(&self) -> bool {
        self.is_named_a_change() || self.action == "GetConsoleOutput"
    }

    /// Returns whether the call only asks EC2 for its verdict.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.service == "ec2" && self.parameter("DryRun") == Some("true")
    }

    /// Returns the instance profile that a launch names.
    pub(crate) fn profile(&self) -> Option<&str> {
        let named = ["IamInstanceProfile.Name", "IamInstanceProfile.Arn"].map(|key| self.parameter(key));
        named.into_iter().flatten().next()?.rsplit('/').next().filter(|_| self.is_launch())
    }

    pub fn is_launch(&self) -> bool {
        self.service == "ec2" && self.action == "RunInstances"
    }

    pub(crate) fn is_mutating(&self) -> bool {
        self.is_named_a_change() && !self.is_dry_run()
    }

    /// Returns whether its name is that of a change: AWS begins the names of all read-only calls with one of
    /// a few verbs.
    fn is_named_a_change(&self) -> bool {
        const METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
        const VERBS: [&str; 11] = [
            "Describe", "Get", "BatchGet", "List", "Search", "Filter", "Lookup", "Simulate", "Test",
            "Assume", "Decode",
        ];
        let action = self.action.as_str();
        !METHODS.contains(&action) && !VERBS.iter().any(|verb| action.starts_with(verb))
    }
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let mut text = data_encoding::HEXLOWER.encode(&hash.finalize());
    text.truncate(16);
    text
}

fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
impl Call {
    pub(crate) fn example(service: &str, action: &str, path: &str) -> Self {
        let instance = Principal::Instance { id: "i-1".to_owned(), role: "worker".to_owned() };
        Self {
            service: service.to_owned(),
            action: action.to_owned(),
            path: path.to_owned(),
            caller: Caller::new("ASIAEXAMPLE", &instance),
            zone: None,
            parameters: Vec::new(),
            digest: None,
        }
    }

    pub(crate) fn with(mut self, parameter: &str, value: &str) -> Self {
        self.parameters.push((parameter.to_owned(), value.to_owned()));
        self
    }
}
