//! `doctor`: everything that a stack needs, looked at before something fails for the want of it.
//!
//! | verdict | means |
//! |---|---|
//! | `ok` | looked at, and enough |
//! | `warning` | works, but not for long or not for everything |
//! | `failed` | a deployment or the stack fails at it; doctor ends with 1 |
//! | `not known here` | could not be looked at: no permission, no answer, or an emulator that has no such thing |
//!
//! The checks know nothing of each other and run at the same time, each within its own bound.

mod account;
mod judge;
mod leftovers;
mod machine;
mod stack;

use std::time::Duration;

use fleet::aws_code::AwsErrorKind;
use fleet::keys;
use fleet::release::Release;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use crate::aws::Aws;
use crate::cli::{self, Target};
use crate::error::{DeployError, Exit, Result};
use crate::output;
use crate::resources::documents;

/// For one check. Without a network a name alone takes ten seconds to be given up.
const PATIENCE: Duration = Duration::from_secs(25);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Ok,
    Warning,
    Failed,
    NotKnownHere,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotKnownHere => "not known here",
        }
    }

    /// The colour of its word on a terminal.
    const fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Warning => 33,
            Self::Failed => 31,
            Self::NotKnownHere => 36,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    /// What to do about it.
    mend: Option<String>,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { name, verdict, detail: detail.into(), mend: None }
    }

    fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// What a failed look says: never that something is wrong with what was looked at.
    fn unknown(name: &'static str, error: &DeployError) -> Self {
        let check = Self::new(name, Verdict::NotKnownHere, error.what.clone());
        match error.kind {
            AwsErrorKind::Denied => {
                check.mend("`bootstrap iam-policy` (make iam-policy) prints what these credentials need.")
            }
            _ => check,
        }
    }
}

/// What the checks are about.
struct Subject<'a> {
    options: &'a cli::Doctor,
    aws: &'a Aws,
    /// None: there is no stack.
    release: Option<Release>,
    /// How many workers there are or are to be.
    workers: u32,
}

/// Enough for the first deployment.
const FIRST_COUNT: u32 = 3;

pub async fn run(target: &Target, options: &cli::Doctor) -> Result<()> {
    let connected = async { timeout(PATIENCE, Aws::connect(target)).await };
    let (connected, clock, tools) = tokio::join!(
        connected,
        machine::clock(target),
        machine::tools(options, target.endpoint_url.is_some())
    );
    let mut checks = Vec::new();
    let aws = match connected {
        Ok(Ok(aws)) => {
            let detail = format!("account {}, region {}", aws.names.account, aws.names.region);
            checks.push(Check::new("credentials", Verdict::Ok, detail));
            Some(aws)
        }
        Ok(Err(error)) => {
            let failed = Check::new("credentials", Verdict::Failed, error.what);
            checks.push(Check { mend: error.mend, ..failed });
            None
        }
        Err(_) => {
            checks.push(Check::new(
                "credentials",
                Verdict::Failed,
                format!("no answer within {} s", PATIENCE.as_secs()),
            ));
            None
        }
    };
    checks.push(clock);
    checks.extend(tools);
    match &aws {
        Some(aws) => checks.extend(asked(options, aws).await),
        None => checks.push(Check::new(
            "account and stack",
            Verdict::NotKnownHere,
            "nobody can be asked without credentials",
        )),
    }
    tell(target, options, &checks)
}

/// The checks that ask AWS.
async fn asked(options: &cli::Doctor, aws: &Aws) -> Vec<Check> {
    let release = async {
        let object = documents::read(aws, keys::RELEASE).await?;
        Ok::<_, DeployError>(object.and_then(|object| serde_json::from_slice(&object.bytes).ok()))
    };
    let release: Option<Release> = match timeout(PATIENCE, release).await {
        Ok(Ok(release)) => release,
        Ok(Err(error)) => return vec![Check::unknown("account and stack", &error)],
        Err(_) => return vec![late("account and stack")],
    };
    let desired = documents::read(aws, keys::DESIRED_COUNT).await.ok().flatten();
    let desired = desired.and_then(|object| fleet::DesiredCount::from_object(&object.bytes).ok());
    let workers = options.workers.or(desired).map_or(FIRST_COUNT, fleet::DesiredCount::get);
    let subject = &Subject { options, aws, release, workers };
    let (vcpus, addresses, functions, vpcs, kind, dual_stack, launch, leftovers, stack) = tokio::join!(
        within("vCPU quota", account::vcpus(subject)),
        within("Elastic IP quota", account::addresses(subject)),
        within("Lambda concurrency", account::concurrency(subject)),
        within("VPC quota", account::vpcs(subject)),
        within("instance type", account::instance_type(subject)),
        within("EC2 over IPv6", account::dual_stack(subject)),
        within("launch permission", account::launch(subject)),
        within("leftovers", leftovers::look(subject)),
        within("stack", stack::look(subject)),
    );
    [vcpus, addresses, functions, vpcs, kind, dual_stack, launch, leftovers, stack].concat()
}

/// One look with its bound; what cannot be looked at ends no other check.
async fn within(name: &'static str, look: impl Future<Output = Result<Vec<Check>>>) -> Vec<Check> {
    match timeout(PATIENCE, look).await {
        Ok(Ok(checks)) => checks,
        Ok(Err(error)) => vec![Check::unknown(name, &error)],
        Err(_) => vec![late(name)],
    }
}

fn late(name: &'static str) -> Check {
    Check::new(name, Verdict::NotKnownHere, format!("no answer within {} s", PATIENCE.as_secs()))
}

fn tell(target: &Target, options: &cli::Doctor, checks: &[Check]) -> Result<()> {
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
    output::result(&match options.json {
        true => json!({"stack": target.stack, "ok": failed == 0, "checks": checks}).to_string(),
        false => table(checks, output::has_colour()),
    });
    match failed {
        0 => Ok(()),
        1 => Err(DeployError::new(Exit::Failed, "1 check failed")),
        n => Err(DeployError::new(Exit::Failed, format!("{n} checks failed"))),
    }
}

fn table(checks: &[Check], has_colour: bool) -> String {
    let mut lines = Vec::new();
    for check in checks {
        let word = format!("{:<14}", check.verdict.word());
        let word =
            if has_colour { format!("\u{1b}[{}m{word}\u{1b}[0m", check.verdict.colour()) } else { word };
        lines.push(format!("{word}  {:<19} {}", check.name, check.detail));
        lines.extend(check.mend.iter().map(|mend| format!("{:<14}  {:<19} {mend}", "", "")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_the_verdict_and_the_next_one_the_mend() {
        let checks = [
            Check::new("clock", Verdict::Ok, "1 s"),
            Check::new("leftovers", Verdict::NotKnownHere, "denied").mend("Ask for it."),
        ];
        let plain = table(&checks, false);
        assert_eq!(
            plain,
            "ok              clock               1 s\n\
             not known here  leftovers           denied\n                                    Ask for it."
        );
        assert!(table(&checks, true).contains("\u{1b}[32mok "));
    }

    #[test]
    fn a_permission_that_is_missing_is_not_a_failure() {
        let mut error = DeployError::new(Exit::Denied, "could not list the roles");
        error.kind = AwsErrorKind::Denied;
        let check = Check::unknown("leftovers", &error);
        assert_eq!(check.verdict, Verdict::NotKnownHere);
        assert!(check.mend.expect("a mend").contains("iam-policy"));
    }
}
