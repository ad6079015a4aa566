//! The documents in the control bucket. SDK types stop here.
//!
//! A conditional write has one of three outcomes, and the third is not a failure: without an answer it is
//! unknown whether the write took place, and the caller has to read the document.

use std::sync::Arc;
use std::time::Duration;

use aws::bucket::{Bucket, ETag, Expect, NewObject, Object, Read, StoreError, Write};
use aws::date::DateOfReply;
use fleet::document::{self, TooLarge};
use fleet::memory::Memory;
use fleet::release::Release;
use fleet::{DesiredCount, Registry, keys};
use jiff::Timestamp;
use planner::effect::{MemoryObject, Written};
use process::telemetry::error_chain;
use serde::de::DeserializeOwned;

/// The client's own time limits end with the head of an answer. A body is at most 1 MiB and comes in well
/// under a second; half of this would be short for a function with a fraction of a core, twice would leave
/// little of the 15 s in which a tick is acted on.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("could not read {key}: {why}")]
    Failed { key: &'static str, why: String },
    #[error("{key} is larger than the {limit} bytes that are read")]
    TooLarge { key: &'static str, limit: usize, etag: String },
}

#[derive(Debug, thiserror::Error)]
#[error("{key} cannot be parsed")]
struct Malformed {
    key: &'static str,
    source: serde_json::Error,
}

#[derive(Clone)]
pub struct Store {
    bucket: Bucket,
}

impl Store {
    pub fn new(s3: aws_sdk_s3::Client, bucket: String) -> Self {
        Self { bucket: Bucket::new(s3, bucket).with_body_limit(BODY_TIMEOUT) }
    }

    /// Memory, and what the clock of S3 shows.
    pub async fn memory(&self) -> (Result<MemoryObject, String>, Option<Timestamp>) {
        let date = DateOfReply::default();
        let object = match self.get(keys::STATE, Memory::MAX_BYTES, Some(&date)).await {
            Ok(None) => Ok(MemoryObject::Missing),
            Ok(Some(Object { bytes, etag: ETag(etag), .. })) => Ok(match parse(keys::STATE, &bytes) {
                Ok(memory) => MemoryObject::Found { memory: Arc::new(memory), etag },
                Err(why) => MemoryObject::Unreadable { why, etag },
            }),
            Err(ref error @ ReadError::TooLarge { ref etag, .. }) => {
                Ok(MemoryObject::Unreadable { why: error.to_string(), etag: etag.clone() })
            }
            Err(error) => Err(error.to_string()),
        };
        (object, date.by_now())
    }

    /// Writes memory over the version that was read, without what its readers would not take.
    pub async fn write_memory(&self, memory: &Memory, etag: Option<&str>) -> Written {
        self.put(keys::STATE, memory.encode(Timestamp::now()), etag).await
    }

    /// Returns the number in `desired-count`, or a sentence that says why it is not acted on.
    pub async fn desired(&self) -> Result<DesiredCount, String> {
        match self.get(keys::DESIRED_COUNT, DesiredCount::MAX_OBJECT_BYTES, None).await {
            Ok(Some(object)) => DesiredCount::from_object(&object.bytes)
                .map_err(|error| format!("desired-count is not acted on: {error}")),
            Ok(None) => Err("the object desired-count is missing".to_owned()),
            Err(ReadError::TooLarge { limit, .. }) => {
                Err(format!("desired-count is not acted on: it holds more than {limit} bytes, not a number"))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    pub async fn release(&self) -> Result<Option<Arc<Release>>, String> {
        match self.get(keys::RELEASE, Release::MAX_BYTES, None).await {
            Ok(Some(object)) => parse(keys::RELEASE, &object.bytes).map(Arc::new).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns the registry and its version. A registry that cannot be parsed is replaced like any other,
    /// because the reconciler alone decides its content.
    pub async fn registry(&self) -> (Result<Option<Arc<Registry>>, String>, Option<String>) {
        match self.get(keys::REGISTRY, Registry::MAX_BYTES, None).await {
            Ok(Some(object)) => {
                (Ok(parse(keys::REGISTRY, &object.bytes).ok().map(Arc::new)), Some(object.etag.0))
            }
            Err(ReadError::TooLarge { etag, .. }) => (Ok(None), Some(etag)),
            Ok(None) => (Ok(None), None),
            Err(error) => (Err(error.to_string()), None),
        }
    }

    /// Replaces the registry that was read.
    pub async fn publish(&self, registry: &Registry, etag: Option<&str>) -> Written {
        let bytes = document::encode(keys::REGISTRY, registry, Registry::MAX_BYTES);
        self.put(keys::REGISTRY, bytes, etag).await
    }

    async fn get(
        &self,
        key: &'static str,
        limit: usize,
        date: Option<&DateOfReply>,
    ) -> Result<Option<Object>, ReadError> {
        let failed = |error: StoreError| ReadError::Failed { key, why: error.reason() };
        match self.bucket.read(key, limit, None, date).await.map_err(failed)? {
            Read::Missing | Read::Unchanged => Ok(None),
            Read::Found(object) if object.bytes.len() > limit => {
                Err(ReadError::TooLarge { key, limit, etag: object.etag.0 })
            }
            Read::Found(object) => Ok(Some(object)),
        }
    }

    async fn put(&self, key: &'static str, bytes: Result<Vec<u8>, TooLarge>, etag: Option<&str>) -> Written {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(too_large) => return Written::Unknown(format!("did not write: {too_large}")),
        };
        let object = NewObject { content_type: "application/json", bytes, nonce: None };
        let expect = etag.map_or(Expect::Absent, |etag| Expect::Unchanged(ETag(etag.to_owned())));
        match self.bucket.put_tagged(key, &object, &expect).await {
            Ok((Write::Done, ETag(etag))) => Written::Done { etag },
            // If-Match on a key that is gone is refused as well: the stack is being removed.
            Ok((Write::Refused | Write::Raced, _)) => Written::Conflict,
            Err(error) => Written::Unknown(format!("could not write {key}: {}", error.reason())),
        }
    }
}

fn parse<T: DeserializeOwned>(key: &'static str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|source| error_chain(&Malformed { key, source }))
}
