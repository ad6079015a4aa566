//! The object of a user, of either profile.
//!
//! Secure: a JSON document with the password's PHC string. Classic: the plain password is the whole
//! content, and the nonce is S3 metadata, so that the object reads as the original service wrote it.

use std::sync::Arc;

use accounts::{Record, random_id};
use fleet::Profile;
use secrecy::zeroize::Zeroizing;

use aws::bucket::{NewObject, Object, StoreError};

pub const MAX_BYTES: usize = Record::MAX_BYTES;

/// A user as read from the bucket.
pub enum User {
    Secure(Box<Record>),
    Classic { uid: String, password: Zeroizing<Vec<u8>> },
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the user object has {0} bytes, more than a record can have")]
    TooLarge(u64),
    #[error("the user object is not a record of this version")]
    Unreadable,
}

/// Why a user could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("{}", crate::s3::NO_ANSWER)]
    Store(#[from] StoreError),
    #[error("the stored record of this user cannot be read; tell the operator")]
    Record(#[from] RecordError),
}

impl UserError {
    /// Logs the error once and returns it for all requests that wait for the same read.
    pub fn shared(self) -> Arc<Self> {
        tracing::warn!(error = process::telemetry::error_chain(&self), "a request failed");
        Arc::new(self)
    }
}

impl User {
    pub fn read(profile: Profile, object: Object) -> Result<Self, RecordError> {
        if object.size > MAX_BYTES as u64 {
            return Err(RecordError::TooLarge(object.size));
        }
        match profile {
            Profile::Secure => {
                let record = Record::from_json(&object.bytes).ok_or(RecordError::Unreadable)?;
                Ok(Self::Secure(Box::new(record)))
            }
            Profile::Classic => Ok(Self::Classic {
                // An object put there by hand has no nonce; its tag is as good until it changes.
                uid: object.nonce.unwrap_or(object.etag.0),
                password: Zeroizing::new(object.bytes),
            }),
        }
    }

    pub fn uid(&self) -> &str {
        match self {
            Self::Secure(record) => &record.uid,
            Self::Classic { uid, .. } => uid,
        }
    }

    /// Grows when all sessions of the user end; a session carries the epoch it was made in.
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Secure(record) => record.epoch,
            Self::Classic { .. } => 0,
        }
    }

    /// The record as `/list` shows it.
    pub fn shown_password(&self) -> String {
        match self {
            Self::Secure(record) => record.phc.clone(),
            Self::Classic { password, .. } => String::from_utf8_lossy(password).into_owned(),
        }
    }
}

/// The object of a record in the secure profile.
pub fn secure_object(record: &Record) -> NewObject {
    NewObject { content_type: "application/json", bytes: record.to_json(), nonce: Some(record.nonce.clone()) }
}

/// The object of a user in the classic profile.
pub fn classic_object(password: &[u8]) -> NewObject {
    NewObject {
        content_type: "text/plain; charset=utf-8",
        bytes: password.to_vec(),
        nonce: Some(random_id()),
    }
}

#[cfg(test)]
mod tests {
    use accounts::Login;
    use jiff::Timestamp;

    use super::*;
    use aws::bucket::ETag;

    fn stored(object: &NewObject) -> Object {
        Object {
            bytes: object.bytes.clone(),
            size: object.bytes.len() as u64,
            etag: ETag("\"e\"".to_owned()),
            nonce: object.nonce.clone(),
        }
    }

    #[test]
    fn a_record_survives_the_bucket() {
        let login = Login::parse(Profile::Secure, "ana").expect("valid");
        let record = Record::new(&login, "$argon2id$x".to_owned(), Timestamp::UNIX_EPOCH);
        let user = User::read(Profile::Secure, stored(&secure_object(&record))).expect("own record");
        assert_eq!((user.shown_password().as_str(), user.epoch()), ("$argon2id$x", 0));
        assert_eq!(user.uid(), record.uid);
    }

    #[test]
    fn classic_content_is_the_password_alone() {
        let object = classic_object(b"hunter2");
        assert_eq!(object.bytes, b"hunter2");
        let user = User::read(Profile::Classic, stored(&object)).expect("any content");
        assert_eq!(user.shown_password(), "hunter2");
        assert_eq!(Some(user.uid()), object.nonce.as_deref());
    }

    #[test]
    fn a_malformed_record_is_refused() {
        let object = |text: &str| stored(&NewObject { content_type: "", bytes: text.into(), nonce: None });
        for text in ["", "hunter2", "{}", r#"{"v":1}"#] {
            assert!(User::read(Profile::Secure, object(text)).is_err(), "{text}");
        }
        let huge = Object { size: 1 << 30, ..object("hunter2") };
        for profile in [Profile::Secure, Profile::Classic] {
            assert!(matches!(User::read(profile, huge.clone()), Err(RecordError::TooLarge(_))));
        }
    }
}
