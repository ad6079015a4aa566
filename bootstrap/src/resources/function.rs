//! The reconciler's function: uploads it with `cargo lambda deploy`, and sets what that leaves out.
//!
//! Its gaps and silent failures, and how this file handles them:
//!
//! | `cargo lambda deploy` | here |
//! |---|---|
//! | gives up at once when a new role is not known everywhere yet | the call is repeated |
//! | ignores a changed role on an existing function, if nothing else changed | read back, and set; so is the permission to use IPv6 |
//! | never changes architecture and runtime of an existing function | set before, with the code for it |
//! | changes settings first and code last: cut in between, the old code has the new settings | the tag `TAG_PROGRAM` is put last, and says which package is whose |
//! | waits 29 s for a function; one in a VPC takes longer | the call is repeated |
//! | replaces all environment variables | all of them are ours |
//! | publishes a version each time, which counts against the account's storage | older ones are deleted |
//! | prints a line of progress before its JSON | only its exit code is looked at |

mod cargo_lambda;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_lambda::operation::get_function::GetFunctionOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    Architecture, FunctionConfiguration, LastUpdateStatus, Runtime, State, VpcConfig,
};
use fleet::aws_code::AwsErrorKind;
use fleet::stack::TAG_STACK;
use tokio::process::Command;

use self::cargo_lambda::{Package, Refusal, failed, run, says};
use crate::aws::{Aws, cli_session};
use crate::blueprint::Ec2Api;
use crate::cli::{Arch, Deploy};
use crate::error::{DeployError, Exit, Result, Step as _, denied, found, lacking};
use crate::names::Names;
use crate::part::{Change, Part, RunMode};
use crate::patience::{self, Look};
use crate::resources::artifact::Artifact;
use crate::resources::network::Network;
use crate::resources::role::Role;
use crate::resources::upload;

/// The least that Lambda has, 0.07 of a core: a tick over 100 workers takes 0.2 s, the first after a cold
/// start 0.6 s and 20 MB (`make bench-reconciler`, decision 5). Twice as much would double the price of a
/// function that sleeps most of its time, and save a tenth of a second in 20.
const MEMORY_MB: i32 = 128;
/// Three ticks end by about 42 s; the next invocation comes at 60.
const TIMEOUT_SECONDS: i32 = 55;
const LOG_DAYS: i32 = 14;
/// A function in a VPC waits for its network interface for up to a minute or two.
const READY_DEADLINE: Duration = Duration::from_secs(300);
/// Hash of the program, and Lambda's own hash of the package made from it.
const TAG_PROGRAM: &str = "vigia:program";

