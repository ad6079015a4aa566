//! The body of a response to the client: our own text, or a worker's stream.
//!
//! The stream owns what the request occupies: the worker's in-flight count and the connection. Both
//! are given back when it is dropped, the connection only if the response was read to its end.
//! When a worker dies midway the stream ends in an error, hyper closes the client's connection, and
//! the client sees that the response is truncated.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::limits::Limits;
use crate::metrics::Serving;
use crate::upstream::Sender;
use crate::worker::InFlight;

#[derive(Debug)]
pub(crate) struct Reply {
    content: Content,
    /// Ends with the reply.
    pub(crate) serving: Option<Serving>,
}

#[derive(Debug)]
enum Content {
    Own(Option<Bytes>),
    Worker(Box<Relay>),
}

#[derive(Debug)]
struct Relay {
    incoming: Incoming,
    is_read: bool,
    /// `None` when the worker wants the connection closed.
    sender: Option<Sender>,
    in_flight: InFlight,
    /// Runs only while we wait for the worker.
    timer: Option<Pin<Box<Sleep>>>,
    limits: Limits,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error("the worker broke off its response")]
    Broken(#[source] hyper::Error),
    #[error("the worker stopped in the middle of its response")]
    Stalled,
}

impl Reply {
    pub(crate) fn own(text: impl Into<Bytes>) -> Self {
        Self { content: Content::Own(Some(text.into())), serving: None }
    }

    pub(crate) fn relay(
        incoming: Incoming,
        sender: Option<Sender>,
        in_flight: InFlight,
        limits: Limits,
    ) -> Self {
        let relay = Relay { incoming, is_read: false, sender, in_flight, timer: None, limits };
        Self { content: Content::Worker(Box::new(relay)), serving: None }
    }
}

impl Relay {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            let pause = self.limits.reply_pause;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(timer.as_mut().poll(cx));
            self.in_flight.0.silent();
            return Poll::Ready(Some(Err(ReplyError::Stalled)));
        };
        self.timer = None;
        Poll::Ready(match frame {
            None => {
                self.is_read = true;
                None
            }
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                self.in_flight.0.answered_badly();
                Some(Err(ReplyError::Broken(error)))
            }
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let is_read = self.is_read || self.incoming.is_end_stream();
        if let Some(sender) = self.sender.take().filter(|_| is_read) {
            self.in_flight.0.pool.put(sender, Instant::now(), self.limits.idle_per_worker);
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match &mut self.content {
            Content::Own(text) => Poll::Ready(text.take().map(Frame::data).map(Ok)),
            Content::Worker(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(text) => text.is_none(),
            Content::Worker(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Content::Worker(relay) => relay.incoming.size_hint(),
        }
    }
}
