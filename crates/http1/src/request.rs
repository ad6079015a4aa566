//! A request head: read, validated, and written again for a worker.
//!
//! Two passes over the lines. The first finds what frames the body, whom the request is for and what
//! `Connection` names; the second copies what passes. The worker's head lacks its end: how the body
//! will be framed is known only when it is there, see [`Request::finish`].

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ops::Range;

use fleet::layers::MAX_REPLAY_BODY;
use httparse::Header;

use crate::field::{self, Field, Options};
use crate::framing::{Framing, FramingError, Lines};
use crate::head::MAX_FIELDS;
use crate::target;

/// Why a request is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the request head cannot be parsed")]
    Head,
    #[error("a line of the request does not end in CR LF")]
    BareLineFeed,
    #[error("the request head is too large; it may have 16 KiB and 100 lines")]
    TooLarge,
    #[error("only HTTP/1.0 and HTTP/1.1 are supported")]
    Version,
    #[error("the request has both Content-Length and Transfer-Encoding")]
    TwoFramings,
    #[error("Content-Length is not one whole number")]
    Length,
    #[error("Transfer-Encoding is not `chunked`")]
    Coding,
    #[error("the only supported transfer coding is `chunked`")]
    UnknownCoding,
    #[error("the request target is not a path")]
    Target,
    #[error("the request has no Host")]
    NoHost,
    #[error("the request has more than one Host, or a Host that is not a valid host")]
    Host,
    #[error("the method CONNECT is not supported")]
    Connect,
    #[error("a TRACE request must not have a body")]
    TraceBody,
    #[error("the only supported expectation is `100-continue`")]
    Expectation,
}

impl From<FramingError> for Malformed {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::Two => Self::TwoFramings,
            FramingError::Length => Self::Length,
            FramingError::Coding => Self::Coding,
            FramingError::UnknownCoding => Self::UnknownCoding,
        }
    }
}

/// Methods as far as they differ for a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Other,
}

impl Method {
    fn read(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// Whether the request means the same when it arrives twice (RFC 9110, 9.2.2).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Other)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Other => "other",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// The facts of a request that are needed once its head is written for the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub version: Version,
    pub framing: Framing,
    /// The connection goes on after the response, as far as the client is concerned.
    pub is_persistent: bool,
    pub expects_continue: bool,
    /// Asks for another protocol and has no body.
    pub upgrades: bool,
    pub id: RequestId,
    /// Where the path stands in the worker's head, without its query.
    pub path: Range<usize>,
    has_host: bool,
    takes_trailers: bool,
    head_len: usize,
}

/// The id of a request in logs, from the client or made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; MAX_ID],
    len: usize,
}

/// Longer than any usual kind of id.
const MAX_ID: usize = 64;

impl RequestId {
    fn new(id: &[u8]) -> Self {
        let len = id.len().min(MAX_ID);
        let mut bytes = [0; MAX_ID];
        bytes[..len].copy_from_slice(&id[..len]);
        Self { bytes, len }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The sender of a request, for the lines that tell the worker.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub peer: IpAddr,
    pub scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// How the body goes to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, and none was announced.
    None,
    Length(u64),
    Chunked,
}

/// Reads the head `bytes`, which ends in its empty line, and writes the worker's into `out`.
/// `new_id` gives a request id for a request that has none of its own.
pub fn read(
    bytes: &[u8],
    origin: Origin,
    new_id: impl FnOnce() -> [u8; 32],
    out: &mut Vec<u8>,
) -> Result<Request, Malformed> {
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(used)) if used == bytes.len() => {}
        Ok(_) => return Err(Malformed::Head),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        Err(httparse::Error::Version) => return Err(unknown_version(bytes)),
        Err(_) => return Err(Malformed::Head),
    }
    let (Some(name), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Malformed::Head);
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let facts = Facts::gather(parsed.headers, version)?;
    let (path, host) = resolve(name, path, &facts, version)?;
    if name == "TRACE" && !matches!(facts.framing, None | Some(Framing::Length(0))) {
        return Err(Malformed::TraceBody);
    }
    let mut request = Request {
        method: Method::read(name),
        version,
        framing: facts.framing.unwrap_or(Framing::None),
        is_persistent: facts.is_persistent(version),
        expects_continue: facts.expects_continue && version == Version::Http11,
        upgrades: facts.upgrades(version),
        id: facts.id.map_or_else(|| RequestId::new(&new_id()), RequestId::new),
        path: 0..0,
        has_host: facts.host.is_some(),
        takes_trailers: facts.takes_trailers,
        head_len: 0,
    };
    request.write(name, path, host, parsed.headers, &facts, origin, out);
    Ok(request)
}

