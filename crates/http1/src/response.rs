//! A response head: read as strictly as a request's, and written again for the client.
//!
//! Workers are trusted, but the framing of a response decides where the next one begins. A worker whose
//! response is ambiguous is treated like a worker that died.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::field::{self, Field, Options};
use crate::framing::{Framing, Lines};
use crate::head::MAX_FIELDS;
use crate::request::{Method, Version, is_request_id, line, write_number};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker's response is not valid HTTP")]
pub struct Invalid;

/// The facts of a response that decide how it is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub framing: Framing,
    /// The worker keeps its connection open.
    pub is_persistent: bool,
    /// The worker says that it stops.
    pub is_draining: bool,
}

impl Response {
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Whether a client that knows no chunks can tell its end and keep the connection.
    pub fn has_length(&self) -> bool {
        matches!(self.framing, Framing::None | Framing::Length(_))
    }

    pub fn class(&self) -> usize {
        usize::from(self.status / 100)
    }
}

/// How the client gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub version: Version,
    pub id: &'a [u8],
    pub is_persistent: bool,
}

/// How the body goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// As it is: its length is announced, or its end is the connection's.
    Plain,
    Chunked,
}

/// A head that was read and not yet written.
pub struct Head<'h, 'b> {
    pub response: Response,
    reason: &'b str,
    headers: &'h [Header<'b>],
    options: Options,
    length: Option<&'b [u8]>,
    upgrade: Option<&'b [u8]>,
    has_id: bool,
}

/// Reads the head `bytes`, which ends in its empty line, of a response to `method`, and hands it to
/// `then`.
pub fn read<T>(bytes: &[u8], method: Method, then: impl FnOnce(&Head<'_, '_>) -> T) -> Result<T, Invalid> {
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(httparse::Status::Complete(used)) if used == bytes.len() => {}
        _ => return Err(Invalid),
    }
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else { return Err(Invalid) };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    Head::validate(status, version, parsed.reason.unwrap_or_default(), parsed.headers, method)
        .map(|head| then(&head))
}

