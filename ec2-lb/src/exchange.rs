//! The state of one exchange and its reads and writes: the buffers, the client, the waits.
//!
//! `forward` drives it; `send`, `relay` and `tunnel` each use it for a part of the way. This module depends
//! on none of them.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fleet::layers::MAX_REPLAY_BODY;
use http1::framing::Decoder;
use http1::request::Origin;
use tokio::io::AsyncWrite;

use crate::client::Client;
use crate::deadline::Key;
use crate::limits::BODY_PIECE;
use crate::place::Place;
use crate::retry::UploadFault;
use crate::shares::{Arrival, Counted};
use crate::thread::Thread;

pub(crate) struct Exchange<'l> {
    pub(crate) thread: &'l Thread,
    pub(crate) client: &'l mut Client,
    pub(crate) key: Key,
    pub(crate) buffers: &'l mut Buffers,
    pub(crate) origin: Origin,
    pub(crate) place: Place,
    /// The body of the current request is received whole.
    pub(crate) body_is_read: bool,
    /// The current request is in flight.
    pub(crate) flight: Option<Counted<'l>>,
}

/// How an exchange ended, for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    Close,
    /// Bytes of the client may still arrive; closing at once would reset the connection, and with it
    /// the answer that it has not read yet.
    Linger,
}

impl Exchange<'_> {
    /// Writes `buffers.reply` to the client.
    pub(crate) async fn write_reply(&mut self) -> Result<(), UploadFault> {
        let patience = self.thread.limits().client_pause;
        let Buffers { reply, .. } = &*self.buffers;
        let mut at = 0;
        let mut wait = Wait::default();
        let client = &mut *self.client;
        let (thread, key) = (self.thread, self.key);
        let written = poll_fn(|cx| {
            let before = at;
            match poll_write_all(client, cx, reply, &mut at) {
                Poll::Pending if wait.is_over(thread, key, at > before, || patience) => {
                    Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()))
                }
                polled => polled,
            }
        })
        .await;
        written.map_err(|_| UploadFault::Gone)
    }

    /// Receives the next piece of a body that is kept.
    pub(crate) async fn read_body(
        &mut self,
        decoder: &mut Decoder,
        arrival: &Arrival,
    ) -> Result<(), UploadFault> {
        let mut wait = Wait::default();
        let (thread, key) = (self.thread, self.key);
        let client = &mut *self.client;
        let Buffers { inbound, body, .. } = &mut *self.buffers;
        poll_fn(|cx| {
            let scratch = &mut thread.scratch.borrow_mut()[..BODY_PIECE];
            match client.poll_receive(cx, scratch) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(UploadFault::Broken)),
                Poll::Ready(Ok(count)) => {
                    arrival.moved(count, thread.deadlines.now_ms());
                    let piece = decoder.decode(&mut scratch[..count]).map_err(|_| UploadFault::Broken)?;
                    Buffers::keep(body, &scratch[..piece.data]);
                    inbound.extend_from_slice(&scratch[piece.used..count]);
                    Poll::Ready(Ok(()))
                }
                Poll::Ready(Err(_)) => Poll::Ready(Err(UploadFault::Gone)),
                Poll::Pending => {
                    arrival.waits(thread.deadlines.now_ms());
                    match thread.lateness(arrival) {
                        Some(fault) => Poll::Ready(Err(fault)),
                        None if wait.is_over(thread, key, false, || thread.limits().upload_pause) => {
                            Poll::Ready(Err(UploadFault::TooSlow))
                        }
                        None => Poll::Pending,
                    }
                }
            }
        })
        .await
    }

    pub(crate) fn is_past(&self, began_ms: u64, patience: Duration) -> bool {
        let waited = self.thread.deadlines.now_ms().saturating_sub(began_ms);
        Duration::from_millis(waited) > patience
    }

    /// Closes the connection in order. TLS has a closing message, without which a client must suspect a cut.
    /// It is sent after all bytes that the socket still holds for a client that reads slowly.
    pub(crate) async fn say_goodbye(&mut self) {
        if let Client::Plain(socket) = &mut *self.client {
            socket.end();
        } else {
            let patience = self.thread.limits().client_pause;
            let mut wait = Wait::default();
            let (thread, key) = (self.thread, self.key);
            let client = &mut *self.client;
            poll_fn(|cx| match Pin::new(&mut *client).poll_shutdown(cx) {
                Poll::Pending if !wait.is_over(thread, key, false, || patience) => Poll::Pending,
                Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
            })
            .await;
        }
    }

    /// Ends the sending side, and reads and drops the bytes that the client still sends.
    pub(crate) async fn linger(&mut self) {
        let mut left = MAX_LINGER;
        let mut is_shut = false;
        let mut wait = Wait::default();
        let (thread, key) = (self.thread, self.key);
        let client = &mut *self.client;
        poll_fn(|cx| {
            if !is_shut {
                is_shut = Pin::new(&mut *client).poll_shutdown(cx).is_ready();
            }
            let scratch = &mut **thread.scratch.borrow_mut();
            loop {
                match client.poll_receive(cx, scratch) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(count)) => left = left.saturating_sub(count),
                    Poll::Pending => break,
                }
                if left == 0 {
                    return Poll::Ready(());
                }
            }
            // One span for all of it: progress does not prolong it.
            if wait.is_over(thread, key, false, || LINGER) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// How long and how much a connection lingers.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 2 * 1024 * 1024;

/// The buffers of an exchange; a lane keeps them for the next one.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Read from the client and not used yet.
    pub(crate) inbound: Vec<u8>,
    /// The head for the worker, and after it what else is to be sent.
    pub(crate) outbound: Vec<u8>,
    /// The client's body as far as it was received before a worker was chosen.
    pub(crate) body: Vec<u8>,
    /// Read from the worker and not used yet.
    pub(crate) response: Vec<u8>,
    /// To be sent to the client.
    pub(crate) reply: Vec<u8>,
}

