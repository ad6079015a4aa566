//! The programs, uploaded under their own hash: an upload never changes what runs.

use std::path::Path;

use aws_sdk_s3::primitives::ByteStream;
use fleet::keys;
use sha2::{Digest as _, Sha256};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{Doing, Part};

pub struct Artifact {
    pub name: &'static str,
    pub sha256: String,
    bytes: Vec<u8>,
}

impl Artifact {
    pub fn load(directory: &Path, name: &'static str) -> Result<Self> {
        let path = directory.join(name);
        let bytes = std::fs::read(&path).map_err(|error| {
            DeployError::new(Exit::Prerequisite, format!("cannot read the program {}", path.display()))
                .mend("Build it first; the make targets do. --artifacts names the directory.")
                .caused_by(error)
        })?;
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
        Ok(Self { name, sha256, bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

pub async fn ensure(aws: &Aws, doing: Doing, artifact: &Artifact) -> Result<Part> {
    let bucket = aws.names.control_bucket();
    let key = keys::artifact(&artifact.sha256, artifact.name);
    let head = aws.s3.head_object().bucket(&bucket).key(&key).send().await;
    let head = found(head.step(|| format!("look for {key}")))?;
    // The key names the content, so the same length under it is the same content.
    let len = i64::try_from(artifact.bytes.len()).unwrap_or(i64::MAX);
    let is_there = head.is_some_and(|head| head.content_length() == Some(len));
    let part = Part::found(format!("program {} {:.12}", artifact.name, artifact.sha256), is_there);
    if doing.applies(&part) {
        aws.s3
            .put_object()
            .bucket(&bucket)
            .key(&key)
            .body(ByteStream::from(artifact.bytes.clone()))
            .send()
            .await
            .step(|| format!("upload {}", artifact.name))?;
    }
    Ok(part)
}
