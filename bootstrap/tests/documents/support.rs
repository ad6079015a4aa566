//! One ministack for the test program, two fresh buckets for each test, and a client whose calls end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bootstrap::aws::Aws;
use bootstrap::names::Names;
use bootstrap::patience::Patience;

fn endpoint() -> &'static str {
    testing::emulator::ministack(env!("CARGO_TARGET_TMPDIR"))
}

/// How many more calls may be made. Further calls are cut before anything is sent, as if the process had been
/// killed after the last allowed call.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<AtomicI64>);

impl Budget {
    pub(crate) fn calls(n: i64) -> Self {
        Self(Arc::new(AtomicI64::new(n)))
    }

    pub(crate) fn unlimited() -> Self {
        Self::calls(i64::MAX)
    }

    pub(crate) fn left(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Intercept for Budget {
    fn name(&self) -> &'static str {
        "budget"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.0.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { Err("killed".into()) }
    }
}

/// Two empty buckets of a stack of the test's own, that of users versioned.
pub(crate) struct Stack {
    names: Names,
    pub(crate) aws: Aws,
}

impl Stack {
    pub(crate) async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let names = Names {
            stack: format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed)).parse().expect("valid"),
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            partition: "aws".to_owned(),
        };
        let aws = client(&names, Budget::unlimited());
        for bucket in [names.data_bucket(), names.control_bucket()] {
            aws.s3.create_bucket().bucket(bucket).send().await.expect("a bucket");
        }
        let versioned = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let put = aws.s3.put_bucket_versioning().bucket(names.data_bucket());
        put.versioning_configuration(versioned).send().await.expect("versions");
        Self { names, aws }
    }

    /// Returns the same stack through a client that makes only this many calls.
    pub(crate) fn with(&self, budget: &Budget) -> Aws {
        client(&self.names, budget.clone())
    }

    pub(crate) async fn write(&self, key: &str, text: &str) {
        self.put(&self.names.control_bucket(), key, text.as_bytes()).await;
    }

    pub(crate) async fn write_user(&self, key: &str, content: &[u8]) {
        self.put(&self.names.data_bucket(), key, content).await;
    }

    async fn put(&self, bucket: &str, key: &str, content: &[u8]) {
        let put = self.aws.s3.put_object().bucket(bucket).key(key);
        put.body(ByteStream::from(content.to_vec())).send().await.expect("written");
    }

    pub(crate) async fn read(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let got = self.aws.s3.get_object().bucket(bucket).key(key).send().await.ok()?;
        Some(got.body.collect().await.expect("its content").to_vec())
    }

    pub(crate) async fn read_control(&self, key: &str) -> Option<Vec<u8>> {
        self.read(&self.names.control_bucket(), key).await
    }

    pub(crate) async fn read_user(&self, key: &str) -> Option<Vec<u8>> {
        self.read(&self.names.data_bucket(), key).await
    }

    pub(crate) async fn delete_user(&self, key: &str) {
        let delete = self.aws.s3.delete_object().bucket(self.names.data_bucket()).key(key);
        delete.send().await.expect("deleted");
    }

    /// Returns every version below `users/`: key, version id, whether it is the newest, content (none for a
    /// delete marker).
    pub(crate) async fn versions(&self) -> Vec<Version> {
        let bucket = self.names.data_bucket();
        let listed = self.aws.s3.list_object_versions().bucket(&bucket).prefix("users/").send().await;
        let listed = listed.expect("a list");
        assert_ne!(listed.is_truncated(), Some(true), "one page is enough for a test");
        let mut versions = Vec::new();
        for version in listed.versions() {
            let (key, id) = (version.key().expect("a key"), version.version_id().expect("an id"));
            let got = self.aws.s3.get_object().bucket(&bucket).key(key).version_id(id).send().await;
            let got = got.expect("a version that is listed");
            let is_migrated = got.metadata().and_then(|it| it.get("migrated")).is_some_and(|it| it == "1");
            let content = got.body.collect().await.expect("its content").to_vec();
            versions.push(Version {
                key: key.to_owned(),
                id: id.to_owned(),
                is_latest: version.is_latest() == Some(true),
                is_migrated,
                content: Some(content),
            });
        }
        versions.extend(listed.delete_markers().iter().map(|marker| Version {
            key: marker.key().expect("a key").to_owned(),
            id: marker.version_id().expect("an id").to_owned(),
            is_latest: marker.is_latest() == Some(true),
            is_migrated: false,
            content: None,
        }));
        versions
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) is_latest: bool,
    pub(crate) is_migrated: bool,
    pub(crate) content: Option<Vec<u8>>,
}

fn client(names: &Names, budget: Budget) -> Aws {
    let config = testing::client::config(endpoint());
    let config = config.into_builder().retry_config(RetryConfig::disabled()).build();
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).interceptor(budget).build();
    let caller = "arn:aws:iam::000000000000:root".to_owned();
    let clients = Aws::new(&config, names.clone(), Some(endpoint().to_owned()), Patience::at_most(None));
    Aws { caller, s3: aws_sdk_s3::Client::from_conf(s3), ..clients }
}
