//! An endpoint that answers from a script, as AWS does in the first seconds of a resource.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use axum::http::{Method, StatusCode, Uri};

use super::Aws;
use crate::names::Names;
use crate::patience::Patience;

type Answers = BTreeMap<&'static str, VecDeque<(StatusCode, String)>>;

/// Answers of each action, in order; the last one is repeated. An action is a query API's action, or method
/// and path, as in `PUT /bucket`.
#[derive(Clone, Default)]
pub(crate) struct Stub {
    answers: Arc<Mutex<Answers>>,
    /// Bodies of the calls so far.
    calls: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    pub(crate) fn answers(self, action: &'static str, content: &str) -> Self {
        let text = format!("<{action}Response>{content}<requestId>r</requestId></{action}Response>");
        self.push(action, StatusCode::OK, text)
    }

    pub(crate) fn refuses(self, action: &'static str, code: &str) -> Self {
        let text = format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>m</Message></Error></Errors></Response>"
        );
        self.push(action, StatusCode::BAD_REQUEST, text)
    }

    /// An error of IAM.
    pub(crate) fn refuses_query(self, action: &'static str, code: &str) -> Self {
        let text =
            format!("<ErrorResponse><Error><Code>{code}</Code><Message>m</Message></Error></ErrorResponse>");
        self.push(action, StatusCode::NOT_FOUND, text)
    }

    /// Adds any answer of a service with methods and paths.
    pub(crate) fn says(self, action: &'static str, status: u16, text: &str) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        self.push(action, status, text.to_owned())
    }

    fn push(self, action: &'static str, status: StatusCode, text: String) -> Self {
        self.answers.lock().expect("no panic").entry(action).or_default().push_back((status, text));
        self
    }

    /// Returns how often an action was called.
    pub(crate) fn count(&self, action: &str) -> usize {
        let calls = self.calls.lock().expect("no panic");
        calls.iter().filter(|call| is_of(call, action)).count()
    }

    /// Returns the body of the last call of an action.
    pub(crate) fn last(&self, action: &str) -> String {
        let calls = self.calls.lock().expect("no panic");
        calls.iter().rfind(|call| is_of(call, action)).cloned().unwrap_or_default()
    }

    fn answer(&self, body: String) -> (StatusCode, String) {
        let mut answers = self.answers.lock().expect("no panic");
        let queue = answers.iter_mut().rev().find(|(action, _)| is_of(&body, action)).map(|(_, queue)| queue);
        let unscripted = (StatusCode::NOT_IMPLEMENTED, format!("no answer to {body}"));
        let answer = match queue {
            Some(queue) if queue.len() > 1 => queue.pop_front().unwrap_or(unscripted),
            Some(queue) => queue.front().cloned().unwrap_or(unscripted),
            None => unscripted,
        };
        self.calls.lock().expect("no panic").push(body);
        answer
    }

    /// Serves until the test ends.
    pub(crate) async fn serve(&self) -> Aws {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stub = self.clone();
        let router = axum::Router::new().fallback(move |method: Method, uri: Uri, body: String| {
            let is_query = body.starts_with("Action=");
            let (path, query) = (uri.path().trim_end_matches('/'), uri.query().unwrap_or_default());
            let call = if is_query { body } else { format!("Action={method} {path}?{query}&{body}") };
            std::future::ready(stub.answer(call))
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        client(&url)
    }
}

/// Returns whether a body is a call of this action: a method and a path with or without the first part of its
/// query, or an action of a query API.
fn is_of(body: &str, action: &str) -> bool {
    let rest = body.strip_prefix("Action=").and_then(|rest| rest.strip_prefix(action));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['&', '?', '=']))
}

/// Returns all clients of a stack in Ireland, at this endpoint, with short deadlines.
pub(crate) fn client(url: &str) -> Aws {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-west-1"))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "test", "test", None, None, "t",
        )))
        .build();
    Aws::new(&config, Names::example("a"), Some(url.to_owned()), Patience::at_most(Some(30)))
}
