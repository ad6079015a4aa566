//! A client's connection, plain or TLS, that never blocks.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

pub enum Transport {
    Plain(TcpStream),
    Tls(TcpStream, Box<ClientConnection>),
}

/// Connection settings.
pub struct Door {
    target: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Door {
    pub fn new(target: SocketAddr, ca: Option<&Path>) -> anyhow::Result<Self> {
        let tls = ca.map(trusting).transpose()?;
        Ok(Self { target, tls })
    }

    /// Begins to connect. Both directions are watched from the start: events are edges, and registering once
    /// for both costs nothing.
    pub fn open(&self, registry: &Registry, token: Token) -> io::Result<Transport> {
        let mut stream = TcpStream::connect(self.target)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(match &self.tls {
            None => Transport::Plain(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Transport::Tls(stream, Box::new(connection))
            }
        })
    }
}

fn trusting(ca: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate =
        CertificateDer::from_pem_file(ca).with_context(|| format!("cannot read {}", ca.display()))?;
    roots.add(certificate).context("this certificate cannot be trusted")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Transport {
    /// Reads bytes; zero is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (stream, tls) = match self {
            Self::Plain(stream) => return stream.read(buffer),
            Self::Tls(stream, tls) => (stream, tls),
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if tls.read_tls(stream)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            flush(stream, tls)?;
        }
    }

    /// Returns how many bytes were taken; if none, an error of the kind `WouldBlock`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream, tls) => {
                let taken = tls.writer().write(bytes)?;
                flush(stream, tls)?;
                if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            }
        }
    }

    /// Writes bytes that were taken earlier and could not be sent.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream, tls) => flush(stream, tls),
        }
    }

    /// Returns whether a read that fills less than its buffer has emptied the socket.
    pub fn short_read_is_last(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

fn flush(stream: &mut TcpStream, tls: &mut ClientConnection) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
