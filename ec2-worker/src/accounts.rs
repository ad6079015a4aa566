//! Signing up, signing in, and finding the user of a session.
//!
//! A guess to avoid: a 412 at sign-up does not mean "taken". The SDK repeats a write whose reply was
//! lost, and then our own object refuses it; the nonce tells which of the two it was.

use std::time::Duration;

use fleet::Profile;
use jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use crate::extract::Credentials;
use crate::hash_pool::Verdict;
use crate::session::Session;
use crate::store::{Expect, NewObject, Write};
use crate::user::{self, User};
use crate::{ApiError, Worker};
use users::{Login, Password, Record, object_key};

/// S3 answers 409 while another write to the same key is under way, which is over within
/// milliseconds. Two tries would meet a third writer; ten would hold a request for seconds.
const MAX_TRIES: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Registers the login, or says why not.
pub async fn sign_up(worker: &Worker, given: &Credentials) -> Result<Login, ApiError> {
    let login = Login::parse(worker.profile, &given.login)?;
    let password = Password::chosen(worker.profile, worker.min_password, &login, &given.password)?;
    let key = object_key(worker.profile, &login);
    // Cheaper than a hash, and the usual answer; the conditional write below decides.
    if worker.data.exists(&key).await? {
        return Err(ApiError::Taken);
    }
    let object = match worker.profile {
        Profile::Secure => {
            let phc = worker.hashes.hash(password).await?;
            user::secure_object(&Record::new(&login, phc, Timestamp::now()))
        }
        Profile::Classic => user::classic_object(password.as_bytes()),
    };
    create(worker, &key, &object).await?;
    Ok(login)
}

/// Begins a session, or says no in one way only. In the secure profile every way through here that
/// is not stopped by an outage costs exactly one evaluation of argon2, so that the time tells no
/// more than the answer.
pub async fn sign_in(worker: &Worker, given: &Credentials) -> Result<Session, ApiError> {
    let login = Login::parse(worker.profile, &given.login);
    let password = Password::given(worker.profile, &given.password);
    let (Ok(login), Ok(password)) = (login, password) else {
        return refuse(worker, None).await;
    };
    match find(worker, &login).await? {
        None => refuse(worker, Some(password)).await,
        Some(user) if matches(worker, &user, password).await? => {
            Ok(Session::begin(login.as_str(), user.uid(), user.epoch(), worker.profile, Timestamp::now()))
        }
        Some(_) => Err(ApiError::WrongCredentials),
    }
}

/// Whether the session's user is still the one who signed in.
pub async fn is_alive(worker: &Worker, session: &Session) -> Result<bool, ApiError> {
    let Ok(login) = Login::parse(worker.profile, &session.login) else {
        return Ok(false);
    };
    let user = find(worker, &login).await?;
    Ok(user.is_some_and(|user| user.uid() == session.uid && user.epoch() == session.epoch))
}

async fn find(worker: &Worker, login: &Login) -> Result<Option<User>, ApiError> {
    let object = worker.data.get(&object_key(worker.profile, login), user::MAX_BYTES).await?;
    Ok(object.map(|object| User::read(worker.profile, object)).transpose()?)
}

async fn matches(worker: &Worker, user: &User, password: Password) -> Result<bool, ApiError> {
    match user {
        User::Secure(record) => Ok(worker.hashes.verify(password, &record.phc).await? != Verdict::Wrong),
        User::Classic { password: stored, .. } => Ok(stored.ct_eq(password.as_bytes()).into()),
    }
}

async fn refuse<T>(worker: &Worker, password: Option<Password>) -> Result<T, ApiError> {
    match worker.profile {
        Profile::Secure => worker.hashes.verify_nothing(password).await?,
        Profile::Classic => {}
    }
    Err(ApiError::WrongCredentials)
}

/// Writes a user that must not exist yet. A success is durable: it says that the object is ours.
async fn create(worker: &Worker, key: &str, object: &NewObject) -> Result<(), ApiError> {
    for _ in 0..MAX_TRIES {
        match worker.data.put(key, object, &Expect::Absent).await {
            Ok(Write::Done) => return Ok(()),
            Ok(Write::Refused) => match owner(worker, key, object).await? {
                Owner::Us => return Ok(()),
                Owner::SomebodyElse => return Err(ApiError::Taken),
                // Deleted in between.
                Owner::Nobody => {}
            },
            Ok(Write::Raced) => {
                tokio::time::sleep(RETRY_PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
            }
            // The write may have happened all the same.
            Err(error) => match owner(worker, key, object).await {
                Ok(Owner::Us) => return Ok(()),
                Ok(Owner::Nobody | Owner::SomebodyElse) | Err(_) => return Err(error.into()),
            },
        }
    }
    Err(ApiError::Busy)
}

enum Owner {
    Us,
    SomebodyElse,
    Nobody,
}

async fn owner(worker: &Worker, key: &str, ours: &NewObject) -> Result<Owner, ApiError> {
    Ok(match worker.data.get(key, user::MAX_BYTES).await? {
        None => Owner::Nobody,
        Some(stored) if stored.nonce.is_some() && stored.nonce == ours.nonce => Owner::Us,
        Some(_) => Owner::SomebodyElse,
    })
}
