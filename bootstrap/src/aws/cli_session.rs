//! Sessions that only the AWS CLI can read, such as those of `aws login`: this module asks the CLI for
//! credentials.
//!
//! It asks only if the SDK finds none. The SDK could read such sessions with its feature `credentials-login`,
//! but `cargo lambda`, which gets the same credentials, could not.

use std::sync::OnceLock;

use aws_config::credential_process::CredentialProcessProvider;
use aws_config::{ConfigLoader, SdkConfig};
use aws_sdk_s3::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};

/// The CLI renews its session itself and prints credentials that are valid now.
const COMMAND: &str = "aws configure export-credentials --format process";

/// Set once a process has found its credentials here.
static IN_USE: OnceLock<SharedCredentialsProvider> = OnceLock::new();

/// Returns the configuration, with the CLI's credentials if the SDK has none and the CLI has some.
pub(super) async fn or_of_cli(config: SdkConfig, load: impl Fn() -> ConfigLoader) -> SdkConfig {
    or_of_command(COMMAND, config, load).await
}

async fn or_of_command(command: &str, config: SdkConfig, load: impl Fn() -> ConfigLoader) -> SdkConfig {
    if provides(config.credentials_provider()).await {
        return config;
    }
    match of_command(command).await {
        Some(cli) => load().credentials_provider(IN_USE.get_or_init(|| cli).clone()).load().await,
        None => config,
    }
}

async fn of_command(command: &str) -> Option<SharedCredentialsProvider> {
    let cli = SharedCredentialsProvider::new(CredentialProcessProvider::new(command.to_owned()));
    provides(Some(cli.clone())).await.then_some(cli)
}

async fn provides(provider: Option<SharedCredentialsProvider>) -> bool {
    match provider {
        Some(provider) => provider.provide_credentials().await.is_ok(),
        None => false,
    }
}

/// Returns the environment for a program that cannot read the session itself; empty for all others.
pub async fn environment() -> Vec<(&'static str, String)> {
    let Some(provider) = IN_USE.get() else { return Vec::new() };
    provider.provide_credentials().await.map(|session| variables(&session)).unwrap_or_default()
}

fn variables(session: &Credentials) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("AWS_ACCESS_KEY_ID", session.access_key_id().to_owned()),
        ("AWS_SECRET_ACCESS_KEY", session.secret_access_key().to_owned()),
    ];
    all.extend(session.session_token().map(|token| ("AWS_SESSION_TOKEN", token.to_owned())));
    all
}

#[cfg(test)]
const CLI: &str = r#"printf '%s' '{"Version":1,"AccessKeyId":"OFCLI","SecretAccessKey":"secret"}'"#;

/// Uses a session that only the CLI can read, until the process ends.
#[cfg(test)]
pub(crate) async fn log_in() -> SdkConfig {
    let load = || aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12()).region("eu-west-1");
    or_of_command(CLI, SdkConfig::builder().build(), load).await
}

#[cfg(test)]
mod tests {
    use aws_config::BehaviorVersion;

    use super::*;

    #[tokio::test]
    async fn a_session_of_the_cli_is_handed_on() {
        let says =
            r#"{"Version":1,"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"secret","SessionToken":"token"}"#;
        let cli = of_command(&format!("printf '%s' '{says}'")).await.expect("the CLI has a session");
        let session = cli.provide_credentials().await.expect("the same again");
        let names: Vec<&str> = variables(&session).iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]);
        assert_eq!(variables(&session)[2].1, "token");
    }

    #[tokio::test]
    async fn a_session_of_the_cli_replaces_missing_credentials() {
        let load = || aws_config::defaults(BehaviorVersion::v2026_01_12()).region("eu-west-1");
        let key = async |config: SdkConfig| {
            let provider = config.credentials_provider().expect("credentials");
            provider.provide_credentials().await.expect("a session").access_key_id().to_owned()
        };
        assert_eq!(key(log_in().await).await, "OFCLI");
        let own = Credentials::new("OWN", "secret", None, None, "a test");
        let own = SharedCredentialsProvider::new(own);
        let with_own = SdkConfig::builder().credentials_provider(own).build();
        assert_eq!(key(or_of_command(CLI, with_own, load).await).await, "OWN");
        assert_eq!(environment().await.len(), 2, "cargo lambda gets it too");
    }

    #[tokio::test]
    async fn a_cli_without_a_session_changes_nothing() {
        assert!(of_command("exit 255").await.is_none());
    }
}
