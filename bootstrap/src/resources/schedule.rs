//! The EventBridge rule that invokes the reconciler once a minute.
//!
//! A late tick is worthless, because the next one sees the same world: no retries anywhere.

use aws_sdk_eventbridge::types::{RetryPolicy, RuleState, Tag, Target};
use fleet::aws_code::AwsErrorKind;

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{Doing, Part};

/// The finest that EventBridge has; the function itself ticks every 20 seconds within it.
pub const EVERY_MINUTE: &str = "rate(1 minute)";
const TARGET: &str = "reconciler";
const STATEMENT: &str = "eventbridge";
/// A delivery older than the period is a tick that the next invocation makes anyway.
const MAX_AGE_SECONDS: i32 = 60;

/// What there is of the rule.
struct Found {
    exists: bool,
    is_right: bool,
    has_target: bool,
    may_invoke: bool,
}

pub async fn ensure(aws: &Aws, doing: Doing) -> Result<Part> {
    let rule = aws.names.stack.schedule_rule();
    let found = find(aws, &rule).await?;
    let part = compare(&rule, &found);
    if doing.applies(&part) {
        if !found.is_right {
            put_rule(aws, &rule, &found).await?;
        }
        if !found.has_target {
            put_target(aws, &rule).await?;
        }
        if !found.may_invoke {
            allow(aws).await?;
        }
    }
    Ok(part)
}

fn compare(rule: &str, found: &Found) -> Part {
    let what = format!("schedule {rule}");
    if !found.exists {
        return Part::created(what);
    }
    let wrong = [
        (found.is_right, "when it fires"),
        (found.has_target, "what it invokes"),
        (found.may_invoke, "the permission to invoke"),
    ];
    let differs = wrong.iter().filter(|(is_right, _)| !is_right).map(|(_, what)| (*what).to_owned());
    Part::compared(what, differs.collect())
}

async fn find(aws: &Aws, rule: &str) -> Result<Found> {
    let described = aws.events.describe_rule().name(rule).send().await;
    let described = found(described.step(|| format!("look at the rule {rule}")))?;
    let listed = aws.events.list_targets_by_rule().rule(rule).send().await;
    let listed = found(listed.step(|| format!("list the targets of {rule}")))?;
    let arn = aws.names.function_arn();
    let targets = listed.and_then(|listed| listed.targets).unwrap_or_default();
    let function = aws.names.stack.function();
    let policy = aws.lambda.get_policy().function_name(&function).send().await;
    let policy = found(policy.step(|| format!("read the policy of {function}")))?;
    Ok(Found {
        exists: described.is_some(),
        is_right: described.is_some_and(|described| {
            described.schedule_expression() == Some(EVERY_MINUTE)
                && described.state() == Some(&RuleState::Enabled)
        }),
        has_target: targets.iter().any(|target| target.id() == TARGET && target.arn() == arn),
        may_invoke: policy
            .and_then(|policy| policy.policy)
            .is_some_and(|text| text.contains(&aws.names.rule_arn())),
    })
}

async fn put_rule(aws: &Aws, rule: &str, found: &Found) -> Result<()> {
    let mut tags = Vec::new();
    for (key, value) in aws.names.tags("reconcile") {
        tags.push(Tag::builder().key(key).value(value).build().map_err(|error| {
            DeployError::new(Exit::Failed, "the tags of the rule are incomplete").caused_by(error)
        })?);
    }
    let put = aws.events.put_rule().name(rule).schedule_expression(EVERY_MINUTE).state(RuleState::Enabled);
    // Tags on an existing rule are an error in PutRule.
    let put = if found.exists { put } else { put.set_tags(Some(tags)) };
    let written =
        aws.patience.settled(async || put.clone().send().await.step(|| format!("write the rule {rule}")));
    written.await.map(drop)
}

async fn put_target(aws: &Aws, rule: &str) -> Result<()> {
    let retry = RetryPolicy::builder()
        .maximum_retry_attempts(0)
        .maximum_event_age_in_seconds(MAX_AGE_SECONDS)
        .build();
    let arn = aws.names.function_arn();
    let target = Target::builder().id(TARGET).arn(arn).retry_policy(retry).build().map_err(|error| {
        DeployError::new(Exit::Failed, "the rule's target is incomplete").caused_by(error)
    })?;
    let put = aws.events.put_targets().rule(rule).targets(target);
    let put = aws
        .patience
        .settled(async || put.clone().send().await.step(|| format!("point {rule} at the reconciler")));
    let put = put.await?;
    // PutTargets answers 200 for entries that failed.
    match put.failed_entries().first() {
        None => Ok(()),
        Some(failed) => {
            let why = failed.error_message().unwrap_or("no reason given");
            Err(DeployError::new(Exit::Failed, format!("could not point {rule} at the reconciler: {why}")))
        }
    }
}

/// Lets the rule, and only it, invoke the function.
async fn allow(aws: &Aws) -> Result<()> {
    let function = aws.names.stack.function();
    let added = aws
        .lambda
        .add_permission()
        .function_name(&function)
        .statement_id(STATEMENT)
        .action("lambda:InvokeFunction")
        .principal("events.amazonaws.com")
        .source_arn(aws.names.rule_arn())
        .source_account(&aws.names.account)
        .send()
        .await
        .step(|| format!("let the rule invoke {function}"));
    match added {
        Err(error) if error.kind != AwsErrorKind::Conflict => Err(error),
        _ => Ok(()),
    }
}

pub async fn delete(aws: &Aws) -> Result<Part> {
    let rule = aws.names.stack.schedule_rule();
    let what = format!("schedule {rule}");
    let described = aws.events.describe_rule().name(&rule).send().await;
    if found(described.step(|| format!("look at the rule {rule}")))?.is_none() {
        return Ok(Part::unchanged(what));
    }
    let removed = aws.events.remove_targets().rule(&rule).ids(TARGET).send().await;
    found(removed.step(|| format!("remove the target of {rule}")))?;
    let deleted = aws.events.delete_rule().name(&rule).send().await;
    found(deleted.step(|| format!("delete the rule {rule}")))?;
    Ok(Part::removed(what))
}
