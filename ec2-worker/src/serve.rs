//! The listener, its connections, and the orderly end.
//!
//! ```text
//! serving --shutdown--> draining: no new connections, every response says `Connection: close`,
//!                       requests in flight go on --all done, or DRAIN_LIMIT--> ended
//! ```
//!
//! Connections are served here and not by `axum::serve`, which has no time limit for a request's
//! head and no bound on connections.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::client::Peer;
use crate::{Config, Worker, app, audit, secrets};

/// The longest request takes 15 s. Half would cut one; systemd kills at 90 s.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// For a request's head, and so also for an idle connection. It must be longer than the load
/// balancer keeps an idle connection, or it sends a request into a closing one.
const HEAD_LIMIT: Duration = Duration::from_secs(75);

/// The load balancer keeps some tens of connections for each of its threads. More than this comes
/// from somebody else and would cost 16 KiB each.
const MAX_CONNECTIONS: usize = 4096;

/// The longest request line and head. A password of 1024 bytes, percent-encoded, is 3 KiB.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Out of descriptors: accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every request in flight got its answer.
    Drained,
    /// This many connections were still busy when draining had to end.
    CutOff(usize),
}

/// Serves until `shutdown` completes, then drains.
pub async fn run(
    config: &Config,
    worker: Worker,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Stopped {
    let mut aside = JoinSet::new();
    aside.spawn(audit::keep_summing(worker.clone()));
    aside.spawn(secrets::keep_fresh(
        worker.control.clone(),
        config.profile,
        secrets::REFRESH,
        worker.secrets_slot(),
    ));
    let mut connections = JoinSet::new();
    accept_until(shutdown, &worker, listener, &mut connections).await;
    worker.begin_draining();
    let stopped = drain(&mut connections).await;
    worker.attempts_are_over(DRAIN_LIMIT / 4).await;
    connections.shutdown().await;
    aside.shutdown().await;
    stopped
}

async fn accept_until(
    shutdown: impl Future<Output = ()>,
    worker: &Worker,
    listener: TcpListener,
    connections: &mut JoinSet<()>,
) {
    let app = app(worker.clone());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            (stream, peer, place) = accept(&listener, &places) => {
                let app = app.clone().layer(Extension(peer));
                connections.spawn(serve(stream, app, worker.draining(), place));
            }
            Some(ended) = connections.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    tracing::error!("a connection panicked");
                }
            }
        }
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Peer, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small; waiting to fill a packet would delay each.
                drop(stream.set_nodelay(true));
                return (stream, Peer(peer), place);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    app: Router,
    mut draining: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = begun(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Completes when draining begins, or when nobody is left who could begin it.
async fn begun(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
}

async fn drain(connections: &mut JoinSet<()>) -> Stopped {
    let all_done = async { while connections.join_next().await.is_some() {} };
    match tokio::time::timeout(DRAIN_LIMIT, all_done).await {
        Ok(()) => Stopped::Drained,
        Err(_elapsed) => Stopped::CutOff(connections.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_the_last_request_but_not_for_ever() {
        let mut connections = JoinSet::new();
        connections.spawn(tokio::time::sleep(DRAIN_LIMIT - Duration::from_secs(1)));
        assert_eq!(drain(&mut connections).await, Stopped::Drained);
        connections.spawn(std::future::pending());
        connections.spawn(async {});
        assert_eq!(drain(&mut connections).await, Stopped::CutOff(1));
    }
}
