//! Small objects in one S3 bucket, and the meaning of S3's answers.
//!
//! | S3 says | we say |
//! |---|---|
//! | 404 `NoSuchKey` on a read | no object |
//! | 304 on a conditional read | [`Read::Unchanged`] |
//! | 412, or 404 on a conditional write | [`Write::Refused`]: another writer was first, or this is our own write whose reply was lost |
//! | 409 on a conditional write | [`Write::Raced`]: another write is under way, try again |
//! | 403 | [`StoreError::Denied`]: without `s3:ListBucket` a *missing* key is a 403 too, so a 403 says nothing about a user |
//! | anything else, a time-out, a missing bucket | [`StoreError::Unavailable`] |

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;

use crate::date::DateOfReply;
use crate::error::{describe, status};

/// The SDK's time limits end with the head of a response. Our objects are a few kilobytes, which arrive
/// within milliseconds of it; half would fail on a bad network, double would outlast the caller.
const BODY_LIMIT: Duration = Duration::from_secs(3);

/// Name of the S3 user metadata that carries [`NewObject::nonce`].
const NONCE: &str = "nonce";

#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: String,
    body_limit: Duration,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

pub type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("S3 denies {operation} in bucket {bucket}; the role must allow it, and s3:ListBucket")]
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

impl StoreError {
    /// Returns S3's own words, without the operation and the bucket.
    pub fn reason(&self) -> String {
        match self {
            Self::Denied { source, .. } | Self::Unavailable { source, .. } => source.to_string(),
        }
    }
}

/// An answer to a conditional read.
#[derive(Debug)]
pub enum Read {
    Unchanged,
    Missing,
    Found(Object),
}

impl Bucket {
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into(), body_limit: BODY_LIMIT }
    }

    /// Changes the time limit of a body.
    #[must_use]
    pub fn with_body_limit(self, body_limit: Duration) -> Self {
        Self { body_limit, ..self }
    }

    /// Reads the object, with at most `max_bytes` and one more of its content.
    pub async fn get(&self, key: &str, max_bytes: usize) -> Result<Option<Object>, StoreError> {
        match self.read(key, max_bytes, None, None).await? {
            Read::Found(object) => Ok(Some(object)),
            Read::Missing | Read::Unchanged => Ok(None),
        }
    }

    /// Reads the object unless it is still the one with the tag `held`. Notes the reply's date in `date`.
    pub async fn read(
        &self,
        key: &str,
        max_bytes: usize,
        held: Option<&ETag>,
        date: Option<&DateOfReply>,
    ) -> Result<Read, StoreError> {
        let request = self.client.get_object().bucket(&self.name).key(key);
        let mut request = request.set_if_none_match(held.map(|ETag(etag)| etag.clone())).customize();
        if let Some(date) = date {
            request = request.interceptor(date.clone());
        }
        let reply = match request.send().await {
            Ok(reply) => reply,
            Err(error) if held.is_some() && status(&error) == Some(304) => return Ok(Read::Unchanged),
            Err(error) if is_missing_key(&error) => return Ok(Read::Missing),
            Err(error) => return Err(self.failure("GetObject", &error)),
        };
        let etag = ETag(reply.e_tag.unwrap_or_default());
        let nonce = reply.metadata.and_then(|mut metadata| metadata.remove(NONCE));
        let length = reply.content_length.and_then(|length| u64::try_from(length).ok());
        let bytes = whole(reply.body, max_bytes, self.body_limit)
            .await
            .map_err(|source| self.unavailable("GetObject", source))?;
        let size = length.unwrap_or(bytes.len() as u64);
        Ok(Read::Found(Object { bytes, size, etag, nonce }))
    }

    pub async fn exists(&self, key: &str) -> Result<bool, StoreError> {
        match self.client.head_object().bucket(&self.name).key(key).send().await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.failure("HeadObject", &error)),
        }
    }

    /// Writes the object if the condition holds.
    pub async fn put(&self, key: &str, object: &NewObject, expect: &Expect) -> Result<Write, StoreError> {
        self.put_tagged(key, object, expect).await.map(|(write, _)| write)
    }

    /// Like [`Bucket::put`], and returns the tag of the new object.
    pub async fn put_tagged(
        &self,
        key: &str,
        object: &NewObject,
        expect: &Expect,
    ) -> Result<(Write, ETag), StoreError> {
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
            Ok(done) => Ok((Write::Done, ETag(done.e_tag.unwrap_or_default()))),
            Err(error) if status(&error) == Some(412) || is_missing_key(&error) => {
                Ok((Write::Refused, ETag::default()))
            }
            Err(error) if status(&error) == Some(409) => Ok((Write::Raced, ETag::default())),
            Err(error) => Err(self.failure("PutObject", &error)),
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
            Err(error) => Err(self.failure("DeleteObject", &error)),
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
            .map_err(|error| self.failure("ListBucket", &error))?;
        Ok(KeyPage {
            has_more: reply.is_truncated.unwrap_or(false),
            keys: reply.contents.unwrap_or_default().into_iter().filter_map(|object| object.key).collect(),
        })
    }

    fn failure<E>(&self, operation: &'static str, error: &SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let source = describe(error).into();
        match status(error) {
            Some(403) => StoreError::Denied { operation, bucket: self.name.clone(), source },
            _ => self.unavailable(operation, source),
        }
    }

    fn unavailable(&self, operation: &'static str, source: Cause) -> StoreError {
        StoreError::Unavailable { operation, bucket: self.name.clone(), source }
    }
}

/// Reads a body until its end or until one byte more than `max_bytes` has come, and drops the rest unread.
/// An error if that takes longer than `within`.
pub async fn whole(mut body: ByteStream, max_bytes: usize, within: Duration) -> Result<Vec<u8>, Cause> {
    let read = async {
        let mut bytes = Vec::new();
        while bytes.len() <= max_bytes
            && let Some(chunk) = body.try_next().await?
        {
            bytes.extend_from_slice(&chunk);
        }
        bytes.truncate(max_bytes + 1);
        Ok(bytes)
    };
    let stalled = |_| Cause::from(format!("S3 sent no whole body within {} s", within.as_secs()));
    tokio::time::timeout(within, read).await.map_err(stalled)?
}

/// A missing bucket is a 404 as well, and is no answer about a key.
fn is_missing_key<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    status(error) == Some(404) && error.code() == Some("NoSuchKey")
}
