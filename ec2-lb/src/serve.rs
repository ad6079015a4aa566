//! The public port: accepts, serves each connection, and stops in an orderly way.
//!
//! The listener lives as long as the process serves: closing it resets whoever waits in its queue,
//! so it goes only when we are told to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::forward::Proxy;
use crate::limits::MAX_HEAD;
use crate::tap::{Findings, Tap};

/// After a failed accept, usually for want of descriptors: somebody has to hang up first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes and the requests in flight are answered or out of time.
pub(crate) async fn serve(listener: TcpListener, proxy: Arc<Proxy>, shutdown: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(proxy.config.limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => match accepted {
                Ok((stream, peer, slot)) => {
                    let (proxy, watcher) = (Arc::clone(&proxy), graceful.watcher());
                    connections.spawn(async move {
                        connection(stream, peer, proxy, watcher).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    drain(graceful, connections, proxy.config.limits.drain).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

async fn connection(stream: TcpStream, peer: SocketAddr, proxy: Arc<Proxy>, watcher: Watcher) {
    // A failure only costs latency.
    drop(stream.set_nodelay(true));
    let limits = proxy.config.limits.clone();
    let findings = Arc::new(Findings::default());
    let requests = AtomicU64::new(0);
    let service = service_fn(|request| {
        let malformed = findings.malformed(requests.fetch_add(1, Ordering::Relaxed));
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request, peer.ip(), malformed).await) }
    });
    let io = TokioIo::new(Tap::new(stream, Arc::clone(&findings)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Begins when the connection is idle, so it is the idle time first of all.
        .header_read_timeout(limits.idle_client)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    tokio::select! {
        // Clients hang up in many ways, and each of them ends the connection.
        ended = watcher.watch(connection) => drop(ended),
        () = findings.overdue_head(limits.head) => {}
    }
}

async fn drain(graceful: GracefulShutdown, mut connections: JoinSet<()>, patience: Duration) {
    tracing::info!(connections = connections.len(), "no more connections are accepted");
    let drained = timeout(patience, async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    });
    match drained.await {
        Ok(()) => tracing::info!("every request in flight is answered"),
        Err(_) => {
            tracing::warn!(connections = connections.len(), "connections are cut at the end of the drain")
        }
    }
    connections.shutdown().await;
}
