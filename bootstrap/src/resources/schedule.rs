//! The EventBridge rule that invokes the reconciler once a minute.
//!
//! A late tick is useless, because the next one sees the same state: nothing is retried.

use aws_sdk_eventbridge::types::{RetryPolicy, RuleState, Tag, Target};
use fleet::aws_code::AwsErrorKind;
use serde_json::Value;

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{Part, RunMode};

/// The shortest period of EventBridge; the function itself ticks every 20 seconds within it.
pub const EVERY_MINUTE: &str = "rate(1 minute)";
const TARGET: &str = "reconciler";
const STATEMENT: &str = "eventbridge";
/// A delivery older than the period is a tick that the next invocation makes anyway.
const MAX_AGE_SECONDS: i32 = 60;

/// The existing parts of the rule.
struct Found {
    exists: bool,
    is_right: bool,
    has_target: bool,
    may_invoke: bool,
}

pub async fn ensure(aws: &Aws, mode: RunMode) -> Result<Part> {
    let rule = aws.names.stack.schedule_rule();
    let found = find(aws, &rule).await?;
    let part = compare(&rule, &found);
    if mode.applies(&part) {
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
        (found.is_right, "its rate"),
        (found.has_target, "its target"),
        (found.may_invoke, "its permission to invoke the function"),
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
    Ok(Found {
        exists: described.is_some(),
        is_right: described.is_some_and(|described| {
            described.schedule_expression() == Some(EVERY_MINUTE)
                && described.state() == Some(&RuleState::Enabled)
        }),
        has_target: targets.iter().any(|target| target.id() == TARGET && target.arn() == arn),
        may_invoke: permission(aws).await? == Permission::Granted,
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
    // PutRule refuses tags on an existing rule.
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
    let put = async || {
        let put = put.clone().send().await.step(|| format!("point {rule} at the reconciler"))?;
        // PutTargets answers 200 for entries that failed.
        match put.failed_entries().first() {
            None => Ok(()),
            Some(failed) => Err(of_entry(rule, failed.error_code(), failed.error_message())),
        }
    };
    aws.patience.depends_on(&format!("the rule {rule}"), put).await
}

fn of_entry(rule: &str, code: Option<&str>, message: Option<&str>) -> DeployError {
    let (code, why) = (code.unwrap_or_default(), message.unwrap_or("no reason given"));
    let what = format!("could not point {rule} at the reconciler: {code}: {why}");
    let mut error = DeployError::new(Exit::Failed, what).hint("Deploy again.");
    (error.kind, error.code) = (AwsErrorKind::of(code, why), code.to_owned());
    error
}

/// Lets the rule, and only it, invoke the function.
///
/// Lambda answers with the same conflict when the permission exists already and when another change of the
/// function is in progress. So this function reads the function's policy to tell them apart.
async fn allow(aws: &Aws) -> Result<()> {
    let function = aws.names.stack.function();
    let add = aws
        .lambda
        .add_permission()
        .function_name(&function)
        .statement_id(STATEMENT)
        .action("lambda:InvokeFunction")
        .principal("events.amazonaws.com")
        .source_arn(aws.names.rule_arn())
        .source_account(&aws.names.account);
    let added = async || {
        let added = add.clone().send().await.step(|| format!("let the rule invoke {function}"));
        let Err(error) = added else { return Ok(()) };
        if error.kind != AwsErrorKind::Conflict {
            return Err(error);
        }
        match permission(aws).await? {
            Permission::Granted => Ok(()),
            Permission::Missing => Err(error),
            Permission::Other => Err(DeployError::new(
                Exit::Failed,
                format!("{function} has a statement `{STATEMENT}` that is not for the stack's schedule"),
            )
            .hint(format!(
                "Remove it (`aws lambda remove-permission --function-name {function} --statement-id \
                 {STATEMENT}`), then deploy again."
            ))),
        }
    };
    aws.patience.depends_on(&format!("the function {function}"), added).await
}

/// Whether the rule may invoke the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Granted,
    Missing,
    /// The name of Vigia's statement belongs to another statement.
    Other,
}

async fn permission(aws: &Aws) -> Result<Permission> {
    let function = aws.names.stack.function();
    let got = aws.lambda.get_policy().function_name(&function).send().await;
    let got = found(got.step(|| format!("read the policy of {function}")))?;
    let text = got.and_then(|got| got.policy).unwrap_or_default();
    Ok(judge_policy(&text, &aws.names.rule_arn()))
}

fn judge_policy(text: &str, rule: &str) -> Permission {
    let policy: Value = serde_json::from_str(text).unwrap_or_default();
    let statements = policy["Statement"].as_array().cloned().unwrap_or_default();
    let is_ours = |statement: &Value| {
        let conditions = statement["Condition"].as_object().into_iter().flatten();
        conditions
            .flat_map(|(_, keys)| keys.as_object().into_iter().flatten())
            .any(|(key, value)| key.eq_ignore_ascii_case("aws:SourceArn") && value.as_str() == Some(rule))
    };
    if statements.iter().any(is_ours) {
        Permission::Granted
    } else if statements.iter().any(|statement| statement["Sid"] == STATEMENT) {
        Permission::Other
    } else {
        Permission::Missing
    }
}

pub async fn delete(aws: &Aws) -> Result<Part> {
    let rule = aws.names.stack.schedule_rule();
    let what = format!("schedule {rule}");
    let described = aws.events.describe_rule().name(&rule).send().await;
    if found(described.step(|| format!("look at the rule {rule}")))?.is_none() {
        return Ok(Part::unchanged(what));
    }
    let remove = aws.events.remove_targets().rule(&rule).ids(TARGET);
    let removed = async || remove.clone().send().await.step(|| format!("remove the target of {rule}"));
    aws.patience.deleted(removed).await?;
    let delete = aws.events.delete_rule().name(&rule);
    let deleted = async || {
        let deleted = delete.clone().send().await.step(|| format!("delete the rule {rule}"));
        deleted.map_err(target_is_still_seen)
    };
    aws.patience.deleted(deleted).await?;
    Ok(Part::removed(what))
}

/// EventBridge reports it in words only, without a code.
fn target_is_still_seen(mut error: DeployError) -> DeployError {
    if error.code == "ValidationException" && error.what.contains("has targets") {
        error.kind = AwsErrorKind::InUse;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;

    const RULE: &str = "arn:aws:events:eu-west-1:123456789012:rule/vigia-a-reconcile";

    fn judged(sid: &str, source: &str) -> Permission {
        let statement = serde_json::json!({
            "Sid": sid, "Effect": "Allow", "Action": "lambda:InvokeFunction",
            "Condition": {"StringEquals": {"AWS:SourceAccount": "123456789012"}, "ArnLike": {"AWS:SourceArn": source}}
        });
        judge_policy(&serde_json::json!({"Statement": [statement]}).to_string(), RULE)
    }

    #[test]
    fn a_permission_counts_only_if_it_is_for_the_rule() {
        assert_eq!(judged(STATEMENT, RULE), Permission::Granted);
        assert_eq!(judged("by-hand", RULE), Permission::Granted);
        assert_eq!(judged(STATEMENT, &format!("{RULE}-2")), Permission::Other);
        assert_eq!(judged("by-hand", &format!("{RULE}-2")), Permission::Missing);
        assert_eq!(judge_policy("", RULE), Permission::Missing);
    }

    const POLICY: &str = "POST /2015-03-31/functions/vigia-a-reconciler/policy";
    const READ_POLICY: &str = "GET /2015-03-31/functions/vigia-a-reconciler/policy";
    const CONFLICT: &str = r#"{"__type":"ResourceConflictException","message":"m"}"#;

    #[tokio::test]
    async fn a_permission_is_added_again_after_another_change() {
        let stub = Stub::default().says(POLICY, 409, CONFLICT).says(POLICY, 201, "{}").says(
            READ_POLICY,
            404,
            r#"{"__type":"ResourceNotFoundException","message":"m"}"#,
        );
        allow(&stub.serve().await).await.expect("it is added");
        assert_eq!(stub.count(POLICY), 2);
    }

    #[tokio::test]
    async fn a_permission_that_is_there_is_not_added_again() {
        let statement = serde_json::json!({
            "Sid": STATEMENT, "Condition": {"ArnLike": {"AWS:SourceArn": RULE}}
        });
        let policy = serde_json::json!({"Statement": [statement]}).to_string();
        let stub = Stub::default().says(POLICY, 409, CONFLICT).says(
            READ_POLICY,
            200,
            &serde_json::json!({"Policy": policy}).to_string(),
        );
        allow(&stub.serve().await).await.expect("it is there");
        assert_eq!(stub.count(POLICY), 1);
    }

    #[tokio::test]
    async fn a_failed_target_in_a_successful_answer_is_tried_again() {
        const CALL: &str = "POST ";
        let failed =
            r#"{"FailedEntryCount":1,"FailedEntries":[{"ErrorCode":"ConcurrentModificationException"}]}"#;
        let stub = Stub::default().says(CALL, 200, failed).says(CALL, 200, r#"{"FailedEntryCount":0}"#);
        put_target(&stub.serve().await, "r").await.expect("it is put");
        assert_eq!(stub.count(CALL), 2);
    }

    #[test]
    fn a_target_that_failed_for_another_change_is_tried_again() {
        let kind = |code| of_entry("r", Some(code), None).kind;
        assert_eq!(kind("ConcurrentModificationException"), AwsErrorKind::Conflict);
        assert_eq!(kind("ResourceNotFoundException"), AwsErrorKind::NotFound);
    }
}
