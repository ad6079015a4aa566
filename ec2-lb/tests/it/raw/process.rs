//! The program as an instance runs it, with a registry in an S3 of our own that lists one worker.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::message;
use super::server::Server;
use super::split::Split;
use super::{PATIENCE, latin1};

pub(crate) struct LoadBalancer {
    pub(crate) addr: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    _s3: Server,
}

impl LoadBalancer {
    /// Starts the program and waits until it knows the worker.
    pub(crate) fn start(program: &str, worker: SocketAddr) -> Self {
        let s3 = s3_with(worker);
        let (addr, admin) = addresses();
        let mut child = Command::new(program)
            .env_clear()
            .env("VIGIA_STACK", "vigia")
            .env("VIGIA_CONTROL_BUCKET", "control")
            .env("VIGIA_LISTEN", addr.to_string())
            .env("VIGIA_ADMIN_LISTEN", admin.to_string())
            .env("VIGIA_LOG", "info")
            .env("AWS_ENDPOINT_URL", format!("http://{}", s3.addr))
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "key")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = Arc::<Mutex<Vec<u8>>>::default();
        let (mut stderr, written) = (child.stderr.take().expect("piped"), Arc::clone(&log));
        // Ends with the process.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut piece) {
                written.lock().expect("not poisoned").extend_from_slice(&piece[..read]);
            }
        });
        let lb = Self { addr, child, log, _s3: s3 };
        lb.await_revision(admin);
        lb
    }

    fn await_revision(&self, admin: SocketAddr) {
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            let health = health(admin);
            if health.as_ref().is_some_and(|health| health["revision"] == 1) {
                return;
            }
            let log = self.log();
            assert!(
                Instant::now() < deadline,
                "waited in vain until it is ready: {health:?}; it said\n{log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that the process has now.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Returns the log that it has written so far.
    pub(crate) fn log(&self) -> String {
        latin1(&self.log.lock().expect("not poisoned"))
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        // It may have died by itself, which the test has noticed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn health(admin: SocketAddr) -> Option<serde_json::Value> {
    TcpStream::connect(admin).ok()?;
    let mut client = Client::connect(admin);
    client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Split::Whole);
    let reading = client.read(&[], |reading| reading.finals().count() == 1);
    serde_json::from_str(&reading.responses.first()?.body.content).ok()
}

/// Returns two free ports of a loopback address that other programs are unlikely to use.
fn addresses() -> (SocketAddr, SocketAddr) {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = format!("127.{}.{high}.{low}:0", 100 + NEXT.fetch_add(1, Ordering::Relaxed) % 100);
    let bind = || TcpListener::bind(&host).expect("a free port");
    let (one, other) = (bind(), bind());
    (one.local_addr().expect("bound"), other.local_addr().expect("bound"))
}

/// Gives the registry, or says that it is still the same.
fn s3_with(worker: SocketAddr) -> Server {
    let registry = json!({
        "revision": 1, "written_at": "2026-01-01T00:00:00Z", "desired": 1,
        "workers": {"i-1": {"addr": worker, "zone": "a"}},
    });
    let registry = registry.to_string();
    Server::start(move |mut stream, _| {
        let (mut received, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            match message::request(&received) {
                Ok(Some((request, length))) => {
                    received.drain(..length);
                    let is_held = request.fields.all("if-none-match") == ["\"1\""];
                    let is_registry = request.target.starts_with("/control/fleet/registry.json");
                    let length = registry.len();
                    let answer = match (is_registry, is_held) {
                        (false, _) => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                        (true, true) => "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n".to_owned(),
                        (true, false) => format!(
                            "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: {length}\r\n\r\n{registry}"
                        ),
                    };
                    drop(Split::Whole.write(stream, answer.as_bytes()));
                    continue;
                }
                Ok(None) => {}
                Err(_) => return,
            }
            match stream.read(&mut piece) {
                Ok(read @ 1..) => received.extend_from_slice(&piece[..read]),
                Ok(0) | Err(_) => return,
            }
        }
    })
}
