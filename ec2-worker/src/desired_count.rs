//! The desired count: what is in force, and changing it.
//!
//! People edit the object by hand, so it may hold anything. If it holds no valid number, the last good
//! value is in force, which the reconciler keeps in the registry:
//!
//! | `desired-count` | registry | answer |
//! |---|---|---|
//! | a number | there | the number; a notice of the reconciler is about an earlier text |
//! | a number | not yet | the number, and 0 healthy |
//! | nonsense or missing | there | the registry's number and the problem |
//! | nonsense or missing | not yet | 503 with the problem |
//!
//! Answers and refusals are kept for a second, and concurrent requests share one fetch.
//!
//! An object that cannot be *read* is a 503: the number in force may be newer than the registry.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use fleet::{DesiredCount, DesiredCountError, Registry, keys};
use serde::Serialize;
use utoipa::ToSchema;

use crate::flights::Recent;
use aws::bucket::{Bucket, ETag, Expect, NewObject, Object, StoreError, Write};

/// Any client may ask, and each answer costs two reads of S3.
const KEPT_FOR: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Amount {
    #[schema(value_type = u32)]
    pub desired: DesiredCount,
    pub healthy: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Change {
    #[schema(value_type = u32)]
    pub desired: DesiredCount,
    /// `None` when the object was missing or held nonsense.
    #[schema(value_type = Option<u32>, required)]
    pub previous: Option<DesiredCount>,
}

/// Why the desired count could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    #[error("{0}")]
    Refused(DesiredCountError),
    #[error(
        "another request changed the desired count at the same moment, so yours was not set; read /checkamount and try again"
    )]
    LostRace,
    /// No count is in force.
    #[error("{0}")]
    NoneInForce(Cow<'static, str>),
    #[error("{}", crate::s3::NO_ANSWER)]
    Store(#[from] StoreError),
    /// The result of a read that several requests share; it was logged once.
    #[error("{0}")]
    Shared(Arc<Self>),
}

impl CountError {
    /// Logs the error once and returns it for all requests that wait for the same read.
    fn shared(self) -> Arc<Self> {
        if let Self::Store(_) = self {
            tracing::warn!(error = process::telemetry::error_chain(&self), "a request failed");
        }
        Arc::new(self)
    }
}

/// The desired count of the stack, as `/checkamount` and `/setamount` use it.
pub struct DesiredCounts {
    control: Bucket,
    recent: Recent<Result<Amount, Arc<CountError>>>,
}

impl DesiredCounts {
    pub fn new(control: Bucket) -> Self {
        Self { control, recent: Recent::kept_for(KEPT_FOR) }
    }

    /// Returns the count as it was within the last second.
    pub async fn recent(&self) -> Result<Amount, CountError> {
        let fetch = || {
            let control = self.control.clone();
            async move { fetch(&control).await.map_err(CountError::shared) }
        };
        self.recent.get(fetch).await.map_err(CountError::Shared)
    }

    /// Sets the count unless another request changes it at the same moment.
    pub async fn set(&self, desired: DesiredCount) -> Result<Change, CountError> {
        let change = write(&self.control, desired).await;
        // Also after an error: the write may have happened all the same.
        self.forget();
        change
    }

    /// Makes the next [`DesiredCounts::recent`] read S3.
    pub fn forget(&self) {
        self.recent.forget();
    }
}

async fn fetch(control: &Bucket) -> Result<Amount, CountError> {
    let (desired, registry) = tokio::try_join!(
        control.get(keys::DESIRED_COUNT, DesiredCount::MAX_OBJECT_BYTES),
        control.get(keys::REGISTRY, Registry::MAX_BYTES),
    )?;
    parse(desired.as_ref(), registry.as_ref().map(read_registry).transpose()?)
}

/// Returns the count that these two objects put in force.
pub fn parse(desired: Option<&Object>, registry: Option<Registry>) -> Result<Amount, CountError> {
    in_force(desired.map(parse_object), registry)
}

async fn write(control: &Bucket, desired: DesiredCount) -> Result<Change, CountError> {
    let current = control.get(keys::DESIRED_COUNT, DesiredCount::MAX_OBJECT_BYTES).await?;
    let previous = current.as_ref().and_then(|object| parse_object(object).ok());
    let change = Change { desired, previous };
    let object =
        NewObject { content_type: "text/plain", bytes: desired.to_string().into_bytes(), nonce: None };
    match control.put(keys::DESIRED_COUNT, &object, &expectation(current)).await? {
        Write::Done => Ok(change),
        // When the reply to the first try was lost, the SDK's retry is refused by the object of the first.
        Write::Refused | Write::Raced => {
            let now = control.get(keys::DESIRED_COUNT, DesiredCount::MAX_OBJECT_BYTES).await?;
            let is_as_asked = now.is_some_and(|object| object.bytes == desired.to_string().as_bytes());
            if is_as_asked { Ok(change) } else { Err(CountError::LostRace) }
        }
    }
}

fn expectation(current: Option<Object>) -> Expect {
    match current.map(|object| object.etag) {
        Some(ETag(etag)) => Expect::Unchanged(ETag(etag)),
        None => Expect::Absent,
    }
}

type Parsed = Result<DesiredCount, DesiredCountError>;

fn parse_object(object: &Object) -> Parsed {
    if object.size > DesiredCount::MAX_OBJECT_BYTES as u64 {
        return Err(DesiredCountError::NotANumber(format!("a text of {} bytes", object.size)));
    }
    DesiredCount::from_object(&object.bytes)
}

pub fn read_registry(object: &Object) -> Result<Registry, CountError> {
    serde_json::from_slice(&object.bytes).map_err(|_| {
        CountError::NoneInForce(
            format!("{} cannot be parsed; wait for the reconciler to write it again", keys::REGISTRY).into(),
        )
    })
}

fn in_force(desired: Option<Parsed>, registry: Option<Registry>) -> Result<Amount, CountError> {
    let problem = match desired {
        Some(Ok(desired)) => {
            let healthy = registry.map_or(0, |registry| registry.workers.len());
            return Ok(Amount { desired, healthy, problem: None });
        }
        Some(Err(error)) => describe(&error),
        None => format!("{} is missing", keys::DESIRED_COUNT),
    };
    match registry {
        Some(registry) => Ok(Amount {
            desired: registry.desired,
            healthy: registry.workers.len(),
            problem: Some(format!("{problem}; the last good value stays in force")),
        }),
        None => Err(CountError::NoneInForce(
            format!(
                "{problem}, and no earlier value is known; write a number from 1 to {}",
                DesiredCount::MAX
            )
            .into(),
        )),
    }
}

fn describe(error: &DesiredCountError) -> String {
    let key = keys::DESIRED_COUNT;
    match error {
        DesiredCountError::NotANumber(shown) => format!("{key} holds {shown}, which is not a whole number"),
        DesiredCountError::OutOfRange(shown, min) => {
            format!("{key} holds {shown}, which is not within {min} to {}", DesiredCount::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn registry(notice: Option<&str>) -> Registry {
        let workers = serde_json::json!({
            "i-a": {"addr": "10.0.0.1:8080", "zone": "z"},
            "i-b": {"addr": "10.0.0.2:8080", "zone": "z"},
        });
        Registry {
            revision: 1,
            written_at: Timestamp::UNIX_EPOCH,
            desired: DesiredCount::try_from(2).expect("within bounds"),
            notice: notice.map(str::to_owned),
            workers: serde_json::from_value(workers).expect("two workers"),
        }
    }

    fn object(text: &str) -> Object {
        Object {
            bytes: text.as_bytes()[..text.len().min(DesiredCount::MAX_OBJECT_BYTES + 1)].to_vec(),
            size: text.len() as u64,
            etag: ETag("\"e\"".to_owned()),
            nonce: None,
        }
    }

    fn answer(
        text: Option<&str>,
        registry: Option<Registry>,
    ) -> Result<(u32, usize, Option<String>), String> {
        in_force(text.map(|text| parse_object(&object(text))), registry)
            .map(|amount| (amount.desired.get(), amount.healthy, amount.problem))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_number_is_in_force() {
        assert_eq!(answer(Some("3\n"), Some(registry(None))), Ok((3, 2, None)));
        assert_eq!(answer(Some("3"), None), Ok((3, 0, None)));
        assert_eq!(
            answer(Some("0"), Some(registry(None))),
            Ok((0, 2, None)),
            "set on purpose by the command line"
        );
        let stale = registry(Some("desired-count holds `banana`"));
        assert_eq!(answer(Some("3"), Some(stale)), Ok((3, 2, None)), "the object was corrected since");
    }

    #[test]
    fn nonsense_leaves_the_last_good_value_in_force_and_says_so() {
        let table = [
            (
                Some("banana"),
                "desired-count holds `banana`, which is not a whole number; the last good value stays in force",
            ),
            (
                Some("1000"),
                "desired-count holds 1000, which is not within 0 to 100; the last good value stays in force",
            ),
            (
                Some(&*"1".repeat(300)),
                "desired-count holds a text of 300 bytes, which is not a whole number; the last good value stays in force",
            ),
            (None, "desired-count is missing; the last good value stays in force"),
        ];
        for (text, problem) in table {
            assert_eq!(answer(text, Some(registry(None))), Ok((2, 2, Some(problem.to_owned()))), "{text:?}");
        }
    }

    #[test]
    fn no_value_at_all_is_an_error_that_says_what_to_do() {
        for text in [Some("banana"), None] {
            let error = answer(text, None).expect_err("nothing is in force");
            assert!(error.contains("write a number from 1 to 100"), "{error}");
        }
    }

    #[test]
    fn a_malformed_registry_is_an_error() {
        assert!(matches!(read_registry(&object("{}")), Err(CountError::NoneInForce(_))));
    }
}
