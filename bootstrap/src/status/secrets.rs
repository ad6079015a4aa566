//! Checks whether workers can read the stack's secrets.
//!
//! They read them again every minute. Workers ignore an unreadable object: the session keys after an hour,
//! the hash of the admin token at once. So `status` reports it before users notice.

use fleet::{Profile, keys};

use crate::aws::Aws;
use crate::error::Result;
use crate::resources::documents;
use crate::session_keys::Ring;

/// Returns a sentence for each faulty secret, without any of its content.
pub(super) async fn complaints(aws: &Aws, profile: Profile) -> Result<Vec<String>> {
    let (ring, hash) = tokio::try_join!(
        documents::read(aws, keys::SESSION_KEYS),
        documents::read(aws, keys::ADMIN_TOKEN_HASH)
    )?;
    let ring = ring.as_ref().map(|object| object.bytes.as_slice());
    let hash = hash.as_ref().map(|object| object.bytes.as_slice());
    let hash = match profile {
        Profile::Secure => judge_hash(hash),
        // It has no admin routes.
        Profile::Classic => None,
    };
    Ok(judge_ring(ring).into_iter().chain(hash).collect())
}

fn judge_ring(bytes: Option<&[u8]>) -> Option<String> {
    let state = match bytes {
        None => "missing",
        Some(bytes) => match serde_json::from_slice::<Ring>(bytes) {
            Ok(ring) if ring.is_whole() => return None,
            _ => "not a valid key ring",
        },
    };
    Some(format!(
        "{} is {state}: workers keep the keys they have for an hour, then all sessions end. Restore the \
            object, or delete it and run `deploy`, which creates new keys and ends all sessions",
        keys::SESSION_KEYS
    ))
}

fn judge_hash(bytes: Option<&[u8]>) -> Option<String> {
    let is_hash = |bytes: &[u8]| {
        let digits = bytes.trim_ascii();
        digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit)
    };
    let state = match bytes {
        None => "missing",
        Some(bytes) if is_hash(bytes) => return None,
        Some(_) => "not a hash",
    };
    Some(format!(
        "{} is {state}: workers refuse the admin token. `token rotate` (make: token ROTATE=1) creates a new \
            one",
        keys::ADMIN_TOKEN_HASH
    ))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn keys_that_workers_cannot_read_are_named() {
        let ring = |active: &str, key: &str| {
            format!(r#"{{"active":"{active}","keys":[{{"kid":"k1","key":"{key}"}}]}}"#).into_bytes()
        };
        let key = STANDARD.encode([7; 64]);
        assert_eq!(judge_ring(Some(&ring("k1", &key))), None);
        let (no_active, short) = (ring("k2", &key), ring("k1", "AAAA"));
        for (bytes, says) in [
            (None, "is missing"),
            (Some(&b"{"[..]), "not a valid key ring"),
            (Some(&no_active), "not a valid key ring"),
            (Some(&short), "not a valid key ring"),
        ] {
            assert!(judge_ring(bytes).is_some_and(|text| text.contains(says)), "{bytes:?}");
        }
    }

    #[test]
    fn a_hash_that_workers_cannot_read_is_named() {
        assert_eq!(judge_hash(Some(format!(" {}\n", "aB".repeat(32)).as_bytes())), None);
        assert!(judge_hash(None).is_some_and(|text| text.contains("is missing")));
        for bad in ["", "t0ken", &"g".repeat(64)] {
            assert!(
                judge_hash(Some(bad.as_bytes())).is_some_and(|text| text.contains("not a hash")),
                "{bad}"
            );
        }
    }

    #[tokio::test]
    async fn both_secrets_of_a_stack_are_looked_at() {
        const KEYS: &str = "GET /vigia-a-control-123456789012-eu-west-1/secrets/session-keys.json";
        const HASH: &str = "GET /vigia-a-control-123456789012-eu-west-1/secrets/admin-token.sha256";
        let stub = crate::aws::stub::Stub::default().says(KEYS, 200, "{}").says(HASH, 200, "nonsense");
        let aws = stub.serve().await;
        for (profile, number) in [(Profile::Secure, 2), (Profile::Classic, 1)] {
            let said = complaints(&aws, profile).await.expect("S3 answers");
            assert_eq!(said.len(), number, "{said:?}");
        }
    }
}
