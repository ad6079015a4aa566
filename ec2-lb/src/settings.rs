//! The environment variables of the load balancer.
//!
//! Timeouts and bounds are not settings: they belong together (`limits.rs`), and the tests are what
//! changes them.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use fleet::StackName;
use process::settings::{Reader, SettingsError, Vars};

use crate::balance::Policy;
use crate::retry::NonIdempotent;

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
    /// `VIGIA_THREADS`; as many as this process may use cores when not set.
    pub threads: Option<NonZeroUsize>,
    /// `VIGIA_TLS_CERT` and `VIGIA_TLS_KEY`, files in PEM; or `VIGIA_TLS`: `1` for the certificate in
    /// the control bucket.
    pub tls: Option<TlsFrom>,
    /// `VIGIA_TLS_LISTEN`; the address of `listen` and the TLS port when not set.
    pub tls_listen: Option<SocketAddr>,
    /// `VIGIA_RETRY_NON_IDEMPOTENT`: `1` to repeat a POST that may have arrived at a worker that died.
    pub non_idempotent: NonIdempotent,
    /// `VIGIA_ACCESS_LOG`: `1` for a line per request, with its route and never its path.
    pub logs_access: bool,
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
        let threads = reader.optional("VIGIA_THREADS", "2");
        let certificate: Option<PathBuf> = reader.optional("VIGIA_TLS_CERT", "/etc/vigia/cert.pem");
        let key: Option<PathBuf> = reader.optional("VIGIA_TLS_KEY", "/etc/vigia/key.pem");
        if certificate.is_some() != key.is_some() {
            reader.problem("VIGIA_TLS_CERT and VIGIA_TLS_KEY belong together; set both or none");
        }
        let from_bucket = reader.or("VIGIA_TLS", Switch(false), "1");
        let tls_listen = reader.optional("VIGIA_TLS_LISTEN", "10.0.0.10:5443");
        let repeats = reader.or("VIGIA_RETRY_NON_IDEMPOTENT", Switch(false), "1");
        let logs_access = reader.or("VIGIA_ACCESS_LOG", Switch(false), "1");
        let log = reader.optional("VIGIA_LOG", "info");
        reader.finish(|| {
            Some(Self {
                stack: stack?,
                control_bucket: control_bucket?,
                listen,
                admin_listen,
                policy: policy?,
                threads,
                tls: match (certificate.zip(key), from_bucket?) {
                    (Some((certificate, key)), _) => Some(TlsFrom::Files { certificate, key }),
                    (None, Switch(true)) => Some(TlsFrom::Bucket),
                    (None, Switch(false)) => None,
                },
                tls_listen,
                non_idempotent: if repeats?.0 { NonIdempotent::Repeat } else { NonIdempotent::Never },
                logs_access: logs_access?.0,
                log,
            })
        })
    }
}

/// Where the certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFrom {
    Files { certificate: PathBuf, key: PathBuf },
    Bucket,
}

/// `1` or `0`.
#[derive(Clone, Copy, Debug)]
struct Switch(bool);

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a valid value; use 1 or 0")]
struct SwitchError(String);

impl FromStr for Switch {
    type Err = SwitchError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1" => Ok(Self(true)),
            "0" => Ok(Self(false)),
            other => Err(SwitchError(other.chars().take(40).collect())),
        }
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
            ("VIGIA_TLS_CERT", "/cert.pem"),
            ("VIGIA_ACCESS_LOG", "yes"),
            ("VIGIA_THREADS", "0"),
        ]))
        .expect_err("seven settings are wrong");
        assert_eq!(error.0.len(), 7, "{error}");
    }
}
