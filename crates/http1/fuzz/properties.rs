//! Properties that hold for any input bytes. The fuzz targets in this directory check them, and
//! `tests/fuzzing.rs` does for a while with every test run.
//!
//! They do not define which input is accepted; the vectors do. They check that every accepted message is
//! written so that all readers understand it in the same way.

use super::http::chunked::Chunked;
use super::http::framing::Framing;
use super::http::head::{self, MAX_FIELDS, Scan};
use super::http::request::{self, Body, Malformed, Method, Origin, Request, Scheme, Version};
use super::http::response::{self, Reply};

const ORIGIN: Origin =
    Origin { peer: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), scheme: Scheme::Http };

/// Room for the lines that are added.
const MAX_READ_AGAIN: usize = MAX_FIELDS - 12;

/// Checks that an accepted head is written as a head that is accepted again and means the same.
pub(crate) fn request(bytes: &[u8]) {
    let Some(head) = whole_head(bytes) else { return };
    let mut out = Vec::new();
    let Ok(read) = read(head, &mut out) else { return };
    for body in [Body::None, Body::Length(7), Body::Chunked] {
        read.finish("10.0.0.1:8080", body, &mut out);
        assert_eq!(head::scan(&out, 0), Scan::Complete(out.len()), "it is written as one head");
        let fields = fields(&out);
        if fields.len() > MAX_READ_AGAIN {
            return;
        }
        let count = |name: &str| fields.iter().filter(|field| field.eq_ignore_ascii_case(name)).count();
        assert_eq!(count("host"), 1);
        assert_eq!(count("x-request-id"), 1);
        assert_eq!(count("x-forwarded-for"), 1);
        assert_eq!(count("content-length"), usize::from(matches!(body, Body::Length(_))));
        assert_eq!(count("transfer-encoding"), usize::from(body == Body::Chunked));
        let mut again = Vec::new();
        let expected = match body {
            Body::None => Framing::None,
            Body::Length(length) => Framing::Length(length),
            Body::Chunked => Framing::Chunked,
        };
        match self::read(&out, &mut again) {
            // TRACE has no body; which one it would get is not decided here.
            Err(Malformed::TraceBody) if read.method == Method::Trace => {}
            reread => {
                let reread = reread.expect("our own head is accepted");
                assert_eq!((reread.method, reread.framing), (read.method, expected));
                assert_eq!(&again[reread.path.clone()], &out[read.path.clone()]);
                assert_eq!(reread.id, read.id);
            }
        }
    }
}

/// The same of a response, to either version of client.
pub(crate) fn response(bytes: &[u8]) {
    let Some(head) = whole_head(bytes) else { return };
    for method in [Method::Get, Method::Head] {
        for version in [Version::Http10, Version::Http11] {
            let mut out = Vec::new();
            let reply = Reply { version, id: b"id", is_persistent: version == Version::Http11 };
            let written = response::read(head, method, |head| {
                if !head.response.is_interim() {
                    head.write(reply, &mut out);
                }
                head.response
            });
            let Ok(read) = written else { continue };
            if read.is_interim() {
                continue;
            }
            assert_eq!(head::scan(&out, 0), Scan::Complete(out.len()), "it is written as one head");
            if fields(&out).len() > MAX_READ_AGAIN {
                continue;
            }
            let again = response::read(&out, method, |head| head.response).expect("our own head is accepted");
            let expected = match (read.framing, version) {
                (Framing::UntilClose, Version::Http11) => Framing::Chunked,
                (Framing::Chunked, Version::Http10) => Framing::UntilClose,
                (framing, _) => framing,
            };
            assert_eq!((again.status, again.framing), (read.status, expected));
            assert!(!again.is_draining);
        }
    }
}

/// The first byte says how the rest is cut. However it is: the same data, the same verdict; and what
/// is accepted is what the grammar says.
pub(crate) fn chunked(bytes: &[u8]) {
    let Some((cut, wire)) = bytes.split_first() else { return };
    let whole = decode(wire, wire.len().max(1));
    assert_eq!(decode(wire, usize::from(*cut).max(1)), whole, "cut into pieces of {cut}");
    assert_eq!(decode(wire, 1), whole, "cut into bytes");
    if let Some((data, used)) = whole {
        assert_eq!(by_the_grammar(&wire[..used]).as_deref(), Some(&data[..]));
    }
}

fn read(head: &[u8], out: &mut Vec<u8>) -> Result<Request, Malformed> {
    request::read(head, ORIGIN, || [b'f'; 32], out)
}

/// The head at the front, found in one look and byte by byte.
fn whole_head(bytes: &[u8]) -> Option<&[u8]> {
    let found = head::scan(bytes, 0);
    let mut stepwise = Scan::Incomplete;
    for end in 1..=bytes.len().min(1024) {
        stepwise = head::scan(&bytes[..end], end - 1);
        if stepwise != Scan::Incomplete {
            break;
        }
    }
    if bytes.len() <= 1024 {
        assert_eq!(stepwise, found);
    }
    match found {
        Scan::Complete(len) => Some(&bytes[..len]),
        Scan::Incomplete | Scan::BareLineFeed => None,
    }
}

fn fields(head: &[u8]) -> Vec<String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS * 2];
    let lines = head.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let parsed = httparse::parse_headers(&head[lines..], &mut fields).expect("our own lines are lines");
    let httparse::Status::Complete((_, fields)) = parsed else { panic!("our own head has an end") };
    fields.iter().map(|field| field.name.to_owned()).collect()
}

/// The data, and how many bytes of the wire they took; `None` if refused or not at its end.
fn decode(wire: &[u8], piece: usize) -> Option<(Vec<u8>, usize)> {
    let (mut chunked, mut data, mut used) = (Chunked::default(), Vec::new(), 0);
    for bytes in wire.chunks(piece) {
        let mut bytes = bytes.to_vec();
        let step = chunked.decode(&mut bytes).ok()?;
        assert!(step.data <= step.used && step.used <= bytes.len());
        data.extend_from_slice(&bytes[..step.data]);
        used += step.used;
        if chunked.is_done() {
            return Some((data, used));
        }
        assert_eq!(step.used, bytes.len(), "bytes are left and the body has not ended");
    }
    None
}

/// A second reading of RFC 9112, 7.1, by another way: line by line instead of byte by byte.
fn by_the_grammar(wire: &[u8]) -> Option<Vec<u8>> {
    let (mut data, mut rest) = (Vec::new(), wire);
    loop {
        let (line, after) = line(rest)?;
        let (size, extension) =
            line.split_at(line.iter().position(|b| b" \t;".contains(b)).unwrap_or(line.len()));
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        let extension = extension.trim_ascii_start();
        assert!(extension.is_empty() || extension.starts_with(b";"));
        rest = after;
        if size == 0 {
            break;
        }
        data.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let (line, after) = line(rest)?;
        rest = after;
        if line.is_empty() {
            return rest.is_empty().then_some(data);
        }
        assert!(line.contains(&b':'));
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    assert!(!bytes[..end].contains(&b'\n') && !bytes[..end].contains(&b'\r'));
    Some((&bytes[..end], &bytes[end + 2..]))
}
