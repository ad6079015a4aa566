//! Parses requests in all of AWS's formats, and records the calls that change something, so that a test can
//! count them.
//!
//! Only requests that were let in are recorded, and no reads.

use std::collections::{BTreeSet, VecDeque};

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::{Mutex, MutexGuard};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::api_faults::Hit;
use crate::connection::is_answer;
use crate::credentials::Principal;
use crate::door::Admitted;
use crate::ec2::parse_form;
use crate::reply::refusal;
use crate::xml::Element;

/// A few MB at most. A deployment makes about a hundred such calls, a reconciler a few a minute.
const MAX_RECORDS: usize = 10_000;

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
    parameters: Vec<(String, String)>,
    /// See [`Record::parameters`].
    digest: Option<String>,
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

/// One call that changed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts all records since the local cloud was started, from 1.
    pub number: u64,
    /// When it was let in.
    pub at: jiff::Timestamp,
    pub service: String,
    pub action: String,
    /// `None` where the path has no meaning.
    pub path: Option<String>,
    #[serde(flatten)]
    pub caller: Caller,
    pub client_token: Option<String>,
    /// Distinguishes calls that differ in their parameters alone: a hash of the parameters of EC2, IAM, STS,
    /// EventBridge and Logs, without the client token.
    pub parameters: Option<String>,
    /// Instances that the call names, or that RunInstances answered with.
    pub instances: Vec<String>,
    pub outcome: Outcome,
    /// The cloud's answer, whether it arrived or not.
    pub status: Option<u16>,
    /// The code of a refusal.
    pub error: Option<String>,
    pub fault: Option<FaultOfCall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// In progress.
    Pending,
    /// Done, with a success status.
    Done,
    /// Refused by the cloud; nothing was done.
    Refused,
    /// The cloud failed; it may have been done.
    Failed,
    /// A fault on purpose prevented it.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultOfCall {
    pub rule: u32,
    pub kind: String,
}

/// The last calls that changed something.
#[derive(Debug, Default)]
pub struct Calls {
    records: Mutex<VecDeque<Record>>,
}

impl Calls {
    /// Records a call that was let in, if it changes something, and returns its number.
    pub(crate) fn begin(&self, call: &Call, hit: Option<&Hit>, at: jiff::Timestamp) -> Option<u64> {
        if !call.is_mutating() {
            return None;
        }
        let mut records = self.lock();
        let number = records.back().map_or(0, |last| last.number) + 1;
        let is_instance = |(key, _): &&(String, String)| key.starts_with("InstanceId");
        records.push_back(Record {
            number,
            at,
            service: call.service.clone(),
            action: call.action.clone(),
            path: Some(call.path.clone()).filter(|path| path != "/"),
            caller: call.caller.clone(),
            client_token: call.parameter("ClientToken").map(str::to_owned),
            parameters: call.digest.clone(),
            instances: call.parameters.iter().filter(is_instance).map(|(_, id)| id.clone()).collect(),
            outcome: Outcome::Pending,
            status: None,
            error: None,
            fault: hit.map(|hit| FaultOfCall { rule: hit.rule, kind: hit.effect.kind().to_owned() }),
        });
        if records.len() > MAX_RECORDS {
            records.pop_front();
        }
        Some(number)
    }

    /// Records that a fault kept the call from being done, and the answer given instead.
    pub(crate) fn stopped(&self, number: u64, instead: &Response<Body>) {
        self.end(number, |record| {
            record.outcome = Outcome::Stopped;
            record.status = is_answer(instead).then(|| instead.status().as_u16());
            record.error = error_code(instead, &[]);
        });
    }

    /// Records the answer to a call that was carried out, and returns the answer.
    pub(crate) async fn carried_out(
        &self,
        number: u64,
        call: &Call,
        answer: Response<Body>,
    ) -> Response<Body> {
        let status = answer.status();
        // Only short bodies are read: refusals, and the answers to launches.
        let looks_inside = call.is_launch() || !status.is_success();
        let (answer, body) =
            if looks_inside { read(answer, &call.service).await } else { (answer, Bytes::new()) };
        let launched =
            if call.is_launch() && status.is_success() { instances(&body) } else { BTreeSet::new() };
        self.end(number, |record| {
            record.outcome = match status {
                status if status.is_success() => Outcome::Done,
                status if status.is_server_error() => Outcome::Failed,
                _ => Outcome::Refused,
            };
            record.status = Some(status.as_u16());
            record.error = if status.is_success() { None } else { error_code(&answer, &body) };
            record.instances.extend(launched);
        });
        answer
    }

    /// Returns the last `last` records with a number above `since`, oldest first.
    pub fn list(&self, last: usize, since: u64) -> Vec<Record> {
        let records = self.lock();
        let first = records.partition_point(|record| record.number <= since);
        records.iter().skip(first.max(records.len().saturating_sub(last))).cloned().collect()
    }

    fn end(&self, number: u64, change: impl FnOnce(&mut Record)) {
        // From the back, because a call that ends began a moment ago.
        if let Some(record) = self.lock().iter_mut().rev().find(|record| record.number == number) {
            change(record);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Record>> {
        self.records.lock()
    }
}

/// Returns the response, still whole, and its body.
pub(crate) async fn read(response: Response<Body>, service: &str) -> (Response<Body>, Bytes) {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            (Response::from_parts(head, Body::from(body.clone())), body)
        }
        Err(error) => {
            tracing::error!(%error, "an emulator's answer is cut off");
            let message = "an emulator's answer is cut off";
            (refusal(service, StatusCode::BAD_GATEWAY, "InternalError", message), Bytes::new())
        }
    }
}

/// Returns the response, still whole, and whether EC2 reports a missing resource in it.
pub(crate) async fn look_for_absence(response: Response<Body>) -> (Response<Body>, bool) {
    if !response.status().is_client_error() {
        return (response, false);
    }
    let (response, body) = read(response, "ec2").await;
    let is_absent = error_code(&response, &body).is_some_and(|code| code.ends_with(".NotFound"));
    (response, is_absent)
}

/// Returns the ids in an answer to RunInstances.
fn instances(body: &[u8]) -> BTreeSet<String> {
    let Ok(tree) = Element::parse(body) else { return BTreeSet::new() };
    tree.all("instanceId").iter().map(|element| element.text.clone()).collect()
}

/// Returns the code of a refusal: S3, EC2 and IAM write XML, the others a header, or JSON.
fn error_code(refused: &Response<Body>, body: &[u8]) -> Option<String> {
    let header = refused.headers().get("x-amzn-errortype").and_then(|code| code.to_str().ok());
    let in_xml = || Element::parse(body).ok()?.text_of("Code").map(str::to_owned);
    let in_json =
        || Some(serde_json::from_slice::<serde_json::Value>(body).ok()?["__type"].as_str()?.to_owned());
    header.map(str::to_owned).or_else(in_xml).or_else(in_json)
}

#[cfg(test)]
mod tests;
