//! The meaning of a header line to a proxy.

use httparse::Header;

/// The names a proxy treats in their own way; everything else passes as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Connection,
    ContentLength,
    Expect,
    Host,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    RequestId,
    /// The worker's word to the load balancer that it stops; see `fleet::DRAINING_HEADER`.
    Draining,
    /// The client's claim about its address. It is replaced by the address of the connection, because workers trust
    /// these lines.
    Origin,
    /// Concerns one connection and ends here.
    HopByHop,
    Other,
}

pub fn classify(name: &str) -> Field {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is("te") => Field::Te,
        4 if is("host") => Field::Host,
        6 if is("expect") => Field::Expect,
        7 if is("trailer") => Field::Trailer,
        7 if is("upgrade") => Field::Upgrade,
        9 if is("forwarded") || is("x-real-ip") => Field::Origin,
        10 if is("connection") => Field::Connection,
        10 if is("keep-alive") => Field::HopByHop,
        12 if is("x-request-id") => Field::RequestId,
        14 if is("content-length") => Field::ContentLength,
        // Only has a meaning together with an upgrade to HTTP/2, which is not offered.
        14 if is("http2-settings") => Field::HopByHop,
        _ if is(fleet::DRAINING_HEADER) => Field::Draining,
        16 if is("proxy-connection") => Field::HopByHop,
        17 if is("transfer-encoding") => Field::TransferEncoding,
        18 if is("proxy-authenticate") => Field::HopByHop,
        19 if is("proxy-authorization") => Field::HopByHop,
        12.. if name.as_bytes()[..12].eq_ignore_ascii_case(b"x-forwarded-") => Field::Origin,
        _ => Field::Other,
    }
}

/// The members of a comma-separated list, without the white space around them.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The options in the `Connection` lines of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// Names other header lines, which then end here.
    pub names_others: bool,
}

impl Options {
    pub fn add(&mut self, value: &[u8]) {
        for option in members(value) {
            match option {
                _ if option.eq_ignore_ascii_case(b"close") => self.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                _ => self.names_others = true,
            }
        }
    }
}

/// Whether a `Connection` line among `headers` names `name`.
pub fn is_named(headers: &[Header<'_>], name: &str) -> bool {
    headers
        .iter()
        .filter(|header| classify(header.name) == Field::Connection)
        .flat_map(|header| members(header.value))
        .any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether a trailer may carry this name: not what frames, routes, authenticates or says how to read
/// the body (RFC 9110, 6.5.1), because a reader may merge it with the head.
pub fn may_trail(name: &str) -> bool {
    const HEAD_ONLY: [&str; 12] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "max-forwards",
        "pragma",
        "range",
        "set-cookie",
        "www-authenticate",
        "x-request-id",
    ];
    classify(name) == Field::Other && !HEAD_ONLY.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, field) in [
            ("Transfer-Encoding", Field::TransferEncoding),
            ("CONTENT-LENGTH", Field::ContentLength),
            ("te", Field::Te),
            ("X-Forwarded-For", Field::Origin),
            ("x-forwarded-anything", Field::Origin),
            ("X-Forwarded", Field::Other),
            ("Proxy-Authorization", Field::HopByHop),
            ("Accept", Field::Other),
            ("X-Vigia-Draining", Field::Draining),
        ] {
            assert_eq!(classify(name), field, "{name}");
        }
    }

    #[test]
    fn connection_options_are_a_list() {
        let mut options = Options::default();
        options.add(b" Close ,,keep-alive");
        assert_eq!(options, Options { close: true, keep_alive: true, ..Options::default() });
        options.add(b"X-Mine");
        assert!(options.names_others);
        let headers = [Header { name: "Connection", value: b"a, X-Mine" }];
        assert!(is_named(&headers, "x-mine") && !is_named(&headers, "x-min"));
    }

    #[test]
    fn trailers_carry_nothing_that_frames_routes_or_authenticates() {
        for name in ["Content-Length", "host", "Transfer-Encoding", "Authorization", "X-Forwarded-For"] {
            assert!(!may_trail(name), "{name}");
        }
        assert!(may_trail("X-Checksum"));
    }
}
