//! Clients of the AWS SDK for emulators: with a key that they accept, and impatient.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};

/// Returns the configuration of clients that retry as programs do, but with short pauses.
pub fn config(endpoint: &str) -> SdkConfig {
    let key = Credentials::new("test", "test", None, None, "tests");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(key))
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(5)))
        .build()
}

/// Returns a client of S3 with [`config`].
pub fn s3(endpoint: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(&config(endpoint)).force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(config)
}
