//! A loopback proxy before S3 or EC2 that fails on purpose: it answers in the place of AWS, or it lets AWS act and
//! loses or delays the reply.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderName};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// AWS does not see the request; the client gets this status with this error code.
    Answer(u16, &'static str),
    /// AWS acts, and the connection breaks before the reply.
    LoseReply,
    /// AWS does not see the request, and the connection breaks.
    LoseRequest,
    /// AWS acts at once, and the reply comes so much later.
    Delay(Duration),
    /// The head of the reply comes, then half of its body, then nothing.
    StallBody,
}

/// As many times as the client tries.
pub const ALWAYS: usize = usize::MAX;

struct Rule {
    method: Method,
    path_part: &'static str,
    times: usize,
    fault: Fault,
}

pub struct Proxy {
    pub endpoint: String,
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
    pub async fn before(upstream: &str) -> Self {
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

    /// Fails the next `times` requests with this method and this text in their path. Of two rules for a request,
    /// the later one is obeyed.
    pub fn fail(&self, method: Method, path_part: &'static str, times: usize, fault: Fault) {
        self.state.rules.lock().expect("not poisoned").push(Rule { method, path_part, times, fault });
    }

    /// Forgets all rules.
    pub fn heal(&self) {
        self.state.rules.lock().expect("not poisoned").clear();
    }

    /// Returns how many requests with this method and this text in their path have come, failed ones included.
    pub fn count(&self, method: &Method, path_part: &str) -> usize {
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

type Body = BoxBody<Bytes, Infallible>;
type Answer = Result<Response<Body>, std::io::Error>;

async fn handle(state: Arc<State>, request: Request<Incoming>) -> Answer {
    state.seen.lock().expect("not poisoned").push(format!("{} {}", request.method(), request.uri()));
    match state.fault(&request) {
        None => Ok(state.forward(request).await.map(BodyExt::boxed)),
        Some(Fault::Answer(status, code)) => {
            // Read first: an answer in the middle of a body would be another fault.
            drop(request.into_body().collect().await);
            let body = format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>");
            let response = Response::builder().status(status).header("content-type", "application/xml");
            Ok(response.body(Full::from(body).boxed()).expect("a response"))
        }
        Some(Fault::LoseReply) => {
            drop(state.forward(request).await);
            Err(std::io::Error::other("reply lost on purpose"))
        }
        Some(Fault::Delay(delay)) => {
            let reply = state.forward(request).await;
            tokio::time::sleep(delay).await;
            Ok(reply.map(BodyExt::boxed))
        }
        Some(Fault::StallBody) => {
            let (mut parts, body) = state.forward(request).await.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            parts.headers.insert(CONTENT_LENGTH, body.len().into());
            let half = Ok(Frame::data(body.slice(..body.len() / 2)));
            let stalled = StreamBody::new(stream::once(async { half }).chain(stream::pending()));
            Ok(Response::from_parts(parts, BodyExt::boxed(stalled)))
        }
        Some(Fault::LoseRequest) => Err(std::io::Error::other("request lost on purpose")),
    }
}

impl State {
    fn fault(&self, request: &Request<Incoming>) -> Option<Fault> {
        let mut rules = self.rules.lock().expect("not poisoned");
        let path = request.uri().to_string();
        let applies = |rule: &&mut Rule| {
            rule.times > 0 && rule.method == request.method() && path.contains(rule.path_part)
        };
        let rule = rules.iter_mut().rev().find(applies)?;
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
