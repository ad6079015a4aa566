//! One request to one worker on one connection: sends it and waits for the head of the response.
//!
//! Every step polls both directions. A worker may answer before it has read everything, and a client that
//! expects `100 Continue` with a large body sends nothing until the worker has answered.
//!
//! ```text
//!  waiting ──(`silence` without a byte)──> a health check is asked for ──(it is silent too)──> Silent
//!     ^                                              │
//!     └──────────────(it is answered)────────────────┘        ──(`response`, or no time left)──> Late
//! ```

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http1::chunked;
use http1::framing::Decoder;
use http1::head::{self, MAX_RESPONSE_HEAD, Scan};
use http1::request::{Body, Request, Version};
use http1::response::{self, Relay, Reply, Response};
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;

use crate::client::{Client, poll_receive};
use crate::deadline::SWEEP;
use crate::exchange::{Buffers, Exchange, Wait};
use crate::limits::{MAX_REQUEST_BODY, READ_BUFFER};
use crate::pipe::Pipe;
use crate::retry::{Failure, UploadFault};
use crate::shares::Arrival;
use crate::thread::Thread;
use crate::worker::{Health, Worker};

/// Interim responses to one request: a `100` and some `103`. More is a worker gone wild.
const MAX_INTERIM: usize = 16;

/// A body of up to so many bytes is copied behind the head. One of more is sent from where it was
/// received: copied, it would be held twice.
const SENT_WITH_HEAD: usize = 8 * 1024;

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Payload {
    body: Body,
    /// Takes the framing off what the client has still to send; `None` when the body is here.
    rest: Option<Decoder>,
    /// Counts the request as arriving until its body is here.
    arrival: Option<Arrival>,
    /// Bytes of the body so far.
    received: u64,
    /// Bytes of the body that are not kept have been sent.
    is_spent: bool,
}

impl Payload {
    pub(crate) fn whole(body: Body) -> Self {
        Self { body, rest: None, arrival: None, received: 0, is_spent: false }
    }

    pub(crate) fn streamed(body: Body, rest: Decoder, received: u64, arrival: Arrival) -> Self {
        Self { body, rest: Some(rest), arrival: Some(arrival), received, is_spent: false }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Whether the body can be sent again from its first byte.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.rest.is_none() || !self.is_spent
    }
}

/// How far a request is sent.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// In `buffers.outbound`, and after its end in `buffers.body` if that goes apart.
    at: usize,
    /// The received part of the body is sent from its own buffer.
    is_apart: bool,
    /// Holds what comes after both.
    pipe: Option<Pipe>,
    /// Bytes the kernel has taken.
    accepted: u64,
    began_ms: u64,
    state: UploadState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UploadState {
    #[default]
    Sending,
    Sent,
    /// The worker takes no more bytes; its answer may still be read.
    Broken,
}

impl Upload {
    pub(crate) fn is_over(&self) -> bool {
        self.state != UploadState::Sending
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.state == UploadState::Sent
    }

    /// Returns the unsent bytes of the head and of the body behind it, without the pipe's.
    fn left<'b>(&self, buffers: &'b Buffers) -> [&'b [u8]; 2] {
        let Buffers { outbound, body, .. } = buffers;
        let body = if self.is_apart { &body[..] } else { &[] };
        let in_body = self.at.saturating_sub(outbound.len());
        [outbound.get(self.at..).unwrap_or_default(), body.get(in_body..).unwrap_or_default()]
    }

    /// Whether everything is sent that is here.
    fn awaits_more(&self, buffers: &Buffers) -> bool {
        self.pipe.is_none() && self.left(buffers).iter().all(|left| left.is_empty())
    }

    /// Sends everything that is here.
    fn poll_flush(
        &mut self,
        exchange: &Exchange<'_>,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let sent = match self.left(exchange.buffers) {
                [&[], &[]] => break,
                [left, &[]] | [&[], left] => Pin::new(&mut *stream).poll_write(cx, left),
                both => Pin::new(&mut *stream).poll_write_vectored(cx, &both.map(IoSlice::new)),
            };
            match ready!(sent)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.at += count;
                    self.accepted += count as u64;
                }
            }
        }
        while let Some(mut pipe) = self.pipe.take() {
            let drained = pipe.poll_drain(stream, cx);
            if pipe.is_empty() {
                exchange.thread.pipes.borrow_mut().put(pipe);
            } else {
                self.pipe = Some(pipe);
            }
            self.accepted += ready!(drained)? as u64;
        }
        Poll::Ready(Ok(()))
    }
}

