//! Checks what a deployment needs of the credentials and the account, within seconds: before release builds,
//! which take half an hour, and before anything is made.
//!
//! | check | fails if |
//! |---|---|
//! | permissions | an action that a deployment needs is denied, by a dry run, a read or a simulation |
//! | vCPUs, on demand and spot | the steady state does not fit; for a rollout or a replacement it is a warning |
//! | Elastic IPs, VPCs | there is no room for the stack's own |
//! | Lambda concurrency | no concurrent execution is left |
//!
//! `preflight`, `deploy` and `plan` run the same checks, all at the same time, each within a few seconds. A
//! fact that cannot be read is `not known here`: never `ok`, and no failure by itself.

pub(crate) mod account;
mod permission;
pub(crate) mod quota;
mod simulate;
pub(crate) mod trial;

use std::time::Duration;

use fleet::release::{Release, Rollout};
use fleet::{DesiredCount, keys};
use serde_json::json;
use tokio::time::timeout;

use self::account::FIRST_COUNT;
use self::permission::Asked;
use self::quota::Size;
use crate::aws::Aws;
use crate::check::{Check, Verdict, table, within};
use crate::cli::{Deploy, PolicyArn, Target};
use crate::error::{DeployError, Exit, Result};
use crate::output::{self, Progress};
use crate::policies::deployer::deployer;
use crate::resources::{documents, load_balancer};
use crate::{exposure, requested};

/// Limit of one check. AWS answers in tenths of a second. With half of this, checks over a slow connection
/// all end unknown. With twice as much, all checks, which wait for a look at the stack first, could take
/// longer than ten seconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// `preflight`: the checks alone.
pub async fn run(target: &Target, options: &Deploy) -> Result<()> {
    requested::check(options)?;
    let aws = Aws::connect(target).await?;
    exposure::check(&aws, options).await?;
    let findings = look(&aws, options).await;
    output::result(&match options.json {
        true => {
            let ok = findings.refuse().is_ok();
            json!({"stack": target.stack, "ok": ok, "rollout": findings.rollout, "checks": findings.checks})
                .to_string()
        }
        false => table(&findings.checks, output::has_colour()),
    });
    findings.refuse()
}

/// The results of all checks.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    pub(crate) checks: Vec<Check>,
    /// The kind of rollout that the quotas allow, if they are known.
    pub(crate) rollout: Option<Rollout>,
}

/// Runs all checks. Changes nothing.
pub(crate) async fn look(aws: &Aws, options: &Deploy) -> Findings {
    let known = Check::new(
        "credentials",
        Verdict::Ok,
        format!("{} in account {}, region {}", aws.caller, aws.names.account, aws.names.region),
    );
    let stack = timeout(PATIENCE, Stack::find(aws)).await;
    let stack = stack.unwrap_or_default();
    let size = stack.size(options);
    let (permissions, vcpus, addresses, vpcs, concurrency) = tokio::join!(
        permissions(aws, options, stack.release.as_ref()),
        account::vcpus(aws, &size, PATIENCE),
        within(PATIENCE, "Elastic IP quota", account::addresses(aws, &size)),
        within(PATIENCE, "VPC quota", account::vpcs(aws)),
        within(PATIENCE, "Lambda concurrency", account::concurrency(aws)),
    );
    let (vcpus, rollout) = vcpus;
    let checks = [vec![known], permissions, vcpus, addresses, vpcs, concurrency].concat();
    Findings { checks, rollout }
}

async fn permissions(aws: &Aws, options: &Deploy, release: Option<&Release>) -> Vec<Check> {
    let boundary = options.permissions_boundary.as_ref().map(PolicyArn::as_str);
    let policy = deployer(&aws.names, boundary);
    let late = || Vec::<Asked>::new();
    let (surely, simulated) = tokio::join!(
        timeout(PATIENCE, trial::permissions(aws, release)),
        timeout(PATIENCE, simulate::ask(aws, &policy)),
    );
    permission::checks(&policy, &surely.unwrap_or_else(|_| late()), &simulated.unwrap_or_else(|_| late()))
}

/// The existing stack, as far as it can be read.
#[derive(Default)]
struct Stack {
    release: Option<Release>,
    desired: Option<DesiredCount>,
    addresses: Option<u32>,
}

