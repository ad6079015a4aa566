//! The registry in S3: which documents the load balancer accepts, and how it behaves without a good one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{FakeWorker, Lb, eventually, registry};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use axum::routing::get;
use ec2_lb::{Limits, S3Source};
use fleet::Registry;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The object as S3 would give it, and how often it was given whole or not at all.
#[derive(Default)]
struct Object {
    etag: String,
    /// `None`: no such key. `Some(Err)`: the server fails.
    content: Option<Result<Vec<u8>, StatusCode>>,
    whole: usize,
    not_modified: usize,
}

#[derive(Clone, Default)]
struct FakeS3(Arc<Mutex<Object>>);

impl FakeS3 {
    fn put(&self, etag: &str, content: Option<Result<Vec<u8>, StatusCode>>) {
        let mut object = self.0.lock().expect("not poisoned");
        object.etag = format!("\"{etag}\"");
        object.content = content;
    }

    fn put_registry(&self, etag: &str, registry: &Registry) {
        self.put(etag, Some(Ok(serde_json::to_vec(registry).expect("plain data"))));
    }

    fn given(&self) -> (usize, usize) {
        let object = self.0.lock().expect("not poisoned");
        (object.whole, object.not_modified)
    }

    async fn start(&self) -> S3Source {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let router = Router::new().route("/{bucket}/{*key}", get(give)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .build();
        S3Source::new(aws_sdk_s3::Client::from_conf(config), "control".to_owned())
            .polled_every(Duration::from_millis(20))
    }
}

async fn give(
    State(s3): State<FakeS3>,
    Path((bucket, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    assert_eq!((bucket.as_str(), key.as_str()), ("control", "fleet/registry.json"));
    let mut object = s3.0.lock().expect("not poisoned");
    let held = headers.get("if-none-match").and_then(|etag| etag.to_str().ok());
    let is_same = held == Some(&object.etag);
    let (status, body) = match object.content.clone() {
        None => {
            (StatusCode::NOT_FOUND, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>".to_vec())
        }
        Some(Err(status)) => {
            (status, b"<Error><Code>InternalError</Code><Message>no</Message></Error>".to_vec())
        }
        Some(Ok(_)) if is_same => {
            object.not_modified += 1;
            (StatusCode::NOT_MODIFIED, Vec::new())
        }
        Some(Ok(content)) => {
            object.whole += 1;
            (StatusCode::OK, content)
        }
    };
    Response::builder()
        .status(status)
        .header("etag", &object.etag)
        .body(Body::from(body))
        .expect("a response")
}

async fn refresh(lb: &Lb) -> (StatusCode, Value) {
    let answer = lb.admin(Method::POST, "/refresh").await;
    (answer.status, answer.json()["revision"].clone())
}

#[tokio::test]
async fn healthz_is_200_once_the_registry_was_reached() {
    let s3 = FakeS3::default();
    s3.put("x", Some(Err(StatusCode::FORBIDDEN)));
    let lb = Lb::with_source(Limits::default(), s3.start().await).await;
    let status = async || lb.admin(Method::GET, "/healthz").await.status;
    assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refresh(&lb).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    // A new stack has none yet; that S3 says so is enough.
    s3.put("x", None);
    refresh(&lb).await;
    assert_eq!(status().await, StatusCode::OK);
    s3.put("x", Some(Err(StatusCode::FORBIDDEN)));
    refresh(&lb).await;
    assert_eq!(status().await, StatusCode::OK);
}

#[tokio::test]
async fn discovery_follows_the_object_and_refuses_bad_ones() {
    let (one, two) = (FakeWorker::healthy(41).await, FakeWorker::healthy(42).await);
    let s3 = FakeS3::default();
    let lb = Lb::with_source(Limits::default(), s3.start().await).await;

    // Not there yet: an empty table, and no age.
    assert_eq!(refresh(&lb).await, (StatusCode::SERVICE_UNAVAILABLE, Value::Null));
    let health = lb.admin(Method::GET, "/healthz").await;
    assert_eq!((health.status, &health.json()["age_seconds"]), (StatusCode::OK, &Value::Null));

    // There: found by polling alone, and read whole once.
    s3.put_registry("a", &registry(5, &[("i-41", one.addr)]));
    lb.knows(5).await;
    assert_eq!(lb.get("/").await.text(), "i-41");
    eventually("it is asked for conditionally", async || s3.given(), |given| given.1 >= 3).await;
    assert_eq!(s3.given().0, 1);

    // Changed: a refresh answers with the new revision.
    s3.put_registry("b", &registry(6, &[("i-42", two.addr)]));
    assert_eq!(refresh(&lb).await, (StatusCode::OK, json!(6)));
    assert_eq!(lb.get("/").await.text(), "i-42");

    // Older, broken, too large, gone, failing: the last list stays.
    let older = serde_json::to_vec(&registry(4, &[("i-41", one.addr)])).expect("plain data");
    for (etag, content) in [
        ("c", Some(Ok(older))),
        ("d", Some(Ok(b"{\"revision\": 9".to_vec()))),
        ("e", Some(Ok(vec![b' '; Registry::MAX_BYTES + 1]))),
        ("f", None),
        ("g", Some(Err(StatusCode::INTERNAL_SERVER_ERROR))),
        ("h", Some(Err(StatusCode::FORBIDDEN))),
    ] {
        s3.put(etag, content);
        assert_eq!(refresh(&lb).await, (StatusCode::SERVICE_UNAVAILABLE, json!(6)), "{etag}");
        assert_eq!(lb.get("/").await.text(), "i-42", "{etag}");
        // A refused document is not treated as known at the next read.
        assert_eq!(refresh(&lb).await.0, StatusCode::SERVICE_UNAVAILABLE, "{etag}");
    }
    let age = lb.view().await["age_seconds"].as_f64().expect("it was current once");
    let grows = async || lb.view().await["age_seconds"].as_f64().unwrap_or_default();
    eventually("the age grows", grows, |now| *now > age).await;

    // Well again.
    s3.put_registry("i", &registry(7, &[("i-41", one.addr)]));
    assert_eq!(refresh(&lb).await, (StatusCode::OK, json!(7)));
    assert_eq!(lb.get("/").await.text(), "i-41");
}
