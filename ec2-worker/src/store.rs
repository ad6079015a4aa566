//! Objects in one S3 bucket, and what S3's answers mean to us.
//!
//! | S3 says | we say |
//! |---|---|
//! | 404 `NoSuchKey` on a read | `None` |
//! | 412, or 404 on a conditional write | [`Write::Refused`]: another write came first, or the reply to our own was lost |
//! | 409 on a conditional write | [`Write::Raced`]: another write is under way, try again |
//! | 403 | [`StoreError::Denied`]: without `s3:ListBucket` a *missing* key is a 403 too, so a 403 says nothing about a user |
//! | anything else, a time-out, a missing bucket | [`StoreError::Unavailable`] |

mod connect;
#[cfg(test)]
pub(crate) mod memory;

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;

pub use connect::connect;

/// The SDK's time-outs end with the response's head. Our objects are a few kilobytes, which arrive
/// within milliseconds of it; half would fail on a bad network, double would outlast the caller.
const BODY_LIMIT: Duration = Duration::from_secs(3);

/// Name of the S3 user metadata that carries [`NewObject::nonce`].
const NONCE: &str = "nonce";

#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: String,
}

#[derive(Clone, Debug)]
pub struct Object {
    /// The content, cut after the bound that was asked for; compare [`Object::size`].
    pub bytes: Vec<u8>,
    pub size: u64,
    pub etag: ETag,
    pub nonce: Option<String>,
}

/// An entity tag as S3 writes it, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(pub String);

#[derive(Debug)]
pub struct NewObject {
    pub content_type: &'static str,
    pub bytes: Vec<u8>,
    pub nonce: Option<String>,
}

/// The condition of a write. There is no unconditional write.
#[derive(Clone, Debug)]
pub enum Expect {
    Absent,
    Unchanged(ETag),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Done,
    Refused,
    Raced,
}

#[derive(Debug)]
pub struct KeyPage {
    pub keys: Vec<String>,
    pub has_more: bool,
}

/// The text for a client whose request needs an object that S3 does not give.
pub const NO_ANSWER: &str = "the storage does not answer at this moment; try again in a second";

type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("S3 denies {operation} in bucket {bucket}; the worker's role must allow it, and s3:ListBucket")]
    Denied {
        operation: &'static str,
        bucket: String,
        #[source]
        source: Cause,
    },
    #[error("S3 fails {operation} in bucket {bucket}")]
    Unavailable {
        operation: &'static str,
        bucket: String,
        #[source]
        source: Cause,
    },
}

impl Bucket {
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    /// The object, with at most `max_bytes` and one more of its content.
    pub async fn get(&self, key: &str, max_bytes: usize) -> Result<Option<Object>, StoreError> {
        let reply = match self.client.get_object().bucket(&self.name).key(key).send().await {
            Ok(reply) => reply,
            Err(error) if is_missing_key(&error) => return Ok(None),
            Err(error) => return Err(self.failure("GetObject", error)),
        };
        let etag = ETag(reply.e_tag.unwrap_or_default());
        let nonce = reply.metadata.and_then(|mut metadata| metadata.remove(NONCE));
        let length = reply.content_length.and_then(|length| u64::try_from(length).ok());
        let bytes = tokio::time::timeout(BODY_LIMIT, read_bounded(reply.body, max_bytes))
            .await
            .map_err(Cause::from)
            .and_then(|read| read)
            .map_err(|source| self.unavailable("GetObject", source))?;
        let size = length.unwrap_or(bytes.len() as u64);
        Ok(Some(Object { bytes, size, etag, nonce }))
    }

    pub async fn exists(&self, key: &str) -> Result<bool, StoreError> {
        match self.client.head_object().bucket(&self.name).key(key).send().await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.failure("HeadObject", error)),
        }
    }

    pub async fn put(&self, key: &str, object: &NewObject, expect: &Expect) -> Result<Write, StoreError> {
        let request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .content_type(object.content_type)
            .set_metadata(object.nonce.clone().map(|nonce| [(NONCE.to_owned(), nonce)].into()))
            .body(ByteStream::from(object.bytes.clone()));
        let request = match expect {
            Expect::Absent => request.if_none_match("*"),
            Expect::Unchanged(ETag(etag)) => request.if_match(etag),
        };
        match request.send().await {
            Ok(_) => Ok(Write::Done),
            Err(error) if status(&error) == Some(412) || is_missing_key(&error) => Ok(Write::Refused),
            Err(error) if status(&error) == Some(409) => Ok(Write::Raced),
            Err(error) => Err(self.failure("PutObject", error)),
        }
    }

    /// Deletes this version of the object. [`Write::Done`] also if it is gone already.
    pub async fn delete(&self, key: &str, ETag(etag): &ETag) -> Result<Write, StoreError> {
        let request = self.client.delete_object().bucket(&self.name).key(key).if_match(etag);
        match request.send().await {
            Ok(_) => Ok(Write::Done),
            Err(error) if status(&error) == Some(404) && error.code() != Some("NoSuchBucket") => {
                Ok(Write::Done)
            }
            Err(error) if status(&error) == Some(412) => Ok(Write::Refused),
            Err(error) if status(&error) == Some(409) => Ok(Write::Raced),
            Err(error) => Err(self.failure("DeleteObject", error)),
        }
    }

    /// Keys below `prefix` in byte order, at most 1000, beginning after the key `after`.
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<KeyPage, StoreError> {
        let reply = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .send()
            .await
            .map_err(|error| self.failure("ListBucket", error))?;
        Ok(KeyPage {
            has_more: reply.is_truncated.unwrap_or(false),
            keys: reply.contents.unwrap_or_default().into_iter().filter_map(|object| object.key).collect(),
        })
    }

    fn failure<E>(&self, operation: &'static str, error: SdkError<E>) -> StoreError
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        if status(&error) == Some(403) {
            StoreError::Denied { operation, bucket: self.name.clone(), source: Box::new(error) }
        } else {
            self.unavailable(operation, Box::new(error))
        }
    }

    fn unavailable(&self, operation: &'static str, source: Cause) -> StoreError {
        StoreError::Unavailable { operation, bucket: self.name.clone(), source }
    }
}

/// Reads until the end or until one byte more than `max_bytes` has come, and drops the rest unread.
async fn read_bounded(mut body: ByteStream, max_bytes: usize) -> Result<Vec<u8>, Cause> {
    let mut bytes = Vec::new();
    while bytes.len() <= max_bytes
        && let Some(chunk) = body.try_next().await?
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(max_bytes + 1);
    Ok(bytes)
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// A missing bucket is a 404 as well, and is no answer about a key.
fn is_missing_key<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    status(error) == Some(404) && error.code() == Some("NoSuchKey")
}
