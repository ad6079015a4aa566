//! Every way a request is refused, with its status and its words.
//!
//! The body is `{"error": "<code>", "message": "<what to do>"}`; `guard` turns it into a small page
//! for a browser. No message contains anything the client sent but a number or a login rule, so none
//! can echo a password.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet::DesiredCountError;
use process::telemetry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::hash_pool::HashError;
use crate::user::RecordError;
use accounts::{LoginError, PasswordError};
use aws::bucket::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(Cow<'static, str>),
    #[error("{0}")]
    Amount(DesiredCountError),
    #[error("{0}")]
    Login(#[from] LoginError),
    #[error("{0}")]
    Password(#[from] PasswordError),
    #[error("this login is taken; choose another one")]
    Taken,
    #[error("the login or the password is wrong")]
    WrongCredentials,
    #[error("the current password is wrong")]
    WrongPassword,
    #[error("this session is older than a few minutes; give the current password as well")]
    PasswordNeeded,
    #[error("the classic profile has sign-up and sign-in only, as the original service had")]
    SecureOnly,
    #[error("too many failed attempts at this login; try again in {} s", .0.as_secs())]
    TooManyAttempts(Duration),
    #[error("too many requests of this kind from your address; try again in {} s", .0.as_secs())]
    TooManyRequests(Duration),
    #[error("there is no session, or it has ended; sign in")]
    SignedOut,
    #[error("this needs the admin token; send it as `Authorization: Bearer <token>`")]
    AdminOnly,
    #[error("this stack has no admin token, so nobody may do this; run the deployment again to make one")]
    AdminNotConfigured,
    #[error(
        "the stored hash of the admin token cannot be read, so nobody may do this; \
         look at the workers' log, or run `make token ROTATE=1` to write another one"
    )]
    AdminUnreadable,
    #[error("the keys of sessions have not been read for too long to be believed; tell the operator")]
    KeysTooOld,
    #[error("another site led here, or a prefetch; open this address yourself")]
    CrossSite,
    #[error("this is a worker; send the request to the load balancer")]
    DirectTraffic,
    #[error("it was changed from elsewhere at the same moment; look at it and try again")]
    LostRace,
    #[error(
        "the storage is busy with another write to the same object, and nothing was changed; try again in a second"
    )]
    Contended,
    #[error("the service does not answer under this host name; use the address that the operator gave you")]
    WrongHost,
    #[error("there is nothing here; a `/` inside a login or a password must be written `%2F`")]
    NotFound,
    #[error("this method is not allowed here; the header `Allow` says which are")]
    MethodNotAllowed { allow: Option<&'static str> },
    #[error("the body is too large; {} bytes are enough", crate::routes::MAX_BODY_BYTES)]
    BodyTooLarge,
    #[error("send the body as `application/json` or as `application/x-www-form-urlencoded`")]
    UnsupportedMediaType,
    #[error("too many sign-ins at this moment; try again in a second")]
    Busy,
    #[error("this took too long and was given up; try again")]
    TimedOut,
    #[error("the storage does not answer at this moment; try again in a second")]
    Store(#[from] StoreError),
    #[error("{0}")]
    NoAmount(Cow<'static, str>),
    #[error("the stored record of this user cannot be read; tell the operator")]
    Record(#[from] RecordError),
    #[error("something is wrong on our side; the log has it under the request's id")]
    Panicked,
    /// Of a look that several have waited for, or that is given again; it was logged once.
    #[error("{0}")]
    Shared(Arc<Self>),
}

/// A refusal, as it is written; `guard` makes a page of it for a browser.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Shown {
    pub error: &'static str,
    pub message: String,
}

impl ApiError {
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::BadRequest(message.into())
    }

    /// Whole seconds, so that whoever waits as long as we say has waited long enough.
    pub fn too_many_attempts(wait: Duration) -> Self {
        Self::TooManyAttempts(Duration::from_secs(
            wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
        ))
    }

    pub fn too_many_requests(wait: Duration) -> Self {
        Self::TooManyRequests(Duration::from_secs(
            wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
        ))
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest(_) => (S::BAD_REQUEST, "bad_request"),
            Self::Amount(DesiredCountError::NotANumber(_)) => (S::BAD_REQUEST, "not_a_number"),
            Self::Amount(DesiredCountError::OutOfRange(..)) => (S::UNPROCESSABLE_ENTITY, "out_of_range"),
            Self::Login(_) => (S::UNPROCESSABLE_ENTITY, "login_refused"),
            Self::Password(_) => (S::UNPROCESSABLE_ENTITY, "password_refused"),
            Self::Taken => (S::CONFLICT, "taken"),
            Self::WrongCredentials => (S::UNAUTHORIZED, "wrong_credentials"),
            Self::WrongPassword => (S::FORBIDDEN, "wrong_password"),
            Self::PasswordNeeded => (S::FORBIDDEN, "password_needed"),
            Self::SecureOnly => (S::FORBIDDEN, "secure_only"),
            Self::TooManyAttempts(_) => (S::TOO_MANY_REQUESTS, "too_many_attempts"),
            Self::TooManyRequests(_) => (S::TOO_MANY_REQUESTS, "too_many_requests"),
            Self::SignedOut => (S::UNAUTHORIZED, "signed_out"),
            Self::AdminOnly => (S::UNAUTHORIZED, "admin_only"),
            Self::AdminNotConfigured => (S::FORBIDDEN, "admin_not_configured"),
            Self::AdminUnreadable => (S::SERVICE_UNAVAILABLE, "admin_unreadable"),
            Self::KeysTooOld => (S::SERVICE_UNAVAILABLE, "keys_too_old"),
            Self::CrossSite => (S::FORBIDDEN, "cross_site"),
            Self::DirectTraffic => (S::FORBIDDEN, "direct_traffic"),
            Self::LostRace => (S::CONFLICT, "lost_race"),
            Self::WrongHost => (S::MISDIRECTED_REQUEST, "wrong_host"),
            Self::NotFound => (S::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::Busy => (S::SERVICE_UNAVAILABLE, "busy"),
            Self::TimedOut => (S::SERVICE_UNAVAILABLE, "timed_out"),
            Self::Contended => (S::SERVICE_UNAVAILABLE, "storage_busy"),
            Self::Store(_) => (S::SERVICE_UNAVAILABLE, "storage_unavailable"),
            Self::NoAmount(_) => (S::SERVICE_UNAVAILABLE, "no_desired_count"),
            Self::Record(_) => (S::INTERNAL_SERVER_ERROR, "unreadable_record"),
            Self::Panicked => (S::INTERNAL_SERVER_ERROR, "internal"),
            Self::Shared(error) => error.status_and_code(),
        }
    }

    fn header(&self, status: StatusCode) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::AdminOnly => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::MethodNotAllowed { allow } => {
                allow.map(|methods| (ALLOW, HeaderValue::from_static(methods)))
            }
            Self::TooManyAttempts(wait) | Self::TooManyRequests(wait) => {
                Some((RETRY_AFTER, HeaderValue::from(wait.as_secs())))
            }
            Self::Shared(error) => error.header(status),
            // Not all at the same moment again.
            _ => (status == StatusCode::SERVICE_UNAVAILABLE)
                .then(|| (RETRY_AFTER, HeaderValue::from(rand::random_range(1_u32..=3)))),
        }
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::Busy,
            HashError::Unreadable(_) => Self::Record(RecordError::Unreadable),
        }
    }
}

impl ApiError {
    /// For all who wait for the same look.
    pub fn shared(self) -> Arc<Self> {
        self.log();
        Arc::new(self)
    }

    fn log(&self) {
        if let Self::Store(_) | Self::Record(_) = self {
            tracing::warn!(error = telemetry::error_chain(self), "a request failed");
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let (status, code) = self.status_and_code();
        let shown = Shown { error: code, message: self.to_string() };
        let mut response = (status, Json(&shown)).into_response();
        if let Some((name, value)) = self.header(status) {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(shown);
        response
    }
}
