//! `plan`: shows the changes that `deploy` would make now, and the stack's cost.
//!
//! It runs the deployment itself, as a dry run.

use std::fmt::Write as _;

use fleet::release::{Market, Rollout};
use serde::Serialize;

use crate::aws::Aws;
use crate::blueprint::Ec2Api;
use crate::check::{Check, Verdict};
use crate::cli::{Deploy, Target};
use crate::cost::{self, Estimate, Size};
use crate::deploy::{self, Inputs, Stack};
use crate::error::Result;
use crate::output::{self, Mode, Progress};
use crate::part::{Change, Part, RunMode};
use crate::{preflight, token};

#[derive(Serialize)]
struct Plan {
    stack: String,
    account: String,
    region: String,
    /// How many resources would be created, updated or removed.
    changes: usize,
    parts: Vec<Part>,
    /// Checks of the credentials and the account, see `preflight.rs`.
    checks: Vec<Check>,
    /// How workers would be replaced.
    rollout: Rollout,
    cost: Estimate,
}

/// Returns whether a deployment would change anything.
pub async fn run(target: &Target, options: &Deploy) -> Result<bool> {
    let inputs = Inputs::read(target, options)?;
    let aws = Aws::connect(target).await?;
    let mut progress = Progress::silent();
    let findings = preflight::look(&aws, options).await;
    findings.refuse()?;
    let (rollout, token_file) = (findings.rollout, token::file(target, &aws));
    let stack =
        deploy::bring(&aws, RunMode::Plan, options, inputs, rollout, &token_file, &mut progress).await?;
    progress.finish();
    let plan = Plan {
        stack: aws.names.stack.to_string(),
        account: aws.names.account.clone(),
        region: aws.names.region.clone(),
        changes: progress.changes(),
        parts: std::mem::take(&mut progress.parts),
        checks: findings.checks,
        rollout: stack.release.rollout,
        cost: cost::estimate(&size(options, &stack)),
    };
    if output::mode() == Mode::Json {
        output::result(&serde_json::to_string_pretty(&plan).expect("a plan is plain data"));
    } else {
        output::result(&plan.table());
    }
    Ok(plan.changes > 0)
}

fn size(options: &Deploy, stack: &Stack) -> Size {
    let endpoint_zones = match stack.network.ec2_api {
        Ec2Api::DualStack => 0,
        Ec2Api::Endpoint => stack.network.private.len(),
    };
    Size {
        workers: stack.desired.get(),
        is_spot: stack.release.worker.market == Market::Spot,
        balancers: u32::try_from(stack.balancers.len()).expect("a few load balancers"),
        instance_type: stack.release.worker.instance_type.clone(),
        credits: stack.release.worker.credits,
        arch: options.arch,
        endpoint_zones: u32::try_from(endpoint_zones).expect("a few zones"),
    }
}

impl Plan {
    fn table(&self) -> String {
        let Self { stack, account, region, parts, .. } = self;
        let mut text = format!("Stack {stack} in account {account}, region {region}\n\n");
        for part in parts {
            let sign = match part.change {
                Change::Unchanged => "  keep",
                Change::Created => "+ create",
                Change::Updated => "~ change",
                Change::Removed => "- remove",
            };
            writeln!(text, "{sign:<10}  {part}").expect("writing to a String cannot fail");
        }
        let count = |change| parts.iter().filter(|part| part.change == change).count();
        let verdict = match self.changes {
            0 => "A deployment would change nothing.".to_owned(),
            _ => format!(
                "A deployment would create {}, change {} and remove {}; {} are up to date.",
                count(Change::Created),
                count(Change::Updated),
                count(Change::Removed),
                count(Change::Unchanged)
            ),
        };
        write!(text, "\n{verdict}\n{}\n{}", self.caveats(), self.cost.table(region))
            .expect("writing to a String cannot fail");
        text
    }

    /// Returns how workers would be replaced, if not as usual, and the checks that are not `ok`.
    fn caveats(&self) -> String {
        let mut text = match self.rollout {
            Rollout::SurgeFirst => String::new(),
            Rollout::StopFirst => {
                "An update stops one machine before it launches the next: the account's quota \
                                   has no room for one more.\n"
                    .to_owned()
            }
        };
        for check in self.checks.iter().filter(|check| check.verdict != Verdict::Ok) {
            writeln!(text, "{}: {}: {}", check.verdict.word(), check.name, check.detail)
                .expect("writing to a String cannot fail");
            if let Some(hint) = &check.hint {
                writeln!(text, "  {hint}").expect("writing to a String cannot fail");
            }
        }
        text
    }
}
