//! Cold start: settings, clients, and the Lambda runtime's loop.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use aws::config::Limits;
use jiff::Timestamp;
use lambda_runtime::{LambdaEvent, service_fn};
use process::settings::{EX_USAGE, Env};
use process::telemetry;
use reconciler::Reconciler;
use reconciler::act::Actor;
use reconciler::config::Config;
use reconciler::observe::Observer;
use reconciler::probe::Prober;
use reconciler::store::Store;
use serde::Deserialize;

/// A tick has five seconds to look around; the next tick is a retry of everything.
const LIMITS: Limits = Limits {
    connect: Some(Duration::from_secs(1)),
    attempt: Some(Duration::from_secs(2)),
    operation: Duration::from_secs(5),
    attempts: 3,
};

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
    let sdk = aws::config::load(&LIMITS).await;
    // Path style only for an endpoint of our own, which has no host name per bucket.
    let s3 = aws::config::s3(&sdk, sdk.endpoint_url().is_some());
    let ec2 = aws_sdk_ec2::Client::new(&sdk);
    let store = Store::new(s3, config.control_bucket.clone());
    Reconciler {
        store: store.clone(),
        observer: Observer { ec2: ec2.clone(), store, stack: config.stack.clone() },
        prober: Prober::default(),
        actor: Actor { ec2, stack: config.stack.clone() },
    }
}
