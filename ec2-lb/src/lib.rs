//! The load balancer: it only routes.
//!
//! The modules are listed in the order data meets them: settings and addresses, then the list of
//! workers from S3 to the table, then a request from the client's socket to a worker and back.
//! There is no AWS EC2 here: which workers live is the reconciler's business, and this process
//! believes the registry, tempered by what it sees itself (`ejection`).

// What the process is told.
pub mod aws;
pub mod identity;
pub mod limits;
pub mod settings;

// The list of workers, and what is seen of each.
mod discovery;
pub mod source;

mod check;
mod ejection;
mod table;
mod worker;

// A request comes in and is judged.
mod serve;
mod tap;

mod headers;
mod request_body;
mod strict;

// It goes to a worker, and perhaps to another.
mod forward;

mod balance;
mod pool;
mod retry;
mod upstream;

// The answer goes back.
mod refusal;
mod reply;

// Others look on.
mod admin;
mod metrics;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use balance::{Policy, PolicyError};
pub use limits::Limits;
pub use settings::Settings;
pub use source::{Look, LookError, RegistrySource, S3Source, Version};

/// What a running load balancer is told, apart from its sockets and its source of workers.
#[derive(Clone, Debug)]
pub struct Config {
    pub policy: Policy,
    pub limits: Limits,
}

impl Config {
    pub fn new(policy: Policy) -> Self {
        Self { policy, limits: Limits::default() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0} ended although nobody asked it to")]
    TaskEnded(&'static str),
}

/// Serves until `shutdown` completes and what is in flight then is answered.
///
/// Discovery, health checks and the admin port outlive the drain, so that a request that is being
/// retried still sees the newest table.
pub async fn run(
    config: Config,
    listener: TcpListener,
    admin_listener: TcpListener,
    source: impl RegistrySource,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let metrics = Arc::new(metrics::Metrics::default());
    let fleet = Arc::new(table::Fleet::new(Arc::clone(&metrics)));
    let proxy = Arc::new(forward::Proxy::new(config.clone(), Arc::clone(&fleet), Arc::clone(&metrics)));
    let (refresh, refreshes) = mpsc::channel(admin::MAX_WAITING_REFRESHES);

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
    background.spawn(async move {
        admin::serve(admin_listener, admin::Admin { fleet, metrics, refresh }).await;
        "the admin port"
    });

    let ended = tokio::select! {
        () = serve::serve(listener, proxy, shutdown) => Ok(()),
        Some(ended) = background.join_next() => Err(RunError::TaskEnded(ended.unwrap_or("a task that panicked"))),
    };
    background.shutdown().await;
    ended
}
