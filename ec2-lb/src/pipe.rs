//! A pipe of the kernel through which bytes pass from one socket to another without being copied here.
//!
//! The rest of a body with a length need not be read. Through a buffer the kernel copies each byte twice,
//! out of one socket and into another, and these copies are most of the cost of a large upload.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Room for 64 pieces. Each packet may be a piece: with the usual 16, fewer than 24 KiB of Ethernet's
/// would pass at a time.
const ROOM: i32 = 64 * 4096;

/// Pipes that a thread keeps. A pipe is in use only until a worker has taken its bytes.
const MAX_SPARE: usize = 8;

#[derive(Debug)]
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Bytes that are in it.
    held: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A user who is not root may have so many pages in pipes; with fewer, more calls are needed.
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(ROOM)).ok();
        Ok(Self { reader, writer, held: 0 })
    }

    /// Takes up to `most` bytes out of a socket; 0 is the end. The pipe must be empty: a full one would
    /// look like a socket that has nothing.
    pub(crate) fn poll_fill(
        &mut self,
        from: &TcpStream,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.held, 0);
        loop {
            ready!(from.poll_read_ready(cx))?;
            let filled = from.try_io(Interest::READABLE, || pass(from, &self.writer, most));
            match filled {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) => {
                    self.held = count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Moves its bytes, or a part of them, to a socket; never ready with 0.
    pub(crate) fn poll_drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || pass(&self.reader, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }
}

fn pass(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    loop {
        match splice(&from, None, &to, None, most, flags) {
            Err(Errno::EINTR) => {}
            passed => return Ok(passed?),
        }
    }
}

/// Empty pipes of a thread.
#[derive(Debug, Default)]
pub(crate) struct Pipes(Vec<Pipe>);

impl Pipes {
    /// `None` if no descriptor is left.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        self.0.pop().or_else(|| Pipe::new().ok())
    }

    pub(crate) fn put(&mut self, pipe: Pipe) {
        if self.0.len() < MAX_SPARE && pipe.is_empty() {
            self.0.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
        (near.expect("it listens"), far.expect("it connects").0)
    }

    #[tokio::test]
    async fn bytes_pass_in_order_and_no_more_than_asked_for() {
        let ((mut client, from), (to, mut worker)) = (pair().await, pair().await);
        let mut pipe = Pipe::new().expect("two descriptors");
        client.write_all(b"hello, world").await.expect("it takes it");
        for (most, expected) in [(5, &b"hello"[..]), (100, b", world")] {
            assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, most, cx)).await.expect("bytes"), expected.len());
            assert!(!pipe.is_empty());
            assert_eq!(poll_fn(|cx| pipe.poll_drain(&to, cx)).await.expect("it takes them"), expected.len());
            assert!(pipe.is_empty());
            let mut passed = vec![0; expected.len()];
            worker.read_exact(&mut passed).await.expect("they arrive");
            assert_eq!(passed, expected);
        }
        drop(client);
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, 100, cx)).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn a_worker_that_hangs_up_is_an_error() {
        let ((mut client, from), (to, worker)) = (pair().await, pair().await);
        let mut pipe = Pipe::new().expect("two descriptors");
        drop(worker);
        let error = loop {
            client.write_all(b"x").await.expect("it takes it");
            poll_fn(|cx| pipe.poll_fill(&from, 1, cx)).await.expect("a byte");
            if let Err(error) = poll_fn(|cx| pipe.poll_drain(&to, cx)).await {
                break error;
            }
        };
        assert!(
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset),
            "{error}"
        );
    }

    #[test]
    fn a_pipe_that_holds_bytes_is_not_used_again() {
        let mut pipes = Pipes::default();
        let mut pipe = pipes.take().expect("two descriptors");
        pipe.held = 1;
        pipes.put(pipe);
        assert!(pipes.0.is_empty());
    }
}
