//! Whether a session still counts: its user still exists, has the same uid and epoch, and did not end it.
//!
//! | ended by | how workers learn of it |
//! |---|---|
//! | signing out | `revoked/<session>`, which S3 forgets after a day; no session lives that long |
//! | signing out everywhere, a new password | the epoch in the user's object has grown |
//! | deleting the account | the object is gone; a login that is registered again has another uid |
//!
//! A worker reads both objects again at most [`cache::TRUSTED`] after its last read. So an ended session is
//! over at once on the worker that ended it, and on all others within that time and one reply of S3.
//!
//! [`cache::TRUSTED`]: crate::session::cache::TRUSTED

use std::sync::Arc;

use accounts::Login;

use super::error::SessionError;
use super::stored::{Found, MAX_TRIES, find, pause};
use crate::client::Client;
use crate::session::Session;
use crate::session::cache::{About, Subject, Verdict};
use crate::user::{User, UserError};
use crate::{Worker, audit};
use aws::bucket::{Expect, NewObject, Write};

const REVOKED: &str = "revoked/";

/// Returns the user of a session that counts; `None` if the session does not.
pub async fn user_of(worker: &Worker, session: &Session) -> Result<Option<Arc<About>>, SessionError> {
    let known = &worker.sessions;
    if known.is_ended(session) {
        return Ok(None);
    }
    let verdict = verdict_on(worker, Subject::of_user(session)).await?;
    // This worker may have ended it during the read.
    Ok(verdict.filter(|_| !known.is_ended(session)))
}

/// Returns whether an operator's session, which has no user, was ended.
pub async fn has_ended(worker: &Worker, sid: &str) -> Result<bool, SessionError> {
    let known = &worker.sessions;
    if known.has_mark(sid) {
        return Ok(true);
    }
    let verdict = verdict_on(worker, Subject::Operator { sid: sid.to_owned() }).await?;
    Ok(verdict.is_none() || known.has_mark(sid))
}

async fn verdict_on(worker: &Worker, subject: Subject) -> Result<Verdict, SessionError> {
    let fetch = || {
        let (worker, subject) = (worker.clone(), subject.clone());
        async move { fetch_verdict(&worker, &subject).await }
    };
    worker.sessions.verdict(subject.clone(), fetch).await.map_err(SessionError::Shared)
}

async fn fetch_verdict(worker: &Worker, subject: &Subject) -> Result<Verdict, UserError> {
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
        Ok::<_, UserError>(worker.data.exists(&mark).await?)
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

/// Signs the user out. After a success no worker lets the session in.
pub async fn end_session(worker: &Worker, client: &Client, session: &Session) -> Result<(), SessionError> {
    put_mark(worker, &session.sid).await?;
    audit::signed_out(worker, client, &session.login);
    Ok(())
}

/// Ends a session on all workers. The session has ended when the mark is in S3; a refusal because another
/// write is in progress does not mean that the mark will be there.
pub async fn put_mark(worker: &Worker, sid: &str) -> Result<(), SessionError> {
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
            worker.sessions.end(sid);
            return Ok(());
        }
        pause().await;
    }
    Err(SessionError::Contended)
}

fn mark(sid: &str) -> String {
    format!("{REVOKED}{sid}")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use std::time::Duration;

    use fleet::Profile;
    use futures::future::join_all;
    use jiff::Timestamp;
    use tower::ServiceExt as _;

    use super::*;
    use crate::memory_s3::MemoryS3;
    use crate::session::cache::TRUSTED;

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
    async fn public_questions_cost_two_reads_a_second() {
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
