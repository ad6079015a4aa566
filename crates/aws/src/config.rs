//! The SDK's configuration: credentials and region from the usual sources, our time limits.
//!
//! The SDK's limits end with the head of a response. Bodies have limits of their own, see [`crate::bucket`].

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// S3 closes a connection that is idle for about 20 s. A request sent into a closing connection costs a
/// retry, and the reconciler ticks every 20 s. Half of this value would reconnect for no reason.
const POOL_IDLE: Duration = Duration::from_secs(10);

/// How long a call may take. Each program states its own values and their reasons.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connect: Option<Duration>,
    pub attempt: Option<Duration>,
    /// All attempts of one call, and the pauses between them.
    pub operation: Duration,
    pub attempts: u32,
}

/// Returns a loader with the pinned behaviour version and these limits.
pub fn loader(limits: &Limits) -> ConfigLoader {
    let mut timeouts = TimeoutConfig::builder().operation_timeout(limits.operation);
    timeouts.set_connect_timeout(limits.connect);
    timeouts.set_operation_attempt_timeout(limits.attempt);
    // Pinned: a later SDK must not change defaults under us.
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::standard().with_max_attempts(limits.attempts))
        .timeout_config(timeouts.build())
}

/// Loads the configuration of a program that runs for long, so that its idle connections matter.
pub async fn load(limits: &Limits) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(POOL_IDLE)
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    loader(limits).http_client(http).load().await
}

/// Returns an S3 client. AWS addresses buckets by host name; an endpoint of another kind is addressed by
/// path, because `bucket.localhost` resolves to nothing.
pub fn s3(config: &SdkConfig, by_path: bool) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(by_path).build();
    aws_sdk_s3::Client::from_conf(config)
}
