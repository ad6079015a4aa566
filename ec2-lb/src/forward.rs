//! The way of one request: it is read, its body is received, it is sent to a worker and, if that fails, to
//! others; then the answer goes back.
//!
//! A request counts as in flight when a worker is chosen, and not while its body arrives: a slow client
//! occupies neither a worker nor a place that others need.
//!
//! Two rules are easy to miss. Only a request that may be repeated travels on an idle connection:
//! such a connection may be closing at the far end, and then it is unknown whether a POST on it has
//! arrived. And a failure on an idle connection says nothing about the worker, so the request is tried once
//! more on a fresh connection before the failure counts.

use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use fleet::layers::MAX_REPLAY_BODY;
use http1::framing::{Decoder, Framing};
use http1::head::{self, MAX_REQUEST_HEAD, Scan};
use http1::request::{self, Body, Malformed, Method, Origin, Request, Version};
use tokio::net::TcpStream;

use crate::access_log::{self, Route};
use crate::balance::{self, Standing};
use crate::exchange::{Buffers, Exchange, Fate, MODEST};
use crate::lane::{Done, Job, Lane, Slot};
use crate::limits::{Kind, MAX_REQUEST_BODY, MAX_TRIES, PROOF_OF_BODY};
use crate::refusal::Refusal;
use crate::relay;
use crate::retry::{self, Effect, Failure, UploadFault};
use crate::send::{self, Answer, Payload};
use crate::shares::Full;
use crate::thread::Thread;
use crate::tunnel;
use crate::upstream::{self, DialError};
use crate::worker::{InFlight, Worker};

/// A buffer that has grown beyond this is not kept for the next connection.
const MAX_KEPT: usize = 32 * 1024;

/// Returns a new lane. Its future is an endless loop over the exchanges that connections hand to it.
pub(crate) fn lane(thread: Rc<Thread>) -> Lane {
    Lane::new(|slot| drive(thread, slot))
}

async fn drive(thread: Rc<Thread>, slot: Rc<Slot>) -> Infallible {
    let mut buffers = Buffers::default();
    loop {
        let mut job = poll_fn(|_| slot.poll_job()).await;
        buffers.inbound = slot.take_inbound();
        let ending = serve(&thread, &mut job, &mut buffers).await;
        buffers.shrink(MAX_KEPT);
        let done = match ending {
            Ending::Open => Done::Open(job.client),
            Ending::Closed => Done::Closed,
        };
        slot.finish(done, std::mem::take(&mut buffers.inbound));
    }
}

/// Whether the connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Open,
    Closed,
}

/// Serves the requests whose heads are in `buffers.inbound`, one after the other.
async fn serve(thread: &Thread, job: &mut Job, buffers: &mut Buffers) -> Ending {
    let Job { client, peer, place, key, why_not } = job;
    let origin = Origin { peer: *peer, scheme: client.scheme() };
    let (place, key, why_not) = (*place, *key, *why_not);
    let mut exchange =
        Exchange { thread, client, key, buffers, origin, place, body_is_read: false, flight: None };
    let mut is_first = true;
    loop {
        let inbound = &mut exchange.buffers.inbound;
        inbound.drain(..head::empty_lines(inbound));
        let head = match head::scan(inbound, 0) {
            Scan::Complete(len) if len > MAX_REQUEST_HEAD => Err(Malformed::TooLarge.into()),
            Scan::Complete(len) => Ok(len),
            Scan::BareLineFeed => Err(Malformed::BareLineFeed.into()),
            Scan::Incomplete if inbound.len() > MAX_REQUEST_HEAD => Err(Malformed::TooLarge.into()),
            // The connection hands over an incomplete head when its time is over, or there is no room.
            Scan::Incomplete if is_first => Err(why_not),
            Scan::Incomplete => return Ending::Open,
        };
        match exchange.one(head).await {
            Fate::Keep => is_first = false,
            Fate::Close => {
                exchange.say_goodbye().await;
                return Ending::Closed;
            }
            Fate::Linger => {
                exchange.linger().await;
                return Ending::Closed;
            }
        }
    }
}

