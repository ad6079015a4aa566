//! The two buckets of a stack: private, encrypted, the one with users versioned.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint,
    BucketVersioningStatus, CreateBucketConfiguration, Delete, ExpirationStatus, LifecycleExpiration,
    LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration, ObjectIdentifier, ObjectOwnership,
    OwnershipControls, OwnershipControlsRule, PublicAccessBlockConfiguration, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule, Tag, Tagging,
    VersioningConfiguration,
};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, denied, found, lacking};
use crate::part::{Change, Doing, Part};
use crate::patience::{self, Look};
use crate::policies;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    Users,
    Control,
}

impl Contents {
    fn what(self) -> &'static str {
        match self {
            Self::Users => "data",
            Self::Control => "control",
        }
    }

    pub fn bucket(self, aws: &Aws) -> String {
        match self {
            Self::Users => aws.names.data_bucket(),
            Self::Control => aws.names.control_bucket(),
        }
    }
}

/// What there is of a bucket.
enum Found {
    Nothing,
    /// Tags are put last: without them a run was cut, and any setting may be missing.
    Begun,
    /// The lifecycle is the one setting that has changed since the first stacks were made.
    Complete {
        lifecycle: Vec<Terms>,
    },
}

pub async fn ensure(aws: &Aws, doing: Doing, contents: Contents) -> Result<Part> {
    let bucket = contents.bucket(aws);
    let wanted = lifecycle(contents).map_err(|error| incomplete(&bucket, error))?;
    let part = compare(&bucket, &find(aws, &bucket).await?, &wanted);
    if doing.applies(&part) {
        if part.change == Change::Created {
            create(aws, &bucket).await?;
        }
        if part.change == Change::Created || part.differs.iter().any(|what| what == UNFINISHED) {
            configure(aws, &bucket, contents).await?;
        } else {
            put_lifecycle(aws, &bucket, wanted).await?;
        }
    }
    Ok(part)
}

const UNFINISHED: &str = "its settings are not complete";

/// S3 may know a bucket that was deleted a moment ago, and may not know yet everywhere one that it knows:
/// it is looked at again until all answers fit.
async fn find(aws: &Aws, bucket: &str) -> Result<Found> {
    let look = async || {
        let head = aws.s3.head_bucket().bucket(bucket).send().await;
        match found(head.step(|| format!("look at the bucket {bucket}")))? {
            None => Ok(Look::Reached(Found::Nothing)),
            Some(_) => settings(aws, bucket).await.map(Look::Reached),
        }
    };
    aws.patience.until(&format!("the bucket {bucket}"), patience::SETTLING, look).await
}

/// Of a bucket that is there.
async fn settings(aws: &Aws, bucket: &str) -> Result<Found> {
    let tags = aws.s3.get_bucket_tagging().bucket(bucket).send().await;
    let is_tagged = match tags.step(|| format!("read the tags of {bucket}")) {
        Ok(tags) => !tags.tag_set().is_empty(),
        Err(error) if error.code == "NoSuchTagSet" => false,
        Err(error) => return Err(error),
    };
    if !is_tagged {
        return Ok(Found::Begun);
    }
    let got = aws.s3.get_bucket_lifecycle_configuration().bucket(bucket).send().await;
    let lifecycle = match got.step(|| format!("read the lifecycle of {bucket}")) {
        Ok(there) => terms(there.rules()),
        Err(error) if error.code == "NoSuchLifecycleConfiguration" => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(Found::Complete { lifecycle })
}

fn compare(bucket: &str, found: &Found, wanted: &[LifecycleRule]) -> Part {
    let what = format!("bucket {bucket}");
    match found {
        Found::Nothing => Part::created(what),
        Found::Begun => Part::compared(what, vec![UNFINISHED.to_owned()]),
        Found::Complete { lifecycle } if *lifecycle == terms(wanted) => Part::unchanged(what),
        Found::Complete { .. } => Part::compared(what, vec!["how long its objects are kept".to_owned()]),
    }
}

async fn create(aws: &Aws, bucket: &str) -> Result<()> {
    let region = aws.names.region.as_str();
    // us-east-1 is the one region that must not be named.
    let place = (region != "us-east-1").then(|| {
        CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::from(region))
            .build()
    });
    let create = aws.s3.create_bucket().bucket(bucket).set_create_bucket_configuration(place);
    let created = aws
        .patience
        .settled(async || create.clone().send().await.step(|| format!("create the bucket {bucket}")));
    match created.await {
        Ok(_) => Ok(()),
        Err(error) if error.code == "BucketAlreadyOwnedByYou" => Ok(()),
        Err(error) if error.code == "BucketAlreadyExists" => Err(DeployError::new(
            Exit::Failed,
            format!("the bucket name {bucket} belongs to another AWS account"),
        )
        .mend("Choose another --stack name.")),
        Err(error) => Err(error),
    }
}

