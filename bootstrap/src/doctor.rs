//! `doctor`: checks everything that a stack needs, before its lack fails a command.
//!
//! The verdicts are those of `check.rs`; `doctor` exits with 1 if one is `failed`. The checks are independent
//! and run at the same time, each within its own limit.

mod account;
mod judge;
mod leftovers;
mod machine;
mod stack;

use std::time::Duration;

use fleet::keys;
use fleet::release::{Market, Release};
use serde_json::json;
use tokio::time::timeout;

use crate::aws::Aws;
use crate::check::{self, Check, Verdict, table};
use crate::cli::{self, Target};
use crate::error::{DeployError, Exit, Result};
use crate::output;
use crate::preflight::account::{self as quotas, FIRST_COUNT};
use crate::preflight::quota::Size;
use crate::preflight::trial;
use crate::resources::documents;

/// Limit of one check. Without a network, resolving a name alone takes ten seconds to fail.
const PATIENCE: Duration = Duration::from_secs(25);

/// The subject of the checks.
struct Subject<'a> {
    aws: &'a Aws,
    /// `None` if there is no stack.
    release: Option<Release>,
    /// The stack's size, present or planned.
    size: Size,
}

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
            checks.push(Check { hint: error.hint, ..failed });
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
            "not checked, because there are no credentials",
        )),
    }
    tell(target, options, &checks)
}

/// The checks that call AWS.
async fn asked(options: &cli::Doctor, aws: &Aws) -> Vec<Check> {
    let release = async {
        let object = documents::read(aws, keys::RELEASE).await?;
        Ok::<_, DeployError>(object.and_then(|object| serde_json::from_slice(&object.bytes).ok()))
    };
    let release: Option<Release> = match timeout(PATIENCE, release).await {
        Ok(Ok(release)) => release,
        Ok(Err(error)) => return vec![Check::unknown("account and stack", &error)],
        Err(_) => return vec![Check::late("account and stack", PATIENCE)],
    };
    let desired = documents::read(aws, keys::DESIRED_COUNT).await.ok().flatten();
    let desired = desired.and_then(|object| fleet::DesiredCount::from_object(&object.bytes).ok());
    let workers = options.workers.or(desired).map_or(FIRST_COUNT, fleet::DesiredCount::get);
    let kind = release.as_ref().map(|release| release.worker.instance_type.clone());
    let kind = options.instance_type.clone().or(kind);
    let size = Size {
        workers,
        balancers: release.as_ref().map_or(1, balancers),
        market: release.as_ref().map_or(Market::OnDemand, |release| release.worker.market),
        instance_type: kind.unwrap_or_else(|| options.arch.default_instance_type().to_owned()),
    };
    let subject = &Subject { aws, release, size };
    let size = &subject.size;
    let (vcpus, addresses, functions, vpcs, kind, dual_stack, launch, leftovers, stack) = tokio::join!(
        quotas::vcpus(aws, size, PATIENCE),
        within("Elastic IP quota", quotas::addresses(aws, size)),
        within("Lambda concurrency", quotas::concurrency(aws)),
        within("VPC quota", quotas::vpcs(aws)),
        within("instance type", account::instance_type(subject)),
        within("EC2 over IPv6", account::dual_stack(subject)),
        within("launch permission", trial::launch(aws, subject.release.as_ref())),
        within("leftovers", leftovers::look(subject)),
        within("stack", stack::look(subject)),
    );
    [vcpus.0, addresses, functions, vpcs, kind, dual_stack, launch, leftovers, stack].concat()
}

fn balancers(release: &Release) -> u32 {
    let count = release.balancer.as_ref().map_or(1, |balancer| balancer.places().count());
    u32::try_from(count).unwrap_or(u32::MAX)
}

async fn within(name: &'static str, look: impl Future<Output = Result<Vec<Check>>>) -> Vec<Check> {
    check::within(PATIENCE, name, look).await
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
