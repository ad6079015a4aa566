//! The reconciler's function, uploaded by `cargo lambda deploy`, and what that leaves undone.
//!
//! `cargo lambda deploy` ignores a changed role on an existing function, never changes the
//! architecture, and gives up at once when a new role is not known everywhere yet. So the call is
//! repeated while the role propagates, and the configuration is read back and corrected.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_lambda::types::{Architecture, FunctionConfiguration, LastUpdateStatus, State};
use fleet::aws_code::AwsErrorKind;
use fleet::stack::TAG_STACK;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::aws::Aws;
use crate::blueprint::Ec2Api;
use crate::cli::{Arch, Deploy};
use crate::error::{DeployError, Exit, Result, Step as _, found, pass_role_denied};
use crate::names::Names;
use crate::part::{Change, Doing, Part};
use crate::patience;
use crate::resources::artifact::Artifact;
use crate::resources::network::Network;
use crate::resources::role::Role;

/// The least that Lambda has, 0.07 of a core: a tick over 100 workers takes it 0.2 s, the first after a
/// cold start 0.6 s and 20 MB (`make bench-reconciler`, decision 5). Twice as much would double the price
/// of a function that sleeps most of its time, for a tenth of a second in 20.
const MEMORY_MB: i32 = 128;
/// Three ticks end by about 42 s; the next invocation comes at 60.
const TIMEOUT_SECONDS: i32 = 55;
const LOG_DAYS: i32 = 14;
/// A new role is usable after 2 to 20 s as a rule.
const ROLE_DEADLINE: Duration = Duration::from_secs(120);
/// A function in a VPC waits for its network interface for up to a minute or two.
const READY_DEADLINE: Duration = Duration::from_secs(300);
/// Says which program the function runs; Lambda's own hash is of the zip file.
const PROGRAM: &str = "VIGIA_SHA256";

const EMPTY_PACKAGE: &str = "[package]\nname = \"upload\"\nversion = \"0.0.0\"\n[lib]\npath = \"lib.rs\"\n";

