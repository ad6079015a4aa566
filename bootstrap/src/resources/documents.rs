//! The objects of the control bucket that a deployment writes: desired count, release, secrets.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ::aws::bucket::whole;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fleet::aws_code::AwsErrorKind;
use fleet::release::{Credits, InstanceSpec, Market, Release, Rollout};
use fleet::{DesiredCount, Profile, StackName, keys};
use rand::RngCore as _;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{Part, RunMode};

/// Desired count of a new stack without --workers.
const FIRST_COUNT: u32 = 3;

/// Four times the largest document that has readers: an operator may have made one by hand.
const MAX_BYTES: usize = 4 * fleet::memory::Memory::MAX_BYTES;

pub struct Object {
    pub bytes: Vec<u8>,
    pub etag: String,
}

pub async fn read(aws: &Aws, key: &str) -> Result<Option<Object>> {
    read_from(aws, &aws.names.control_bucket(), key).await
}

/// Reads a JSON object of the control bucket.
pub async fn read_as<T: DeserializeOwned>(aws: &Aws, key: &str) -> Result<Option<T>> {
    let Some(object) = read(aws, key).await? else { return Ok(None) };
    serde_json::from_slice(&object.bytes).map(Some).map_err(|error| {
        DeployError::new(Exit::Failed, format!("{key} in {} cannot be read", aws.names.control_bucket()))
            .caused_by(error)
    })
}

async fn read_from(aws: &Aws, bucket: &str, key: &str) -> Result<Option<Object>> {
    let got = aws.s3.get_object().bucket(bucket).key(key).send().await;
    let Some(got) = found(got.step(|| format!("read {key} from {bucket}")))? else { return Ok(None) };
    let etag = got.e_tag().unwrap_or_default().to_owned();
    let failed = || {
        DeployError::new(Exit::Unreachable, format!("could not read {key} from {bucket}"))
            .hint("Check the network, then run this again.")
    };
    let within = aws.patience.for_a_body();
    let bytes = whole(got.body, MAX_BYTES, within).await.map_err(|why| failed().caused_by(why))?;
    if bytes.len() > MAX_BYTES {
        let why = format!("it has more than {} MiB, so it is not a document of Vigia's", MAX_BYTES >> 20);
        return Err(failed().caused_by(why));
    }
    Ok(Some(Object { bytes, etag }))
}

/// Overwrites the version that was read: `etag` is that of the object seen, `None` if there was none.
pub async fn write(aws: &Aws, key: &str, bytes: Vec<u8>, etag: Option<&str>) -> Result<()> {
    put_over(aws, &aws.names.control_bucket(), key, bytes, etag).await
}