/// A response whose head is in `buffers.reply`, written for the client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) relay: Relay,
    /// Whether the client was told that its connection stays open.
    pub(crate) is_persistent: bool,
    /// Where the body begins in `buffers.response`.
    pub(crate) body_at: usize,
    pub(crate) upload: Upload,
}

pub(crate) async fn run(
    exchange: &mut Exchange<'_>,
    request: &Request,
    payload: &mut Payload,
    worker: &Arc<Worker>,
    stream: &mut TcpStream,
    deadline: Instant,
) -> Result<Answer, Failure> {
    let is_apart = prepare(exchange, request, payload, worker);
    let began_ms = exchange.thread.deadlines.now_ms();
    let mut upload = Upload { is_apart, began_ms, ..Upload::default() };
    let mut interims = 0;
    let mut patience =
        Patience { worker, deadline, wait: Wait::default(), silent_since_ms: 0, asked_ms: None };
    loop {
        let len = poll_fn(|cx| poll_head(exchange, payload, &mut upload, stream, &mut patience, cx)).await?;
        match parse_answer(exchange, request, len, upload)? {
            Parsed::Final(answer) => return Ok(answer),
            Parsed::Interim(so_far) => upload = so_far,
        }
        interims += 1;
        if interims > MAX_INTERIM {
            return Err(Failure::Invalid);
        }
        exchange.buffers.response.drain(..len);
        if !exchange.buffers.reply.is_empty() {
            exchange.write_reply().await.map_err(Failure::Upload)?;
        }
    }
}

/// Completes the head and appends the received part of the body, unless that is sent from its own buffer;
/// returns whether it is.
fn prepare(exchange: &mut Exchange<'_>, request: &Request, payload: &Payload, worker: &Worker) -> bool {
    let Buffers { body, outbound, response, .. } = &mut *exchange.buffers;
    request.finish(&worker.authority, payload.body, outbound);
    response.clear();
    match (payload.body, &payload.rest) {
        (Body::Chunked, Some(_)) => {
            outbound.reserve_exact(body.len() + chunked::MAX_OVERHEAD);
            chunked::encode(body, outbound);
        }
        _ if body.len() > SENT_WITH_HEAD => return true,
        _ => {
            outbound.reserve_exact(body.len());
            outbound.extend_from_slice(body);
        }
    }
    false
}

/// How long a worker is waited for.
struct Patience<'w> {
    worker: &'w Arc<Worker>,
    /// Of the whole request.
    deadline: Instant,
    wait: Wait,
    silent_since_ms: u64,
    /// When a health check was requested, in the worker's time.
    asked_ms: Option<u64>,
}

impl Patience<'_> {
    /// Starts the wait again.
    fn begin(&mut self, exchange: &Exchange<'_>) {
        let thread = exchange.thread;
        (self.silent_since_ms, self.asked_ms) = (thread.deadlines.now_ms(), None);
        thread.deadlines.set(exchange.key, thread.limits().silence);
    }

    /// Returns why the wait for the worker must end, if it must.
    fn fault(&mut self, exchange: &Exchange<'_>, is_whole: bool) -> Option<Failure> {
        let (thread, limits) = (exchange.thread, exchange.thread.limits());
        if !thread.deadlines.is_over(exchange.key) {
            return None;
        }
        let is_out_of_time = is_whole && Instant::now() >= self.deadline;
        if is_out_of_time || exchange.is_past(self.silent_since_ms, limits.response) {
            return Some(Failure::Late);
        }
        // The next poll is a sweep or two away.
        let mut next = SWEEP;
        match self.asked_ms {
            None => self.asked_ms = Some(thread.shared.fleet.suspect(self.worker)),
            Some(asked_ms) => match self.worker.health_since(asked_ms) {
                Health::Silent => return Some(Failure::Silent),
                Health::Well => {
                    self.asked_ms = None;
                    next = limits.silence;
                }
                Health::Unknown => {}
            },
        }
        thread.deadlines.set(exchange.key, next);
        None
    }
}

