//! The load balancer: it only routes.
//!
//! The modules are listed in the order data meets them: settings and addresses, then the list of
//! workers from S3 to the table, then a request from the client's socket to a worker and back.
//! There is no AWS EC2 here. The reconciler decides which workers exist; this process takes the list from
//! the registry and ejects workers that fail its own requests and checks (`ejection`).
//!
//! ```text
//!  control plane, one thread           data plane, one thread per core
//!  discovery ─┐                        ┌─ acceptor; thread: pools, scratch, deadlines
//!  check ─────┼─> table, workers ──────┤    └─ connection ─> lane: forward ─> send ─> relay
//!  admin ─────┘    (arc-swap, atomics) └─ thread …
//! ```
//!
//! On the way of a request nothing is locked and nothing is handed to another thread.

// The process starts.
pub mod identity;
pub mod limits;
pub mod listen;
pub mod settings;
pub mod tls;

// The list of workers comes from S3, and each worker is watched.
mod discovery;
pub mod source;

mod check;
mod ejection;
mod table;
mod worker;

// A connection comes in and waits for a request.
mod acceptor;
mod thread;

mod connection;
mod lane;

mod client;
mod deadline;
mod pace;
mod place;
mod shares;
mod socket;

// The request goes to a worker, or to several in turn; the answer goes back.
mod forward;

mod balance;
mod exchange;
mod pipe;
mod retry;
mod send;
mod upstream;

mod relay;
mod tunnel;

mod refusal;

// Operators and Prometheus watch.
mod access_log;
mod admin;
mod metrics;
mod prometheus;

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

pub use balance::{Policy, PolicyError};
pub use limits::Limits;
pub use retry::NonIdempotent;
pub use settings::Settings;
pub use source::{FetchError, Fetched, RegistrySource, S3Source, Version};
pub use tls::{CertificateSource, CertificateWatch};

/// The settings of a running load balancer, except its sockets and its source of workers.
#[derive(Clone, Debug)]
pub struct Config {
    pub policy: Policy,
    pub non_idempotent: NonIdempotent,
    pub logs_access: bool,
    pub limits: Limits,
}

impl Config {
    pub fn new(policy: Policy) -> Self {
        Self { policy, non_idempotent: NonIdempotent::Never, logs_access: false, limits: Limits::default() }
    }
}

/// The sockets of a load balancer. There is a thread for each of `plain`.
#[derive(Debug)]
pub struct Sockets {
    pub plain: Vec<std::net::TcpListener>,
    /// As many as of `plain`, and what TLS is spoken with.
    pub tls: Option<(Vec<std::net::TcpListener>, CertificateWatch)>,
    pub admin: TcpListener,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0} ended unexpectedly; read the log before this line for the cause, and report it as a bug")]
    TaskEnded(&'static str),
    #[error("the operating system cannot start a thread of the data plane")]
    Thread(#[source] std::io::Error),
}

/// Serves until `shutdown` completes and the requests in flight are answered.
///
/// Discovery, health checks and the admin port outlive the drain, so that a request that is being
/// retried still sees the newest table.
pub async fn run(
    config: Config,
    sockets: Sockets,
    source: impl RegistrySource,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let Sockets { plain, tls, admin } = sockets;
    let started = Instant::now();
    let metrics = Arc::new(metrics::Metrics::new(plain.len()));
    let fleet = Arc::new(table::Fleet::new(Arc::clone(&metrics)));
    let (refresh, refreshes) = mpsc::channel(admin::MAX_WAITING_REFRESHES);
    let (tls, watch_certificate) = tls.unzip();
    let certificate = watch_certificate.as_ref().map(|watch| watch.certificate.clone()).unwrap_or_default();

    let mut background = JoinSet::new();
    background.spawn({
        let fleet = Arc::clone(&fleet);
        async move {
            discovery::follow(source, &fleet, refreshes).await;
            "discovery"
        }
    });
    background.spawn({
        let (fleet, limits) = (Arc::clone(&fleet), config.limits.clone());
        async move {
            check::watch(&fleet, &limits).await;
            "the health checks"
        }
    });
    background.spawn({
        let (fleet, metrics) = (Arc::clone(&fleet), Arc::clone(&metrics));
        let admin_state = admin::Admin { fleet, metrics, refresh, started };
        async move {
            admin::serve(admin, admin_state).await;
            "the admin port"
        }
    });
    if let Some(watch) = watch_certificate {
        let every = config.limits.certificate_every;
        background.spawn(async move {
            watch.follow(every).await;
            "the certificate's watch"
        });
    }

    let shared = thread::Shared { config: Arc::new(config), fleet, certificate };
    // Dropped with this future, which stops the threads as well.
    let (stop, stopped) = watch::channel(false);
    let mut threads = start(&shared, &metrics, plain, tls.unwrap_or_default(), &stopped)?;
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown, if !*stop.borrow() => {
                tracing::info!("no more connections are accepted");
                stop.send_replace(true);
            }
            ended = threads.join_next() => match ended {
                Some(Ok(Ok(()))) if *stop.borrow() => {}
                Some(_) => return Err(RunError::TaskEnded("a thread of the data plane")),
                None => break,
            },
            Some(ended) = background.join_next() => {
                return Err(RunError::TaskEnded(ended.unwrap_or("a task that panicked")));
            }
        }
    }
    background.shutdown().await;
    tracing::info!("every connection is closed");
    Ok(())
}

/// Starts the data plane; the tasks end with its threads.
fn start(
    shared: &thread::Shared,
    metrics: &metrics::Metrics,
    plain: Vec<std::net::TcpListener>,
    tls: Vec<std::net::TcpListener>,
    stopped: &watch::Receiver<bool>,
) -> Result<JoinSet<Result<(), oneshot::error::RecvError>>, RunError> {
    let mut threads = JoinSet::new();
    let count = plain.len();
    let mut tls = tls.into_iter();
    for (index, (plain, counters)) in plain.into_iter().zip(metrics.threads()).enumerate() {
        let (shared, counters, stopped) = (shared.clone(), Arc::clone(counters), stopped.clone());
        let listeners = acceptor::Listeners { plain, tls: tls.next() };
        let (ends, ended) = oneshot::channel();
        // Its own runtime: no other thread ever wakes it for a request.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Thread)?;
        std::thread::Builder::new()
            .name(format!("data-{index}"))
            .spawn(move || {
                let serving = acceptor::run(shared, counters, count, listeners, stopped);
                match LocalSet::new().block_on(&runtime, serving) {
                    // `run` may have been dropped.
                    Ok(()) => drop(ends.send(())),
                    Err(error) => tracing::error!(%error, "a thread of the data plane cannot listen"),
                }
            })
            .map_err(RunError::Thread)?;
        threads.spawn(ended);
    }
    Ok(threads)
}
