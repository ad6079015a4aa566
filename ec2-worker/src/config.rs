//! The worker's settings, read once from the environment.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `VIGIA_STACK` | the stack this worker belongs to | required |
//! | `VIGIA_DATA_BUCKET`, `VIGIA_CONTROL_BUCKET` | its two buckets | required |
//! | `VIGIA_PROFILE` | `secure` or `classic` | `secure` |
//! | `VIGIA_MIN_PASSWORD` | characters that a chosen password must have, 8 to 64 | 8 |
//! | `VIGIA_ARGON2` | cost of new password records, in the form of the default | `m=19456,t=2,p=1` |
//! | `VIGIA_TRUSTED_PROXIES` | networks of the load balancers; others are refused | not set: every client is accepted |
//! | `VIGIA_HOSTS` | names under which the service answers, without ports; a request for another one gets 421 | any |
//! | `VIGIA_LISTEN` | address and port to listen on | own private IPv4, port 8080 |
//! | `VIGIA_INSTANCE_ID` | the worker's own instance id | from the instance metadata |
//! | `VIGIA_LOG` | log filter, `RUST_LOG` syntax | `info` |
//! | `VIGIA_CLASSIC_ACCEPT_RISK` | `yes` lets classic listen anywhere | no |
//!
//! The AWS SDK reads its own variables (region, credentials, `AWS_ENDPOINT_URL`) itself.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use accounts::Cost;
use accounts::password::MinChars;
use fleet::hosts::HostNames;
use fleet::{Profile, StackName, WorkerId};
use process::settings::{Reader, SettingsError, Vars};

use crate::client::TrustedProxies;

/// `VIGIA_LOG` cannot switch on the finer events of the libraries that handle requests. In classic a
/// request to S3 holds a password, and a library may log any part of a request.
const LOG_CEILING: &str = "aws_config=warn,aws_credential_types=warn,aws_runtime=warn,aws_sdk_s3=warn,\
    aws_sigv4=warn,aws_smithy_http_client=warn,aws_smithy_runtime=warn,aws_smithy_runtime_api=warn,\
    axum=warn,hyper=warn,hyper_util=warn";

#[derive(Clone, Debug)]
pub struct Config {
    pub stack: StackName,
    pub data_bucket: String,
    pub control_bucket: String,
    pub profile: Profile,
    pub min_password: MinChars,
    pub cost: Cost,
    pub proxies: TrustedProxies,
    pub hosts: HostNames,
    pub listen: Option<SocketAddr>,
    pub instance_id: Option<WorkerId>,
    pub exposure: Exposure,
    pub log: Option<String>,
    pub addressing: Addressing,
}

/// Where classic, which stores and lists plain passwords, may listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    PrivateOnly,
    RiskAccepted,
}

/// How a bucket is named in a request to S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `bucket.s3.region.amazonaws.com/key`: AWS itself.
    VirtualHosted,
    /// `endpoint/bucket/key`: an endpoint of one's own has no name per bucket.
    Path,
}

impl Config {
    pub fn from_vars(vars: &impl Vars) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(vars);
        let stack = reader.required("VIGIA_STACK", "vigia");
        let data_bucket = reader.required("VIGIA_DATA_BUCKET", "vigia-vigia-data-123456789012-eu-west-1");
        let control_bucket =
            reader.required("VIGIA_CONTROL_BUCKET", "vigia-vigia-control-123456789012-eu-west-1");
        let profile = reader.or("VIGIA_PROFILE", Profile::Secure, "secure");
        let min_password = reader.or("VIGIA_MIN_PASSWORD", MinChars::default(), "15");
        let cost = reader.or("VIGIA_ARGON2", Cost::default(), "m=19456,t=2,p=1");
        let proxies = reader.or("VIGIA_TRUSTED_PROXIES", TrustedProxies::default(), "10.77.0.0/24");
        let hosts = reader.or("VIGIA_HOSTS", HostNames::default(), "login.example.org");
        let listen = reader.optional::<SocketAddr>("VIGIA_LISTEN", "10.77.0.10:8080");
        let instance_id = reader.optional("VIGIA_INSTANCE_ID", "i-0123456789abcdef0");
        let exposure = reader.or("VIGIA_CLASSIC_ACCEPT_RISK", Exposure::PrivateOnly, "yes");
        let log = reader.optional::<Text>("VIGIA_LOG", "info").map(|Text(filter)| filter);
        if let (Some(profile), Some(listen), Some(exposure)) = (profile, listen, exposure)
            && let Err(refusal) = exposure.allows(profile, listen.ip())
        {
            reader.problem(format!("VIGIA_LISTEN: {refusal}"));
        }
        let own_endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
            .into_iter()
            .any(|key| vars.get(key).is_some_and(|url| !url.is_empty()));
        let addressing = if own_endpoint { Addressing::Path } else { Addressing::VirtualHosted };
        reader.finish(|| {
            Some(Self {
                stack: stack?,
                data_bucket: data_bucket?,
                control_bucket: control_bucket?,
                profile: profile?,
                min_password: min_password?,
                cost: cost?,
                proxies: proxies?,
                hosts: hosts?,
                listen,
                instance_id,
                exposure: exposure?,
                log,
                addressing,
            })
        })
    }

    /// Returns the filter for [`process::telemetry::serve`]: the configured one, with libraries always at
    /// `warn`.
    pub fn log_filter(&self) -> String {
        format!("{},{LOG_CEILING}", self.log.as_deref().unwrap_or("info"))
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the classic profile stores plain passwords and lists them to any client, so it does not listen on {0}, \
     which is not a private address; use a private address, or set VIGIA_CLASSIC_ACCEPT_RISK=yes"
)]
pub struct TooExposed(IpAddr);

