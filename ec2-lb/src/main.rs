//! The load balancer's process: settings, log, address, sockets, run, exit code.
//!
//! Exit codes: 0 after an orderly stop, 64 for wrong settings, 1 for anything else.

use std::process::ExitCode;

use anyhow::Context as _;
use ec2_lb::{Config, S3Source, Settings, aws, identity};
use fleet::settings::{EX_USAGE, Env};
use tokio::net::TcpListener;

#[expect(clippy::print_stderr, reason = "wrong settings are told to a person, before there is a log")]
fn main() -> ExitCode {
    let settings = match Settings::read(&Env) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("ec2-lb: wrong settings:\n{error}");
            return ExitCode::from(EX_USAGE);
        }
    };
    fleet::telemetry::init(settings.log.as_deref());
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                error = fleet::telemetry::error_chain(error.as_ref()),
                "the load balancer cannot go on"
            );
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(settings: Settings) -> anyhow::Result<()> {
    let shutdown = fleet::shutdown::requested();
    let (listen, admin_listen) = identity::addresses(&settings).await?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let admin = TcpListener::bind(admin_listen)
        .await
        .with_context(|| format!("cannot listen on {admin_listen}, the admin address"))?;
    tracing::info!(stack = %settings.stack, %listen, %admin_listen, policy = %settings.policy, "the load balancer serves");
    let source = S3Source::new(aws::s3_client(&aws::sdk_config().await), settings.control_bucket);
    ec2_lb::run(Config::new(settings.policy), listener, admin, source, shutdown).await?;
    Ok(())
}
