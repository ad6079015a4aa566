//! The answer on its way back, and at the same time the rest of the request.
//!
//! The worker is read only when the client has taken everything before: a slow client slows its
//! worker, it does not fill our memory. When a worker dies midway the client's connection is cut, so
//! that the client sees that the response is not whole.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http1::chunked;
use http1::framing::{Decoder, Framing};
use http1::response::Relay;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;

use crate::client::poll_receive;
use crate::exchange::{Exchange, Fate, Wait, poll_write_all};
use crate::pace::Pace;
use crate::retry::UploadFault;
use crate::send::{self, Answer, Payload, Upload};
use crate::worker::InFlight;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// The client is gone, does not read, or did not send the whole body.
    Client,
    /// The worker broke off, went silent, or sent invalid HTTP.
    Worker,
}

impl From<UploadFault> for Broken {
    fn from(_: UploadFault) -> Self {
        Self::Client
    }
}

/// The body as it passes.
struct Body {
    decoder: Decoder,
    framing: Framing,
    relay: Relay,
    /// In `buffers.reply`.
    at: usize,
    is_whole: bool,
    /// The rate at which the client reads.
    pace: Pace,
    /// The worker sent bytes beyond the end of its response; they belong to no request.
    has_excess: bool,
}

pub(crate) async fn run(
    exchange: &mut Exchange<'_>,
    mut payload: Payload,
    answer: Answer,
    mut worker: TcpStream,
    in_flight: InFlight,
) -> Fate {
    let Answer { response, relay, is_persistent, body_at, mut upload } = answer;
    let framing = response.framing;
    let decoder = Decoder::new(framing);
    let pace = Pace::default();
    let mut body = Body { decoder, framing, relay, at: 0, is_whole: false, pace, has_excess: false };
    let buffers = &mut *exchange.buffers;
    if upload.is_over() {
        buffers.forget_request();
    }
    let came_with_head = &mut buffers.response[body_at..];
    let passed = match body.take(came_with_head, &mut buffers.reply) {
        Ok(()) => {
            if body.is_whole && !is_persistent && upload.is_sent() && buffers.inbound.is_empty() {
                exchange.client.begin_end();
            }
            let mut wait = Wait::default();
            poll_fn(|cx| body.poll_pass(exchange, &mut payload, &mut upload, &mut worker, &mut wait, cx))
                .await
        }
        Err(broken) => Err(broken),
    };
    match passed {
        Ok(()) => {}
        Err(Broken::Client) => return Fate::Close,
        Err(Broken::Worker) => {
            in_flight.0.answered_badly();
            if relay == Relay::Plain && !response.has_length() {
                exchange.client.abort();
            }
            return Fate::Close;
        }
    }
    if response.is_persistent && upload.is_sent() && !body.has_excess && !in_flight.0.is_draining() {
        let thread = exchange.thread;
        let now_ms = thread.deadlines.now_ms();
        thread.pools.borrow_mut().put(&in_flight.0, worker, now_ms, thread.max_idle);
    }
    match (is_persistent, upload.is_sent() && exchange.buffers.inbound.is_empty()) {
        (true, _) => Fate::Keep,
        (false, true) => Fate::Close,
        (false, false) => Fate::Linger,
    }
}

impl Body {
    /// Passes everything that can be passed; ready when the client has it all.
    fn poll_pass(
        &mut self,
        exchange: &mut Exchange<'_>,
        payload: &mut Payload,
        upload: &mut Upload,
        worker: &mut TcpStream,
        wait: &mut Wait,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let mut has_progressed = false;
        if !upload.is_over()
            && let Poll::Ready(Err(fault)) = send::poll_upload(exchange, payload, upload, worker, cx)
        {
            return Poll::Ready(Err(fault.into()));
        }
        let (thread, key) = (exchange.thread, exchange.key);
        loop {
            let before = self.at;
            let written = poll_write_all(exchange.client, cx, &exchange.buffers.reply, &mut self.at);
            has_progressed |= self.at > before;
            let now_ms = thread.deadlines.now_ms();
            self.pace.moved(self.at - before, now_ms);
            let patience = match written {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Client)),
                Poll::Ready(Ok(())) if self.is_whole => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => match self.poll_piece(exchange, worker, cx) {
                    Poll::Ready(Ok(())) => {
                        has_progressed = true;
                        continue;
                    }
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                    Poll::Pending => thread.limits().reply_pause,
                },
                Poll::Pending => {
                    self.pace.waits(now_ms);
                    let behind =
                        Duration::from_millis(self.pace.behind_ms(thread.limits().client_rate, now_ms));
                    if behind > thread.limits().client_pause {
                        return Poll::Ready(Err(Broken::Client));
                    }
                    thread.limits().client_pause
                }
            };
            if !wait.is_over(thread, key, has_progressed, || patience) {
                return Poll::Pending;
            }
            let broken = if written.is_pending() { Broken::Client } else { Broken::Worker };
            return Poll::Ready(Err(broken));
        }
    }

    /// Reads a piece from the worker, and writes to the client as much as it takes at once. The rest, and
    /// every piece that needs framing, goes through `buffers.reply`.
    fn poll_piece(
        &mut self,
        exchange: &mut Exchange<'_>,
        worker: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        exchange.buffers.reply.clear();
        self.at = 0;
        let scratch = &mut **exchange.thread.scratch.borrow_mut();
        let count = match ready!(poll_receive(worker, cx, scratch)) {
            Ok(0) => return Poll::Ready(self.end(&mut exchange.buffers.reply)),
            Ok(count) => count,
            // A reset is no orderly end, not even of a body that has no other.
            Err(_) => return Poll::Ready(Err(Broken::Worker)),
        };
        let bytes = &mut scratch[..count];
        if self.relay == Relay::Chunked {
            return Poll::Ready(self.take(bytes, &mut exchange.buffers.reply));
        }
        let data = self.decode(bytes)?;
        let taken = match Pin::new(&mut *exchange.client).poll_write(cx, &bytes[..data]) {
            Poll::Ready(Ok(taken)) => taken,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Client)),
            Poll::Pending => 0,
        };
        self.pace.moved(taken, exchange.thread.deadlines.now_ms());
        exchange.buffers.reply.extend_from_slice(&bytes[taken..data]);
        Poll::Ready(Ok(()))
    }

    /// Takes the worker's framing off and puts the client's on.
    fn take(&mut self, bytes: &mut [u8], reply: &mut Vec<u8>) -> Result<(), Broken> {
        let data = self.decode(bytes)?;
        match self.relay {
            Relay::Plain => reply.extend_from_slice(&bytes[..data]),
            Relay::Chunked => {
                chunked::encode(&bytes[..data], reply);
                if self.is_whole {
                    chunked::encode_end(self.decoder.trailers(), reply);
                }
            }
        }
        Ok(())
    }

    fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, Broken> {
        let piece = self.decoder.decode(bytes).map_err(|_| Broken::Worker)?;
        self.is_whole = self.decoder.is_done();
        self.has_excess = piece.used < bytes.len();
        Ok(piece.data)
    }

    /// The worker has closed its connection.
    fn end(&mut self, reply: &mut Vec<u8>) -> Result<(), Broken> {
        if self.framing != Framing::UntilClose {
            return Err(Broken::Worker);
        }
        self.is_whole = true;
        if self.relay == Relay::Chunked {
            chunked::encode_end(&[], reply);
        }
        Ok(())
    }
}
