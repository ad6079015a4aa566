//! A client's socket, which is registered with the runtime only when it has to wait.
//!
//! Registering a socket and removing it again cost two system calls and a wake-up. A client that has sent
//! its request before the connection is accepted, and that takes the answer at once, is never waited for.
//! So a connection for one request saves these calls.
//!
//! The end of the connection is sent in one packet with the answer. Sent alone, it costs a packet, its
//! acknowledgement, and one more wake-up of the client.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream as Unregistered};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::libc;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Socket(State);

#[derive(Debug)]
enum State {
    Unregistered(Unregistered),
    /// The next bytes written are the last, and are held back until [`Socket::end`].
    Ending(Unregistered),
    Registered(TcpStream),
    /// The runtime cannot wait for it.
    Lost,
}

impl Socket {
    /// A socket that does not block.
    pub(crate) fn new(stream: Unregistered) -> Self {
        Self(State::Unregistered(stream))
    }

    /// The stream as the runtime knows it; from here on it does.
    pub(crate) fn registered(&mut self) -> io::Result<&mut TcpStream> {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Unregistered(stream) | State::Ending(stream) => {
                State::Registered(TcpStream::from_std(stream)?)
            }
            state => state,
        };
        match &mut self.0 {
            State::Registered(stream) => Ok(stream),
            State::Unregistered(_) | State::Ending(_) | State::Lost => {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    /// Announces that the next write is the last, and that [`Socket::end`] follows at once. Until then the
    /// kernel may hold it back. A registered socket is written without this delay.
    pub(crate) fn begin_end(&mut self) {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Unregistered(stream) => State::Ending(stream),
            state => state,
        };
    }

    /// Sends the bytes that were held back, and the end. Closing the socket would do both, but would reset
    /// the connection and lose the answer if the client has sent more than was read.
    pub(crate) fn end(&mut self) {
        if let State::Ending(stream) = &self.0 {
            stream.shutdown(Shutdown::Write).ok();
        }
    }

    pub(crate) fn option(&self) -> Option<SockRef<'_>> {
        match &self.0 {
            State::Unregistered(stream) | State::Ending(stream) => Some(SockRef::from(stream)),
            State::Registered(stream) => Some(SockRef::from(stream)),
            State::Lost => None,
        }
    }

    /// Tries without waiting; `None` if the attempt would block, or the socket is registered.
    fn at_once<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Unregistered) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let (State::Unregistered(stream) | State::Ending(stream)) = &mut self.0 else { return None };
        loop {
            match attempt(stream) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                done => return Some(done),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(read) = this.at_once(|stream| stream.read(buf.initialize_unfilled())) {
            return Poll::Ready(read.map(|count| buf.advance(count)));
        }
        Pin::new(this.registered()?).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let is_ending = matches!(this.0, State::Ending(_));
        let written = this.at_once(|stream| match is_ending {
            true => SockRef::from(&*stream).send_with_flags(buf, libc::MSG_MORE | libc::MSG_NOSIGNAL),
            false => stream.write(buf),
        });
        if let Some(written) = written {
            return Poll::Ready(written);
        }
        Pin::new(this.registered()?).poll_write(cx, buf)
    }

    /// Nothing is held here.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(shut) = this.at_once(|stream| stream.shutdown(Shutdown::Write)) {
            return Poll::Ready(shut);
        }
        Pin::new(this.registered()?).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::client::poll_receive;

    /// A client and the socket that it has reached.
    fn pair() -> (Unregistered, Socket) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = Unregistered::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (accepted, _) = listener.accept().expect("it waits");
        accepted.set_nonblocking(true).expect("a socket option");
        (client, Socket::new(accepted))
    }

    fn is_registered(socket: &Socket) -> bool {
        matches!(socket.0, State::Registered(_))
    }

    async fn receive(socket: &mut Socket) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 64];
        let count = poll_fn(|cx| poll_receive(socket, cx, &mut buffer)).await?;
        Ok(buffer[..count].to_vec())
    }

    #[tokio::test]
    async fn a_client_that_is_not_waited_for_is_not_registered() {
        let (mut client, mut socket) = pair();
        client.write_all(b"request").expect("it takes it");
        // On loopback sent bytes arrive at once.
        assert_eq!(receive(&mut socket).await.expect("it is there"), b"request");
        let written = poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, b"answer")).await;
        assert_eq!(written.expect("it takes it"), 6);
        assert!(!is_registered(&socket));
    }

    #[tokio::test]
    async fn the_last_answer_comes_with_the_end() {
        let (mut client, mut socket) = pair();
        client.write_all(b"request, and more than is read").expect("it takes it");
        socket.begin_end();
        let written = poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, b"answer")).await;
        assert_eq!(written.expect("it takes it"), 6);
        client.set_nonblocking(true).expect("a socket option");
        let mut answer = [0; 64];
        assert!(client.read(&mut answer).is_err(), "it is held back");
        socket.end();
        assert_eq!(client.read(&mut answer).expect("it is there"), 6);
        assert_eq!(client.read(&mut answer).expect("so is the end"), 0);
    }

    #[tokio::test]
    async fn a_client_that_is_waited_for_wakes_its_task() {
        let (mut client, mut socket) = pair();
        let task = tokio::spawn(async move { (receive(&mut socket).await, is_registered(&socket)) });
        while !task.is_finished() {
            tokio::task::yield_now().await;
            client.write_all(b"late").ok();
        }
        let (received, is_registered) = task.await.expect("no panic");
        assert!(received.expect("it comes").starts_with(b"late") && is_registered);
    }
}
