//! Private addresses of instances: loopback addresses that Linux lets any process bind.
//!
//! All VPCs of the local cloud share one address space, so an address is given to one live instance
//! at a time, whichever VPC it is in. Another local cloud on the same machine may use the same
//! block: an address counts as free only if the instance's metadata port can be bound on it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail};
use rand::RngExt as _;
use tokio::net::TcpListener;

/// Where an instance's metadata service listens on its own address. On EC2 it is 169.254.169.254:80;
/// port 80 needs root, and 1338 is what other mocks of the metadata service use.
pub const METADATA_PORT: u16 = 1338;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    base: u32,
    prefix: u8,
}

impl Block {
    pub fn parse(cidr: &str) -> anyhow::Result<Self> {
        let (address, prefix) = cidr.split_once('/').context("a block has the form a.b.c.d/n")?;
        let address: Ipv4Addr = address.parse().context("a block starts with an IPv4 address")?;
        let prefix: u8 = prefix.parse().context("a prefix is a number")?;
        if prefix > 32 {
            bail!("a prefix is at most 32");
        }
        Ok(Self { base: u32::from(address), prefix })
    }

    fn size(self) -> u32 {
        1_u32.checked_shl(u32::from(32 - self.prefix)).unwrap_or(u32::MAX)
    }

    /// Returns whether processes of this machine can bind its addresses.
    pub fn is_loopback(self) -> bool {
        Ipv4Addr::from(self.base).is_loopback()
    }

    /// Returns the same block, moved into 127.0.0.0/8.
    pub fn into_loopback(self) -> String {
        let moved = Ipv4Addr::from((self.base & 0x00ff_ffff) | 0x7f00_0000);
        format!("{moved}/{}", self.prefix)
    }
}

/// Returns an address for a server that another process will start, so it cannot be bound from here on until then.
/// Not on 127.0.0.1: all programs of the machine get ports there, for servers and for connections, so one may take
/// the port in between. And a client would take the stranger's server for its own.
pub fn unused() -> std::io::Result<SocketAddr> {
    let mut random = rand::rng();
    // VPCs and public addresses of local clouds are below, in make local and in tests.
    let host =
        Ipv4Addr::new(127, random.random_range(224..=254), random.random(), random.random_range(1..=254));
    std::net::TcpListener::bind((host, 0))?.local_addr()
}

/// Addresses tried before a block counts as full: all of a /20, and not endlessly in a /8.
const MOST_TRIES: u32 = 4096;

/// Binds the metadata port on an unused address of `block`, and so takes the address. `None` if there is no
/// such address.
pub async fn take(block: Block, used: &BTreeSet<Ipv4Addr>) -> Option<(Ipv4Addr, TcpListener)> {
    // As in AWS the first four addresses and the last are reserved.
    let usable = block.size().saturating_sub(5);
    if usable == 0 || !block.is_loopback() {
        return None;
    }
    // A random start, so that an address is not reused at once: clients may still hold connections.
    let start = rand::rng().random_range(0..usable);
    for step in 0..usable.min(MOST_TRIES) {
        let offset = (u64::from(start) + u64::from(step)) % u64::from(usable);
        let address = Ipv4Addr::from(block.base + 4 + u32::try_from(offset).ok()?);
        if used.contains(&address) {
            continue;
        }
        if let Ok(listener) = TcpListener::bind((address, METADATA_PORT)).await {
            return Some((address, listener));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_moves_into_loopback() {
        let block = Block::parse("10.77.0.0/16").expect("valid");
        assert_eq!(block.into_loopback(), "127.77.0.0/16");
        assert!(Block::parse("10.77.0.0").is_err());
    }

    #[tokio::test]
    async fn an_address_is_taken_once() {
        let block = Block::parse("127.78.1.0/29").expect("valid");
        let none = BTreeSet::new();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(take(block, &none).await.expect("three addresses are usable"));
        }
        assert!(take(block, &none).await.is_none());
    }
}
