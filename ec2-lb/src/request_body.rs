//! A client's request body on its way to a worker.
//!
//! A small body is received whole before a worker is chosen: then it can be sent twice, and a slow
//! client occupies no worker. A larger one is streamed through, within the same bounds of size and
//! time, and can be sent once only.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep, timeout};

use crate::limits::{Limits, MAX_REPLAY_BODY, MAX_REQUEST_BODY};
use crate::retry::UploadFault;

/// The body of one request, as often as it can be had.
#[derive(Debug)]
pub(crate) enum Payload {
    Whole(Bytes),
    Streamed(Streamed),
}

#[derive(Debug)]
pub(crate) struct Streamed {
    /// Gone once a connection has begun to send it.
    upload: Option<Box<Upload>>,
    ended: oneshot::Receiver<()>,
    fault: Arc<OnceLock<UploadFault>>,
}

impl Payload {
    pub(crate) fn is_replayable(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// The body for one try, or `None` when it is spent.
    pub(crate) fn take(&mut self) -> Option<RequestBody> {
        match self {
            Self::Whole(bytes) => Some(RequestBody::Whole(Some(bytes.clone()))),
            Self::Streamed(streamed) => streamed.upload.take().map(RequestBody::Streamed),
        }
    }

    /// Takes a body back that was not sent.
    pub(crate) fn put_back(&mut self, body: RequestBody) {
        if let (Self::Streamed(streamed), RequestBody::Streamed(upload)) = (self, body) {
            streamed.upload = Some(upload);
        }
    }

    pub(crate) fn is_at_hand(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Streamed(streamed) => streamed.upload.is_some(),
        }
    }

    /// Completes when the body is sent or given up.
    pub(crate) async fn ended(&mut self) {
        if let Self::Streamed(streamed) = self {
            // An error means that the upload was dropped, which is how it ends.
            drop((&mut streamed.ended).await);
        }
    }

    /// What the client did wrong while its body was streamed.
    pub(crate) fn fault(&self) -> Option<UploadFault> {
        match self {
            Self::Whole(_) => None,
            Self::Streamed(streamed) => streamed.fault.get().copied(),
        }
    }
}

/// Receives a body whole if it is small, or prepares it to be streamed.
pub(crate) async fn receive(body: Incoming, limits: &Limits) -> Result<Payload, UploadFault> {
    if body.is_end_stream() {
        return Ok(Payload::Whole(Bytes::new()));
    }
    if body.size_hint().lower() > MAX_REQUEST_BODY {
        return Err(UploadFault::TooLarge);
    }
    if body.size_hint().lower() > MAX_REPLAY_BODY as u64 {
        return Ok(stream(Bytes::new(), body, limits));
    }
    timeout(limits.upload, begin(body, limits)).await.unwrap_or(Err(UploadFault::TooSlow))
}

async fn begin(mut body: Incoming, limits: &Limits) -> Result<Payload, UploadFault> {
    let mut received = Vec::new();
    loop {
        match timeout(limits.upload_pause, body.frame()).await {
            Err(_) => return Err(UploadFault::TooSlow),
            Ok(None) => return Ok(Payload::Whole(received.into())),
            Ok(Some(Err(_))) => return Err(UploadFault::Broken),
            Ok(Some(Ok(frame))) => {
                // Trailers are dropped: nobody behind us asked for any.
                received.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            }
        }
        if received.len() > MAX_REPLAY_BODY {
            return Ok(stream(received.into(), body, limits));
        }
    }
}

fn stream(received: Bytes, rest: Incoming, limits: &Limits) -> Payload {
    let (ends, ended) = oneshot::channel();
    let fault = Arc::default();
    let upload = Upload {
        received: VecDeque::from_iter((!received.is_empty()).then_some(received)),
        rest,
        left: MAX_REQUEST_BODY,
        pause: limits.upload_pause,
        timer: None,
        fault: Arc::clone(&fault),
        _ends: ends,
    };
    Payload::Streamed(Streamed { upload: Some(Box::new(upload)), ended, fault })
}

/// What a connection to a worker sends.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Whole(Option<Bytes>),
    Streamed(Box<Upload>),
}

#[derive(Debug)]
pub(crate) struct Upload {
    received: VecDeque<Bytes>,
    rest: Incoming,
    /// Bytes that may still come.
    left: u64,
    pause: Duration,
    /// Runs only while we wait for the client.
    timer: Option<Pin<Box<Sleep>>>,
    fault: Arc<OnceLock<UploadFault>>,
    /// Dropped with the upload, which is what the other end waits for.
    _ends: oneshot::Sender<()>,
}

#[derive(Debug, thiserror::Error)]
#[error("the client's body failed: {0:?}")]
pub(crate) struct UploadError(UploadFault);

impl Upload {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFault>>> {
        if let Some(bytes) = self.received.pop_front() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(cx) else {
                let pause = self.pause;
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(pause)));
                ready!(timer.as_mut().poll(cx));
                return Poll::Ready(Some(Err(UploadFault::TooSlow)));
            };
            self.timer = None;
            match frame {
                None => return Poll::Ready(None),
                Some(Err(_)) => return Poll::Ready(Some(Err(UploadFault::Broken))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let upload = match &mut *self {
            Self::Whole(bytes) => {
                return Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(Frame::data).map(Ok));
            }
            Self::Streamed(upload) => upload,
        };
        let fault = match ready!(upload.poll_data(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(data)) => match upload.left.checked_sub(data.len() as u64) {
                Some(left) => {
                    upload.left = left;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => UploadFault::TooLarge,
            },
            Some(Err(fault)) => fault,
        };
        Poll::Ready(Some(Err(UploadError(*upload.fault.get_or_init(|| fault)))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Streamed(upload) => upload.received.is_empty() && upload.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(upload) => {
                let received: u64 = upload.received.iter().map(|bytes| bytes.len() as u64).sum();
                match upload.rest.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(received + rest),
                    None => SizeHint::default(),
                }
            }
        }
    }
}
