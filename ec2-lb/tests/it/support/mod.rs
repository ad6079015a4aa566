//! A real load balancer on a free port, fake workers it can route to, and a client.
//!
//! A fake worker is a real HTTP server on a loopback address of its own, so killing it has the real
//! effects: its port refuses and its connections are gone.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use ec2_lb::{
    CertificateSource, CertificateWatch, Config, FetchError, Fetched, Limits, Policy, RegistrySource,
    RunError, Sockets, Version, listen,
};
use fleet::Registry;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Longer than anything takes on a busy machine; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` returns a value that `is_fine`; fails with the last value.
pub(crate) async fn eventually<T: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> T,
    is_fine: impl Fn(&T) -> bool,
) -> T {
    let look = async || {
        let seen = look().await;
        if is_fine(&seen) { Ok(seen) } else { Err(format!("{seen:?}")) }
    };
    testing::wait::eventually(what, PATIENCE, look).await
}

/// Limits for tests that wait for one to be hit.
pub(crate) fn short(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// The default configuration with these limits.
pub(crate) fn with(limits: Limits) -> Config {
    Config { limits, ..Config::new(Policy::P2c) }
}

pub(crate) fn registry(revision: u64, workers: &[(&str, SocketAddr)]) -> Registry {
    let workers: BTreeMap<_, _> =
        workers.iter().map(|(id, addr)| (*id, json!({"addr": addr, "zone": "a"}))).collect();
    serde_json::from_value(json!({
        "revision": revision, "written_at": "2026-01-01T00:00:00Z", "desired": 3, "workers": workers,
    }))
    .expect("a registry")
}

/// A source of workers that a test writes to.
pub(crate) struct Channel(watch::Receiver<Option<Registry>>);

impl RegistrySource for Channel {
    async fn wake(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn fetch(&mut self, _: Option<&Version>) -> Result<Fetched, FetchError> {
        Ok(match self.0.borrow_and_update().clone() {
            Some(registry) => Fetched::Found { registry, version: None },
            None => Fetched::Missing,
        })
    }
}

pub(crate) struct Lb {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) source: watch::Sender<Option<Registry>>,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<Result<(), RunError>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

impl Lb {
    pub(crate) async fn start(limits: Limits, workers: &[&FakeWorker]) -> Self {
        let listed: Vec<_> = workers.iter().map(|worker| (worker.id.as_str(), worker.addr)).collect();
        let lb = Self::with_registry(limits, Some(registry(1, &listed))).await;
        lb.knows(1).await;
        lb
    }

    pub(crate) async fn with_registry(limits: Limits, registry: Option<Registry>) -> Self {
        let (source, seen) = watch::channel(registry);
        Self::launch(with(limits), Channel(seen), source, None).await
    }

    /// A load balancer with an address of its own.
    pub(crate) async fn start_at(listen: SocketAddr, workers: &[&FakeWorker]) -> Self {
        let listed: Vec<_> = workers.iter().map(|worker| (worker.id.as_str(), worker.addr)).collect();
        let (source, seen) = watch::channel(Some(registry(1, &listed)));
        let lb = Self::launch_at(listen, with(Limits::default()), Channel(seen), source, None).await;
        lb.knows(1).await;
        lb
    }

    pub(crate) async fn with_source(limits: Limits, source: impl RegistrySource) -> Self {
        Self::launch(with(limits), source, watch::Sender::new(None), None).await
    }

    pub(crate) async fn with_config(
        config: Config,
        tls: Option<CertificateSource>,
        workers: &[&FakeWorker],
    ) -> Self {
        let listed: Vec<_> = workers.iter().map(|worker| (worker.id.as_str(), worker.addr)).collect();
        let (source, seen) = watch::channel(Some(registry(1, &listed)));
        let lb = Self::launch(config, Channel(seen), source, tls).await;
        lb.knows(1).await;
        lb
    }

    async fn launch(
        config: Config,
        from: impl RegistrySource,
        source: watch::Sender<Option<Registry>>,
        tls: Option<CertificateSource>,
    ) -> Self {
        let listen = "127.0.0.1:0".parse().expect("valid");
        Self::launch_at(listen, config, from, source, tls).await
    }

    async fn launch_at(
        listen: SocketAddr,
        config: Config,
        from: impl RegistrySource,
        source: watch::Sender<Option<Registry>>,
        tls: Option<CertificateSource>,
    ) -> Self {
        let plain = listen::bind(listen, 2).expect("a free port");
        let admin = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (addr, admin_addr) = (plain[0].local_addr().expect("bound"), admin.local_addr().expect("bound"));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let tls = tls.map(|source| {
            let listeners = listen::bind("127.0.0.1:0".parse().expect("valid"), 2).expect("a free port");
            (listeners, CertificateWatch::new(source))
        });
        let tls_addr = tls.as_ref().map(|(listeners, _)| listeners[0].local_addr().expect("bound"));
        let sockets = Sockets { plain, tls, admin };
        let task = tokio::spawn(ec2_lb::run(config, sockets, from, shutdown));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { addr, tls: tls_addr, admin: admin_addr, source, stop: Some(stop), task, client }
    }

    /// Waits until the table has this revision.
    pub(crate) async fn knows(&self, revision: u64) {
        let is_known = |view: &Value| view["revision"] == revision;
        eventually("the registry is known", async || self.view().await, is_known).await;
    }

    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).expect("the load balancer runs");
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr))
            .body(Full::new(body.into()))
            .expect("a request");
        self.request(request).await
    }

    pub(crate) async fn request(&self, request: Request<Full<Bytes>>) -> Answer {
        collect(self.open(request).await).await
    }

    /// Sends a request and gives the response as soon as its head is there.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        tokio::time::timeout(PATIENCE, self.client.request(request))
            .await
            .expect("an answer comes")
            .expect("the answer is HTTP")
    }

    pub(crate) async fn admin(&self, method: Method, path: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin))
            .body(Full::default())
            .expect("a request");
        self.request(request).await
    }

    pub(crate) async fn view(&self) -> Value {
        self.admin(Method::GET, "/view").await.json()
    }

    /// A connection from 127.0.0.`host`.
    pub(crate) async fn connect_from(&self, host: u8) -> TcpStream {
        connect_from(host, self.addr).await
    }

    /// Sends bytes as they are and reads until the connection ends.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.expect("it listens");
        stream.write_all(bytes).await.expect("it reads");
        read_to_end(&mut stream).await
    }
}

/// A connection from 127.0.0.`host`.
pub(crate) async fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a descriptor");
    socket.bind(format!("127.0.0.{host}:0").parse().expect("valid")).expect("an address of this machine");
    socket.connect(to).await.expect("it listens")
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stays open after {:?}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `end` has come.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, async {
        while !String::from_utf8_lossy(&answer).contains(end) {
            assert!(stream.read_buf(&mut answer).await.expect("it writes") > 0, "the connection ended early");
        }
    });
    let is_done = read.await.is_ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(is_done, "{end:?} never came after {answer:?}");
    answer
}

pub(crate) async fn collect(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the body ends");
    Answer { status: parts.status, headers: parts.headers, body: body.expect("the body is whole").to_bytes() }
}

/// A request as a worker saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The other end of the connection.
    pub(crate) from: SocketAddr,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// `Err` makes the worker close the connection without an answer.
pub(crate) type Handled = Result<Response<Stream>, io::Error>;

/// A body that the test writes piece by piece; an `Err` breaks it off.
pub(crate) struct Stream(mpsc::Receiver<Result<Bytes, io::Error>>);

impl Stream {
    pub(crate) fn new() -> (mpsc::Sender<Result<Bytes, io::Error>>, Self) {
        let (write, read) = mpsc::channel(1);
        (write, Self(read))
    }

    pub(crate) fn of(bytes: impl Into<Bytes>) -> Self {
        let (write, stream) = Self::new();
        write.try_send(Ok(bytes.into())).expect("there is room for one");
        stream
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

pub(crate) fn ok(text: &str) -> Handled {
    Ok(Response::new(Stream::of(text.to_owned())))
}

pub(crate) struct FakeWorker {
    pub(crate) id: String,
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

impl FakeWorker {
    /// A worker at 127.0.0.`host` that answers `/healthcheck` by itself and the rest by `handle`.
    pub(crate) async fn start<F, H>(host: u8, handle: H) -> Self
    where
        F: Future<Output = Handled> + Send + 'static,
        H: Fn(Seen) -> F + Send + Sync + 'static,
    {
        Self::start_at(format!("127.0.0.{host}:0").parse().expect("valid"), handle).await
    }

    pub(crate) async fn start_at<F, H>(addr: SocketAddr, handle: H) -> Self
    where
        F: Future<Output = Handled> + Send + 'static,
        H: Fn(Seen) -> F + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(serve(listener, Arc::clone(&shared), Arc::new(handle)));
        Self { id: id_of(addr), addr, shared, task }
    }

    /// A worker that answers every request with its own id.
    pub(crate) async fn healthy(host: u8) -> Self {
        Self::start(host, move |_| async move { ok(&format!("i-{host}")) }).await
    }

    /// A worker that answers one request with a body that the test writes. A second request breaks it: a started
    /// response is not retried.
    pub(crate) async fn streaming(host: u8) -> (mpsc::Sender<Result<Bytes, io::Error>>, Self) {
        let (write, stream) = Stream::new();
        let stream = Mutex::new(Some(stream));
        let handle = move |_| {
            let stream = stream.lock().expect("not poisoned").take().expect("asked once");
            async { Ok(Response::new(stream)) }
        };
        (write, Self::start(host, handle).await)
    }

    /// A worker that accepts connections and never says a word.
    pub(crate) async fn hung(host: u8) -> Self {
        let listener = TcpListener::bind(format!("127.0.0.{host}:0")).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let counted = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::Relaxed);
                held.push(stream);
            }
        });
        Self { id: id_of(addr), addr, shared, task }
    }

    /// A worker that reads requests and answers nothing, not even health checks.
    pub(crate) async fn mute(host: u8) -> Self {
        let listener = TcpListener::bind(format!("127.0.0.{host}:0")).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let recorded = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, from)) = listener.accept().await {
                let recorded = Arc::clone(&recorded);
                connections.spawn(async move {
                    let head = read_until(&mut stream, "\r\n\r\n").await;
                    let mut words = head.split(' ').map(str::to_owned);
                    let method = words.next().and_then(|word| word.parse().ok()).expect("a method");
                    let path = words.next().expect("a path");
                    if path != "/healthcheck" {
                        let (headers, body) = (HeaderMap::new(), Bytes::new());
                        let seen = Seen { from, method, path, headers, body };
                        recorded.seen.lock().expect("not poisoned").push(seen);
                    }
                    // Open until the other end gives up.
                    drop(stream.read(&mut [0; 9]).await);
                });
            }
        });
        Self { id: id_of(addr), addr, shared, task }
    }

    /// Its port refuses and its connections are gone, as after `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.task.abort();
        let ended = (&mut self.task).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the worker lived until now");
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("not poisoned").clone()
    }

    pub(crate) fn arrivals(&self) -> usize {
        self.seen().len()
    }

    /// Connections that carried a request, health checks apart.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn id_of(addr: SocketAddr) -> String {
    let SocketAddr::V4(addr) = addr else { panic!("fake workers are on IPv4") };
    format!("i-{}", addr.ip().octets()[3])
}

async fn serve<F, H>(listener: TcpListener, shared: Arc<Shared>, handle: Arc<H>)
where
    F: Future<Output = Handled> + Send + 'static,
    H: Fn(Seen) -> F + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        let (shared, handle) = (Arc::clone(&shared), Arc::clone(&handle));
        connections.spawn(async move {
            let is_counted = AtomicUsize::new(0);
            let service = service_fn(async |request: Request<Incoming>| {
                let (parts, body) = request.into_parts();
                let path = parts.uri.to_string();
                if path == "/healthcheck" {
                    return ok("ok");
                }
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                let seen = Seen { from, method: parts.method, path, headers: parts.headers, body };
                shared.seen.lock().expect("not poisoned").push(seen.clone());
                if is_counted.fetch_add(1, Ordering::Relaxed) == 0 {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                }
                handle(seen).await
            });
            // As a worker's.
            let server = http1::Builder::new()
                .max_headers(fleet::layers::WORKER_FIELDS)
                .max_buf_size(fleet::layers::WORKER_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            drop(server.await);
        });
    }
}
