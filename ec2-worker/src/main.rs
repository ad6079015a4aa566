//! `ec2-worker`: settings, identity, clients, and then [`ec2_worker::run`].

use std::process::ExitCode;

use aws::bucket::Bucket;
use ec2_worker::hash_pool::HashLimits;
use ec2_worker::s3;
use ec2_worker::serve::Stopped;
use ec2_worker::{Config, StartError, identity, start};
use process::settings::{EX_USAGE, Env};
use process::{shutdown, telemetry};
use tokio::net::TcpListener;

/// Thousands of small pieces for each request to S3, made on one thread and dropped on another: the
/// system's allocator takes longer for them and keeps arenas that a flood has filled.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = match Config::from_vars(&Env) {
        Ok(config) => config,
        Err(problems) => {
            #[expect(clippy::print_stderr, reason = "there is no log before the settings are read")]
            {
                eprintln!("{problems}");
            }
            return ExitCode::from(EX_USAGE);
        }
    };
    let _log = telemetry::serve(Some(&config.log_filter()));
    match serve(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = telemetry::error_chain(&error), "cannot start");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn serve(config: &Config) -> Result<(), StartError> {
    let mut shutdown = std::pin::pin!(shutdown::requested());
    let (worker, listener) = tokio::select! {
        started = prepare(config) => started?,
        () = &mut shutdown => return Ok(()),
    };
    match ec2_worker::run(config, worker, listener, shutdown).await {
        Stopped::Drained => tracing::info!("stopped"),
        Stopped::CutOff(connections) => tracing::warn!(connections, "stopped with requests still in flight"),
    }
    Ok(())
}

async fn prepare(config: &Config) -> Result<(ec2_worker::Worker, TcpListener), StartError> {
    let identity = identity::find(config).await?;
    let s3 = s3::connect(config.addressing).await;
    let data = Bucket::new(s3.clone(), &config.data_bucket);
    let control = Bucket::new(s3, &config.control_bucket);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let worker =
        start::prepare(config, &identity, data, control, HashLimits::for_cores(cores, config.cost.clone()))
            .await?;
    let addr = identity.listen;
    let listener = TcpListener::bind(addr).await.map_err(|source| StartError::Listen { addr, source })?;
    tracing::info!(
        stack = config.stack.as_str(),
        worker = identity.id.as_str(),
        profile = config.profile.as_str(),
        listen = %addr,
        "serving"
    );
    Ok((worker, listener))
}
