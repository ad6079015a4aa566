//! The active health check: once a second, each worker in the table, over a connection of its own.
//!
//! It finds a fault before requests meet it, and brings an ejected worker back. When a request gets no
//! answer, the worker is checked at once, whether or not the table still lists it. The check never decides
//! whether a worker is replaced: the reconciler does, with probes of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, timeout};

use crate::limits::Limits;
use crate::table::Fleet;
use crate::upstream::{self, DialError};
use crate::worker::Worker;

const PATH: &str = "/healthcheck";

enum Verdict {
    Passed,
    /// Not in time, or not with success.
    Missed,
    Refused,
    /// The check itself could not be made.
    Unknown,
}

/// Checks for as long as it is polled.
pub(crate) async fn watch(fleet: &Fleet, limits: &Limits) {
    tokio::join!(watch_all(fleet, limits), watch_suspects(fleet, limits));
}

async fn watch_all(fleet: &Fleet, limits: &Limits) {
    // The registry lists whom the reconciler has just seen well; the first look can wait.
    let mut rounds = interval_at(tokio::time::Instant::now() + limits.check_every, limits.check_every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let mut checks = JoinSet::new();
        for worker in &fleet.table().workers {
            let (worker, patience) = (Arc::clone(worker), limits.check_timeout);
            checks.spawn(async move {
                match check(&worker, patience).await {
                    Verdict::Passed => worker.check_passed(),
                    Verdict::Missed => worker.check_missed(),
                    Verdict::Refused => worker.check_refused(),
                    Verdict::Unknown => {}
                }
            });
        }
        // Each ends within `check_timeout`.
        while checks.join_next().await.is_some() {}
    }
}

/// Checks workers that requests suspect. The requests decide what a silence means for the worker.
async fn watch_suspects(fleet: &Fleet, limits: &Limits) {
    loop {
        let mut checks = JoinSet::new();
        for worker in fleet.suspects().await {
            let patience = limits.check_timeout;
            checks.spawn(async move { check(&worker, patience).await });
        }
        while checks.join_next().await.is_some() {}
    }
}

async fn check(worker: &Worker, patience: Duration) -> Verdict {
    let began_ms = worker.now_ms();
    let verdict = timeout(patience, probe(worker)).await.unwrap_or(Verdict::Missed);
    match verdict {
        Verdict::Passed => worker.checked(began_ms, true),
        Verdict::Missed | Verdict::Refused => worker.checked(began_ms, false),
        Verdict::Unknown => {}
    }
    verdict
}

async fn probe(worker: &Worker) -> Verdict {
    let stream = match upstream::dial(worker.addr, None).await {
        Ok(stream) => stream,
        Err(DialError::Refused(_)) => return Verdict::Refused,
        Err(DialError::TimedOut) => return Verdict::Missed,
        Err(DialError::Ours(_)) => return Verdict::Unknown,
    };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return Verdict::Refused;
    };
    let Ok(request) = Request::get(PATH).header(HOST, &worker.authority).body(Empty::<Bytes>::new()) else {
        return Verdict::Unknown;
    };
    let connection = async {
        // The exchange on it gets its errors.
        drop(connection.await);
        std::future::pending::<Infallible>().await
    };
    let answered = tokio::select! {
        answered = sender.send_request(request) => answered,
        never = connection => match never {},
    };
    match answered {
        Ok(response) if response.status() == StatusCode::OK => Verdict::Passed,
        Ok(_) => Verdict::Missed,
        Err(_) => Verdict::Refused,
    }
}
