//! Accounts: making one, proving to be its owner, changing and deleting it, and whose session it is.
//!
//! A guess to avoid: a 412 does not mean that somebody else was faster. The SDK repeats a write whose
//! reply was lost, and then our own object refuses it; the nonce tells which of the two it was.

mod change;
#[cfg(test)]
mod interleavings;
mod sessions;
mod sign_in;
mod sign_up;

use std::time::Duration;

use accounts::{Login, Password, object_key};

use crate::hash_pool::Ticket;
use crate::user::{self, User};
use crate::{ApiError, Worker};
use aws::bucket::{ETag, Object, StoreError};

pub use change::{change_password, delete, end_all_sessions};
pub use sessions::{About, Sessions, end_session, has_ended, put_mark, user_of};
pub use sign_in::{Device, SignedIn, count_of, sign_in};
pub use sign_up::sign_up;

/// S3 answers 409 while another write to the same key is under way, which is over within
/// milliseconds. Two tries would meet a third writer; ten would hold a request for seconds.
const MAX_TRIES: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A user, and the version of the object it was read from.
struct Found {
    user: User,
    etag: ETag,
}

async fn fetch(worker: &Worker, login: &Login) -> Result<Option<Object>, StoreError> {
    worker.data.get(&object_key(worker.profile, login), user::MAX_BYTES).await
}

async fn find(worker: &Worker, login: &Login) -> Result<Option<Found>, ApiError> {
    understand(worker, fetch(worker, login).await?)
}

fn understand(worker: &Worker, object: Option<Object>) -> Result<Option<Found>, ApiError> {
    let Some(object) = object else { return Ok(None) };
    let etag = object.etag.clone();
    Ok(Some(Found { user: User::read(worker.profile, object)?, etag }))
}

/// Lets other writers finish.
async fn pause() {
    tokio::time::sleep(RETRY_PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
}

/// The cost of an evaluation without its result: for logins that do not exist.
async fn verify_nothing(worker: &Worker, ticket: Ticket, password: Option<Password>) -> Result<(), ApiError> {
    Ok(worker.hashes.verify_nothing(ticket, password).await?)
}
