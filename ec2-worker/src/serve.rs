//! The listener, its connections, and the orderly end.
//!
//! ```text
//! serving --shutdown--> draining: no new connections, every response says `Connection: close`,
//!                       requests in flight go on --all done, or WORKER_DRAIN--> ended
//! ```
//!
//! The last places for connections are kept for health checks, and every other request on them is refused at
//! once. So the load balancer and the reconciler are answered even when all other connections wait.
//!
//! Connections are served here and not by `axum::serve`, which has no time limit for a request's
//! head and no bound on connections.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use fleet::layers::{
    WORKER_CHECK, WORKER_CONNECTIONS, WORKER_DRAIN, WORKER_FIELDS, WORKER_HEAD, WORKER_IDLE, WORKER_RESERVE,
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::client::Peer;
use crate::{Config, Worker, app, audit, guard, secrets};

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
    worker.attempts_are_over(WORKER_DRAIN / 4).await;
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
    let places = Places::new(WORKER_CONNECTIONS - WORKER_RESERVE, WORKER_RESERVE);
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

/// Places for connections.
struct Places {
    ordinary: Arc<Semaphore>,
    /// Where only health checks are answered.
    reserve: Arc<Semaphore>,
}

impl Places {
    fn new(ordinary: usize, reserve: usize) -> Self {
        Self { ordinary: Arc::new(Semaphore::new(ordinary)), reserve: Arc::new(Semaphore::new(reserve)) }
    }
}

/// A place for one connection, until it is dropped.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    is_reserve: bool,
}

/// On a place of the reserve.
async fn checks_only(request: Request, next: Next) -> Response {
    if request.uri().path() == guard::HEALTH_CHECK {
        return next.run(request).await;
    }
    let message = "this worker has reached its limit of connections; try again in a second";
    let body = Json(json!({"error": "busy", "message": message}));
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response()
}

async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, Peer, Place) {
    // Holding a place of the reserve ensures that the next connection has one; most give it back at once.
    let reserve = Arc::clone(&places.reserve).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small; waiting to fill a packet would delay each.
                drop(stream.set_nodelay(true));
                let place = match Arc::clone(&places.ordinary).try_acquire_owned() {
                    Ok(permit) => Place { _permit: permit, is_reserve: false },
                    Err(_) => Place { _permit: reserve, is_reserve: true },
                };
                return (stream, Peer(peer), place);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, app: Router, mut draining: watch::Receiver<bool>, place: Place) {
    if place.is_reserve {
        let app = app.layer(from_fn(checks_only));
        // Ends in time for the next check, whatever its other end does.
        drop(tokio::time::timeout(WORKER_CHECK, converse(stream, app, KeepAlive::No, &mut draining)).await);
    } else {
        converse(stream, app, KeepAlive::Yes, &mut draining).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeepAlive {
    Yes,
    No,
}

async fn converse(
    stream: TcpStream,
    app: Router,
    keep_alive: KeepAlive,
    draining: &mut watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(WORKER_IDLE)
        .keep_alive(keep_alive == KeepAlive::Yes)
        .max_headers(WORKER_FIELDS)
        .max_buf_size(WORKER_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = begun(draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Completes when draining begins, or when no sender is left that could begin it.
async fn begun(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
}

async fn drain(connections: &mut JoinSet<()>) -> Stopped {
    let all_done = async { while connections.join_next().await.is_some() {} };
    match tokio::time::timeout(WORKER_DRAIN, all_done).await {
        Ok(()) => Stopped::Drained,
        Err(_elapsed) => Stopped::CutOff(connections.len()),
    }
}

#[cfg(test)]
mod tests {
    use fleet::layers::{CLIENT_HEAD, LB_HEAD};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_the_last_request_but_not_for_ever() {
        let mut connections = JoinSet::new();
        connections.spawn(tokio::time::sleep(WORKER_DRAIN - Duration::from_secs(1)));
        assert_eq!(drain(&mut connections).await, Stopped::Drained);
        connections.spawn(std::future::pending());
        connections.spawn(async {});
        assert_eq!(drain(&mut connections).await, Stopped::CutOff(1));
    }

    /// Sends a request and reads the answer to its end, or for as long as the connection stays open.
    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        ask_with(stream, path, "").await
    }

    /// The same with these header lines.
    async fn ask_with(stream: &mut TcpStream, path: &str, lines: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"done.") && !answer.ends_with(b"\"}") {
            let read = tokio::time::timeout(Duration::from_secs(30), stream.read_buf(&mut answer));
            if read.await.expect("in time").expect("it answers") == 0 {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Serves with these places; each request is answered with `done.`.
    async fn served(places: Places) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let app = Router::new().fallback(async || "done.");
        tokio::spawn(async move {
            let (_drain, draining) = watch::channel(false);
            loop {
                let (stream, _, place) = accept(&listener, &places).await;
                tokio::spawn(serve(stream, app.clone(), draining.clone(), place));
            }
        });
        addr
    }

    #[tokio::test]
    async fn the_last_places_are_for_health_checks() {
        let addr = served(Places::new(1, 1)).await;
        let mut first = TcpStream::connect(addr).await.expect("it listens");
        assert!(ask(&mut first, "/list").await.starts_with("HTTP/1.1 200 "));
        let mut second = TcpStream::connect(addr).await.expect("it listens");
        let refused = ask(&mut second, "/list").await;
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("connection: close"), "{refused}");
        let mut third = TcpStream::connect(addr).await.expect("it listens");
        assert!(ask(&mut third, "/healthcheck").await.starts_with("HTTP/1.1 200 "));
        assert!(ask(&mut first, "/list").await.starts_with("HTTP/1.1 200 "), "ordinary places are kept");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_holds_no_place_of_the_reserve() {
        let addr = served(Places::new(0, 1)).await;
        let mut silent = TcpStream::connect(addr).await.expect("it listens");
        let ended = tokio::time::timeout(2 * WORKER_CHECK, silent.read_u8()).await;
        assert!(ended.expect("its time is over").is_err(), "it was answered");
    }

    #[tokio::test]
    async fn every_head_that_a_load_balancer_may_send_is_read() {
        // One more is `Host`.
        let many = "a: b\r\n".repeat(WORKER_FIELDS - 1);
        let large = format!("a: {}\r\n", "b".repeat(CLIENT_HEAD + LB_HEAD));
        for lines in [many, large] {
            let mut stream = TcpStream::connect(served(Places::new(1, 1)).await).await.expect("it listens");
            let answer = ask_with(&mut stream, "/list", &lines).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{} bytes: {answer}", lines.len());
        }
    }
}
