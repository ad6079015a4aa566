//! Which requests are let in. The other party is an AWS SDK: its signatures must be accepted to the last
//! character, and nothing else.

use aws_sdk_ec2::types::Filter;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;

use crate::support::{Aws, cloud, code};

/// Names that S3 allows and that layers on the way tend to rewrite.
const KEYS: [&str; 12] = [
    "plain",
    "a b",
    "a+b",
    "a%20b%2Bc",
    "q?x=1&y=2#z",
    "\u{fc}n\u{ef}/\u{e7}\u{f8}d\u{e9}",
    "\u{65e5}\u{672c}\u{8a9e}/\u{1f600}",
    "two//slashes",
    "at/the/end/",
    "~*'()!$,;:@=-_.",
    "\"<&>\"",
    "C:\\x|y^z`{}[]",
];

#[tokio::test]
async fn placeholder_credentials_are_accepted() {
    for name in ["test", "testing", "local", "localstack", "vigia", "dummy", "mock", "fake"] {
        let aws = Aws::with_key((name, name, None));
        aws.ec2.describe_vpcs().send().await.expect("EC2 accepts it");
        aws.s3.list_buckets().send().await.expect("S3 accepts it");
        aws.iam.list_roles().send().await.expect("IAM accepts it");
        let caller = aws.sts.get_caller_identity().send().await.expect("STS accepts it");
        assert_eq!(caller.account(), Some(local_cloud::ACCOUNT));
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused() {
    for key in ["AKIAIOSFODNN7EXAMPLE", "Test", "test "] {
        let aws = Aws::with_key((key, "test", None));
        assert_eq!(code(aws.ec2.describe_vpcs().send().await), "InvalidClientTokenId");
        assert_eq!(code(aws.iam.list_roles().send().await), "InvalidClientTokenId");
        assert_eq!(code(aws.sts.get_caller_identity().send().await), "InvalidClientTokenId");
        assert_eq!(code(aws.s3.list_buckets().send().await), "InvalidAccessKeyId");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let aws = Aws::with_key(("test", "wrong", None));
    assert_eq!(code(aws.ec2.describe_vpcs().send().await), "SignatureDoesNotMatch");
    assert_eq!(code(aws.iam.list_roles().send().await), "SignatureDoesNotMatch");
    assert_eq!(code(aws.sts.get_caller_identity().send().await), "SignatureDoesNotMatch");
    assert_eq!(code(aws.s3.list_buckets().send().await), "SignatureDoesNotMatch");
}

#[tokio::test]
async fn objects_with_any_name_are_signed_and_kept() {
    let aws = Aws::new();
    let stranger = Aws::with_key(("test", "wrong", None));
    let bucket = aws.bucket().await;
    for key in KEYS {
        let refused = stranger.s3.put_object().bucket(&bucket).key(key).send().await;
        assert_eq!(code(refused), "SignatureDoesNotMatch", "{key}");
        aws.put(&bucket, key, key).await;
        assert_eq!(aws.read(&bucket, key).await, key);
        let refused = stranger.s3.get_object().bucket(&bucket).key(key).send().await;
        assert_eq!(code(refused), "SignatureDoesNotMatch", "{key}");
    }
    let listed = aws.s3.list_objects_v2().bucket(&bucket).send().await.expect("a list");
    let mut listed: Vec<&str> = listed.contents().iter().filter_map(|object| object.key()).collect();
    let mut all = KEYS.to_vec();
    listed.sort_unstable();
    all.sort_unstable();
    assert_eq!(listed, all);
}

#[tokio::test]
async fn a_list_is_signed_with_all_its_parameters() {
    let aws = Aws::new();
    let stranger = Aws::with_key(("test", "wrong", None));
    let bucket = aws.bucket().await;
    for prefix in KEYS {
        let key = format!("{prefix}-x");
        aws.put(&bucket, &key, "").await;
        let list = |aws: &Aws| {
            let list = aws.s3.list_objects_v2().bucket(&bucket).prefix(prefix).delimiter("+");
            list.start_after("!").max_keys(7).fetch_owner(true)
        };
        let listed = list(&aws).send().await.expect("a list");
        let names = listed.contents().iter().filter_map(|object| object.key());
        let groups = listed.common_prefixes().iter().filter_map(|group| group.prefix());
        let names: Vec<&str> = names.chain(groups).collect();
        assert_eq!(names, [key], "{prefix}");
        assert_eq!(code(list(&stranger).send().await), "SignatureDoesNotMatch", "{prefix}");
    }
}

#[tokio::test]
async fn a_form_is_signed_with_all_its_characters() {
    let aws = Aws::new();
    let stranger = Aws::with_key(("test", "wrong", None));
    for value in KEYS {
        let filter = Filter::builder().name("tag:Name").values(value).build();
        let described = aws.ec2.describe_vpcs().filters(filter.clone()).send().await.expect("described");
        assert!(described.vpcs().is_empty(), "{value}");
        let refused = stranger.ec2.describe_vpcs().filters(filter).send().await;
        assert_eq!(code(refused), "SignatureDoesNotMatch", "{value}");
    }
}

#[tokio::test]
async fn a_body_sent_in_chunks_arrives_whole() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "a line of text\n".repeat(40_000);
    std::fs::write(file.path(), &text).expect("written");
    let body = ByteStream::from_path(file.path()).await.expect("readable");
    aws.s3.put_object().bucket(&bucket).key("long").body(body).send().await.expect("written");
    assert!(aws.read(&bucket, "long").await == text, "another content came back");
}

#[tokio::test]
async fn requests_without_a_signature_header_are_refused_with_advice() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    aws.put(&bucket, "x", "").await;
    let soon = PresigningConfig::expires_in(std::time::Duration::from_secs(60)).expect("valid");
    let presigned = aws.s3.get_object().bucket(&bucket).key("x").presigned(soon).await.expect("a URL");
    for url in [presigned.uri(), &cloud().endpoint] {
        let response = reqwest::get(url).await.expect("an answer");
        assert_eq!(response.status(), 403, "{url}");
        let text = response.text().await.expect("text");
        assert!(text.contains("AccessDenied") && text.contains("AWS_ACCESS_KEY_ID=test"), "{text}");
    }
}
