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

use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;
use users::Login;

use super::{Found, find};
use crate::client::Client;
use crate::session::{ABSOLUTE, Session};
use crate::store::{Expect, NewObject};
use crate::{ApiError, Worker, audit};

/// We promise 15 s. The rest is for S3, which has three seconds for each try. Half would double the
/// reads of an active user, which are one in ten seconds.
const TRUSTED: Duration = Duration::from_secs(10);
/// Sessions remembered at the same time, some 150 bytes each.
const MAX_SESSIONS: u64 = 100_000;

const REVOKED: &str = "revoked/";

/// What this worker knows of sessions without asking S3.
pub struct Sessions {
    /// Those that were alive, and when that was asked.
    alive: Cache<String, Instant>,
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

    fn is_ended(&self, session: &Session) -> bool {
        self.ended.contains_key(&session.sid)
            || self.floors.get(&session.uid).is_some_and(|floor| session.epoch < floor)
    }

    fn is_trusted(&self, session: &Session) -> bool {
        self.alive.get(&session.sid).is_some_and(|asked| asked.elapsed() < TRUSTED)
    }
}

pub async fn is_alive(worker: &Worker, session: &Session) -> Result<bool, ApiError> {
    let known = &worker.sessions;
    if known.is_ended(session) {
        return Ok(false);
    }
    if known.is_trusted(session) {
        return Ok(true);
    }
    let Ok(login) = Login::parse(worker.profile, &session.login) else { return Ok(false) };
    let asked = Instant::now();
    let revoked = revoked(session);
    let (found, is_revoked) = tokio::try_join!(find(worker, &login), async {
        Ok::<_, ApiError>(worker.data.exists(&revoked).await?)
    })?;
    let is_owner = |Found { user, .. }: &Found| user.uid() == session.uid && user.epoch() == session.epoch;
    let is_alive = !is_revoked && found.as_ref().is_some_and(is_owner);
    if is_alive {
        known.alive.insert(session.sid.clone(), asked);
    }
    // Ended meanwhile, here.
    Ok(is_alive && !known.is_ended(session))
}

/// Signs out. A reply that says so is kept by all workers.
pub async fn end_session(worker: &Worker, client: &Client, session: &Session) -> Result<(), ApiError> {
    let mark = NewObject { content_type: "text/plain", bytes: Vec::new(), nonce: None };
    // Refused or raced: somebody else ends the same session.
    worker.data.put(&revoked(session), &mark, &Expect::Absent).await?;
    worker.sessions.ended.insert(session.sid.clone(), ());
    audit::signed_out(client, &session.login);
    Ok(())
}

fn revoked(session: &Session) -> String {
    format!("{REVOKED}{}", session.sid)
}
