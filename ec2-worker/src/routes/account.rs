//! Signing up, in and out, the page behind the session, and what its owner may change.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use fleet::Profile;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{self, AccountError, Device, SessionError, SignedIn};
use crate::client::Client;
use crate::cookies::{self, Kind};
use crate::error::Shown;
use crate::extract::{Credentials, FromBody, FromPath, PasswordChange, Proof, prefers_html};
use crate::session::Session;
use crate::session::cache::About;
use crate::stats::SignInOutcome;
use crate::{ApiError, Worker, pages};

/// Of the forms that have the password in the path (RFC 9745): since this service is not the original.
const DEPRECATED: [(HeaderName, HeaderValue); 1] =
    [(HeaderName::from_static("deprecation"), HeaderValue::from_static("@1767225600"))];

/// Clears the browser's cache and storage, so that its next user finds nothing of this one. Cookies stay,
/// because the device cookie keeps the browser known.
const CLEAR: [(HeaderName, HeaderValue); 1] =
    [(HeaderName::from_static("clear-site-data"), HeaderValue::from_static("\"cache\", \"storage\""))];

#[derive(Serialize, ToSchema)]
pub(crate) struct Registered {
    /// In the form in which it is compared: `Ana` is `ana`.
    login: String,
}

/// Whose session it is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    login: String,
    /// The worker that answers.
    worker: String,
    session_age_seconds: i64,
}

/// As `extract` reads it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the contract only")]
pub(crate) struct CredentialsBody {
    #[schema(min_length = 1, max_length = 64, example = "ana")]
    login: String,
    #[schema(min_length = 8, max_length = 256, example = "zzyzx road", format = Password)]
    password: String,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "for the contract only")]
pub(crate) struct PasswordBody {
    #[schema(format = Password)]
    current: String,
    #[schema(min_length = 8, max_length = 256, format = Password)]
    new: String,
}

/// Needed when the session is older than five minutes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the contract only")]
pub(crate) struct ProofBody {
    #[schema(format = Password)]
    password: String,
}

/// `GET /`
pub(super) async fn home(State(worker): State<Worker>) -> pages::Page {
    pages::home(worker.profile, worker.min_password)
}

