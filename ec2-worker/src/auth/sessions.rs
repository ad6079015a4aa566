//! Whether a session still counts: its user is the one who signed in, and did not end it.
//!
//! | ended by | how workers learn of it |
//! |---|---|
//! | signing out | `revoked/<session>`, which S3 forgets after a day; no session lives that long |
//! | signing out everywhere, a new password | the epoch in the user's object has grown |
//! | deleting the account | the object is gone; a login that is registered again has another uid |
//!
//! A worker looks at both objects at most [`TRUSTED`] after it did so last: an ended session is over
//! on the worker that was told at once, on all others within that time and one reply of S3.
//!
//! A verdict is kept under everything it was computed from ([`Subject`]). The id of the session alone
//! is not enough: two cookies may have one id and different epochs, and then each request with the
//! newer cookie would renew the verdict that lets the older one in. For the same reason a change of
//! password gives the session another id.

use std::sync::Arc;
use std::time::Duration;

use accounts::{Login, SignIn};
use jiff::Timestamp;
use moka::sync::Cache;
use tokio::time::Instant;

use super::{Found, MAX_TRIES, find, pause};
use crate::client::Client;
use crate::flights::Flights;
use crate::session::{ABSOLUTE, Session};
use crate::user::User;
use crate::{ApiError, Worker, audit};
use aws::bucket::{Expect, NewObject, Write};

/// We promise 15 s. The rest is for S3, which has three seconds for each try. Half would double the
/// reads of an active user, which are one in ten seconds.
const TRUSTED: Duration = Duration::from_secs(10);
/// Sessions remembered at the same time, some 300 bytes each.
const MAX_SESSIONS: u64 = 100_000;
/// How long a worker remembers that it ended the sessions of a user. Only a verdict or a read that
/// began before the change can contradict S3: a verdict lives for [`TRUSTED`], a read for 13 s.
const REMEMBERED: Duration = Duration::from_secs(60);

const REVOKED: &str = "revoked/";

/// What the protected page says about its user.
#[derive(Debug, Default)]
pub struct About {
    /// None in classic.
    pub created: Option<Timestamp>,
    /// Oldest first.
    pub sign_ins: Vec<SignIn>,
}

/// Everything that the verdict on a session is computed from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
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
    fn of(session: &Session) -> Self {
        Self::User {
            login: session.login.clone(),
            uid: session.uid.clone(),
            epoch: session.epoch,
            sid: session.sid.clone(),
        }
    }
}

/// What there is to say about the user of a session that is alive; `None` if it has ended.
type Verdict = Option<Arc<About>>;

/// What this worker knows of sessions without asking S3.
pub struct Sessions {
    /// On those that were asked for, and when. Who keeps sending the cookie of an ended session must not
    /// cost more than who sends a good one.
    verdicts: Cache<Subject, (Instant, Verdict)>,
    looks: Flights<Subject, Result<Verdict, Arc<ApiError>>>,
    /// Ids of those that were ended here.
    ended: Cache<String, ()>,
    /// Users whose sessions before this epoch were ended here, and when.
    floors: Cache<String, (Instant, u64)>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            verdicts: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(TRUSTED).build(),
            looks: Flights::default(),
            ended: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(ABSOLUTE.unsigned_abs()).build(),
            floors: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(REMEMBERED).build(),
        }
    }
}

impl Sessions {
    pub(super) fn end_before(&self, uid: &str, epoch: u64) {
        self.floors.insert(uid.to_owned(), (Instant::now(), epoch));
    }

    /// The mark of a session that was ended here.
    fn has_mark(&self, sid: &str) -> bool {
        self.ended.contains_key(sid)
    }

