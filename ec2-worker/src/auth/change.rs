//! Changing the password, ending all sessions, deleting the account: writes to a user that exists.
//!
//! Each reads the object and writes over exactly what it read, and only while it is of the epoch of
//! the session. So no change is lost, and of many who change one password at once one succeeds: for
//! the others the session has ended.

use accounts::{Login, Password, Record, object_key, random_id};
use fleet::Profile;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use super::error::AccountError;
use super::sign_in::{charge, enter, own_count_of, verify};
use super::stored::{Found, MAX_TRIES, find, pause, understand};
use crate::client::Client;
use crate::extract::PasswordChange;
use crate::hash_pool::Verdict;
use crate::session::Session;
use crate::store::{Expect, Write};
use crate::user::{self, User};
use crate::{Worker, audit};

/// Returns the session under which this browser goes on; all others of the user end.
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
    // One at a time on this worker: with the password that the first one sets, others are wrong.
    let _alone = worker.changes.enter_alone(login.as_str()).await.ok_or(AccountError::Busy)?;
    prove(worker, client, session, &login, current).await?;
    let phc = worker.hashes.hash(worker.hashes.ticket(client)?, chosen).await?;
    let session = set_password(worker, session, &login, &phc).await?;
    audit::password_changed(worker, client, &login);
    Ok(session)
}

/// Returns the session under which this browser goes on. Its id is a new one: whoever has a copy of the
/// cookie of before can neither use the session nor end it.
pub(super) async fn set_password(
    worker: &Worker,
    session: &Session,
    login: &Login,
    phc: &str,
) -> Result<Session, AccountError> {
    // Whoever was faster has begun another epoch, which `update` does not take for ours: what was proved
    // before still holds.
    let changed = update(worker, session, login, |record| {
        phc.clone_into(&mut record.phc);
        record.epoch += 1;
        record.changed = Timestamp::now();
    })
    .await?;
    worker.sessions.end_before(&changed.uid, changed.epoch);
    Ok(session.reissued(changed.epoch))
}

/// On all workers, within the time that `sessions` promises.
pub async fn end_all_sessions(
    worker: &Worker,
    client: &Client,
    session: &Session,
) -> Result<(), AccountError> {
    let login = owner(worker, session)?;
    let changed = update(worker, session, &login, |record| record.epoch += 1).await?;
    worker.sessions.end_before(&changed.uid, changed.epoch);
    audit::signed_out_everywhere(worker, client, &login);
    Ok(())
}

/// With the password, or in a session that has just begun.
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
        // Deleted, and registered again by somebody else.
        if found.user.uid() != session.uid {
            return done(worker, client, session, &login);
        }
        if found.user.epoch() != session.epoch {
            return Err(AccountError::SignedOut);
        }
        last = worker.data.delete(&key, &found.etag).await?;
        match last {
            Write::Done => return done(worker, client, session, &login),
            Write::Refused | Write::Raced => pause().await,
        }
    }
    Err(given_up(last))
}

/// A refusal means that the object has changed. While another write is under way nothing is known, and
/// trying again is all there is to do.
fn given_up(last: Write) -> AccountError {
    match last {
        Write::Raced => AccountError::Contended,
        Write::Done | Write::Refused => AccountError::LostRace,
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
        Profile::Secure => Login::parse(worker.profile, &session.login).map_err(|_| AccountError::SignedOut),
    }
}

/// Whether the session's user knows the password. Counted as attempts to sign in are, with a count for
/// each session: a stolen cookie must not be a way to guess, and neither a stranger's guesses nor those of
/// a thief in another session must be in the owner's way. The count ends with the session, which S3
/// outlives by hours: no other session has its name.
async fn prove(
    worker: &Worker,
    client: &Client,
    session: &Session,
    login: &Login,
    password: Option<Password>,
) -> Result<(), AccountError> {
    let name = own_count_of(worker, login, &format!("session {}", session.sid));
    let (attempt, ticket, object) = enter(worker, client, name, login).await?;
    let found = understand(worker, object)?.ok_or(AccountError::SignedOut)?;
    if found.user.uid() != session.uid || found.user.epoch() != session.epoch {
        return Err(AccountError::SignedOut);
    }
    match verify(worker, ticket, &found.user, password).await? {
        Some(Verdict::Right { .. }) => {
            attempt.succeeded().await;
            Ok(())
        }
        Some(Verdict::Wrong) | None => {
            attempt.failed(Timestamp::now()).await;
            audit::proof_failed(worker, client, login);
            Err(AccountError::WrongPassword)
        }
    }
}

/// Writes what `change` makes of the session's user. Gives what was written.
async fn update(
    worker: &Worker,
    session: &Session,
    login: &Login,
    change: impl Fn(&mut Record) + Send,
) -> Result<Record, AccountError> {
    let key = object_key(worker.profile, login);
    let mut last = Write::Refused;
    for _ in 0..MAX_TRIES {
        let Some(Found { user: User::Secure(record), etag }) = find(worker, login).await? else {
            return Err(AccountError::SignedOut);
        };
        if record.uid != session.uid || record.epoch != session.epoch {
            return Err(AccountError::SignedOut);
        }
        let mut changed = *record;
        change(&mut changed);
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
    Err(given_up(last))
}
