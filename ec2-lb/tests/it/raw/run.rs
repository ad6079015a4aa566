//! One run of one vector: the bytes that are sent, and the bytes that come out on both sides.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::client::{Client, Reading};
use super::message::Response;
use super::process::LoadBalancer;
use super::split::Split;
use super::vector::{Step, Vector};
use super::worker::{FENCE, Record, Worker};
use super::{PATIENCE, bytes, latin1};

pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A load balancer with a worker, for one vector at a time.
pub(crate) struct Bench {
    pub(crate) lb: LoadBalancer,
    pub(crate) worker: Worker,
    fences: AtomicUsize,
}

/// What could be seen of one run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: String,
    pub(crate) received: String,
    pub(crate) responses: Vec<Response>,
    /// Bytes that the client could not read as a response.
    pub(crate) rest: String,
    pub(crate) fault: Option<String>,
    pub(crate) is_http_1_0: bool,
    pub(crate) has_ended: bool,
    /// Whether the next request on the client's connection was answered as it should be; `None` if
    /// the responses said that there would be none.
    pub(crate) next: Option<Result<(), String>>,
    /// The same for a request on a new connection.
    pub(crate) elsewhere: Result<(), String>,
    pub(crate) ip: IpAddr,
    pub(crate) worker: Record,
    /// The worker's connections that carried the requests of `next` and `elsewhere`.
    pub(crate) used_again: Vec<usize>,
    /// What reached the worker after the run before this one had been judged.
    pub(crate) late: Record,
}

impl Bench {
    pub(crate) fn start(program: &str) -> Self {
        let worker = Worker::start();
        let lb = LoadBalancer::start(program, worker.addr);
        Self { lb, worker, fences: AtomicUsize::new(0) }
    }

