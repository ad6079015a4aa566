//! The programs, uploaded under their own hash: an upload never changes a running program.

use std::path::{Path, PathBuf};

use aws_sdk_s3::types::ChecksumMode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fleet::keys;
use sha2::{Digest as _, Sha256};

use crate::aws::Aws;
use crate::cli::Arch;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::executable::{self, Unfit};
use crate::part::{Part, RunMode};
use crate::resources::upload::{self, Upload};

pub struct Artifact {
    pub name: &'static str,
    pub sha256: String,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Artifact {
    pub fn load(directory: &Path, name: &'static str) -> Result<Self> {
        let path = directory.join(name);
        let bytes = std::fs::read(&path).map_err(|error| {
            DeployError::new(Exit::Prerequisite, format!("cannot read the program {}", path.display()))
                .hint("Build it first (the make targets do), or name its directory with --artifacts.")
                .caused_by(error)
        })?;
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
        Ok(Self { name, sha256, path, bytes })
    }

    /// Refuses a program that would not start on an AWS instance.
    pub fn must_run_on(&self, arch: Arch) -> Result<()> {
        executable::judge(&self.bytes, arch).map_err(|unfit| {
            let hint = match &unfit {
                Unfit::Processor { .. } => {
                    "Set --arch to the programs' processor, or build them for the other one. `make deploy \
                        ARCH=arm64` or `ARCH=x86_64` does both."
                }
                Unfit::Glibc { .. } | Unfit::NotAProgram(_) => {
                    "`make release-artifacts` builds programs for Amazon Linux 2023 into \
                     target/release-artifacts, which --artifacts then names; `make deploy` does both."
                }
            };
            let what = format!("{} cannot run on AWS", self.path.display());
            DeployError::new(Exit::Prerequisite, what).hint(hint).caused_by(unfit)
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the hash as S3 writes it.
    fn checksum(&self) -> String {
        BASE64_STANDARD.encode(Sha256::digest(&self.bytes))
    }
}

pub async fn ensure(aws: &Aws, mode: RunMode, artifact: &Artifact) -> Result<Part> {
    let bucket = aws.names.control_bucket();
    let key = keys::artifact(&artifact.sha256, artifact.name);
    let head =
        aws.s3.head_object().bucket(&bucket).key(&key).checksum_mode(ChecksumMode::Enabled).send().await;
    let head = found(head.step(|| format!("look for {key}")))?;
    // The key names the content; this also checks that the stored object is whole.
    let len = i64::try_from(artifact.bytes.len()).unwrap_or(i64::MAX);
    let is_whole = head.is_some_and(|head| {
        let sum = head.checksum_sha256();
        head.content_length() == Some(len) && sum.is_none_or(|sum| sum == artifact.checksum())
    });
    let part = Part::found(format!("program {} {:.12}", artifact.name, artifact.sha256), is_whole);
    if mode.applies(&part) {
        // An instance checks the same hash before each start.
        let upload = Upload {
            name: artifact.name,
            path: &artifact.path,
            bucket: &bucket,
            key: &key,
            checksum: artifact.checksum(),
            bytes: artifact.bytes.len() as u64,
        };
        aws.patience.depends_on(&bucket, async || upload.send(&aws.s3, upload::LIMITS).await).await?;
    }
    Ok(part)
}
