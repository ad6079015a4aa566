//! A real S3 API for tests: one ministack for each test program, two fresh buckets for each test.
#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part of this")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use accounts::Cost;
use aws::bucket::Bucket;
use aws_sdk_s3::Client;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::{Extension, Router};
use base64::Engine as _;
use ec2_worker::client::{Peer, TrustedProxies};
use ec2_worker::hash_pool::HashLimits;
use ec2_worker::identity::Identity;
use ec2_worker::{Config, StartError, Worker, app, start};
use fleet::{Profile, keys};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use testing::client::s3;
use tower::ServiceExt as _;

pub(crate) const ADMIN_TOKEN: &str = "test-admin-token";
pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const WORKER: &str = "i-0123456789abcdef0";

/// The endpoint of this test program's emulator.
pub(crate) fn s3_endpoint() -> &'static str {
    testing::emulator::ministack(env!("CARGO_TARGET_TMPDIR"))
}

/// The two buckets of a stack, with its secrets.
pub(crate) struct Stack {
    pub(crate) s3: Client,
    pub(crate) data: String,
    pub(crate) control: String,
}

impl Stack {
    pub(crate) async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let stack = Self {
            s3: s3(s3_endpoint()),
            data: format!("vigia-t{number}-data"),
            control: format!("vigia-t{number}-control"),
        };
        for bucket in [&stack.data, &stack.control] {
            stack.s3.create_bucket().bucket(bucket).send().await.expect("a bucket");
        }
        stack.write(keys::SESSION_KEYS, &key_ring("k1", &["k1"])).await;
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(ADMIN_TOKEN));
        stack.write(keys::ADMIN_TOKEN_HASH, &hash).await;
        stack
    }

    /// Writes an object of the control bucket, as an operator would.
    pub(crate) async fn write(&self, key: &str, text: &str) {
        put(&self.s3, &self.control, key, text).await;
    }

    pub(crate) async fn write_user(&self, key: &str, text: &str) {
        put(&self.s3, &self.data, key, text).await;
    }

    pub(crate) async fn read(&self, bucket: &str, key: &str) -> String {
        let object = self.s3.get_object().bucket(bucket).key(key).send().await.expect("an object");
        let bytes = object.body.collect().await.expect("its content").into_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    pub(crate) async fn user_keys(&self) -> Vec<String> {
        self.keys("users/").await
    }

    /// Of the data bucket.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let page = self.s3.list_objects_v2().bucket(&self.data).prefix(prefix).send().await.expect("a list");
        page.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
    }

    pub(crate) async fn delete(&self, bucket: &str, key: &str) {
        self.s3.delete_object().bucket(bucket).key(key).send().await.expect("deleted");
    }

    /// A worker of this stack, in this process.
    pub(crate) async fn worker(&self, profile: Profile) -> Worker {
        self.worker_through(&self.s3, profile).await.expect("the worker starts")
    }

    /// A worker that reaches S3 through another client.
    pub(crate) async fn worker_through(&self, s3: &Client, profile: Profile) -> Result<Worker, StartError> {
        self.start(s3, self.config(profile)).await
    }

    /// A worker that takes requests from load balancers only.
    pub(crate) async fn worker_behind(&self, proxies: TrustedProxies) -> Worker {
        let config = Config { proxies, ..self.config(Profile::Secure) };
        self.start(&self.s3, config).await.expect("the worker starts")
    }

    /// A worker that answers under these names only.
    pub(crate) async fn worker_named(&self, hosts: &str) -> Worker {
        let config = Config { hosts: hosts.parse().expect("names"), ..self.config(Profile::Secure) };
        self.start(&self.s3, config).await.expect("the worker starts")
    }

    /// A worker behind a load balancer, with the queue of a machine with one core.
    pub(crate) async fn small_worker_behind(&self, proxies: TrustedProxies) -> Worker {
        let config = Config { proxies, ..self.config(Profile::Secure) };
        // But patient: a busy machine must not fail a test.
        let hashing =
            HashLimits { wait: Duration::from_secs(600), ..HashLimits::for_cores(1, Cost::default()) };
        self.start_with(&self.s3, config, hashing).await.expect("the worker starts")
    }

    async fn start(&self, s3: &Client, config: Config) -> Result<Worker, StartError> {
        // As many waiters as a test likes: a busy machine must not fail it.
        let hashing =
            HashLimits { permits: 2, waiters: 10_000, wait: Duration::from_secs(600), cost: Cost::default() };
        self.start_with(s3, config, hashing).await
    }

    async fn start_with(
        &self,
        s3: &Client,
        config: Config,
        hashing: HashLimits,
    ) -> Result<Worker, StartError> {
        let listen: SocketAddr = config.listen.expect("set below");
        let identity = Identity { id: WORKER.parse().expect("an id"), listen };
        let data = Bucket::new(s3.clone(), &self.data);
        let control = Bucket::new(s3.clone(), &self.control);
        start::prepare(&config, &identity, data, control, hashing).await
    }

    pub(crate) async fn client(&self, profile: Profile) -> Http {
        Http { app: app(self.worker(profile).await) }
    }

    pub(crate) fn config(&self, profile: Profile) -> Config {
        let vars: BTreeMap<String, String> = [
            ("VIGIA_STACK", "test"),
            ("VIGIA_DATA_BUCKET", &self.data),
            ("VIGIA_CONTROL_BUCKET", &self.control),
            ("VIGIA_PROFILE", profile.as_str()),
            ("VIGIA_LISTEN", "127.0.0.1:0"),
            ("VIGIA_INSTANCE_ID", WORKER),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        Config::from_vars(&vars).expect("valid settings")
    }
}

