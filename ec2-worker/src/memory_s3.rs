//! S3 in memory, for tests that need more interleavings than an emulator can serve, in virtual time.
//!
//! It sits where the SDK's HTTP client would be, so everything above it is what runs in production. A
//! request takes effect at one moment, after a random part of a random delay, as it does in S3.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use parking_lot::Mutex;

use accounts::Cost;
use base64::Engine as _;
use fleet::Profile;
use fleet::hosts::HostNames;

use crate::Worker;
use crate::client::TrustedProxies;
use crate::cookies::KeyRing;
use crate::hash_pool::{HashLimits, HashPool};
use crate::limits::Limits;
use crate::secrets::{AdminTokenHash, Secrets};
use crate::state::Parts;
use aws::bucket::Bucket;

/// An S3 with any number of buckets; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryS3(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    objects: HashMap<String, Stored>,
    versions: u64,
    longest_delay: Duration,
    calls: usize,
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Vec<u8>,
    etag: String,
    nonce: Option<String>,
}

impl MemoryS3 {
    /// Each request takes between nothing and this.
    pub(crate) fn with_delays_up_to(longest_delay: Duration) -> Self {
        let s3 = Self::default();
        s3.state(|state| state.longest_delay = longest_delay);
        s3
    }

    pub(crate) fn bucket(&self, name: &str) -> Bucket {
        let connector = SharedHttpConnector::new(self.clone());
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .endpoint_url("http://memory")
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        Bucket::new(Client::from_conf(config), name)
    }

    /// A worker of the stack whose buckets are here.
    pub(crate) fn worker(&self) -> Worker {
        let key = base64::engine::general_purpose::STANDARD.encode([7; 64]);
        let ring = format!(r#"{{"active":"k1","keys":[{{"kid":"k1","key":"{key}"}}]}}"#);
        let ring = KeyRing::from_json(ring.as_bytes()).expect("a ring");
        let secrets = Secrets::new(ring, Some(AdminTokenHash::of_token("t0ken")));
        let parts = Parts {
            id: "i-0123456789abcdef0".parse().expect("an id"),
            profile: Profile::Secure,
            data: self.bucket("data"),
            control: self.bucket("control"),
            hashes: HashPool::new(HashLimits::for_cores(1, Cost::default())),
            min_password: accounts::password::MinChars::default(),
            proxies: TrustedProxies::default(),
            hosts: HostNames::default(),
            limits: Limits::default(),
        };
        Worker::new(parts, secrets)
    }

    /// How many requests have come.
    pub(crate) fn calls(&self) -> usize {
        self.state(|state| state.calls)
    }

    fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock())
    }
}

impl HttpConnector for MemoryS3 {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let s3 = self.clone();
        HttpConnectorFuture::new(async move {
            let longest = s3.state(|state| {
                state.calls += 1;
                state.longest_delay
            });
            let [there, back] = [0, 1].map(|_| longest.mul_f64(rand::random_range(0.0..0.5)));
            tokio::time::sleep(there).await;
            let response = s3.state(|state| state.answer(&request));
            tokio::time::sleep(back).await;
            Ok(response)
        })
    }
}

impl State {
    fn answer(&mut self, request: &HttpRequest) -> HttpResponse {
        let path = request.uri().split("://").nth(1).unwrap_or_default();
        let key = path.split_once('/').map_or(path, |(_, key)| key);
        let key = key.split('?').next().unwrap_or_default().to_owned();
        let found = self.objects.get(&key).cloned();
        match request.method() {
            "GET" | "HEAD" => found.map_or_else(missing, |object| {
                let mut response = answer(200, object.bytes);
                response.headers_mut().insert("etag", object.etag);
                if let Some(nonce) = object.nonce {
                    response.headers_mut().insert("x-amz-meta-nonce", nonce);
                }
                response
            }),
            "PUT" => {
                let header = |name| request.headers().get(name).map(str::to_owned);
                if header("if-none-match").is_some() && found.is_some() {
                    return refused();
                }
                if let Some(expected) = header("if-match") {
                    match found {
                        None => return missing(),
                        Some(object) if object.etag != expected => return refused(),
                        Some(_) => {}
                    }
                }
                self.versions += 1;
                let etag = format!("\"{}\"", self.versions);
                let bytes = request.body().bytes().unwrap_or_default().to_vec();
                let nonce = header("x-amz-meta-nonce");
                self.objects.insert(key, Stored { bytes, etag: etag.clone(), nonce });
                let mut response = answer(200, Vec::new());
                response.headers_mut().insert("etag", etag);
                response
            }
            other => unreachable!("no test sends {other}"),
        }
    }
}

fn answer(status: u16, body: Vec<u8>) -> HttpResponse {
    let status = StatusCode::try_from(status).expect("a status");
    HttpResponse::new(status, SdkBody::from(body))
}

fn missing() -> HttpResponse {
    answer(404, b"<Error><Code>NoSuchKey</Code></Error>".to_vec())
}

fn refused() -> HttpResponse {
    answer(412, b"<Error><Code>PreconditionFailed</Code></Error>".to_vec())
}