/// Each setting is a change of the bucket, and S3 refuses one while the one before is in progress.
async fn configure(aws: &Aws, bucket: &str, contents: Contents) -> Result<()> {
    let s3 = &aws.s3;
    let invalid = |error| incomplete(bucket, error);
    let block = PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true)
        .build();
    let put = s3.put_public_access_block().bucket(bucket).public_access_block_configuration(block);
    let done = async || put.clone().send().await.step(|| format!("block public access to {bucket}"));
    aws.patience.depends_on(bucket, done).await?;

    let owner = OwnershipControlsRule::builder()
        .object_ownership(ObjectOwnership::BucketOwnerEnforced)
        .build()
        .map_err(invalid)?;
    let controls = OwnershipControls::builder().rules(owner).build().map_err(invalid)?;
    let put = s3.put_bucket_ownership_controls().bucket(bucket).ownership_controls(controls);
    let done = async || put.clone().send().await.step(|| format!("switch access lists off on {bucket}"));
    aws.patience.depends_on(bucket, done).await?;

    let default = ServerSideEncryptionByDefault::builder()
        .sse_algorithm(ServerSideEncryption::Aes256)
        .build()
        .map_err(invalid)?;
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(default).build();
    let encryption = ServerSideEncryptionConfiguration::builder().rules(rule).build().map_err(invalid)?;
    let put = s3.put_bucket_encryption().bucket(bucket).server_side_encryption_configuration(encryption);
    let done = async || put.clone().send().await.step(|| format!("encrypt {bucket}"));
    aws.patience.depends_on(bucket, done).await?;

    if contents == Contents::Users {
        let versioned = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let put = s3.put_bucket_versioning().bucket(bucket).versioning_configuration(versioned);
        let done = async || put.clone().send().await.step(|| format!("version {bucket}"));
        aws.patience.depends_on(bucket, done).await?;
    }
    put_lifecycle(aws, bucket, lifecycle(contents).map_err(invalid)?).await?;
    let is_plain_http = aws.endpoint_url.as_deref().is_some_and(|url| url.starts_with("http://"));
    if !is_plain_http {
        let policy = policies::tls_only(&aws.names, bucket).to_string();
        let put = s3.put_bucket_policy().bucket(bucket).policy(policy);
        let done = async || put.clone().send().await.step(|| format!("require TLS on {bucket}"));
        aws.patience.depends_on(bucket, done).await?;
    }
    let mut tags = Tagging::builder();
    for (key, value) in aws.names.tags(contents.what()) {
        tags = tags.tag_set(Tag::builder().key(key).value(value).build().map_err(invalid)?);
    }
    let put = s3.put_bucket_tagging().bucket(bucket).tagging(tags.build().map_err(invalid)?);
    let done = async || put.clone().send().await.step(|| format!("tag {bucket}"));
    aws.patience.depends_on(bucket, done).await.map(drop)
}

async fn put_lifecycle(aws: &Aws, bucket: &str, rules: Vec<LifecycleRule>) -> Result<()> {
    let rules = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build();
    let rules = rules.map_err(|error| incomplete(bucket, error))?;
    let put = aws.s3.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(rules);
    let done = async || put.clone().send().await.step(|| format!("set the lifecycle of {bucket}"));
    aws.patience.depends_on(bucket, done).await.map(drop)
}

fn incomplete(bucket: &str, error: aws_sdk_s3::error::BuildError) -> DeployError {
    DeployError::new(Exit::Failed, format!("a setting of the bucket {bucket} is incomplete")).caused_by(error)
}

/// What a rule says of time: its prefix, and the days of an object and of a version of the past.
type Terms = (String, Option<i32>, Option<i32>);

fn terms(rules: &[LifecycleRule]) -> Vec<Terms> {
    let of = |rule: &LifecycleRule| {
        let prefix = rule.filter().and_then(|filter| filter.prefix()).unwrap_or_default().to_owned();
        let days = rule.expiration().and_then(|expiration| expiration.days());
        let past = rule.noncurrent_version_expiration().and_then(|past| past.noncurrent_days());
        (prefix, days, past)
    };
    let mut terms: Vec<Terms> = rules.iter().map(of).collect();
    terms.sort();
    terms
}