impl<'h, 'b> Head<'h, 'b> {
    fn validate(
        status: u16,
        version: Version,
        reason: &'b str,
        headers: &'h [Header<'b>],
        method: Method,
    ) -> Result<Self, Invalid> {
        if !(100..600).contains(&status) {
            return Err(Invalid);
        }
        let mut lines = Lines::default();
        let mut options = Options::default();
        let (mut length, mut upgrade, mut has_id, mut is_draining) = (None, None, false, false);
        for header in headers {
            match field::classify(header.name) {
                Field::ContentLength => {
                    lines.add_length(header.value);
                    length = Some(header.value);
                }
                Field::TransferEncoding => lines.add_coding(header.value),
                Field::Connection => options.add(header.value),
                Field::Upgrade => upgrade = Some(header.value),
                Field::RequestId => has_id |= is_request_id(header.value),
                Field::Draining => is_draining = true,
                Field::Expect
                | Field::Host
                | Field::Te
                | Field::Trailer
                | Field::Origin
                | Field::HopByHop
                | Field::Other => {}
            }
        }
        let announced = lines.framing().map_err(|_| Invalid)?;
        if version == Version::Http10 && announced == Some(Framing::Chunked) {
            return Err(Invalid);
        }
        let has_no_body = method == Method::Head || status < 200 || matches!(status, 204 | 304);
        let framing = match announced {
            _ if has_no_body => Framing::None,
            Some(framing) => framing,
            None => Framing::UntilClose,
        };
        let is_persistent = framing != Framing::UntilClose
            && !options.close
            && (version == Version::Http11 || options.keep_alive);
        let response = Response { status, framing, is_persistent, is_draining };
        Ok(Self { response, reason, headers, options, length, upgrade, has_id })
    }

    /// Writes the client's head and says how the body follows.
    pub fn write(&self, reply: Reply<'_>, out: &mut Vec<u8>) -> Relay {
        let status = self.response.status;
        self.write_start(reply.version, out);
        self.write_lines(out);
        if !self.has_id {
            line("X-Request-Id", reply.id, out);
        }
        let relay = match (self.response.framing, reply.version) {
            (Framing::None, _) => {
                // Announced and not sent: what a GET would have got (RFC 9110, 8.6).
                if let Some(length) = self.length.filter(|_| status >= 200 && status != 204) {
                    line("Content-Length", length, out);
                }
                Relay::Plain
            }
            (Framing::Length(length), _) => {
                out.extend_from_slice(b"Content-Length: ");
                write_number(length, out);
                out.extend_from_slice(b"\r\n");
                Relay::Plain
            }
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Relay::Chunked
            }
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => Relay::Plain,
        };
        match (reply.is_persistent, reply.version) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, Version::Http11) => {}
        }
        out.extend_from_slice(b"\r\n");
        relay
    }

    /// Writes an interim response, which has a head only.
    pub fn write_interim(&self, out: &mut Vec<u8>) {
        self.write_start(Version::Http11, out);
        self.write_lines(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Writes the response that ends HTTP on this connection.
    pub fn write_switch(&self, out: &mut Vec<u8>) {
        self.write_start(Version::Http11, out);
        self.write_lines(out);
        line("Upgrade", self.upgrade.unwrap_or_default(), out);
        out.extend_from_slice(b"Connection: Upgrade\r\n\r\n");
    }

    fn write_start(&self, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(match version {
            Version::Http10 => b"HTTP/1.0 ",
            Version::Http11 => b"HTTP/1.1 ",
        });
        write_number(u64::from(self.response.status), out);
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn write_lines(&self, out: &mut Vec<u8>) {
        for header in self.headers {
            let passes = match field::classify(header.name) {
                Field::Other | Field::Host | Field::Expect | Field::Origin => {
                    !(self.options.names_others && field::is_named(self.headers, header.name))
                }
                Field::Trailer => self.response.framing == Framing::Chunked,
                Field::RequestId => self.has_id && is_request_id(header.value),
                Field::Connection
                | Field::ContentLength
                | Field::Te
                | Field::TransferEncoding
                | Field::Upgrade
                | Field::Draining
                | Field::HopByHop => false,
            };
            if passes {
                line(header.name, header.value, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: Reply<'_> = Reply { version: Version::Http11, id: b"id", is_persistent: true };

    fn relayed_as(head: &str, method: Method, reply: Reply<'_>) -> Result<(Response, String), Invalid> {
        read(head.as_bytes(), method, |head| {
            let mut out = Vec::new();
            head.write(reply, &mut out);
            (head.response, String::from_utf8(out).expect("text"))
        })
    }

    fn relayed(head: &str) -> (Response, String) {
        relayed_as(head, Method::Get, REPLY).expect("valid")
    }

    #[test]
    fn a_relayed_head_has_no_hop_by_hop_lines() {
        let (response, text) = relayed(
            "HTTP/1.1 201 Made\r\nX-A: 1\r\nConnection: x-b\r\nX-B: 2\r\nKeep-Alive: 5\r\nContent-Length: 3\r\n\
             X-Vigia-Draining: 1\r\n\r\n",
        );
        assert_eq!(text, "HTTP/1.1 201 Made\r\nX-A: 1\r\nX-Request-Id: id\r\nContent-Length: 3\r\n\r\n");
        let expected =
            Response { status: 201, framing: Framing::Length(3), is_persistent: true, is_draining: true };
        assert_eq!(response, expected);
        let (_, text) = relayed("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(text.matches("X-Request-Id").count(), 1);
        assert!(text.contains("X-Request-Id: theirs\r\n"));
    }

    #[test]
    fn some_responses_have_no_body() {
        for (head, method, line) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Method::Head, Some("Content-Length: 9\r\n")),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Head, None),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                Method::Get,
                Some("Content-Length: 9\r\n"),
            ),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", Method::Get, None),
            ("HTTP/1.1 204 No Content\r\n\r\n", Method::Get, None),
        ] {
            let (response, text) = relayed_as(head, method, REPLY).expect("valid");
            assert_eq!(response.framing, Framing::None, "{head:?}");
            assert!(response.is_persistent, "{head:?}");
            match line {
                Some(line) => assert!(text.contains(line), "{text}"),
                None => assert!(!text.contains("Content-Length") && !text.contains("chunked"), "{text}"),
            }
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_its_connection() {
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        let (response, text) = relayed(head);
        assert_eq!((response.framing, response.is_persistent), (Framing::UntilClose, false));
        assert!(text.contains("Transfer-Encoding: chunked\r\n"));
        let old = Reply { version: Version::Http10, is_persistent: false, ..REPLY };
        let (_, text) = relayed_as(head, Method::Get, old).expect("valid");
        assert_eq!(text, "HTTP/1.0 200 OK\r\nX-Request-Id: id\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn invalid_responses_are_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 999 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
            "garbage\r\n\r\n",
        ] {
            assert_eq!(relayed_as(head, Method::Get, REPLY).map(|_| ()), Err(Invalid), "{head:?}");
        }
    }
}
