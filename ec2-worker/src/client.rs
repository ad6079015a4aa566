//! The client of a request: its address and its transport, as far as they can be known.
//!
//! | the connection comes from | `VIGIA_TRUSTED_PROXIES` | client |
//! |---|---|---|
//! | anywhere | not set | the connection's peer; headers are ignored |
//! | a trusted proxy | set | the *last* entry of `X-Forwarded-For`, and `X-Forwarded-Proto` |
//! | anywhere else | set | refused, except `/healthcheck`, which the reconciler asks |
//!
//! The load balancer replaces both headers. Only the last entry of a list is certain to be the load
//! balancer's; a client can invent all earlier entries.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue};
use ipnet::IpNet;

/// The other end of the connection; put into each request by `serve`.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Transport {
    #[default]
    Plain,
    Tls,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// None in tests without a socket.
    pub address: Option<IpAddr>,
    pub transport: Transport,
    /// The `X-Request-Id` of the answer.
    pub request: Option<HeaderValue>,
}

/// Networks of the load balancers. Empty: there is none in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a network; write networks with commas in between, such as 10.77.0.0/24,10.77.1.0/24")]
pub struct TrustedProxiesError(String);

impl FromStr for TrustedProxies {
    type Err = TrustedProxiesError;

    fn from_str(text: &str) -> Result<Self, TrustedProxiesError> {
        let network = |part: &str| {
            part.trim().parse().map_err(|_| TrustedProxiesError(part.chars().take(40).collect()))
        };
        text.split(',').map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl TrustedProxies {
    /// The client of a request; `None` if it does not come through a load balancer.
    pub fn client(&self, peer: Option<Peer>, headers: &HeaderMap) -> Option<Client> {
        let address = peer.map(|Peer(addr)| addr.ip().to_canonical());
        if self.0.is_empty() {
            return Some(Client { address, ..Client::default() });
        }
        let is_trusted = |address: &IpAddr| self.0.iter().any(|network| network.contains(address));
        address.filter(is_trusted)?;
        let last = headers.get_all("x-forwarded-for").into_iter().next_back()?.to_str().ok()?;
        let address = last.rsplit(',').next()?.trim().parse::<IpAddr>().ok()?.to_canonical();
        let is_tls = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let transport = if is_tls { Transport::Tls } else { Transport::Plain };
        Some(Client { address: Some(address), transport, request: None })
    }
}

impl Client {
    /// Returns the block that counts as one client: an IPv4 address, or the /64 that one IPv6 subscriber has
    /// at least.
    pub fn block(&self) -> Option<IpAddr> {
        self.address.map(|address| match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        })
    }

    /// [`Client::block`] of a client that has limits.
    pub fn limited(&self) -> Option<IpAddr> {
        self.address.filter(|address| !address.is_loopback())?;
        self.block()
    }

    pub fn request(&self) -> &str {
        self.request.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default()
    }

    /// As `guard` has found it.
    pub fn from_extensions(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_extensions(&parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn peer(text: &str) -> Option<Peer> {
        Some(Peer(SocketAddr::new(text.parse().expect("an address"), 1)))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn client(proxies: &str, from: &str, pairs: &[(&'static str, &str)]) -> Option<(String, Transport)> {
        let proxies: TrustedProxies = proxies.parse().expect("networks");
        let client = proxies.client(peer(from), &headers(pairs))?;
        Some((client.address.expect("an address").to_string(), client.transport))
    }

    #[test]
    fn the_client_behind_a_load_balancer_is_the_last_address() {
        const LB: &str = "10.77.0.0/24,10.77.1.0/24";
        let found = |address: &str, transport| Some((address.to_owned(), transport));
        let xff = "x-forwarded-for";
        assert_eq!(client(LB, "10.77.1.9", &[(xff, "192.0.2.7")]), found("192.0.2.7", Transport::Plain));
        assert_eq!(
            client(LB, "10.77.0.9", &[(xff, "6.6.6.6, 192.0.2.7"), ("x-forwarded-proto", "https")]),
            found("192.0.2.7", Transport::Tls)
        );
        assert_eq!(
            client(LB, "10.77.0.9", &[(xff, "6.6.6.6"), (xff, "2001:db8::1")]),
            found("2001:db8::1", Transport::Plain)
        );
        assert_eq!(
            client(LB, "::ffff:10.77.0.9", &[(xff, "::ffff:1.2.3.4")]),
            found("1.2.3.4", Transport::Plain)
        );
        for (from, pairs) in [
            ("10.77.2.9", &[(xff, "192.0.2.7")] as &[_]),
            ("127.0.0.1", &[(xff, "192.0.2.7")]),
            ("10.77.0.9", &[]),
            ("10.77.0.9", &[(xff, "unknown")]),
        ] {
            assert_eq!(client(LB, from, pairs), None, "{from} {pairs:?}");
        }
    }

    #[test]
    fn headers_are_ignored_without_a_load_balancer() {
        let proxies = TrustedProxies::default();
        let headers = headers(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https")]);
        let client = proxies.client(peer("127.0.0.1"), &headers).expect("every client is accepted");
        assert_eq!(client.address, Some("127.0.0.1".parse().expect("an address")));
        assert_eq!(client.transport, Transport::Plain);
    }

    #[test]
    fn a_subscriber_is_one_client() {
        let block = |text: &str| {
            let client = Client { address: text.parse().ok(), ..Client::default() };
            client.block().map(|block| block.to_string())
        };
        assert_eq!(block("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(block("2001:db8:1:2:3:4:5:6"), block("2001:db8:1:2::1"));
        assert_ne!(block("2001:db8:1:2::1"), block("2001:db8:1:3::1"));
    }

    #[test]
    fn a_malformed_network_is_refused() {
        for bad in ["", "10.77.0.0/24,", "10.77.0.9", "loadbalancer"] {
            assert!(bad.parse::<TrustedProxies>().is_err(), "{bad}");
        }
    }
}
