//! Where a head ends. Only CR LF ends a line: a reader that takes a lone LF for one sees other lines
//! than a reader that does not.

use memchr::{memchr_iter, memmem};

/// The largest head of a request; workers read a larger one, see `fleet::layers`.
pub const MAX_REQUEST_HEAD: usize = fleet::layers::CLIENT_HEAD;

/// The largest head of a response, interim ones included; beyond this the worker is broken.
pub const MAX_RESPONSE_HEAD: usize = 64 * 1024;

/// Header lines of one message; workers read more in a request, see `fleet::layers`.
pub const MAX_FIELDS: usize = fleet::layers::CLIENT_FIELDS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    Incomplete,
    /// The head and its empty line have this many bytes.
    Complete(usize),
    /// A line ends in a lone LF.
    BareLineFeed,
}

/// Looks for the end of the head that begins with `bytes`. The first `seen` bytes were looked at
/// before and were incomplete.
pub fn scan(bytes: &[u8], seen: usize) -> Scan {
    // The common case first: the whole head is here, and the search runs at memory speed.
    let end =
        memmem::find(&bytes[seen.saturating_sub(3)..], b"\r\n\r\n").map(|at| seen.saturating_sub(3) + at + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    let is_bare = |at: usize| at == 0 || head[at - 1] != b'\r';
    if memchr_iter(b'\n', &head[seen.min(head.len())..]).any(|at| is_bare(seen + at)) {
        return Scan::BareLineFeed;
    }
    end.map_or(Scan::Incomplete, Scan::Complete)
}

/// Empty lines that are skipped; more is no head.
const MAX_EMPTY_LINES: usize = 4;

/// The length of the empty lines before a request line, which some old clients send after a body
/// (RFC 9112, 2.2).
pub fn empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take(MAX_EMPTY_LINES).take_while(|pair| pair == b"\r\n").count() * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scan_finds_the_end_wherever_the_pieces_are_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let end = text.len() - 4;
        for cut in 0..end {
            assert_eq!(scan(&text[..cut], 0), Scan::Incomplete, "{cut}");
            assert_eq!(scan(text, cut), Scan::Complete(end), "{cut}");
        }
    }

    #[test]
    fn a_lone_line_feed_ends_nothing() {
        for text in ["GET / HTTP/1.1\nHost: a\r\n\r\n", "\n", "GET / HTTP/1.1\r\nHost: a\n\n", "a\r\n\n"] {
            assert_eq!(scan(text.as_bytes(), 0), Scan::BareLineFeed, "{text:?}");
        }
        // The bytes after the head are not checked here.
        assert_eq!(scan(b"a\r\n\r\n\n", 0), Scan::Complete(5));
    }

    #[test]
    fn empty_lines_are_counted() {
        assert_eq!(empty_lines(b"\r\n\r\nGET"), 4);
        assert_eq!(empty_lines(b"\r"), 0);
        assert_eq!(empty_lines(b"GET\r\n"), 0);
        assert_eq!(empty_lines(&b"\r\n".repeat(100)), 8);
    }
}
