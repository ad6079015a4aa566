//! TLS on a second port, and a certificate that is replaced while it is served.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support;
use crate::support::{FakeWorker, Lb, eventually, ok, read_until, short, with};
use ec2_lb::{CertificateSource, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The log lines of one thread, on which a test and all tasks of its load balancer run.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects this thread's lines until the guard is dropped.
    fn follow_this_thread(&self) -> tracing::dispatcher::DefaultGuard {
        let log = self.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone());
        tracing::subscriber::set_default(lines.finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a new self-signed certificate, and returns its source and a client that trusts it.
fn issue(dir: &Path) -> (CertificateSource, ClientConfig) {
    let issued = rcgen::generate_simple_self_signed(["lb.test".to_owned()]).expect("a certificate");
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, issued.cert.pem()).expect("written");
    std::fs::write(&key, issued.signing_key.serialize_pem()).expect("written");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(issued.cert.der().to_vec())).expect("a root");
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (CertificateSource::Files { certificate, key }, client)
}

/// Handshakes as soon as the load balancer has read the certificate.
async fn connect_in_time(lb: &Lb, client: &ClientConfig) -> TlsStream<TcpStream> {
    eventually("there is a certificate", async || connect(lb, client).await, Result::is_ok)
        .await
        .expect("a handshake")
}

async fn connect(lb: &Lb, client: &ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(lb.tls.expect("TLS is spoken")).await?;
    let name = ServerName::try_from("lb.test").expect("a name");
    TlsConnector::from(Arc::new(client.clone())).connect(name, stream).await
}

async fn exchange(stream: &mut TlsStream<TcpStream>, request: &[u8]) -> String {
    stream.write_all(request).await.expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("it ends with a word");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn tls_and_plain_text_are_served_at_once() {
    let worker = FakeWorker::start(61, |seen| async move {
        let proto = seen.headers["x-forwarded-proto"].to_str().unwrap_or_default().to_owned();
        ok(&format!("{} {proto}", seen.body.len()))
    })
    .await;
    let dir = tempfile::tempdir().expect("a directory");
    let (files, client) = issue(dir.path());
    let lb = Lb::with_config(with(Limits::default()), Some(files), &[&worker]).await;
    let mut stream = connect_in_time(&lb, &client).await;
    let large =
        [&b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"[..], &[b'x'; 300_000]].concat();
    let request = [&large[..], b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
    let answer = exchange(&mut stream, &request).await;
    assert!(answer.contains("300000 https") && answer.contains("0 https"), "{answer}");
    assert_eq!(lb.get("/").await.text(), "0 http");
}

#[tokio::test]
async fn a_large_response_passes_a_client_that_reads_slowly() {
    const SIZE: usize = 3_000_000;
    let worker = FakeWorker::start(62, |_| async { ok(&"x".repeat(SIZE)) }).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (files, client) = issue(dir.path());
    let lb = Lb::with_config(with(Limits::default()), Some(files), &[&worker]).await;
    let mut stream = connect_in_time(&lb, &client).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let (mut buffer, mut received) = (vec![0; 100_000], 0);
    while let count @ 1.. = stream.read(&mut buffer).await.expect("it ends with a word") {
        received += buffer[..count].iter().filter(|byte| **byte == b'x').count();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The head has an `x` or two as well.
    assert!((SIZE..SIZE + 20).contains(&received), "{received}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_its_worker_not_blamed() {
    // More than all buffers on the way hold.
    let worker = FakeWorker::start(65, |_| async { ok(&"x".repeat(30_000_000)) }).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (files, client) = issue(dir.path());
    let limits = short(|limits| {
        limits.client_pause = Duration::from_millis(200);
        limits.reply_pause = Duration::from_millis(200);
    });
    let lb = Lb::with_config(with(limits), Some(files), &[&worker]).await;
    let mut deaf = connect_in_time(&lb, &client).await;
    deaf.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    eventually("the worker is asked", async || worker.arrivals(), |arrivals| *arrivals == 1).await;
    let is_over = |view: &serde_json::Value| view["workers"]["i-65"]["in_flight"] == 0;
    let view = eventually("the request is over", async || lb.view().await, is_over).await;
    assert_eq!(view["workers"]["i-65"]["failures"], 0);
}

#[tokio::test]
async fn a_new_certificate_needs_no_restart_and_a_bad_one_is_refused() {
    let worker = FakeWorker::healthy(63).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (files, old) = issue(dir.path());
    let limits = short(|limits| limits.certificate_every = Duration::from_millis(50));
    let log = Log::default();
    let _guard = log.follow_this_thread();
    let lb = Lb::with_config(with(limits), Some(files), &[&worker]).await;
    let mut open = connect_in_time(&lb, &old).await;

    std::fs::write(dir.path().join("key.pem"), "not a key").expect("written");
    let is_rejected = |log: &String| log.contains("the certificate cannot be used");
    eventually("the bad key is read and rejected", async || log.text(), is_rejected).await;
    connect(&lb, &old).await.expect("the old certificate is still in force");

    let (_, new) = issue(dir.path());
    let is_new = async || connect(&lb, &new).await.is_ok();
    eventually("the new certificate is served", is_new, |is_new| *is_new).await;
    assert!(connect(&lb, &old).await.is_err(), "the old certificate is gone");
    let answer = exchange(&mut open, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("i-63\r\n0\r\n\r\n"), "open connections go on: {answer}");
}

#[tokio::test]
async fn the_tls_port_cuts_endless_handshakes_and_plain_text() {
    let worker = FakeWorker::healthy(64).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (files, _) = issue(dir.path());
    let limits = short(|limits| limits.head = Duration::from_millis(100));
    let lb = Lb::with_config(with(limits), Some(files), &[&worker]).await;
    let addr = lb.tls.expect("TLS is spoken");
    let mut silent = TcpStream::connect(addr).await.expect("it listens");
    assert_eq!(support::read_to_end(&mut silent).await, "");
    let mut plain = TcpStream::connect(addr).await.expect("it listens");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    let answer = support::read_to_end(&mut plain).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    let mut plain = TcpStream::connect(lb.addr).await.expect("it listens");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    read_until(&mut plain, "i-64").await;
}

#[tokio::test]
async fn handshakes_of_one_address_leave_room_for_others() {
    let worker = FakeWorker::healthy(67).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (source, client) = issue(dir.path());
    // On each of two threads: two for each address, and eight in all.
    let limits = short(|limits| (limits.handshakes, limits.head) = (16, support::PATIENCE));
    let lb = Lb::with_config(with(limits), Some(source), &[&worker]).await;
    drop(connect_in_time(&lb, &client).await);
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(support::connect_from(83, lb.tls.expect("TLS is spoken")).await);
    }
    let metrics = async || lb.admin(hyper::Method::GET, "/metrics").await.text().to_owned();
    let is_full = |metrics: &String| metrics.contains("vigia_lb_handshakes 4\n");
    eventually("the greedy one has its share", metrics, is_full).await;
    let mut stream = connect_in_time(&lb, &client).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(exchange(&mut stream, request).await.starts_with("HTTP/1.1 200 "));
}
