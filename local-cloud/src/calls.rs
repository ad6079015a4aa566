//! Records the calls that change something, so that a test can count them.
//!
//! Only requests that were let in are recorded, and no reads.

use std::collections::{BTreeSet, VecDeque};

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::api_faults::Hit;
use crate::call::{Call, Caller};
use crate::connection::is_answer;
use crate::reply::refusal;
use crate::xml::Element;

/// A few MB at most. A deployment makes about a hundred such calls, a reconciler a few a minute.
const MAX_RECORDS: usize = 10_000;

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
            instances: call.parameters().iter().filter(is_instance).map(|(_, id)| id.clone()).collect(),
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
