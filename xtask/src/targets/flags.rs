//! Turns variables into options of the deployer. This table is the only place that names both.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::settings::Settings;

/// Options of `deploy`, `plan` and `preflight`, by variable.
const DEPLOY: [(&str, &str); 16] = [
    ("PROFILE", "--profile"),
    ("ARCH", "--arch"),
    ("MIN_PASSWORD", "--min-password"),
    ("HOSTS", "--hosts"),
    ("CLASSIC_ACCEPT_RISK", CLASSIC_ACCEPT_RISK),
    ("INSTANCE_TYPE", "--instance-type"),
    ("ALLOW_CIDR", "--allow-cidr"),
    ("SPOT", "--spot"),
    ("CREDITS", "--credits"),
    ("POLICY", "--policy"),
    ("LBS", "--lbs"),
    ("BOUNDARY", "--permissions-boundary"),
    ("TLS", "--tls"),
    ("TLS_CERT", "--tls-cert"),
    ("TLS_KEY", "--tls-key"),
    ("N", "--workers"),
];
/// The only option of these without a value.
const CLASSIC_ACCEPT_RISK: &str = "--classic-accept-risk";

/// Returns the options for the variables that are given.
pub(super) fn deploy_flags(settings: &Settings) -> Vec<String> {
    let given = DEPLOY.iter().filter_map(|(name, flag)| Some((*flag, settings.get(name)?)));
    // With `=`: a number may be negative, and is refused for that.
    given
        .map(
            |(flag, value)| {
                if flag == CLASSIC_ACCEPT_RISK { flag.to_owned() } else { format!("{flag}={value}") }
            },
        )
        .collect()
}

/// Returns the absolute path of cargo-lambda: the deployer may run elsewhere.
pub(super) fn cargo_lambda(settings: &Settings) -> Result<PathBuf> {
    std::path::absolute(settings.venv().join("bin/cargo-lambda")).context("VENV is no path")
}

/// Returns the option for `BOUNDARY`.
pub(super) fn boundary(settings: &Settings) -> Option<String> {
    settings.get("BOUNDARY").map(|arn| format!("--permissions-boundary={arn}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_flags() {
        let words = ["N=-1", "CLASSIC_ACCEPT_RISK=yes", "HOSTS=a.example,b.example", "UNTIL=made", "LBS="]
            .map(str::to_owned);
        let settings = Settings::read(words).expect("variables");
        assert_eq!(
            deploy_flags(&settings),
            ["--hosts=a.example,b.example", "--classic-accept-risk", "--workers=-1"]
        );
    }
}
