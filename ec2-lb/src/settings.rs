//! The environment variables of the load balancer.
//!
//! Timeouts and bounds are not settings: they belong together (`limits.rs`), and the tests are what
//! changes them.

use std::net::SocketAddr;

use fleet::StackName;
use fleet::settings::{Reader, SettingsError, Vars};

use crate::balance::Policy;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `VIGIA_STACK`
    pub stack: StackName,
    /// `VIGIA_CONTROL_BUCKET`: where the registry is.
    pub control_bucket: String,
    /// `VIGIA_LISTEN`; this machine's private IPv4 address and the public port when not set.
    pub listen: Option<SocketAddr>,
    /// `VIGIA_ADMIN_LISTEN`; the address of `listen` and the admin port when not set.
    pub admin_listen: Option<SocketAddr>,
    /// `VIGIA_POLICY`: `p2c` or `random`.
    pub policy: Policy,
    /// `VIGIA_LOG`: a filter in the syntax of `RUST_LOG`.
    pub log: Option<String>,
}

impl Settings {
    pub fn read(vars: &impl Vars) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(vars);
        let stack = reader.required("VIGIA_STACK", "vigia");
        let control_bucket =
            reader.required("VIGIA_CONTROL_BUCKET", "vigia-vigia-control-123456789012-us-east-1");
        let listen = reader.optional("VIGIA_LISTEN", "10.0.0.10:5000");
        let admin_listen = reader.optional("VIGIA_ADMIN_LISTEN", "10.0.0.10:9000");
        let policy = reader.or("VIGIA_POLICY", Policy::P2c, "p2c");
        let log = reader.optional("VIGIA_LOG", "info");
        reader.finish(|| {
            Some(Self {
                stack: stack?,
                control_bucket: control_bucket?,
                listen,
                admin_listen,
                policy: policy?,
                log,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn two_settings_are_enough() {
        let settings = Settings::read(&vars(&[("VIGIA_STACK", "vigia"), ("VIGIA_CONTROL_BUCKET", "b")]))
            .expect("the rest has defaults");
        assert_eq!(settings.policy, Policy::P2c);
        assert_eq!((settings.listen, settings.admin_listen, settings.log), (None, None, None));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let error = Settings::read(&vars(&[
            ("VIGIA_LISTEN", "here"),
            ("VIGIA_POLICY", "best"),
            ("VIGIA_STACK", "A"),
        ]))
        .expect_err("four settings are wrong");
        assert_eq!(error.0.len(), 4, "{error}");
    }
}
