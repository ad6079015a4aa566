//! The settings of a bucket, each compared and set on its own.
//!
//! | setting | is as wanted if |
//! |---|---|
//! | public access | all four ways are blocked |
//! | access lists | they are switched off |
//! | encryption | there is a rule, whatever the key |
//! | versions | they are kept (users' bucket alone) |
//! | lifecycle | its rules say our times, and no others |
//! | policy | it has our statement; further statements stay |
//! | tags | ours are among them; further tags stay |

use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketVersioningStatus, ExpirationStatus,
    LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration, ObjectOwnership,
    OwnershipControls, OwnershipControlsRule, PublicAccessBlockConfiguration, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule, Tag, Tagging,
    VersioningConfiguration,
};
use serde_json::Value;

use super::Contents;
use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _};
use crate::policies;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    PublicAccess,
    Ownership,
    Encryption,
    Versions,
    Lifecycle,
    Policy,
    Tags,
}

impl Setting {
    /// Returns the settings in the order in which they are made: protection first.
    pub(super) fn of(aws: &Aws, contents: Contents) -> Vec<Self> {
        let is_plain_http = aws.endpoint_url.as_deref().is_some_and(|url| url.starts_with("http://"));
        let mut all = vec![Self::PublicAccess, Self::Ownership, Self::Encryption];
        all.extend((contents == Contents::Users).then_some(Self::Versions));
        all.push(Self::Lifecycle);
        // It would lock out every client that uses plain HTTP.
        all.extend((!is_plain_http).then_some(Self::Policy));
        all.push(Self::Tags);
        all
    }

