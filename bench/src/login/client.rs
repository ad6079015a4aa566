//! Clients of a worker: kept connections, and many simultaneous requests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::body::Bytes;
use axum::http::header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::load::report::{Latencies, Latency};

/// Longer than a worker lets a request take.
const PATIENCE: Duration = Duration::from_secs(60);

const SESSION: &str = "vigia_session=";

/// The request.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

impl Ask {
    pub fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }

    pub fn sign_in(login: &str, password: &str) -> Self {
        Self::credentials("/signin", login, password)
    }

    pub fn sign_up(login: &str, password: &str) -> Self {
        Self::credentials("/signup", login, password)
    }

    fn credentials(path: &str, login: &str, password: &str) -> Self {
        let body = serde_json::json!({"login": login, "password": password}).to_string().into();
        let ask = Self { method: Method::POST, body, ..Self::get(path) };
        ask.with(CONTENT_TYPE, "application/json")
    }

    pub fn protected(cookie: &str) -> Self {
        Self::get("/protected").with(COOKIE, cookie)
    }

    /// Requests a page, as a browser does.
    pub fn page(self) -> Self {
        self.with(ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
    }

    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From sending to the first byte of content; to the end if there is none.
    pub first_byte: Duration,
    pub whole: Duration,
}

impl Answer {
    /// `name=value` of the session.
    pub fn session(&self) -> Option<&str> {
        let all = self.headers.get_all(SET_COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        all.filter(|text| text.starts_with(SESSION)).find_map(|text| text.split(';').next())
    }
}

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    pub async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            connection.await.ok();
        });
        Ok(Self { sender, host: HeaderValue::try_from(addr.to_string())? })
    }

    pub async fn send(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        tokio::time::timeout(PATIENCE, self.exchange(ask)).await.context("no answer for a minute")?
    }

    async fn exchange(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(&ask.method).uri(&ask.path).header(HOST, &self.host);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(ask.body.clone()))?;
        self.sender.ready().await?;
        let since = Instant::now();
        let (head, mut body) = self.sender.send_request(request).await?.into_parts();
        let mut first_byte = None;
        let mut content = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                first_byte.get_or_insert_with(|| since.elapsed());
                content.extend_from_slice(&data);
            }
        }
        let whole = since.elapsed();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: content.into(),
            first_byte: first_byte.unwrap_or(whole),
            whole,
        })
    }
}

/// Connections to one worker, used in turn.
pub struct Pool {
    addr: SocketAddr,
    free: Mutex<VecDeque<Connection>>,
}

impl Pool {
    /// Opens this many connections; one more whenever none is free.
    pub async fn open(addr: SocketAddr, connections: usize) -> anyhow::Result<Self> {
        let pool = Self { addr, free: Mutex::default() };
        for _ in 0..connections {
            let connection = Connection::open(addr).await?;
            pool.free.lock().expect("no thread panics with it").push_back(connection);
        }
        Ok(pool)
    }

    pub async fn send(&self, ask: &Ask) -> anyhow::Result<Answer> {
        let free = self.free.lock().expect("no thread panics with it").pop_front();
        let mut connection = match free {
            Some(connection) if !connection.sender.is_closed() => connection,
            _ => Connection::open(self.addr).await?,
        };
        let answer = connection.send(ask).await?;
        self.free.lock().expect("no thread panics with it").push_back(connection);
        Ok(answer)
    }
}

/// A load of this many clients, each of which sends again when it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub connections: usize,
    pub at_once: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    /// Any other answer ends the run.
    pub expected: u16,
}

/// The outcome, and its cost to the client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub per_second: f64,
    /// CPU milliseconds for each.
    pub cpu_ms: f64,
}

impl Load {
    /// Sends the load to `addr`. `cpu` reads the time on the core so far; `ask` gets the number of the request.
    pub async fn run(
        self,
        addr: SocketAddr,
        cpu: impl Fn() -> anyhow::Result<Duration>,
        ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
    ) -> anyhow::Result<(Pace, Latency)> {
        let pool = Arc::new(Pool::open(addr, self.connections).await?);
        let ask = Arc::new(ask);
        let turn = Arc::new(AtomicUsize::new(0));
        let begins = Instant::now() + self.warm_up;
        let ends = begins + self.measured;
        let mut clients = JoinSet::new();
        for _ in 0..self.at_once {
            let (pool, ask, turn) = (Arc::clone(&pool), Arc::clone(&ask), Arc::clone(&turn));
            clients.spawn(async move {
                let mut answers = Vec::new();
                while Instant::now() < ends {
                    let answer = pool.send(&ask(turn.fetch_add(1, Ordering::Relaxed))).await?;
                    ensure!(answer.status == self.expected, "answered {}: {:?}", answer.status, answer.body);
                    answers.push((Instant::now(), answer.whole));
                }
                Ok(answers)
            });
        }
        tokio::time::sleep_until(begins.into()).await;
        let before = cpu()?;
        let begins = Instant::now();
        tokio::time::sleep_until(ends.into()).await;
        let (cpu, ends) = (cpu()?.saturating_sub(before), Instant::now());
        let mut answers = Vec::new();
        while let Some(client) = clients.join_next().await {
            answers.append(&mut client??);
        }
        answers.retain(|(at, _)| (begins..ends).contains(at));
        let mut latencies = Latencies::new();
        answers.iter().for_each(|(_, whole)| latencies.record(*whole));
        let times: Vec<Instant> = answers.iter().map(|(at, _)| *at).collect();
        let per_second = per_second(&times).context("nothing was answered")?;
        Ok((Pace { per_second, cpu_ms: milliseconds(cpu) / float(times.len()) }, latencies.summary()))
    }
}

/// Returns how often per second something happened between its first time and its last.
pub fn per_second(times: &[Instant]) -> Option<f64> {
    let (first, last) = (times.iter().min()?, times.iter().max()?);
    let lasted = last.duration_since(*first).as_secs_f64();
    (lasted > 0.0).then(|| float(times.len() - 1) / lasted)
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Counts here stay far below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_that_of_the_gaps() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(per_second(&[at(100), at(0), at(50)]), Some(20.0));
        assert_eq!(per_second(&[at(100)]), None);
        assert_eq!(per_second(&[]), None);
    }

    #[test]
    fn the_session_is_one_cookie_of_several() {
        let mut headers = HeaderMap::new();
        for text in ["vigia_device=d; Path=/", "vigia_session=s; HttpOnly; Path=/"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(text));
        }
        let (first_byte, whole) = (Duration::ZERO, Duration::ZERO);
        let answer = Answer { status: 303, headers, body: Bytes::new(), first_byte, whole };
        assert_eq!(answer.session(), Some("vigia_session=s"));
    }
}