pub async fn ensure_log_group(aws: &Aws, doing: Doing) -> Result<Part> {
    let group = aws.names.stack.log_group();
    let described = aws.logs.describe_log_groups().log_group_name_prefix(&group).send().await;
    let described = described.step(|| format!("look for the log group {group}"))?;
    let existing = described.log_groups().iter().find(|found| found.log_group_name() == Some(&group));
    let what = format!("log group {group}");
    let part = match existing.map(|existing| existing.retention_in_days()) {
        None => Part::created(what),
        Some(Some(LOG_DAYS)) => Part::unchanged(what),
        Some(_) => Part::compared(what, vec!["how long it is kept".to_owned()]),
    };
    if !doing.applies(&part) {
        return Ok(part);
    }
    if part.change == Change::Created {
        let tags = HashMap::from(aws.names.tags("reconciler-log"));
        let created = aws.logs.create_log_group().log_group_name(&group).set_tags(Some(tags)).send().await;
        match created.step(|| format!("create the log group {group}")) {
            Err(error) if error.kind != AwsErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let kept =
        aws.logs.put_retention_policy().log_group_name(&group).retention_in_days(LOG_DAYS).send().await;
    kept.step(|| format!("set how long {group} is kept"))?;
    Ok(part)
}

pub async fn ensure(
    aws: &Aws,
    doing: Doing,
    options: &Deploy,
    program: &Artifact,
    network: &Network,
) -> Result<Part> {
    let wanted = Wanted::new(aws, options.arch, program, network);
    let (current, retries) = tokio::try_join!(configuration(aws), has_retries(aws))?;
    let what = format!("function {}", aws.names.stack.function());
    let differs = current.as_ref().map(|current| wanted.differs(current)).unwrap_or_default();
    let part = match &current {
        None => Part::created(what),
        Some(_) => {
            let retries = retries.then(|| "retries".to_owned());
            Part::compared(what, differs.iter().cloned().chain(retries).collect())
        }
    };
    if doing.applies(&part) {
        if current.is_none() || !differs.is_empty() {
            upload(aws, options, program, &wanted).await?;
            let current = wait_until_ready(aws).await?;
            correct(aws, &wanted, &current, program).await?;
        }
        if retries {
            switch_retries_off(aws).await?;
        }
    }
    Ok(part)
}

struct Wanted {
    environment: BTreeMap<String, String>,
    role: String,
    architecture: Architecture,
    subnets: Vec<String>,
    group: String,
}

impl Wanted {
    fn new(aws: &Aws, arch: Arch, program: &Artifact, network: &Network) -> Self {
        Self {
            environment: environment(
                &aws.names,
                aws.endpoint_url.as_deref(),
                network.ec2_api,
                &program.sha256,
            ),
            role: aws.names.role_arn(&Role::Reconciler.name(&aws.names)),
            architecture: match arch {
                Arch::Arm64 => Architecture::Arm64,
                Arch::X8664 => Architecture::X8664,
            },
            subnets: network.private.iter().map(|subnet| subnet.id.clone()).collect(),
            group: network.reconciler_group.clone(),
        }
    }

    fn differs(&self, current: &FunctionConfiguration) -> Vec<String> {
        let environment: BTreeMap<String, String> = current
            .environment()
            .and_then(|environment| environment.variables())
            .map(|variables| variables.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            .unwrap_or_default();
        let without_program = |environment: &BTreeMap<String, String>| {
            let mut rest = environment.clone();
            rest.remove(PROGRAM);
            rest
        };
        let vpc = current.vpc_config();
        let subnets = vpc.map(|vpc| vpc.subnet_ids().to_vec()).unwrap_or_default();
        let has_subnets =
            self.subnets.iter().all(|subnet| subnets.contains(subnet)) && subnets.len() == self.subnets.len();
        [
            (environment.get(PROGRAM) == self.environment.get(PROGRAM), "program"),
            (without_program(&environment) == without_program(&self.environment), "environment"),
            (current.role() == Some(&self.role), "role"),
            (current.architectures() == [self.architecture.clone()], "processor"),
            (current.memory_size() == Some(MEMORY_MB), "memory"),
            (current.timeout() == Some(TIMEOUT_SECONDS), "timeout"),
            (vpc.is_some_and(|vpc| vpc.security_group_ids() == [self.group.clone()]), "security group"),
            (has_subnets, "subnets"),
        ]
        .into_iter()
        .filter(|(is_same, _)| !is_same)
        .map(|(_, what)| what.to_owned())
        .collect()
    }
}

fn environment(
    names: &Names,
    endpoint_url: Option<&str>,
    ec2_api: Ec2Api,
    program: &str,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("VIGIA_STACK".to_owned(), names.stack.to_string()),
        ("VIGIA_CONTROL_BUCKET".to_owned(), names.control_bucket()),
        (PROGRAM.to_owned(), program.to_owned()),
    ]);
    match (endpoint_url, ec2_api) {
        (Some(url), _) => {
            environment.insert("AWS_ENDPOINT_URL".to_owned(), url.to_owned());
        }
        // From a private subnet the EC2 API is reached over IPv6, which only this name has.
        (None, Ec2Api::DualStack) => {
            let url = format!("https://{}", names.ec2_dual_stack_host());
            environment.insert("AWS_ENDPOINT_URL_EC2".to_owned(), url);
        }
        // The usual name leads to the endpoint.
        (None, Ec2Api::Endpoint) => {}
    }
    environment
}

async fn configuration(aws: &Aws) -> Result<Option<FunctionConfiguration>> {
    let function = aws.names.stack.function();
    let got = aws.lambda.get_function().function_name(&function).send().await;
    Ok(found(got.step(|| format!("look at the function {function}")))?.and_then(|got| got.configuration))
}

/// Runs `cargo lambda deploy` until the role that the function gets can be assumed.
async fn upload(aws: &Aws, options: &Deploy, program: &Artifact, wanted: &Wanted) -> Result<()> {
    let failed =
        |what: &str| DeployError::new(Exit::Failed, format!("could not upload the reconciler: {what}"));
    let directory = tempfile::tempdir().map_err(|error| failed("no temporary directory").caused_by(error))?;
    // In a Lambda package the program must have this name.
    let binary = directory.path().join("bootstrap");
    let written = std::fs::write(&binary, program.bytes())
        .and_then(|()| std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755)))
        // It asks cargo about the package around it, even when it is given a program.
        .and_then(|()| std::fs::write(directory.path().join("Cargo.toml"), EMPTY_PACKAGE))
        .and_then(|()| std::fs::write(directory.path().join("lib.rs"), ""));
    written.map_err(|error| failed("cannot copy the program").caused_by(error))?;
    let environment: Vec<String> =
        wanted.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let deadline = aws.patience.deadline(ROLE_DEADLINE);
    loop {
        let mut command = Command::new(&options.cargo_lambda);
        command
            .args(["lambda", "deploy"])
            .arg(aws.names.stack.function())
            .arg("--binary-path")
            .arg(&binary)
            .args(["--iam-role", &wanted.role])
            .args(["--memory", &MEMORY_MB.to_string()])
            .args(["--timeout", &TIMEOUT_SECONDS.to_string()])
            .args(["--env-var", &environment.join(",")])
            .args(["--subnet-ids", &wanted.subnets.join(",")])
            .args(["--security-group-ids", &wanted.group])
            .arg("--ipv6-allowed-for-dual-stack")
            .args(["--tag", &format!("{TAG_STACK}={}", aws.names.stack)])
            .args(["--region", &aws.names.region])
            .args(["--output-format", "json"])
            .current_dir(directory.path())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        if let Some(url) = &aws.endpoint_url {
            command.args(["--endpoint-url", url]);
        }
        let output = tokio::time::timeout(READY_DEADLINE, command.output())
            .await
            .map_err(|_| failed("`cargo lambda deploy` did not end within five minutes"))?
            .map_err(|error| {
                DeployError::new(Exit::Prerequisite, format!("cannot run {}", options.cargo_lambda.display()))
                    .mend("Install it with `pip install cargo-lambda`; `make venv` does. --cargo-lambda names it.")
                    .caused_by(error)
            })?;
        if output.status.success() {
            return Ok(());
        }
        let said = unwrapped(&String::from_utf8_lossy(&output.stderr));
        let is_propagating = ["cannot be assumed", "CreateNetworkInterface", "KMS key is invalid"]
            .iter()
            .any(|sign| said.contains(sign));
        // Another update is still in progress, for example that of a run that was cut.
        let is_busy = said.contains("ResourceConflict");
        let refused = || failed(&format!("`cargo lambda deploy` says: {said}"));
        if said.contains("iam:PassRole") {
            return Err(pass_role_denied(refused()));
        }
        if !(is_propagating || is_busy) {
            return Err(refused());
        }
        if Instant::now() > deadline {
            return Err(patience::over(refused()));
        }
        sleep(Duration::from_secs(3)).await;
    }
}

