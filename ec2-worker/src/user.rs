//! What is stored of a user.
//!
//! Secure: a JSON document with the password's PHC string. Classic: the plain password is the whole
//! content, and the nonce is S3 metadata, so that the object reads as the original service wrote it.
//!
//! `uid` is new each time a login is registered: a session of a deleted user does not open the
//! account of whoever takes the name next. `nonce` is new with each write: it tells our own write,
//! whose reply was lost, from somebody else's.

use fleet::Profile;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::login::Login;
use crate::store::{NewObject, Object};

/// Readers refuse a larger object: a login of 256 bytes and a PHC string make under 700.
pub const MAX_BYTES: usize = 4096;

const VERSION: u32 = 1;

/// A user as read from the bucket.
pub struct User {
    pub uid: String,
    /// Grows when all sessions of the user end; a session carries the epoch it was made in.
    pub epoch: u64,
    pub stored: Stored,
}

/// The stored form of the password.
pub enum Stored {
    Phc(String),
    Plain(Zeroizing<Vec<u8>>),
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the user object has {0} bytes, more than a record can have")]
    TooLarge(u64),
    #[error("the user object is not a record of this version")]
    Unreadable,
}

#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    login: String,
    phc: String,
    uid: String,
    epoch: u64,
    created: Timestamp,
    changed: Timestamp,
    nonce: String,
}

impl User {
    pub fn read(profile: Profile, object: Object) -> Result<Self, RecordError> {
        if object.size > MAX_BYTES as u64 {
            return Err(RecordError::TooLarge(object.size));
        }
        match profile {
            Profile::Secure => {
                let record = parse(&object.bytes).ok_or(RecordError::Unreadable)?;
                Ok(Self { uid: record.uid, epoch: record.epoch, stored: Stored::Phc(record.phc) })
            }
            Profile::Classic => Ok(Self {
                // An object put there by hand has no nonce; its tag is as good until it changes.
                uid: object.nonce.unwrap_or(object.etag.0),
                epoch: 0,
                stored: Stored::Plain(Zeroizing::new(object.bytes)),
            }),
        }
    }

    /// The record as `/list` shows it.
    pub fn shown_password(&self) -> String {
        match &self.stored {
            Stored::Phc(phc) => phc.clone(),
            Stored::Plain(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// The object of a new user in the secure profile.
pub fn secure_object(login: &Login, phc: String, now: Timestamp) -> NewObject {
    let record = Record {
        v: VERSION,
        login: login.as_str().to_owned(),
        phc,
        uid: random_id(),
        epoch: 0,
        created: now,
        changed: now,
        nonce: random_id(),
    };
    let bytes = serde_json::to_vec(&record).expect("a record is plain data");
    NewObject { content_type: "application/json", bytes, nonce: Some(record.nonce) }
}

/// The object of a new user in the classic profile.
pub fn classic_object(password: &[u8]) -> NewObject {
    NewObject {
        content_type: "text/plain; charset=utf-8",
        bytes: password.to_vec(),
        nonce: Some(random_id()),
    }
}

/// 128 random bits, hexadecimal.
pub fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn parse(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice(bytes).ok().filter(|record: &Record| record.v == VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ETag;

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
        let object = secure_object(&login, "$argon2id$x".to_owned(), Timestamp::UNIX_EPOCH);
        let user = User::read(Profile::Secure, stored(&object)).expect("own record");
        assert_eq!((user.shown_password().as_str(), user.epoch), ("$argon2id$x", 0));
        assert_eq!(user.uid.len(), 32);
        let again = secure_object(&login, "$argon2id$x".to_owned(), Timestamp::UNIX_EPOCH);
        let again = User::read(Profile::Secure, stored(&again)).expect("own record");
        assert_ne!(user.uid, again.uid, "each registration is another user");
    }

    #[test]
    fn classic_content_is_the_password_alone() {
        let object = classic_object(b"hunter2");
        assert_eq!(object.bytes, b"hunter2");
        let user = User::read(Profile::Classic, stored(&object)).expect("any content");
        assert_eq!(user.shown_password(), "hunter2");
        assert_eq!(Some(user.uid), object.nonce);
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
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
