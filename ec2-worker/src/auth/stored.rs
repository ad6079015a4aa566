//! Reading a user's object, and what all writers of one have in common.

use std::time::Duration;

use accounts::{Login, Password, object_key};

use super::error::AccountError;
use crate::Worker;
use crate::hash_pool::Ticket;
use crate::user::{self, User, UserError};
use aws::bucket::{ETag, Object, StoreError};

/// S3 answers 409 while another write to the same key is under way, which is over within
/// milliseconds. Two tries would meet a third writer; ten would hold a request for seconds.
pub(super) const MAX_TRIES: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A user, and the version of the object it was read from.
pub(super) struct Found {
    pub(super) user: User,
    pub(super) etag: ETag,
}

pub(super) async fn fetch(worker: &Worker, login: &Login) -> Result<Option<Object>, StoreError> {
    worker.data.get(&object_key(worker.profile, login), user::MAX_BYTES).await
}

pub(super) async fn find(worker: &Worker, login: &Login) -> Result<Option<Found>, UserError> {
    understand(worker, fetch(worker, login).await?)
}

pub(super) fn understand(worker: &Worker, object: Option<Object>) -> Result<Option<Found>, UserError> {
    let Some(object) = object else { return Ok(None) };
    let etag = object.etag.clone();
    Ok(Some(Found { user: User::read(worker.profile, object)?, etag }))
}

/// Lets other writers finish.
pub(super) async fn pause() {
    tokio::time::sleep(RETRY_PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
}

/// The cost of an evaluation without its result: for logins that do not exist.
pub(super) async fn verify_nothing(
    worker: &Worker,
    ticket: Ticket,
    password: Option<Password>,
) -> Result<(), AccountError> {
    Ok(worker.hashes.verify_nothing(ticket, password).await?)
}
