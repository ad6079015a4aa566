//! The object of a user in the secure profile.
//!
//! `uid` is new each time a login is registered: a session of a deleted user does not open the account of the
//! next user with that name. `nonce` is new with each write: after a lost reply, it tells this worker's own
//! write from another writer's.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::login::Login;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    v: u32,
    pub login: String,
    pub phc: String,
    pub uid: String,
    /// Grows when all sessions of the user end; a session carries the epoch of its start.
    pub epoch: u64,
    pub created: Timestamp,
    /// When the password was chosen.
    pub changed: Timestamp,
    pub nonce: String,
    /// The newest [`Record::MAX_SIGN_INS`], oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sign_ins: Vec<SignIn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignIn {
    pub at: Timestamp,
    /// The client's address, as the load balancer saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl Record {
    /// Readers refuse a larger object: a login of 256 bytes, a PHC string and the sign-ins make under 2 KiB.
    pub const MAX_BYTES: usize = 4096;
    pub const MAX_SIGN_INS: usize = 5;

    /// Makes the record of a new user.
    pub fn new(login: &Login, phc: String, now: Timestamp) -> Self {
        Self {
            v: VERSION,
            login: login.as_str().to_owned(),
            phc,
            uid: random_id(),
            epoch: 0,
            created: now,
            changed: now,
            nonce: random_id(),
            sign_ins: Vec::new(),
        }
    }

    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.v == VERSION)
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is plain data")
    }

    /// Adds a sign-in and forgets the oldest beyond the bound.
    pub fn signed_in(&mut self, sign_in: SignIn) {
        self.sign_ins.push(sign_in);
        let surplus = self.sign_ins.len().saturating_sub(Self::MAX_SIGN_INS);
        self.sign_ins.drain(..surplus);
    }
}

/// Returns 128 random bits in hexadecimal.
pub fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use fleet::Profile;

    use super::*;

    fn record() -> Record {
        let login = Login::parse(Profile::Secure, "ana").expect("valid");
        Record::new(&login, "$argon2id$x".to_owned(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_record_survives_its_text() {
        let record = record();
        assert_eq!(Record::from_json(&record.to_json()).as_ref(), Some(&record));
        assert_eq!(record.uid.len(), 32);
        assert_ne!(record.uid, self::record().uid, "each registration is another user");
    }

    #[test]
    fn a_record_without_sign_ins_still_reads() {
        let text = r#"{"v":1,"login":"ana","phc":"$x","uid":"u","epoch":3,"created":"2026-01-01T00:00:00Z",
            "changed":"2026-01-01T00:00:00Z","nonce":"n"}"#;
        let record = Record::from_json(text.as_bytes()).expect("a record");
        assert_eq!((record.epoch, record.sign_ins.len()), (3, 0));
    }

    #[test]
    fn only_the_newest_sign_ins_are_kept_and_the_object_stays_small() {
        let login = Login::parse(Profile::Classic, &"😀".repeat(64)).expect("64 code points");
        let mut record = Record::new(&login, "x".repeat(120), Timestamp::UNIX_EPOCH);
        for second in 0..10 {
            let at = Timestamp::from_second(second).expect("a time");
            record.signed_in(SignIn { at, from: Some("x".repeat(45)) });
        }
        assert_eq!(record.sign_ins.len(), Record::MAX_SIGN_INS);
        assert_eq!(record.sign_ins[0].at.as_second(), 5);
        assert!(record.to_json().len() < Record::MAX_BYTES / 2, "{}", record.to_json().len());
    }

    #[test]
    fn a_malformed_record_is_refused() {
        for text in ["", "hunter2", "{}", r#"{"v":1}"#] {
            assert_eq!(Record::from_json(text.as_bytes()), None, "{text}");
        }
        let newer = String::from_utf8(record().to_json()).expect("text").replace(r#""v":1"#, r#""v":2"#);
        assert_eq!(Record::from_json(newer.as_bytes()), None, "of a newer version");
    }
}
