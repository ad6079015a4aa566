//! Memory of a proxy per idle client: before, and with clients that each made one request.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::proxy::Proxy;
use crate::wire;

pub const CLIENTS: usize = 2000;

/// For memory that is given back late.
const REST: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// KiB of PSS, of the proxy and its children.
    pub alone_kib: usize,
    pub crowded_kib: usize,
}

impl Memory {
    pub fn measure(proxy: &Proxy) -> anyhow::Result<Self> {
        std::thread::sleep(REST);
        let alone_kib = proxy.pss_kib()?;
        let clients: anyhow::Result<Vec<TcpStream>> = (0..CLIENTS).map(|_| client(proxy.addr)).collect();
        let clients = clients.context("a client was not served")?;
        std::thread::sleep(REST);
        let crowded_kib = proxy.pss_kib()?;
        drop(clients);
        Ok(Self { alone_kib, crowded_kib })
    }

    pub fn kib_per_client(&self) -> f64 {
        (float(self.crowded_kib) - float(self.alone_kib)) / float(CLIENTS)
    }

    pub fn alone_mib(&self) -> f64 {
        float(self.alone_kib) / 1024.0
    }

    pub fn crowded_mib(&self) -> f64 {
        float(self.crowded_kib) / 1024.0
    }
}

/// Memories here stay far below 2⁵³ KiB.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn float(kib: usize) -> f64 {
    kib as f64
}

/// Makes one request, and stays connected.
pub fn client(addr: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let size = stream.read(&mut piece)?;
        ensure!(size > 0, "the connection ended");
        answer.extend_from_slice(piece.get(..size).unwrap_or_default());
        let Some(mut head) = wire::response(&answer).ok().context("no HTTP")? else { continue };
        ensure!(head.status == 200, "answered {}", head.status);
        head.body.take(answer.get(head.length..).unwrap_or_default()).ok().context("no body")?;
        if head.body.is_done() {
            return Ok(stream);
        }
    }
}
