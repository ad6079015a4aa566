//! The S3 client: credentials and region from the SDK's usual sources, our time limits.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::config::Addressing;

/// One S3 call with its retries. A request has 15 s and makes up to three calls; a healthy call
/// takes tens of milliseconds, so ten seconds already mean an outage, and five would give up on a
/// second retry.
const OPERATION_LIMIT: Duration = Duration::from_secs(10);

/// One attempt. Three fit into [`OPERATION_LIMIT`]; S3's slowest answers to small objects are well
/// below a second.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);

/// S3 closes a connection that is idle for about 20 seconds. A pooled connection must be dropped
/// before that, or the next request is sent into a closing socket and costs a retry.
const POOL_IDLE_LIMIT: Duration = Duration::from_secs(12);

pub async fn connect(addressing: Addressing) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(POOL_IDLE_LIMIT)
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    let limits = TimeoutConfig::builder()
        .operation_timeout(OPERATION_LIMIT)
        .operation_attempt_timeout(ATTEMPT_LIMIT)
        .build();
    // The pinned behaviour: a later SDK must not change defaults under us.
    let shared = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(limits)
        .retry_config(RetryConfig::standard())
        .load()
        .await;
    let s3 =
        aws_sdk_s3::config::Builder::from(&shared).force_path_style(addressing == Addressing::Path).build();
    Client::from_conf(s3)
}

#[cfg(test)]
mod tests {
    use fleet::layers::{LB_RESPONSE, WORKER_REQUEST};

    use super::*;

    #[test]
    fn each_layer_gives_up_before_the_one_around_it() {
        assert!(ATTEMPT_LIMIT < OPERATION_LIMIT && OPERATION_LIMIT < WORKER_REQUEST);
        assert!(WORKER_REQUEST < LB_RESPONSE, "the load balancer would blame a worker at work");
    }
}
