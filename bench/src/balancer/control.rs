//! The bucket with the registry: the part of S3 that the load balancer reads. One object, its ETag, and 304
//! for a reader that has it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use fleet::registry::RegisteredWorker;
use fleet::{DesiredCount, Registry, WorkerAddr, WorkerId, keys};
use jiff::Timestamp;
use tokio::runtime::Runtime;

pub const BUCKET: &str = "control";

/// Serves in a thread of its own until it is dropped.
pub struct Control {
    pub addr: SocketAddr,
    registry: Arc<Mutex<Registry>>,
    _runtime: Runtime,
}

impl Control {
    pub fn start(addr: SocketAddr) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let registry = Arc::new(Mutex::new(Registry {
            revision: 0,
            written_at: Timestamp::now(),
            desired: DesiredCount::try_from(1).context("one may be desired")?,
            notice: None,
            workers: BTreeMap::new(),
        }));
        let path = format!("/{BUCKET}/{}", keys::REGISTRY);
        let router = Router::new().route(&path, get(answer)).with_state(Arc::clone(&registry));
        let listener = runtime.block_on(tokio::net::TcpListener::bind(addr))?;
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { addr, registry, _runtime: runtime })
    }

    /// Publishes the next revision, with these workers.
    pub fn publish(&self, workers: &[SocketAddr]) -> anyhow::Result<()> {
        let listed = workers.iter().map(|addr| {
            let id: WorkerId = format!("i-{:x}", addr.port()).parse()?;
            Ok((id, RegisteredWorker { addr: WorkerAddr(*addr), zone: "us-east-1a".to_owned() }))
        });
        let listed: anyhow::Result<BTreeMap<_, _>> = listed.collect();
        let mut registry = self.registry.lock().expect("no thread panics with it");
        registry.workers = listed?;
        registry.revision += 1;
        registry.written_at = Timestamp::now();
        Ok(())
    }
}

async fn answer(State(registry): State<Arc<Mutex<Registry>>>, headers: HeaderMap) -> Response {
    let registry = registry.lock().expect("no thread panics with it").clone();
    let etag = format!("\"{}\"", registry.revision);
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response();
    }
    let body = serde_json::to_vec(&registry).expect("a registry is plain data");
    ([(ETAG, etag)], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::super::ports::Ports;
    use super::*;

    fn ask(control: &Control, known: &str) -> String {
        let mut stream = TcpStream::connect(control.addr).expect("it listens");
        let request = format!(
            "GET /{BUCKET}/{} HTTP/1.1\r\nHost: a\r\nIf-None-Match: {known}\r\nConnection: close\r\n\r\n",
            keys::REGISTRY
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    #[test]
    fn a_reader_gets_the_registry_unless_it_has_it() {
        let addr = Ports::new().take().expect("some are free");
        let control = Control::start(addr).expect("it can be started");
        control.publish(&["127.0.0.1:8080".parse().expect("valid")]).expect("an address");
        let answer = ask(&control, "\"0\"");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("etag: \"1\""), "{head}");
        let registry: Registry = serde_json::from_str(body).expect("a registry");
        assert_eq!((registry.revision, registry.workers.len()), (1, 1));
        assert!(ask(&control, "\"1\"").starts_with("HTTP/1.1 304"));
    }
}
