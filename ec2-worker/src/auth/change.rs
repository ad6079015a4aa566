//! Changing the password, ending all sessions, deleting the account: writes to a user that exists.
//!
//! Each reads the object, checks that its epoch is the session's, and overwrites exactly the version that
//! it read. So no change is lost. When many requests change one password at once, one succeeds; for the
//! others the session has ended.

use accounts::{Login, Password, Record, object_key, random_id};
use fleet::Profile;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use super::error::{AccountError, Change, SessionError};
use super::sign_in::{charge, enter, own_count_of, verify};
use super::stored::{Found, MAX_TRIES, find, pause, understand};
use crate::client::Client;
use crate::extract::PasswordChange;
use crate::hash_pool::PasswordCheck;
use crate::session::Session;
use crate::user::{self, User};
use crate::{Worker, audit};
use aws::bucket::{Expect, Write};

/// Changes the password and ends all sessions of the user. Returns the session under which this browser
/// goes on.
pub async fn change_password(
    worker: &Worker,
    client: &Client,
    session: &Session,
    given: &PasswordChange,
) -> Result<Session, AccountError> {
    let login = owner(worker, session)?;
    charge(worker, client)?;
    let chosen = Password::chosen(worker.profile, worker.min_password, &login, given.new.expose_secret())?;
    let current = Password::given(worker.profile, given.current.expose_secret()).ok();
    // One change at a time on this worker: after the first one the current password of the others is wrong.
    let _alone = worker.changes.enter_alone(login.as_str()).await.ok_or(AccountError::Busy)?;
    prove(worker, client, session, &login, current).await?;
    let phc = worker.hashes.hash(worker.hashes.ticket(client)?, chosen).await?;
    let session = set_password(worker, session, &login, &phc).await?;
    audit::password_changed(worker, client, &login);
    Ok(session)
}

/// Returns the session under which this browser goes on. Its id is new, so a stolen copy of the old cookie
/// can neither use the session nor end it.
pub(super) async fn set_password(
    worker: &Worker,
    session: &Session,
    login: &Login,
    phc: &str,
) -> Result<Session, AccountError> {
    // A faster change has begun another epoch, and `update` refuses to write then. So the password that was
    // proved is still the current one.
    let changed = update(worker, session, login, Change::Password, |record| {
        phc.clone_into(&mut record.phc);
        record.epoch += 1;
        record.changed = Timestamp::now();
    })
    .await?;
    worker.sessions.end_before(&changed.uid, changed.epoch);
    Ok(session.reissued(changed.epoch))
}

/// Ends all sessions of the user on all workers, within the time that `validity` documents.
pub async fn end_all_sessions(
    worker: &Worker,
    client: &Client,
    session: &Session,
) -> Result<(), AccountError> {
    let login = owner(worker, session)?;
    let changed = update(worker, session, &login, Change::EndOfSessions, |record| record.epoch += 1).await?;
    worker.sessions.end_before(&changed.uid, changed.epoch);
    audit::signed_out_everywhere(worker, client, &login);
    Ok(())
}

/// Deletes the account, given the password or a session that has just begun.
pub async fn delete(
    worker: &Worker,
    client: &Client,
    session: &Session,
    password: Option<&str>,
) -> Result<(), AccountError> {
    let login = owner(worker, session)?;
    match password {
        Some(text) => {
            charge(worker, client)?;
            let given = Password::given(worker.profile, text).ok();
            prove(worker, client, session, &login, given).await?;
        }
        None if session.is_fresh(Timestamp::now()) => {}
        None => return Err(AccountError::PasswordNeeded),
    }
    let key = object_key(worker.profile, &login);
    let mut last = Write::Refused;
    for _ in 0..MAX_TRIES {
        let Some(found) = find(worker, &login).await? else { return done(worker, client, session, &login) };
        // Another user has registered the login after it was deleted.
        if found.user.uid() != session.uid {
            return done(worker, client, session, &login);
        }
        if found.user.epoch() != session.epoch {
            return Err(SessionError::SignedOut.into());
        }
        last = worker.data.delete(&key, &found.etag).await?;
        match last {
            Write::Done => return done(worker, client, session, &login),
            Write::Refused | Write::Raced => pause().await,
        }
    }
    Err(given_up(Change::Deletion, last))
}

