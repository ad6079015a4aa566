//! Registering a login.

use accounts::{Login, Password, Record, object_key};
use fleet::Profile;
use jiff::Timestamp;

use super::error::AccountError;
use super::stored::{MAX_TRIES, pause};
use crate::client::Client;
use crate::extract::Credentials;
use crate::limits::Limit;
use crate::{Worker, audit};
use crate::{throttle, user};
use aws::bucket::{Expect, NewObject, Write};

/// Registers the login.
pub async fn sign_up(worker: &Worker, client: &Client, given: &Credentials) -> Result<Login, AccountError> {
    let login = Login::parse(worker.profile, &given.login)?;
    let password = Password::chosen(worker.profile, worker.min_password, &login, given.password())?;
    let key = object_key(worker.profile, &login);
    if worker.profile == Profile::Secure {
        allowed(worker, client, &worker.limits.tries_to_sign_up)?;
    }
    // Cheaper than a hash, and the usual answer; the conditional write below decides.
    if worker.data.exists(&key).await? {
        return Err(AccountError::Taken);
    }
    match worker.profile {
        Profile::Classic => create(worker, &key, &user::classic_object(password.as_bytes())).await?,
        Profile::Secure => {
            allowed(worker, client, &worker.limits.sign_ups)?;
            // When many requests want the same login at once, only the first costs a hash.
            let _alone = worker.sign_ups.enter_alone(&key).await.ok_or(AccountError::Busy)?;
            if worker.data.exists(&key).await? {
                return Err(AccountError::Taken);
            }
            let phc = worker.hashes.hash(worker.hashes.ticket(client)?, password).await?;
            let record = Record::new(&login, phc, Timestamp::now());
            create(worker, &key, &user::secure_object(&record)).await?;
            let count = throttle::count_name(worker.secrets().ring_for_names(), login.as_str());
            worker.throttle.forget(&count).await;
        }
    }
    audit::signed_up(worker, client, &login);
    Ok(login)
}

fn allowed(worker: &Worker, client: &Client, limit: &Limit) -> Result<(), AccountError> {
    limit.take(client).map_err(|wait| {
        audit::sign_up_refused(worker, client);
        AccountError::too_many_requests(wait)
    })
}

/// Writes a user that must not exist yet. After a success the object is in S3 and was written by this call.
async fn create(worker: &Worker, key: &str, object: &NewObject) -> Result<(), AccountError> {
    for _ in 0..MAX_TRIES {
        // Only the first outcome is a certain success.
        match worker.data.put(key, object, &Expect::Absent).await {
            Ok(Write::Done) => return Ok(()),
            Ok(Write::Refused) => match owner(worker, key, object).await? {
                Owner::Us => return Ok(()),
                Owner::SomebodyElse => return Err(AccountError::Taken),
                // Deleted in between.
                Owner::Nobody => {}
            },
            Ok(Write::Raced) => pause().await,
            // The write may have happened all the same.
            Err(error) => match owner(worker, key, object).await {
                Ok(Owner::Us) => return Ok(()),
                Ok(Owner::Nobody | Owner::SomebodyElse) | Err(_) => return Err(error.into()),
            },
        }
    }
    Err(AccountError::Contended)
}

enum Owner {
    Us,
    SomebodyElse,
    Nobody,
}

async fn owner(worker: &Worker, key: &str, ours: &NewObject) -> Result<Owner, AccountError> {
    Ok(match worker.data.get(key, user::MAX_BYTES).await? {
        None => Owner::Nobody,
        Some(stored) if stored.nonce.is_some() && stored.nonce == ours.nonce => Owner::Us,
        Some(_) => Owner::SomebodyElse,
    })
}
