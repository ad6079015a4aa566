//! The secrets that a deployment makes: the keys of session cookies, and the admin token. AWS has the token's hash; the
//! token itself is in a file on the operator's machine.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fleet::aws_code::AwsErrorKind;
use fleet::keys;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result};
use crate::part::{Part, RunMode};
use crate::resources::documents;

/// Ensures the keys that seal session cookies; they are made once.
pub async fn ensure_session_keys(aws: &Aws, mode: RunMode) -> Result<Part> {
    let part = Part::found("session keys", documents::read(aws, keys::SESSION_KEYS).await?.is_some());
    if !mode.applies(&part) {
        return Ok(part);
    }
    let mut key = [0_u8; 64];
    rand::rng().fill_bytes(&mut key);
    let ring = serde_json::json!({
        "active": "k1",
        "keys": [{"kid": "k1", "key": STANDARD.encode(key)}]
    });
    match documents::write(aws, keys::SESSION_KEYS, ring.to_string().into_bytes(), None).await {
        Err(error) if error.kind != AwsErrorKind::Conflict => Err(error),
        _ => Ok(part),
    }
}

/// Makes the admin token if the stack has none. The token itself goes to `file`, its hash to S3.
pub async fn ensure_token(aws: &Aws, mode: RunMode, file: &Path) -> Result<Part> {
    let seen = documents::read(aws, keys::ADMIN_TOKEN_HASH).await?;
    let part = Part::found("admin token", seen.is_some());
    if let (Some(seen), RunMode::Apply) = (&seen, mode) {
        complete(file, &seen.bytes)?;
    }
    if !mode.applies(&part) {
        return Ok(part);
    }
    match replace_token(aws, file, None).await {
        Ok(_) => Ok(part),
        Err(error) if error.kind == AwsErrorKind::Conflict => {
            Err(DeployError::new(Exit::Failed, "another deployment of this stack is running")
                .hint("Wait until it ends, then deploy again."))
        }
        Err(error) => Err(error),
    }
}

/// Replaces the admin token.
pub async fn rotate_token(aws: &Aws, file: &Path) -> Result<String> {
    let seen = documents::read(aws, keys::ADMIN_TOKEN_HASH).await?;
    replace_token(aws, file, seen.as_ref().map(|object| object.etag.as_str())).await
}

/// Makes a token, and puts its hash in place of the object with this ETag.
///
/// Until S3 has the hash, the token is in a file of its own beside `file`. A run that is cut in between loses no token:
/// [`complete`] finds it. A run that S3 refuses, because another one was first, leaves that one's token where it is.
async fn replace_token(aws: &Aws, file: &Path, seen: Option<&str>) -> Result<String> {
    let token = new_token();
    let hash = token_hash(&token);
    let waiting = waiting(file, &hash);
    write_private(&waiting, &token)?;
    match documents::write(aws, keys::ADMIN_TOKEN_HASH, hash.into_bytes(), seen).await {
        Ok(()) => std::fs::rename(&waiting, file).map_err(|error| not_written(file, error))?,
        Err(error) => {
            if error.kind == AwsErrorKind::Conflict {
                std::fs::remove_file(&waiting).ok();
            }
            return Err(error);
        }
    }
    Ok(token)
}

/// Puts the token with this hash in its place, if a run was cut before it did so itself.
pub fn complete(file: &Path, hash: &[u8]) -> Result<()> {
    let waiting = waiting(file, String::from_utf8_lossy(hash).trim());
    match std::fs::rename(waiting, file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(not_written(file, error)),
        _ => Ok(()),
    }
}

/// Removes the token, and those of runs that were cut.
pub fn forget_token(file: &Path) {
    std::fs::remove_file(file).ok();
    let Some(directory) = file.parent() else { return };
    let prefix = waiting(file, "");
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_waiting = entry.path().to_string_lossy().starts_with(&*prefix.to_string_lossy());
        if is_waiting {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

/// Returns where a token waits until S3 has its hash.
fn waiting(file: &Path, hash: &str) -> PathBuf {
    // A hash in S3 that is none must not lead elsewhere.
    let name: String = hash.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    file.with_extension(format!("waiting-{name}"))
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
        let new = file.with_added_extension("new");
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
    use crate::aws::stub::Stub;

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

    const GET: &str = "GET /vigia-a-control-123456789012-eu-west-1/secrets/admin-token.sha256";
    const PUT: &str = "PUT /vigia-a-control-123456789012-eu-west-1/secrets/admin-token.sha256";
    const NO_SUCH_KEY: &str = "<Error><Code>NoSuchKey</Code><Message>m</Message></Error>";
    const FAILED: &str = "<Error><Code>PreconditionFailed</Code><Message>m</Message></Error>";

    fn beside(file: &Path) -> Vec<String> {
        let names = std::fs::read_dir(file.parent().expect("a directory")).expect("readable").flatten();
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn a_run_that_loses_keeps_the_winners_token() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("a.token");
        std::fs::write(&file, "the winner's\n").expect("writable");
        let stub = Stub::default().says(GET, 404, NO_SUCH_KEY).says(PUT, 412, FAILED);
        let aws = stub.serve().await;
        let refused = ensure_token(&aws, RunMode::Apply, &file).await.expect_err("another one was first");
        assert_eq!(refused.to_string(), "another deployment of this stack is running");
        rotate_token(&aws, &file).await.expect_err("another one was first");
        assert_eq!(std::fs::read_to_string(&file).expect("readable"), "the winner's\n");
        assert_eq!(beside(&file), ["a.token"]);
    }

    #[tokio::test]
    async fn a_run_that_is_cut_loses_no_token() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("a.token");
        // The outcome of the write is not known: S3 does not answer, and then has the hash.
        let stub = Stub::default().says(GET, 404, NO_SUCH_KEY).says(PUT, 403, NO_SUCH_KEY);
        ensure_token(&stub.serve().await, RunMode::Apply, &file).await.expect_err("cut");
        let waiting = beside(&file);
        assert_eq!(waiting.len(), 1, "{waiting:?}");
        let token = std::fs::read_to_string(dir.path().join(&waiting[0])).expect("readable");
        let stub = Stub::default().says(GET, 200, &token_hash(token.trim()));
        let part = ensure_token(&stub.serve().await, RunMode::Apply, &file).await.expect("it goes on");
        assert!(!part.is_change());
        assert_eq!(beside(&file), ["a.token"]);
        assert_eq!(std::fs::read_to_string(&file).expect("readable"), token);
    }
}