/// Ready with the length of a response head at the front of `buffers.response`.
fn poll_head(
    exchange: &mut Exchange<'_>,
    payload: &mut Payload,
    upload: &mut Upload,
    stream: &mut TcpStream,
    patience: &mut Patience<'_>,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Failure>> {
    let before = (upload.accepted, payload.received);
    if let Poll::Ready(Err(fault)) = poll_upload(exchange, payload, upload, stream, cx) {
        return Poll::Ready(Err(Failure::Upload(fault)));
    }
    let has_progressed = before != (upload.accepted, payload.received);
    let thread = exchange.thread;
    let scratch = &mut **thread.scratch.borrow_mut();
    let mut seen = 0;
    loop {
        let response = &mut exchange.buffers.response;
        match head::scan(response, seen) {
            Scan::Complete(len) if len <= MAX_RESPONSE_HEAD => return Poll::Ready(Ok(len)),
            Scan::Incomplete if response.len() <= MAX_RESPONSE_HEAD => {}
            Scan::Complete(_) | Scan::Incomplete | Scan::BareLineFeed => {
                return Poll::Ready(Err(Failure::Invalid));
            }
        }
        seen = response.len();
        match poll_receive(stream, cx, scratch) {
            Poll::Ready(Ok(0) | Err(_)) if upload.accepted == 0 => {
                return Poll::Ready(Err(Failure::NothingSent));
            }
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Failure::Lost)),
            Poll::Ready(Ok(count)) => response.extend_from_slice(&scratch[..count]),
            Poll::Pending => break,
        }
    }
    let awaits_client = payload.rest.is_some() && !upload.is_over() && upload.awaits_more(exchange.buffers);
    if awaits_client {
        let pause = || thread.limits().upload_pause;
        if patience.wait.is_over(thread, exchange.key, has_progressed, pause) {
            return Poll::Ready(Err(Failure::Upload(UploadFault::TooSlow)));
        }
    } else if has_progressed || !patience.wait.has_begun() {
        patience.wait.begin();
        patience.begin(exchange);
    } else if let Some(failure) = patience.fault(exchange, payload.is_whole()) {
        return Poll::Ready(Err(failure));
    }
    Poll::Pending
}

/// Sends the head and as much of the client's body as has come. An error is the client's fault.
pub(crate) fn poll_upload(
    exchange: &mut Exchange<'_>,
    payload: &mut Payload,
    upload: &mut Upload,
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
) -> Poll<Result<(), UploadFault>> {
    while upload.state == UploadState::Sending {
        let flushed = upload.poll_flush(exchange, stream, cx);
        payload.is_spent |= upload.accepted > 0;
        if ready!(flushed).is_err() {
            upload.state = UploadState::Broken;
            return Poll::Ready(Ok(()));
        }
        match &mut payload.rest {
            Some(decoder) if !decoder.is_done() => {
                // Once a part is sent the request cannot be repeated, so its first part is not kept.
                let Buffers { outbound, body, .. } = &mut *exchange.buffers;
                if body.capacity() > 0 {
                    *body = Vec::new();
                }
                outbound.clear();
                (upload.at, upload.is_apart) = (0, false);
                ready!(poll_more(exchange, payload, upload, cx))?;
            }
            Some(_) | None => {
                payload.arrival = None;
                upload.state = UploadState::Sent;
            }
        }
    }
    Poll::Ready(Ok(()))
}