    /// Returns the fault of a bucket without this setting.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::PublicAccess => "public access is not blocked",
            Self::Ownership => "access control lists are enabled",
            Self::Encryption => "no encryption",
            Self::Versions => "versioning is off",
            Self::Lifecycle => "its lifecycle rules",
            Self::Policy => "TLS is not required",
            Self::Tags => "tags",
        }
    }

    pub(super) async fn is_set(self, aws: &Aws, bucket: &str, contents: Contents) -> Result<bool> {
        let s3 = &aws.s3;
        let step = || format!("read the settings of {bucket}");
        match self {
            Self::PublicAccess => {
                let got = s3.get_public_access_block().bucket(bucket).send().await.step(step);
                let got = unless(got, "NoSuchPublicAccessBlockConfiguration")?;
                let block = got.and_then(|got| got.public_access_block_configuration);
                Ok(block.is_some_and(|block| block == everything_blocked()))
            }
            Self::Ownership => {
                let got = s3.get_bucket_ownership_controls().bucket(bucket).send().await.step(step);
                let controls =
                    unless(got, "OwnershipControlsNotFoundError")?.and_then(|got| got.ownership_controls);
                let rules = controls.map(|controls| controls.rules).unwrap_or_default();
                Ok(rules.iter().any(|rule| rule.object_ownership == ObjectOwnership::BucketOwnerEnforced))
            }
            Self::Encryption => {
                let got = s3.get_bucket_encryption().bucket(bucket).send().await.step(step);
                let got = unless(got, "ServerSideEncryptionConfigurationNotFoundError")?;
                let rules = got.and_then(|got| got.server_side_encryption_configuration).map(|it| it.rules);
                let rules = rules.unwrap_or_default();
                Ok(rules.iter().any(|rule| rule.apply_server_side_encryption_by_default().is_some()))
            }
            Self::Versions => {
                let got = s3.get_bucket_versioning().bucket(bucket).send().await.step(step)?;
                Ok(got.status == Some(BucketVersioningStatus::Enabled))
            }
            Self::Lifecycle => {
                let got = s3.get_bucket_lifecycle_configuration().bucket(bucket).send().await.step(step);
                let there = unless(got, "NoSuchLifecycleConfiguration")?.and_then(|got| got.rules);
                let wanted = lifecycle(contents).map_err(|error| incomplete(bucket, error))?;
                Ok(terms(&there.unwrap_or_default()) == terms(&wanted))
            }
            Self::Policy => {
                let there = policy(aws, bucket).await?;
                let wanted = policies::tls_only(&aws.names, bucket);
                Ok(statements(&wanted).iter().all(|statement| statements(&there).contains(statement)))
            }
            Self::Tags => {
                let there = tags(aws, bucket).await?;
                let ours = aws.names.tags(contents.what());
                Ok(ours.iter().all(|(key, value)| {
                    there.iter().any(|tag| tag.key() == *key && tag.value() == value.as_str())
                }))
            }
        }
    }

    /// Sets it. Each setting is a change of the bucket, and S3 refuses one while the previous one is in
    /// progress.
    pub(super) async fn put(self, aws: &Aws, bucket: &str, contents: Contents) -> Result<()> {
        let s3 = &aws.s3;
        let invalid = |error| incomplete(bucket, error);
        let patience = aws.patience;
        match self {
            Self::PublicAccess => {
                let put = s3.put_public_access_block().bucket(bucket);
                let put = put.public_access_block_configuration(everything_blocked());
                let done =
                    async || put.clone().send().await.step(|| format!("block public access to {bucket}"));
                patience.depends_on(bucket, done).await.map(drop)
            }
            Self::Ownership => {
                let owner = OwnershipControlsRule::builder()
                    .object_ownership(ObjectOwnership::BucketOwnerEnforced)
                    .build()
                    .map_err(invalid)?;
                let controls = OwnershipControls::builder().rules(owner).build().map_err(invalid)?;
                let put = s3.put_bucket_ownership_controls().bucket(bucket).ownership_controls(controls);
                let done = async || {
                    put.clone().send().await.step(|| {
                        format!(
                            "disable access control lists on \
                        {bucket}"
                        )
                    })
                };
                patience.depends_on(bucket, done).await.map(drop)
            }
            Self::Encryption => {
                let default = ServerSideEncryptionByDefault::builder()
                    .sse_algorithm(ServerSideEncryption::Aes256)
                    .build()
                    .map_err(invalid)?;
                let rule = ServerSideEncryptionRule::builder();
                let rule = rule.apply_server_side_encryption_by_default(default).build();
                let rules =
                    ServerSideEncryptionConfiguration::builder().rules(rule).build().map_err(invalid)?;
                let put =
                    s3.put_bucket_encryption().bucket(bucket).server_side_encryption_configuration(rules);
                let done = async || put.clone().send().await.step(|| format!("encrypt {bucket}"));
                patience.depends_on(bucket, done).await.map(drop)
            }
            Self::Versions => {
                let versioned = VersioningConfiguration::builder();
                let versioned = versioned.status(BucketVersioningStatus::Enabled).build();
                let put = s3.put_bucket_versioning().bucket(bucket).versioning_configuration(versioned);
                let done =
                    async || put.clone().send().await.step(|| format!("enable versioning on {bucket}"));
                patience.depends_on(bucket, done).await.map(drop)
            }
            Self::Lifecycle => {
                let rules = lifecycle(contents).map_err(invalid)?;
                let rules = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build();
                let put = s3.put_bucket_lifecycle_configuration().bucket(bucket);
                let put = put.lifecycle_configuration(rules.map_err(invalid)?);
                let done =
                    async || put.clone().send().await.step(|| format!("set the lifecycle of {bucket}"));
                patience.depends_on(bucket, done).await.map(drop)
            }
            Self::Policy => {
                let wanted = policies::tls_only(&aws.names, bucket);
                let there = patience.depends_on(bucket, async || policy(aws, bucket).await).await?;
                let policy = with_statements_of(&there, wanted).to_string();
                let put = s3.put_bucket_policy().bucket(bucket).policy(policy);
                let done = async || put.clone().send().await.step(|| format!("require TLS on {bucket}"));
                patience.depends_on(bucket, done).await.map(drop)
            }
            Self::Tags => {
                let ours = aws.names.tags(contents.what());
                let mut all = patience.depends_on(bucket, async || tags(aws, bucket).await).await?;
                all.retain(|tag| ours.iter().all(|(key, _)| tag.key() != *key));
                for (key, value) in ours {
                    all.push(Tag::builder().key(key).value(value).build().map_err(invalid)?);
                }
                let all = Tagging::builder().set_tag_set(Some(all)).build().map_err(invalid)?;
                let put = s3.put_bucket_tagging().bucket(bucket).tagging(all);
                let done = async || put.clone().send().await.step(|| format!("tag {bucket}"));
                patience.depends_on(bucket, done).await.map(drop)
            }
        }
    }
}

