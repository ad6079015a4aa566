//! A worker that records what reaches it and answers by a script.
//!
//! It answers `/healthcheck` by itself and keeps no record of it. A request that waits for leave to
//! send its body gets it, unless the script answers earlier. Every other request is recorded when it has
//! arrived whole; partial requests and invalid bytes are recorded apart.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::message::{self, Request};
use super::server::Server;
use super::split::Split;
use super::{latin1, shown};

/// Requests for targets that begin so are the test's own, and are answered as without a script.
pub(crate) const FENCE: &str = "/fence";

/// How the worker answers.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    pub(crate) split: Split,
    /// Whether it answers before it has read the body.
    pub(crate) is_early: bool,
    pub(crate) then: Then,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Pause(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Reads the next request.
    Keep,
    Close,
    /// Sends back all that comes.
    Echo,
}

#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The number of the connection it came on.
    pub(crate) connection: usize,
    pub(crate) request: Request,
    pub(crate) raw: String,
}

/// What has reached the worker since the last script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) arrivals: Vec<Arrival>,
    /// Requests whose connection ended before they did.
    pub(crate) unfinished: Vec<String>,
    /// Bytes that are no request.
    pub(crate) faults: Vec<String>,
    /// Answers by the script that have begun and ended.
    pub(crate) begun: usize,
    pub(crate) ended: usize,
}

pub(crate) struct Worker {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    _server: Server,
}

#[derive(Default)]
struct State {
    script: Option<Script>,
    record: Record,
    /// Connections in the middle of a request.
    busy: BTreeSet<usize>,
}

impl Worker {
    pub(crate) fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let server = Server::start(move |stream, number| Connection { stream, number, state: &shared }.run());
        Self { addr: server.addr, state, _server: server }
    }

    /// Begins a new record; the one until now is returned.
    pub(crate) fn play(&self, script: Option<Script>) -> Record {
        let mut state = lock(&self.state);
        state.script = script;
        std::mem::take(&mut state.record)
    }

    pub(crate) fn record(&self) -> Record {
        lock(&self.state).record.clone()
    }

    /// Whether a request has begun to arrive that has neither ended nor been broken off.
    pub(crate) fn is_busy(&self) -> bool {
        !lock(&self.state).busy.is_empty()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("not poisoned")
}

struct Connection<'a> {
    stream: &'a TcpStream,
    number: usize,
    state: &'a Mutex<State>,
}

impl Connection<'_> {
    fn run(self) {
        // A client that connects is about to send.
        self.is_busy(true);
        let left = self.serve();
        let mut state = lock(self.state);
        state.busy.remove(&self.number);
        if !left.is_empty() {
            state.record.unfinished.push(latin1(&left));
        }
    }

    /// Answers until the connection ends, and returns what has come of a request that has not ended.
    fn serve(&self) -> Vec<u8> {
        let mut received = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        // The script of a request that is answered before it has arrived.
        let mut early: Option<Script> = None;
        let mut has_answered_head = false;
        let mut has_begun = false;
        loop {
            match message::request(&received) {
                Err(fault) => {
                    let bytes = shown(&latin1(&received));
                    lock(self.state).record.faults.push(format!("{fault}, in {bytes}"));
                    return Vec::new();
                }
                Ok(Some((request, length))) => {
                    let raw: Vec<u8> = received.drain(..length).collect();
                    let answered = early.take();
                    has_answered_head = false;
                    match answered.is_some() {
                        true => self.note(request, &raw),
                        false => {
                            let script = self.script(&request.target);
                            let plain = plain(&request);
                            self.note(request, &raw);
                            if self.answer(script, &plain) != Then::Keep {
                                return Vec::new();
                            }
                        }
                    }
                    continue;
                }
                Ok(None) => self.is_busy(!(received.is_empty() && has_begun)),
            }
            has_begun = true;
            if !has_answered_head && let Ok(Some(((_, target, fields), _))) = message::request_head(&received)
            {
                has_answered_head = true;
                let is_waiting =
                    fields.all("expect").iter().any(|what| what.eq_ignore_ascii_case("100-continue"));
                early = self.script(&target).filter(|script| script.is_early);
                if let Some(script) = early.clone() {
                    if self.answer(Some(script), "") != Then::Keep {
                        return received;
                    }
                } else if is_waiting {
                    drop(Split::Whole.write(self.stream, b"HTTP/1.1 100 Continue\r\n\r\n"));
                }
            }
            let mut stream = self.stream;
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return received,
                Ok(read) => received.extend_from_slice(&piece[..read]),
            }
        }
    }

    fn is_busy(&self, is_busy: bool) {
        let mut state = lock(self.state);
        match is_busy {
            true => state.busy.insert(self.number),
            false => state.busy.remove(&self.number),
        };
    }

    fn script(&self, target: &str) -> Option<Script> {
        if target.starts_with(FENCE) || target == "/healthcheck" {
            return None;
        }
        lock(self.state).script.clone()
    }

    fn note(&self, request: Request, raw: &[u8]) {
        if request.target != "/healthcheck" {
            let arrival = Arrival { connection: self.number, request, raw: latin1(raw) };
            lock(self.state).record.arrivals.push(arrival);
        }
    }

    fn answer(&self, script: Option<Script>, plain: &str) -> Then {
        let Some(script) = script else {
            // The other side may have gone.
            drop(Split::Whole.write(self.stream, plain.as_bytes()));
            return Then::Keep;
        };
        lock(self.state).record.begun += 1;
        for step in &script.steps {
            match step {
                Step::Send(bytes) => drop(script.split.write(self.stream, bytes)),
                Step::Pause(pause) => std::thread::sleep(*pause),
            }
        }
        if script.then == Then::Close {
            // Half first: closing with bytes unread would reset the connection and lose the answer.
            drop(self.stream.shutdown(Shutdown::Write));
        }
        lock(self.state).record.ended += 1;
        if script.then != Then::Keep {
            self.drain(script.then == Then::Echo);
        }
        script.then
    }

    /// Reads to the end.
    fn drain(&self, is_echoed: bool) {
        let mut piece = vec![0; 64 * 1024];
        let mut stream = self.stream;
        while let Ok(read) = stream.read(&mut piece) {
            if read == 0 {
                break;
            }
            if is_echoed {
                drop(Split::Whole.write(self.stream, &piece[..read]));
            }
        }
    }
}

/// Returns the answer without a script: a description of the request.
fn plain(request: &Request) -> String {
    let text = format!("{} {}", request.method, request.target);
    let body = if request.method == "HEAD" { "" } else { &text };
    // The last request of a run leaves no connection behind for the next.
    let is_last = request.method == "POST" && request.target == FENCE;
    let end = if is_last { "Connection: close\r\n" } else { "" };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Worker: yes\r\n{end}\r\n{body}", text.len())
}
