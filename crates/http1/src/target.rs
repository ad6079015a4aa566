//! Request targets and hosts (RFC 3986, RFC 9112 3.2).
//!
//! A little wider than the RFC in one place: browsers send `| ^ { } [ ]` in paths and queries, and the
//! backquote and the backslash in queries, as they are. A backslash in a path is refused, because
//! some readers take it for a slash; so is `%` without two hexadecimal digits, which readers repair
//! in different ways. A backquote in a path is refused because the workers' HTTP library does, without
//! a word to the client: `tests/it/oracle_hyper.rs` compares the two, byte by byte.

use fleet::layers::MAX_HOST;

/// Where a request goes, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Only in absolute form.
    pub authority: Option<&'a str>,
    /// Empty only in absolute form.
    pub path: &'a str,
}

/// Takes a target apart; `None` if it is none. `*` is left to the caller.
pub fn parse(target: &str) -> Option<Target<'_>> {
    if target.starts_with('/') {
        return is_path_and_query(target).then_some(Target { authority: None, path: target });
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_fine = is_host(authority.as_bytes()) && is_path_and_query(path);
    is_fine.then_some(Target { authority: Some(authority), path })
}

fn is_path_and_query(text: &str) -> bool {
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    path.bytes().all(is_path_byte)
        && query.bytes().all(|byte| is_path_byte(byte) || matches!(byte, b'\\' | b'`'))
        && has_whole_escapes(text.as_bytes())
}

/// Whether each `%` is followed by two hexadecimal digits.
fn has_whole_escapes(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'%', bytes)
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit)))
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'`')
}

/// Whether this is a host with an optional port, and nothing else.
pub fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', ..] => {
            let Some(end) = memchr::memchr(b']', text) else { return false };
            let is_address = std::str::from_utf8(&text[1..end])
                .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
            if !is_address {
                return false;
            }
            (&b"address"[..], &text[end + 1..])
        }
        _ => text.split_at(memchr::memchr(b':', text).unwrap_or(text.len())),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let is_name_byte = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&')
            || matches!(byte, b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
    };
    is_port
        && !host.is_empty()
        && text.len() <= MAX_HOST
        && host.iter().all(is_name_byte)
        && has_whole_escapes(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_or_an_absolute_url() {
        for (text, authority, path) in [
            ("/", None, "/"),
            ("/a//b;c=1/%41?x=|{}&y[]=^`\\", None, "/a//b;c=1/%41?x=|{}&y[]=^`\\"),
            ("http://a:5000/x?y", Some("a:5000"), "/x?y"),
            ("HTTPS://[::1]:1", Some("[::1]:1"), ""),
            ("http://a?x", Some("a"), "?x"),
        ] {
            assert_eq!(parse(text), Some(Target { authority, path }), "{text}");
        }
        for text in [
            "",
            "a",
            "*",
            "/a#b",
            "/a b",
            "/a\\b",
            "/a`b",
            "/\u{e9}",
            "/<",
            "/\"",
            "/%",
            "/%4",
            "/%zz",
            "/\x7f",
            "ftp://a/",
            "http:///x",
            "http://u@a/",
            "http://a b/",
            "://a/",
            "//a?%x",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_without() {
        for host in ["a", "a.example:5000", "127.0.0.1", "[::1]", "[2001:db8::1]:80", "a:", "xn--a_b"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "u@a", "a/b", "a:x", "a:1:2", "a:123456", "a%zz", "[::1", "[x]", "[::1]x",
            "a\u{e9}",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(is_host("a".repeat(MAX_HOST).as_bytes()) && !is_host("a".repeat(MAX_HOST + 1).as_bytes()));
    }
}
