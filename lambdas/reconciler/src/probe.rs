//! Asks workers and load balancers whether they are alive.
//!
//! One lost packet must not cost a worker, so a silence or a refusal is asked again: three tries
//! spread over three seconds are longer than systemd takes to restart a program. The request is
//! written by hand: the status and a name are all that matters of the answer, and a function with a
//! fraction of a core has a thousand of them to ask.
//!
//! An address may belong to another worker by now. A worker names itself when asked; if it names
//! another one, the one that was meant has not answered.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleet::WorkerId;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use reconciler_core::observation::{Probe, Role, Target, admin_addr};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

/// From the start of one try to the start of the next.
const SPACING: Duration = Duration::from_millis(1500);
/// A worker answers its health check from memory, in well under a millisecond.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Sockets open at a time: a whole fleet of 100 in one go. Lambda allows a thousand; more at once
/// would only wait longer for the function's share of a core, and that looks like silence.
const CONCURRENCY: usize = 128;
/// When asking ends: what was planned 15 s after its survey began is not acted on. Whoever was not
/// asked by then is not judged.
const DEADLINE: Duration = Duration::from_secs(8);
/// Read of an answer. A worker's is under 300 bytes, the load balancer's as well; at half of this a
/// few more headers would push the name out.
const MAX_ANSWER_BYTES: u64 = 2048;

pub struct Prober {
    sockets: Semaphore,
}

impl Default for Prober {
    fn default() -> Self {
        Self { sockets: Semaphore::new(CONCURRENCY) }
    }
}

impl Prober {
    /// Asks everybody at the same time, up to `tries` times each. Those for whom there was no time
    /// are not in the result.
    pub async fn probe_all(&self, targets: Vec<Target>, tries: u32) -> Vec<(WorkerId, Probe)> {
        let end = Instant::now() + DEADLINE;
        let asked: FuturesUnordered<_> = targets
            .into_iter()
            .map(|target| async move {
                let probe = self.probe(&target, tries, end).await?;
                Some((target.id, probe))
            })
            .collect();
        asked.filter_map(|probe| async move { probe }).collect().await
    }

    async fn probe(&self, target: &Target, tries: u32, end: Instant) -> Option<Probe> {
        let mut verdict = Probe::Refused;
        let mut next = Instant::now();
        for _ in 0..tries {
            sleep_until(next).await;
            next += SPACING;
            let _socket = self.sockets.acquire().await.ok()?;
            if Instant::now() >= end {
                return None;
            }
            match check(target).await {
                Probe::Answered => return Some(Probe::Answered),
                Probe::Silent => verdict = Probe::Silent,
                Probe::Refused => {}
            }
        }
        Some(verdict)
    }

    /// Tells load balancers that there is something new to read.
    pub async fn refresh_all(&self, balancers: Vec<IpAddr>) {
        let told = balancers.into_iter().map(|ip| async move {
            let addr = admin_addr(ip);
            if ask(addr.0, "POST", "/refresh", None).await != Probe::Answered {
                tracing::debug!(%addr, "a load balancer was not told of the new registry");
            }
        });
        futures::future::join_all(told).await;
    }
}

async fn check(target: &Target) -> Probe {
    let addr = target.addr.0;
    match target.role {
        Role::Worker => ask(addr, "GET", "/healthcheck", Some(&target.id)).await,
        // It has no name to give.
        Role::LoadBalancer => ask(addr, "GET", "/healthz", None).await,
    }
}

async fn ask(addr: SocketAddr, method: &str, path: &str, id: Option<&WorkerId>) -> Probe {
    match timeout(TIMEOUT, answers(addr, method, path, id)).await {
        Ok(Ok(true)) => Probe::Answered,
        Ok(Err(ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)) => Probe::Refused,
        Ok(Ok(false) | Err(_)) | Err(_) => Probe::Silent,
    }
}

/// Whether this instance answers there, or anybody if none is meant in particular.
async fn answers(
    addr: SocketAddr,
    method: &str,
    path: &str,
    id: Option<&WorkerId>,
) -> Result<bool, ErrorKind> {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let kind = |error: std::io::Error| error.kind();
    let mut stream = TcpStream::connect(addr).await.map_err(kind)?;
    stream.write_all(request.as_bytes()).await.map_err(kind)?;
    let mut stream = stream.take(MAX_ANSWER_BYTES);
    let mut answer = Vec::with_capacity(512);
    loop {
        let is_over = match stream.read_buf(&mut answer).await {
            Ok(bytes) => bytes == 0,
            // Once there is a status, somebody has answered.
            Err(error) if status_in(&answer).is_none() => return Err(error.kind()),
            Err(_) => true,
        };
        match (status_in(&answer), id) {
            // An overloaded worker says 503 without a name, and saying so it is alive.
            (Some(503), _) | (Some(200..=299), None) => return Ok(true),
            (Some(200..=299), Some(id)) => match worker_in(&answer) {
                Some(worker) => return Ok(worker == *id),
                // Only a name of somebody else speaks against it.
                None if is_over => return Ok(true),
                None => {}
            },
            (Some(_), _) => return Ok(false),
            (None, _) if is_over => return Ok(false),
            (None, _) => {}
        }
    }
}

