//! The admin port: health, metrics, the state of each worker, and the request to read the registry now.
//!
//! Nothing here is authenticated: the security group lets only the reconciler in, and a request can change
//! nothing except the time of the next read of the registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::discovery::{Refresh, Refreshed};
use crate::metrics::Metrics;
use crate::prometheus;
use crate::table::Fleet;

/// One read answers all waiting requests, so more than a few of them are a client's mistake.
pub(crate) const MAX_WAITING_REFRESHES: usize = 64;

/// Time for two reads, each with its own timeout: the one in progress and the requested one.
const REFRESH_PATIENCE: Duration = Duration::from_secs(12);

#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) refresh: mpsc::Sender<Refresh>,
    /// When the program started.
    pub(crate) started: Instant,
}

/// Serves for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/view", get(view))
        .route("/refresh", post(refresh))
        .with_state(admin);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin port failed");
    }
}

/// Answers 503 until the registry was reached once: a load balancer without a list could only refuse, and
/// must not take the address from one with a list. Afterwards the last list stays even when S3 fails, and
/// so the answer stays 200. The reconciler finds restarts by `uptime_seconds`.
async fn healthz(State(admin): State<Admin>) -> Response {
    let (code, status) = match admin.fleet.is_ready() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the registry was not reached yet"),
    };
    let (revision, age) = (admin.fleet.revision(), age_seconds(&admin.fleet));
    let uptime = admin.started.elapsed().as_secs();
    let health =
        json!({"status": status, "revision": revision, "age_seconds": age, "uptime_seconds": uptime});
    (code, Json(health)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], prometheus::text(&admin.metrics, &admin.fleet))
}

async fn view(State(admin): State<Admin>) -> Json<Value> {
    let now = Instant::now();
    let workers: Map<String, Value> = admin
        .fleet
        .table()
        .workers
        .iter()
        .map(|worker| {
            let seen = json!({
                "addr": worker.addr,
                "in_flight": worker.in_flight(),
                "ejected": worker.is_out(now),
                "draining": worker.is_draining(),
                "requests": worker.requests(),
                "failures": worker.failures(),
            });
            (worker.id.to_string(), seen)
        })
        .collect();
    Json(json!({
        "revision": admin.fleet.revision(),
        "age_seconds": age_seconds(&admin.fleet),
        "workers": workers,
    }))
}

async fn refresh(State(admin): State<Admin>) -> Response {
    let (ask, answer) = oneshot::channel();
    let refreshed = match admin.refresh.try_send(ask) {
        Ok(()) => timeout(REFRESH_PATIENCE, answer).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    match refreshed {
        Some(Refreshed { revision, trouble: None }) => Json(json!({"revision": revision})).into_response(),
        Some(Refreshed { revision, trouble: Some(trouble) }) => unavailable(revision, &trouble),
        None => unavailable(admin.fleet.revision(), "the registry was not looked at in time"),
    }
}

fn unavailable(revision: Option<u64>, trouble: &str) -> Response {
    let message = format!("{trouble}; the last list of workers stays in force");
    let body = json!({"error": "registry_not_refreshed", "message": message, "revision": revision});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

fn age_seconds(fleet: &Fleet) -> Option<f64> {
    // Milliseconds are exact enough.
    fleet.age().map(|age| (age.as_secs_f64() * 1000.0).round() / 1000.0)
}