/// The capacity that a buffer may keep while an exchange waits.
pub(crate) const MODEST: usize = 8 * 1024;

impl Buffers {
    /// Frees the memory that one large message has taken.
    pub(crate) fn shrink(&mut self, max: usize) {
        for buffer in
            [&mut self.inbound, &mut self.outbound, &mut self.body, &mut self.response, &mut self.reply]
        {
            if buffer.capacity() > max {
                buffer.shrink_to(max);
            }
        }
    }

    /// Frees the buffers of the request once it is sent and answered. The response may take as much
    /// memory again, for as long as the client takes to read it.
    pub(crate) fn forget_request(&mut self) {
        for buffer in [&mut self.outbound, &mut self.body] {
            if buffer.capacity() > MODEST {
                *buffer = Vec::new();
            }
        }
    }

    /// Appends to a body, without the spare room that a growing buffer takes.
    pub(crate) fn keep(body: &mut Vec<u8>, data: &[u8]) {
        let needed = body.len() + data.len();
        if needed > body.capacity() {
            let roomy = (2 * body.capacity()).min(MAX_REPLAY_BODY + BODY_PIECE);
            body.reserve_exact(needed.max(roomy) - body.len());
        }
        body.extend_from_slice(data);
    }
}

/// A wait with a deadline that starts again with each progress.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    has_begun: bool,
}

impl Wait {
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(crate) fn begin(&mut self) {
        self.has_begun = true;
    }

    /// Whether the wait is over. Call it only when nothing else can be done.
    pub(crate) fn is_over(
        &mut self,
        thread: &Thread,
        key: Key,
        has_progressed: bool,
        patience: impl FnOnce() -> Duration,
    ) -> bool {
        if has_progressed || !self.has_begun {
            self.has_begun = true;
            thread.deadlines.set(key, patience());
            return false;
        }
        thread.deadlines.is_over(key)
    }
}

/// Writes `bytes` from `at` on; ready when nothing waits in the stream itself either, as it does while
/// a client that is spoken to by TLS does not read.
pub(crate) fn poll_write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    bytes: &[u8],
    at: &mut usize,
) -> Poll<std::io::Result<()>> {
    while *at < bytes.len() {
        match ready!(Pin::new(&mut *stream).poll_write(cx, &bytes[*at..]))? {
            0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
            count => *at += count,
        }
    }
    Pin::new(stream).poll_flush(cx)
}