/// Writes an object under a condition. S3 refuses a write with 412 if the condition does not hold, which is
/// an answer. It refuses with 409 while another write is in progress, which says nothing of the outcome, so
/// that is tried again.
async fn put_over(aws: &Aws, bucket: &str, key: &str, bytes: Vec<u8>, etag: Option<&str>) -> Result<()> {
    let written = async || {
        let put = aws.s3.put_object().bucket(bucket).key(key).body(ByteStream::from(bytes.clone()));
        let put = match etag {
            Some(etag) => put.if_match(etag),
            None => put.if_none_match("*"),
        };
        put.send().await.step(|| format!("write {key}"))
    };
    match aws.patience.depends_on(bucket, written).await {
        Ok(_) => Ok(()),
        // A write whose reply was lost is repeated, and then finds its own object.
        Err(error) if error.kind == AwsErrorKind::Conflict => {
            let now = read_from(aws, bucket, key).await?;
            if now.is_some_and(|object| object.bytes == bytes) { Ok(()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// The profile of the users in a data bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// No worker has started on it yet.
    Missing,
    Profile(Profile),
    Migrating,
    Unknown,
}

/// Returns the marker and the ETag of its object.
pub async fn marker(aws: &Aws) -> Result<(Marker, String)> {
    let seen = read_from(aws, &aws.names.data_bucket(), keys::PROFILE_MARKER).await?;
    let Some(object) = seen else { return Ok((Marker::Missing, String::new())) };
    let text = String::from_utf8_lossy(&object.bytes);
    let marker = match text.trim() {
        keys::MIGRATING => Marker::Migrating,
        text => text.parse().map_or(Marker::Unknown, Marker::Profile),
    };
    Ok((marker, object.etag))
}

/// Changes the marker that was seen with this ETag.
pub async fn write_marker(aws: &Aws, text: &str, seen: &str) -> Result<()> {
    let bytes = text.as_bytes().to_vec();
    put_over(aws, &aws.names.data_bucket(), keys::PROFILE_MARKER, bytes, Some(seen)).await
}

/// Returns the profile to deploy. A data bucket with users has a profile, and no worker of another profile
/// would start on it: better to say so here than after minutes of waiting.
///
/// In the first 15 minutes of the data bucket's versioning, S3 may not show a marker that workers have
/// written. The release, in a bucket without versions, then tells the profile.
pub async fn profile(aws: &Aws, wanted: Option<Profile>, before: Option<&Release>) -> Result<Profile> {
    choose_profile(&aws.names.stack, wanted, marker(aws).await?.0, before.map(|before| before.profile))
}

fn choose_profile(
    stack: &StackName,
    wanted: Option<Profile>,
    marker: Marker,
    before: Option<Profile>,
) -> Result<Profile> {
    match (wanted, marker) {
        (_, Marker::Migrating) => Err(DeployError::new(
            Exit::Failed,
            format!("`migrate-profile` has converted only some users of stack {stack}"),
        )
        .hint("Run `make migrate-profile` until it finishes, then deploy again.")),
        (Some(wanted), Marker::Profile(marked)) if wanted != marked => {
            let what = format!("the users of stack {stack} belong to the profile {marked}, not {wanted}");
            let hint = match wanted {
                Profile::Secure => {
                    "`make scale N=0`, then `make migrate-profile`, turns them into secure ones."
                }
                Profile::Classic => {
                    "Secure users cannot become classic ones. Choose another stack (make: STACK=…), or remove \
                     this one with its users first: `make destroy`, on the local cloud `make local-reset`."
                }
            };
            Err(DeployError::new(Exit::Usage, what).hint(hint))
        }
        (_, Marker::Profile(marked)) => Ok(marked),
        (wanted, Marker::Missing | Marker::Unknown) => Ok(wanted.or(before).unwrap_or(Profile::Secure)),
    }
}

/// Sets the count if one is given; otherwise an existing count stays.
pub async fn ensure_desired(
    aws: &Aws,
    mode: RunMode,
    wanted: Option<DesiredCount>,
) -> Result<(Part, DesiredCount)> {
    for _ in 0..5 {
        let seen = read(aws, keys::DESIRED_COUNT).await?;
        let current = seen.as_ref().map(|object| DesiredCount::from_object(&object.bytes));
        let target = match (wanted, &current) {
            (Some(wanted), _) => wanted,
            (None, Some(Ok(current))) => *current,
            (None, _) => DesiredCount::try_from(FIRST_COUNT).expect("the first count is within bounds"),
        };
        let what = "desired count";
        let part = match &current {
            None => Part::created(what),
            Some(Ok(current)) if *current == target => Part::unchanged(what),
            Some(Ok(current)) => Part::compared(what, vec![format!("{target} instead of {current}")]),
            Some(Err(error)) => Part::compared(what, vec![format!("{target}, because {error}")]),
        };
        if !mode.applies(&part) {
            return Ok((part, target));
        }
        let etag = seen.as_ref().map(|object| object.etag.as_str());
        match write(aws, keys::DESIRED_COUNT, format!("{target}\n").into_bytes(), etag).await {
            Ok(()) => return Ok((part, target)),
            // Another writer set it since, or the reply was lost: look again.
            Err(error) if error.kind == AwsErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(DeployError::new(Exit::Failed, "desired-count keeps changing while this command writes it")
        .hint("Try again."))
}

/// Returns the last deployed release. An unreadable release counts as none and is replaced.
pub async fn release(aws: &Aws) -> Result<Option<Release>> {
    let seen = read(aws, keys::RELEASE).await?;
    Ok(seen.and_then(|object| serde_json::from_slice(&object.bytes).ok()))
}

/// Returns the differences that a deployment of `release` makes.
pub fn compare_release(before: Option<&Release>, release: &Release) -> Part {
    let what = "release";
    let Some(before) = before else { return Part::created(what) };
    let mut differs = instance_differs("workers", &before.worker, &release.worker);
    if (&before.profile, &before.version) != (&release.profile, &release.version) {
        differs.push("workers: profile or version".to_owned());
    }
    if before.rollout != release.rollout {
        differs.push(
            match release.rollout {
                Rollout::SurgeFirst => "rollout: an extra worker first",
                Rollout::StopFirst => "rollout: stops one worker first",
            }
            .to_owned(),
        );
    }
    match (&before.balancer, &release.balancer) {
        (Some(before), Some(now)) => {
            differs.extend(instance_differs("load balancer", &before.instance, &now.instance));
            if before.allocation != now.allocation {
                differs.push("load balancer: address".to_owned());
            }
            if before.more_allocations != now.more_allocations {
                differs.push("further load balancers".to_owned());
            }
        }
        (before, now) if before != now => differs.push("load balancer".to_owned()),
        _ => {}
    }
    Part::compared(what, differs)
}

fn instance_differs(of: &str, before: &InstanceSpec, now: &InstanceSpec) -> Vec<String> {
    let mut differs = Vec::new();
    let mut compare = |what: &str, before: &str, now: &str| {
        if before != now {
            differs.push(format!("{of}: {what} {now} instead of {before}"));
        }
    };
    compare("image", &before.ami, &now.ami);
    compare("type", &before.instance_type, &now.instance_type);
    compare("security group", &before.security_group, &now.security_group);
    compare("instance profile", &before.instance_profile, &now.instance_profile);
    if before.subnets != now.subnets {
        differs.push(format!("{of}: subnets"));
    }
    if before.market != now.market {
        differs.push(format!(
            "{of}: {}",
            match now.market {
                Market::OnDemand => "on demand instead of spot",
                Market::Spot => "spot instead of on demand",
            }
        ));
    }
    if before.credits != now.credits {
        differs.push(format!(
            "{of}: {}",
            match now.credits {
                Credits::Standard => "standard CPU credits instead of unlimited",
                Credits::Unlimited => "unlimited CPU credits instead of standard",
            }
        ));
    }
    if before.user_data != now.user_data {
        differs.push(format!("{of}: program or its settings"));
    }
    differs
}

/// Writes the release over the existing one, unless they are the same.
pub async fn write_release(aws: &Aws, release: &Release) -> Result<()> {
    let text = fleet::document::encode(keys::RELEASE, release, Release::MAX_BYTES).map_err(|too_large| {
        DeployError::new(Exit::Failed, too_large.to_string())
            .hint("The user data of an instance is too long. Pass fewer or shorter settings.")
    })?;
    let seen = read(aws, keys::RELEASE).await?;
    if seen.as_ref().is_some_and(|object| object.bytes == text) {
        return Ok(());
    }
    write(aws, keys::RELEASE, text, seen.as_ref().map(|object| object.etag.as_str())).await
}

/// Ensures the keys that seal session cookies; they are made once.
pub async fn ensure_session_keys(aws: &Aws, mode: RunMode) -> Result<Part> {
    let part = Part::found("session keys", read(aws, keys::SESSION_KEYS).await?.is_some());
    if !mode.applies(&part) {
        return Ok(part);
    }
    let mut key = [0_u8; 64];
    rand::rng().fill_bytes(&mut key);
    let ring = serde_json::json!({
        "active": "k1",
        "keys": [{"kid": "k1", "key": STANDARD.encode(key)}]
    });
    match write(aws, keys::SESSION_KEYS, ring.to_string().into_bytes(), None).await {
        Err(error) if error.kind != AwsErrorKind::Conflict => Err(error),
        _ => Ok(part),
    }
}

/// Makes the admin token if the stack has none. The token itself goes to `file`, its hash to S3.
pub async fn ensure_token(aws: &Aws, mode: RunMode, file: &Path) -> Result<Part> {
    let part = Part::found("admin token", read(aws, keys::ADMIN_TOKEN_HASH).await?.is_some());
    if !mode.applies(&part) {
        return Ok(part);
    }
    let token = new_token();
    // The file first: a run cut after this line makes a new token. The other order would leave a stack whose
    // token is lost.
    write_private(file, &token)?;
    match write(aws, keys::ADMIN_TOKEN_HASH, token_hash(&token).into_bytes(), None).await {
        Ok(()) => Ok(part),
        Err(error) if error.kind == AwsErrorKind::Conflict => {
            Err(DeployError::new(Exit::Failed, "another deployment of this stack is running")
                .hint("Wait until it ends, then deploy again."))
        }
        Err(error) => Err(error),
    }
}

/// Replaces the admin token.
pub async fn rotate_token(aws: &Aws, file: &Path) -> Result<String> {
    let seen = read(aws, keys::ADMIN_TOKEN_HASH).await?;
    let token = new_token();
    write_private(file, &token)?;
    let etag = seen.as_ref().map(|object| object.etag.as_str());
    write(aws, keys::ADMIN_TOKEN_HASH, token_hash(&token).into_bytes(), etag).await?;
    Ok(token)
}

pub fn token_hash(token: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}

/// Returns 256 random bits, in characters safe in a header, a URL and a shell.
fn new_token() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(file: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let new = file.with_extension("new");
        std::fs::remove_file(&new).ok();
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        writeln!(out, "{text}")?;
        out.sync_all()?;
        std::fs::rename(&new, file)
    };
    write().map_err(|error| not_written(file, error))
}

/// Returns the error of the token file, or of the certificate file next to it.
pub fn not_written(file: &Path, error: std::io::Error) -> DeployError {
    DeployError::new(Exit::Prerequisite, format!("cannot write {}", file.display()))
        .hint("Check the permissions and the free space of its directory. --token-file names another file.")
        .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_not_yet_visible_in_s3_keeps_the_profile() {
        let stack: StackName = "a".parse().expect("valid");
        let chosen = |wanted, marker, before| {
            choose_profile(&stack, wanted, marker, before).expect("nothing contradicts")
        };
        assert_eq!(chosen(None, Marker::Missing, Some(Profile::Classic)), Profile::Classic);
        assert_eq!(chosen(None, Marker::Missing, None), Profile::Secure);
        assert_eq!(chosen(None, Marker::Profile(Profile::Classic), Some(Profile::Secure)), Profile::Classic);
    }

    /// The error of reading an object of which S3 says this, and no more.
    async fn error_of(head: String, body: Vec<u8>) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut aws =
            crate::aws::stub::client(&format!("http://{}", listener.local_addr().expect("an address")));
        aws.patience = crate::patience::Patience::at_most(Some(1));
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            drop(stream.read(&mut [0; 4096]).await);
            drop(stream.write_all(head.as_bytes()).await);
            drop(stream.write_all(&body).await);
            std::future::pending::<()>().await
        };
        tokio::select! {
            read = read(&aws, keys::STATE) => read.map(|_| ()).expect_err("there is no whole object").message(),
            () = server => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_body_that_stalls_or_has_no_end_is_an_error() {
        let head = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let stalled = error_of(head(100), b"{".to_vec()).await;
        assert!(stalled.contains("S3 sent no whole body within 1 s"), "{stalled}");
        let endless = error_of(head(usize::MAX / 2), vec![b' '; MAX_BYTES + 1]).await;
        assert!(endless.contains("it has more than 4 MiB"), "{endless}");
    }

    #[test]
    fn the_token_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("a/token");
        for text in ["one", "two"] {
            write_private(&file, text).expect("writable");
            assert_eq!(std::fs::read_to_string(&file).expect("readable"), format!("{text}\n"));
            let mode = std::fs::metadata(&file).expect("exists").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
