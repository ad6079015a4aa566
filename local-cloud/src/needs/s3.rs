//! S3: the action follows from the method, the path and the query.

use percent_encoding::percent_decode_str;

use super::{Asked, Needs};
use crate::call::Admitted;
use crate::xml::Element;

/// Settings of a bucket: the query, the permission to read it, and the one to write or delete it.
const SETTINGS: [(&str, &str, &str); 14] = [
    ("accelerate", "GetAccelerateConfiguration", "PutAccelerateConfiguration"),
    ("acl", "GetBucketAcl", "PutBucketAcl"),
    ("cors", "GetBucketCORS", "PutBucketCORS"),
    ("encryption", "GetEncryptionConfiguration", "PutEncryptionConfiguration"),
    ("lifecycle", "GetLifecycleConfiguration", "PutLifecycleConfiguration"),
    ("location", "GetBucketLocation", ""),
    ("logging", "GetBucketLogging", "PutBucketLogging"),
    ("notification", "GetBucketNotification", "PutBucketNotification"),
    ("ownershipControls", "GetBucketOwnershipControls", "PutBucketOwnershipControls"),
    ("policy", "GetBucketPolicy", "PutBucketPolicy"),
    ("policyStatus", "GetBucketPolicyStatus", ""),
    ("publicAccessBlock", "GetBucketPublicAccessBlock", "PutBucketPublicAccessBlock"),
    ("tagging", "GetBucketTagging", "PutBucketTagging"),
    ("versioning", "GetBucketVersioning", "PutBucketVersioning"),
];

pub(super) fn needs(admitted: &Admitted) -> Needs {
    let uri = &admitted.parts.uri;
    let path = percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_matches('/'), ""));
    let has = |name: &str| {
        uri.query().unwrap_or("").split('&').any(|pair| pair.split('=').next().is_some_and(|key| key == name))
    };
    let method = admitted.parts.method.as_str();
    let bucket = bucket.to_owned();
    if bucket.is_empty() {
        return Needs::only(vec![Asked::new("s3:ListAllMyBuckets", "*")]);
    }
    let bucket_arn = format!("arn:aws:s3:::{bucket}");
    if key.is_empty() {
        let all = if method == "POST" && has("delete") {
            deletions(&bucket_arn, &admitted.body)
        } else {
            vec![Asked::new(format!("s3:{}", of_bucket(method, &has)), bucket_arn)]
        };
        return Needs::only(all);
    }
    let object = format!("{bucket_arn}/{key}");
    let mut all = vec![Asked::new(format!("s3:{}", of_object(method, &has)), &object)];
    let header = |name: &str| admitted.parts.headers.get(name).and_then(|value| value.to_str().ok());
    if header("x-amz-tagging").is_some() {
        all.push(Asked::new("s3:PutObjectTagging", &object));
    }
    if let Some(source) = header("x-amz-copy-source").filter(|_| method == "PUT") {
        let source = percent_decode_str(source).decode_utf8_lossy().into_owned();
        let source = source.trim_start_matches('/').split('?').next().unwrap_or_default().to_owned();
        all.push(Asked::new("s3:GetObject", format!("arn:aws:s3:::{source}")));
    }
    let missing = matches!(method, "GET" | "HEAD").then_some(bucket_arn);
    Needs { all, missing, ..Needs::default() }
}

fn of_bucket(method: &str, has: &impl Fn(&str) -> bool) -> String {
    if method == "DELETE" && has("policy") {
        return "DeleteBucketPolicy".to_owned();
    }
    if let Some((_, read, write)) = SETTINGS.iter().find(|(query, ..)| has(query)) {
        return if method == "GET" { read } else { write }.to_string();
    }
    match method {
        "GET" if has("versions") => "ListBucketVersions",
        "GET" if has("uploads") => "ListBucketMultipartUploads",
        "GET" | "HEAD" => "ListBucket",
        "PUT" => "CreateBucket",
        "DELETE" => "DeleteBucket",
        other => return format!("{other} bucket"),
    }
    .to_owned()
}

fn of_object(method: &str, has: &impl Fn(&str) -> bool) -> String {
    let version = |name: &str| if has("versionId") { format!("{name}Version") } else { name.to_owned() };
    match method {
        "GET" if has("uploadId") => "ListMultipartUploadParts".to_owned(),
        "DELETE" if has("uploadId") => "AbortMultipartUpload".to_owned(),
        "GET" if has("attributes") => version("GetObject") + "Attributes",
        "GET" | "PUT" | "DELETE" if has("tagging") => {
            let verb = match method {
                "GET" => "Get",
                "PUT" => "Put",
                _ => "Delete",
            };
            format!("{}Tagging", version(&format!("{verb}Object")))
        }
        "GET" if has("acl") => version("GetObject") + "Acl",
        "PUT" if has("acl") => version("PutObject") + "Acl",
        "GET" | "HEAD" => version("GetObject"),
        "DELETE" => version("DeleteObject"),
        // Also for all parts of an upload.
        "PUT" | "POST" => "PutObject".to_owned(),
        other => format!("{other} object"),
    }
}

/// Returns each object of a request to delete many.
fn deletions(bucket: &str, body: &[u8]) -> Vec<Asked> {
    let Ok(tree) = Element::parse(body) else { return vec![Asked::new("s3:POST delete", bucket)] };
    let of = |object: &&Element| {
        let is_version = object.text_of("VersionId").is_some();
        let action = if is_version { "s3:DeleteObjectVersion" } else { "s3:DeleteObject" };
        Some(Asked::new(action, format!("{bucket}/{}", object.text_of("Key")?)))
    };
    tree.all("Object").iter().filter_map(of).collect()
}
