//! Cold start: settings, clients, and the Lambda runtime's loop.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use fleet::settings::{EX_USAGE, Env};
use fleet::telemetry;
use jiff::Timestamp;
use lambda_runtime::{LambdaEvent, service_fn};
use reconciler::Reconciler;
use reconciler::act::Actor;
use reconciler::config::Config;
use reconciler::observe::Observer;
use reconciler::probe::Prober;
use reconciler::store::Store;
use serde::Deserialize;

/// S3 closes idle connections after about 20 s, which is exactly the time between two ticks.
const POOL_IDLE: Duration = Duration::from_secs(10);
/// A tick has five seconds to observe the fleet; the next tick retries everything.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The part of a scheduled event that matters: when the schedule meant it.
#[derive(Deserialize)]
struct Scheduled {
    time: Option<Timestamp>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let since = Instant::now();
    telemetry::init(None);
    let config = match Config::from_vars(&Env) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let reconciler = reconciler(&config).await;
    let handler = service_fn(|event: LambdaEvent<Scheduled>| {
        let scheduled = event.payload.time.unwrap_or_else(Timestamp::now);
        let reconciler = &reconciler;
        async move { Ok::<_, lambda_runtime::Error>(reconciler.invoke(scheduled).await) }
    });
    let cold_start_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(cold_start_ms, "ready for the first invocation");
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the Lambda runtime ended");
            ExitCode::FAILURE
        }
    }
}

async fn reconciler(config: &Config) -> Reconciler {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .pool_idle_timeout(POOL_IDLE)
        .build_https();
    let sdk = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(1))
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build(),
        )
        .load()
        .await;
    // Path style only for an endpoint of our own, which has no host name per bucket.
    let s3 = aws_sdk_s3::config::Builder::from(&sdk).force_path_style(sdk.endpoint_url().is_some()).build();
    let s3 = aws_sdk_s3::Client::from_conf(s3);
    let ec2 = aws_sdk_ec2::Client::new(&sdk);
    let store = Store::new(s3, config.control_bucket.clone());
    Reconciler {
        store: store.clone(),
        observer: Observer { ec2: ec2.clone(), store, stack: config.stack.clone() },
        prober: Prober::default(),
        actor: Actor { ec2, stack: config.stack.clone() },
    }
}
