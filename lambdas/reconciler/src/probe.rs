//! Probes workers and load balancers: are they alive?
//!
//! One lost packet must not cost a worker, so a silence or a refusal is probed again: three tries
//! spread over three seconds are longer than systemd takes to restart a program. The request is
//! written by hand, because only the status and a small body of the answer matter, and a function with
//! a fraction of a core has a thousand targets to probe.
//!
//! | answer | is |
//! |---|---|
//! | 200, `"status":"ok"`, and a worker's own id or a load balancer's `revision` | an answer |
//! | any other status, 503 included; another body, another name, no body | silence |
//! | refused or reset before a status | a refusal |
//!
//! A load balancer answers 503 until it has reached the registry, and must not get the Elastic IP before. A
//! private address may belong to another worker by now. If that worker answers, the probed worker has not.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleet::WorkerId;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use planner::effect::Knocking;
use planner::observation::{Probe, Role, Target, admin_addr};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

/// A load balancer that is told of a new registry says so from memory, in well under a millisecond.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);
/// Sockets open at a time: a whole fleet of 100 in one go. Lambda allows a thousand; more at once
/// would only wait longer for the function's share of a core, and that looks like silence.
const CONCURRENCY: usize = 128;
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
    /// Probes all targets at the same time. Targets for which there was no time are not in the result.
    pub async fn probe_all(&self, targets: Vec<Target>, knocking: Knocking) -> (Probes, Started) {
        let end = Instant::now() + knocking.deadline.unsigned_abs();
        let mut asked: FuturesUnordered<_> = targets
            .into_iter()
            .map(|target| async move {
                let heard = self.probe(&target, knocking, end).await?;
                Some((target.id, heard))
            })
            .collect();
        let (mut probes, mut started) = (Vec::new(), Vec::new());
        while let Some(heard) = asked.next().await {
            let Some((id, heard)) = heard else { continue };
            probes.push((id.clone(), heard.probe()));
            if let Heard::Answer(Some(since)) = heard {
                started.push((id, since));
            }
        }
        (probes, started)
    }

    async fn probe(
        &self,
        target: &Target,
        knocking: Knocking,
        end: Instant,
    ) -> Option<Heard<Option<Timestamp>>> {
        let mut verdict = Heard::Refusal;
        let mut next = Instant::now();
        for _ in 0..knocking.tries {
            sleep_until(next).await;
            next += knocking.spacing.unsigned_abs();
            let _socket = self.sockets.acquire().await.ok()?;
            if Instant::now() >= end {
                return None;
            }
            match check(target, knocking.timeout.unsigned_abs()).await {
                answer @ Heard::Answer(_) => return Some(answer),
                Heard::Silence => verdict = Heard::Silence,
                Heard::Refusal => {}
            }
        }
        Some(verdict)
    }

    /// Tells load balancers that there is something new to read.
    pub async fn refresh_all(&self, balancers: Vec<IpAddr>) {
        let told = balancers.into_iter().map(|ip| async move {
            let addr = admin_addr(ip);
            if exchange(addr.0, REFRESH_TIMEOUT, "POST", "/refresh", |_| Some(())).await != Heard::Answer(())
            {
                tracing::debug!(%addr, "a load balancer was not told of the new registry");
            }
        });
        futures::future::join_all(told).await;
    }
}

/// The result for each target that was probed.
type Probes = Vec<(WorkerId, Probe)>;
/// When the program of each target started, for targets that report it.
type Started = Vec<(WorkerId, Timestamp)>;

/// The outcome of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard<T> {
    Answer(T),
    Refusal,
    Silence,
}

impl<T> Heard<T> {
    const fn probe(&self) -> Probe {
        match self {
            Self::Answer(_) => Probe::Answered,
            Self::Refusal => Probe::Refused,
            Self::Silence => Probe::Silent,
        }
    }
}

async fn check(target: &Target, limit: Duration) -> Heard<Option<Timestamp>> {
    let path = match target.role {
        Role::Worker => "/healthcheck",
        Role::LoadBalancer => "/healthz",
    };
    let ours = |body: &[u8]| Health::parse(body).filter(|health| health.is_of(target));
    let started = |body: &[u8]| ours(body).map(|health| health.started(Timestamp::now()));
    exchange(target.addr.0, limit, "GET", path, started).await
}

