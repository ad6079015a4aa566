//! HTTP/1.1 messages, read by the letter of RFC 9112.
//!
//! The reader accepts only messages that a conforming sender may send. The load balancer must never send a
//! message that it refuses.

use std::fmt;

use super::latin1;

/// `None`: more bytes are needed. Otherwise the value, and the number of bytes it was read from.
pub(crate) type Read<T> = Result<Option<(T, usize)>, String>;

/// Header or trailer lines in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.0.iter().filter(|(named, _)| named.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        match self.all(name)[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// Whether `Connection` has this option.
    pub(crate) fn connection(&self, option: &str) -> bool {
        let options = self.all("connection").into_iter().flat_map(|value| value.split(','));
        options.into_iter().any(|given| given.trim_matches([' ', '\t']).eq_ignore_ascii_case(option))
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, and nothing says so.
    None,
    Length,
    Chunked,
    /// By the end of the connection.
    Close,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) framing: Framing,
    pub(crate) content: String,
    pub(crate) trailers: Fields,
    pub(crate) has_chunk_extensions: bool,
    /// `false`: the connection ended before the body.
    pub(crate) is_whole: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
}

impl Response {
    pub(crate) fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// The head of a request: its method, its target, its header lines.
pub(crate) fn request_head(bytes: &[u8]) -> Read<(String, String, Fields)> {
    let Some((line, fields, length)) = head(bytes)? else { return Ok(None) };
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        return Err(format!("{line:?} is not a request line"));
    };
    let is_target = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token(method) || !is_target || target.contains('#') {
        return Err(format!("{line:?} is not a request line"));
    }
    Ok(Some(((method.to_owned(), target.to_owned(), fields), length)))
}

pub(crate) fn request(bytes: &[u8]) -> Read<Request> {
    let Some(((method, target, fields), head)) = request_head(bytes)? else { return Ok(None) };
    let framing = match length_or_chunked(&fields)? {
        Announced::Chunked => Framing::Chunked,
        Announced::Length(_) => Framing::Length,
        Announced::Nothing => Framing::None,
    };
    let Some((body, length)) = body(&bytes[head..], framing, &fields)? else { return Ok(None) };
    Ok(Some((Request { method, target, fields, body }, head + length)))
}

/// A response to a request with this method; `has_ended` says that no more bytes will come.
pub(crate) fn response(bytes: &[u8], method: &str, has_ended: bool) -> Read<Response> {
    let Some((line, fields, head)) = head(bytes)? else { return Ok(None) };
    let (version, rest) = line.split_once(' ').unwrap_or((&line, ""));
    let (digits, reason) = rest.split_once(' ').ok_or_else(|| format!("{line:?} is not a status line"))?;
    let is_number = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let status = digits.parse::<u16>().ok().filter(|status| is_number && *status >= 100);
    let (Some(status), "HTTP/1.1" | "HTTP/1.0") = (status, version) else {
        return Err(format!("{line:?} is not a status line"));
    };
    if !reason.chars().all(is_text) {
        return Err(format!("{line:?} is not a status line"));
    }
    let has_no_body = status < 200 || status == 204 || status == 304 || method == "HEAD";
    let framing = match length_or_chunked(&fields)? {
        _ if has_no_body => Framing::None,
        Announced::Chunked => Framing::Chunked,
        Announced::Length(_) => Framing::Length,
        Announced::Nothing => Framing::Close,
    };
    let rest = &bytes[head..];
    let (body, length) = match body(rest, framing, &fields)? {
        Some((mut body, length)) => {
            body.is_whole = framing != Framing::Close || has_ended;
            (body, length)
        }
        None if has_ended => {
            let body = Body { is_whole: false, content: latin1(rest), ..Body::empty(framing) };
            (body, rest.len())
        }
        None => return Ok(None),
    };
    if !body.is_whole && !has_ended {
        return Ok(None);
    }
    let version = version.to_owned();
    Ok(Some((Response { version, status, fields, body }, head + length)))
}

impl Body {
    fn empty(framing: Framing) -> Self {
        let (content, trailers) = (String::new(), Fields::default());
        Self { framing, content, trailers, has_chunk_extensions: false, is_whole: true }
    }
}

enum Announced {
    Nothing,
    Length(usize),
    Chunked,
}

