//! The EventBridge rule that invokes the reconciler once a minute.
//!
//! A late tick is worthless, because the next one sees the same world: no retries anywhere.

use aws_sdk_eventbridge::types::{RetryPolicy, RuleState, Tag, Target};
use fleet::aws_code::AwsErrorKind;

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::output::Change;

/// The finest that EventBridge has; the function itself ticks every 20 seconds within it.
const EVERY_MINUTE: &str = "rate(1 minute)";
const TARGET: &str = "reconciler";
const STATEMENT: &str = "eventbridge";
/// A delivery older than the period is a tick that the next invocation makes anyway.
const MAX_AGE_SECONDS: i32 = 60;

pub async fn ensure(aws: &Aws) -> Result<Change> {
    let rule = aws.names.stack.schedule_rule();
    let mut change = Change::Unchanged;
    let described = aws.events.describe_rule().name(&rule).send().await;
    let described = found(described.step(|| format!("look at the rule {rule}")))?;
    let is_right = described.as_ref().is_some_and(|described| {
        described.schedule_expression() == Some(EVERY_MINUTE)
            && described.state() == Some(&RuleState::Enabled)
    });
    if !is_right {
        let mut tags = Vec::new();
        for (key, value) in aws.names.tags("reconcile") {
            tags.push(Tag::builder().key(key).value(value).build().map_err(|error| {
                DeployError::new(Exit::Failed, "the tags of the rule are incomplete").caused_by(error)
            })?);
        }
        let put =
            aws.events.put_rule().name(&rule).schedule_expression(EVERY_MINUTE).state(RuleState::Enabled);
        // Tags on an existing rule are an error in PutRule.
        let put = if described.is_none() { put.set_tags(Some(tags)) } else { put };
        let written =
            aws.patience.settled(async || put.clone().send().await.step(|| format!("write the rule {rule}")));
        written.await?;
        change = if described.is_none() { Change::Created } else { Change::Updated };
    }
    let listed = aws.events.list_targets_by_rule().rule(&rule).send().await;
    let listed = listed.step(|| format!("list the targets of {rule}"))?;
    let arn = aws.names.function_arn();
    if !listed.targets().iter().any(|target| target.id() == TARGET && target.arn() == arn) {
        let retry = RetryPolicy::builder()
            .maximum_retry_attempts(0)
            .maximum_event_age_in_seconds(MAX_AGE_SECONDS)
            .build();
        let target = Target::builder().id(TARGET).arn(&arn).retry_policy(retry).build().map_err(|error| {
            DeployError::new(Exit::Failed, "the rule's target is incomplete").caused_by(error)
        })?;
        let put = aws.events.put_targets().rule(&rule).targets(target);
        let put = aws
            .patience
            .settled(async || put.clone().send().await.step(|| format!("point {rule} at the reconciler")));
        let put = put.await?;
        // PutTargets answers 200 for entries that failed.
        if let Some(failed) = put.failed_entries().first() {
            let why = failed.error_message().unwrap_or("no reason given");
            return Err(DeployError::new(
                Exit::Failed,
                format!("could not point {rule} at the reconciler: {why}"),
            ));
        }
        change = if change == Change::Unchanged { Change::Updated } else { change };
    }
    if allow(aws).await? != Change::Unchanged && change == Change::Unchanged {
        change = Change::Updated;
    }
    Ok(change)
}

/// Lets the rule, and only it, invoke the function.
async fn allow(aws: &Aws) -> Result<Change> {
    let function = aws.names.stack.function();
    let policy = aws.lambda.get_policy().function_name(&function).send().await;
    let policy = found(policy.step(|| format!("read the policy of {function}")))?;
    let is_allowed =
        policy.and_then(|policy| policy.policy).is_some_and(|text| text.contains(&aws.names.rule_arn()));
    if is_allowed {
        return Ok(Change::Unchanged);
    }
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
        Ok(_) => Ok(Change::Created),
        Err(error) if error.kind == AwsErrorKind::Conflict => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

pub async fn delete(aws: &Aws) -> Result<Change> {
    let rule = aws.names.stack.schedule_rule();
    let described = aws.events.describe_rule().name(&rule).send().await;
    if found(described.step(|| format!("look at the rule {rule}")))?.is_none() {
        return Ok(Change::Unchanged);
    }
    let removed = aws.events.remove_targets().rule(&rule).ids(TARGET).send().await;
    found(removed.step(|| format!("remove the target of {rule}")))?;
    let deleted = aws.events.delete_rule().name(&rule).send().await;
    found(deleted.step(|| format!("delete the rule {rule}")))?;
    Ok(Change::Removed)
}
