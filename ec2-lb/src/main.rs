//! The load balancer's process: settings, log, address, sockets, run, exit code.
//!
//! Exit codes: 0 after an orderly stop, 64 for wrong settings, 1 for anything else.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::Context as _;
use ec2_lb::identity::Addresses;
use ec2_lb::settings::TlsFrom;
use ec2_lb::{CertificateSource, CertificateWatch, Config, S3Source, Settings, Sockets, identity, listen};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use process::settings::{EX_USAGE, Env};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "wrong settings are told to a person, before there is a log")]
fn main() -> ExitCode {
    let settings = match Settings::read(&Env) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("ec2-lb: wrong settings:\n{error}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let _log = process::telemetry::serve(settings.log.as_deref());
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                error = process::telemetry::error_chain(error.as_ref()),
                "the load balancer stops after an error"
            );
            ExitCode::FAILURE
        }
    }
}

/// The control plane runs here; the data plane has threads of its own.
#[tokio::main(flavor = "current_thread")]
async fn start(settings: Settings) -> anyhow::Result<()> {
    let shutdown = process::shutdown::requested();
    raise_descriptor_limit();
    let Addresses { listen, admin, tls } = identity::addresses(&settings).await?;
    let threads = settings.threads.or(std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let sdk = aws::config::load(&ec2_lb::source::S3_LIMITS).await;
    // Path style only for an endpoint other than AWS.
    let client = aws::config::s3(&sdk, sdk.endpoint_url().is_some());
    let secure = match settings.tls {
        None => None,
        Some(from) => {
            let source = certificate_source(from, &client, &settings.control_bucket);
            Some((bind(tls, threads)?, watch(source).await?))
        }
    };
    let sockets = Sockets {
        plain: bind(listen, threads)?,
        tls: secure,
        admin: TcpListener::bind(admin)
            .await
            .with_context(|| format!("cannot listen on {admin}, the admin address"))?,
    };
    let tls = sockets.tls.is_some().then_some(tls).map(tracing::field::display);
    tracing::info!(stack = %settings.stack, %listen, tls, %admin, threads, policy = %settings.policy, "the load balancer serves");
    let source = S3Source::new(client, settings.control_bucket);
    let config = Config {
        non_idempotent: settings.non_idempotent,
        logs_access: settings.logs_access,
        ..Config::new(settings.policy)
    };
    ec2_lb::run(config, sockets, source, shutdown).await?;
    Ok(())
}

fn certificate_source(from: TlsFrom, client: &aws_sdk_s3::Client, bucket: &str) -> CertificateSource {
    match from {
        TlsFrom::Files { certificate, key } => CertificateSource::Files { certificate, key },
        TlsFrom::Bucket => CertificateSource::Bucket { client: client.clone(), bucket: bucket.to_owned() },
    }
}

/// Watches the certificate. Files named by an operator must be valid at the start. An object in S3 is
/// looked for again later, and only plain HTTP is served until it is found.
async fn watch(source: CertificateSource) -> anyhow::Result<CertificateWatch> {
    let must_be_there = matches!(source, CertificateSource::Files { .. });
    let mut watch = CertificateWatch::new(source);
    match watch.refresh().await {
        Err(error) if must_be_there => Err(error.into()),
        Ok(_) | Err(_) => Ok(watch),
    }
}

fn bind(addr: SocketAddr, threads: usize) -> anyhow::Result<Vec<std::net::TcpListener>> {
    listen::bind(addr, threads).with_context(|| format!("cannot listen on {addr}"))
}

/// Each connection is a descriptor, and the soft limit of most systems is 1024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised; the present limit applies");
    }
}