/// Returns `None` if S3 answers with this code that the setting does not exist.
fn unless<T>(got: Result<T>, none: &str) -> Result<Option<T>> {
    match got {
        Ok(got) => Ok(Some(got)),
        Err(error) if error.code == none => Ok(None),
        Err(error) => Err(error),
    }
}

fn incomplete(bucket: &str, error: BuildError) -> DeployError {
    DeployError::new(Exit::Failed, format!("a setting of the bucket {bucket} is incomplete")).caused_by(error)
}

fn everything_blocked() -> PublicAccessBlockConfiguration {
    PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true)
        .build()
}

async fn tags(aws: &Aws, bucket: &str) -> Result<Vec<Tag>> {
    let got = aws.s3.get_bucket_tagging().bucket(bucket).send().await;
    let got = got.step(|| format!("read the tags of {bucket}"));
    Ok(unless(got, "NoSuchTagSet")?.map(|got| got.tag_set).unwrap_or_default())
}

/// Returns the policy; null if there is none.
async fn policy(aws: &Aws, bucket: &str) -> Result<Value> {
    let got = aws.s3.get_bucket_policy().bucket(bucket).send().await;
    let text = unless(got.step(|| format!("read the policy of {bucket}")), "NoSuchBucketPolicy")?;
    let text = text.and_then(|got| got.policy);
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// Returns the statements. S3 accepts a single statement without its list as well.
fn statements(policy: &Value) -> Vec<Value> {
    match policy.get("Statement") {
        Some(Value::Array(all)) => all.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    }
}

/// Replaces the statements with Vigia's names; all other statements stay.
fn with_statements_of(there: &Value, mut ours: Value) -> Value {
    let mut all = statements(&ours);
    let is_ours = |statement: &Value| all.iter().any(|our| our["Sid"] == statement["Sid"]);
    let others: Vec<Value> = statements(there).into_iter().filter(|statement| !is_ours(statement)).collect();
    all.extend(others);
    ours["Statement"] = Value::Array(all);
    ours
}

/// A rule's times: its prefix, and the days of an object and of a noncurrent version.
type Terms = (String, Option<i32>, Option<i32>);

fn terms(rules: &[LifecycleRule]) -> Vec<Terms> {
    let of = |rule: &LifecycleRule| {
        let prefix = rule.filter().and_then(|filter| filter.prefix()).unwrap_or_default().to_owned();
        let days = rule.expiration().and_then(|expiration| expiration.days());
        let past = rule.noncurrent_version_expiration().and_then(|past| past.noncurrent_days());
        (prefix, days, past)
    };
    let enabled = rules.iter().filter(|rule| rule.status == ExpirationStatus::Enabled);
    let mut terms: Vec<Terms> = enabled.map(of).collect();
    terms.sort();
    terms
}

fn lifecycle(contents: Contents) -> std::result::Result<Vec<LifecycleRule>, BuildError> {
    let rule = |id: &str, prefix: &str| {
        LifecycleRule::builder()
            .id(id)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
    };
    let unfinished = AbortIncompleteMultipartUpload::builder().days_after_initiation(1).build();
    match contents {
        Contents::Users => {
            // A month to notice that a user was overwritten or deleted by mistake.
            let old = NoncurrentVersionExpiration::builder().noncurrent_days(30).build();
            let marker = LifecycleExpiration::builder().expired_object_delete_marker(true).build();
            let kept = rule("old-versions", "")
                .noncurrent_version_expiration(old)
                .expiration(marker)
                .abort_incomplete_multipart_upload(unfinished)
                .build()?;
            // If several rules match an object, the shorter one counts. An object that expires becomes a
            // noncurrent version, so it is gone after two days.
            let passing = |id: &str, prefix: &str| {
                rule(id, prefix)
                    .expiration(LifecycleExpiration::builder().days(1).build())
                    .noncurrent_version_expiration(
                        NoncurrentVersionExpiration::builder().noncurrent_days(1).build(),
                    )
                    .build()
            };
            Ok(vec![kept, passing("throttle", "throttle/")?, passing("revoked", "revoked/")?])
        }
        Contents::Control => {
            Ok(vec![rule("unfinished", "").abort_incomplete_multipart_upload(unfinished).build()?])
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::aws::stub::Stub;
    use crate::names::Names;

    /// Returns the days until no version of an object of this key is left if it is replaced or deleted on day
    /// 0; and the days until it is deleted if it is left alone.
    fn days(key: &str) -> (Option<i32>, Option<i32>) {
        let rules = terms(&lifecycle(Contents::Users).expect("complete"));
        let fitting = || rules.iter().filter(|(prefix, ..)| key.starts_with(prefix.as_str()));
        (fitting().filter_map(|rule| rule.2).min(), fitting().filter_map(|rule| rule.1).min())
    }

    #[test]
    fn temporary_objects_expire_with_all_versions_but_users_stay() {
        assert_eq!(days("throttle/x"), (Some(1), Some(1)));
        assert_eq!(days("revoked/x"), (Some(1), Some(1)));
        assert_eq!(days("users/ana"), (Some(30), None));
        assert_eq!(days("meta/profile"), (Some(30), None));
    }

    #[test]
    fn a_rule_that_is_switched_off_does_not_count() {
        let mut rules = lifecycle(Contents::Control).expect("complete");
        let wanted = terms(&rules);
        rules[0].status = ExpirationStatus::Disabled;
        assert_ne!(terms(&rules), wanted);
    }

    #[test]
    fn statements_of_the_operator_stay_in_the_policy() {
        let ours = policies::tls_only(&Names::example("a"), "b");
        let theirs = json!({"Sid": "Backup", "Effect": "Allow"});
        let weakened = json!({"Sid": "TlsOnly", "Effect": "Allow"});
        let there = json!({"Version": "2012-10-17", "Statement": [theirs, weakened]});
        let all = statements(&with_statements_of(&there, ours.clone()));
        assert_eq!(all, [statements(&ours), vec![theirs]].concat());
        assert_eq!(with_statements_of(&Value::Null, ours.clone()), ours);
        let single = json!({"Statement": {"Sid": "Backup"}});
        assert_eq!(statements(&with_statements_of(&single, ours)).len(), 2);
    }

    #[tokio::test]
    async fn versions_and_policy_of_the_users_bucket_are_compared() {
        const VERSIONS: &str = "GET /vigia-a-data-123456789012-eu-west-1?versioning";
        const POLICY: &str = "GET /vigia-a-data-123456789012-eu-west-1?policy";
        let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        let names = Names::example("a");
        let bucket = names.data_bucket();
        let tls_only = policies::tls_only(&names, &bucket).to_string();
        let bare = Stub::default().says(VERSIONS, 200, "<VersioningConfiguration/>").says(
            POLICY,
            404,
            "<Error><Code>NoSuchBucketPolicy</Code></Error>",
        );
        let whole = Stub::default().says(VERSIONS, 200, enabled).says(POLICY, 200, &tls_only);
        for (stub, expected) in [(bare, false), (whole, true)] {
            let aws = stub.serve().await;
            for setting in [Setting::Versions, Setting::Policy] {
                let is_set = setting.is_set(&aws, &bucket, Contents::Users).await.expect("S3 answers");
                assert_eq!(is_set, expected, "{setting:?}");
            }
        }
    }
}
