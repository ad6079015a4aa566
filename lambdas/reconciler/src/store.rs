//! The documents in the control bucket. SDK types stop here.
//!
//! A conditional write has one of three outcomes, and the third is not a failure: without an answer it is
//! unknown whether the write took place, and the caller has to read the document.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use fleet::aws_code::AwsErrorKind;
use fleet::document::{self, TooLarge};
use fleet::memory::Memory;
use fleet::release::Release;
use fleet::{DesiredCount, Registry, keys};
use jiff::Timestamp;
use planner::effect::{MemoryObject, Written};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

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

    /// Memory, and what the clock of S3 shows.
    pub async fn memory(&self) -> (Result<MemoryObject, String>, Option<Timestamp>) {
        let date = DateOfReply::default();
        let object = match self.get(keys::STATE, Memory::MAX_BYTES, Some(date.clone())).await {
            Ok(None) => Ok(MemoryObject::Missing),
            Ok(Some(Object { bytes, etag })) => Ok(match parse(keys::STATE, &bytes) {
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
                (Ok(parse(keys::REGISTRY, &object.bytes).ok().map(Arc::new)), Some(object.etag))
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
        date: Option<DateOfReply>,
    ) -> Result<Option<Object>, ReadError> {
        let mut get = self.s3.get_object().bucket(&self.bucket).key(key).customize();
        if let Some(date) = date {
            get = get.interceptor(date);
        }
        let got = match get.send().await {
            Ok(got) => got,
            Err(error) if kind(&error) == AwsErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ReadError::Failed { key, why: describe(&error) }),
        };
        let etag = got.e_tag().unwrap_or_default().to_owned();
        let announced = usize::try_from(got.content_length().unwrap_or(0)).unwrap_or(0);
        let failed = |why| ReadError::Failed { key, why };
        let stalled = || failed(format!("S3 sent no whole body within {} s", BODY_TIMEOUT.as_secs()));
        let bytes = if announced > limit {
            None
        } else {
            timeout(BODY_TIMEOUT, body(got.body, limit)).await.map_err(|_| stalled())?.map_err(failed)?
        };
        match bytes {
            Some(bytes) => Ok(Some(Object { bytes, etag })),
            None => Err(ReadError::TooLarge { key, limit, etag }),
        }
    }

    async fn put(&self, key: &'static str, bytes: Result<Vec<u8>, TooLarge>, etag: Option<&str>) -> Written {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(too_large) => return Written::Unknown(format!("did not write: {too_large}")),
        };
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
            Ok(done) => Written::Done { etag: done.e_tag().unwrap_or_default().to_owned() },
            Err(error) => match kind(&error) {
                // If-Match on a key that is gone is 404: the stack is being removed.
                AwsErrorKind::Conflict | AwsErrorKind::NotFound => Written::Conflict,
                _ => Written::Unknown(format!("could not write {key}: {}", describe(&error))),
            },
        }
    }
}

/// Returns the whole body, or `None` if it is longer than `limit`, whatever length was announced.
async fn body(mut stream: ByteStream, limit: usize) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part.map_err(|error| fleet::telemetry::error_chain(&error))?);
        if bytes.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

/// Records the `Date` of the last reply, whatever its status, and when it arrived. A body that arrives much
/// later must not look like a wrong clock.
#[derive(Clone, Debug, Default)]
struct DateOfReply(Arc<Mutex<Option<(Timestamp, Instant)>>>);

impl DateOfReply {
    /// Returns the present time by S3's clock.
    fn by_now(&self) -> Option<Timestamp> {
        let (date, came) = (*self.0.lock().expect("no holder of the lock panics"))?;
        date.checked_add(came.elapsed()).ok()
    }
}

impl Intercept for DateOfReply {
    fn name(&self) -> &'static str {
        "DateOfReply"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(date);
        *self.0.lock().expect("no holder of the lock panics") = date.map(|date| (date, Instant::now()));
        Ok(())
    }
}

fn date(text: &str) -> Option<Timestamp> {
    let date = DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?;
    Timestamp::from_second(date.secs()).ok()
}

fn parse<T: DeserializeOwned>(key: &'static str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|source| fleet::telemetry::error_chain(&Malformed { key, source }))
}

/// The meaning of a failed call.
pub(crate) fn kind<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> AwsErrorKind {
    let by_code = AwsErrorKind::of(error.code().unwrap_or(""), error.message().unwrap_or(""));
    match (by_code, error.raw_response().map(|response| response.status().as_u16())) {
        (AwsErrorKind::Other, Some(404)) => AwsErrorKind::NotFound,
        (AwsErrorKind::Other, Some(409 | 412)) => AwsErrorKind::Conflict,
        (kind, _) => kind,
    }
}

/// A failed call in a few words.
pub(crate) fn describe<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => fleet::telemetry::error_chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_takes_long_is_no_wrong_clock() {
        let date = Timestamp::from_second(1_800_000_000).expect("a time");
        let reply = DateOfReply(Arc::new(Mutex::new(Some((date, Instant::now())))));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(reply.by_now(), Some(date + Duration::from_secs(4)));
    }

    #[test]
    fn a_date_is_in_the_form_of_http() {
        let read = date("Tue, 24 Nov 2026 20:22:01 GMT").expect("a date");
        assert_eq!(read.to_string(), "2026-11-24T20:22:01Z");
        assert_eq!(date("yesterday"), None);
    }
}
