//! Requests that could mean one thing here and another at a worker do not get through.
//!
//! hyper's parser accepts more than it should forward: with both `Content-Length` and
//! `Transfer-Encoding` it drops the former before anybody can see it. So the raw head is inspected
//! first (`inspect`, called by `tap.rs` before hyper gets the bytes), the parsed one second
//! (`screen`). A worker never sees the client's framing in any case: we write our own.

use httparse::Header;
use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Method, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the request has both Content-Length and Transfer-Encoding")]
    TwoFramings,
    #[error("Content-Length is not one whole number")]
    Length,
    #[error("Transfer-Encoding is not `chunked`")]
    TransferEncoding,
    #[error("a line of the request does not end in CR LF")]
    BareLineFeed,
    #[error("the request target is not a path")]
    Target,
    #[error("the request head cannot be read")]
    Head,
    #[error("the request has no Host")]
    NoHost,
    #[error("the request has more than one Host, or one that is not a host")]
    Host,
    #[error("tunnels are not offered")]
    Connect,
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

/// Judges a raw head, `bytes`, that httparse has read as `target` and `headers`.
pub(crate) fn inspect(bytes: &[u8], target: &str, headers: &[Header<'_>]) -> Result<Framing, Malformed> {
    let has_bare_line_feed =
        bytes.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r'));
    if has_bare_line_feed {
        return Err(Malformed::BareLineFeed);
    }
    if target.contains('#') {
        return Err(Malformed::Target);
    }
    let values = |name: &'static str| {
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
            .collect::<Vec<_>>()
    };
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) => parse_length(length).map(Framing::Length),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        ([], _) => Err(Malformed::TransferEncoding),
        (_, []) => Err(Malformed::Length),
        _ => Err(Malformed::TwoFramings),
    }
}

fn parse_length(value: &[u8]) -> Result<u64, Malformed> {
    let digits = std::str::from_utf8(value).map_err(|_| Malformed::Length)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Length);
    }
    digits.parse().map_err(|_| Malformed::Length)
}

/// Whom and what a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `None` for HTTP/1.0 without `Host`.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: PathAndQuery,
}

/// Judges a parsed head.
pub(crate) fn screen(parts: &Parts) -> Result<Target, Malformed> {
    if parts.method == Method::CONNECT {
        return Err(Malformed::Connect);
    }
    if parts.headers.get_all(TRANSFER_ENCODING).iter().count() > 1 {
        return Err(Malformed::TransferEncoding);
    }
    let host = host(parts)?;
    if let Some(authority) = parts.uri.authority() {
        // An absolute target decides over Host; where they differ, somebody will be fooled.
        let is_http = parts.uri.scheme_str().is_some_and(|scheme| scheme == "http" || scheme == "https");
        let is_same = host
            .as_ref()
            .is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()));
        if !is_http || !is_same {
            return Err(Malformed::Target);
        }
    }
    let path = parts.uri.path_and_query().cloned().ok_or(Malformed::Target)?;
    let is_asterisk = path.as_str() == "*" && parts.method == Method::OPTIONS;
    if !path.as_str().starts_with('/') && !is_asterisk {
        return Err(Malformed::Target);
    }
    Ok(Target { host, path })
}

fn host(parts: &Parts) -> Result<Option<HeaderValue>, Malformed> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if parts.version == Version::HTTP_11 => return Err(Malformed::NoHost),
        (None, _) => return Ok(None),
        (Some(host), None) => host,
        (Some(_), Some(_)) => return Err(Malformed::Host),
    };
    let authority = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    match authority {
        Some(authority) if !authority.as_str().contains('@') => Ok(Some(host.clone())),
        _ => Err(Malformed::Host),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn inspected(head: &str) -> Result<Framing, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; 10];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(head.as_bytes()).expect("httparse accepts it").is_complete());
        inspect(head.as_bytes(), request.path.expect("complete"), request.headers)
    }

    #[test]
    fn one_framing_is_understood() {
        for (lines, expected) in [
            ("", Framing::Length(0)),
            ("Content-Length: 12\r\n", Framing::Length(12)),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
        ] {
            assert_eq!(inspected(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")), Ok(expected));
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for (lines, expected) in [
            ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", Malformed::TwoFramings),
            ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", Malformed::TwoFramings),
            ("Content-Length: 4\r\nContent-Length: 4\r\n", Malformed::Length),
            ("Content-Length: 4, 4\r\n", Malformed::Length),
            ("Content-Length: +4\r\n", Malformed::Length),
            ("Content-Length: 0x4\r\n", Malformed::Length),
            ("Content-Length:\r\n", Malformed::Length),
            ("Content-Length: 99999999999999999999\r\n", Malformed::Length),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Malformed::TransferEncoding),
            ("Transfer-Encoding: ,chunked\r\n", Malformed::TransferEncoding),
            ("Transfer-Encoding: identity\r\n", Malformed::TransferEncoding),
            ("X: y\nContent-Length: 4\r\n", Malformed::BareLineFeed),
        ] {
            assert_eq!(
                inspected(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")),
                Err(expected),
                "{lines:?}"
            );
        }
        assert_eq!(inspected("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Malformed::Target));
    }

    fn screened(method: &str, uri: &str, version: Version, hosts: &[&str]) -> Result<Target, Malformed> {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        screen(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn a_host_is_needed_and_only_one() {
        assert!(screened("GET", "/", Version::HTTP_11, &["a:5000"]).is_ok());
        assert!(screened("GET", "/", Version::HTTP_10, &[]).is_ok());
        assert_eq!(screened("GET", "/", Version::HTTP_11, &[]), Err(Malformed::NoHost));
        assert_eq!(screened("GET", "/", Version::HTTP_11, &["a", "a"]), Err(Malformed::Host));
        for host in ["a b", "", "user@a", "a/b"] {
            assert_eq!(screened("GET", "/", Version::HTTP_11, &[host]), Err(Malformed::Host), "{host:?}");
        }
    }

    #[test]
    fn a_target_is_a_path() {
        let target = screened("GET", "http://a/x?y", Version::HTTP_11, &["A"]).expect("absolute form");
        assert_eq!(target.path.as_str(), "/x?y");
        assert!(screened("OPTIONS", "*", Version::HTTP_11, &["a"]).is_ok());
        assert_eq!(screened("GET", "*", Version::HTTP_11, &["a"]), Err(Malformed::Target));
        assert_eq!(screened("GET", "http://b/", Version::HTTP_11, &["a"]), Err(Malformed::Target));
        assert_eq!(screened("GET", "ftp://a/", Version::HTTP_11, &["a"]), Err(Malformed::Target));
        assert_eq!(screened("CONNECT", "a:443", Version::HTTP_11, &["a:443"]), Err(Malformed::Connect));
    }
}
