//! One ministack and one moto for this test program, a fresh bucket for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_s3::Client;
use reconciler::store::Store;
use testing::client::{config, s3};
use testing::proxy::Proxy;

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

pub(crate) fn ec2(endpoint: &str) -> aws_sdk_ec2::Client {
    aws_sdk_ec2::Client::new(&config(endpoint))
}

fn s3_endpoint() -> &'static str {
    testing::emulator::ministack(env!("CARGO_TARGET_TMPDIR"))
}

pub(crate) fn ec2_endpoint() -> &'static str {
    testing::emulator::moto(env!("CARGO_TARGET_TMPDIR"))
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
