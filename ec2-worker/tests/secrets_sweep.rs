//! No password, token or cookie in any log line, at any level that can be switched on.
//!
//! A program of its own, because the subscriber that listens is the whole process's.

#[path = "it/support/mod.rs"]
mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::http::{Method, Request};
use fleet::Profile;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use support::{ADMIN_TOKEN, Stack, escape};

const SENTINEL: &str = "s3ntinel/Pass wörd";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.0.lock().expect("not poisoned"))).into_owned()
    }
}

#[tokio::test]
async fn no_secret_reaches_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let (filter, reload) = tracing_subscriber::reload::Layer::new(EnvFilter::new("trace"));
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    tracing_subscriber::registry().with(filter).with(lines).init();

    // Everything that can be traced. A password in the secure profile never gets as far as S3.
    let stack = Stack::new().await;
    let cookie = everything(&stack, Profile::Secure).await;
    let text = log.take();
    assert!(text.contains("answered a request") && text.contains("/signin/{login}/{password}"), "it listens");
    assert_clean(&text, &cookie);

    // Nor in anything that is stored.
    for bucket in [&stack.data, &stack.control] {
        let page = stack.s3.list_objects_v2().bucket(bucket).send().await.expect("a list");
        assert!(!page.contents().is_empty(), "{bucket}");
        for key in page.contents().iter().filter_map(|object| object.key()) {
            let text = stack.read(bucket, key).await;
            assert_clean(&format!("{key}\n{text}"), &cookie);
        }
    }

    // In classic the stored object is the password, so the libraries stay quiet at every log level.
    let config = ec2_worker::Config { log: Some("trace".to_owned()), ..stack.config(Profile::Classic) };
    reload.reload(EnvFilter::new(config.log_filter())).expect("the subscriber is there");
    let stack = Stack::new().await;
    log.take();
    let cookie = everything(&stack, Profile::Classic).await;
    let text = log.take();
    assert!(text.contains("answered a request"), "it listens");
    assert_clean(&text, &cookie);
}

/// Uses every route that is given a secret, rightly and wrongly, and returns the session's cookie.
async fn everything(stack: &Stack, profile: Profile) -> String {
    let http = stack.client(profile).await;
    let password = escape(SENTINEL);
    let json = serde_json::json!({"login": "bob", "password": SENTINEL}).to_string();
    let form = format!("login=carl&password={password}");
    assert_eq!(http.post(&format!("/signup/ana/{password}")).await.status, 201);
    assert_eq!(http.post_body("/signup", "application/json", json.clone()).await.status, 201);
    assert_eq!(http.post_body("/signup", "application/x-www-form-urlencoded", form).await.status, 201);
    let signed_in = http.get(&format!("/signin/ana/{password}")).await;
    assert_eq!(signed_in.status, 303);
    let cookie = signed_in.cookie();
    assert_eq!(http.post_body("/signin", "application/json", json).await.status, 303);
    assert_eq!(http.with_cookie("/protected", &cookie).await.status, 200);
    let change = serde_json::json!({"current": SENTINEL, "new": format!("{SENTINEL} too")}).to_string();
    let changed = Request::post("/password").header("cookie", &cookie);
    let changed = changed.header("content-type", "application/json").body(change.into()).expect("a request");
    let expected = if profile == Profile::Secure { 204 } else { 403 };
    assert_eq!(http.send(changed).await.status, expected);
    for _ in 0..6 {
        http.get(&format!("/signin/{password}/{password}")).await;
        http.get(&format!("/signin/ana/{password}x")).await;
    }
    assert_eq!(http.as_admin("/list").await.status, 200);
    assert_eq!(http.as_admin("/setamount/3").await.status, 200);
    // A refusal must not repeat it either.
    http.get(&format!("/signin/carol/{password}")).await;
    http.get(&format!("/signin/ana/{password}x?{password}")).await;
    http.get(&format!("/signin/ana/{password}%FF")).await;
    http.get(&format!("/{password}")).await;
    http.with(Method::PUT, &format!("/signup/ana/{password}"), &[]).await;
    for body in [format!("{{\"login\":1,\"password\":\"{SENTINEL}\"}}"), SENTINEL.to_owned()] {
        http.post_body("/signup", "application/json", body).await;
    }
    cookie
}

#[track_caller]
fn assert_clean(text: &str, cookie: &str) {
    let value = cookie.split_once('=').expect("name=value").1;
    let bytes: Vec<String> = SENTINEL.bytes().map(|byte| byte.to_string()).collect();
    let spellings = [
        ("raw", SENTINEL.to_owned()),
        ("its first word", "s3ntinel".to_owned()),
        ("percent-encoded", escape(SENTINEL)),
        ("as bytes", bytes[..8].join(", ")),
        ("base64", data_encoding::BASE64.encode(SENTINEL.as_bytes())[..12].to_owned()),
        ("the cookie", value[..40].to_owned()),
        ("the admin token", ADMIN_TOKEN.to_owned()),
    ];
    for (what, spelling) in spellings {
        let line = text.lines().find(|line| line.contains(&spelling));
        assert!(line.is_none(), "{what} in the log: {:.2000}", line.unwrap_or_default());
    }
}