/// A version that is well formed is told apart from noise.
fn unknown_version(head: &[u8]) -> Malformed {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Malformed::Version
        }
        _ => Malformed::Head,
    }
}

/// The result of the first pass.
#[derive(Default)]
struct Facts<'a> {
    framing: Option<Framing>,
    host: Option<&'a [u8]>,
    connection: Options,
    expects_continue: bool,
    upgrade: Option<&'a [u8]>,
    takes_trailers: bool,
    id: Option<&'a [u8]>,
}

impl<'a> Facts<'a> {
    fn gather(headers: &[Header<'a>], version: Version) -> Result<Self, Malformed> {
        let mut facts = Self::default();
        let mut framing = Lines::default();
        let (mut hosts, mut ids) = (0, 0);
        for header in headers {
            match field::classify(header.name) {
                Field::ContentLength => framing.add_length(header.value),
                Field::TransferEncoding => framing.add_coding(header.value),
                Field::Connection => facts.connection.add(header.value),
                Field::Host => {
                    hosts += 1;
                    facts.host = Some(header.value);
                }
                Field::Expect if header.value.eq_ignore_ascii_case(b"100-continue") => {
                    facts.expects_continue = true;
                }
                Field::Expect => return Err(Malformed::Expectation),
                Field::Upgrade => facts.upgrade = Some(header.value),
                Field::Te => {
                    facts.takes_trailers |=
                        field::members(header.value).any(|member| member.eq_ignore_ascii_case(b"trailers"));
                }
                Field::RequestId => {
                    ids += 1;
                    facts.id = Some(header.value);
                }
                Field::Trailer | Field::Draining | Field::Origin | Field::HopByHop | Field::Other => {}
            }
        }
        facts.framing = framing.framing()?;
        if version == Version::Http10 && facts.framing == Some(Framing::Chunked) {
            return Err(Malformed::Coding);
        }
        match (hosts, facts.host) {
            (0, _) if version == Version::Http11 => return Err(Malformed::NoHost),
            (0 | 1, host) if host.is_none_or(target::is_host) => {}
            _ => return Err(Malformed::Host),
        }
        facts.id = facts.id.filter(|id| ids == 1 && is_request_id(id));
        Ok(facts)
    }

    fn is_persistent(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        }
    }

    /// HTTP/2 in clear text is not relayed, because the load balancer could not check the requests inside it.
    fn upgrades(&self, version: Version) -> bool {
        let asks_for_more_than_http2 = self.upgrade.is_some_and(|value| {
            field::members(value).next().is_some()
                && !field::members(value)
                    .any(|protocol| protocol.len() >= 2 && protocol[..2].eq_ignore_ascii_case(b"h2"))
        });
        version == Version::Http11
            && self.connection.upgrade
            && asks_for_more_than_http2
            && matches!(self.framing, None | Some(Framing::Length(0)))
    }
}

/// The path for the worker and the host the request is for.
fn resolve<'a>(
    name: &str,
    text: &'a str,
    facts: &Facts<'a>,
    version: Version,
) -> Result<(&'a str, Option<&'a [u8]>), Malformed> {
    if name == "CONNECT" {
        return Err(Malformed::Connect);
    }
    if text == "*" && name == "OPTIONS" {
        return Ok((text, facts.host));
    }
    let target = target::parse(text).ok_or(Malformed::Target)?;
    let Some(authority) = target.authority else { return Ok((target.path, facts.host)) };
    // RFC 9112 lets an absolute target win over Host. When they differ, some reader would use the other.
    let is_same = facts.host.is_none_or(|host| host.eq_ignore_ascii_case(authority.as_bytes()));
    if !is_same || (version == Version::Http11 && facts.host.is_none()) {
        return Err(Malformed::Target);
    }
    let path = match target.path {
        "" if name == "OPTIONS" => "*",
        path => path,
    };
    Ok((path, Some(authority.as_bytes())))
}

