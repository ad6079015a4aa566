//! The system on this machine: the local cloud, and the deployer against it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::build;
use super::flags::{boundary, cargo_lambda, deploy_flags};
use crate::failure::{become_program, checked, output_of, run};
use crate::settings::Settings;
use crate::setup;
use crate::workspace::{built, target};

pub(super) fn endpoint(settings: &Settings) -> String {
    format!("http://{}", settings.get_or("LOCAL_LISTEN", "127.0.0.1:4566"))
}

fn dir(settings: &Settings) -> PathBuf {
    settings.get_or("LOCAL_DIR", ".local").into()
}

pub(super) fn token_file(settings: &Settings) -> PathBuf {
    dir(settings).join(format!("{}.token", settings.stack()))
}

/// Removes what the environment says about an AWS account, except keys.
pub(super) fn without_aws(command: &mut Command) {
    for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"] {
        command.env_remove(name);
    }
}

/// Returns a call of the deployer on the local cloud, as the root of its account: placeholder credentials.
fn as_root(settings: &Settings) -> Result<Command> {
    let mut command = Command::new(built("bootstrap"));
    without_aws(&mut command);
    let region =
        if settings.is_given("ENDPOINT") { settings.get_or("REGION", "us-east-1") } else { "us-east-1" };
    command
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("VIGIA_CARGO_LAMBDA", cargo_lambda(settings)?)
        .args([
            "--stack",
            settings.stack(),
            "--endpoint-url",
            &endpoint(settings),
            "--region",
            region,
            "--token-file",
        ])
        .arg(token_file(settings));
    Ok(command)
}

/// Returns the keys of the local cloud's user who deploys, with exactly the policy that `iam-policy` prints.
///
/// They go to the deployer through the environment: arguments are visible in the list of processes.
pub(super) fn deployer_keys(settings: &Settings) -> Result<Vec<(String, String)>> {
    let policy = output_of(
        as_root(settings)?
            .args(["--quiet", "iam-policy", "--account", "000000000000"])
            .args(boundary(settings)),
    )?;
    let mut user = Command::new(built("local-cloud"));
    user.args(["user", &format!("deployer-{}", settings.stack()), "--endpoint", &endpoint(settings)]);
    let mut child =
        user.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run local-cloud")?;
    if let Some(mut input) = child.stdin.take() {
        // It may refuse without reading, and says so itself.
        let _ = input.write_all(policy.as_bytes());
    }
    let output = child.wait_with_output().context("cannot wait for local-cloud")?;
    checked(output.status)?;
    let keys = String::from_utf8(output.stdout).context("local-cloud has printed no text")?;
    Ok(keys
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, key)| (name.to_owned(), key.to_owned()))
        .collect())
}

/// `make local`.
pub(super) fn start(settings: &Settings) -> Result<()> {
    setup::install(settings, setup::LOCAL)?;
    build()?;
    let mut flags = deploy_flags(settings);
    // Only this machine reaches a local stack, and classic wants to be told so.
    if settings.get("PROFILE") == Some("classic") && !settings.is_given("ALLOW_CIDR") {
        flags.push("--allow-cidr=127.0.0.0/8".to_owned());
    }
    run(as_root(settings)?.arg("deploy").args(&flags).arg("--check"))?;
    let listen = settings.get_or("LOCAL_LISTEN", "127.0.0.1:4566");
    let mut up = Command::new(built("local-cloud"));
    up.args(["up", "--listen", listen, "--dir"])
        .arg(dir(settings).join("cloud"))
        .arg("--venv")
        .arg(settings.venv());
    run(up.args(["--reserve", &reserved(settings)]))?;
    let mut deploy = as_root(settings)?;
    deploy.envs(deployer_keys(settings)?).arg("deploy").args(&flags);
    become_program(deploy.args(["--until", "healthy", "--artifacts"]).arg(target().join("debug")))
}

/// Returns the addresses that must be free before anything is started.
fn reserved(settings: &Settings) -> String {
    let plain = settings.get_or("PUBLIC", "127.0.0.1:5000");
    let has_tls = settings.is_given("TLS_CERT") || settings.get("TLS").is_some_and(|tls| tls != "off");
    if has_tls {
        format!("{plain},{}", settings.get_or("PUBLIC_TLS", "127.0.0.1:5443"))
    } else {
        plain.to_owned()
    }
}

/// Runs a command of the deployer on the local stack.
pub(super) fn bootstrap(settings: &Settings, command: &str) -> Result<()> {
    build()?;
    become_program(as_root(settings)?.arg(command))
}

/// Returns what such a command prints.
pub(super) fn printed(settings: &Settings, command: &str) -> Result<String> {
    Ok(output_of(as_root(settings)?.arg(command))?.trim_end().to_owned())
}

/// `make local-kill`.
pub(super) fn kill(settings: &Settings) -> Result<()> {
    build()?;
    let stack = format!("vigia:stack={}", settings.stack());
    let mut command = Command::new(built("local-cloud"));
    command.args([
        "fault",
        "kill-host",
        "--endpoint",
        &endpoint(settings),
        "--tag",
        "vigia:role=worker",
        "--tag",
        &stack,
    ]);
    become_program(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_tls_is_reserved_with_tls_only() {
        for (words, expected) in [
            (&["TLS=off"][..], "127.0.0.1:5000"),
            (&["TLS=self-signed"], "127.0.0.1:5000,127.0.0.1:5443"),
            (&["TLS_CERT=x", "PUBLIC=[::1]:1", "PUBLIC_TLS=[::1]:2"], "[::1]:1,[::1]:2"),
        ] {
            let settings = Settings::read(words.iter().map(|word| (*word).to_owned())).expect("variables");
            assert_eq!(reserved(&settings), expected);
        }
    }
}
