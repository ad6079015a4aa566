//! Lambda's runtime API, for one function: it requests the next invocation, waits, and reports the result.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};

/// As configured for the function.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(55);

/// The Lambda runtime's end: the function's results, and its next event.
pub struct Runtime {
    events: mpsc::Sender<String>,
    pub said: mpsc::Receiver<Said>,
}

/// The function's message, and its time.
#[derive(Debug)]
pub enum Said {
    /// It waits for an invocation.
    Ready(Instant),
    Done(Instant, Bytes),
    Failed(Bytes),
}

struct Api {
    events: Mutex<mpsc::Receiver<String>>,
    said: mpsc::Sender<Said>,
}

impl Runtime {
    /// Serves in the background until the task is dropped.
    pub fn start(listener: TcpListener, tasks: &mut tokio::task::JoinSet<()>) -> Self {
        let (events, to_do) = mpsc::channel(1);
        let (say, said) = mpsc::channel(16);
        let api = Arc::new(Api { events: Mutex::new(to_do), said: say });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state(api);
        tasks.spawn(async move {
            axum::serve(listener, router).await.ok();
        });
        Self { events, said }
    }

    pub async fn invoke(&self, event: String) -> anyhow::Result<()> {
        Ok(self.events.send(event).await?)
    }
}

async fn next(State(api): State<Arc<Api>>) -> Response {
    api.said.send(Said::Ready(Instant::now())).await.ok();
    let Some(event) = api.events.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let deadline = SystemTime::now() + FUNCTION_TIMEOUT;
    let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:123456789012:function:bench".to_owned(),
        ),
        ("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700".to_owned()),
        ("content-type", "application/json".to_owned()),
    ];
    (headers, event).into_response()
}

async fn response(State(api): State<Arc<Api>>, Path(_): Path<String>, body: Bytes) -> StatusCode {
    api.said.send(Said::Done(Instant::now(), body)).await.ok();
    StatusCode::ACCEPTED
}

async fn error(State(api): State<Arc<Api>>, Path(_): Path<String>, body: Bytes) -> StatusCode {
    api.said.send(Said::Failed(body)).await.ok();
    StatusCode::ACCEPTED
}

async fn init_error(State(api): State<Arc<Api>>, body: Bytes) -> StatusCode {
    api.said.send(Said::Failed(body)).await.ok();
    StatusCode::ACCEPTED
}
