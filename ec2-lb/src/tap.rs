//! A client's socket with an observer that sees each request head before hyper does.
//!
//! The observer follows the framing only as far as it must to know where heads begin: bodies of a
//! known length are counted. After a chunked body, or anything it refuses, it stops looking, and the
//! connection must end with that request; `forward.rs` sees to it with `Connection: close`.
//!
//! It also knows when a head has begun and not ended. hyper has one timer for the wait before a
//! head and the head itself; we want a long one for the former and a short one for the latter.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use crate::limits::{MAX_HEAD, MAX_HEADERS};
use crate::strict::{self, Framing, Malformed};

/// What the observer has to say; shared with whoever serves the connection.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    /// The request refused, counted from 0, and why. There is no later one.
    malformed: Option<(u64, Malformed)>,
    head_since: Option<Instant>,
}

impl Findings {
    /// Why request number `index` of this connection must not be forwarded.
    pub(crate) fn malformed(&self, index: u64) -> Option<Malformed> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.malformed.filter(|(at, _)| *at <= index).map(|(_, malformed)| malformed)
    }

    /// Completes when a head has taken longer than `patience`, or up to half as long again.
    pub(crate) async fn overdue_head(&self, patience: Duration) {
        loop {
            let since = self.0.lock().unwrap_or_else(PoisonError::into_inner).head_since;
            match since.map(|since| since.elapsed()) {
                Some(elapsed) if elapsed >= patience => return,
                Some(elapsed) => sleep(patience - elapsed).await,
                None => sleep(patience / 2).await,
            }
        }
    }

    fn refuse(&self, index: u64, malformed: Malformed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).malformed = Some((index, malformed));
    }

    fn set_head_since(&self, since: Option<Instant>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).head_since = since;
    }
}

/// Follows the bytes of one connection.
#[derive(Debug)]
struct Observer {
    findings: Arc<Findings>,
    state: State,
    /// Heads seen whole.
    heads: u64,
}

#[derive(Debug)]
enum State {
    /// Within a head, of which this much has come; empty between requests.
    Head(Vec<u8>),
    /// Within a body that has this many bytes to come.
    Body(u64),
    /// No more heads are expected.
    Blind,
}

impl Observer {
    fn observe(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Blind => return,
                State::Body(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[taken..];
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Head(Vec::new());
                    }
                }
                State::Head(begun) => {
                    let before = begun.len();
                    begun.extend_from_slice(bytes);
                    match judge(begun) {
                        Judgement::Incomplete if begun.len() > MAX_HEAD => self.refuse(Malformed::Head),
                        Judgement::Incomplete => {
                            if before == 0 {
                                self.findings.set_head_since(Some(Instant::now()));
                            }
                            return;
                        }
                        Judgement::Refused(malformed) => self.refuse(malformed),
                        Judgement::Complete { len, framing } => {
                            if before > 0 {
                                self.findings.set_head_since(None);
                            }
                            bytes = &bytes[len - before..];
                            self.heads += 1;
                            self.state = match framing {
                                Framing::Length(0) => State::Head(Vec::new()),
                                Framing::Length(length) => State::Body(length),
                                Framing::Chunked => State::Blind,
                            };
                        }
                    }
                }
            }
        }
    }

    fn refuse(&mut self, malformed: Malformed) {
        self.findings.refuse(self.heads, malformed);
        self.findings.set_head_since(None);
        self.state = State::Blind;
    }
}

enum Judgement {
    Incomplete,
    Refused(Malformed),
    Complete { len: usize, framing: Framing },
}

fn judge(bytes: &[u8]) -> Judgement {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Judgement::Incomplete,
        // hyper uses the same parser and answers this one itself.
        Err(_) => Judgement::Refused(Malformed::Head),
        Ok(httparse::Status::Complete(len)) => {
            match strict::inspect(&bytes[..len], request.path.unwrap_or_default(), request.headers) {
                Ok(framing) => Judgement::Complete { len, framing },
                Err(malformed) => Judgement::Refused(malformed),
            }
        }
    }
}

/// A stream whose reads are observed.
#[derive(Debug)]
pub(crate) struct Tap<S> {
    stream: S,
    observer: Observer,
}

impl<S> Tap<S> {
    pub(crate) fn new(stream: S, findings: Arc<Findings>) -> Self {
        Self { stream, observer: Observer { findings, state: State::Head(Vec::new()), heads: 0 } }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.observer.observe(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    const BAD: &str =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";

    /// Observes `text` in pieces of `size` bytes.
    fn observed(text: &str, size: usize) -> (Observer, Arc<Findings>) {
        let findings = Arc::new(Findings::default());
        let mut tap = Tap::new((), Arc::clone(&findings));
        for piece in text.as_bytes().chunks(size) {
            tap.observer.observe(piece);
        }
        (tap.observer, findings)
    }

    #[test]
    fn finds_the_bad_head_wherever_it_is_and_however_it_comes() {
        for (good, index) in [(String::new(), 0), (GET.repeat(2), 2), (format!("{POST}hello{GET}"), 2)] {
            for size in [1, 7, 1000] {
                let (_, findings) = observed(&format!("{good}{BAD}"), size);
                assert_eq!(findings.malformed(index), Some(Malformed::TwoFramings), "{good:?} by {size}");
                if let Some(before) = u64::checked_sub(index, 1) {
                    assert_eq!(findings.malformed(before), None, "{good:?} by {size}");
                }
            }
        }
    }

    #[test]
    fn a_bad_head_inside_a_body_is_only_a_body() {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{BAD}{GET}", BAD.len());
        let (observer, findings) = observed(&text, 9);
        assert_eq!(findings.malformed(1), None);
        assert_eq!(observer.heads, 2);
    }

    #[test]
    fn looks_no_further_after_a_chunked_body() {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{GET}");
        let (observer, _) = observed(&text, 1000);
        assert!(matches!(observer.state, State::Blind));
        assert_eq!(observer.heads, 1);
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let (_, findings) = observed(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD)), 1000);
        assert_eq!(findings.malformed(0), Some(Malformed::Head));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_head_that_has_begun_can_be_overdue() {
        let patience = Duration::from_millis(1);
        let (_, findings) = observed(GET, 1000);
        assert!(
            tokio::time::timeout(Duration::from_secs(60), findings.overdue_head(patience)).await.is_err()
        );
        let (_, findings) = observed(&GET[..9], 1000);
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))).await.expect("sleeps");
        findings.overdue_head(patience).await;
    }
}
