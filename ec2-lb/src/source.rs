//! Where the list of workers comes from: the object in S3, or a channel in a test.
//!
//! A source only reads. `discovery.rs` decides whether to accept a document. So the caller passes the version
//! to compare with, and a refused document is read again.

use std::time::Duration;

use aws::bucket::{Bucket, ETag, Object, Read};
use aws::config::Limits;
use fleet::{Registry, keys};

/// For one operation, retries included: the registry is read every two seconds, so an older answer
/// is worthless.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// The next poll is a retry of its own.
pub const S3_LIMITS: Limits = Limits {
    connect: Some(Duration::from_secs(1)),
    attempt: None,
    operation: OPERATION_TIMEOUT,
    attempts: 2,
};

/// How often the object is read. Conditional GETs at this rate cost about half a dollar a month; half as
/// often would double the time in which a drained worker still gets requests.
pub const POLL_EVERY: Duration = Duration::from_secs(2);

/// An opaque mark of one state of the document; an ETag in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

#[derive(Clone, Debug)]
pub enum Fetched {
    /// It is still the version that was handed in.
    Unchanged,
    /// There is no registry (yet).
    Missing,
    Found {
        registry: Registry,
        version: Option<Version>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("S3 did not return the object")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("S3 did not return the object within {OPERATION_TIMEOUT:?}")]
    TimedOut,
    #[error("the object is larger than its limit")]
    TooLarge,
    #[error("this version cannot parse the registry")]
    NotARegistry(#[source] serde_json::Error),
}

pub trait RegistrySource: Send + 'static {
    /// Completes when it is worth looking again. May be dropped at any point.
    fn wake(&mut self) -> impl Future<Output = ()> + Send;

    /// Looks once. Must end within a few seconds, whatever happens.
    fn fetch(&mut self, held: Option<&Version>) -> impl Future<Output = Result<Fetched, FetchError>> + Send;
}

/// `fleet/registry.json` in the control bucket.
#[derive(Debug)]
pub struct S3Source {
    bucket: Bucket,
    poll_every: Duration,
}

impl S3Source {
    pub fn new(client: aws_sdk_s3::Client, bucket: String) -> Self {
        // `fetch` limits the whole of it.
        let bucket = Bucket::new(client, bucket).with_body_limit(OPERATION_TIMEOUT);
        Self { bucket, poll_every: POLL_EVERY }
    }

    #[must_use]
    pub fn polled_every(self, poll_every: Duration) -> Self {
        Self { poll_every, ..self }
    }

    async fn get(&self, held: Option<&Version>) -> Result<Fetched, FetchError> {
        let held = held.map(|Version(etag)| ETag(etag.clone()));
        let read = self.bucket.read(keys::REGISTRY, Registry::MAX_BYTES, held.as_ref(), None).await;
        let object = match read.map_err(|error| FetchError::Unreadable(error.into()))? {
            Read::Unchanged => return Ok(Fetched::Unchanged),
            Read::Missing => return Ok(Fetched::Missing),
            Read::Found(object) => object,
        };
        let version = Some(Version(object.etag.0.clone())).filter(|Version(etag)| !etag.is_empty());
        let registry = serde_json::from_slice(&not_cut(object, Registry::MAX_BYTES)?)
            .map_err(FetchError::NotARegistry)?;
        Ok(Fetched::Found { registry, version })
    }
}

impl RegistrySource for S3Source {
    async fn wake(&mut self) {
        tokio::time::sleep(self.poll_every).await;
    }

    /// The SDK's operation timeout ends with the response's head; the one here covers the body.
    async fn fetch(&mut self, held: Option<&Version>) -> Result<Fetched, FetchError> {
        tokio::time::timeout(OPERATION_TIMEOUT, self.get(held)).await.unwrap_or(Err(FetchError::TimedOut))
    }
}

/// Reads a small object; `None` if there is none.
pub(crate) async fn read_object(
    bucket: &Bucket,
    key: &str,
    max: usize,
) -> Result<Option<Vec<u8>>, FetchError> {
    let read = tokio::time::timeout(OPERATION_TIMEOUT, bucket.get(key, max)).await;
    let object =
        read.map_err(|_| FetchError::TimedOut)?.map_err(|error| FetchError::Unreadable(error.into()))?;
    object.map(|object| not_cut(object, max)).transpose()
}

fn not_cut(object: Object, max: usize) -> Result<Vec<u8>, FetchError> {
    if object.bytes.len() > max { Err(FetchError::TooLarge) } else { Ok(object.bytes) }
}
