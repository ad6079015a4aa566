//! `DesiredCount`: the desired number of workers, within bounds.
//!
//! The object `desired-count` in S3 is edited by hand, so its text is parsed here once, tolerant about white
//! space and strict about everything else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of workers from 0 to [`DesiredCount::MAX`]. 0 stops the API and is only set on purpose, by the
/// command line; `/setamount` and `deploy` require [`DesiredCount::at_least_one`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct DesiredCount(u32);

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DesiredCountError {
    #[error("{0} is not a whole number; write a number from 1 to {max}, for example 3", max = DesiredCount::MAX)]
    NotANumber(String),
    #[error("{0} is out of range; choose a number from {1} to {max}", max = DesiredCount::MAX)]
    OutOfRange(String, u32),
}

impl DesiredCount {
    /// A typo must not cost a fortune: a hundred t4g.nano are about 300 US dollars a month, and ten times
    /// that would stay unnoticed until the bill. Half would be enough for nearly all stacks.
    pub const MAX: u32 = 100;

    /// The largest `desired-count` object that is read: a number and some white space. Anything longer is not
    /// a number.
    pub const MAX_OBJECT_BYTES: usize = 256;

    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the count, to compare it with a number of workers.
    pub const fn workers(self) -> usize {
        self.0 as usize
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Parses a count that must keep the API up.
    pub fn at_least_one(text: &str) -> Result<Self, DesiredCountError> {
        let count: Self = text.parse().map_err(|error| match error {
            DesiredCountError::OutOfRange(shown, _) => DesiredCountError::OutOfRange(shown, 1),
            error @ DesiredCountError::NotANumber(_) => error,
        })?;
        if count.0 == 0 { Err(DesiredCountError::OutOfRange("0".to_owned(), 1)) } else { Ok(count) }
    }

    /// Parses the bytes of the `desired-count` object.
    pub fn from_object(bytes: &[u8]) -> Result<Self, DesiredCountError> {
        if bytes.len() > Self::MAX_OBJECT_BYTES {
            return Err(DesiredCountError::NotANumber(format!("a text of {} bytes", bytes.len())));
        }
        std::str::from_utf8(bytes)
            .map_err(|_| DesiredCountError::NotANumber("a text that is not UTF-8".to_owned()))?
            .parse()
    }
}

impl FromStr for DesiredCount {
    type Err = DesiredCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(DesiredCountError::NotANumber(shown(text)));
        }
        match text.parse::<u32>() {
            Ok(count) if count <= Self::MAX => Ok(Self(count)),
            _ => Err(DesiredCountError::OutOfRange(shown_number(text), 0)),
        }
    }
}

/// Returns the object's text for an error message, short and on one line.
fn shown(text: &str) -> String {
    if text.is_empty() {
        return "an empty text".to_owned();
    }
    let clean: String = text.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().count() > 40 { format!("`{clean}…`") } else { format!("`{clean}`") }
}

fn shown_number(text: &str) -> String {
    if text.len() > 20 { format!("{}…", &text[..20]) } else { text.to_owned() }
}

impl TryFrom<u32> for DesiredCount {
    type Error = DesiredCountError;

    fn try_from(count: u32) -> Result<Self, Self::Error> {
        if count <= Self::MAX {
            Ok(Self(count))
        } else {
            Err(DesiredCountError::OutOfRange(count.to_string(), 0))
        }
    }
}

impl From<DesiredCount> for u32 {
    fn from(count: DesiredCount) -> Self {
        count.0
    }
}

impl fmt::Display for DesiredCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_text_editor_leaves() {
        for text in ["3", "3\n", " 3 \r\n", "\u{feff}3", "+3", "003"] {
            assert_eq!(DesiredCount::from_object(text.as_bytes()).map(DesiredCount::get), Ok(3), "{text:?}");
        }
    }

    #[test]
    fn refuses_text_that_is_not_a_number() {
        for text in ["", "banana", "3.5", "1e9", "0x10", "3 4", "٣", "--3", "\0"] {
            let error = DesiredCount::from_object(text.as_bytes()).expect_err(text);
            assert!(matches!(error, DesiredCountError::NotANumber(_)), "{text:?}: {error}");
        }
        let huge = vec![b'1'; 3 << 20];
        assert!(matches!(DesiredCount::from_object(&huge), Err(DesiredCountError::NotANumber(_))));
        assert!(matches!(DesiredCount::from_object(&[0xff]), Err(DesiredCountError::NotANumber(_))));
    }

    #[test]
    fn refuses_numbers_out_of_range() {
        for text in ["-1", "101", "100000", "99999999999999999999999999"] {
            let error = text.parse::<DesiredCount>().expect_err(text);
            assert!(matches!(error, DesiredCountError::OutOfRange(..)), "{text}: {error}");
        }
    }

    #[test]
    fn zero_is_a_count_but_not_at_least_one() {
        assert_eq!("0".parse::<DesiredCount>().map(DesiredCount::get), Ok(0));
        let error = DesiredCount::at_least_one("0").expect_err("0 takes the API down");
        assert_eq!(error.to_string(), "0 is out of range; choose a number from 1 to 100");
    }
}
