//! HTTP/1.1 for the two ends of a benchmark: the end of a head, and its body.
//!
//! It trusts its input more than any server may: both ends are benchmarks, and only the proxy between them is
//! under test. Input that it cannot parse is malformed, which a run counts as an error.

pub mod body;

use body::Body;

/// Not valid HTTP for this parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Larger heads are malformed: neither end sends them.
pub const MAX_HEAD: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Length in bytes, including the empty line.
    pub length: usize,
    pub status: u16,
    pub body: Body,
    /// `Connection: close`: nothing comes after the body.
    pub is_last: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    pub length: usize,
    pub path: &'a [u8],
    pub body: Body,
    pub is_last: bool,
}

/// Parses the head of a response to anything but HEAD; `None` until it is complete.
pub fn response(bytes: &[u8]) -> Result<Option<ResponseHead>, Malformed> {
    let Some((first, fields, length)) = split(bytes)? else { return Ok(None) };
    let digits = first.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5)).ok_or(Malformed)?;
    let status = number(digits).and_then(|status| u16::try_from(status).ok()).ok_or(Malformed)?;
    let framing = Framing::of(fields)?;
    let body = if status < 200 || status == 204 || status == 304 {
        Body::Length(0)
    } else {
        framing.body.unwrap_or(Body::UntilEnd)
    };
    Ok(Some(ResponseHead { length, status, body, is_last: framing.is_last }))
}

pub fn request(bytes: &[u8]) -> Result<Option<RequestHead<'_>>, Malformed> {
    let Some((first, fields, length)) = split(bytes)? else { return Ok(None) };
    let path = first.split(|byte| *byte == b' ').nth(1).ok_or(Malformed)?;
    let framing = Framing::of(fields)?;
    let is_last = framing.is_last || first.ends_with(b" HTTP/1.0");
    Ok(Some(RequestHead { length, path, body: framing.body.unwrap_or(Body::Length(0)), is_last }))
}

/// The first line, all others, and the length of the head.
type Parts<'a> = (&'a [u8], &'a [u8], usize);

fn split(bytes: &[u8]) -> Result<Option<Parts<'_>>, Malformed> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Err(Malformed) } else { Ok(None) };
    };
    // Includes the last line's own end.
    let head = bytes.get(..end + 2).ok_or(Malformed)?;
    let first_end = memchr::memchr(b'\n', head).ok_or(Malformed)?;
    let (first, fields) = head.split_at(first_end + 1);
    Ok(Some((first.trim_ascii_end(), fields, end + 4)))
}

/// The body's framing according to the fields.
struct Framing {
    body: Option<Body>,
    is_last: bool,
}

impl Framing {
    fn of(mut fields: &[u8]) -> Result<Self, Malformed> {
        let mut framing = Self { body: None, is_last: false };
        while let Some(end) = memchr::memchr(b'\n', fields) {
            let (line, rest) = fields.split_at(end + 1);
            fields = rest;
            // Most lines do not matter, and their first letter shows it.
            if matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
                framing.read(line)?;
            }
        }
        Ok(framing)
    }

    fn read(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let colon = memchr::memchr(b':', line).ok_or(Malformed)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.body = Some(Body::Length(number(value).ok_or(Malformed)?));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.body = Some(Body::chunked());
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.is_last |= value.eq_ignore_ascii_case(b"close");
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_head_says_what_follows() {
        let text = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello";
        let head = response(text).expect("well-formed").expect("whole");
        assert_eq!(
            head,
            ResponseHead { length: text.len() - 5, status: 200, body: Body::Length(5), is_last: false }
        );
        assert_eq!(response(&text[..40]), Ok(None));
    }

    #[test]
    fn a_response_without_framing_lasts_until_the_end() {
        let head = response(b"HTTP/1.1 502 Bad Gateway\r\nconnection: Close\r\n\r\n");
        let head = head.expect("well-formed").expect("whole");
        assert_eq!((head.status, head.body, head.is_last), (502, Body::UntilEnd, true));
        let head = response(b"HTTP/1.1 204 No Content\r\n\r\n").expect("well-formed").expect("whole");
        assert_eq!(head.body, Body::Length(0));
    }

    #[test]
    fn a_request_has_a_path() {
        let text = b"POST /1m?x=1 HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let head = request(text).expect("well-formed").expect("whole");
        assert_eq!((head.path, head.body, head.is_last), (&b"/1m?x=1"[..], Body::chunked(), false));
        assert!(request(b"GET / HTTP/1.0\r\n\r\n").expect("well-formed").expect("whole").is_last);
    }

    #[test]
    fn nonsense_is_malformed() {
        for text in
            ["SSH-2.0\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
        {
            assert_eq!(response(text.as_bytes()), Err(Malformed), "{text:?}");
        }
        assert_eq!(response(&vec![b'x'; MAX_HEAD + 1]), Err(Malformed));
    }
}
