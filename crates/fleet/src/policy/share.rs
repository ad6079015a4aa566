//! `Share`: a part of a whole, as an exact fraction.
//!
//! A third is not 33 %: of three workers, 33 % is none.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A fraction in lowest terms, from 0 upwards, written as `1/3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    part: u32,
    of: u32,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a share; write two whole numbers, for example 1/3")]
pub struct ShareError(String);

impl Share {
    /// Both numbers are at most this, so that a product with a number of instances does not overflow.
    const MAX: u32 = 10_000;

    /// Makes a share of constants.
    ///
    /// # Panics
    /// If `of` is 0, or a number is more than 10,000.
    pub const fn new(part: u32, of: u32) -> Self {
        assert!(of > 0 && of <= Self::MAX && part <= Self::MAX, "a share is of 1 to 10,000 parts");
        let divisor = greatest_common_divisor(part, of);
        Self { part: part / divisor, of: of / divisor }
    }

    /// Returns this share of `whole`, rounded down.
    pub const fn of(self, whole: usize) -> usize {
        whole * self.part as usize / self.of as usize
    }

    /// Returns this share of `whole`, rounded up.
    pub const fn of_rounded_up(self, whole: usize) -> usize {
        (whole * self.part as usize).div_ceil(self.of as usize)
    }

    /// Whether `part` of `whole` is more than this share.
    pub const fn is_exceeded_by(self, part: usize, whole: usize) -> bool {
        part * self.of as usize > whole * self.part as usize
    }

    /// Whether `part` of `whole` is this share or more.
    pub const fn is_reached_by(self, part: usize, whole: usize) -> bool {
        part * self.of as usize >= whole * self.part as usize
    }
}

const fn greatest_common_divisor(mut one: u32, mut other: u32) -> u32 {
    while other > 0 {
        (one, other) = (other, one % other);
    }
    one
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let product = |one: u32, other: u32| u64::from(one) * u64::from(other);
        product(self.part, other.of).cmp(&product(other.part, self.of))
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number <= Self::MAX);
        let parsed = text.split_once('/').and_then(|(part, of)| Some((number(part)?, number(of)?)));
        let (part, of) = parsed.filter(|(_, of)| *of > 0).ok_or_else(|| ShareError(text.to_owned()))?;
        Ok(Self::new(part, of))
    }
}

impl TryFrom<String> for Share {
    type Error = ShareError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact() {
        let third = Share::new(1, 3);
        assert_eq!((third.of(3), third.of(5), third.of_rounded_up(5)), (1, 1, 2));
        assert!(third.is_reached_by(1, 3) && !third.is_exceeded_by(1, 3));
        assert!(third.is_exceeded_by(2, 5) && !third.is_reached_by(1, 4));
    }

    #[test]
    fn equal_fractions_are_one_share() {
        assert_eq!(Share::new(55, 100), Share::new(11, 20));
        assert!(Share::new(1, 3) < Share::new(1, 2));
        assert_eq!("2/4".parse(), Ok(Share::new(1, 2)));
        assert_eq!(Share::new(2, 4).to_string(), "1/2");
    }

    #[test]
    fn refuses_text_that_is_no_fraction() {
        for text in ["", "1", "1/0", "a/b", "-1/2", "1/2/3", "1/20000", "0.5"] {
            let error = text.parse::<Share>().expect_err(text);
            assert_eq!(error, ShareError(text.to_owned()));
        }
    }
}
