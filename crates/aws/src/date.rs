//! The clock of S3, read from the `Date` of its replies.

use std::sync::Arc;

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Records the `Date` of the last reply, whatever its status, and when it arrived. A body that arrives much
/// later must not look like a wrong clock.
#[derive(Clone, Debug, Default)]
pub struct DateOfReply(Arc<Mutex<Option<(Timestamp, Instant)>>>);

impl DateOfReply {
    /// Returns the present time by S3's clock.
    pub fn by_now(&self) -> Option<Timestamp> {
        let (date, came) = (*self.0.lock())?;
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
        let date = context.response().headers().get("date").and_then(parse);
        *self.0.lock() = date.map(|date| (date, Instant::now()));
        Ok(())
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let date = DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?;
    Timestamp::from_second(date.secs()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_does_not_move_the_clock() {
        let date = Timestamp::from_second(1_800_000_000).expect("a time");
        let reply = DateOfReply(Arc::new(Mutex::new(Some((date, Instant::now())))));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(reply.by_now(), Some(date + Duration::from_secs(4)));
    }

    #[test]
    fn a_date_has_the_form_of_http() {
        let read = parse("Tue, 24 Nov 2026 20:22:01 GMT").expect("a date");
        assert_eq!(read.to_string(), "2026-11-24T20:22:01Z");
        assert_eq!(parse("yesterday"), None);
    }
}