/// `POST /signup/<login>/<password>`
#[utoipa::path(
    post,
    path = "/signup/{login}/{password}",
    operation_id = "signUpByPath",
    tag = "accounts",
    params(("login" = String, Path, description = "Percent-encoded"), ("password" = String, Path, description = "Percent-encoded")),
    responses(
        (status = 201, description = "Registered", body = Registered),
        (status = 400, description = "The request cannot be parsed", body = Shown),
        (status = 403, description = "Another site sent the request", body = Shown),
        (status = 409, description = "The login is taken", body = Shown),
        (status = 422, description = "The login or the password breaks a rule, which the message names", body = Shown),
        (status = 429, description = "Too many attempts; `Retry-After` says how long to wait", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn sign_up_by_path(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    FromPath(given): FromPath,
) -> Result<Response, ApiError> {
    Ok((DEPRECATED, register(worker, client, &headers, given).await?).into_response())
}

/// `POST /signup`
#[utoipa::path(
    post,
    path = "/signup",
    tag = "accounts",
    request_body(content((CredentialsBody = "application/json"), (CredentialsBody = "application/x-www-form-urlencoded"))),
    responses(
        (status = 201, description = "Registered", body = Registered),
        (status = 400, description = "The request cannot be parsed", body = Shown),
        (status = 403, description = "Another site sent the request", body = Shown),
        (status = 409, description = "The login is taken", body = Shown),
        (status = 413, description = "The body is too large", body = Shown),
        (status = 415, description = "The body is neither JSON nor a form", body = Shown),
        (status = 422, description = "The login or the password breaks a rule, which the message names", body = Shown),
        (status = 429, description = "Too many attempts; `Retry-After` says how long to wait", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn sign_up(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    FromBody(given): FromBody,
) -> Result<Response, ApiError> {
    register(worker, client, &headers, given).await
}

/// `GET /signin/<login>/<password>`
#[utoipa::path(
    get,
    path = "/signin/{login}/{password}",
    operation_id = "signInByPath",
    tag = "accounts",
    params(("login" = String, Path, description = "Percent-encoded"), ("password" = String, Path, description = "Percent-encoded")),
    responses(
        (status = 303, description = "Signed in; the session is in a cookie", headers(("Location" = String, description = "`/protected`"), ("Set-Cookie" = String))),
        (status = 400, description = "The request cannot be parsed", body = Shown),
        (status = 401, description = "The login or the password is wrong; one answer for both", body = Shown),
        (status = 403, description = "Another site sent the request", body = Shown),
        (status = 429, description = "Too many attempts; `Retry-After` says how long to wait", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn sign_in_by_path(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    FromPath(given): FromPath,
) -> Result<Response, ApiError> {
    Ok((DEPRECATED, begin_session(worker, client, &headers, given).await?).into_response())
}

/// `POST /signin`
#[utoipa::path(
    post,
    path = "/signin",
    tag = "accounts",
    request_body(content((CredentialsBody = "application/json"), (CredentialsBody = "application/x-www-form-urlencoded"))),
    responses(
        (status = 303, description = "Signed in; the session is in a cookie", headers(("Location" = String, description = "`/protected`"), ("Set-Cookie" = String))),
        (status = 400, description = "The request cannot be parsed", body = Shown),
        (status = 401, description = "The login or the password is wrong; one answer for both", body = Shown),
        (status = 403, description = "Another site sent the request", body = Shown),
        (status = 413, description = "The body is too large", body = Shown),
        (status = 415, description = "The body is neither JSON nor a form", body = Shown),
        (status = 429, description = "Too many attempts; `Retry-After` says how long to wait", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn sign_in(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    FromBody(given): FromBody,
) -> Result<Response, ApiError> {
    begin_session(worker, client, &headers, given).await
}

/// `GET /protected`
#[utoipa::path(
    get,
    path = "/protected",
    tag = "accounts",
    security(("session" = [])),
    responses(
        (status = 200, description = "Whose session it is, and which worker answers", body = Me),
        (status = 401, description = "There is no session, or it has ended", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn protected(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wants_page = prefers_html(&headers);
    let now = Timestamp::now();
    let (session, about) = match session(&worker, &client, &headers).await {
        Ok(found) => found,
        Err(ApiError::Session(SessionError::SignedOut)) if wants_page => {
            let forget = cookies::forget(Kind::Session, client.transport);
            return Ok((forget, Redirect::to("/")).into_response());
        }
        Err(error) => return Err(error),
    };
    let answer = if wants_page {
        pages::protected(&pages::Account {
            login: &session.login,
            worker: &worker.id,
            age: session.age(now),
            expires_in: session.left(now),
            sign_ins: &about.sign_ins,
            created: about.created,
            can_change: worker.profile == Profile::Secure,
        })
        .into_response()
    } else {
        Json(Me {
            session_age_seconds: session.age(now).as_secs(),
            login: session.login.clone(),
            worker: worker.id.to_string(),
        })
        .into_response()
    };
    Ok(match session.renewed(now) {
        Some(renewed) => (renewed.seal(worker.secrets().ring()?, client.transport), answer).into_response(),
        None => answer,
    })
}

/// `POST /signout`: the session ends on all workers.
#[utoipa::path(
    post,
    path = "/signout",
    tag = "accounts",
    security(("session" = [])),
    responses(
        (status = 204, description = "The session has ended, on all workers within 15 s"),
        (status = 401, description = "There is no session, or it has ended", body = Shown),
        (status = 403, description = "Another site sent the request", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn sign_out(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ended = match session(&worker, &client, &headers).await {
        Ok((session, _)) => auth::end_session(&worker, &client, &session).await.map_err(ApiError::from),
        Err(error) => Err(error),
    };
    signed_out(&client, &headers, ended)
}

/// `POST /signout/everywhere`: all sessions of the user end.
#[utoipa::path(
    post,
    path = "/signout/everywhere",
    tag = "accounts",
    security(("session" = [])),
    responses(
        (status = 204, description = "All sessions of the user have ended, on all workers within 15 s"),
        (status = 401, description = "There is no session, or it has ended", body = Shown),
        (status = 403, description = "Another site sent the request", body = Shown),
        (status = 409, description = "Another request changed the user at the same moment", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn sign_out_everywhere(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ended = match session(&worker, &client, &headers).await {
        Ok((session, _)) => auth::end_all_sessions(&worker, &client, &session).await.map_err(ApiError::from),
        Err(error) => Err(error),
    };
    signed_out(&client, &headers, ended)
}

/// `POST /password`: the other sessions of the user end, this one goes on.
#[utoipa::path(
    post,
    path = "/password",
    tag = "accounts",
    request_body(content((PasswordBody = "application/json"), (PasswordBody = "application/x-www-form-urlencoded"))),
    security(("session" = [])),
    responses(
        (status = 204, description = "The password is changed; other sessions of the user have ended"),
        (status = 400, description = "The request cannot be parsed", body = Shown),
        (status = 401, description = "There is no session, or it has ended", body = Shown),
        (status = 403, description = "The current password is wrong, or another site sent the request", body = Shown),
        (status = 409, description = "Another request changed the user at the same moment", body = Shown),
        (status = 413, description = "The body is too large", body = Shown),
        (status = 415, description = "The body is neither JSON nor a form", body = Shown),
        (status = 422, description = "The new password breaks a rule, which the message names", body = Shown),
        (status = 429, description = "Too many attempts; `Retry-After` says how long to wait", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn change_password(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    given: PasswordChange,
) -> Result<Response, ApiError> {
    let (session, _) = session(&worker, &client, &headers).await?;
    let transport = client.transport;
    let attempt = {
        let (worker, client) = (worker.clone(), client.clone());
        async move { auth::change_password(&worker, &client, &session, &given).await }
    };
    let session = worker.to_the_end(&client, attempt).await?;
    let secrets = worker.secrets();
    let ring = secrets.ring()?;
    let device: Option<Device> = ring.open(Kind::Device, transport, &headers);
    let device = device.and_then(|device| device.after_change(&session));
    let device = device.map(|device| ring.seal(Kind::Device, transport, &device));
    let cookie = (session.seal(ring, transport), device);
    Ok(if prefers_html(&headers) {
        (cookie, Redirect::to("/protected")).into_response()
    } else {
        (cookie, StatusCode::NO_CONTENT).into_response()
    })
}

/// `DELETE /account`, and `POST /account/delete` for forms.
#[utoipa::path(
    delete,
    path = "/account",
    tag = "accounts",
    request_body(content((ProofBody = "application/json"))),
    security(("session" = [])),
    responses(
        (status = 204, description = "The user and all its sessions are gone"),
        (status = 400, description = "The request cannot be parsed", body = Shown),
        (status = 401, description = "There is no session, or it has ended", body = Shown),
        (status = 403, description = "The password is wrong, or is needed because the session is older than five minutes", body = Shown),
        (status = 409, description = "Another request changed the user at the same moment", body = Shown),
        (status = 413, description = "The body is too large", body = Shown),
        (status = 415, description = "The body is neither JSON nor a form", body = Shown),
        (status = 429, description = "Too many attempts; `Retry-After` says how long to wait", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn delete_account(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    Proof(password): Proof,
) -> Result<Response, ApiError> {
    let (session, _) = session(&worker, &client, &headers).await?;
    let transport = client.transport;
    let attempt = {
        let (worker, client) = (worker.clone(), client.clone());
        async move {
            let password = password.as_ref().map(|password| password.expose_secret());
            auth::delete(&worker, &client, &session, password).await
        }
    };
    worker.to_the_end(&client, attempt).await?;
    let forget = (CLEAR, cookies::forget(Kind::Session, transport));
    Ok(if prefers_html(&headers) {
        let text = "The account and all its sessions are gone. Its login is free again.";
        (forget, pages::notice("Account deleted", text, "To the start", "/")).into_response()
    } else {
        (forget, StatusCode::NO_CONTENT).into_response()
    })
}

/// Returns the session of the request and its user; [`SessionError::SignedOut`] without a session.
async fn session(
    worker: &Worker,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(Session, Arc<About>), ApiError> {
    let session = sealed_session(worker, client, headers)?.ok_or(SessionError::SignedOut)?;
    let about = auth::user_of(worker, &session).await?.ok_or(SessionError::SignedOut)?;
    Ok((session, about))
}

/// The session in the cookie, which may have been ended.
fn sealed_session(
    worker: &Worker,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Option<Session>, ApiError> {
    let secrets = worker.secrets();
    Ok(Session::open(secrets.ring()?, headers, client.transport, worker.profile, Timestamp::now()))
}

/// Returns the answer to a sign-out. The browser forgets its cookie if the session has ended, whatever ended
/// it, and keeps the cookie of a session that could not be ended.
fn signed_out(
    client: &Client,
    headers: &HeaderMap,
    ended: Result<(), ApiError>,
) -> Result<Response, ApiError> {
    let forget = (CLEAR, cookies::forget(Kind::Session, client.transport));
    match ended {
        // A browser would stay on the protected page after a 204.
        Ok(()) | Err(ApiError::Session(SessionError::SignedOut)) if prefers_html(headers) => {
            Ok((forget, Redirect::to("/")).into_response())
        }
        Ok(()) => Ok((forget, StatusCode::NO_CONTENT).into_response()),
        Err(error @ ApiError::Session(SessionError::SignedOut)) => Ok((forget, error).into_response()),
        Err(error) => Err(error),
    }
}

async fn register(
    worker: Worker,
    client: Client,
    headers: &HeaderMap,
    given: Credentials,
) -> Result<Response, ApiError> {
    let attempt = {
        let (worker, client) = (worker.clone(), client.clone());
        async move { auth::sign_up(&worker, &client, &given).await }
    };
    let login = worker.to_the_end(&client, attempt).await?;
    let answer = if prefers_html(headers) {
        pages::signed_up(login.as_str()).into_response()
    } else {
        Json(Registered { login: login.as_str().to_owned() }).into_response()
    };
    Ok((StatusCode::CREATED, answer).into_response())
}

async fn begin_session(
    worker: Worker,
    client: Client,
    headers: &HeaderMap,
    given: Credentials,
) -> Result<Response, ApiError> {
    let transport = client.transport;
    let device = worker.secrets().ring()?.open(Kind::Device, transport, headers);
    let before = sealed_session(&worker, &client, headers)?;
    let attempt = {
        let (worker, client) = (worker.clone(), client.clone());
        async move {
            let signed_in = auth::sign_in(&worker, &client, device, &given).await?;
            // Ends the session of the cookie that the browser replaces, so that a stolen copy opens nothing.
            // If S3 fails now, that session ends by its age. The session is read only now, because a refused
            // attempt must not cost reads.
            if let Some(before) = before
                && let Ok(Some(_)) = auth::user_of(&worker, &before).await
            {
                drop(auth::end_session(&worker, &client, &before).await);
            }
            Ok(signed_in)
        }
    };
    let outcome = worker.to_the_end(&client, attempt).await;
    match &outcome {
        Ok(_) => worker.stats.count_sign_in(SignInOutcome::Successful),
        Err(
            AccountError::WrongCredentials
            | AccountError::TooManyAttempts(_)
            | AccountError::TooManyRequests(_),
        ) => {
            worker.stats.count_sign_in(SignInOutcome::Refused);
        }
        Err(_) => {}
    }
    let SignedIn { session, device } = outcome?;
    let secrets = worker.secrets();
    let ring = secrets.ring()?;
    let session = session.seal(ring, transport);
    let answer = Redirect::to("/protected");
    Ok(match device {
        Some(device) => (session, ring.seal(Kind::Device, transport, &device), answer).into_response(),
        None => (session, answer).into_response(),
    })
}
