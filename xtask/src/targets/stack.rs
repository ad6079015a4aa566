//! Calls of the deployer, `bootstrap`, for a stack on AWS or on `ENDPOINT`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::flags::{boundary, cargo_lambda, deploy_flags};
use super::{artifacts, build, local};
use crate::cargo::compile;
use crate::failure::{become_program, run};
use crate::settings::Settings;
use crate::setup;
use crate::workspace::{built, target};

/// Returns a call of the deployer. Against `ENDPOINT` the environment's credentials are used if there are any; else, on
/// the local cloud, those of its user who deploys.
pub(super) fn bootstrap(settings: &Settings) -> Result<Command> {
    let mut command = Command::new(built("bootstrap"));
    command.args(["--stack", settings.stack()]).env("VIGIA_CARGO_LAMBDA", cargo_lambda(settings)?);
    let Some(endpoint) = settings.get("ENDPOINT") else {
        if let Some(region) = settings.get("REGION") {
            command.args(["--region", region]);
        }
        return Ok(command);
    };
    local::without_aws(&mut command);
    let has_key = std::env::var_os("AWS_ACCESS_KEY_ID").is_some_and(|key| !key.is_empty());
    if !has_key {
        command.env("AWS_ACCESS_KEY_ID", "test");
    }
    if std::env::var_os("AWS_SECRET_ACCESS_KEY").is_none_or(|key| key.is_empty()) {
        command.env("AWS_SECRET_ACCESS_KEY", "test");
    }
    if endpoint.strip_suffix('/').unwrap_or(endpoint) == local::endpoint(settings) && !has_key {
        command.envs(local::deployer_keys(settings)?);
    }
    let region = settings.get_or("REGION", "us-east-1");
    command
        .args(["--endpoint-url", endpoint, "--region", region, "--token-file"])
        .arg(local::token_file(settings));
    Ok(command)
}

/// Where the programs are that are deployed.
fn programs(settings: &Settings) -> PathBuf {
    if settings.is_given("ENDPOINT") { target().join("debug") } else { artifacts::dir() }
}

/// Builds, and calls the deployer with these arguments, and those of the variables that are given.
pub(super) fn call(settings: &Settings, arguments: &[&str], optional: &[(&str, &str)]) -> Result<()> {
    build()?;
    let given = optional.iter().filter(|(name, _)| settings.is_given(name)).map(|(_, argument)| *argument);
    become_program(bootstrap(settings)?.args(arguments).args(given))
}

/// Builds everything that `deploy` and `plan` need, cheap checks first: the deployer asks the account for quotas and
/// permissions before the release builds start, because those take half an hour the first time. The Makefile has looked
/// for credentials before xtask was built.
fn prepare(settings: &Settings) -> Result<()> {
    if settings.is_given("ENDPOINT") {
        setup::install(settings, setup::LOCAL)?;
        build()?;
    } else {
        build_deployer()?;
    }
    run(bootstrap(settings)?.arg("preflight").args(deploy_flags(settings)))?;
    if settings.is_given("ENDPOINT") { Ok(()) } else { artifacts::build(settings) }
}

/// All packages are named, so that features are those of `make build`: nothing is compiled twice.
fn build_deployer() -> Result<()> {
    compile("build", &["--workspace", "--bin", "bootstrap"])
}

pub(super) fn deploy(settings: &Settings) -> Result<()> {
    prepare(settings)?;
    let mut command = bootstrap(settings)?;
    command.arg("deploy").args(deploy_flags(settings));
    if let Some(until) = settings.get("UNTIL") {
        command.args(["--until", until]);
    }
    become_program(command.arg("--artifacts").arg(programs(settings)))
}

pub(super) fn plan(settings: &Settings) -> Result<()> {
    prepare(settings)?;
    let mut command = bootstrap(settings)?;
    command.arg("plan").args(deploy_flags(settings)).arg("--artifacts").arg(programs(settings));
    if settings.is_given("JSON") {
        command.arg("--json");
    }
    become_program(&mut command)
}

pub(super) fn logs(settings: &Settings) -> Result<()> {
    let since = settings.get("SINCE").map(|since| format!("--since={since}"));
    let arguments: Vec<&str> =
        ["logs"].into_iter().chain(settings.get("OF")).chain(since.as_deref()).collect();
    call(settings, &arguments, &[("FOLLOW", "--follow"), ("JSON", "--json")])
}

pub(super) fn doctor(settings: &Settings) -> Result<()> {
    setup::install(settings, setup::LOCAL)?;
    let [workers, arch] = [("N", "--workers"), ("ARCH", "--arch")]
        .map(|(name, flag)| settings.get(name).map(|value| format!("{flag}={value}")));
    let arguments: Vec<&str> =
        ["doctor"].into_iter().chain(workers.as_deref()).chain(arch.as_deref()).collect();
    call(settings, &arguments, &[])
}

pub(super) fn iam_policy(settings: &Settings) -> Result<()> {
    let account = settings.get("ACCOUNT").map(|account| format!("--account={account}"));
    let boundary = boundary(settings);
    let arguments: Vec<&str> =
        ["iam-policy"].into_iter().chain(account.as_deref()).chain(boundary.as_deref()).collect();
    call(settings, &arguments, &[])
}

pub(super) fn completions(settings: &Settings) -> Result<()> {
    build()?;
    become_program(
        Command::new(built("bootstrap")).args(["completions", settings.get_or("SHELL_NAME", "bash")]),
    )
}

pub(super) fn man(_: &Settings) -> Result<()> {
    build()?;
    become_program(Command::new(built("bootstrap")).arg("man"))
}

/// The proof on an AWS account. Its stack has a name of its own, unless `STACK` is given.
pub(super) fn acceptance(settings: &Settings) -> Result<()> {
    setup::install(settings, setup::LOCAL)?;
    let script = |word: Option<&str>| -> Result<Command> {
        let mut command = Command::new("bootstrap/acceptance/run.sh");
        command
            .args(word)
            .env("AWS", settings.venv().join("bin/aws"))
            .env("BOOTSTRAP", built("bootstrap"))
            .env("ARTIFACTS", programs(settings))
            .env("STACK", settings.get_or("STACK", "vigia-acceptance"))
            .env("VIGIA_CARGO_LAMBDA", cargo_lambda(settings)?);
        for name in ["N", "ARCH", "REGION", "ENDPOINT", "YES", "KEEP", "ONLY"] {
            command.env(name, settings.get_or(name, ""));
        }
        Ok(command)
    };
    run(&mut script(Some("ask"))?)?;
    if settings.is_given("ENDPOINT") {
        build()?;
    } else {
        build_deployer()?;
        artifacts::build(settings)?;
    }
    become_program(script(None)?.env("ASKED", "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_its_own_region_and_token() {
        let settings =
            Settings::read(["ENDPOINT=http://127.0.0.1:9", "STACK=x"].map(str::to_owned)).expect("variables");
        let command = bootstrap(&settings).expect("a call");
        let arguments: Vec<_> =
            command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let expected =
            "--stack x --endpoint-url http://127.0.0.1:9 --region us-east-1 --token-file .local/x.token";
        assert_eq!(arguments.join(" "), expected);
        let is_removed =
            |name: &str| command.get_envs().any(|(known, value)| known == name && value.is_none());
        assert!(is_removed("AWS_PROFILE") && is_removed("AWS_REGION"));
    }
}
