//! The application: the routes, the OpenAPI document, and the layers around every request.
//!
//! The document is mounted here because it is made from the routes.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::routing::get;

use crate::extract::MAX_BODY_BYTES;
use crate::{ApiError, Worker, guard, openapi, routes};

pub fn app(worker: Worker) -> Router {
    let (router, paths) = routes::router().split_for_parts();
    let document = openapi::document(paths);
    router
        .route("/openapi.json", get(async move || ([(CONTENT_TYPE, "application/json")], document)))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed { allow: None })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(worker.clone(), guard::envelope))
        .with_state(worker)
}
