//! An endpoint that answers as AWS does in the first seconds of a resource: from a script.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use axum::http::StatusCode;

use super::Aws;
use crate::names::Names;
use crate::patience::Patience;

type Answers = BTreeMap<&'static str, VecDeque<(StatusCode, String)>>;

/// Answers of each action of a query API, in order; the last one is repeated.
#[derive(Clone, Default)]
pub(crate) struct Stub {
    answers: Arc<Mutex<Answers>>,
    /// Bodies of the calls so far.
    calls: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    pub(crate) fn answers(self, action: &'static str, content: &str) -> Self {
        let text = format!("<{action}Response><requestId>r</requestId>{content}</{action}Response>");
        self.push(action, StatusCode::OK, text)
    }

    pub(crate) fn refuses(self, action: &'static str, code: &str) -> Self {
        let text = format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>m</Message></Error></Errors></Response>"
        );
        self.push(action, StatusCode::BAD_REQUEST, text)
    }

    fn push(self, action: &'static str, status: StatusCode, text: String) -> Self {
        self.answers.lock().expect("no panic").entry(action).or_default().push_back((status, text));
        self
    }

    /// How often an action was called.
    pub(crate) fn count(&self, action: &str) -> usize {
        let calls = self.calls.lock().expect("no panic");
        calls.iter().filter(|call| is_of(call, action)).count()
    }

    fn answer(&self, body: String) -> (StatusCode, String) {
        let mut answers = self.answers.lock().expect("no panic");
        let queue = answers.iter_mut().find(|(action, _)| is_of(&body, action)).map(|(_, queue)| queue);
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
        let router = axum::Router::new().fallback(move |body: String| std::future::ready(stub.answer(body)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        client(&url)
    }
}

fn is_of(body: &str, action: &str) -> bool {
    body.strip_prefix("Action=").and_then(|rest| rest.split('&').next()) == Some(action)
}

/// All clients of a stack in Ireland, at this endpoint, with little patience.
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
