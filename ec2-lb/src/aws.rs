//! The AWS configuration of this process and its S3 client.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};

/// For one operation, retries included: the registry is read every two seconds, so an older answer
/// is worthless.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// S3 closes idle connections after about 20 s; a request written into a closing one costs a retry.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// The next poll is a retry of its own.
const ATTEMPTS: u32 = 2;

pub async fn sdk_config() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .pool_idle_timeout(POOL_IDLE)
        .build_https();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(1))
                .operation_timeout(OPERATION_TIMEOUT)
                .build(),
        )
        .load()
        .await
}

/// Path style only for an endpoint of our own: there, `bucket.localhost` resolves to nothing.
pub fn s3_client(config: &SdkConfig) -> aws_sdk_s3::Client {
    let path_style = config.endpoint_url().is_some();
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(path_style).build();
    aws_sdk_s3::Client::from_conf(config)
}
