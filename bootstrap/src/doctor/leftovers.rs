//! Finds resources with the stack's name or tag although there is no stack, and the roles that `cargo lambda`
//! leaves when it has to make one itself.

use aws_sdk_ec2::types::Instance;

use super::account::idle_addresses;
use super::{Subject, judge};
use crate::check::{Check, Verdict};
use crate::error::{DeployError, Result, Step as _, found};
use crate::resources::bucket::Contents;
use crate::resources::instance;
use crate::resources::network::stack_filter;
use crate::resources::role::Role;

/// A thousand roles is the default limit of an account; pages have a hundred.
const MOST_PAGES: usize = 60;
const ORPHAN: &str = "cargo-lambda-role-";

pub(super) async fn look(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let orphans =
        orphans(subject).await.unwrap_or_else(|error| vec![Check::unknown("leftover roles", &error)]);
    let mut checks = match &subject.release {
        None => vec![without_a_stack(subject).await?],
        Some(_) => vec![beside_a_stack(subject).await?],
    };
    checks.extend(orphans);
    Ok(checks)
}

async fn without_a_stack(subject: &Subject<'_>) -> Result<Check> {
    let aws = subject.aws;
    let stack = &aws.names.stack;
    let mut all = Vec::new();
    let vpcs = aws.ec2.describe_vpcs().filters(stack_filter(aws)).send().await;
    let vpcs = vpcs.step(|| "look for VPCs of the stack".to_owned())?;
    all.extend(vpcs.vpcs().iter().filter_map(|vpc| vpc.vpc_id()).map(|id| format!("the VPC {id}")));
    let addresses = aws.ec2.describe_addresses().filters(stack_filter(aws)).send().await;
    let addresses = addresses.step(|| "look for Elastic IPs of the stack".to_owned())?;
    all.extend(
        addresses
            .addresses()
            .iter()
            .filter_map(|one| one.public_ip())
            .map(|ip| format!("the Elastic IP {ip}")),
    );
    let instances = instance::list(aws, &instance::LIVE).await?;
    all.extend(instances.iter().filter_map(Instance::instance_id).map(|id| format!("the instance {id}")));
    for role in Role::ALL {
        let name = role.name(&aws.names);
        let got = aws.iam.get_role().role_name(&name).send().await;
        if found(got.step(|| format!("look for the role {name}")))?.is_some() {
            all.push(format!("the role {name}"));
        }
    }
    let function = stack.function();
    let got = aws.lambda.get_function().function_name(&function).send().await;
    if found(got.step(|| format!("look for the function {function}")))?.is_some() {
        all.push(format!("the function {function}"));
    }
    let rule = stack.schedule_rule();
    let got = aws.events.describe_rule().name(&rule).send().await;
    if found(got.step(|| format!("look for the rule {rule}")))?.is_some() {
        all.push(format!("the rule {rule}"));
    }
    let group = stack.log_group();
    let got = aws.logs.describe_log_groups().log_group_name_prefix(&group).send().await;
    let got = got.step(|| format!("look for the log group {group}"))?;
    if got.log_groups().iter().any(|one| one.log_group_name() == Some(&group)) {
        all.push(format!("the log group {group}"));
    }
    let has = async |contents: Contents| {
        let bucket = contents.bucket(aws);
        let head = aws.s3.head_bucket().bucket(&bucket).send().await;
        Ok::<_, DeployError>(found(head.step(|| format!("look for the bucket {bucket}")))?.map(|_| bucket))
    };
    all.extend(has(Contents::Control).await?.map(|bucket| format!("the bucket {bucket}")));
    let users = has(Contents::Users).await?;
    if all.is_empty() {
        return Ok(judge::leftovers(stack.as_str(), &all, users.as_deref()));
    }
    all.extend(users.map(|bucket| format!("the bucket {bucket}")));
    Ok(judge::leftovers(stack.as_str(), &all, None))
}

async fn beside_a_stack(subject: &Subject<'_>) -> Result<Check> {
    let idle = idle_addresses(subject).await?;
    let vpcs = subject.aws.ec2.describe_vpcs().filters(stack_filter(subject.aws)).send().await;
    let vpcs = vpcs.step(|| "look for VPCs of the stack".to_owned())?;
    if vpcs.vpcs().len() > 1 {
        let ids: Vec<&str> = vpcs.vpcs().iter().filter_map(|vpc| vpc.vpc_id()).collect();
        let detail = format!("{} VPCs carry the stack's tag: {}", ids.len(), ids.join(", "));
        return Ok(
            Check::new("leftovers", Verdict::Failed, detail).hint("Delete the VPCs that no instance uses.")
        );
    }
    if !idle.is_empty() {
        let detail = format!("the Elastic IPs {} belong to no instance and cost money", idle.join(", "));
        return Ok(Check::new("leftovers", Verdict::Warning, detail).hint(
            "The reconciler gives the stack's Elastic IPs to load balancers within minutes. Release \
                any other.",
        ));
    }
    Ok(Check::new("leftovers", Verdict::Ok, "none"))
}

/// Finds orphaned roles. `cargo lambda deploy` without a role makes one and never removes it; this program
/// passes a role, others may not.
async fn orphans(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let mut pages = subject.aws.iam.list_roles().into_paginator().send();
    let mut orphans = Vec::new();
    for _ in 0..MOST_PAGES {
        let Some(page) = pages.next().await else { break };
        let page = page.step(|| "list the roles".to_owned())?;
        let names = page.roles().iter().map(|role| role.role_name().to_owned());
        orphans.extend(names.filter(|name| name.starts_with(ORPHAN)));
    }
    if orphans.is_empty() {
        return Ok(Vec::new());
    }
    let detail = format!("{} made by `cargo lambda`: {}", orphans.len(), orphans.join(", "));
    Ok(vec![Check::new("leftover roles", Verdict::Warning, detail).hint(
        "Vigia does not use them. Delete the roles that no function uses (Lambda console, \
                Permissions).",
    )])
}
