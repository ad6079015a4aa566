//! One hostile client.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Makes one request, and stays connected.
    Idle,
    SlowHead,
    SlowBody,
    /// Requests a large response, and reads none of it.
    Deaf,
}

/// Receive buffer of a deaf client's kernel: small, so that the proxy keeps the rest.
const DEAF_BYTES: usize = 4096;

pub struct Client {
    kind: Kind,
    stream: TcpStream,
    pub is_greeted: bool,
    dripped: usize,
}

/// Addresses of a crowd on this machine.
const ADDRESSES: usize = 32;

impl Client {
    /// Begins to connect.
    pub fn open(kind: Kind, target: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let SocketAddr::V4(target) = target
            && target.ip().is_loopback()
        {
            // A crowd has many addresses, because one address has only a share of a proxy's limits.
            let host = u8::try_from(token.0 % ADDRESSES).unwrap_or_default();
            socket.bind(&SocketAddr::from(([127, 0, 99, 1 + host], 0)).into())?;
        }
        if kind == Kind::Deaf {
            socket.set_recv_buffer_size(DEAF_BYTES)?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            connected => connected?,
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { kind, stream, is_greeted: false, dripped: 0 })
    }

    /// Returns the bytes that it sends as soon as it is connected.
    fn greeting(&self) -> &'static [u8] {
        match self.kind {
            Kind::Idle => b"GET / HTTP/1.1\r\nHost: idle\r\n\r\n",
            Kind::SlowHead => b"G",
            Kind::SlowBody => b"POST / HTTP/1.1\r\nHost: slow\r\nContent-Length: 100000\r\n\r\n",
            Kind::Deaf => b"GET /16m HTTP/1.1\r\nHost: deaf\r\n\r\n",
        }
    }

    /// Sends its greeting if it can by now.
    pub fn greet(&mut self) -> io::Result<()> {
        if self.is_greeted {
            return Ok(());
        }
        match self.stream.write(self.greeting()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => {
                written?;
                self.is_greeted = true;
                Ok(())
            }
        }
    }

    /// Sends another byte, if it is a slow kind.
    pub fn drip(&mut self) -> io::Result<()> {
        let text: &[u8] = match self.kind {
            Kind::SlowHead => b"ET / HTTP/1.1\r\nHost: slow\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            Kind::SlowBody => b"b",
            Kind::Idle | Kind::Deaf => return Ok(()),
        };
        if !self.is_greeted {
            return Ok(());
        }
        let at = self.dripped.min(text.len() - 1);
        self.dripped += 1;
        match self.stream.write(text.get(at..=at).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => written.map(drop),
        }
    }

    /// Reads the available bytes, unless it is deaf; returns whether the connection is still open.
    pub fn hear(&mut self, buffer: &mut [u8], is_closed: bool) -> bool {
        if self.kind == Kind::Deaf {
            return !is_closed;
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}