fn lifecycle(contents: Contents) -> std::result::Result<Vec<LifecycleRule>, aws_sdk_s3::error::BuildError> {
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
            // Of the rules that fit an object the shorter one counts. An object that expires becomes a
            // version of the past, so it is gone after two days.
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

/// Deletes the bucket with all versions of all objects.
pub async fn delete(aws: &Aws, contents: Contents) -> Result<Part> {
    let bucket = contents.bucket(aws);
    let what = format!("bucket {bucket}");
    let head = aws.s3.head_bucket().bucket(&bucket).send().await;
    if found(head.step(|| format!("look at the bucket {bucket}")))?.is_none() {
        return Ok(Part::unchanged(what));
    }
    // Emptied anew each time: a worker that was just terminated may have written once more.
    let emptied_and_deleted = async || {
        empty(aws, &bucket).await?;
        let deleted = aws.s3.delete_bucket().bucket(&bucket).send().await;
        deleted.step(|| format!("delete the bucket {bucket}"))
    };
    aws.patience.deleted(emptied_and_deleted).await?;
    Ok(Part::removed(what))
}

async fn empty(aws: &Aws, bucket: &str) -> Result<()> {
    loop {
        let page = aws.s3.list_object_versions().bucket(bucket).send().await;
        let page = page.step(|| format!("list {bucket}"))?;
        let versions = page.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        let objects: Vec<ObjectIdentifier> = versions
            .chain(markers)
            .filter_map(|(key, version)| {
                ObjectIdentifier::builder().key(key?).set_version_id(version.map(str::to_owned)).build().ok()
            })
            .collect();
        if objects.is_empty() {
            return Ok(());
        }
        delete_versions(aws, bucket, objects).await?;
    }
}

/// Deletes at most 1000 versions of objects for good.
pub async fn delete_versions(aws: &Aws, bucket: &str, objects: Vec<ObjectIdentifier>) -> Result<()> {
    let delete =
        Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(|error| {
            DeployError::new(Exit::Failed, format!("cannot empty {bucket}")).caused_by(error)
        })?;
    let deleted = aws.s3.delete_objects().bucket(bucket).delete(delete).send().await;
    let deleted = deleted.step(|| format!("empty {bucket}"))?;
    match deleted.errors().first() {
        None => Ok(()),
        Some(failed) => {
            let why = failed.message().unwrap_or("no reason given");
            let what = format!("could not delete {} of {bucket}: {why}", failed.key().unwrap_or("an object"));
            let error = DeployError::new(Exit::Failed, what);
            Err(match lacking(why) {
                Some(lacking) => denied(error, &lacking),
                None => error,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;

    /// Days until no version of an object of this key is left, if it is replaced or deleted on day 0;
    /// and until it is, if nobody does.
    fn days(key: &str) -> (Option<i32>, Option<i32>) {
        let rules = terms(&lifecycle(Contents::Users).expect("complete"));
        let fitting = || rules.iter().filter(|(prefix, ..)| key.starts_with(prefix.as_str()));
        (fitting().filter_map(|rule| rule.2).min(), fitting().filter_map(|rule| rule.1).min())
    }

    #[test]
    fn what_passes_is_gone_with_all_its_versions_and_users_are_kept() {
        assert_eq!(days("throttle/x"), (Some(1), Some(1)));
        assert_eq!(days("revoked/x"), (Some(1), Some(1)));
        assert_eq!(days("users/ana"), (Some(30), None));
        assert_eq!(days("meta/profile"), (Some(30), None));
    }

    #[tokio::test]
    async fn a_new_bucket_is_waited_for_between_its_settings() {
        const HEAD: &str = "HEAD /vigia-a-control-123456789012-eu-west-1";
        const PUT: &str = "PUT /vigia-a-control-123456789012-eu-west-1";
        let error = |code: &str| format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        let stub = Stub::default()
            .says(HEAD, 404, "")
            .says(PUT, 200, "")
            .says(PUT, 404, &error("NoSuchBucket"))
            .says(PUT, 200, "")
            .says(PUT, 409, &error("OperationAborted"))
            .says(PUT, 200, "");
        let aws = stub.serve().await;
        let part = ensure(&aws, Doing::Apply, Contents::Control).await.expect("it settles");
        assert_eq!(part.change, Change::Created);
        // Creation, access, owner, encryption, lifecycle, tags, and the two that were refused.
        assert_eq!(stub.count(PUT), 8);
    }
}
