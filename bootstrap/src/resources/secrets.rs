//! The secrets that a deployment makes: the keys of session cookies, and the admin token. AWS has the token's hash; the
//! token itself is in a file on the operator's machine.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

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
    let part = Part::found("admin token", documents::read(aws, keys::ADMIN_TOKEN_HASH).await?.is_some());
    if !mode.applies(&part) {
        return Ok(part);
    }
    let token = new_token();
    // The file first: a run cut after this line makes a new token. The other order would leave a stack whose
    // token is lost.
    write_private(file, &token)?;
    match documents::write(aws, keys::ADMIN_TOKEN_HASH, token_hash(&token).into_bytes(), None).await {
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
    let seen = documents::read(aws, keys::ADMIN_TOKEN_HASH).await?;
    let token = new_token();
    write_private(file, &token)?;
    let etag = seen.as_ref().map(|object| object.etag.as_str());
    documents::write(aws, keys::ADMIN_TOKEN_HASH, token_hash(&token).into_bytes(), etag).await?;
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
