//! The event loop: events, due requests, and their results.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::connection::{After, Connection, State, Turn};
use super::method::Method;
use super::pace::Pace;
use super::plan::Plan;
use super::report::{Failure, Latencies, Report};
use super::request::Requests;
use super::transport::Door;
use super::window::Window;

const CLOCK: Token = Token(usize::MAX);
/// Interval of the checks for requests that take too long.
const SWEEP: Duration = Duration::from_millis(20);
/// Without a rate, a connection waits this long after a failure; otherwise it would send a million requests
/// to a dead proxy.
const PAUSE: Duration = Duration::from_millis(10);
/// Larger than the pieces of a large body that the kernel hands over at once.
const BUFFER: usize = 256 * 1024;

/// Runs the plan in this thread until the last request has its answer.
pub fn run(plan: &Plan) -> anyhow::Result<Report> {
    let mut poll = Poll::new()?;
    let mut generator = Generator::new(plan, &poll)?;
    let mut events = Events::with_capacity(1024);
    generator.begin(&poll)?;
    while !generator.is_over() {
        match poll.poll(&mut events, Some(SWEEP)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == CLOCK {
                generator.pace.iter().for_each(Pace::rewind);
            } else {
                generator.wake(event.token().0, event.is_read_closed() || event.is_error(), &poll);
            }
        }
        generator.go_on(&poll)?;
    }
    Ok(generator.finish())
}

struct Generator<'a> {
    plan: &'a Plan,
    door: Door,
    requests: Requests,
    pace: Option<Pace>,
    connections: Vec<Option<Connection>>,
    /// Connections, open or not, that wait for a due request.
    waiting: VecDeque<usize>,
    /// Without a rate: connections that continue later.
    paused: VecDeque<(Instant, usize)>,
    /// Requests in flight.
    busy: usize,
    window: Window,
    last_sweep: Instant,
    latencies: Latencies,
    report: Report,
    buffer: Vec<u8>,
}

impl<'a> Generator<'a> {
    fn new(plan: &'a Plan, poll: &Poll) -> anyhow::Result<Self> {
        let start = Instant::now();
        let lasts = plan.warm_up() + plan.measured();
        let pace =
            plan.rate.map(|rate| Pace::start(rate, start, lasts, poll.registry(), CLOCK)).transpose()?;
        Ok(Self {
            plan,
            door: Door::new(plan.target, plan.ca.as_deref())?,
            requests: Requests::of(plan),
            pace,
            connections: (0..plan.connections).map(|_| None).collect(),
            waiting: VecDeque::with_capacity(plan.connections),
            paused: VecDeque::new(),
            busy: 0,
            window: Window::new(plan, start),
            last_sweep: start,
            latencies: Latencies::new(),
            report: Report::default(),
            buffer: vec![0; BUFFER],
        })
    }

    fn begin(&mut self, poll: &Poll) -> anyhow::Result<()> {
        self.waiting.extend(0..self.plan.connections);
        if self.pace.is_none() {
            for _ in 0..self.plan.connections {
                self.ask_next(Instant::now(), poll);
            }
        }
        self.go_on(poll)
    }

    fn is_over(&self) -> bool {
        let Some(since) = self.window.drains_since() else { return false };
        let nothing_is_left = self.busy == 0 && self.pace.as_ref().is_none_or(|pace| pace.left() == 0);
        nothing_is_left || since.elapsed() > self.plan.patience() * 2
    }

    /// Handles the clock: the next stage, due requests, requests that take too long.
    fn go_on(&mut self, poll: &Poll) -> anyhow::Result<()> {
        let now = Instant::now();
        if let Some(measured) = self.window.advance(now)? {
            self.report.seconds = measured.time.as_secs_f64();
            self.report.cpu_seconds = measured.cpu.map(|cpu| cpu.as_secs_f64());
        }
        while !self.waiting.is_empty()
            && let Some(due) = self.pace.as_mut().and_then(|pace| pace.take(now))
        {
            self.ask_next(due, poll);
        }
        while self.paused.front().is_some_and(|(until, _)| *until <= now) {
            self.waiting.extend(self.paused.pop_front().map(|(_, index)| index));
            self.ask_next(now, poll);
        }
        if now >= self.last_sweep + SWEEP {
            self.last_sweep = now;
            self.sweep(now);
        }
        Ok(())
    }

    fn finish(mut self) -> Report {
        let unsent = self.pace.as_ref().map_or(0, Pace::left);
        if unsent > 0 {
            self.report.failures.entry(Failure::Unsent.to_string()).or_default().get += unsent;
        }
        self.report.latency = self.latencies.summary();
        self.report
    }

