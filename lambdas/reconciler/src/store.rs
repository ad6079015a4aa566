//! The documents in the control bucket. SDK types stop here.
//!
//! Memory is written by compare-and-swap. A reply that is lost looks like a lost race, because the
//! repeated write meets its own result; the nonce in the document tells the two apart.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use fleet::aws_code::AwsErrorKind;
use fleet::memory::Memory;
use fleet::release::Release;
use fleet::{DesiredCount, Registry, keys};
use rand::Rng as _;
use rand::distr::Alphanumeric;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not read {key}: {why}")]
    Read { key: &'static str, why: String },
    #[error("could not write {key}: {why}")]
    Write { key: &'static str, why: String },
    #[error("{key} is {bytes} bytes, more than the {limit} that are read")]
    TooLarge { key: &'static str, bytes: i64, limit: usize, etag: String },
    #[error("{key} is not what it should be")]
    Malformed { key: &'static str, source: serde_json::Error },
}

pub enum Written {
    /// The write took place; this is what is stored, and its version.
    Ours { memory: Box<Memory>, etag: String },
    /// Somebody else wrote first.
    Lost,
}

pub struct Store {
    s3: aws_sdk_s3::Client,
    bucket: String,
}

struct Object {
    bytes: Vec<u8>,
    etag: String,
}

impl Store {
    pub fn new(s3: aws_sdk_s3::Client, bucket: String) -> Self {
        Self { s3, bucket }
    }

    pub async fn memory(&self) -> Result<(Memory, Option<String>), StoreError> {
        match self.get(keys::STATE, Memory::MAX_BYTES).await? {
            None => Ok((Memory::default(), None)),
            Some(object) => Ok((parse(keys::STATE, &object.bytes)?, Some(object.etag))),
        }
    }

    pub async fn write_memory(&self, mut memory: Memory, etag: Option<&str>) -> Result<Written, StoreError> {
        memory.nonce = rand::rng().sample_iter(Alphanumeric).take(16).map(char::from).collect();
        let bytes = serde_json::to_vec_pretty(&memory).expect("memory is plain data");
        match self.put(keys::STATE, bytes, etag).await {
            Ok(etag) => Ok(Written::Ours { memory: Box::new(memory), etag }),
            Err(PutError::Conflict) => {
                let Some(object) = self.get(keys::STATE, Memory::MAX_BYTES).await? else {
                    return Ok(Written::Lost);
                };
                let stored: Memory = parse(keys::STATE, &object.bytes)?;
                if stored.nonce == memory.nonce {
                    return Ok(Written::Ours { memory: Box::new(memory), etag: object.etag });
                }
                Ok(Written::Lost)
            }
            Err(PutError::Other(why)) => Err(StoreError::Write { key: keys::STATE, why }),
        }
    }

    /// The number in `desired-count`, or a sentence that says why there is none to act on.
    pub async fn desired(&self) -> Result<DesiredCount, String> {
        match self.get(keys::DESIRED_COUNT, DesiredCount::MAX_OBJECT_BYTES).await {
            Ok(Some(object)) => DesiredCount::from_object(&object.bytes)
                .map_err(|error| format!("desired-count is not acted on: {error}")),
            Ok(None) => Err("the object desired-count is missing".to_owned()),
            Err(StoreError::TooLarge { bytes, .. }) => {
                Err(format!("desired-count is not acted on: it holds {bytes} bytes, not a number"))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    pub async fn release(&self) -> Result<Release, String> {
        match self.get(keys::RELEASE, Release::MAX_BYTES).await {
            Ok(Some(object)) => {
                parse(keys::RELEASE, &object.bytes).map_err(|error| fleet::telemetry::error_chain(&error))
            }
            Ok(None) => Err("there is no release to launch workers from".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The registry and its version. One that cannot be read as such is replaced like any other: its
    /// content is ours to say.
    pub async fn registry(&self) -> (Result<Option<Registry>, String>, Option<String>) {
        match self.get(keys::REGISTRY, Registry::MAX_BYTES).await {
            Ok(Some(object)) => (Ok(parse(keys::REGISTRY, &object.bytes).ok()), Some(object.etag)),
            Err(StoreError::TooLarge { etag, .. }) => (Ok(None), Some(etag)),
            Ok(None) => (Ok(None), None),
            Err(error) => (Err(error.to_string()), None),
        }
    }

    /// Replaces the registry that was read. A conflict means that a newer one is there: fine.
    pub async fn publish(&self, registry: &Registry, etag: Option<&str>) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec_pretty(registry).expect("a registry is plain data");
        match self.put(keys::REGISTRY, bytes, etag).await {
            Ok(_) | Err(PutError::Conflict) => Ok(()),
            Err(PutError::Other(why)) => Err(StoreError::Write { key: keys::REGISTRY, why }),
        }
    }

    async fn get(&self, key: &'static str, limit: usize) -> Result<Option<Object>, StoreError> {
        let got = match self.s3.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(got) => got,
            Err(error) if kind(&error) == AwsErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::Read { key, why: describe(&error) }),
        };
        let etag = got.e_tag().unwrap_or_default().to_owned();
        let bytes = got.content_length().unwrap_or(i64::MAX);
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > limit) {
            return Err(StoreError::TooLarge { key, bytes, limit, etag });
        }
        let body =
            got.body.collect().await.map_err(|error| StoreError::Read { key, why: error.to_string() })?;
        Ok(Some(Object { bytes: body.to_vec(), etag }))
    }

    async fn put(&self, key: &'static str, bytes: Vec<u8>, etag: Option<&str>) -> Result<String, PutError> {
        let put = self
            .s3
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type("application/json")
            .body(ByteStream::from(bytes));
        let put = match etag {
            Some(etag) => put.if_match(etag),
            None => put.if_none_match("*"),
        };
        match put.send().await {
            Ok(done) => Ok(done.e_tag().unwrap_or_default().to_owned()),
            // If-Match on a key that is gone is 404: the stack is being removed.
            Err(error) if matches!(kind(&error), AwsErrorKind::Conflict | AwsErrorKind::NotFound) => {
                Err(PutError::Conflict)
            }
            Err(error) => Err(PutError::Other(describe(&error))),
        }
    }
}

enum PutError {
    Conflict,
    Other(String),
}

fn parse<T: serde::de::DeserializeOwned>(key: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Malformed { key, source })
}

/// The meaning of a failed call.
pub fn kind<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> AwsErrorKind {
    let by_code = AwsErrorKind::of(error.code().unwrap_or(""), error.message().unwrap_or(""));
    match (by_code, error.raw_response().map(|response| response.status().as_u16())) {
        (AwsErrorKind::Other, Some(404)) => AwsErrorKind::NotFound,
        (AwsErrorKind::Other, Some(409 | 412)) => AwsErrorKind::Conflict,
        (kind, _) => kind,
    }
}

/// A failed call in a few words.
pub fn describe<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => fleet::telemetry::error_chain(error),
    }
}
