//! Signing up, in and out, and the page behind the session.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::Timestamp;
use serde_json::json;

use crate::client::Client;
use crate::cookies::{self, Kind};
use crate::extract::{Credentials, FromBody, FromPath, prefers_html};
use crate::session::Session;
use crate::{ApiError, Worker, accounts, pages};

/// `GET /`
pub(super) async fn home() -> pages::Page {
    pages::home()
}

/// `POST /signup/<login>/<password>`
pub(super) async fn sign_up_by_path(
    State(worker): State<Worker>,
    headers: HeaderMap,
    FromPath(given): FromPath,
) -> Result<Response, ApiError> {
    register(&worker, &headers, &given).await
}

/// `POST /signup`
pub(super) async fn sign_up(
    State(worker): State<Worker>,
    headers: HeaderMap,
    FromBody(given): FromBody,
) -> Result<Response, ApiError> {
    register(&worker, &headers, &given).await
}

/// `GET /signin/<login>/<password>`
pub(super) async fn sign_in_by_path(
    State(worker): State<Worker>,
    client: Client,
    FromPath(given): FromPath,
) -> Result<Response, ApiError> {
    begin_session(&worker, &client, &given).await
}

/// `POST /signin`
pub(super) async fn sign_in(
    State(worker): State<Worker>,
    client: Client,
    FromBody(given): FromBody,
) -> Result<Response, ApiError> {
    begin_session(&worker, &client, &given).await
}

/// `GET /protected`
pub(super) async fn protected(
    State(worker): State<Worker>,
    headers: HeaderMap,
    client: Client,
) -> Result<Response, ApiError> {
    let wants_page = prefers_html(&headers);
    let now = Timestamp::now();
    let secrets = worker.secrets();
    let session = match Session::open(&secrets.ring, &headers, client.transport, worker.profile, now) {
        Some(session) if accounts::is_alive(&worker, &session).await? => session,
        _ if wants_page => {
            return Ok((cookies::forget(Kind::Session, client.transport), Redirect::to("/")).into_response());
        }
        _ => return Err(ApiError::SignedOut),
    };
    let answer = if wants_page {
        pages::protected(&session.login, &worker.id, session.age(now)).into_response()
    } else {
        Json(json!({
            "login": session.login,
            "worker": worker.id,
            "session_age_seconds": session.age(now).as_secs(),
        }))
        .into_response()
    };
    Ok(match session.renewed(now) {
        Some(renewed) => (renewed.seal(&secrets.ring, client.transport), answer).into_response(),
        None => answer,
    })
}

/// `POST /signout`: this browser forgets the session. A copy of the cookie stays good until it is
/// idle for too long; ending it on all workers at once comes with the list of ended sessions.
pub(super) async fn sign_out(headers: HeaderMap, client: Client) -> Response {
    if prefers_html(&headers) {
        // A browser would stay on the protected page after a 204.
        (cookies::forget(Kind::Session, client.transport), Redirect::to("/")).into_response()
    } else {
        (cookies::forget(Kind::Session, client.transport), StatusCode::NO_CONTENT).into_response()
    }
}

async fn register(worker: &Worker, headers: &HeaderMap, given: &Credentials) -> Result<Response, ApiError> {
    let login = accounts::sign_up(worker, given).await?;
    let answer = if prefers_html(headers) {
        pages::signed_up(login.as_str()).into_response()
    } else {
        Json(json!({"login": login.as_str()})).into_response()
    };
    Ok((StatusCode::CREATED, answer).into_response())
}

async fn begin_session(worker: &Worker, client: &Client, given: &Credentials) -> Result<Response, ApiError> {
    let session = accounts::sign_in(worker, given).await?;
    let cookie = session.seal(&worker.secrets().ring, client.transport);
    Ok((cookie, Redirect::to("/protected")).into_response())
}
