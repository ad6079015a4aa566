//! A client's connection: plain, or with TLS on top.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http1::request::Scheme;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::socket::Socket;

#[derive(Debug)]
pub(crate) enum Client {
    Plain(Socket),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Client {
    pub(crate) fn scheme(&self) -> Scheme {
        match self {
            Self::Plain(_) => Scheme::Http,
            Self::Tls(_) => Scheme::Https,
        }
    }

    /// Ends the connection with a reset. When only the end of the connection marks the end of a body, this
    /// is the only way to tell the client that the body is not whole.
    pub(crate) fn abort(&self) {
        let option = match self {
            Self::Plain(socket) => socket.option(),
            Self::Tls(stream) => Some(SockRef::from(stream.get_ref().0)),
        };
        // If it fails, the connection is closed in the ordinary way.
        option.map(|option| option.set_linger(Some(Duration::ZERO)).ok());
    }

    /// The stream on which nothing lies above TCP.
    pub(crate) fn plain(&mut self) -> Option<&mut TcpStream> {
        match self {
            Self::Plain(socket) => socket.registered().ok(),
            Self::Tls(_) => None,
        }
    }

    /// Announces that the next write is the last, and that the connection is closed after it.
    pub(crate) fn begin_end(&mut self) {
        match self {
            Self::Plain(socket) => socket.begin_end(),
            Self::Tls(_) => {}
        }
    }

    /// Reads into `buffer`; 0 is the end.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        poll_receive(self, cx, buffer)
    }
}

/// Reads into `buffer`; 0 is the end.
pub(crate) fn poll_receive(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    Pin::new(stream).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
}

impl AsyncRead for Client {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