fn length_or_chunked(fields: &Fields) -> Result<Announced, String> {
    match (&fields.all("content-length")[..], &fields.all("transfer-encoding")[..]) {
        ([], []) => Ok(Announced::Nothing),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => length
            .parse()
            .map(Announced::Length)
            .map_err(|error| format!("Content-Length: {length}: {error}")),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Announced::Chunked),
        (lengths, codings) => {
            Err(format!("Content-Length {lengths:?} and Transfer-Encoding {codings:?} are no framing"))
        }
    }
}

fn body(bytes: &[u8], framing: Framing, fields: &Fields) -> Read<Body> {
    let announced = length_or_chunked(fields)?;
    match (framing, announced) {
        (Framing::Chunked, _) => chunked(bytes),
        (Framing::Length, Announced::Length(length)) => Ok(bytes
            .get(..length)
            .map(|body| (Body { content: latin1(body), ..Body::empty(framing) }, length))),
        (Framing::Close, _) => {
            Ok(Some((Body { content: latin1(bytes), ..Body::empty(framing) }, bytes.len())))
        }
        (Framing::Length | Framing::None, _) => Ok(Some((Body::empty(framing), 0))),
    }
}

fn chunked(bytes: &[u8]) -> Read<Body> {
    let mut body = Body::empty(Framing::Chunked);
    let mut content = Vec::new();
    let mut at = 0;
    loop {
        let Some((line, length)) = line(&bytes[at..])? else { return Ok(None) };
        at += length;
        let (digits, extension) = line.split_once(';').unwrap_or((&line, ""));
        body.has_chunk_extensions |= line.contains(';');
        let is_size = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size =
            usize::from_str_radix(digits, 16).ok().filter(|_| is_size && extension.chars().all(is_text));
        let size = size.ok_or_else(|| format!("{line:?} is not a chunk size"))?;
        if size == 0 {
            break;
        }
        let end = size.checked_add(2).ok_or_else(|| format!("{line:?} is not a chunk size"))?;
        let Some(data) = bytes[at..].get(..end) else { return Ok(None) };
        if &data[size..] != b"\r\n" {
            return Err(format!("a chunk of {size} bytes is followed by {:?}", latin1(&data[size..])));
        }
        content.extend_from_slice(&data[..size]);
        at += end;
    }
    body.content = latin1(&content);
    let Some((trailers, length)) = fields(&bytes[at..])? else { return Ok(None) };
    body.trailers = trailers;
    Ok(Some((body, at + length)))
}

/// The first line and the header lines.
fn head(bytes: &[u8]) -> Result<Option<(String, Fields, usize)>, String> {
    let Some((first, begin)) = line(bytes)? else { return Ok(None) };
    let Some((fields, length)) = fields(&bytes[begin..])? else { return Ok(None) };
    Ok(Some((first, fields, begin + length)))
}

/// Lines up to an empty one.
fn fields(bytes: &[u8]) -> Read<Fields> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let Some((line, length)) = line(&bytes[at..])? else { return Ok(None) };
        at += length;
        if line.is_empty() {
            return Ok(Some((Fields(lines), at)));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("{line:?} is not a header line"))?;
        let value = value.trim_matches([' ', '\t']);
        if !is_token(name) || !value.chars().all(is_text) {
            return Err(format!("{line:?} is not a header line"));
        }
        lines.push((name.to_owned(), value.to_owned()));
    }
}

/// A line without its CR LF, which stand nowhere else.
fn line(bytes: &[u8]) -> Read<String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    match bytes[..end].strip_suffix(b"\r") {
        Some(line) if !line.contains(&b'\r') => Ok(Some((latin1(line), end + 1))),
        _ => Err(format!("{:?} is not a line", latin1(&bytes[..=end]))),
    }
}

fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

/// Blank, tab, visible, or above ASCII.
fn is_text(char: char) -> bool {
    char == '\t' || !char.is_ascii_control()
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, fields, body } = self;
        write!(f, "{method} {target} {:?} {:?} {:?}", fields.0, body.framing, body.content.len())
    }
}

#[test]
fn the_reader_takes_nothing_that_is_not_http() {
    for bytes in [
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\n\r\n",
        "GET / HTTP/1.1\r\n\n",
        "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
    ] {
        assert!(request(bytes.as_bytes()).is_err(), "{bytes:?}");
    }
    let whole = b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(request(&whole[..end]), Ok(None));
    }
    assert!(request(whole).is_ok_and(|read| read.is_some_and(|(_, length)| length == whole.len())));
}
