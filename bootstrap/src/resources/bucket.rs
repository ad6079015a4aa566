//! The two buckets of a stack: private, encrypted, the one with users versioned.

mod setting;

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier};

use self::setting::Setting;
use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, denied, found, lacking};
use crate::part::{Part, RunMode};
use crate::patience::{self, Look};

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

pub async fn ensure(aws: &Aws, mode: RunMode, contents: Contents) -> Result<Part> {
    let bucket = contents.bucket(aws);
    let wanted = Setting::of(aws, contents);
    let found = find(aws, &bucket, contents, &wanted).await?;
    let part = match &found {
        None => Part::created(format!("bucket {bucket}")),
        Some(wrong) => {
            let differs = wrong.iter().map(|setting| setting.what().to_owned());
            Part::compared(format!("bucket {bucket}"), differs.collect())
        }
    };
    if mode.applies(&part) {
        let to_set = match found {
            None => {
                create(aws, &bucket).await?;
                wanted
            }
            Some(wrong) => wrong,
        };
        for setting in to_set {
            setting.put(aws, &bucket, contents).await?;
        }
    }
    Ok(part)
}

/// Returns the settings that differ; `None` if there is no bucket. S3 may list a bucket that was deleted a
/// moment ago, and may not know a new one everywhere. So this function looks again until all answers fit.
async fn find(
    aws: &Aws,
    bucket: &str,
    contents: Contents,
    wanted: &[Setting],
) -> Result<Option<Vec<Setting>>> {
    let look = async || {
        let head = aws.s3.head_bucket().bucket(bucket).send().await;
        if found(head.step(|| format!("look at the bucket {bucket}")))?.is_none() {
            return Ok(Look::Reached(None));
        }
        let asked = wanted.iter().map(|setting| setting.is_set(aws, bucket, contents));
        let set = futures::future::try_join_all(asked).await?;
        let wrong = wanted.iter().zip(set).filter(|(_, is_set)| !is_set).map(|(setting, _)| *setting);
        Ok(Look::Reached(Some(wrong.collect())))
    };
    aws.patience.until(&format!("the bucket {bucket}"), patience::SETTLING, look).await
}