/// `HTTP/1.1 200`
fn status_in(text: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(text.get(..12)?).ok()?;
    line.strip_prefix("HTTP/1.")?.split_once(' ')?.1.parse().ok()
}

/// The name in `{"status":"ok","worker":"i-…","version":"…"}`, once all of that is there.
fn worker_in(text: &[u8]) -> Option<WorkerId> {
    #[derive(Deserialize)]
    struct Health {
        worker: WorkerId,
    }
    let end_of_head = text.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let health: Health = serde_json::from_slice(&text[end_of_head + 4..]).ok()?;
    Some(health.worker)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fleet::WorkerAddr;
    use tokio::net::TcpListener;

    use super::*;

    /// Somebody who answers each connection with this, for as long as the test runs.
    async fn saying(reply: impl Into<String>) -> SocketAddr {
        let reply = reply.into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0_u8; 512];
                drop(stream.read(&mut request).await);
                drop(stream.write_all(reply.as_bytes()).await);
            }
        });
        addr
    }

    #[tokio::test]
    async fn tells_an_answer_from_a_refusal_and_from_silence() {
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let refused_at = refusing.local_addr().expect("bound");
        drop(refusing);
        // Accepts (the kernel does) and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let silent_at = silent.local_addr().expect("bound");
        assert_eq!(check(&target(1, refused_at)).await, Probe::Refused);
        assert_eq!(check(&target(1, silent_at)).await, Probe::Silent);
        for (reply, probe) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Probe::Answered),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Probe::Answered),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Probe::Silent),
            ("SSH-2.0-OpenSSH_9.6\r\n", Probe::Silent),
            ("HTTP/1.1", Probe::Silent),
            ("", Probe::Silent),
        ] {
            assert_eq!(check(&target(1, saying(reply).await)).await, probe, "{reply:?}");
        }
    }

    /// What a worker says of itself, with this much before the name.
    fn naming(worker: &str, filler: usize) -> String {
        let body = format!(r#"{{"status":"ok","worker":"{worker}","version":"1"}}"#);
        format!("HTTP/1.1 200 OK\r\nx-filler: {}\r\n\r\n{body}", "x".repeat(filler))
    }

    #[tokio::test]
    async fn a_worker_is_not_heard_where_another_one_answers() {
        for (reply, probe) in [
            (naming("i-1", 0), Probe::Answered),
            (naming("i-2", 0), Probe::Silent),
            (naming("i-11", 0), Probe::Silent),
            (naming("i-2", 1000), Probe::Silent),
            // A name that stands beyond the bound is none.
            (naming("i-2", 3000), Probe::Answered),
            (naming("nobody", 0), Probe::Answered),
        ] {
            assert_eq!(check(&target(1, saying(reply.as_str()).await)).await, probe, "{reply:?}");
        }
    }

    #[tokio::test]
    async fn a_load_balancer_has_no_name_to_give() {
        let addr = saying(naming("i-2", 0)).await;
        let target = Target { role: Role::LoadBalancer, ..target(1, addr) };
        assert_eq!(check(&target).await, Probe::Answered);
    }

    #[tokio::test]
    async fn an_answer_is_over_with_its_last_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let answering = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let reply = naming("i-1", 0);
            let (start, end) = reply.split_at(reply.len() - 20);
            for part in [start, end] {
                stream.write_all(part.as_bytes()).await.expect("it is read");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stream
        };
        let since = Instant::now();
        let target = target(1, addr);
        let (probe, _open) = tokio::join!(check(&target), answering);
        assert_eq!(probe, Probe::Answered);
        assert!(since.elapsed() < TIMEOUT, "it waits for a connection to be closed that stays open");
    }

    fn target(number: usize, addr: SocketAddr) -> Target {
        let id = format!("i-{number:x}").parse().expect("an id");
        Target { id, role: Role::Worker, addr: WorkerAddr(addr) }
    }

    #[tokio::test]
    async fn a_thousand_that_answer_are_asked_within_three_seconds() {
        let addr = saying("HTTP/1.1 200 OK\r\n\r\n").await;
        let targets = (1..=1000).map(|number| target(number, addr)).collect();
        let since = Instant::now();
        let probes = Prober::default().probe_all(targets, 3).await;
        assert_eq!(probes.len(), 1000);
        assert!(probes.iter().all(|(_, probe)| *probe == Probe::Answered), "{probes:?}");
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_thousand_that_are_silent_nobody_is_judged_unasked() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = silent.local_addr().expect("bound");
        let targets = (1..=1000).map(|number| target(number, addr)).collect();
        let since = Instant::now();
        let probes = Prober::default().probe_all(targets, 3).await;
        assert!(since.elapsed() < DEADLINE + 2 * TIMEOUT, "{:?}", since.elapsed());
        assert!(probes.len() < 1000 && probes.iter().all(|(_, probe)| *probe == Probe::Silent));
    }
}
