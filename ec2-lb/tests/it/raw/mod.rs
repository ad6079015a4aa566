//! The load balancer's process between a client and a worker that both deal in bytes.
//!
//! Nothing here is shared with the load balancer, its parser least of all: a mistake made on both
//! sides would be invisible. Bytes are kept as text in Latin-1, one character for each byte, so that
//! vectors, sent bytes and received bytes are compared and printed as they are.

pub(crate) mod message;
pub(crate) mod split;
pub(crate) mod server;
pub(crate) mod worker;
pub(crate) mod client;
pub(crate) mod process;
pub(crate) mod vector;
pub(crate) mod run;
pub(crate) mod verdict;

use std::time::Duration;

/// Longer than anything takes on a busy machine; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The bytes of a text of characters up to U+00FF.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|char| u8::try_from(u32::from(char)).unwrap_or_else(|_| panic!("{char:?} is not one byte")))
        .collect()
}

/// Bytes for a person: escaped, and of long ones the beginning and the end.
pub(crate) fn shown(text: &str) -> String {
    const EACH: usize = 700;
    let chars: Vec<char> = text.chars().collect();
    let escaped = |chars: &[char]| chars.iter().flat_map(|char| char.escape_default()).collect::<String>();
    if chars.len() <= 2 * EACH {
        return format!("\"{}\"", escaped(&chars));
    }
    let (begin, end) = (&chars[..EACH], &chars[chars.len() - EACH..]);
    format!("\"{}\" ... {} bytes in all ... \"{}\"", escaped(begin), chars.len(), escaped(end))
}