/// `cargo lambda` breaks its errors into lines and draws their outline, in the middle of a sentence too.
fn unwrapped(said: &str) -> String {
    let is_outline = |word: &&str| word.chars().all(|c| matches!(c, '\u{2500}'..='\u{257f}' | '▶' | '×'));
    said.split_whitespace().filter(|word| !is_outline(word)).collect::<Vec<_>>().join(" ")
}

async fn wait_until_ready(aws: &Aws) -> Result<FunctionConfiguration> {
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        let current = configuration(aws).await?;
        if let Some(current) = &current {
            let is_active = current.state().is_none_or(|state| *state == State::Active);
            let is_updated = match current.last_update_status() {
                None | Some(LastUpdateStatus::Successful) => true,
                Some(LastUpdateStatus::Failed) => {
                    let why = current.last_update_status_reason().unwrap_or("no reason given");
                    return Err(DeployError::new(
                        Exit::Failed,
                        format!("Lambda could not update the function: {why}"),
                    ));
                }
                Some(_) => false,
            };
            if is_active && is_updated {
                return Ok(current.clone());
            }
        }
        if Instant::now() > deadline {
            return Err(DeployError::new(
                Exit::Failed,
                "the function did not become active within five minutes",
            )
            .mend("Run the deployment again; it goes on where this one stopped."));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// What `cargo lambda deploy` leaves as it was on a function that existed.
async fn correct(
    aws: &Aws,
    wanted: &Wanted,
    current: &FunctionConfiguration,
    program: &Artifact,
) -> Result<()> {
    let function = aws.names.stack.function();
    if current.role() != Some(&wanted.role) {
        let updated = aws
            .lambda
            .update_function_configuration()
            .function_name(&function)
            .role(&wanted.role)
            .send()
            .await;
        updated.step(|| format!("set the role of {function}"))?;
        wait_until_ready(aws).await?;
    }
    if current.architectures() != [wanted.architecture.clone()] {
        let zip = current.code_sha256().unwrap_or_default();
        let what = format!(
            "{function} exists for another processor ({}, code {zip}), and Lambda cannot change that together \
             with the code of {}",
            current.architectures().first().map_or("unknown", Architecture::as_str),
            program.name
        );
        return Err(DeployError::new(Exit::Failed, what).mend(
            "Delete the function in the Lambda console and deploy again; the fleet keeps serving meanwhile.",
        ));
    }
    Ok(())
}

/// Whether a failed or late tick is repeated. It need not: the next one sees the same world.
async fn has_retries(aws: &Aws) -> Result<bool> {
    let function = aws.names.stack.function();
    let got = aws.lambda.get_function_event_invoke_config().function_name(&function).send().await;
    let got = found(got.step(|| format!("read the retry settings of {function}")))?;
    Ok(got.is_none_or(|got| got.maximum_retry_attempts() != Some(0)))
}

async fn switch_retries_off(aws: &Aws) -> Result<()> {
    let function = aws.names.stack.function();
    aws.lambda
        .put_function_event_invoke_config()
        .function_name(&function)
        .maximum_retry_attempts(0)
        .maximum_event_age_in_seconds(60)
        .send()
        .await
        .step(|| format!("switch retries of {function} off"))?;
    Ok(())
}

/// Starts a tick now rather than within the next minute. It does not wait for the tick's end.
pub async fn invoke(aws: &Aws) -> Result<()> {
    let function = aws.names.stack.function();
    let event = serde_json::json!({"source": "vigia.deploy", "time": jiff::Timestamp::now().to_string()});
    aws.lambda
        .invoke()
        .function_name(&function)
        .invocation_type(aws_sdk_lambda::types::InvocationType::Event)
        .payload(aws_sdk_lambda::primitives::Blob::new(event.to_string()))
        .send()
        .await
        .step(|| format!("invoke {function}"))?;
    Ok(())
}

pub async fn delete(aws: &Aws) -> Result<Part> {
    let function = aws.names.stack.function();
    let deleted = aws.lambda.delete_function().function_name(&function).send().await;
    let deleted = found(deleted.step(|| format!("delete the function {function}")))?;
    Ok(Part::deleted(format!("function {function}"), deleted.is_some()))
}

/// After the function: a late invocation would make the group again.
pub async fn delete_log_group(aws: &Aws) -> Result<Part> {
    let group = aws.names.stack.log_group();
    let deleted = aws.logs.delete_log_group().log_group_name(&group).send().await;
    let deleted = found(deleted.step(|| format!("delete the log group {group}")))?;
    Ok(Part::deleted(format!("log group {group}"), deleted.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_region_with_a_dual_stack_api_is_asked_by_that_name() {
        let names = Names {
            stack: "a".parse().expect("valid"),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            partition: "aws".to_owned(),
        };
        let urls = |endpoint_url, ec2_api| -> Vec<(String, String)> {
            let all = environment(&names, endpoint_url, ec2_api, "abc");
            all.into_iter().filter(|(key, _)| key.starts_with("AWS_ENDPOINT_URL")).collect()
        };
        let pair = |key: &str, url: &str| vec![(key.to_owned(), url.to_owned())];
        let dual = pair("AWS_ENDPOINT_URL_EC2", "https://ec2.eu-west-1.api.aws");
        assert_eq!(urls(None, Ec2Api::DualStack), dual);
        assert_eq!(urls(None, Ec2Api::Endpoint), []);
        let local = "http://127.0.0.1:4566";
        assert_eq!(urls(Some(local), Ec2Api::DualStack), pair("AWS_ENDPOINT_URL", local));
    }

    #[test]
    fn a_sentence_that_was_broken_into_lines_is_whole_again() {
        let said = "Error:   × failed to create the new lambda function\n  ├─▶ service error\n  \
                    ╰─▶ InvalidParameterValueException: The role defined for the function cannot\n      │ be \
                    assumed by Lambda.\n";
        assert!(unwrapped(said).ends_with("The role defined for the function cannot be assumed by Lambda."));
        assert!(unwrapped(said).starts_with("Error: failed to create"), "{}", unwrapped(said));
    }
}