impl Exposure {
    pub fn allows(self, profile: Profile, ip: IpAddr) -> Result<(), TooExposed> {
        match (profile, self) {
            (Profile::Secure, _) | (Profile::Classic, Self::RiskAccepted) => Ok(()),
            (Profile::Classic, Self::PrivateOnly) if is_private(ip) => Ok(()),
            (Profile::Classic, Self::PrivateOnly) => Err(TooExposed(ip)),
        }
    }
}

/// Loopback, RFC 1918 and IPv6 unique local addresses. The unspecified address is none of them: it
/// means "every address of this machine".
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a valid value; write `yes`, or do not set it")]
pub struct ExposureError(String);

impl FromStr for Exposure {
    type Err = ExposureError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "yes" => Ok(Self::RiskAccepted),
            "no" => Ok(Self::PrivateOnly),
            other => Err(ExposureError(other.chars().take(20).collect())),
        }
    }
}

/// A setting that is any text at all.
struct Text(String);

impl FromStr for Text {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn vars(more: &[(&str, &str)]) -> BTreeMap<String, String> {
        [("VIGIA_STACK", "vigia"), ("VIGIA_DATA_BUCKET", "d"), ("VIGIA_CONTROL_BUCKET", "c")]
            .iter()
            .chain(more)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn three_names_are_enough() {
        let config = Config::from_vars(&vars(&[])).expect("the rest has defaults");
        assert_eq!(config.profile, Profile::Secure);
        assert_eq!((config.listen, config.instance_id.clone()), (None, None));
        assert_eq!(config.addressing, Addressing::VirtualHosted);
        assert!(config.log_filter().starts_with("info,"));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let vars: BTreeMap<String, String> = [
            ("VIGIA_PROFILE", "paranoid"),
            ("VIGIA_LISTEN", "8080"),
            ("VIGIA_INSTANCE_ID", "me"),
            ("VIGIA_CLASSIC_ACCEPT_RISK", "perhaps"),
        ]
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
        let error = Config::from_vars(&vars).expect_err("nothing here is right");
        assert_eq!(error.0.len(), 7, "{error}");
    }

    #[test]
    fn classic_listens_on_private_addresses_only() {
        for private in
            ["127.0.0.1:1", "10.0.0.1:1", "172.16.3.4:1", "192.168.1.1:1", "[::1]:1", "[fd00::1]:1"]
        {
            let vars = vars(&[("VIGIA_PROFILE", "classic"), ("VIGIA_LISTEN", private)]);
            assert!(Config::from_vars(&vars).is_ok(), "{private}");
        }
        for public in
            ["0.0.0.0:1", "[::]:1", "8.8.8.8:1", "172.32.0.1:1", "[2001:db8::1]:1", "[::ffff:8.8.8.8]:1"]
        {
            let settings = [("VIGIA_PROFILE", "classic"), ("VIGIA_LISTEN", public)];
            let error = Config::from_vars(&vars(&settings)).expect_err(public);
            assert!(error.to_string().contains("VIGIA_CLASSIC_ACCEPT_RISK"), "{error}");
            let accepted = [settings[0], settings[1], ("VIGIA_CLASSIC_ACCEPT_RISK", "yes")];
            assert!(Config::from_vars(&vars(&accepted)).is_ok(), "{public}");
            assert!(Config::from_vars(&vars(&settings[1..])).is_ok(), "secure may listen on {public}");
        }
    }

    #[test]
    fn an_endpoint_of_ones_own_is_addressed_by_path() {
        for key in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
            let config = Config::from_vars(&vars(&[(key, "http://127.0.0.1:4566")])).expect("valid");
            assert_eq!(config.addressing, Addressing::Path);
        }
    }
}
