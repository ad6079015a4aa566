//! A loopback proxy before S3 that fails on purpose: it answers for S3, or lets S3 act and loses
//! the reply.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::http::{HeaderName, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// S3 does not see the request; the client gets this status with this error code.
    Answer(u16, &'static str),
    /// S3 acts, and the connection breaks before the reply.
    LoseReply,
    /// S3 does not see the request, and the connection breaks.
    LoseRequest,
}

pub(crate) const ALWAYS: usize = usize::MAX;

struct Rule {
    method: Method,
    path_part: &'static str,
    skip: usize,
    times: usize,
    fault: Fault,
}

pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    state: Arc<State>,
    /// Stops serving when dropped.
    _tasks: JoinSet<()>,
}

struct State {
    upstream: String,
    http: reqwest::Client,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<String>>,
}

impl Proxy {
    pub(crate) async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            rules: Mutex::default(),
            seen: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&state)));
        Self { endpoint, state, _tasks: tasks }
    }

    /// Fails `times` requests with this method and this text in their path, after `skip` that pass.
    pub(crate) fn fail(
        &self,
        method: Method,
        path_part: &'static str,
        skip: usize,
        times: usize,
        fault: Fault,
    ) {
        self.state.rules.lock().expect("not poisoned").push(Rule { method, path_part, skip, times, fault });
    }

    pub(crate) fn heal(&self) {
        self.state.rules.lock().expect("not poisoned").clear();
    }

    /// How many requests with this method and this text in their path have come.
    pub(crate) fn count(&self, method: &Method, path_part: &str) -> usize {
        let seen = self.state.seen.lock().expect("not poisoned");
        seen.iter().filter(|line| line.starts_with(method.as_str()) && line.contains(path_part)).count()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| handle(Arc::clone(&state), request));
            // An error is a connection broken on purpose.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

type Answer = Result<Response<Full<Bytes>>, std::io::Error>;

async fn handle(state: Arc<State>, request: Request<Incoming>) -> Answer {
    state.seen.lock().expect("not poisoned").push(format!("{} {}", request.method(), request.uri()));
    match state.fault(&request) {
        None => Ok(state.forward(request).await),
        Some(Fault::Answer(status, code)) => {
            // Read first: an answer in the middle of a body would be another fault.
            drop(request.into_body().collect().await);
            let body = format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>");
            let response = Response::builder().status(status).header("content-type", "application/xml");
            Ok(response.body(body.into()).expect("a response"))
        }
        Some(Fault::LoseReply) => {
            drop(state.forward(request).await);
            Err(std::io::Error::other("reply lost on purpose"))
        }
        Some(Fault::LoseRequest) => Err(std::io::Error::other("request lost on purpose")),
    }
}

impl State {
    fn fault(&self, request: &Request<Incoming>) -> Option<Fault> {
        let mut rules = self.rules.lock().expect("not poisoned");
        let path = request.uri().to_string();
        let rule = rules.iter_mut().find(|rule| {
            rule.times > 0 && rule.method == request.method() && path.contains(rule.path_part)
        })?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        if rule.times != ALWAYS {
            rule.times -= 1;
        }
        Some(rule.fault)
    }

    async fn forward(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("a whole request").to_bytes();
        let mut headers = parts.headers;
        for name in ["host", "content-length", "connection"] {
            headers.remove(HeaderName::from_static(name));
        }
        let url = format!("{}{}", self.upstream, parts.uri);
        let reply = self.http.request(parts.method, url).headers(headers).body(body).send().await;
        let reply = reply.expect("the emulator answers");
        let mut response = Response::builder().status(reply.status());
        for (name, value) in reply.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
            response = response.header(name, value);
        }
        response.body(Full::new(reply.bytes().await.expect("a whole reply"))).expect("a response")
    }
}