    /// Does what `vector` says; `split` cuts the worker's bytes if it has any to send, or else the
    /// client's.
    pub(crate) fn run(&self, vector: &Vector, split: Split) -> Outcome {
        let (client_split, worker_split) = match vector.worker {
            Some(_) => (Split::Whole, split),
            None => (split, Split::Whole),
        };
        let late = self.worker.play(vector.script(worker_split));
        let methods = methods(vector);
        let mut client = Client::connect(self.lb.addr);
        let sent = send(vector, &mut client, client_split, &methods);
        let is_http_1_0 = sent.contains(" HTTP/1.0\r\n");
        let mut reading = settle(vector, &mut client, &methods);
        let is_to_end = vector.breaks_off || is_to_end(&reading, is_http_1_0);
        if vector.worker.as_ref().is_some_and(|answer| answer.is_waited_for) {
            self.await_script();
        }
        let mut next = None;
        if is_to_end {
            reading = client.read(&methods, |reading| reading.finals().count() > methods.len() + 1);
        } else if reading.finals().last().is_some_and(|last| last.body.is_whole) && reading.fault.is_none() {
            let received = reading.finals().count();
            next = Some(self.fence(&mut client, &methods, received));
        }
        let elsewhere = self.fence(&mut Client::connect(self.lb.addr), &[], 0);
        // A POST takes a fresh connection to the worker, which accepts it after all others: what has
        // begun on one of them is busy by now.
        let mut last = Client::connect(self.lb.addr);
        last.send(format!("POST {FENCE} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), Split::Whole);
        last.read(&[], |reading| reading.finals().count() > 0);
        Self::eventually(|| !self.worker.is_busy());
        let worker = self.worker.play(None);
        let fences = worker.arrivals.iter().filter(|arrival| arrival.request.target.starts_with(FENCE));
        Outcome {
            used_again: fences.map(|arrival| arrival.connection).collect(),
            sent,
            received: client.received(),
            responses: reading.responses,
            rest: reading.rest,
            fault: reading.fault,
            is_http_1_0,
            has_ended: client.has_ended,
            next,
            elsewhere,
            ip: client.ip(),
            worker: without_fences(worker),
            late: without_fences(late),
        }
    }

    fn await_script(&self) {
        Self::eventually(|| {
            let record = self.worker.record();
            record.begun > 0 && record.begun == record.ended
        });
        // The load balancer has to notice the last bytes written, and no event tells when it has.
        std::thread::sleep(Duration::from_millis(10));
    }

    /// Waits, but not for ever; whether it has come true is for the judge.
    fn eventually(is_true: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_true() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A request that must be answered, after `received` others on this connection.
    fn fence(&self, client: &mut Client, methods: &[String], received: usize) -> Result<(), String> {
        let target = format!("{FENCE}-{}", self.fences.fetch_add(1, Ordering::Relaxed));
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), Split::Whole);
        let reading = client.read(methods, |reading| reading.finals().count() > received);
        match reading.finals().nth(received) {
            Some(answer) if answer.status == 200 && answer.body.content == format!("GET {target}") => Ok(()),
            _ => Err(format!("{target} got {:?} {:?}", reading.finals().nth(received), reading.fault)),
        }
    }
}

fn without_fences(mut record: Record) -> Record {
    record.arrivals.retain(|arrival| !arrival.request.target.starts_with(FENCE));
    record
}

/// Sends all that the vector says, and returns it.
fn send(vector: &Vector, client: &mut Client, split: Split, methods: &[String]) -> String {
    let mut sent = String::new();
    let mut steps = vector.send.steps();
    if vector.refused.is_some() && !vector.breaks_off {
        match steps.last_mut() {
            Some(Step::Send(last)) => last.extend(bytes(SMUGGLED)),
            _ => steps.push(Step::Send(bytes(SMUGGLED))),
        }
    }
    for step in steps {
        match step {
            Step::Send(bytes) => {
                client.send(&bytes, split);
                sent += &latin1(&bytes);
            }
            Step::Await(status) => {
                client.read(methods, |reading| reading.responses.iter().any(|one| one.status == status));
            }
            Step::Pause(pause) => std::thread::sleep(pause),
        }
    }
    if vector.breaks_off {
        client.finish();
    }
    sent
}

/// Reads all that must come.
fn settle(vector: &Vector, client: &mut Client, methods: &[String]) -> Reading {
    let reading = client.read(methods, |reading| {
        let finals: Vec<_> = reading.finals().collect();
        let is_refused = vector.refused.as_ref().is_some_and(|refused| {
            finals.get(vector.passed.len()).is_some_and(|last| refused.has(&last.status))
        });
        !vector.breaks_off && (is_refused || finals.len() >= methods.len())
    });
    let Some(tunnel) = reading.responses.last().filter(|last| last.status == 101) else { return reading };
    let expected = vector.gets.last().and_then(|gets| gets.body.as_ref()).map(|body| body.text().len());
    if tunnel.body.content.len() < expected.unwrap_or(0) {
        let is_long_enough = |reading: &Reading| {
            let length = reading.responses.last().map(|last| last.body.content.len());
            length >= expected
        };
        client.read(methods, is_long_enough);
    }
    client.finish();
    client.read(methods, |_| false)
}

/// The methods of the requests that are answered if all goes well.
fn methods(vector: &Vector) -> Vec<String> {
    let mut methods: Vec<String> = vector.passed.iter().map(|passed| passed.method.clone()).collect();
    if vector.passed.is_empty() && vector.refused.is_none() {
        methods.extend(vector.send.text().split(' ').next().map(str::to_owned));
    }
    methods.extend(vector.or_passed.iter().map(|passed| passed.method.clone()));
    if vector.refused.is_some() || vector.gets.len() > methods.len() {
        methods.push("GET".to_owned());
    }
    methods
}

/// Whether the last of these responses announces the end of its connection.
fn is_to_end(reading: &Reading, is_http_1_0: bool) -> bool {
    reading.finals().last().is_some_and(|last| {
        let is_kept = !is_http_1_0 || last.fields.connection("keep-alive");
        let is_tunnel = last.status == 101;
        is_tunnel
            || last.fields.connection("close")
            || !is_kept
            || last.body.framing == super::message::Framing::Close
    })
}