impl Stack {
    async fn find(aws: &Aws) -> Self {
        let (release, desired, addresses) = tokio::join!(
            documents::read(aws, keys::RELEASE),
            documents::read(aws, keys::DESIRED_COUNT),
            load_balancer::find_addresses(aws),
        );
        let release = release.ok().flatten().and_then(|object| serde_json::from_slice(&object.bytes).ok());
        let desired = desired.ok().flatten();
        let places = addresses.ok().and_then(|all| all.keys().max().map(|place| place + 1));
        Self {
            release,
            desired: desired.and_then(|object| DesiredCount::from_object(&object.bytes).ok()),
            addresses: places,
        }
    }

    /// Returns the size that a deployment with these options would give the stack.
    fn size(&self, options: &Deploy) -> Size {
        let desired = options.workers.or(self.desired);
        Size {
            workers: desired.map_or(FIRST_COUNT, DesiredCount::get),
            balancers: options.lbs.or(self.addresses).unwrap_or(1),
            market: requested::market(options, self.release.as_ref()),
            instance_type: requested::instance_type(options, self.release.as_ref()),
        }
    }
}

impl Findings {
    /// Prints warnings, and returns an error if the deployment cannot succeed.
    pub(crate) fn tell(&self, progress: &mut Progress) -> Result<()> {
        let count = |verdict| self.of(verdict).count();
        let outcome = match (count(Verdict::Warning), count(Verdict::NotKnownHere), count(Verdict::Failed)) {
            (0, 0, 0) => "ok".to_owned(),
            (warnings, unknown, failed) => {
                let all = [(failed, "failed"), (warnings, "with a warning"), (unknown, "not known here")];
                let all = all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
                all.collect::<Vec<_>>().join(", ")
            }
        };
        progress.end_with(&outcome);
        for check in self.of(Verdict::Warning) {
            progress.line(&format!("  warning: {}: {}", check.name, check.detail));
            check.hint.iter().for_each(|hint| progress.line(&format!("    {hint}")));
        }
        for check in self.of(Verdict::NotKnownHere) {
            progress.line(&format!("  not known here: {}: {}", check.name, check.detail));
        }
        self.refuse()
    }

    pub(crate) fn refuse(&self) -> Result<()> {
        let failed: Vec<&Check> = self.of(Verdict::Failed).collect();
        let exit = match failed.iter().any(|check| check.name == permission::NAME) {
            true => Exit::Denied,
            false => Exit::Failed,
        };
        let (what, hint) = match failed[..] {
            [] => return Ok(()),
            [one] => (format!("{}: {}", one.name, one.detail), one.hint.clone().unwrap_or_default()),
            _ => {
                let line = |check: &&Check| {
                    let hint = check.hint.as_ref().map_or_else(String::new, |hint| format!("\n    {hint}"));
                    format!("{}: {}{hint}", check.name, check.detail)
                };
                let lines: Vec<String> = failed.iter().map(line).collect();
                (format!("{} checks failed", failed.len()), lines.join("\n  "))
            }
        };
        Err(DeployError::new(exit, what).hint(format!("{hint}\n  Nothing was changed.")))
    }

    fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.verdict == verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(verdicts: &[(&'static str, Verdict)]) -> Findings {
        let check = |(name, verdict): &(&'static str, Verdict)| {
            Check::new(name, *verdict, "its detail").hint("What to do.")
        };
        Findings { checks: verdicts.iter().map(check).collect(), rollout: None }
    }

    #[test]
    fn only_a_failure_stops_a_deployment() {
        let all = [("a", Verdict::Ok), ("b", Verdict::Warning), ("c", Verdict::NotKnownHere)];
        assert!(findings(&all).refuse().is_ok());
        let error = findings(&[("vCPU quota", Verdict::Failed)]).refuse().expect_err("it failed");
        assert_eq!(error.exit, Exit::Failed);
        assert_eq!(error.message(), "vCPU quota: its detail\n  What to do.\n  Nothing was changed.");
    }

    #[test]
    fn a_missing_permission_has_the_exit_code_of_credentials() {
        let all = [("vCPU quota", Verdict::Failed), (permission::NAME, Verdict::Failed)];
        let error = findings(&all).refuse().expect_err("both failed");
        assert_eq!(error.exit, Exit::Denied);
        assert!(error.message().starts_with("2 checks failed\n  vCPU quota: its detail\n    What to do."));
    }
}
