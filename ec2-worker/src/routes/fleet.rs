//! The worker's health, and how many workers there should be.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use fleet::{DesiredCount, WorkerId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::client::Client;
use crate::desired_count::{Amount, Change, CountError};
use crate::error::Shown;
use crate::extract::{RequestError, form_fields};
use crate::{ApiError, Worker, admin, audit};

#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
    #[schema(value_type = String)]
    worker: WorkerId,
    version: &'static str,
    /// Since its process began. A reconciler that finds it start over again and again replaces the worker.
    uptime_seconds: u64,
}

/// `GET /healthcheck`: that this process answers. It does not ask S3: an outage there would have the
/// whole fleet replaced, which heals nothing.
#[utoipa::path(
    get,
    path = "/healthcheck",
    tag = "fleet",
    responses(
        (status = 200, description = "This worker answers; it checks nothing else", body = Health),

    ),
)]
pub(crate) async fn health_check(State(worker): State<Worker>) -> Json<Health> {
    let (worker, uptime_seconds) = (worker.id.clone(), worker.stats.uptime_seconds());
    Json(Health { status: "ok", worker, version: env!("CARGO_PKG_VERSION"), uptime_seconds })
}

/// `GET /checkamount`
#[utoipa::path(
    get,
    path = "/checkamount",
    tag = "fleet",
    responses(
        (status = 200, description = "How many there should be, and are", body = Amount),
        (status = 503, description = "The number cannot be read", body = Shown),
    ),
)]
pub(crate) async fn check_amount(State(worker): State<Worker>) -> Result<Json<Amount>, ApiError> {
    Ok(Json(worker.desired_counts.recent().await?))
}

/// The answers to `/setamount` in both its forms.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes answers that the handlers and `ApiError` make")]
enum SetAmount {
    #[response(status = 200, description = "Set")]
    Set(Change),
    #[response(status = 400, description = "Not a number")]
    Malformed(Shown),
    #[response(status = 401, description = "The admin token is missing or wrong")]
    NoToken(Shown),
    #[response(status = 403, description = "Another site sent the request")]
    OtherSite(Shown),
    #[response(status = 409, description = "Another request changed the number at the same moment")]
    LostRace(Shown),
    #[response(status = 422, description = "The number is out of bounds")]
    OutOfBounds(Shown),
    #[response(status = 503, description = "Busy, or the storage does not answer; try again")]
    Unavailable(Shown),
}

/// `GET /setamount/<n>`
#[utoipa::path(
    get,
    path = "/setamount/{amount}",
    tag = "fleet",
    params(("amount" = u32, Path, minimum = 1, maximum = 100)),
    security(("admin" = [])),
    responses(SetAmount),
)]
pub(crate) async fn set_amount_by_path(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Change>, ApiError> {
    if query.is_some() {
        admin::require_change(&worker, &client, &headers).await?;
        return Err(
            RequestError::malformed("give the number in the path or in the query, not in both").into()
        );
    }
    let given = path.ok().map(|Path(text)| text);
    set(&worker, &client, &headers, given.as_deref()).await
}

/// `GET /setamount?amount=<n>`
#[utoipa::path(
    get,
    path = "/setamount",
    tag = "fleet",
    params(("amount" = u32, Query, minimum = 1, maximum = 100)),
    security(("admin" = [])),
    responses(SetAmount),
)]
pub(crate) async fn set_amount_by_query(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Json<Change>, ApiError> {
    let given = form_fields(query.as_deref().unwrap_or_default(), ["amount"]).and_then(|[amount]| amount);
    set(&worker, &client, &headers, given.as_deref()).await
}

async fn set(
    worker: &Worker,
    client: &Client,
    headers: &HeaderMap,
    given: Option<&str>,
) -> Result<Json<Change>, ApiError> {
    admin::require_change(worker, client, headers).await?;
    let given = given.ok_or_else(|| {
        RequestError::malformed(format!(
            "say how many workers there should be, from 1 to {}: /setamount/3 or /setamount?amount=3",
            DesiredCount::MAX
        ))
    })?;
    let desired = DesiredCount::at_least_one(given).map_err(CountError::Refused)?;
    let change = worker.set_desired_count(desired).await?;
    audit::amount_set(worker, client, change.desired.get(), change.previous.map(DesiredCount::get));
    Ok(Json(change))
}
