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
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::output::Change;
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

pub async fn ensure(aws: &Aws, contents: Contents) -> Result<Change> {
    let bucket = contents.bucket(aws);
    let head = aws.s3.head_bucket().bucket(&bucket).send().await;
    if found(head.step(|| format!("look at the bucket {bucket}")))?.is_some()
        && is_complete(aws, &bucket).await?
    {
        return Ok(Change::Unchanged);
    }
    create(aws, &bucket).await?;
    configure(aws, &bucket, contents).await?;
    Ok(Change::Created)
}

/// Tags are put last, so a bucket that has them has everything else.
async fn is_complete(aws: &Aws, bucket: &str) -> Result<bool> {
    let tags = aws.s3.get_bucket_tagging().bucket(bucket).send().await;
    match tags.step(|| format!("read the tags of {bucket}")) {
        Ok(tags) => Ok(!tags.tag_set().is_empty()),
        Err(error) if error.message().contains("NoSuchTagSet") => Ok(false),
        Err(error) => Err(error),
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
    let created = aws.s3.create_bucket().bucket(bucket).set_create_bucket_configuration(place).send().await;
    match created.step(|| format!("create the bucket {bucket}")) {
        Ok(_) => Ok(()),
        Err(error) if error.message().contains("BucketAlreadyOwnedByYou") => Ok(()),
        Err(error) if error.message().contains("BucketAlreadyExists") => Err(DeployError::new(
            Exit::Failed,
            format!("the bucket name {bucket} belongs to another AWS account"),
        )
        .mend("Choose another --stack name.")),
        Err(error) => Err(error),
    }
}

async fn configure(aws: &Aws, bucket: &str, contents: Contents) -> Result<()> {
    let s3 = &aws.s3;
    let invalid = |error: aws_sdk_s3::error::BuildError| {
        DeployError::new(Exit::Failed, format!("a setting of the bucket {bucket} is incomplete"))
            .caused_by(error)
    };
    let block = PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true)
        .build();
    s3.put_public_access_block()
        .bucket(bucket)
        .public_access_block_configuration(block)
        .send()
        .await
        .step(|| format!("block public access to {bucket}"))?;
    let owner = OwnershipControlsRule::builder()
        .object_ownership(ObjectOwnership::BucketOwnerEnforced)
        .build()
        .map_err(invalid)?;
    s3.put_bucket_ownership_controls()
        .bucket(bucket)
        .ownership_controls(OwnershipControls::builder().rules(owner).build().map_err(invalid)?)
        .send()
        .await
        .step(|| format!("switch access lists off on {bucket}"))?;
    let default = ServerSideEncryptionByDefault::builder()
        .sse_algorithm(ServerSideEncryption::Aes256)
        .build()
        .map_err(invalid)?;
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(default).build();
    s3.put_bucket_encryption()
        .bucket(bucket)
        .server_side_encryption_configuration(
            ServerSideEncryptionConfiguration::builder().rules(rule).build().map_err(invalid)?,
        )
        .send()
        .await
        .step(|| format!("encrypt {bucket}"))?;
    if contents == Contents::Users {
        let versioned = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        s3.put_bucket_versioning()
            .bucket(bucket)
            .versioning_configuration(versioned)
            .send()
            .await
            .step(|| format!("version {bucket}"))?;
    }
    let rules = BucketLifecycleConfiguration::builder()
        .set_rules(Some(lifecycle(contents).map_err(invalid)?))
        .build();
    s3.put_bucket_lifecycle_configuration()
        .bucket(bucket)
        .lifecycle_configuration(rules.map_err(invalid)?)
        .send()
        .await
        .step(|| format!("set the lifecycle of {bucket}"))?;
    let is_plain_http = aws.endpoint_url.as_deref().is_some_and(|url| url.starts_with("http://"));
    if !is_plain_http {
        s3.put_bucket_policy()
            .bucket(bucket)
            .policy(policies::tls_only(&aws.names, bucket).to_string())
            .send()
            .await
            .step(|| format!("require TLS on {bucket}"))?;
    }
    let mut tags = Tagging::builder();
    for (key, value) in aws.names.tags(contents.what()) {
        tags = tags.tag_set(Tag::builder().key(key).value(value).build().map_err(invalid)?);
    }
    s3.put_bucket_tagging()
        .bucket(bucket)
        .tagging(tags.build().map_err(invalid)?)
        .send()
        .await
        .step(|| format!("tag {bucket}"))?;
    Ok(())
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
            let day = || LifecycleExpiration::builder().days(1).build();
            Ok(vec![
                kept,
                rule("throttle", "throttle/").expiration(day()).build()?,
                rule("revoked", "revoked/").expiration(day()).build()?,
            ])
        }
        Contents::Control => {
            Ok(vec![rule("unfinished", "").abort_incomplete_multipart_upload(unfinished).build()?])
        }
    }
}

/// Deletes the bucket with all versions of all objects.
pub async fn delete(aws: &Aws, contents: Contents) -> Result<Change> {
    let bucket = contents.bucket(aws);
    let head = aws.s3.head_bucket().bucket(&bucket).send().await;
    if found(head.step(|| format!("look at the bucket {bucket}")))?.is_none() {
        return Ok(Change::Unchanged);
    }
    loop {
        let page = aws.s3.list_object_versions().bucket(&bucket).send().await;
        let Some(page) = found(page.step(|| format!("list {bucket}")))? else { return Ok(Change::Removed) };
        let versions = page.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        let objects: Vec<ObjectIdentifier> = versions
            .chain(markers)
            .filter_map(|(key, version)| {
                ObjectIdentifier::builder().key(key?).set_version_id(version.map(str::to_owned)).build().ok()
            })
            .collect();
        if objects.is_empty() {
            break;
        }
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(|error| {
            DeployError::new(Exit::Failed, format!("cannot empty {bucket}")).caused_by(error)
        })?;
        let deleted = aws
            .s3
            .delete_objects()
            .bucket(&bucket)
            .delete(delete)
            .send()
            .await
            .step(|| format!("empty {bucket}"))?;
        if let Some(failed) = deleted.errors().first() {
            let what = format!(
                "could not delete {} of {bucket}: {}",
                failed.key().unwrap_or("an object"),
                failed.message().unwrap_or("no reason given")
            );
            return Err(DeployError::new(Exit::Failed, what));
        }
    }
    let deleted = aws.s3.delete_bucket().bucket(&bucket).send().await;
    found(deleted.step(|| format!("delete the bucket {bucket}")))?;
    Ok(Change::Removed)
}
