//! Blocks of addresses, IPv4 and IPv6, as security groups take them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

/// A block of addresses. Everything after its prefix is zero: EC2 would set it to zero silently, and
/// each deployment would find another block than the one it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CidrError {
    #[error("`{0}` is not a block of addresses: write it like 203.0.113.0/24 or 2001:db8::/32")]
    NoBlock(String),
    #[error("`{0}` is an address without a prefix: for it alone write {0}/{1}")]
    NoPrefix(IpAddr, u8),
    #[error("`{text}` has bits after its prefix: the block that it lies in is {block}")]
    BitsAfterPrefix { text: String, block: Cidr },
}

impl Cidr {
    /// Everybody.
    pub fn world() -> Vec<Self> {
        ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("two blocks")).to_vec()
    }

    pub const fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// The block of this length that an address lies in.
    fn around(address: IpAddr, prefix: u8) -> Self {
        let address = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask).into())
            }
        };
        Self { address, prefix }
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no_block = || CidrError::NoBlock(text.chars().take(80).collect());
        let Some((address, prefix)) = text.split_once('/') else {
            let address: IpAddr = text.parse().map_err(|_| no_block())?;
            return Err(CidrError::NoPrefix(address, bits(address)));
        };
        let address: IpAddr = address.parse().map_err(|_| no_block())?;
        let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|prefix| is_number && *prefix <= bits(address));
        let block = Self::around(address, prefix.ok_or_else(no_block)?);
        if block.address == address {
            Ok(block)
        } else {
            Err(CidrError::BitsAfterPrefix { text: text.to_owned(), block })
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
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
    fn what_is_no_block_is_refused_with_what_to_write() {
        for (text, says) in [
            ("", "not a block"),
            ("everybody", "not a block"),
            ("10.0.0.0/33", "not a block"),
            ("::/129", "not a block"),
            ("10.0.0/8", "not a block"),
            ("10.0.0.0/+8", "not a block"),
            ("10.0.0.0/", "not a block"),
            ("10.0.0.0/8/8", "not a block"),
            (" 10.0.0.0/8", "not a block"),
            ("203.0.113.9", "write 203.0.113.9/32"),
            ("2001:db8::1", "write 2001:db8::1/128"),
            ("203.0.113.9/24", "lies in is 203.0.113.0/24"),
            ("2001:db8::1/32", "lies in is 2001:db8::/32"),
        ] {
            let error = text.parse::<Cidr>().expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
