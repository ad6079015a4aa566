//! Every refusal that concerns an account or a password ([`AccountError`]), or a session ([`SessionError`]).

use std::sync::Arc;
use std::time::Duration;

use accounts::{LoginError, PasswordError};

use crate::hash_pool::HashError;
use crate::state::AttemptError;
use crate::user::{RecordError, UserError};
use aws::bucket::StoreError;

/// Why something about an account was refused.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("{0}")]
    Login(#[from] LoginError),
    #[error("{0}")]
    Password(#[from] PasswordError),
    #[error("this login is taken; choose another one")]
    Taken,
    #[error("the login or the password is wrong; check both and try again")]
    WrongCredentials,
    #[error("the current password is wrong; enter it again")]
    WrongPassword,
    #[error("this session is older than five minutes; give the current password as well")]
    PasswordNeeded,
    #[error("this stack runs the classic profile, which has only sign-up and sign-in; ask the operator")]
    SecureOnly,
    #[error("too many failed attempts at this login; try again in {} s", .0.as_secs())]
    TooManyAttempts(Duration),
    #[error("too many requests of this kind from your address; try again in {} s", .0.as_secs())]
    TooManyRequests(Duration),
    #[error("another request changed this account at the same moment, so {}; try again", .0.what_is_lost())]
    LostRace(Change),
    #[error("another write to the same object is in progress, so nothing was changed; try again in a second")]
    Contended,
    #[error("too many sign-ins at this moment; try again in a second")]
    Busy,
    #[error("the service failed while handling this request; give the operator the request's id")]
    Panicked,
    #[error(transparent)]
    Storage(#[from] UserError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A change of an existing account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Password,
    EndOfSessions,
    Deletion,
}

impl Change {
    fn what_is_lost(self) -> &'static str {
        match self {
            Self::Password => "your password was not changed",
            Self::EndOfSessions => "your sessions were not ended",
            Self::Deletion => "it was not deleted",
        }
    }
}

/// Why a session, a user's or an operator's, does not count or could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("there is no session, or it has ended; sign in")]
    SignedOut,
    #[error("another write to the same object is in progress, so the session goes on; try again in a second")]
    Contended,
    #[error("{}", crate::s3::NO_ANSWER)]
    Store(#[from] StoreError),
    /// The result of a read that several requests share; it was logged once.
    #[error("{0}")]
    Shared(Arc<UserError>),
}

impl AccountError {
    pub(super) fn too_many_attempts(wait: Duration) -> Self {
        Self::TooManyAttempts(whole_seconds(wait))
    }

    pub(super) fn too_many_requests(wait: Duration) -> Self {
        Self::TooManyRequests(whole_seconds(wait))
    }
}

/// Rounds up, so that a client that waits for the time in the answer has waited long enough.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<HashError> for AccountError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::Busy,
            HashError::Unreadable(_) => Self::Storage(RecordError::Unreadable.into()),
        }
    }
}

impl From<AttemptError> for AccountError {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Busy => Self::Busy,
            AttemptError::Panicked => Self::Panicked,
        }
    }
}
