//! The host names that the service answers to.

use std::fmt;
use std::str::FromStr;

/// Names or addresses, in lower case, without ports. Empty: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(Vec<String>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a host name; write names or addresses without ports, with commas in between")]
pub struct HostNamesError(String);

impl FromStr for HostNames {
    type Err = HostNamesError;

    fn from_str(text: &str) -> Result<Self, HostNamesError> {
        let name = |part: &str| {
            let name = part.trim().to_ascii_lowercase();
            let is_name = !name.is_empty()
                && without_port(&name) == name
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
            if is_name { Ok(name) } else { Err(HostNamesError(part.chars().take(40).collect())) }
        };
        text.split(',').map(name).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl HostNames {
    pub const fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a `Host` header names one of them, with any port.
    pub fn accept(&self, host: &str) -> bool {
        self.is_any() || self.0.iter().any(|name| name.eq_ignore_ascii_case(without_port(host)))
    }
}

/// Returns the host of `host:port`; of `[::1]:5000` the part in brackets, with them.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') && (!name.contains(':') || name.ends_with(']')) => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_host_name_is_refused() {
        for bad in ["", "a.example,", "a.example:5000", "http://a.example", "a b", "a\nb"] {
            assert!(bad.parse::<HostNames>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_written_as_they_are_read() {
        let names: HostNames = "Login.example.org, [2001:db8::1]".parse().expect("names");
        assert_eq!(names.to_string(), "login.example.org,[2001:db8::1]");
        assert_eq!(names.to_string().parse(), Ok(names));
    }
}
