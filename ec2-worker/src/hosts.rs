//! Whether a request is for a name under which the service answers.
//!
//! An attacker can point a name of its own at this service. A browser's requests then carry that name as host
//! and as origin, and look like those of the service's own pages. With `VIGIA_HOSTS` they are refused.

use axum::http::HeaderMap;
use axum::http::header::HOST;
use fleet::hosts::HostNames;

pub fn accepts(names: &HostNames, headers: &HeaderMap) -> bool {
    if names.is_any() {
        return true;
    }
    let mut named = headers.get_all(HOST).into_iter();
    let (Some(host), None) = (named.next(), named.next()) else { return false };
    host.to_str().is_ok_and(|host| names.accept(host))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn accepts(hosts: &str, named: &[&'static str]) -> bool {
        let mut all = HeaderMap::new();
        for host in named {
            all.append(HOST, HeaderValue::from_static(host));
        }
        super::accepts(&hosts.parse().expect("names"), &all)
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
        assert!(super::accepts(&HostNames::default(), &HeaderMap::new()), "any, if none is set");
    }
}
