//! The active health check: once a second, each worker in the table, over a connection of its own.
//!
//! It finds what requests would find, before they do, and brings an ejected worker back. It never
//! decides about the worker's life: that is the reconciler's, which probes by itself.

use std::sync::Arc;
use std::time::Instant;

use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, timeout};

use crate::limits::Limits;
use crate::request_body::{Payload, RequestBody};
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
    // The registry lists whom the reconciler has just seen well; the first look can wait.
    let mut rounds = interval_at(tokio::time::Instant::now() + limits.check_every, limits.check_every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let mut checks = JoinSet::new();
        for worker in &fleet.table().workers {
            worker.pool.sweep(Instant::now(), limits.idle_worker);
            checks.spawn(check(Arc::clone(worker), limits.clone()));
        }
        // Each ends within `check_timeout`.
        while checks.join_next().await.is_some() {}
    }
}

async fn check(worker: Arc<Worker>, limits: Limits) {
    match timeout(limits.check_timeout, probe(&worker, &limits)).await.unwrap_or(Verdict::Missed) {
        Verdict::Passed => worker.check_passed(),
        Verdict::Missed => worker.check_missed(),
        Verdict::Refused => worker.check_refused(),
        Verdict::Unknown => {}
    }
}

async fn probe(worker: &Worker, limits: &Limits) -> Verdict {
    let mut sender = match upstream::dial(worker.addr, limits.check_timeout).await {
        Ok(sender) => sender,
        Err(DialError::Refused(_)) => return Verdict::Refused,
        Err(DialError::TimedOut) => return Verdict::Missed,
        Err(DialError::Ours(_)) => return Verdict::Unknown,
    };
    let mut request = Request::new(RequestBody::Whole(None));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = hyper::Uri::from_static(PATH);
    if let Ok(host) = HeaderValue::from_str(&worker.addr.to_string()) {
        request.headers_mut().insert(HOST, host);
    }
    let mut payload = Payload::Whole(hyper::body::Bytes::new());
    let deadline = Instant::now() + limits.check_timeout;
    match upstream::exchange(&mut sender, request, &mut payload, limits, deadline).await {
        Ok(response) if response.status() == StatusCode::OK => Verdict::Passed,
        Ok(_) => Verdict::Missed,
        Err(crate::retry::Failure::Silent) => Verdict::Missed,
        Err(_) => Verdict::Refused,
    }
}