impl Exchange<'_> {
    async fn one(&mut self, head: Result<usize, Refusal>) -> Fate {
        let began = Instant::now();
        let thread = self.thread;
        self.body_is_read = false;
        let mut route = None;
        let mut request = None;
        let outcome = match self.read(head) {
            Err(refusal) => Err(refusal),
            Ok(read) => {
                if thread.shared.config.logs_access {
                    route = Some(Route::of_path(&self.buffers.outbound[read.path.clone()]));
                }
                let read = request.insert(read);
                self.answer(read).await
            }
        };
        // A refusal is written without a worker.
        self.flight = None;
        let (status, fate) = match outcome {
            Ok(answered) => answered,
            Err(refusal) => self.refuse(refusal, request.as_ref()).await,
        };
        let took = began.elapsed();
        thread.counters.answered(status, took);
        if thread.shared.config.logs_access {
            access_log::write(request.as_ref(), route, status, took);
        }
        fate
    }

    /// Reads the head and leaves what follows it in `inbound`.
    fn read(&mut self, head: Result<usize, Refusal>) -> Result<Request, Refusal> {
        let len = head?;
        let Buffers { inbound, outbound, .. } = &mut *self.buffers;
        let request = request::read(&inbound[..len], self.origin, || self.thread.new_id(), outbound)?;
        inbound.drain(..len);
        Ok(request)
    }

    async fn answer(&mut self, request: &Request) -> Result<(u16, Fate), Refusal> {
        let mut payload = self.receive(request).await?;
        self.body_is_read = payload.is_whole();
        let (answer, worker, in_flight) = self.forward(request, &mut payload).await?;
        let status = answer.response.status;
        in_flight.0.count_response(answer.response.class());
        if status == 101 {
            return Ok((status, tunnel::run(self, answer, worker).await));
        }
        Ok((status, relay::run(self, payload, answer, worker, in_flight).await))
    }

    /// Receives a small body whole, before a worker is chosen: then it can be sent twice, and a slow
    /// client occupies no worker. Of a larger body it receives only the first part; the rest is streamed
    /// within the same bounds.
    async fn receive(&mut self, request: &Request) -> Result<Payload, Refusal> {
        self.buffers.body.clear();
        let mut decoder = match request.framing {
            Framing::None => return Ok(Payload::whole(Body::None)),
            Framing::Length(0) => return Ok(Payload::whole(Body::Length(0))),
            Framing::Length(length) if length > MAX_REQUEST_BODY => return Err(UploadFault::TooLarge.into()),
            framing => Decoder::new(framing),
        };
        let body = match request.framing {
            Framing::Length(length) => Body::Length(length),
            _ => Body::Chunked,
        };
        let is_large = matches!(body, Body::Length(length) if length > MAX_REPLAY_BODY as u64);
        let enough = if is_large { PROOF_OF_BODY } else { MAX_REPLAY_BODY + 1 };
        let has_begun = !self.buffers.inbound.is_empty();
        let Buffers { inbound, body: received, .. } = &mut *self.buffers;
        let piece = decoder.decode(inbound).map_err(|_| UploadFault::Broken)?;
        Buffers::keep(received, &inbound[..piece.data]);
        inbound.drain(..piece.used);
        if decoder.is_done() {
            return Ok(self.whole(body, &decoder));
        }
        // The body took all bytes; only after its end would there be bytes of the next request.
        if inbound.capacity() > MODEST {
            *inbound = Vec::new();
        }
        let thread = self.thread;
        let arrival = thread.arrive(Kind::Arriving, self.place, self.key)?;
        arrival.moved(received.len(), thread.deadlines.now_ms());
        if request.expects_continue && !has_begun {
            if is_large {
                // Whether it is wanted, the worker decides.
                return Ok(Payload::streamed(body, decoder, 0, arrival));
            }
            self.give_leave().await?;
        }
        let began_ms = thread.deadlines.now_ms();
        loop {
            let length = self.buffers.body.len();
            if (length as u64).saturating_add(decoder.announced()) > MAX_REQUEST_BODY {
                return Err(UploadFault::TooLarge.into());
            }
            if length >= enough {
                return Ok(Payload::streamed(body, decoder, length as u64, arrival));
            }
            if self.is_past(began_ms, thread.limits().upload) {
                return Err(UploadFault::TooSlow.into());
            }
            self.read_body(&mut decoder, &arrival).await?;
            if decoder.is_done() {
                return Ok(self.whole(body, &decoder));
            }
        }
    }

    /// Tells a client that waits for it to send its body.
    async fn give_leave(&mut self) -> Result<(), UploadFault> {
        let reply = &mut self.buffers.reply;
        reply.clear();
        reply.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.write_reply().await
    }

    /// A body that is here. Its length is known, so only trailers need the chunked coding.
    fn whole(&mut self, body: Body, decoder: &Decoder) -> Payload {
        let received = &mut self.buffers.body;
        match (body, decoder.trailers()) {
            (Body::Chunked, []) => Payload::whole(Body::Length(received.len() as u64)),
            (Body::Chunked, trailers) => {
                let data = std::mem::take(received);
                http1::chunked::encode(&data, received);
                http1::chunked::encode_end(trailers, received);
                Payload::whole(Body::Chunked)
            }
            (body, _) => Payload::whole(body),
        }
    }

    /// Tries workers until one answers.
    async fn forward(
        &mut self,
        request: &Request,
        payload: &mut Payload,
    ) -> Result<(Answer, TcpStream, InFlight), Refusal> {
        let limits = self.thread.limits();
        let deadline = Instant::now() + limits.total;
        let mut tried = [u64::MAX; MAX_TRIES];
        let mut failure = Failure::NothingSent;
        self.thread.budget.borrow_mut().earn();
        for tries in 0..limits.tries.min(MAX_TRIES) {
            if tries > 0 {
                if Instant::now() >= deadline || !self.thread.budget.borrow_mut().spend() {
                    break;
                }
                self.thread.counters.retries.add();
            }
            // Each try chooses from the current table: workers may have come or gone since the last try.
            self.await_staff().await?;
            let Some(worker) = self.pick(&tried[..tries]) else {
                if tries == 0 {
                    self.thread.counters.shed.add();
                    return Err(Refusal::Overloaded);
                }
                break;
            };
            if self.flight.is_none() {
                let counted = self.thread.shares.begin(Kind::InFlight, self.place);
                self.flight = Some(counted.map_err(|full| self.thread.full(full))?);
            }
            tried[tries] = worker.number;
            failure = match self.attempt(&worker, request, payload, deadline).await {
                Ok((answer, stream, in_flight)) => return Ok((answer, stream, in_flight)),
                Err(failure) => failure,
            };
            tracing::debug!(worker = %worker.id, ?failure, "a try failed");
            let non_idempotent = self.thread.shared.config.non_idempotent;
            let effect = self.effect(request);
            if !retry::may_repeat(failure, effect, payload.is_at_hand(), non_idempotent) {
                break;
            }
        }
        Err(Refusal::AllFailed(failure))
    }

    /// Returns the effect that the request may have at the worker.
    fn effect(&self, request: &Request) -> Effect {
        match request.method.is_idempotent() {
            false => Effect::EachTime,
            true if fleet::layers::get_changes_something(&self.buffers.outbound[request.path.clone()]) => {
                Effect::ChangesByGet
            }
            true => Effect::Once,
        }
    }

    /// Holds a request for which there is no worker at all, for a while.
    async fn await_staff(&mut self) -> Result<(), Refusal> {
        let shared = &self.thread.shared;
        if !shared.fleet.table().workers.is_empty() {
            return Ok(());
        }
        // A try that failed gives its place back: the request waits like any other now.
        self.flight = None;
        let held = self.thread.shares.begin(Kind::Held, self.place);
        let _held = held.map_err(|full| match (self.thread.full(full), full) {
            (_, Full::All) => Refusal::Crowded,
            (refusal, Full::Share) => refusal,
        })?;
        if shared.fleet.staffed(shared.config.limits.hold).await { Ok(()) } else { Err(Refusal::NoWorkers) }
    }

    fn pick(&self, tried: &[u64]) -> Option<Arc<Worker>> {
        let now = Instant::now();
        let table = self.thread.shared.fleet.table();
        let most = self.thread.limits().per_worker;
        let standing = |index: usize| {
            let worker = &table.workers[index];
            Standing {
                load: worker.load(now),
                is_out: worker.is_out(now),
                // A worker at its limit counts as tried.
                is_tried: tried.contains(&worker.number) || worker.in_flight() >= most,
            }
        };
        let mut rng = self.thread.rng.borrow_mut();
        let policy = self.thread.shared.config.policy;
        let index = balance::choose(policy, table.workers.len(), standing, &mut *rng)?;
        Some(Arc::clone(&table.workers[index]))
    }

    /// One try on one worker: on idle connections as long as they turn out stale, then on a fresh
    /// one.
    async fn attempt(
        &mut self,
        worker: &Arc<Worker>,
        request: &Request,
        payload: &mut Payload,
        deadline: Instant,
    ) -> Result<(Answer, TcpStream, InFlight), Failure> {
        /// If two idle connections are stale, probably all are, and the sweep will drop them.
        const MAX_STALE: usize = 2;
        let in_flight = worker.begin();
        let may_be_repeated = request.method.is_idempotent() && payload.is_whole() && !request.upgrades;
        for _ in 0..if may_be_repeated { MAX_STALE } else { 0 } {
            let Some(mut stream) = self.take_idle(worker).await else { break };
            match send::run(self, request, payload, worker, &mut stream, deadline).await {
                Ok(answer) => return Ok((self.note_health(answer, &in_flight), stream, in_flight)),
                Err(Failure::NothingSent | Failure::Lost) => {}
                Err(failure) => {
                    blame(worker, failure, payload);
                    return Err(failure);
                }
            }
        }
        let mut stream = match self.dial(worker).await {
            Ok(stream) => stream,
            // Better a connection that may be stale than none; nothing else is to be had.
            Err(DialError::Ours(error)) => {
                tracing::error!(%error, "no connection to any worker can be opened; check this machine's limits");
                self.take_idle(worker).await.ok_or(Failure::NothingSent)?
            }
            Err(DialError::Refused(_) | DialError::TimedOut) => {
                worker.unreachable();
                return Err(Failure::NothingSent);
            }
        };
        match send::run(self, request, payload, worker, &mut stream, deadline).await {
            Ok(answer) => Ok((self.note_health(answer, &in_flight), stream, in_flight)),
            Err(failure) => {
                blame(worker, failure, payload);
                Err(failure)
            }
        }
    }

    fn note_health(&self, answer: Answer, in_flight: &InFlight) -> Answer {
        if answer.response.is_draining {
            in_flight.0.drains();
        }
        if answer.response.status >= 500 {
            in_flight.0.answered_badly();
        } else {
            in_flight.0.answered();
        }
        answer
    }

    async fn take_idle(&self, worker: &Worker) -> Option<TcpStream> {
        let thread = self.thread;
        poll_fn(|cx| {
            let (now_ms, max_age_ms) = (thread.deadlines.now_ms(), thread.max_idle_ms());
            Poll::Ready(thread.pools.borrow_mut().take(worker, now_ms, max_age_ms, cx))
        })
        .await
    }

    async fn dial(&self, worker: &Worker) -> Result<TcpStream, DialError> {
        let source = upstream::source(self.thread.address, worker.addr.0.ip());
        let dialing = upstream::dial(worker.addr, source);
        tokio::pin!(dialing);
        self.thread.deadlines.set(self.key, self.thread.limits().connect);
        poll_fn(|cx| match dialing.as_mut().poll(cx) {
            Poll::Ready(dialed) => Poll::Ready(dialed),
            Poll::Pending if self.thread.deadlines.is_over(self.key) => Poll::Ready(Err(DialError::TimedOut)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn refuse(&mut self, refusal: Refusal, request: Option<&Request>) -> (u16, Fate) {
        let status = refusal.status();
        // The client may take its time to read it.
        self.buffers.forget_request();
        let is_gone = matches!(
            refusal,
            Refusal::Upload(UploadFault::Gone) | Refusal::AllFailed(Failure::Upload(UploadFault::Gone))
        );
        if is_gone {
            return (status, Fate::Close);
        }
        // After a client's mistake it is not certain where its next request begins, and after a
        // refusal before the body was read it is certain that it is not next.
        let is_read = matches!(refusal, Refusal::NoWorkers | Refusal::Crowded | Refusal::AllFailed(_));
        let mut is_persistent = false;
        let reply = &mut self.buffers.reply;
        reply.clear();
        match request {
            None => refusal.write(Method::Get, Version::Http11, &self.thread.new_id(), false, reply),
            Some(request) => {
                is_persistent = status >= 500
                    && is_read
                    && self.body_is_read
                    && request.is_persistent
                    && !self.thread.is_draining();
                let id = request.id.as_bytes();
                refusal.write(request.method, request.version, id, is_persistent, reply);
            }
        }
        match self.write_reply().await {
            Ok(()) if is_persistent => (status, Fate::Keep),
            Ok(()) => (status, Fate::Linger),
            Err(_) => (status, Fate::Close),
        }
    }
}

fn blame(worker: &Worker, failure: Failure, payload: &Payload) {
    match failure {
        // A worker that does not want a body may close before it has read it, which looks like a crash
        // from here. If it was one, the next connection will be refused.
        Failure::Lost if !payload.is_whole() => worker.answered_badly(),
        Failure::NothingSent | Failure::Lost => worker.unreachable(),
        Failure::Silent => worker.silent(),
        Failure::Late | Failure::Invalid => worker.answered_badly(),
        Failure::Upload(_) => {}
    }
}
