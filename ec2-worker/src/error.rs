//! `ApiError`: every refusal of the HTTP interface, and the one place that turns it into a response.
//!
//! Each area has an error type of its own, so a message can name only the area's own objects. This module maps all of them
//! to a status and a code.
//!
//! | area | type |
//! |---|---|
//! | the request itself | [`RequestError`] |
//! | accounts and passwords | [`AccountError`] |
//! | sessions | [`SessionError`] |
//! | admin requests | [`AdminError`] |
//! | the desired count | [`CountError`] |
//! | secrets that are not in force | [`NotInForce`] |
//!
//! The body is `{"error": "<code>", "message": "<what happened; what to do>"}`; `guard` turns it into a
//! small page for a browser. A message repeats nothing that the client sent except a number or a login
//! rule, so it cannot echo a password.

use axum::Json;
use axum::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet::DesiredCountError;
use process::telemetry;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::AdminError;
use crate::auth::{AccountError, SessionError};
use crate::desired_count::CountError;
use crate::extract::RequestError;
use crate::secrets::NotInForce;
use crate::user::UserError;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Account(AccountError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Secret(#[from] NotInForce),
    #[error(transparent)]
    Count(#[from] CountError),
    #[error("another site or a prefetch sent this request; open this address yourself")]
    CrossSite,
    #[error("a worker accepts requests only through the load balancer; send the request there")]
    DirectTraffic,
    #[error("the service does not answer under this host name; use the address that the operator gave you")]
    WrongHost,
    #[error("nothing exists at this address; write a `/` inside a login or a password as `%2F`")]
    NotFound,
    #[error("this method is not allowed here; use a method from the `Allow` header")]
    MethodNotAllowed { allow: Option<&'static str> },
    #[error("the request took too long and was stopped; try again")]
    TimedOut,
    #[error("the service failed while handling this request; give the operator the request's id")]
    Panicked,
}

/// A session is refused in one way, wherever that was found.
impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Session(error) => Self::Session(error),
            error => Self::Account(error),
        }
    }
}

/// A refusal as the client reads it; `guard` makes a page of it for a browser.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Shown {
    pub error: &'static str,
    pub message: String,
}