pub async fn ensure_log_group(aws: &Aws, mode: RunMode) -> Result<Part> {
    let group = aws.names.stack.log_group();
    let described = aws.logs.describe_log_groups().log_group_name_prefix(&group).send().await;
    let described = described.step(|| format!("look for the log group {group}"))?;
    let existing = described.log_groups().iter().find(|found| found.log_group_name() == Some(&group));
    let what = format!("log group {group}");
    let part = match existing.map(|existing| existing.retention_in_days()) {
        None => Part::created(what),
        Some(Some(LOG_DAYS)) => Part::unchanged(what),
        Some(_) => Part::compared(what, vec!["its retention".to_owned()]),
    };
    if !mode.applies(&part) {
        return Ok(part);
    }
    if part.change == Change::Created {
        let tags = HashMap::from(aws.names.tags("reconciler-log"));
        let create = aws.logs.create_log_group().log_group_name(&group).set_tags(Some(tags));
        let created = async || create.clone().send().await.step(|| format!("create the log group {group}"));
        match aws.patience.settled(created).await {
            Err(error) if error.kind != AwsErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let keep = aws.logs.put_retention_policy().log_group_name(&group).retention_in_days(LOG_DAYS);
    let kept = async || keep.clone().send().await.step(|| format!("set the retention of {group}"));
    aws.patience.depends_on(&format!("the log group {group}"), kept).await?;
    Ok(part)
}

pub async fn ensure(
    aws: &Aws,
    mode: RunMode,
    options: &Deploy,
    program: &Artifact,
    network: &Network,
) -> Result<Part> {
    let wanted = Wanted::new(aws, options.arch, program, network);
    let (current, retries) = tokio::try_join!(find(aws), has_retries(aws))?;
    let what = format!("function {}", aws.names.stack.function());
    let differs = current.as_ref().map(|current| wanted.differs(current)).unwrap_or_default();
    let part = match &current {
        None => Part::created(what),
        Some(_) => {
            let retries = retries.then(|| "retries".to_owned());
            Part::compared(what, differs.iter().cloned().chain(retries).collect())
        }
    };
    if mode.applies(&part) {
        if current.is_none() || !differs.is_empty() {
            bring(aws, options, program, &wanted, current.is_some()).await?;
        }
        if retries {
            switch_retries_off(aws).await?;
        }
    }
    Ok(part)
}

/// Uploads the program and makes the settings that the upload leaves out.
async fn bring(aws: &Aws, options: &Deploy, program: &Artifact, wanted: &Wanted, exists: bool) -> Result<()> {
    let package = Package::new(program)?;
    if exists {
        let current = wait_until_idle(aws).await?;
        set_processor(aws, options, wanted, &current, &package).await?;
    }
    upload(aws, options, wanted, &package).await?;
    let current = wait_until_ready(aws).await?;
    // A new function is for the processor of the program.
    set_processor(aws, options, wanted, &current, &package).await?;
    correct(aws, wanted, &current).await?;
    forget_versions(aws).await?;
    mark(aws, wanted, &wait_until_ready(aws).await?).await
}

/// A function as Lambda shows it.
struct Current {
    configuration: FunctionConfiguration,
    /// The value of [`TAG_PROGRAM`].
    program: Option<String>,
}

struct Wanted {
    environment: BTreeMap<String, String>,
    role: String,
    architecture: Architecture,
    subnets: Vec<String>,
    group: String,
    /// Hash of the program.
    program: String,
}

impl Wanted {
    fn new(aws: &Aws, arch: Arch, program: &Artifact, network: &Network) -> Self {
        Self {
            environment: environment(&aws.names, aws.endpoint_url.as_deref(), network.ec2_api),
            role: aws.names.role_arn(&Role::Reconciler.name(&aws.names)),
            architecture: match arch {
                Arch::Arm64 => Architecture::Arm64,
                Arch::X8664 => Architecture::X8664,
            },
            subnets: network.private.iter().map(|subnet| subnet.id.clone()).collect(),
            group: network.reconciler_group.clone(),
            program: program.sha256.clone(),
        }
    }

    fn differs(&self, Current { configuration: current, program }: &Current) -> Vec<String> {
        let environment: BTreeMap<String, String> = current
            .environment()
            .and_then(|environment| environment.variables())
            .map(|variables| variables.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            .unwrap_or_default();
        let vpc = current.vpc_config();
        let subnets = vpc.map(|vpc| vpc.subnet_ids().to_vec()).unwrap_or_default();
        let has_subnets =
            self.subnets.iter().all(|subnet| subnets.contains(subnet)) && subnets.len() == self.subnets.len();
        [
            (program.as_ref() == Some(&self.mark(current)), "program"),
            (environment == self.environment, "environment"),
            (current.role() == Some(&self.role), "role"),
            (self.is_processor(current), "processor"),
            (current.memory_size() == Some(MEMORY_MB), "memory"),
            (current.timeout() == Some(TIMEOUT_SECONDS), "timeout"),
            (vpc.is_some_and(|vpc| vpc.security_group_ids() == [self.group.clone()]), "security group"),
            (has_subnets, "subnets"),
            (may_use_ipv6(current), "IPv6"),
        ]
        .into_iter()
        .filter(|(is_same, _)| !is_same)
        .map(|(_, what)| what.to_owned())
        .collect()
    }

    fn is_processor(&self, current: &FunctionConfiguration) -> bool {
        current.architectures() == [self.architecture.clone()]
    }

    /// Identifies the running program by both hashes, so that neither another program nor a package uploaded
    /// by hand passes for it.
    fn mark(&self, current: &FunctionConfiguration) -> String {
        format!("{} {}", self.program, current.code_sha256().unwrap_or_default())
    }
}

/// Returns whether IPv6 is allowed: without it the function has no IPv6 address, and does not reach the EC2
/// API.
pub fn may_use_ipv6(current: &FunctionConfiguration) -> bool {
    current.vpc_config().is_some_and(|vpc| vpc.ipv6_allowed_for_dual_stack() == Some(true))
}

fn environment(names: &Names, endpoint_url: Option<&str>, ec2_api: Ec2Api) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("VIGIA_STACK".to_owned(), names.stack.to_string()),
        ("VIGIA_CONTROL_BUCKET".to_owned(), names.control_bucket()),
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

async fn find(aws: &Aws) -> Result<Option<Current>> {
    let function = aws.names.stack.function();
    let got = aws.lambda.get_function().function_name(&function).send().await;
    let got = found(got.step(|| format!("look at the function {function}")))?;
    Ok(got.and_then(|got| {
        let program = got.tags.and_then(|mut tags| tags.remove(TAG_PROGRAM));
        got.configuration.map(|configuration| Current { configuration, program })
    }))
}

/// Returns whether the package is still that of the last deployment. Uploading another by hand does not
/// change the tag, and a run that was cut before its end has not set it.
pub fn is_as_uploaded(got: &GetFunctionOutput) -> bool {
    let code = got.configuration().and_then(|current| current.code_sha256());
    let marked = got.tags().and_then(|tags| tags.get(TAG_PROGRAM)).and_then(|mark| mark.split(' ').nth(1));
    marked.is_some() && marked == code
}

/// Runs `cargo lambda deploy` until the role that the function gets can be assumed.
async fn upload(aws: &Aws, options: &Deploy, wanted: &Wanted, package: &Package) -> Result<()> {
    let mut wait = aws.patience.wait(patience::SETTLING);
    loop {
        let command = upload_command(aws, options, wanted, package).await;
        let output = run(command, options, package.deadline(READY_DEADLINE)).await?;
        if output.status.success() {
            return Ok(());
        }
        let said = says(&output);
        let refused = || failed(&said);
        if let Some(lacking) = lacking(&said) {
            return Err(denied(refused(), &lacking));
        }
        let needs = match Refusal::of(&said) {
            Refusal::Final => return Err(refused()),
            Refusal::RoleIsNew => format!("the role {}", wanted.role),
            Refusal::NetworkIsNew => format!("{} and {}", wanted.subnets.join(", "), wanted.group),
            Refusal::Busy => format!("the function {}", aws.names.stack.function()),
        };
        if wait.is_over() {
            return Err(patience::over(refused(), Some(&needs), wait.waited()));
        }
        // It bounds itself. Without a function there is nothing to wait for but the next try.
        if Refusal::of(&said) == Refusal::Busy && find(aws).await?.is_some() {
            wait_until_idle(aws).await?;
        }
        wait.pause(|| format!("waiting until Lambda knows {needs}")).await;
    }
}

/// Returns `cargo lambda deploy` with all settings, and with the session that is valid now.
async fn upload_command(aws: &Aws, options: &Deploy, wanted: &Wanted, package: &Package) -> Command {
    let environment: Vec<String> =
        wanted.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut command = package.command(aws, options);
    command
        .args(["--iam-role", &wanted.role])
        .args(["--memory", &MEMORY_MB.to_string()])
        .args(["--timeout", &TIMEOUT_SECONDS.to_string()])
        .args(["--env-var", &environment.join(",")])
        .args(["--subnet-ids", &wanted.subnets.join(",")])
        .args(["--security-group-ids", &wanted.group])
        .arg("--ipv6-allowed-for-dual-stack")
        .args(["--tag", &format!("{TAG_STACK}={}", aws.names.stack)])
        .envs(cli_session::environment().await);
    command
}

/// Waits until the last change has taken effect.
async fn wait_until_ready(aws: &Aws) -> Result<FunctionConfiguration> {
    let current = wait_until_idle(aws).await?;
    match failure(&current) {
        None => Ok(current),
        Some(why) => {
            Err(DeployError::new(Exit::Failed, format!("Lambda could not make the function: {why}"))
                .hint("If the reason is gone, deploy again."))
        }
    }
}

/// Waits until Lambda has finished the last change, whatever its outcome.
async fn wait_until_idle(aws: &Aws) -> Result<FunctionConfiguration> {
    let look = async || {
        Ok(match find(aws).await? {
            Some(Current { configuration, .. }) if is_idle(&configuration) => Look::Reached(configuration),
            Some(_) => Look::NotYet("still being changed by Lambda".to_owned()),
            None => Look::NotYet("not visible yet".to_owned()),
        })
    };
    let what = format!("the function {}", aws.names.stack.function());
    aws.patience.until(&what, READY_DEADLINE, look).await
}

fn is_idle(current: &FunctionConfiguration) -> bool {
    current.state() != Some(&State::Pending)
        && current.last_update_status() != Some(&LastUpdateStatus::InProgress)
}

fn failure(current: &FunctionConfiguration) -> Option<&str> {
    let no_reason = "it gives no reason";
    if current.last_update_status() == Some(&LastUpdateStatus::Failed) {
        Some(current.last_update_status_reason().unwrap_or(no_reason))
    } else if current.state() == Some(&State::Failed) {
        Some(current.state_reason().unwrap_or(no_reason))
    } else {
        None
    }
}

/// Sets the processor. Lambda changes it only together with the code for it.
async fn set_processor(
    aws: &Aws,
    options: &Deploy,
    wanted: &Wanted,
    current: &FunctionConfiguration,
    package: &Package,
) -> Result<()> {
    if wanted.is_processor(current) {
        return Ok(());
    }
    let function = aws.names.stack.function();
    let zip = package.zip(aws, options, READY_DEADLINE).await?;
    let update = aws
        .lambda
        .update_function_code()
        .function_name(&function)
        .architectures(wanted.architecture.clone())
        .zip_file(Blob::new(zip));
    let updated = async || {
        let update = update.clone().customize().config_override(upload::lambda(package.len));
        update.send().await.step(|| format!("move {function} to {}", wanted.architecture))
    };
    aws.patience.depends_on(&format!("the function {function}"), updated).await?;
    wait_until_ready(aws).await.map(drop)
}

/// Makes the settings that `cargo lambda deploy` leaves as they were on an existing function.
async fn correct(aws: &Aws, wanted: &Wanted, current: &FunctionConfiguration) -> Result<()> {
    let function = aws.names.stack.function();
    let is_runtime = current.runtime() == Some(&Runtime::Providedal2023);
    if current.role() == Some(&wanted.role) && is_runtime && may_use_ipv6(current) {
        return Ok(());
    }
    let vpc = VpcConfig::builder()
        .set_subnet_ids(Some(wanted.subnets.clone()))
        .security_group_ids(&wanted.group)
        .ipv6_allowed_for_dual_stack(true)
        .build();
    let update = aws
        .lambda
        .update_function_configuration()
        .function_name(&function)
        .role(&wanted.role)
        .runtime(Runtime::Providedal2023)
        .vpc_config(vpc);
    let updated =
        async || update.clone().send().await.step(|| format!("set the role and the network of {function}"));
    aws.patience.depends_on(&format!("the function {function}"), updated).await.map(drop)
}

/// Records that the function runs this program. Last: without this the next run uploads once more.
async fn mark(aws: &Aws, wanted: &Wanted, current: &FunctionConfiguration) -> Result<()> {
    let function = aws.names.stack.function();
    let tag = aws.lambda.tag_resource().resource(aws.names.function_arn());
    let tag = tag.tags(TAG_PROGRAM, wanted.mark(current));
    let tagged = async || tag.clone().send().await.step(|| format!("tag {function}"));
    aws.patience.depends_on(&format!("the function {function}"), tagged).await.map(drop)
}

/// Deletes the published versions; the schedule calls the function itself.
async fn forget_versions(aws: &Aws) -> Result<()> {
    let function = aws.names.stack.function();
    let mut pages =
        aws.lambda.list_versions_by_function().function_name(&function).into_paginator().items().send();
    let mut versions = Vec::new();
    while let Some(version) = pages.next().await {
        let version = version.step(|| format!("list the versions of {function}"))?;
        versions.extend(version.version().and_then(|version| version.parse::<u64>().ok()));
    }
    for version in versions {
        // Without a qualifier this would delete the function.
        let delete = aws.lambda.delete_function().function_name(&function).qualifier(version.to_string());
        let deleted =
            async || delete.clone().send().await.step(|| format!("delete version {version} of {function}"));
        aws.patience.deleted(deleted).await?;
    }
    Ok(())
}

/// Returns whether a failed or late tick is repeated. It need not be: the next one sees the same state.
async fn has_retries(aws: &Aws) -> Result<bool> {
    let function = aws.names.stack.function();
    let got = aws.lambda.get_function_event_invoke_config().function_name(&function).send().await;
    let got = found(got.step(|| format!("read the retry settings of {function}")))?;
    Ok(got.is_none_or(|got| got.maximum_retry_attempts() != Some(0)))
}

async fn switch_retries_off(aws: &Aws) -> Result<()> {
    let function = aws.names.stack.function();
    let put = aws
        .lambda
        .put_function_event_invoke_config()
        .function_name(&function)
        .maximum_retry_attempts(0)
        .maximum_event_age_in_seconds(60);
    let done = async || put.clone().send().await.step(|| format!("switch retries of {function} off"));
    aws.patience.depends_on(&format!("the function {function}"), done).await.map(drop)
}

/// Starts a tick now rather than within the next minute. It does not wait for the tick's end.
pub async fn invoke(aws: &Aws) -> Result<()> {
    let function = aws.names.stack.function();
    let event = serde_json::json!({"source": "vigia.deploy", "time": jiff::Timestamp::now().to_string()});
    let invoke = aws
        .lambda
        .invoke()
        .function_name(&function)
        .invocation_type(aws_sdk_lambda::types::InvocationType::Event)
        .payload(Blob::new(event.to_string()));
    let invoked = async || invoke.clone().send().await.step(|| format!("invoke {function}"));
    aws.patience.depends_on(&format!("the function {function}"), invoked).await.map(drop)
}

pub async fn delete(aws: &Aws) -> Result<Part> {
    let function = aws.names.stack.function();
    let delete = aws.lambda.delete_function().function_name(&function);
    let deleted = async || delete.clone().send().await.step(|| format!("delete the function {function}"));
    let deleted = aws.patience.deleted(deleted).await?;
    Ok(Part::deleted(format!("function {function}"), deleted.is_some()))
}

/// After the function: a late invocation would make the group again.
pub async fn delete_log_group(aws: &Aws) -> Result<Part> {
    let group = aws.names.stack.log_group();
    let delete = aws.logs.delete_log_group().log_group_name(&group);
    let deleted = async || delete.clone().send().await.step(|| format!("delete the log group {group}"));
    let deleted = aws.patience.deleted(deleted).await?;
    Ok(Part::deleted(format!("log group {group}"), deleted.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_region_with_a_dual_stack_api_is_asked_by_that_name() {
        let names = Names::example("a");
        let urls = |endpoint_url, ec2_api| -> Vec<(String, String)> {
            let all = environment(&names, endpoint_url, ec2_api);
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
    fn lambda_is_waited_for_until_it_is_done_and_a_failure_is_told() {
        let function = |state, status| {
            FunctionConfiguration::builder().set_state(state).set_last_update_status(status).build()
        };
        let (active, done) = (Some(State::Active), Some(LastUpdateStatus::Successful));
        for (state, status, idle, failed) in [
            (active.clone(), done.clone(), true, false),
            (active.clone(), None, true, false),
            // It was not invoked for long; the next invocation wakes it.
            (Some(State::Inactive), done.clone(), true, false),
            (Some(State::Pending), done.clone(), false, false),
            (active.clone(), Some(LastUpdateStatus::InProgress), false, false),
            (active, Some(LastUpdateStatus::Failed), true, true),
            (Some(State::Failed), done, true, true),
        ] {
            let function = function(state, status);
            assert_eq!((is_idle(&function), failure(&function).is_some()), (idle, failed), "{function:?}");
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            environment: BTreeMap::new(),
            role: "arn:aws:iam::123456789012:role/r".to_owned(),
            architecture: Architecture::Arm64,
            subnets: vec!["subnet-1".to_owned()],
            group: "sg-1".to_owned(),
            program: "hash".to_owned(),
        }
    }

    /// Returns the wanted function, with or without the permission to use IPv6.
    fn function(may_use_ipv6: bool) -> FunctionConfiguration {
        let vpc = aws_sdk_lambda::types::VpcConfigResponse::builder()
            .subnet_ids("subnet-1")
            .security_group_ids("sg-1")
            .ipv6_allowed_for_dual_stack(may_use_ipv6);
        FunctionConfiguration::builder()
            .role(wanted().role)
            .architectures(Architecture::Arm64)
            .runtime(Runtime::Providedal2023)
            .memory_size(MEMORY_MB)
            .timeout(TIMEOUT_SECONDS)
            .code_sha256("package")
            .vpc_config(vpc.build())
            .build()
    }

    #[tokio::test]
    async fn cargo_lambda_gets_the_session_of_aws_login() {
        use clap::Parser as _;
        let cli = crate::cli::Cli::try_parse_from(["bootstrap", "deploy"]).expect("arguments");
        let crate::cli::Command::Deploy(options) = cli.command else { unreachable!("that is the command") };
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("reconciler"), "program").expect("written");
        let program = Artifact::load(directory.path(), "reconciler").expect("there");
        let package = Package::new(&program).expect("copied");
        cli_session::log_in().await;
        let aws = crate::aws::stub::client("http://127.0.0.1:1");
        let command = upload_command(&aws, &options, &wanted(), &package).await;
        let key = command.as_std().get_envs().find(|(name, _)| *name == "AWS_ACCESS_KEY_ID");
        assert_eq!(key.and_then(|(_, key)| key), Some("OFCLI".as_ref()));
    }

    #[test]
    fn a_function_without_ipv6_differs() {
        let differs = |may_use_ipv6| {
            let program = Some("hash package".to_owned());
            wanted().differs(&Current { configuration: function(may_use_ipv6), program })
        };
        assert_eq!(differs(true), [""; 0]);
        assert_eq!(differs(false), ["IPv6"]);
    }

    #[tokio::test]
    async fn a_function_without_ipv6_is_allowed_to_use_it() {
        const UPDATE: &str = "PUT /2015-03-31/functions/vigia-a-reconciler/configuration";
        for (may_use_ipv6, updates) in [(true, 0), (false, 1)] {
            let stub = crate::aws::stub::Stub::default().says(UPDATE, 200, "{}");
            correct(&stub.serve().await, &wanted(), &function(may_use_ipv6)).await.expect("corrected");
            assert_eq!(stub.count(UPDATE), updates);
        }
    }
}
