//! Blocks of addresses, IPv4 and IPv6, as security groups take them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Serialize;

/// A block of addresses. Everything after its prefix is zero: EC2 would set it to zero silently, and
/// each deployment would find another block than the one it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Cidr(IpNet);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CidrError {
    #[error("`{0}` is not a block of addresses: write it like 203.0.113.0/24 or 2001:db8::/32")]
    NoBlock(String),
    #[error("`{0}` has no prefix length: for this single address write {1}")]
    NoPrefix(IpAddr, Cidr),
    #[error("`{text}` has host bits set: its block is {block}")]
    BitsAfterPrefix { text: String, block: Cidr },
}

impl Cidr {
    /// Returns the two blocks that hold all addresses, IPv4 and IPv6.
    pub fn world() -> Vec<Self> {
        ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("two blocks")).to_vec()
    }

    /// Returns whether no address of the block belongs to the internet: private use, this host, this link.
    pub fn is_private(self) -> bool {
        const PRIVATE: [&str; 8] = [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "fc00::/7",
            "fe80::/10",
            "::1/128",
        ];
        let private = PRIVATE.map(|text| text.parse::<IpNet>().expect("a block"));
        private.iter().any(|private| private.contains(&self.0))
    }

    pub const fn is_ipv4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Err(CidrError::NoPrefix(address, Self(address.into())));
        }
        let net: IpNet = text.parse().map_err(|_| CidrError::NoBlock(text.chars().take(80).collect()))?;
        match net.trunc() {
            block if block == net => Ok(Self(block)),
            block => Err(CidrError::BitsAfterPrefix { text: text.to_owned(), block: Self(block) }),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Cidr> for String {
    fn from(block: Cidr) -> Self {
        block.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_both_families_are_read_and_written_alike() {
        for text in ["0.0.0.0/0", "203.0.113.0/24", "198.51.100.7/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(text.parse::<Cidr>().expect(text).to_string(), text);
        }
        assert_eq!("2001:DB8:0::/32".parse::<Cidr>().expect("valid").to_string(), "2001:db8::/32");
    }

    #[test]
    fn a_block_is_private_if_all_of_it_is() {
        let is_private = |text: &str| text.parse::<Cidr>().expect(text).is_private();
        for text in [
            "10.0.0.0/8",
            "10.77.0.0/16",
            "172.31.0.0/16",
            "192.168.1.1/32",
            "127.0.0.0/8",
            "fd00::/8",
            "::1/128",
        ] {
            assert!(is_private(text), "{text}");
        }
        for text in [
            "0.0.0.0/0",
            "8.0.0.0/6",
            "172.0.0.0/8",
            "192.0.0.0/8",
            "203.0.113.0/24",
            "::/0",
            "2001:db8::/32",
        ] {
            assert!(!is_private(text), "{text}");
        }
    }

    #[test]
    fn a_malformed_block_is_refused_with_an_example() {
        for (text, says) in [
            ("", "not a block"),
            ("anywhere", "not a block"),
            ("10.0.0.0/33", "not a block"),
            ("::/129", "not a block"),
            ("10.0.0/8", "not a block"),
            ("10.0.0.0/+8", "not a block"),
            ("10.0.0.0/", "not a block"),
            ("10.0.0.0/8/8", "not a block"),
            (" 10.0.0.0/8", "not a block"),
            ("203.0.113.9", "write 203.0.113.9/32"),
            ("2001:db8::1", "write 2001:db8::1/128"),
            ("203.0.113.9/24", "its block is 203.0.113.0/24"),
            ("2001:db8::1/32", "its block is 2001:db8::/32"),
        ] {
            let error = text.parse::<Cidr>().expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
