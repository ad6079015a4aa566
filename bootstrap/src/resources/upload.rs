//! Uploads of programs: they fail for want of progress, not for want of time.
//!
//! | phase | bounded by |
//! |---|---|
//! | the connection takes the program piece by piece | [`STALL`]: no byte taken for so long |
//! | the kernel still holds the last pieces, and AWS answers | the whole attempt: [`LAST_PART`], and the size at [`SLOWEST`] |
//!
//! Two programs are uploaded at the same time. Over 1 Mbit/s each gets 62 kB/s, fifteen times [`SLOWEST`].

use std::path::Path;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::{ByteStream, ByteStreamError};

use crate::error::{DeployError, Exit};

/// Longer than any pause of a connection that still works; a person who waits gives up at ten times this.
const STALL: Duration = Duration::from_secs(30);
/// A kernel takes up to 4 MB before it sends them; at 62 kB/s they take 65 s.
const LAST_PART: Duration = Duration::from_secs(180);
/// Bytes per second.
const SLOWEST: u64 = 4096;
/// Tries of an upload: after a broken connection it starts anew.
const TRIES: u32 = 3;
const PIECE: usize = 64 * 1024;

/// The program as a stream of pieces. As one piece the connection would take it whole, at once, and nobody
/// would see it stall.
pub(super) async fn body(path: &Path) -> Result<ByteStream, ByteStreamError> {
    ByteStream::read_from().path(path).buffer_size(PIECE).build().await
}

pub(super) fn s3(bytes: u64) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::config::Builder::new()
        .timeout_config(timeouts(bytes))
        .stalled_stream_protection(protection())
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
}

/// Lambda takes the program within its request, as one piece: only the whole attempt is bounded.
pub(super) fn lambda(bytes: u64) -> aws_sdk_lambda::config::Builder {
    aws_sdk_lambda::config::Builder::new()
        .timeout_config(timeouts(bytes))
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
}

fn timeouts(bytes: u64) -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(attempt(bytes))
        .operation_timeout(attempt(bytes) * (TRIES + 1))
        .build()
}

fn attempt(bytes: u64) -> Duration {
    LAST_PART + Duration::from_secs(bytes / SLOWEST)
}

fn protection() -> StalledStreamProtectionConfig {
    StalledStreamProtectionConfig::enabled().upload_enabled(true).grace_period(STALL).build()
}

/// Says what a stalled upload means.
pub(super) fn explain(error: DeployError) -> DeployError {
    let is_stalled = error.message().contains("minimum throughput");
    if error.exit != Exit::Unreachable || !is_stalled {
        return error;
    }
    let what = error.what.split(": ").next().unwrap_or_default();
    DeployError::new(
        Exit::Unreachable,
        format!("{what}: the connection took no byte for {} s", STALL.as_secs()),
    )
    .mend("Check this machine's uplink, then deploy again; what was uploaded stays.")
}