    fn is_ended(&self, session: &Session) -> bool {
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
}

/// The user of a session that counts; `None` if it does not.
pub async fn user_of(worker: &Worker, session: &Session) -> Result<Option<Arc<About>>, ApiError> {
    let known = &worker.sessions;
    if known.is_ended(session) {
        return Ok(None);
    }
    let verdict = verdict_on(worker, Subject::of(session)).await?;
    // Ended meanwhile, here.
    Ok(verdict.filter(|_| !known.is_ended(session)))
}

/// Whether a session without a user, an operator's, was ended.
pub async fn has_ended(worker: &Worker, sid: &str) -> Result<bool, ApiError> {
    let known = &worker.sessions;
    if known.has_mark(sid) {
        return Ok(true);
    }
    let verdict = verdict_on(worker, Subject::Operator { sid: sid.to_owned() }).await?;
    Ok(verdict.is_none() || known.has_mark(sid))
}

/// The verdict of the last seconds, or a new one, which all who ask at once share.
async fn verdict_on(worker: &Worker, subject: Subject) -> Result<Verdict, ApiError> {
    if let Some(verdict) = worker.sessions.trusted(&subject) {
        return Ok(verdict);
    }
    let look = || {
        let (worker, subject) = (worker.clone(), subject.clone());
        async move {
            let asked = Instant::now();
            let verdict = judge(&worker, &subject).await.map_err(ApiError::shared)?;
            worker.sessions.verdicts.insert(subject, (asked, verdict.clone()));
            Ok(verdict)
        }
    };
    worker.sessions.looks.join(subject.clone(), look).await.map_err(ApiError::Shared)
}

/// Asks S3.
async fn judge(worker: &Worker, subject: &Subject) -> Result<Verdict, ApiError> {
    let (login, uid, epoch, sid) = match subject {
        Subject::User { login, uid, epoch, sid } => (login, uid, epoch, sid),
        Subject::Operator { sid } => {
            let is_marked = worker.data.exists(&mark(sid)).await?;
            return Ok((!is_marked).then(Arc::default));
        }
    };
    let Ok(login) = Login::parse(worker.profile, login) else { return Ok(None) };
    let mark = mark(sid);
    let (found, is_marked) = tokio::try_join!(find(worker, &login), async {
        Ok::<_, ApiError>(worker.data.exists(&mark).await?)
    })?;
    let is_owner = |Found { user, .. }: &Found| user.uid() == uid && user.epoch() == *epoch;
    let found = found.filter(is_owner).filter(|_| !is_marked);
    Ok(found.map(|found| {
        Arc::new(match found.user {
            User::Secure(record) => About { created: Some(record.created), sign_ins: record.sign_ins },
            User::Classic { .. } => About::default(),
        })
    }))
}

/// Signs out. A reply that says so is kept by all workers.
pub async fn end_session(worker: &Worker, client: &Client, session: &Session) -> Result<(), ApiError> {
    put_mark(worker, &session.sid).await?;
    audit::signed_out(worker, client, &session.login);
    Ok(())
}

/// Ends a session on all workers. It has ended when the mark is in S3: that another writer is at it at
/// this moment does not say that it will be.
pub async fn put_mark(worker: &Worker, sid: &str) -> Result<(), ApiError> {
    if worker.sessions.has_mark(sid) {
        return Ok(());
    }
    let object = NewObject { content_type: "text/plain", bytes: Vec::new(), nonce: None };
    for _ in 0..MAX_TRIES {
        let is_there = match worker.data.put(&mark(sid), &object, &Expect::Absent).await? {
            Write::Done => true,
            Write::Refused | Write::Raced => worker.data.exists(&mark(sid)).await?,
        };
        if is_there {
            worker.sessions.ended.insert(sid.to_owned(), ());
            return Ok(());
        }
        pause().await;
    }
    Err(ApiError::Contended)
}

fn mark(sid: &str) -> String {
    format!("{REVOKED}{sid}")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use fleet::Profile;
    use futures::future::join_all;
    use tower::ServiceExt as _;

    use super::*;
    use crate::memory_s3::MemoryS3;

    fn session() -> Session {
        Session::begin("ana", "u1", 0, Profile::Secure, Timestamp::now())
    }

    #[tokio::test(start_paused = true)]
    async fn the_cookie_of_an_ended_session_is_looked_up_once() {
        let s3 = MemoryS3::with_delays_up_to(Duration::from_secs(1));
        let (worker, session) = (s3.worker(), session());
        let asked = join_all((0..100).map(|_| user_of(&worker, &session))).await;
        assert!(asked.iter().all(|verdict| matches!(verdict, Ok(None))));
        for _ in 0..100 {
            assert!(matches!(user_of(&worker, &session).await, Ok(None)));
            assert!(matches!(has_ended(&worker, "s1").await, Ok(false)));
        }
        assert_eq!(s3.calls(), 3, "the user, the mark, and the operator's mark");
        tokio::time::advance(TRUSTED).await;
        assert!(matches!(user_of(&worker, &session).await, Ok(None)));
        assert_eq!(s3.calls(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_everybody_may_ask_costs_two_reads_a_second() {
        let s3 = MemoryS3::with_delays_up_to(Duration::from_millis(200));
        let app = crate::app(s3.worker());
        let ask = async || {
            let request = Request::get("/checkamount").body(Body::empty()).expect("a request");
            app.clone().oneshot(request).await.expect("an answer").status().as_u16()
        };
        for second in 1..=3 {
            let asked = join_all((0..100).map(|_| ask())).await;
            assert_eq!(asked, [503; 100], "nothing is deployed");
            assert_eq!((ask().await, s3.calls()), (503, 2 * second));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}
