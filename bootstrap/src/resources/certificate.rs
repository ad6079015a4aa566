//! The certificate's object in the control bucket, and the certificate file next to the token, for clients to
//! trust.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use fleet::keys;
use jiff::Timestamp;

use crate::aws::Aws;
use crate::certificate::{Certificate, ISSUED_HERE, Origin};
use crate::error::{Result, Step as _, found};
use crate::part::{Part, RunMode};
use crate::resources::documents::{self, Object};
use crate::resources::secrets;
use crate::tls::{Decision, Stored};

/// Returns the stored certificate and its object.
pub async fn find(aws: &Aws) -> Result<Option<(Stored, Object)>> {
    let object = documents::read(aws, keys::CERTIFICATE).await?;
    Ok(object.map(|object| (Certificate::from_object(&object.bytes), object)))
}

/// Carries out a decision about `seen`, and returns the certificate then in force; a plan issues none.
pub async fn apply(
    aws: &Aws,
    mode: RunMode,
    decision: Decision,
    seen: Option<&Object>,
    addresses: &[Ipv4Addr],
    now: Timestamp,
) -> Result<(Option<Certificate>, Part)> {
    let etag = seen.map(|object| object.etag.as_str());
    let what = "certificate";
    let written = |differs: &str| match etag {
        None => Part::created(what),
        Some(_) => Part::compared(what, vec![differs.to_owned()]),
    };
    let part = match &decision {
        Decision::StayOff | Decision::Keep(_) => Part::unchanged(what),
        Decision::Remove => Part::removed(what),
        Decision::Issue => written("a new self-signed one"),
        Decision::Store(_) => written("from --tls-cert"),
    };
    let new = match decision {
        Decision::StayOff => return Ok((None, part)),
        Decision::Keep(certificate) => return Ok((Some(certificate), part)),
        Decision::Remove => {
            if mode.applies(&part) {
                let bucket = aws.names.control_bucket();
                let deleted = aws.s3.delete_object().bucket(bucket).key(keys::CERTIFICATE).send().await;
                found(deleted.step(|| "delete the certificate".to_owned()))?;
            }
            return Ok((None, part));
        }
        Decision::Issue if mode == RunMode::Plan => return Ok((None, part)),
        Decision::Issue => Certificate::self_signed(addresses, now),
        Decision::Store(given) => given,
    };
    if mode.applies(&part) {
        documents::write(aws, keys::CERTIFICATE, new.to_object(), etag).await?;
    }
    Ok((Some(new), part))
}

/// Returns the path of the file for `curl --cacert` on this machine.
pub fn file(token_file: &Path) -> PathBuf {
    token_file.with_extension("certificate.pem")
}

/// Writes a self-signed certificate, without its key, to the file, and removes the file when the certificate
/// is no longer in force. A file of that name with other content is not removed.
pub fn keep_file(file: &Path, certificate: Option<&Certificate>) -> Result<()> {
    let ours = certificate.filter(|certificate| certificate.origin == Origin::SelfSigned);
    let present = std::fs::read_to_string(file).ok();
    let is_of_us = present.as_ref().is_some_and(|text| text.starts_with(ISSUED_HERE));
    let done = match ours {
        Some(ours) if present.as_ref() == Some(&ours.public_pem()) => Ok(()),
        Some(ours) => {
            let parent = file.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(parent).and_then(|()| std::fs::write(file, ours.public_pem()))
        }
        None if is_of_us => std::fs::remove_file(file),
        None => Ok(()),
    };
    done.map_err(|error| secrets::not_written(file, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::testing::{ADDRESS, given, now, pair};

    #[test]
    fn the_file_holds_a_self_signed_certificate_without_its_key() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("a/certificate.pem");
        let ours = Certificate::self_signed(&[ADDRESS], now());
        for _ in 0..2 {
            keep_file(&file, Some(&ours)).expect("writable");
            let text = std::fs::read_to_string(&file).expect("readable");
            assert_eq!(text.matches("-----BEGIN ").count(), 1, "{text}");
            assert!(text.contains("-----BEGIN CERTIFICATE-----"), "{text}");
        }
        keep_file(&file, Some(&given(&pair()))).expect("removable");
        assert!(!file.exists());
        std::fs::write(&file, "the operator's own").expect("writable");
        keep_file(&file, None).expect("left alone");
        assert!(file.exists());
    }
}
