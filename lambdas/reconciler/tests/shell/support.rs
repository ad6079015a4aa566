//! One ministack and one moto for this test program, a fresh bucket for each test.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use local_cloud::emulators::{Emulator, default_venv};
use reconciler::store::Store;

use crate::proxy::Proxy;

pub(crate) struct Control {
    s3: Client,
    bucket: String,
    pub(crate) store: Store,
}

impl Control {
    pub(crate) async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let bucket = format!("vigia-t{}-control", NUMBER.fetch_add(1, Ordering::Relaxed));
        let s3 = s3(s3_endpoint());
        s3.create_bucket().bucket(&bucket).send().await.expect("a bucket");
        Self { store: Store::new(s3.clone(), bucket.clone()), s3, bucket }
    }

    /// A store that reaches the same bucket through a proxy.
    pub(crate) async fn behind_proxy(&self) -> (Store, Proxy) {
        let proxy = Proxy::before(s3_endpoint()).await;
        (Store::new(s3(&proxy.endpoint), self.bucket.clone()), proxy)
    }

    /// Writes an object as another writer would.
    pub(crate) async fn write(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        let body = bytes.into().into();
        self.s3.put_object().bucket(&self.bucket).key(key).body(body).send().await.expect("it is written");
    }

    pub(crate) async fn delete(&self, key: &str) {
        self.s3.delete_object().bucket(&self.bucket).key(key).send().await.expect("it is deleted");
    }
}

fn s3(endpoint: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .force_path_style(true)
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(5)))
        .build();
    Client::from_conf(config)
}

pub(crate) fn ec2(endpoint: &str) -> aws_sdk_ec2::Client {
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(5)))
        .build();
    aws_sdk_ec2::Client::from_conf(config)
}

fn s3_endpoint() -> &'static str {
    static ENDPOINT: OnceLock<String> = OnceLock::new();
    ENDPOINT.get_or_init(|| stays(async { Emulator::start_ministack(&own_dir()).await }))
}

pub(crate) fn ec2_endpoint() -> &'static str {
    static ENDPOINT: OnceLock<String> = OnceLock::new();
    ENDPOINT.get_or_init(|| stays(async { Emulator::start_moto(&default_venv(), &own_dir()).await }))
}

/// Makes an instance profile, which a launch must name.
pub(crate) async fn make_profile(name: &str) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let scope = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request";
    let call = format!("{}/?Action=CreateInstanceProfile&Version=2010-05-08", ec2_endpoint());
    let call = http.post(format!("{call}&InstanceProfileName={name}")).header("authorization", scope);
    let answer = call.send().await.expect("moto answers");
    assert!(answer.status().is_success(), "{answer:?}");
}

/// Starts an emulator that stays to the end. It dies with the thread that started it, so that
/// thread stays as well.
fn stays(start: impl Future<Output = anyhow::Result<Emulator>> + Send + 'static) -> String {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let emulator = start.await.expect("the emulator starts");
            send.send(emulator.endpoint().to_owned()).expect("the test waits");
            std::future::pending::<()>().await;
        });
    });
    receive.recv().expect("the emulator starts")
}

/// A directory for this process alone, after removing those of test programs that have ended:
/// nothing runs at the end of a test program that could remove its own.
fn own_dir() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reconciler");
    for old in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        let has_ended = !Path::new("/proc").join(old.file_name()).exists();
        if has_ended {
            drop(std::fs::remove_dir_all(old.path()));
        }
    }
    all.join(std::process::id().to_string())
}