pub fn is_request_id(bytes: &[u8]) -> bool {
    (1..=MAX_ID).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Request {
    #[expect(clippy::too_many_arguments, reason = "the pieces of one head, used once")]
    fn write(
        &mut self,
        name: &str,
        path: &str,
        host: Option<&[u8]>,
        headers: &[Header<'_>],
        facts: &Facts<'_>,
        origin: Origin,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
        let at = out.len();
        if !path.starts_with(['/', '*']) {
            out.push(b'/');
        }
        out.extend_from_slice(path.as_bytes());
        let end = memchr::memchr(b'?', &out[at..]).map_or(out.len(), |query| at + query);
        self.path = at..end;
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for header in headers {
            if self.passes(header, headers, facts) {
                line(header.name, header.value, out);
            }
        }
        self.write_origin(host, origin, out);
        line("X-Request-Id", self.id.as_bytes(), out);
        if self.upgrades {
            line("Upgrade", facts.upgrade.unwrap_or_default(), out);
        }
        self.head_len = out.len();
    }

    fn passes(&self, header: &Header<'_>, headers: &[Header<'_>], facts: &Facts<'_>) -> bool {
        match field::classify(header.name) {
            // Naming an end-to-end line would remove what the worker needs to tell sites apart.
            Field::Host => true,
            Field::Other => !(facts.connection.names_others && field::is_named(headers, header.name)),
            Field::Expect => self.asks_worker(),
            Field::Trailer => self.framing == Framing::Chunked,
            Field::Connection
            | Field::ContentLength
            | Field::Te
            | Field::TransferEncoding
            | Field::Upgrade
            | Field::RequestId
            | Field::Draining
            | Field::Origin
            | Field::HopByHop => false,
        }
    }

    /// Whether the worker decides if the client may send its body. A small one is received before a
    /// worker is chosen, so its client gets leave from us.
    pub fn asks_worker(&self) -> bool {
        let is_large = matches!(self.framing, Framing::Length(length) if length > MAX_REPLAY_BODY as u64);
        self.expects_continue && is_large
    }

    fn write_origin(&self, host: Option<&[u8]>, origin: Origin, out: &mut Vec<u8>) {
        let peer = origin.peer.to_canonical();
        out.extend_from_slice(b"X-Forwarded-For: ");
        write_address(peer, out);
        out.extend_from_slice(b"\r\n");
        line("X-Forwarded-Proto", origin.scheme.as_str().as_bytes(), out);
        if let Some(host) = host {
            line("X-Forwarded-Host", host, out);
        }
        // An IPv6 address needs its brackets, and with them the quotes (RFC 7239, 6).
        let (open, close): (&[u8], &[u8]) = if peer.is_ipv6() { (b"\"[", b"]\"") } else { (b"", b"") };
        out.extend_from_slice(b"Forwarded: for=");
        out.extend_from_slice(open);
        write_address(peer, out);
        out.extend_from_slice(close);
        if let Some(host) = host {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(host);
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(origin.scheme.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Completes the worker's head for one try: `Host` if the client sent none, the body's framing, the
    /// empty line. It is called again for each try.
    pub fn finish(&self, worker: &str, body: Body, out: &mut Vec<u8>) {
        out.truncate(self.head_len);
        if !self.has_host {
            line("Host", worker.as_bytes(), out);
        }
        match body {
            Body::None => {}
            Body::Length(length) => {
                out.extend_from_slice(b"Content-Length: ");
                write_number(length, out);
                out.extend_from_slice(b"\r\n");
            }
            Body::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
        if self.upgrades {
            out.extend_from_slice(b"Connection: Upgrade\r\n");
        } else if self.takes_trailers {
            out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes one header line.
pub fn line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    use std::io::Write as _;
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                write_number(u64::from(octet), out);
            }
        }
        IpAddr::V6(address) => write!(out, "{address}").expect("writing to a Vec cannot fail"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(head: &str, peer: &str) -> Result<(Request, String), Malformed> {
        let origin = Origin { peer: peer.parse().expect("an address"), scheme: Scheme::Http };
        let mut out = Vec::new();
        let request = read(head.as_bytes(), origin, || [b'f'; 32], &mut out)?;
        Ok((request, String::from_utf8(out).expect("text")))
    }

    fn read_head(head: &str) -> Result<(Request, String), Malformed> {
        read_from(head, "192.0.2.7")
    }

    fn passed(head: &str) -> String {
        read_head(head).unwrap_or_else(|error| panic!("{head:?}: {error}")).1
    }

    #[test]
    fn a_request_is_written_with_its_client() {
        let (request, text) =
            read_head("POST /a?b=c HTTP/1.1\r\nHost: a:5000\r\nAccept:*/*\r\nContent-Length: 3\r\n\r\n")
                .expect("well formed");
        assert_eq!(
            text,
            "POST /a?b=c HTTP/1.1\r\nHost: a:5000\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.7\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: a:5000\r\n\
             Forwarded: for=192.0.2.7;host=\"a:5000\";proto=http\r\n\
             X-Request-Id: ffffffffffffffffffffffffffffffff\r\n"
        );
        assert_eq!((request.method, request.framing), (Method::Post, Framing::Length(3)));
        assert_eq!(&text[request.path.clone()], "/a");
        assert_eq!(request.id.as_bytes(), [b'f'; 32]);
        let mut out = text.into_bytes();
        for _ in 0..2 {
            request.finish("w", Body::Length(3), &mut out);
            assert!(out.ends_with(b"ffff\r\nContent-Length: 3\r\n\r\n"));
        }
    }

    #[test]
    fn hop_by_hop_lines_end_here() {
        let text = passed(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret\r\nConnection: host, close\r\n\
             X-Secret: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: websocket\r\nProxy-Authorization: x\r\n\
             HTTP2-Settings: x\r\nX-Vigia-Draining: 1\r\nAccept: */*\r\n\r\n",
        );
        let names: Vec<_> = text.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
        assert_eq!(
            names,
            [
                "Host",
                "Accept",
                "X-Forwarded-For",
                "X-Forwarded-Proto",
                "X-Forwarded-Host",
                "Forwarded",
                "X-Request-Id"
            ]
        );
    }

    #[test]
    fn a_client_cannot_say_where_it_comes_from() {
        let text = passed(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n\
             X-Real-IP: 10.0.0.1\r\nX-Forwarded-Port: 1\r\n\r\n",
        );
        assert!(!text.contains("10.0.0.1") && !text.contains("Port"), "{text}");
        let (_, text) = read_from("GET / HTTP/1.0\r\n\r\n", "::ffff:192.0.2.7").expect("well formed");
        assert!(text.contains("X-Forwarded-For: 192.0.2.7\r\n"), "{text}");
        let (_, text) = read_from("GET / HTTP/1.0\r\n\r\n", "2001:db8::1").expect("well formed");
        assert!(text.contains("Forwarded: for=\"[2001:db8::1]\";proto=http\r\n"), "{text}");
    }

    #[test]
    fn an_old_client_without_a_host_gets_the_workers() {
        let (request, text) = read_head("GET / HTTP/1.0\r\n\r\n").expect("well formed");
        let mut out = text.into_bytes();
        request.finish("10.0.0.1:8080", Body::None, &mut out);
        assert!(out.ends_with(b"Host: 10.0.0.1:8080\r\n\r\n"));
        assert!(!request.is_persistent);
    }

    #[test]
    fn only_a_well_formed_request_id_is_kept() {
        for (lines, kept) in [
            ("X-Request-Id: Ab-1_2\r\n", Some("Ab-1_2")),
            ("X-Request-Id: \r\n", None),
            ("X-Request-Id: a b\r\n", None),
            ("X-Request-Id: a\r\nX-Request-Id: b\r\n", None),
        ] {
            let (request, text) =
                read_head(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).expect("well formed");
            let expected = kept.map_or("f".repeat(32), str::to_owned);
            assert_eq!(request.id.as_bytes(), expected.as_bytes(), "{lines:?}");
            assert!(text.ends_with(&format!("X-Request-Id: {expected}\r\n")), "{text}");
        }
    }

    #[test]
    fn an_upgrade_is_relayed_but_not_to_http2_and_not_with_a_body() {
        let head = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{lines}\r\n");
        let (request, text) = read_head(&head("Upgrade: websocket\r\n")).expect("well formed");
        assert!(request.upgrades && text.contains("Upgrade: websocket\r\n"), "{text}");
        for lines in
            ["Upgrade: h2c\r\n", "Upgrade: websocket, H2C\r\n", "Upgrade: x\r\nContent-Length: 1\r\n"]
        {
            let (request, text) = read_head(&head(lines)).expect("well formed");
            assert!(!request.upgrades && !text.contains("Upgrade"), "{text}");
        }
    }

    #[test]
    fn an_absolute_target_becomes_a_path() {
        assert!(
            passed("GET http://a/x?y HTTP/1.1\r\nHost: A\r\n\r\n")
                .starts_with("GET /x?y HTTP/1.1\r\nHost: A\r\n")
        );
        assert!(passed("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("GET / HTTP/1.1\r\n"));
        assert!(passed("GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("GET /?x HTTP/1.1\r\n"));
        assert!(passed("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("OPTIONS * HTTP/1.1\r\n"));
    }

    #[test]
    fn malformed_heads_are_refused() {
        for (head, error) in [
            ("GET / HTTP/1.1\r\n\r\n", Malformed::NoHost),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Malformed::Host),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Malformed::Host),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Malformed::Host),
            ("GET /#b HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Malformed::Connect),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Malformed::Version),
            ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", Malformed::Version),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", Malformed::Head),
            ("GET /\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Malformed::Head),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::Coding),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", Malformed::Expectation),
            ("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", Malformed::TraceBody),
        ] {
            assert_eq!(read_head(head).map(|_| ()), Err(error), "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS));
        assert_eq!(read_head(&many).map(|_| ()), Err(Malformed::TooLarge));
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, 1234, u64::MAX] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
