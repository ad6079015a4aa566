//! One connection to a worker and one exchange on it.
//!
//! hyper's pooling client cannot say whether a request was sent before its connection failed; the
//! low-level one can, and that decides whether a POST may go to another worker. The task that drives
//! a connection ends when its `Sender` and the response on it are dropped.

use std::io;
use std::time::{Duration, Instant};

use fleet::WorkerAddr;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::limits::Limits;
use crate::request_body::{Payload, RequestBody};
use crate::retry::{Failure, UploadFault};

pub(crate) type Sender = http1::SendRequest<RequestBody>;

/// A worker's response head may be a little larger than a client's request head; beyond this the
/// worker is broken.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the worker refuses the connection")]
    Refused(#[source] io::Error),
    #[error("the worker does not accept the connection in time")]
    TimedOut,
    /// Ejecting workers for it would eject them all.
    #[error("this machine cannot open another connection")]
    Ours(#[source] io::Error),
}

pub(crate) async fn dial(addr: WorkerAddr, patience: Duration) -> Result<Sender, DialError> {
    let stream = timeout(patience, TcpStream::connect(addr.0))
        .await
        .map_err(|_| DialError::TimedOut)?
        .map_err(classify)?;
    // A failure only costs latency.
    drop(stream.set_nodelay(true));
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_RESPONSE_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| DialError::Refused(io::Error::other(error)))?;
    tokio::spawn(async move {
        // The exchange on this connection gets the error.
        drop(connection.await);
    });
    Ok(sender)
}

fn classify(error: io::Error) -> DialError {
    /// `EMFILE` and `ENFILE`: no descriptor left in the process or the system.
    const NO_DESCRIPTOR: [i32; 2] = [24, 23];
    let is_ours = error.raw_os_error().is_some_and(|code| NO_DESCRIPTOR.contains(&code))
        || matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory);
    match error.kind() {
        _ if is_ours => DialError::Ours(error),
        io::ErrorKind::TimedOut => DialError::TimedOut,
        _ => DialError::Refused(error),
    }
}

/// Sends a request and waits for the head of its response.
///
/// The time for the first byte begins when the request is sent whole, so that a slow client does
/// not make its worker look silent. On [`Failure::NothingSent`] the body is back in `payload`.
pub(crate) async fn exchange(
    sender: &mut Sender,
    request: Request<RequestBody>,
    payload: &mut Payload,
    limits: &Limits,
    deadline: Instant,
) -> Result<Response<Incoming>, Failure> {
    let outcome = tokio::select! {
        outcome = sender.try_send_request(request) => outcome,
        failure = impatience(payload, limits, deadline) => return Err(failure),
    };
    match outcome {
        // Nobody asked for another protocol: Upgrade is not forwarded.
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => Err(Failure::Lost),
        Ok(response) => Ok(response),
        Err(mut error) => match (error.take_message(), payload.fault()) {
            (Some(unsent), _) => {
                payload.put_back(unsent.into_body());
                Err(Failure::NothingSent)
            }
            (None, Some(fault)) => Err(Failure::Upload(fault)),
            (None, None) => Err(Failure::Lost),
        },
    }
}

/// Completes when it is time to give up.
async fn impatience(payload: &mut Payload, limits: &Limits, deadline: Instant) -> Failure {
    if timeout(limits.upload, payload.ended()).await.is_err() {
        return Failure::Upload(UploadFault::TooSlow);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    // A streamed body is sent once only, so there is nothing to save time for.
    let patience = if payload.is_replayable() { limits.first_byte.min(left) } else { limits.first_byte };
    sleep(patience).await;
    Failure::Silent
}
