//! Where the list of workers comes from: the object in S3, or a channel in a test.
//!
//! A source only reads. `discovery.rs` decides whether to accept a document. So the caller passes the version
//! to compare with, and a refused document is read again.

use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use fleet::{Registry, keys};

use crate::aws::OPERATION_TIMEOUT;

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
    client: aws_sdk_s3::Client,
    bucket: String,
    poll_every: Duration,
}

impl S3Source {
    pub fn new(client: aws_sdk_s3::Client, bucket: String) -> Self {
        Self { client, bucket, poll_every: POLL_EVERY }
    }

    #[must_use]
    pub fn polled_every(self, poll_every: Duration) -> Self {
        Self { poll_every, ..self }
    }

    async fn get(&self, held: Option<&Version>) -> Result<Fetched, FetchError> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(keys::REGISTRY)
            .set_if_none_match(held.map(|version| version.0.clone()))
            .send()
            .await;
        let object = match answer {
            Ok(object) => object,
            Err(error) => {
                let status = error.raw_response().map(|response| response.status().as_u16());
                let is_missing = error.as_service_error().is_some_and(GetObjectError::is_no_such_key);
                return match status {
                    Some(304) => Ok(Fetched::Unchanged),
                    _ if is_missing => Ok(Fetched::Missing),
                    _ => Err(FetchError::Unreadable(error.into())),
                };
            }
        };
        let version = object.e_tag.map(Version);
        let bytes = read_at_most(object.body, Registry::MAX_BYTES).await?;
        let registry = serde_json::from_slice(&bytes).map_err(FetchError::NotARegistry)?;
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
    client: &aws_sdk_s3::Client,
    bucket: &str,
    key: &str,
    max: usize,
) -> Result<Option<Vec<u8>>, FetchError> {
    let read = async {
        match client.get_object().bucket(bucket).key(key).send().await {
            Ok(object) => read_at_most(object.body, max).await.map(Some),
            Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => Ok(None),
            Err(error) => Err(FetchError::Unreadable(error.into())),
        }
    };
    tokio::time::timeout(OPERATION_TIMEOUT, read).await.unwrap_or(Err(FetchError::TimedOut))
}

async fn read_at_most(mut body: ByteStream, max: usize) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| FetchError::Unreadable(error.into()))?;
        if bytes.len() + piece.len() > max {
            return Err(FetchError::TooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