async fn put(s3: &Client, bucket: &str, key: &str, text: &str) {
    let body = text.as_bytes().to_vec().into();
    s3.put_object().bucket(bucket).key(key).body(body).send().await.expect("an object is written");
}

/// The document of the session keys; a key depends on its name alone.
pub(crate) fn key_ring(active: &str, kids: &[&str]) -> String {
    let keys: Vec<_> = kids
        .iter()
        .map(|kid| {
            let [a, b] = [0, 1].map(|half| Sha256::digest(format!("{kid}{half}")));
            let key = base64::engine::general_purpose::STANDARD.encode([a, b].concat());
            serde_json::json!({"kid": kid, "key": key})
        })
        .collect();
    serde_json::json!({"active": active, "keys": keys}).to_string()
}

/// The registry with two workers, as the reconciler would write it.
pub(crate) fn registry(desired: u32, notice: Option<&str>) -> String {
    serde_json::json!({
        "revision": 1,
        "written_at": "2026-01-01T00:00:00Z",
        "desired": desired,
        "notice": notice,
        "workers": {
            "i-a": {"addr": "10.0.0.1:8080", "zone": "a"},
            "i-b": {"addr": "10.0.0.2:8080", "zone": "b"},
        },
    })
    .to_string()
}

/// A client of one worker, without a socket in between.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) app: Router,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// `name=value` of the session cookie, as a browser sends it back.
    pub(crate) fn cookie(&self) -> String {
        self.cookie_named("vigia_session")
    }

    pub(crate) fn cookie_named(&self, name: &str) -> String {
        let all = self.headers.get_all(SET_COOKIE).into_iter().filter_map(|set| set.to_str().ok());
        let mut pairs = all.filter_map(|set| set.split(';').next());
        let pair = pairs.find(|pair| pair.split('=').next() == Some(name));
        pair.unwrap_or_else(|| panic!("no cookie {name}: {self:?}")).to_owned()
    }

    /// The status, after checking that a refusal has the shape every refusal has.
    #[track_caller]
    pub(crate) fn code(&self) -> (u16, String) {
        let json = self.json();
        let error = json["error"].as_str().unwrap_or_else(|| panic!("no code: {self:?}"));
        assert!(json["message"].as_str().is_some_and(|text| text.len() > 10), "no advice: {self:?}");
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(2), "{self:?}");
        (self.status.as_u16(), error.to_owned())
    }
}

impl Http {
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.app.clone().oneshot(request).await.expect("the router does not fail");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        let body = String::from_utf8(body.to_vec()).expect("text");
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn with(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).expect("a request")).await
    }

    /// The same worker, for requests that come from this address.
    pub(crate) fn from(&self, peer: &str) -> Self {
        let peer = Peer(format!("{peer}:1").parse().expect("an address"));
        Self { app: self.app.clone().layer(Extension(peer)) }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.with(Method::GET, path, &[]).await
    }

    pub(crate) async fn post(&self, path: &str) -> Reply {
        self.with(Method::POST, path, &[]).await
    }

    pub(crate) async fn as_admin(&self, path: &str) -> Reply {
        let token = format!("Bearer {ADMIN_TOKEN}");
        self.with(Method::GET, path, &[(AUTHORIZATION.as_str(), &token)]).await
    }

    pub(crate) async fn with_cookie(&self, path: &str, cookie: &str) -> Reply {
        self.with(Method::GET, path, &[(COOKIE.as_str(), cookie)]).await
    }

    pub(crate) async fn post_body(&self, path: &str, content_type: &str, body: impl Into<Body>) -> Reply {
        let request = Request::post(path).header(CONTENT_TYPE, content_type).body(body.into());
        self.send(request.expect("a request")).await
    }

    pub(crate) async fn sign_up(&self, login: &str) -> Reply {
        self.post(&format!("/signup/{login}/{}", escape(PASSWORD))).await
    }

    /// The cookie of a new session.
    pub(crate) async fn sign_in(&self, login: &str) -> String {
        let reply = self.get(&format!("/signin/{login}/{}", escape(PASSWORD))).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "/protected"), "{reply:?}");
        reply.cookie()
    }
}

pub(crate) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