/// Returns the error after the last try. A refusal means that the object has changed. While another write
/// is in progress its outcome is unknown, and the client can only try again.
fn given_up(change: Change, last: Write) -> AccountError {
    match last {
        Write::Raced => AccountError::Contended,
        Write::Done | Write::Refused => AccountError::LostRace(change),
    }
}

fn done(worker: &Worker, client: &Client, session: &Session, login: &Login) -> Result<(), AccountError> {
    worker.sessions.end_before(&session.uid, u64::MAX);
    audit::account_deleted(worker, client, login);
    Ok(())
}

fn owner(worker: &Worker, session: &Session) -> Result<Login, AccountError> {
    match worker.profile {
        Profile::Classic => Err(AccountError::SecureOnly),
        Profile::Secure => {
            Ok(Login::parse(worker.profile, &session.login).map_err(|_| SessionError::SignedOut)?)
        }
    }
}

/// Checks that the session's user knows the password. Wrong passwords count as failed sign-ins do, with a
/// count for each session: a stolen cookie must not be a way to guess, and the guesses of a stranger or of
/// a thief in another session must not lock the owner out. The count ends with the session; S3 keeps its
/// object for hours more, but no other session has its name.
async fn prove(
    worker: &Worker,
    client: &Client,
    session: &Session,
    login: &Login,
    password: Option<Password>,
) -> Result<(), AccountError> {
    let name = own_count_of(worker, login, &format!("session {}", session.sid));
    let (attempt, ticket, object) = enter(worker, client, name, login).await?;
    let found = understand(worker, object)?.ok_or(SessionError::SignedOut)?;
    if found.user.uid() != session.uid || found.user.epoch() != session.epoch {
        return Err(SessionError::SignedOut.into());
    }
    match verify(worker, ticket, &found.user, password).await? {
        Some(PasswordCheck::Right { .. }) => {
            attempt.succeeded().await;
            Ok(())
        }
        Some(PasswordCheck::Wrong) | None => {
            attempt.failed(Timestamp::now()).await;
            audit::proof_failed(worker, client, login);
            Err(AccountError::WrongPassword)
        }
    }
}

/// Applies a change to the record of the session's user and returns the record that was written.
async fn update(
    worker: &Worker,
    session: &Session,
    login: &Login,
    change: Change,
    apply: impl Fn(&mut Record) + Send,
) -> Result<Record, AccountError> {
    let key = object_key(worker.profile, login);
    let mut last = Write::Refused;
    for _ in 0..MAX_TRIES {
        let Some(Found { user: User::Secure(record), etag }) = find(worker, login).await? else {
            return Err(SessionError::SignedOut.into());
        };
        if record.uid != session.uid || record.epoch != session.epoch {
            return Err(SessionError::SignedOut.into());
        }
        let mut changed = *record;
        apply(&mut changed);
        changed.nonce = random_id();
        let object = user::secure_object(&changed);
        let written = worker.data.put(&key, &object, &Expect::Unchanged(etag)).await;
        if let Ok(Write::Done) = written {
            return Ok(changed);
        }
        // It may have happened all the same: the reply was lost, and the repeated write met the first.
        let now = find(worker, login).await;
        if let Ok(Some(Found { user: User::Secure(now), .. })) = &now
            && now.nonce == changed.nonce
        {
            return Ok(changed);
        }
        last = written?;
        now?;
        pause().await;
    }
    Err(given_up(change, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_s3::MemoryS3;

    #[tokio::test(start_paused = true)]
    async fn every_proof_of_a_password_is_charged_to_its_address() {
        let worker = MemoryS3::default().worker();
        let client = Client { address: "192.0.2.7".parse().ok(), ..Client::default() };
        let session = Session::begin("ana", "u1", 0, Profile::Secure, Timestamp::now());
        while worker.limits.attempts.take(&client).is_ok() {}
        let given = PasswordChange { current: "correct horse".into(), new: "battery staple 9".into() };
        let changed = change_password(&worker, &client, &session, &given).await;
        assert!(matches!(changed, Err(AccountError::TooManyRequests(_))));
        let deleted = delete(&worker, &client, &session, Some("correct horse")).await;
        assert!(matches!(deleted, Err(AccountError::TooManyRequests(_))));
    }
}
