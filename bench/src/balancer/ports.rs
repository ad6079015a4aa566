//! Free ports, below the range that the kernel gives to outgoing connections: a worker that is killed must
//! find its port free when it comes back, and a load opens tens of thousands.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;

const FIRST: u16 = 20_100;
const LAST: u16 = 32_000;

pub struct Ports {
    next: u16,
}

impl Ports {
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// Returns a port that was not returned earlier.
    pub fn take(&mut self) -> anyhow::Result<SocketAddr> {
        let free = (self.next..LAST)
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .find(|addr| TcpListener::bind(addr).is_ok())
            .context("no port is free")?;
        self.next = free.port() + 1;
        Ok(free)
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_given_once() {
        let mut ports = Ports::new();
        let (one, two) = (ports.take().expect("some are free"), ports.take().expect("some are free"));
        assert!(one.port() < two.port());
        assert!(TcpListener::bind(one).is_ok());
    }
}