async fn create(aws: &Aws, bucket: &str) -> Result<()> {
    let region = aws.names.region.as_str();
    // us-east-1 is the one region that must not be given as a constraint.
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
        .hint("Choose another --stack name.")),
        Err(error) => Err(error),
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
    // Emptied again before each try: a worker that was just terminated may have written once more.
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
            let error = DeployError::new(Exit::Failed, what).hint("Run the same command again.");
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
    use crate::names::Names;
    use crate::part::Change;

    #[tokio::test]
    async fn a_new_bucket_is_waited_for_between_its_settings() {
        const HEAD: &str = "HEAD /vigia-a-control-123456789012-eu-west-1";
        const PUT: &str = "PUT /vigia-a-control-123456789012-eu-west-1";
        const TAGS: &str = "GET /vigia-a-control-123456789012-eu-west-1?tagging";
        let error = |code: &str| format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        let stub = Stub::default()
            .says(HEAD, 404, "")
            .says(TAGS, 404, &error("NoSuchTagSet"))
            .says(PUT, 200, "")
            .says(PUT, 404, &error("NoSuchBucket"))
            .says(PUT, 200, "")
            .says(PUT, 409, &error("OperationAborted"))
            .says(PUT, 200, "");
        let aws = stub.serve().await;
        let part = ensure(&aws, RunMode::Apply, Contents::Control).await.expect("it settles");
        assert_eq!(part.change, Change::Created);
        // Creation, access, owner, encryption, lifecycle, tags, and the two refused calls.
        assert_eq!(stub.count(PUT), 8);
    }

    #[tokio::test]
    async fn a_name_of_another_account_is_an_error_at_once() {
        const PUT: &str = "PUT /vigia-a-control-123456789012-eu-west-1";
        let taken = "<Error><Code>BucketAlreadyExists</Code><Message>m</Message></Error>";
        let stub = Stub::default().says(HEAD, 404, "").says(PUT, 409, taken);
        let made = ensure(&stub.serve().await, RunMode::Apply, Contents::Control).await;
        let error = made.expect_err("the name is taken").message();
        assert!(error.contains("belongs to another AWS account"), "{error}");
        assert_eq!(stub.count(PUT), 1, "waiting does not free the name");
    }

    const HEAD: &str = "HEAD /vigia-a-control-123456789012-eu-west-1";

    const VERSIONS: &str = "GET /vigia-a-control-123456789012-eu-west-1?versions";
    const REMOVE: &str = "POST /vigia-a-control-123456789012-eu-west-1?delete";

    fn bucket_to_empty() -> Stub {
        Stub::default().says(HEAD, 200, "").says(REMOVE, 200, "<DeleteResult/>")
    }

    /// Returns the list of this version alone.
    fn version(id: &str) -> String {
        format!(
            "<ListVersionsResult><Version><Key>k</Key><VersionId>{id}</VersionId></Version></ListVersionsResult>"
        )
    }

    #[tokio::test]
    async fn a_bucket_is_emptied_again_before_each_try() {
        const DELETE: &str = "DELETE /vigia-a-control-123456789012-eu-west-1";
        let stub = bucket_to_empty()
            .says(VERSIONS, 200, &version("v1"))
            .says(VERSIONS, 200, "<ListVersionsResult/>")
            .says(DELETE, 409, "<Error><Code>BucketNotEmpty</Code></Error>")
            .says(VERSIONS, 200, &version("v2"))
            .says(VERSIONS, 200, "<ListVersionsResult/>")
            .says(DELETE, 204, "");
        delete(&stub.serve().await, Contents::Control).await.expect("it is empty in the end");
        assert_eq!((stub.count(REMOVE), stub.count(DELETE)), (2, 2));
    }

    #[tokio::test]
    async fn versions_are_deleted_for_good() {
        let stub = bucket_to_empty().says(VERSIONS, 200, &version("v1")).says(
            VERSIONS,
            200,
            "<ListVersionsResult/>",
        );
        let aws = stub.serve().await;
        empty(&aws, &Contents::Control.bucket(&aws)).await.expect("emptied");
        let removed = stub.last(REMOVE);
        assert!(removed.contains("<VersionId>v1</VersionId>"), "{removed}");
    }

    /// Returns a bucket with all settings except those in `lost`.
    fn bucket_without(lost: &[&str]) -> Stub {
        const ENABLED: &str =
            "<Rule><ID>u</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter></Rule>";
        let blocked = ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"]
            .map(|what| format!("<{what}>true</{what}>"))
            .concat();
        let tags: String = Names::example("a")
            .tags("control")
            .map(|(key, value)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"))
            .into_iter()
            .collect();
        let settings = [
            (
                "GET /vigia-a-control-123456789012-eu-west-1?publicAccessBlock",
                format!("<PublicAccessBlockConfiguration>{blocked}</PublicAccessBlockConfiguration>"),
                "NoSuchPublicAccessBlockConfiguration",
            ),
            (
                "GET /vigia-a-control-123456789012-eu-west-1?ownershipControls",
                "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>\
                 </OwnershipControls>"
                    .to_owned(),
                "OwnershipControlsNotFoundError",
            ),
            (
                "GET /vigia-a-control-123456789012-eu-west-1?encryption",
                "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
                 <SSEAlgorithm>aws:kms</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>\
                 </ServerSideEncryptionConfiguration>"
                    .to_owned(),
                "ServerSideEncryptionConfigurationNotFoundError",
            ),
            (
                "GET /vigia-a-control-123456789012-eu-west-1?lifecycle",
                format!("<LifecycleConfiguration>{ENABLED}</LifecycleConfiguration>"),
                "NoSuchLifecycleConfiguration",
            ),
            (
                "GET /vigia-a-control-123456789012-eu-west-1?tagging",
                format!("<Tagging><TagSet>{tags}</TagSet></Tagging>"),
                "NoSuchTagSet",
            ),
        ];
        let mut stub = Stub::default().says(HEAD, 200, "");
        for (call, content, none) in settings {
            stub = match lost.iter().any(|lost| call.ends_with(lost)) {
                true => stub.says(call, 404, &format!("<Error><Code>{none}</Code></Error>")),
                false => stub.says(call, 200, &content),
            };
        }
        stub.says("PUT /vigia-a-control-123456789012-eu-west-1", 200, "")
    }

    #[tokio::test]
    async fn a_bucket_that_some_reads_do_not_know_is_looked_at_again() {
        const ENCRYPTION: &str = "GET /vigia-a-control-123456789012-eu-west-1?encryption";
        let encrypted = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
                         <SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>\
                         </ServerSideEncryptionConfiguration>";
        let stub = Stub::default()
            .says(HEAD, 200, "")
            .says(ENCRYPTION, 404, "<Error><Code>NoSuchBucket</Code></Error>")
            .says(ENCRYPTION, 200, encrypted);
        let aws = stub.serve().await;
        let bucket = Contents::Control.bucket(&aws);
        let wrong = find(&aws, &bucket, Contents::Control, &[Setting::Encryption]).await;
        assert_eq!(wrong.expect("it is known by now"), Some(Vec::new()));
        assert_eq!(stub.count(HEAD), 2);
    }

    #[tokio::test]
    async fn each_setting_that_was_changed_by_hand_is_put_again() {
        const PUT: &str = "PUT /vigia-a-control-123456789012-eu-west-1";
        let all = ["publicAccessBlock", "ownershipControls", "encryption", "lifecycle", "tagging"];
        let whole = bucket_without(&[]);
        let part = ensure(&whole.serve().await, RunMode::Apply, Contents::Control).await.expect("compared");
        assert_eq!((part.change, whole.count(PUT)), (Change::Unchanged, 0), "{part}");
        for lost in all {
            let stub = bucket_without(&[lost]);
            let part = ensure(&stub.serve().await, RunMode::Apply, Contents::Control).await.expect("put");
            assert_eq!((part.differs.len(), stub.count(PUT)), (1, 1), "{lost}: {part}");
            assert_eq!(stub.count(&format!("{PUT}?{lost}")), 1, "{lost}");
        }
        let stub = bucket_without(&all);
        let part = ensure(&stub.serve().await, RunMode::Plan, Contents::Control).await.expect("compared");
        assert_eq!((part.differs.len(), stub.count(PUT)), (5, 0), "{part}");
    }
}
