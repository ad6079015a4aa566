//! The names under which the service answers.
//!
//! A browser may be led here under a name that somebody else owns: its requests then carry that name as
//! host and as origin, and look like those of our own pages. With `VIGIA_HOSTS` they are refused.

use std::str::FromStr;

use axum::http::HeaderMap;
use axum::http::header::HOST;

/// Names or addresses, without a port. Empty: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedHosts(Vec<String>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a host name; write names or addresses without ports, with commas in between")]
pub struct AcceptedHostsError(String);

impl FromStr for AcceptedHosts {
    type Err = AcceptedHostsError;

    fn from_str(text: &str) -> Result<Self, AcceptedHostsError> {
        let name = |part: &str| {
            let name = part.trim().to_ascii_lowercase();
            let is_name = !name.is_empty()
                && without_port(&name) == name
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
            if is_name { Ok(name) } else { Err(AcceptedHostsError(part.chars().take(40).collect())) }
        };
        text.split(',').map(name).collect::<Result<_, _>>().map(Self)
    }
}

impl AcceptedHosts {
    /// Whether a request is for one of them.
    pub fn accepts(&self, headers: &HeaderMap) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let mut named = headers.get_all(HOST).into_iter();
        let (Some(host), None) = (named.next(), named.next()) else { return false };
        let Ok(host) = host.to_str() else { return false };
        let host = without_port(host);
        self.0.iter().any(|accepted| accepted.eq_ignore_ascii_case(host))
    }
}

/// Of `[::1]:5000` what is in brackets, with them.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') && (!name.contains(':') || name.ends_with(']')) => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn accepts(hosts: &str, named: &[&'static str]) -> bool {
        let hosts: AcceptedHosts = hosts.parse().expect("names");
        let mut all = HeaderMap::new();
        for host in named {
            all.append(HOST, HeaderValue::from_static(host));
        }
        hosts.accepts(&all)
    }

    #[test]
    fn only_the_named_hosts_are_accepted() {
        const HOSTS: &str = "login.example.org, 192.0.2.7,[2001:db8::1]";
        for good in [
            "login.example.org",
            "LOGIN.example.org:5000",
            "192.0.2.7:5000",
            "[2001:db8::1]:5000",
            "[2001:db8::1]",
        ] {
            assert!(accepts(HOSTS, &[good]), "{good}");
        }
        for bad in ["evil.example", "login.example.org.evil.example", "", "192.0.2.70", "[2001:db8::2]"] {
            assert!(!accepts(HOSTS, &[bad]), "{bad}");
        }
        assert!(!accepts(HOSTS, &[]), "none is named");
        assert!(!accepts(HOSTS, &["login.example.org", "evil.example"]));
        assert!(AcceptedHosts::default().accepts(&HeaderMap::new()), "any, if none is set");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for bad in ["", "a.example,", "a.example:5000", "http://a.example", "a b"] {
            assert!(bad.parse::<AcceptedHosts>().is_err(), "{bad}");
        }
    }
}
