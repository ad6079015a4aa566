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

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::sync::Cache;
use tokio::time::Instant;
use users::{Login, SignIn};

use super::{Found, find};
use crate::client::Client;
use crate::session::{ABSOLUTE, Session};
use crate::store::{Expect, NewObject};
use crate::user::User;
use crate::{ApiError, Worker, audit};

/// We promise 15 s. The rest is for S3, which has three seconds for each try. Half would double the
/// reads of an active user, which are one in ten seconds.
const TRUSTED: Duration = Duration::from_secs(10);
/// Sessions remembered at the same time, some 150 bytes each.
const MAX_SESSIONS: u64 = 100_000;

const REVOKED: &str = "revoked/";

/// What the protected page says about its user.
#[derive(Debug, Default)]
pub struct About {
    /// None in classic.
    pub created: Option<Timestamp>,
    /// Oldest first.
    pub sign_ins: Vec<SignIn>,
}

/// What this worker knows of sessions without asking S3.
pub struct Sessions {
    /// Those that were alive, when that was asked, and what there is to say about their user.
    alive: Cache<String, (Instant, Arc<About>)>,
    /// Those that were ended here.
    ended: Cache<String, ()>,
    /// Users whose sessions before this epoch were ended here.
    floors: Cache<String, u64>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            alive: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(TRUSTED).build(),
            ended: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(ABSOLUTE.unsigned_abs()).build(),
            // Only what was read before the change can be older than the change.
            floors: Cache::builder().max_capacity(MAX_SESSIONS).time_to_live(TRUSTED * 6).build(),
        }
    }
}

impl Sessions {
    pub(super) fn end_before(&self, uid: &str, epoch: u64) {
        self.floors.insert(uid.to_owned(), epoch);
    }

    /// The mark of a session that was ended here.
    fn has_mark(&self, sid: &str) -> bool {
        self.ended.contains_key(sid)
    }

    fn is_ended(&self, session: &Session) -> bool {
        self.has_mark(&session.sid)
            || self.floors.get(&session.uid).is_some_and(|floor| session.epoch < floor)
    }

    fn trusted(&self, sid: &str) -> Option<Arc<About>> {
        let (asked, about) = self.alive.get(sid)?;
        (asked.elapsed() < TRUSTED).then_some(about)
    }
}

/// The user of a session that counts; `None` if it does not.
pub async fn user_of(worker: &Worker, session: &Session) -> Result<Option<Arc<About>>, ApiError> {
    let known = &worker.sessions;
    if known.is_ended(session) {
        return Ok(None);
    }
    if let Some(about) = known.trusted(&session.sid) {
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
    known.alive.insert(session.sid.clone(), (asked, Arc::clone(&about)));
    // Ended meanwhile, here.
    Ok((!known.is_ended(session)).then_some(about))
}

/// Whether a session without a user, an operator's, was ended.
pub async fn has_ended(worker: &Worker, sid: &str) -> Result<bool, ApiError> {
    let known = &worker.sessions;
    if known.has_mark(sid) {
        return Ok(true);
    }
    if known.trusted(sid).is_some() {
        return Ok(false);
    }
    let asked = Instant::now();
    let is_marked = worker.data.exists(&mark(sid)).await?;
    if !is_marked {
        known.alive.insert(sid.to_owned(), (asked, Arc::default()));
    }
    Ok(is_marked || known.has_mark(sid))
}

/// Signs out. A reply that says so is kept by all workers.
pub async fn end_session(worker: &Worker, client: &Client, session: &Session) -> Result<(), ApiError> {
    put_mark(worker, &session.sid).await?;
    audit::signed_out(client, &session.login);
    Ok(())
}

/// Ends a session on all workers.
pub async fn put_mark(worker: &Worker, sid: &str) -> Result<(), ApiError> {
    let object = NewObject { content_type: "text/plain", bytes: Vec::new(), nonce: None };
    // Refused or raced: somebody else ends the same session.
    worker.data.put(&mark(sid), &object, &Expect::Absent).await?;
    worker.sessions.ended.insert(sid.to_owned(), ());
    Ok(())
}

fn mark(sid: &str) -> String {
    format!("{REVOKED}{sid}")
}