/// Reads the next piece of the client's body and frames it for the worker. Bytes that need not be read pass
/// through a pipe.
fn poll_more(
    exchange: &mut Exchange<'_>,
    payload: &mut Payload,
    upload: &mut Upload,
    cx: &mut Context<'_>,
) -> Poll<Result<(), UploadFault>> {
    let Payload { rest: Some(decoder), arrival: Some(arrival), .. } = payload else {
        return Poll::Ready(Ok(()));
    };
    if exchange.is_past(upload.began_ms, exchange.thread.limits().upload) {
        return Poll::Ready(Err(UploadFault::TooSlow));
    }
    let thread = exchange.thread;
    let scratch = &mut **thread.scratch.borrow_mut();
    let through_pipe = poll_pipe(thread, exchange.client, decoder, upload, cx);
    let is_piped = through_pipe.is_some();
    let count = match through_pipe.unwrap_or_else(|| exchange.client.poll_receive(cx, scratch)) {
        Poll::Ready(Ok(0)) => return Poll::Ready(Err(UploadFault::Broken)),
        Poll::Ready(Ok(count)) => count,
        Poll::Ready(Err(_)) => return Poll::Ready(Err(UploadFault::Gone)),
        Poll::Pending => {
            arrival.waits(thread.deadlines.now_ms());
            return thread.lateness(arrival).map_or(Poll::Pending, |fault| Poll::Ready(Err(fault)));
        }
    };
    arrival.moved(count, thread.deadlines.now_ms());
    if is_piped {
        payload.received += count as u64;
        return Poll::Ready(Ok(()));
    }
    let buffers = &mut *exchange.buffers;
    let piece = decoder.decode(&mut scratch[..count]).map_err(|_| UploadFault::Broken)?;
    payload.received += piece.data as u64;
    if payload.received.saturating_add(decoder.announced()) > MAX_REQUEST_BODY {
        return Poll::Ready(Err(UploadFault::TooLarge));
    }
    let data = &scratch[..piece.data];
    match payload.body {
        Body::Chunked => chunked::encode(data, &mut buffers.outbound),
        Body::None | Body::Length(_) => buffers.outbound.extend_from_slice(data),
    }
    if payload.body == Body::Chunked && decoder.is_done() {
        chunked::encode_end(decoder.trailers(), &mut buffers.outbound);
    }
    // Before its end all is the body's; after it, the next request's.
    buffers.inbound.extend_from_slice(&scratch[piece.used..count]);
    Poll::Ready(Ok(()))
}

/// Puts the next piece of a body into a pipe. Returns `None` if the piece must be read: because the client
/// uses TLS, the body is chunked, or no descriptor is left. A body with a length is within its limit.
fn poll_pipe(
    thread: &Thread,
    client: &mut Client,
    decoder: &mut Decoder,
    upload: &mut Upload,
    cx: &mut Context<'_>,
) -> Option<Poll<io::Result<usize>>> {
    let most = usize::try_from(decoder.opaque()).unwrap_or(usize::MAX).min(READ_BUFFER);
    if most == 0 {
        return None;
    }
    let client = client.plain()?;
    let mut pipe = thread.pipes.borrow_mut().take()?;
    let filled = pipe.poll_fill(client, most, cx);
    match &filled {
        Poll::Ready(Ok(count)) if *count > 0 => {
            decoder.pass(*count);
            upload.pipe = Some(pipe);
        }
        Poll::Ready(_) | Poll::Pending => thread.pipes.borrow_mut().put(pipe),
    }
    Some(filled)
}

enum Parsed {
    Final(Answer),
    Interim(Upload),
}

/// Reads the head of `len` bytes and writes it for the client into `buffers.reply`.
fn parse_answer(
    exchange: &mut Exchange<'_>,
    request: &Request,
    len: usize,
    upload: Upload,
) -> Result<Parsed, Failure> {
    let is_draining = exchange.thread.is_draining();
    let Buffers { reply, response, .. } = &mut *exchange.buffers;
    reply.clear();
    let read = response::read(&response[..len], request.method, |head| {
        let response = head.response;
        if response.status == 101 {
            if !request.upgrades {
                return None;
            }
            head.write_switch(reply);
            let answer = Answer { response, relay: Relay::Plain, is_persistent: false, body_at: len, upload };
            return Some(Parsed::Final(answer));
        }
        if response.is_interim() {
            let is_wanted = response.status != 100 || request.asks_worker();
            if request.version == Version::Http11 && is_wanted {
                head.write_interim(reply);
            }
            return Some(Parsed::Interim(upload));
        }
        // A worker that answers early leaves the client in the middle of its body.
        let is_persistent = request.is_persistent
            && !is_draining
            && upload.is_sent()
            && (request.version == Version::Http11 || response.has_length());
        let id = request.id.as_bytes();
        let relay = head.write(Reply { version: request.version, id, is_persistent }, reply);
        Some(Parsed::Final(Answer { response, relay, is_persistent, body_at: len, upload }))
    });
    read.ok().flatten().ok_or(Failure::Invalid)
}