type StatusAndCode = (StatusCode, &'static str);

impl ApiError {
    fn status_and_code(&self) -> StatusAndCode {
        use StatusCode as S;
        match self {
            Self::Request(error) => of_request(error),
            Self::Account(error) => of_account(error),
            Self::Session(error) => of_session(error),
            Self::Admin(error) => of_admin(error),
            Self::Secret(error) => of_secret(error),
            Self::Count(error) => of_count(error),
            Self::CrossSite => (S::FORBIDDEN, "cross_site"),
            Self::DirectTraffic => (S::FORBIDDEN, "direct_traffic"),
            Self::WrongHost => (S::MISDIRECTED_REQUEST, "wrong_host"),
            Self::NotFound => (S::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::TimedOut => (S::SERVICE_UNAVAILABLE, "timed_out"),
            Self::Panicked => (S::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    fn header(&self, status: StatusCode) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Admin(AdminError::TokenNeeded) => {
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            Self::MethodNotAllowed { allow } => {
                allow.map(|methods| (ALLOW, HeaderValue::from_static(methods)))
            }
            Self::Account(AccountError::TooManyAttempts(wait) | AccountError::TooManyRequests(wait)) => {
                Some((RETRY_AFTER, HeaderValue::from(wait.as_secs())))
            }
            // Random, because clients that were refused together must not return together.
            _ => (status == StatusCode::SERVICE_UNAVAILABLE)
                .then(|| (RETRY_AFTER, HeaderValue::from(rand::random_range(1_u32..=3)))),
        }
    }

    /// Whether an operator needs the cause. A shared error was logged when it was fetched.
    fn needs_log(&self) -> bool {
        match self {
            Self::Account(AccountError::Storage(_) | AccountError::Session(SessionError::Store(_)))
            | Self::Session(SessionError::Store(_))
            | Self::Admin(AdminError::Session(SessionError::Store(_)))
            | Self::Count(CountError::Store(_)) => true,
            Self::Request(_)
            | Self::Account(_)
            | Self::Session(_)
            | Self::Admin(_)
            | Self::Secret(_)
            | Self::Count(_)
            | Self::CrossSite
            | Self::DirectTraffic
            | Self::WrongHost
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::TimedOut
            | Self::Panicked => false,
        }
    }
}

fn of_request(error: &RequestError) -> StatusAndCode {
    use StatusCode as S;
    match error {
        RequestError::Malformed(_) => (S::BAD_REQUEST, "bad_request"),
        RequestError::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
        RequestError::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
    }
}

fn of_account(error: &AccountError) -> StatusAndCode {
    use StatusCode as S;
    match error {
        AccountError::Login(_) => (S::UNPROCESSABLE_ENTITY, "login_refused"),
        AccountError::Password(_) => (S::UNPROCESSABLE_ENTITY, "password_refused"),
        AccountError::Taken => (S::CONFLICT, "taken"),
        AccountError::WrongCredentials => (S::UNAUTHORIZED, "wrong_credentials"),
        AccountError::WrongPassword => (S::FORBIDDEN, "wrong_password"),
        AccountError::PasswordNeeded => (S::FORBIDDEN, "password_needed"),
        AccountError::SecureOnly => (S::FORBIDDEN, "secure_only"),
        AccountError::TooManyAttempts(_) => (S::TOO_MANY_REQUESTS, "too_many_attempts"),
        AccountError::TooManyRequests(_) => (S::TOO_MANY_REQUESTS, "too_many_requests"),
        AccountError::LostRace(_) => (S::CONFLICT, "lost_race"),
        AccountError::Contended => (S::SERVICE_UNAVAILABLE, "storage_busy"),
        AccountError::Busy => (S::SERVICE_UNAVAILABLE, "busy"),
        AccountError::Panicked => (S::INTERNAL_SERVER_ERROR, "internal"),
        AccountError::Storage(error) => of_user(error),
        AccountError::Session(error) => of_session(error),
    }
}

fn of_session(error: &SessionError) -> StatusAndCode {
    match error {
        SessionError::SignedOut => (StatusCode::UNAUTHORIZED, "signed_out"),
        SessionError::Contended => (StatusCode::SERVICE_UNAVAILABLE, "storage_busy"),
        SessionError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable"),
        SessionError::Shared(error) => of_user(error),
    }
}

fn of_user(error: &UserError) -> StatusAndCode {
    match error {
        UserError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable"),
        UserError::Record(_) => (StatusCode::INTERNAL_SERVER_ERROR, "unreadable_record"),
    }
}

fn of_admin(error: &AdminError) -> StatusAndCode {
    match error {
        AdminError::TokenNeeded => (StatusCode::UNAUTHORIZED, "admin_only"),
        AdminError::CrossSite => ApiError::CrossSite.status_and_code(),
        AdminError::Secret(error) => of_secret(error),
        AdminError::Session(error) => of_session(error),
    }
}

fn of_secret(error: &NotInForce) -> StatusAndCode {
    match error {
        NotInForce::NoAdminToken => (StatusCode::FORBIDDEN, "admin_not_configured"),
        NotInForce::AdminTokenUnreadable => (StatusCode::SERVICE_UNAVAILABLE, "admin_unreadable"),
        NotInForce::KeysTooOld => (StatusCode::SERVICE_UNAVAILABLE, "keys_too_old"),
    }
}

fn of_count(error: &CountError) -> StatusAndCode {
    use StatusCode as S;
    match error {
        CountError::Refused(DesiredCountError::NotANumber(_)) => (S::BAD_REQUEST, "not_a_number"),
        CountError::Refused(DesiredCountError::OutOfRange(..)) => (S::UNPROCESSABLE_ENTITY, "out_of_range"),
        CountError::LostRace => (S::CONFLICT, "lost_race"),
        CountError::NoneInForce(_) => (S::SERVICE_UNAVAILABLE, "no_desired_count"),
        CountError::Store(_) => (S::SERVICE_UNAVAILABLE, "storage_unavailable"),
        CountError::Shared(error) => of_count(error),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.needs_log() {
            tracing::warn!(error = telemetry::error_chain(&self), "a request failed");
        }
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

/// For axum, which asks an extractor's rejection for a response.
impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        ApiError::from(self).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Change;

    fn response_of(error: impl Into<ApiError>) -> (u16, &'static str, String) {
        let error = error.into();
        let (status, code) = error.status_and_code();
        (status.as_u16(), code, error.to_string())
    }

    #[test]
    fn each_lost_race_names_its_own_thing() {
        let names = ["your password", "your sessions", "it was not deleted", "the desired count"];
        let lost = |change| ApiError::from(AccountError::LostRace(change));
        let errors = [
            lost(Change::Password),
            lost(Change::EndOfSessions),
            lost(Change::Deletion),
            CountError::LostRace.into(),
        ];
        for (own, error) in names.into_iter().zip(errors) {
            let (status, code, message) = response_of(error);
            assert_eq!((status, code), (409, "lost_race"));
            let named: Vec<&str> = names.into_iter().filter(|name| message.contains(name)).collect();
            assert_eq!(named, [own], "{message}");
        }
    }

    #[test]
    fn a_session_is_refused_in_one_way() {
        for error in [
            ApiError::from(SessionError::SignedOut),
            ApiError::from(AccountError::from(SessionError::SignedOut)),
        ] {
            assert!(matches!(error, ApiError::Session(SessionError::SignedOut)));
            let (status, code, _) = response_of(error);
            assert_eq!((status, code), (401, "signed_out"));
        }
    }

    #[test]
    fn admin_errors_keep_their_codes() {
        let codes = [
            AdminError::TokenNeeded,
            AdminError::CrossSite,
            NotInForce::NoAdminToken.into(),
            NotInForce::AdminTokenUnreadable.into(),
            SessionError::Contended.into(),
        ]
        .map(|error| {
            let (status, code, _) = response_of(error);
            (status, code)
        });
        let expected = [
            (401, "admin_only"),
            (403, "cross_site"),
            (403, "admin_not_configured"),
            (503, "admin_unreadable"),
            (503, "storage_busy"),
        ];
        assert_eq!(codes, expected);
    }

    #[test]
    fn request_errors_keep_their_codes() {
        let codes = [
            RequestError::malformed("it is empty"),
            RequestError::BodyTooLarge,
            RequestError::UnsupportedMediaType,
        ]
        .map(|error| response_of(error).0);
        assert_eq!(codes, [400, 413, 415]);
    }

    #[test]
    fn secret_errors_ask_for_a_retry_when_they_pass_by_themselves() {
        let retries = [NotInForce::KeysTooOld, NotInForce::AdminTokenUnreadable, NotInForce::NoAdminToken]
            .map(|error| ApiError::from(error).into_response().headers().contains_key(RETRY_AFTER));
        assert_eq!(retries, [true, true, false]);
    }
}
