//! Which header lines pass, in both directions.
//!
//! Hop-by-hop lines concern one connection and end here, those that `Connection` names included.
//! What a client says about where it comes from is replaced by what we see: workers trust these
//! lines, so a client must not be able to write them.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Turns a client's header lines into the worker's. `Host` is not touched.
pub(crate) fn to_worker(headers: &mut HeaderMap, peer: IpAddr, host: Option<&HeaderValue>, id: &HeaderValue) {
    remove_hop_by_hop(headers);
    // hyper frames the body anew, and has itself told the client to continue.
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
    let claimed: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in claimed.iter().chain(&[FORWARDED, HeaderName::from_static("x-real-ip")]) {
        headers.remove(name);
    }
    if let Ok(peer) = HeaderValue::from_str(&peer.to_canonical().to_string()) {
        headers.insert(X_FORWARDED_FOR, peer);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Turns a worker's header lines into the client's. The length stays: hyper keeps it where a body
/// is announced and not sent (HEAD), and checks nothing.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
}

/// The client's request id if it is well formed, or a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(X_REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if is_request_id(id.as_bytes()) => id.clone(),
        _ => HeaderValue::from_str(&format!("{:032x}", rand::random::<u128>()))
            .unwrap_or(HeaderValue::from_static("0")),
    }
}

/// Whether the worker wants this connection closed.
pub(crate) fn asks_to_close(headers: &HeaderMap) -> bool {
    connection_options(headers).any(|option| option.eq_ignore_ascii_case("close"))
}

fn is_request_id(bytes: &[u8]) -> bool {
    (1..=64).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| option.parse().ok())
        // Naming an end-to-end line would remove what the worker needs to tell sites apart.
        .filter(|name| *name != HOST)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn sent(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = headers(lines);
        let id = HeaderValue::from_static("id");
        to_worker(
            &mut headers,
            "192.0.2.7".parse().expect("valid"),
            Some(&HeaderValue::from_static("a:5000")),
            &id,
        );
        headers
    }

    #[test]
    fn hop_by_hop_lines_end_here() {
        let sent = sent(&[
            ("host", "a:5000"),
            ("connection", "keep-alive, X-Secret"),
            ("connection", "host, close"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("proxy-authorization", "x"),
            ("accept", "*/*"),
        ]);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["accept", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"]
        );
    }

    #[test]
    fn a_client_cannot_say_where_it_comes_from() {
        let sent = sent(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
        ]);
        assert_eq!(sent.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        assert_eq!(sent["x-forwarded-proto"], "http");
        assert_eq!(sent["x-forwarded-host"], "a:5000");
        for gone in ["forwarded", "x-real-ip", "x-forwarded-port"] {
            assert!(!sent.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn a_mapped_peer_is_written_as_ipv4() {
        let mut headers = HeaderMap::new();
        let id = HeaderValue::from_static("id");
        to_worker(&mut headers, "::ffff:192.0.2.7".parse().expect("valid"), None, &id);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
    }

    #[test]
    fn only_a_well_formed_request_id_is_kept() {
        assert_eq!(request_id(&headers(&[("x-request-id", "Ab-1_2")])), "Ab-1_2");
        for bad in [
            headers(&[]),
            headers(&[("x-request-id", "")]),
            headers(&[("x-request-id", "a b")]),
            headers(&[("x-request-id", "a"), ("x-request-id", "b")]),
            headers(&[(
                "x-request-id",
                "0123456789012345678901234567890123456789012345678901234567890123456",
            )]),
        ] {
            let id = request_id(&bad);
            assert!(is_request_id(id.as_bytes()) && id.len() == 32, "{id:?}");
        }
    }

    #[test]
    fn a_response_loses_its_hop_by_hop_lines() {
        let mut response = headers(&[
            ("x-request-id", "theirs"),
            ("connection", "x-a"),
            ("x-a", "1"),
            ("content-length", "3"),
        ]);
        to_client(&mut response);
        assert_eq!(response, headers(&[("x-request-id", "theirs"), ("content-length", "3")]));
        let mut chunked = headers(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        to_client(&mut chunked);
        assert_eq!(chunked, headers(&[]));
    }
}