    /// Sends a request on the connection that has waited longest.
    fn ask_next(&mut self, due: Instant, poll: &Poll) {
        let Some(index) = self.waiting.pop_front() else { return };
        let method = self.requests.next_method();
        self.busy += 1;
        let Some(slot) = self.connections.get_mut(index) else { return };
        if slot.is_none() {
            self.report.connections_opened += 1;
            match self.door.open(poll.registry(), Token(index)) {
                Ok(transport) => *slot = Some(Connection::new(transport)),
                Err(error) => {
                    let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
                    self.fail(index, method, if is_refused { Failure::Refused } else { Failure::Local });
                    return;
                }
            }
        }
        let Some(connection) = slot else { return };
        connection.ask(method, due);
        if let Turn::Failed(failure) = connection.write(&self.requests) {
            self.fail(index, method, failure);
        }
    }

    fn wake(&mut self, index: usize, is_read_closed: bool, poll: &Poll) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let exchange = match &connection.state {
            State::Busy(exchange) => Some((exchange.method, exchange.due)),
            State::Idle | State::Ending(_) => None,
        };
        let turn = connection.advance(&self.requests, &mut self.buffer, is_read_closed);
        match (turn, exchange) {
            (Turn::Answered(after), Some((method, due))) => {
                self.count(method, due);
                self.answered(index, after, poll);
            }
            (Turn::Failed(failure), Some((method, _))) => self.fail(index, method, failure),
            (Turn::Closed, _) => self.closed(index, poll),
            (Turn::Pending | Turn::Answered(_) | Turn::Failed(_), _) => {}
        }
    }

    fn count(&mut self, method: Method, due: Instant) {
        let is_counted = match self.pace {
            None => self.window.is_measuring(),
            Some(_) => self.window.is_due_in(due),
        };
        if is_counted {
            self.report.answered.count(method);
            self.latencies.record(due.elapsed());
        }
    }

    fn answered(&mut self, index: usize, after: After, poll: &Poll) {
        self.busy -= 1;
        let Some(slot) = self.connections.get_mut(index) else { return };
        match (after, self.plan.churn) {
            (After::Reuse, false) => {}
            (After::Await, false) | (After::Drop, _) => *slot = None,
            (After::Reuse | After::Await, true) => {
                slot.iter_mut().for_each(|connection| connection.state = State::Ending(Instant::now()));
                return;
            }
        }
        self.free(index, poll);
    }

    fn closed(&mut self, index: usize, poll: &Poll) {
        let Some(slot) = self.connections.get_mut(index) else { return };
        let Some(connection) = slot.take() else { return };
        match connection.state {
            State::Ending(_) => self.free(index, poll),
            // It waits for a request already, and will be reopened.
            State::Idle => self.report.closed_idle += 1,
            State::Busy(_) => {}
        }
    }

    /// Frees the connection for the next request.
    fn free(&mut self, index: usize, poll: &Poll) {
        self.waiting.push_back(index);
        let now = Instant::now();
        let due = match &mut self.pace {
            Some(pace) => pace.take(now),
            None => self.window.drains_since().is_none().then_some(now),
        };
        if let Some(due) = due {
            self.ask_next(due, poll);
        }
    }

    fn fail(&mut self, index: usize, method: Method, failure: Failure) {
        self.busy -= 1;
        self.report.failures.entry(failure.to_string()).or_default().count(method);
        if let Some(slot) = self.connections.get_mut(index) {
            *slot = None;
        }
        match (&self.pace, self.window.drains_since()) {
            (Some(_), _) => self.waiting.push_back(index),
            (None, None) => self.paused.push_back((Instant::now() + PAUSE, index)),
            (None, Some(_)) => {}
        }
    }

    fn sweep(&mut self, now: Instant) {
        for index in 0..self.connections.len() {
            let Some(Some(connection)) = self.connections.get(index) else { continue };
            let is_late = |since| now.saturating_duration_since(since) > self.plan.patience();
            match &connection.state {
                State::Busy(exchange) if is_late(exchange.begun) => {
                    self.fail(index, exchange.method, Failure::Timeout);
                }
                State::Ending(since) if is_late(*since) => {
                    // Its request no longer counted as in flight, unlike a failing one.
                    self.busy += 1;
                    self.fail(index, Method::Get, Failure::KeptOpen);
                }
                State::Busy(_) | State::Ending(_) | State::Idle => {}
            }
        }
    }
}
