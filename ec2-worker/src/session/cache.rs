//! `Sessions`: verdicts on sessions that this worker fetched or decided within the last seconds.
//!
//! A verdict is kept under everything it was computed from ([`Subject`]). The id of the session alone
//! is not enough: two cookies may have one id and different epochs, and then each request with the
//! newer cookie would renew the verdict that lets the older one in. For the same reason a change of
//! password gives the session another id.

use std::sync::Arc;
use std::time::Duration;

use accounts::SignIn;
use jiff::Timestamp;
use moka::sync::Cache;
use tokio::time::Instant;

use super::{ABSOLUTE, Session};
use crate::flights::Flights;
use crate::user::UserError;

/// The documented bound for an ended session is 15 s. The remaining 5 s are for S3, which has three seconds
/// for each try. Half would double the reads of an active user, which are one in ten seconds.
pub const TRUSTED: Duration = Duration::from_secs(10);
/// Sessions remembered at the same time, some 300 bytes each.
const MAX_SESSIONS: u64 = 100_000;
/// How long a worker remembers that it ended the sessions of a user. Only a verdict or a read that
/// began before the change can contradict S3: a verdict lives for [`TRUSTED`], a read for 13 s.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The user data that the protected page shows.
#[derive(Debug, Default)]
pub struct About {
    /// `None` in classic.
    pub created: Option<Timestamp>,
    /// Oldest first.
    pub sign_ins: Vec<SignIn>,
}

/// Everything that the verdict on a session is computed from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    User {
        /// Names the user's object.
        login: String,
        uid: String,
        epoch: u64,
        /// Names the mark.
        sid: String,
    },
    /// An operator's session has no user: its token and its age are checked with each request.
    Operator { sid: String },
}

impl Subject {
    pub fn of_user(session: &Session) -> Self {
        Self::User {
            login: session.login.clone(),
            uid: session.uid.clone(),
            epoch: session.epoch,
            sid: session.sid.clone(),
        }
    }
}

/// The data of the user whose session counts; `None` if the session has ended.
pub type Verdict = Option<Arc<About>>;

/// The verdicts of one worker, and the sessions that it ended itself.
pub struct Sessions {
    /// Each with the time of its fetch. Ended sessions are kept as well: a client that keeps sending the
    /// cookie of an ended session must not cost more reads than one with a good cookie.
    verdicts: Cache<Subject, (Instant, Verdict)>,
    fetches: Flights<Subject, Result<Verdict, Arc<UserError>>>,
    /// Ids of sessions that this worker ended.
    ended: Cache<String, ()>,
    /// Users whose sessions before this epoch were ended by this worker, and when.
    floors: Cache<String, (Instant, u64)>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            verdicts: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(TRUSTED).build(),
            fetches: Flights::default(),
            ended: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(ABSOLUTE.unsigned_abs()).build(),
            floors: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(REMEMBERED).build(),
        }
    }
}

impl Sessions {
    /// Ends all sessions of a user whose epoch is lower than `epoch`.
    pub fn end_before(&self, uid: &str, epoch: u64) {
        self.floors.insert(uid.to_owned(), (Instant::now(), epoch));
    }

    /// Ends one session.
    pub fn end(&self, sid: &str) {
        self.ended.insert(sid.to_owned(), ());
    }

    /// Whether this worker ended the session with this id.
    pub fn has_mark(&self, sid: &str) -> bool {
        self.ended.contains_key(sid)
    }

    /// Whether this worker ended the session, by its id or with all others of its user.
    pub fn is_ended(&self, session: &Session) -> bool {
        self.has_mark(&session.sid) || self.floor(&session.uid).is_some_and(|floor| session.epoch < floor)
    }

    fn floor(&self, uid: &str) -> Option<u64> {
        let (since, floor) = self.floors.get(uid)?;
        (since.elapsed() < REMEMBERED).then_some(floor)
    }

    fn trusted(&self, subject: &Subject) -> Option<Verdict> {
        let (asked, verdict) = self.verdicts.get(subject)?;
        (asked.elapsed() < TRUSTED).then_some(verdict)
    }

    /// Returns the verdict of the last seconds, or else that of `fetch`, which all concurrent requests
    /// for the same subject share.
    pub async fn verdict<F>(
        &self,
        subject: Subject,
        fetch: impl FnOnce() -> F,
    ) -> Result<Verdict, Arc<UserError>>
    where
        F: Future<Output = Result<Verdict, UserError>> + Send + 'static,
    {
        if let Some(verdict) = self.trusted(&subject) {
            return Ok(verdict);
        }
        let begin = || {
            let (verdicts, subject, fetch) = (self.verdicts.clone(), subject.clone(), fetch());
            async move {
                let asked = Instant::now();
                let verdict = fetch.await.map_err(UserError::shared)?;
                verdicts.insert(subject, (asked, verdict.clone()));
                Ok(verdict)
            }
        };
        self.fetches.join(subject.clone(), begin).await
    }
}

#[cfg(test)]
mod tests {
    use fleet::Profile;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_verdict_counts_for_its_own_subject_alone() {
        let sessions = Sessions::default();
        let session = Session::begin("ana", "u1", 0, Profile::Secure, Timestamp::now());
        let verdict = async |session: &Session, verdict: Verdict| {
            let fetch = || std::future::ready(Ok(verdict));
            sessions.verdict(Subject::of_user(session), fetch).await.expect("a verdict")
        };
        assert!(verdict(&session, Some(Arc::default())).await.is_some());
        let text = |text: &str| text.to_owned();
        for other in [
            Session { login: text("bob"), ..session.clone() },
            Session { uid: text("u2"), ..session.clone() },
            Session { epoch: 1, ..session.clone() },
            Session { sid: text("s2"), ..session.clone() },
        ] {
            assert!(verdict(&other, None).await.is_none(), "{other:?}");
        }
        assert!(verdict(&session, None).await.is_some(), "it is kept");
    }
}
