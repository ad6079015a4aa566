//! The operator's dashboard.
//!
//! A refusal of the token form's page is the form itself; every other one is an ordinary error.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use fleet::DesiredCount;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::admin::{self, Access, AdminError};
use crate::client::Client;
use crate::cookies::{self, Kind};
use crate::dashboard::{Picture, directory};
use crate::desired_count::CountError;
use crate::extract::{RequestError, form_fields, prefers_html};
use crate::{ApiError, Worker, audit, pages};

const HOME: &str = "/admin";

/// `GET /admin?q=&after=`
pub(super) async fn page(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let access = match admin::require(&worker, &client, &headers).await {
        Err(AdminError::TokenNeeded) if prefers_html(&headers) => {
            return Ok((StatusCode::UNAUTHORIZED, pages::token_form(None)).into_response());
        }
        access => access?,
    };
    let [text, after] = form_fields(query.as_deref().unwrap_or_default(), ["q", "after"])
        .ok_or_else(|| RequestError::malformed("give `q` and `after` once each, as UTF-8"))?;
    let query = directory::Query { text: text.unwrap_or_default(), after };
    let (picture, directory) =
        tokio::join!(picture(&worker), directory::search(&worker.data, worker.profile, query));
    Ok(renewing(&worker, &client, &access, pages::dashboard(&picture, &directory, &access)))
}

/// `GET /admin/fleet`
pub(super) async fn fleet(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let access = admin::require(&worker, &client, &headers).await?;
    Ok(renewing(&worker, &client, &access, Json(picture(&worker).await)))
}

/// `POST /admin/signin`
pub(super) async fn sign_in(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let token = Zeroizing::new(field(&headers, body, "token")?);
    match admin::sign_in(&worker, token.trim()) {
        Ok(session) => {
            admin::end_session(&worker, &client, &headers).await?;
            audit::admin_signed_in(&worker, &client);
            let cookie = session.seal(worker.secrets().ring()?, client.transport);
            Ok((cookie, Redirect::to(HOME)).into_response())
        }
        Err(refusal) => {
            audit::admin_refused(&worker, &client);
            match refusal {
                AdminError::TokenNeeded if prefers_html(&headers) => {
                    let page = pages::token_form(Some("This is not the admin token of this stack."));
                    Ok((StatusCode::UNAUTHORIZED, page).into_response())
                }
                refusal => Err(refusal.into()),
            }
        }
    }
}

/// `POST /admin/signout`
pub(super) async fn sign_out(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    admin::end_session(&worker, &client, &headers).await?;
    Ok((cookies::forget(Kind::Admin, client.transport), Redirect::to(HOME)).into_response())
}

/// `POST /admin/amount`
pub(super) async fn set_amount(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Redirect, ApiError> {
    admin::require(&worker, &client, &headers).await?;
    let given = field(&headers, body, "amount")?;
    let desired = DesiredCount::at_least_one(&given).map_err(CountError::Refused)?;
    let change = worker.set_desired_count(desired).await?;
    audit::amount_set(&worker, &client, change.desired.get(), change.previous.map(DesiredCount::get));
    Ok(Redirect::to(HOME))
}

async fn picture(worker: &Worker) -> Picture {
    let fleet = worker.fleets.fetch().await;
    Picture::new(fleet, worker.id.clone(), worker.stats.rates(), worker.secrets().states())
}

/// The answer, and a fresh cookie when it is time for one.
fn renewing(worker: &Worker, client: &Client, access: &Access, answer: impl IntoResponse) -> Response {
    let renewed = match access {
        Access::Session(session) => session.renewed(Timestamp::now()),
        Access::Open | Access::Token => None,
    };
    match (renewed, worker.secrets().ring()) {
        (Some(session), Ok(ring)) => (session.seal(ring, client.transport), answer).into_response(),
        (_, Ok(_) | Err(_)) => answer.into_response(),
    }
}

/// One field of a form.
fn field(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    name: &str,
) -> Result<String, RequestError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(RequestError::UnsupportedMediaType);
    }
    let body = body.map_err(|rejection| RequestError::of_body(&rejection))?;
    std::str::from_utf8(&body)
        .ok()
        .and_then(|text| form_fields(text, [name]))
        .and_then(|[value]| value)
        .ok_or_else(|| RequestError::malformed(format!("send the form field `{name}`, once")))
}
