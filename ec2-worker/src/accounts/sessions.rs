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

use jiff::Timestamp;
use moka::sync::Cache;
use tokio::time::Instant;
use users::{Login, SignIn};

use super::{Found, MAX_TRIES, find, pause};
use crate::client::Client;
use crate::session::{ABSOLUTE, Session};
use crate::store::{Expect, NewObject, Write};
use crate::user::User;
use crate::{ApiError, Worker, audit};

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

/// What this worker knows of sessions without asking S3.
pub struct Sessions {
    /// Those that were alive, when that was asked, and what there is to say about their user.
    alive: Cache<Subject, (Instant, Arc<About>)>,
    /// Ids of those that were ended here.
    ended: Cache<String, ()>,
    /// Users whose sessions before this epoch were ended here, and when.
    floors: Cache<String, (Instant, u64)>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            alive: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(TRUSTED).build(),
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

    fn trusted(&self, subject: &Subject) -> Option<Arc<About>> {
        let (asked, about) = self.alive.get(subject)?;
        (asked.elapsed() < TRUSTED).then_some(about)
    }
}

/// The user of a session that counts; `None` if it does not.
pub async fn user_of(worker: &Worker, session: &Session) -> Result<Option<Arc<About>>, ApiError> {
    let known = &worker.sessions;
    if known.is_ended(session) {
        return Ok(None);
    }
    let subject = Subject::of(session);
    if let Some(about) = known.trusted(&subject) {
        return Ok(Some(about));
    }
    let Ok(login) = Login::parse(worker.profile, &session.login) else { return Ok(None) };
    let asked = Instant::now();
    let mark = mark(&session.sid);
    let (found, is_marked) = tokio::try_join!(find(worker, &login), async {
        Ok::<_, ApiError>(worker.data.exists(&mark).await?)
    })?;
    let is_owner = |Found { user, .. }: &Found| user.uid() == session.uid && user.epoch() == session.epoch;
    let Some(found) = found.filter(is_owner).filter(|_| !is_marked) else { return Ok(None) };
    let about = Arc::new(match found.user {
        User::Secure(record) => About { created: Some(record.created), sign_ins: record.sign_ins },
        User::Classic { .. } => About::default(),
    });
    known.alive.insert(subject, (asked, Arc::clone(&about)));
    // Ended meanwhile, here.
    Ok((!known.is_ended(session)).then_some(about))
}

/// Whether a session without a user, an operator's, was ended.
pub async fn has_ended(worker: &Worker, sid: &str) -> Result<bool, ApiError> {
    let known = &worker.sessions;
    if known.has_mark(sid) {
        return Ok(true);
    }
    let subject = Subject::Operator { sid: sid.to_owned() };
    if known.trusted(&subject).is_some() {
        return Ok(false);
    }
    let asked = Instant::now();
    let is_marked = worker.data.exists(&mark(sid)).await?;
    if !is_marked {
        known.alive.insert(subject, (asked, Arc::default()));
    }
    Ok(is_marked || known.has_mark(sid))
}

/// Signs out. A reply that says so is kept by all workers.
pub async fn end_session(worker: &Worker, client: &Client, session: &Session) -> Result<(), ApiError> {
    put_mark(worker, &session.sid).await?;
    audit::signed_out(client, &session.login);
    Ok(())
}

/// Ends a session on all workers. It has ended when the mark is in S3: that another writer is at it at
/// this moment does not say that it will be.
pub async fn put_mark(worker: &Worker, sid: &str) -> Result<(), ApiError> {
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
