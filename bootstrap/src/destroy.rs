//! `destroy`: removes the stack in reverse order, starting with the parts that could create it again.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use fleet::aws_code::AwsErrorKind;
use fleet::keys;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::aws::Aws;
use crate::cli::{Manners, Target};
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::output::{self, Mode, Progress};
use crate::part::Part;
use crate::resources::bucket::{self, Contents};
use crate::resources::role::{self, Role};
use crate::resources::{certificate, function, instance, load_balancer, network, schedule, secrets};
use crate::token;

/// Lambda takes up to 20 minutes, sometimes longer, to give the function's network interfaces back.
const NETWORK_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// Whether the operator has agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    Given,
    /// By typing the stack's name.
    AskedFor,
    CannotAsk,
}

impl Consent {
    pub fn of(yes: bool, manners: Manners) -> Self {
        match yes {
            true => Self::Given,
            false if manners.no_input || !std::io::stdin().is_terminal() => Self::CannotAsk,
            false => Self::AskedFor,
        }
    }
}

pub async fn run(target: &Target, consent: Consent, keep_data: bool) -> Result<()> {
    if consent == Consent::CannotAsk {
        return Err(DeployError::new(
            Exit::Usage,
            "destroy needs a confirmation, and cannot ask for it \
            without a terminal or with --no-input",
        )
        .hint("Add --yes (make: YES=1) to confirm."));
    }
    let aws = Aws::connect(target).await?;
    if consent == Consent::AskedFor {
        confirm(&aws, keep_data).await?;
    }
    let mut progress = Progress::default();

    progress.begin("reconciler");
    progress.end(delete_reconciler(&aws).await?);

    progress.begin("instances");
    let terminated = instance::terminate_all(&aws).await?;
    let addresses = load_balancer::release_addresses(&aws).await?;
    progress.end([terminated, addresses].concat());

    progress.begin("network");
    let deleted = delete_network(&aws, &progress).await?;
    progress.end(deleted);

    progress.begin("roles");
    let mut parts = Vec::new();
    for role in Role::ALL {
        parts.extend(role::delete(&aws, role).await?);
    }
    progress.end(parts);

    progress.begin("logs and buckets");
    let mut parts = vec![function::delete_log_group(&aws).await?];
    parts.push(bucket::delete(&aws, Contents::Control).await?);
    if !keep_data {
        parts.push(bucket::delete(&aws, Contents::Users).await?);
    }
    progress.end(parts);
    // The token in the file is no longer valid.
    let token_file = token::file(target, &aws);
    secrets::forget_token(&token_file);
    certificate::keep_file(&certificate::file(&token_file), None)?;
    progress.finish();
    let stack = &target.stack;
    if role::has_spot(&aws).await.unwrap_or(false) {
        progress.line(&format!("{} stays: it belongs to the account, not to a stack.", role::SPOT_ROLE));
    }
    if progress.changes() == 0 {
        progress.line(&format!("There is no stack {stack}: nothing to remove."));
    } else if keep_data {
        progress
            .line(&format!("Stack {stack} is removed; its users are kept in {}.", aws.names.data_bucket()));
    } else {
        progress.line(&format!("Stack {stack} is removed."));
    }
    if output::mode() == Mode::Json {
        let users = keep_data.then(|| aws.names.data_bucket());
        output::result(
            &json!({"stack": stack, "changes": progress.changes(), "parts": progress.parts, "kept": users})
                .to_string(),
        );
    }
    Ok(())
}

async fn confirm(aws: &Aws, keep_data: bool) -> Result<()> {
    let stack = &aws.names.stack;
    let users = if keep_data { "; its users are kept" } else { " with all its users" };
    let mut err = std::io::stderr();
    write!(
        err,
        "This removes stack {stack} in account {}, region {}{users}.\nType the stack's name to go on: ",
        aws.names.account, aws.names.region
    )
    .ok();
    err.flush().ok();
    // On a thread of its own, so that Ctrl-C works during the question.
    let read = || {
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).ok();
        answer
    };
    let answer = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    if answer.trim() == stack.as_str() {
        Ok(())
    } else {
        Err(DeployError::new(Exit::Usage, "nothing was removed: the answer is not the stack's name")
            .hint("To remove the stack, run this again and type its name, or add --yes (make: YES=1)."))
    }
}

/// Withdraws the release first: without it the reconciler launches nothing, so a tick in progress cannot undo
/// the removal.
async fn delete_reconciler(aws: &Aws) -> Result<Vec<Part>> {
    let released = delete_release(aws).await?;
    let scheduled = schedule::delete(aws).await?;
    let deleted = function::delete(aws).await?;
    Ok(vec![released, scheduled, deleted])
}

async fn delete_release(aws: &Aws) -> Result<Part> {
    let deleted = aws.s3.delete_object().bucket(aws.names.control_bucket()).key(keys::RELEASE).send().await;
    found(deleted.step(|| "withdraw the release".to_owned()))?;
    Ok(Part::unchanged("release"))
}

async fn delete_network(aws: &Aws, progress: &Progress) -> Result<Vec<Part>> {
    let deadline = Instant::now() + NETWORK_DEADLINE;
    loop {
        match network::delete(aws).await {
            Err(error) if error.kind == AwsErrorKind::InUse && Instant::now() < deadline => {
                progress.waiting(&format!("network: AWS still holds a part of it ({})", error.what));
                // An instance launched by a tick that was in progress shows up as such a part.
                instance::terminate_all(aws).await?;
                sleep(Duration::from_secs(5)).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;

    #[tokio::test]
    async fn destroy_withdraws_the_release_first() {
        const RELEASE: &str = "DELETE /vigia-a-control-123456789012-eu-west-1/fleet/release.json";
        let stub = Stub::default().says(RELEASE, 204, "");
        // The call after it has no answer.
        delete_reconciler(&stub.serve().await).await.expect_err("the schedule cannot be read");
        assert_eq!(stub.count(RELEASE), 1);
    }

    #[tokio::test]
    async fn a_late_instance_that_holds_the_network_is_terminated() {
        let late = "<reservationSet><item><instancesSet><item><instanceId>i-1</instanceId>\
                    <instanceState><name>running</name></instanceState></item></instancesSet></item></reservationSet>";
        let stub = Stub::default()
            .answers("DescribeVpcs", "<vpcSet><item><vpcId>vpc-1</vpcId></item></vpcSet>")
            .answers("DescribeVpcs", "<vpcSet/>")
            .answers("DescribeVpcEndpoints", "<vpcEndpointSet/>")
            .answers("DescribeSecurityGroups", "<securityGroupInfo/>")
            .answers("DescribeSubnets", "<subnetSet/>")
            .answers("DescribeRouteTables", "<routeTableSet/>")
            .answers("DescribeInternetGateways", "<internetGatewaySet/>")
            .answers("DescribeEgressOnlyInternetGateways", "<egressOnlyInternetGatewaySet/>")
            .refuses("DeleteVpc", "DependencyViolation")
            .answers("DescribeInstances", late)
            .answers("DescribeInstances", "<reservationSet/>")
            .answers("TerminateInstances", "<instancesSet/>");
        delete_network(&stub.serve().await, &Progress::default()).await.expect("it is gone");
        assert_eq!(stub.count("TerminateInstances"), 1);
    }
}
