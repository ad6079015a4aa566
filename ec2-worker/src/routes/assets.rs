//! `GET /assets/<name>?v=<version>`

use axum::extract::{Path, RawQuery};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use crate::ApiError;
use crate::pages::assets;

/// An hour is a few visits' worth; what changes has another address anyway.
const KEPT: &str = "public, max-age=3600";
const NOT_KEPT: &str = "no-store";

pub(super) async fn asset(Path(name): Path<String>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let asset = assets::find(&name).ok_or(ApiError::NotFound)?;
    let is_of_other_release =
        query.as_deref().and_then(|query| query.strip_prefix("v=")).is_some_and(|v| v != asset.version);
    let keeping = if is_of_other_release { NOT_KEPT } else { KEPT };
    Ok(([(CONTENT_TYPE, asset.content_type), (CACHE_CONTROL, keeping)], asset.text).into_response())
}