async fn exchange<T>(
    addr: SocketAddr,
    limit: Duration,
    method: &str,
    path: &str,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Heard<T> {
    match timeout(limit, answer(addr, method, path, read)).await {
        Ok(Ok(Some(answer))) => Heard::Answer(answer),
        Ok(Err(ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)) => Heard::Refusal,
        Ok(Ok(None) | Err(_)) | Err(_) => Heard::Silence,
    }
}

/// Returns the parsed body of an answer, if it is a 200 from the right program.
async fn answer<T>(
    addr: SocketAddr,
    method: &str,
    path: &str,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, ErrorKind> {
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
            // Once there is a status, a program has answered.
            Err(error) if status_in(&answer).is_none() => return Err(error.kind()),
            Err(_) => true,
        };
        match status_in(&answer) {
            Some(200) if let Some(read) = body_of(&answer).and_then(&read) => return Ok(Some(read)),
            // The rest of the body is still to come.
            Some(200) | None if !is_over => {}
            Some(_) | None => return Ok(None),
        }
    }
}

/// `HTTP/1.1 200`
fn status_in(text: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(text.get(..12)?).ok()?;
    line.strip_prefix("HTTP/1.")?.split_once(' ')?.1.parse().ok()
}

/// Returns the part of the body that has come.
fn body_of(answer: &[u8]) -> Option<&[u8]> {
    let end_of_head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    answer.get(end_of_head + 4..)
}

/// `{"status":"ok","worker":"i-…","version":"…","uptime_seconds":7}` of a worker,
/// `{"status":"ok","revision":7,…,"uptime_seconds":7}` of a load balancer; its revision is `null` while there
/// is no registry.
#[derive(Deserialize)]
struct Health {
    status: String,
    worker: Option<WorkerId>,
    #[serde(default, deserialize_with = "is_there")]
    revision: bool,
    /// Missing in the answer of an older version.
    uptime_seconds: Option<u64>,
}

impl Health {
    /// `None` before the whole of it has come.
    fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    fn is_of(&self, target: &Target) -> bool {
        let is_named = match target.role {
            Role::Worker => self.worker.as_ref() == Some(&target.id),
            // It has no name to give.
            Role::LoadBalancer => self.revision,
        };
        self.status == "ok" && is_named
    }

    fn started(&self, now: Timestamp) -> Option<Timestamp> {
        let uptime = SignedDuration::from_secs(self.uptime_seconds?.try_into().ok()?);
        now.checked_sub(uptime).ok()
    }
}

fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fleet::{Policy, WorkerAddr};
    use tokio::net::TcpListener;

    use super::*;

    /// Starts a server that answers each connection with `reply` for as long as the test runs.
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

    fn knocking(tries: u32) -> Knocking {
        Knocking::new(&Policy::default(), tries)
    }

    async fn heard(target: &Target) -> Probe {
        check(target, knocking(1).timeout.unsigned_abs()).await.probe()
    }

    #[tokio::test]
    async fn a_worker_reports_its_uptime() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        for (uptime, started) in [
            (r#","uptime_seconds":7"#, Some(now - SignedDuration::from_secs(7))),
            (r#","uptime_seconds":0"#, Some(now)),
            // A worker of an older version, and numbers that are no uptime.
            ("", None),
            (r#","uptime_seconds":18446744073709551615"#, None),
            (r#","uptime_seconds":9223372036854775807"#, None),
        ] {
            let body = format!(r#"{{"status":"ok","worker":"i-1","version":"1"{uptime}}}"#);
            let health = Health::parse(body.as_bytes()).expect("it is health");
            assert_eq!(health.started(now), started, "{body}");
        }
        let body = r#"{"status":"ok","worker":"i-1","version":"1","uptime_seconds":7}"#;
        let addr = saying(format!("HTTP/1.1 200 OK\r\n\r\n{body}")).await;
        let (probes, started) = Prober::default().probe_all(vec![target(1, addr)], knocking(1)).await;
        assert_eq!(probes, [(target(1, addr).id, Probe::Answered)]);
        assert_eq!(started.len(), 1);
    }

    #[tokio::test]
    async fn a_load_balancer_reports_its_uptime() {
        for (uptime, reported) in [(r#","uptime_seconds":7"#, 1), ("", 0)] {
            let body = format!(r#"{{"status":"ok","revision":7,"age_seconds":1.5{uptime}}}"#);
            let addr = saying(format!("HTTP/1.1 200 OK\r\n\r\n{body}")).await;
            let target = Target { role: Role::LoadBalancer, ..target(1, addr) };
            let id = target.id.clone();
            let (probes, started) = Prober::default().probe_all(vec![target], knocking(1)).await;
            assert_eq!(probes, [(id, Probe::Answered)], "{body}");
            assert_eq!(started.len(), reported, "{body}");
        }
    }

    #[tokio::test]
    async fn a_probe_tells_answer_refusal_and_silence_apart() {
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let refused_at = refusing.local_addr().expect("bound");
        drop(refusing);
        // Accepts (the kernel does) and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let silent_at = silent.local_addr().expect("bound");
        assert_eq!(heard(&target(1, refused_at)).await, Probe::Refused);
        assert_eq!(heard(&target(1, silent_at)).await, Probe::Silent);
    }

    /// Each of these answers was once mistaken for health, or resembles it.
    #[tokio::test]
    async fn only_200_with_our_own_body_is_an_answer() {
        let ours = r#"{"status":"ok","worker":"i-1","version":"1"}"#;
        for (status, body, probe) in [
            ("200 OK", ours, Probe::Answered),
            ("200 OK", "", Probe::Silent),
            ("200 OK", "ok", Probe::Silent),
            ("200 OK", "{}", Probe::Silent),
            ("200 OK", r#"{"status":"ok"}"#, Probe::Silent),
            ("200 OK", r#"{"status":"ok","revision":1}"#, Probe::Silent),
            ("200 OK", r#"{"status":"starts","worker":"i-1"}"#, Probe::Silent),
            ("200 OK", r#"{"status":"ok","worker":"carol"}"#, Probe::Silent),
            ("204 No Content", ours, Probe::Silent),
            ("404 Not Found", ours, Probe::Silent),
            ("503 Service Unavailable", ours, Probe::Silent),
            ("503 Service Unavailable", "", Probe::Silent),
        ] {
            let reply = format!("HTTP/1.1 {status}\r\n\r\n{body}");
            assert_eq!(heard(&target(1, saying(reply).await)).await, probe, "{status} {body}");
        }
        for reply in ["SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1", "HTTP/1.1 200 OK\r\n", ""] {
            assert_eq!(heard(&target(1, saying(reply).await)).await, Probe::Silent, "{reply:?}");
        }
    }

    /// Otherwise a load balancer that cannot read the registry would get the address, and the good one would
    /// be terminated.
    #[tokio::test]
    async fn a_load_balancer_without_a_registry_is_not_heard() {
        for (status, body, probe) in [
            ("200 OK", r#"{"status":"ok","revision":7,"age_seconds":1}"#, Probe::Answered),
            ("200 OK", r#"{"status":"ok","revision":null,"age_seconds":1}"#, Probe::Answered),
            (
                "503 Service Unavailable",
                r#"{"status":"the registry was not reached yet","revision":null}"#,
                Probe::Silent,
            ),
            ("503 Service Unavailable", r#"{"status":"ok","revision":7}"#, Probe::Silent),
            ("200 OK", r#"{"status":"the registry was not reached yet","revision":7}"#, Probe::Silent),
            ("200 OK", r#"{"status":"ok","worker":"i-1","version":"1"}"#, Probe::Silent),
            ("200 OK", "welcome", Probe::Silent),
        ] {
            let addr = saying(format!("HTTP/1.1 {status}\r\n\r\n{body}")).await;
            let target = Target { role: Role::LoadBalancer, ..target(1, addr) };
            assert_eq!(heard(&target).await, probe, "{status} {body}");
        }
    }

    /// Returns a worker's answer, with so many bytes before the name.
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
            (naming("i-1", 3000), Probe::Silent),
        ] {
            assert_eq!(heard(&target(1, saying(reply.as_str()).await)).await, probe, "{reply:?}");
        }
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
        let (probe, _open) = tokio::join!(heard(&target), answering);
        assert_eq!(probe, Probe::Answered);
        assert!(
            since.elapsed() < knocking(1).timeout.unsigned_abs(),
            "it waits for a connection to be closed that stays open"
        );
    }

    fn target(number: usize, addr: SocketAddr) -> Target {
        let id = format!("i-{number:x}").parse().expect("an id");
        Target { id, role: Role::Worker, addr: WorkerAddr(addr) }
    }

    #[tokio::test]
    async fn a_thousand_that_answer_are_asked_within_three_seconds() {
        let addr = saying("HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\",\"revision\":1}").await;
        let balancer = |number| Target { role: Role::LoadBalancer, ..target(number, addr) };
        let targets = (1..=1000).map(balancer).collect();
        let since = Instant::now();
        let (probes, _) = Prober::default().probe_all(targets, knocking(3)).await;
        assert_eq!(probes.len(), 1000);
        assert!(probes.iter().all(|(_, probe)| *probe == Probe::Answered), "{probes:?}");
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_thousand_silent_targets_only_probed_ones_have_a_result() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = silent.local_addr().expect("bound");
        let targets = (1..=1000).map(|number| target(number, addr)).collect();
        let since = Instant::now();
        let (probes, _) = Prober::default().probe_all(targets, knocking(3)).await;
        let Knocking { timeout, deadline, .. } = knocking(3);
        assert!(since.elapsed() < (deadline + timeout * 2).unsigned_abs(), "{:?}", since.elapsed());
        assert!(probes.len() < 1000 && probes.iter().all(|(_, probe)| *probe == Probe::Silent));
    }
}
