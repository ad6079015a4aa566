//! `GET /list`: the users, streamed in the order of their keys.
//!
//! A guess to avoid: a failure in the middle does not end the array. It breaks the transfer, so that
//! a client cannot take half of the users for all of them.

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use fleet::keys::USERS_PREFIX;
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::extract::form_fields;
use crate::user::{self, User};
use crate::{ApiError, Worker, admin};
use users::{Login, login_of, object_key};

/// Reads of user objects at the same time, for one list. At 20 ms each, 16 give 800 users a second;
/// a few lists at once still leave S3's connection pool to the users.
const READS_AT_ONCE: usize = 16;

const MAX_LIMIT: usize = 10_000;

struct Query {
    limit: usize,
    after: Option<Login>,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    /// Costs one request to S3 for each thousand users.
    Login,
    /// Costs one more for each user.
    LoginAndPassword,
}

#[derive(Serialize)]
struct Row<'a> {
    login: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

pub(super) async fn list(
    State(worker): State<Worker>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    admin::require(worker.profile, worker.secrets().admin.as_ref(), &headers)?;
    let query = Query::parse(&worker, query.as_deref().unwrap_or_default())?;
    let mut rows = Box::pin(rows(worker, query).peekable());
    // Nothing is sent yet: an outage is still a proper answer.
    if let Some(Err(_)) = rows.as_mut().peek().await
        && let Some(Err(error)) = rows.next().await
    {
        return Err(error);
    }
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(as_array(rows))).into_response())
}

impl Query {
    fn parse(worker: &Worker, text: &str) -> Result<Self, ApiError> {
        let [limit, after, fields] = form_fields(text, ["limit", "after", "fields"])
            .ok_or_else(|| ApiError::bad_request("give `limit`, `after` and `fields` once each, as UTF-8"))?;
        let limit = match limit {
            None => usize::MAX,
            Some(text) => {
                text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
                    ApiError::bad_request(format!("`limit` is a whole number from 1 to {MAX_LIMIT}"))
                })?
            }
        };
        let after = after.map(|text| Login::parse(worker.profile, &text)).transpose().map_err(|_| {
            ApiError::bad_request("`after` is not a login; give the last one of the page before")
        })?;
        let fields = match fields.as_deref() {
            None => Fields::LoginAndPassword,
            Some("login") => Fields::Login,
            Some(_) => return Err(ApiError::bad_request("`fields` can only be `login`")),
        };
        Ok(Self { limit, after, fields })
    }
}

/// One JSON text for each user.
fn rows(worker: Worker, query: Query) -> impl Stream<Item = Result<String, ApiError>> + Send {
    let after = query.after.map(|login| object_key(worker.profile, &login));
    let reader = worker.clone();
    logins(worker, after)
        .map(move |login| {
            let worker = reader.clone();
            async move { row(&worker, login?, query.fields).await }
        })
        .buffered(READS_AT_ONCE)
        .try_filter_map(async |row| Ok(row))
        .take(query.limit)
}

fn logins(worker: Worker, after: Option<String>) -> impl Stream<Item = Result<Login, ApiError>> + Send {
    let profile = worker.profile;
    stream::try_unfold(Some(after), move |after| {
        let worker = worker.clone();
        async move {
            let Some(after) = after else { return Ok(None) };
            let page = worker.data.list(USERS_PREFIX, after.as_deref()).await?;
            let next = page.has_more.then(|| page.keys.last().cloned()).flatten().map(Some);
            Ok::<_, ApiError>(Some((stream::iter(page.keys.into_iter().map(Ok)), next)))
        }
    })
    .try_flatten()
    .try_filter_map(move |key| async move {
        let login = login_of(profile, &key);
        if login.is_none() {
            tracing::warn!(key, "an object below users/ is not a user; it is left out of the list");
        }
        Ok(login)
    })
}

/// `None` for a user that was deleted since the keys were read, and for a record that is damaged.
async fn row(worker: &Worker, login: Login, fields: Fields) -> Result<Option<String>, ApiError> {
    let password = match fields {
        Fields::Login => None,
        Fields::LoginAndPassword => {
            let key = object_key(worker.profile, &login);
            let Some(object) = worker.data.get(&key, user::MAX_BYTES).await? else { return Ok(None) };
            match User::read(worker.profile, object) {
                Ok(user) => Some(user.shown_password()),
                Err(error) => {
                    tracing::warn!(key, %error, "a user is left out of the list");
                    return Ok(None);
                }
            }
        }
    };
    let row = Row { login: login.as_str(), password };
    Ok(Some(serde_json::to_string(&row).expect("two texts are plain data")))
}

fn as_array(
    rows: impl Stream<Item = Result<String, ApiError>> + Send,
) -> impl Stream<Item = Result<Bytes, ApiError>> + Send {
    let separated = rows.enumerate().map(|(at, row)| {
        row.map(|row| Bytes::from(format!("{}{row}", if at == 0 { "[" } else { ",\n" }))).inspect_err(
            |error| tracing::warn!(error = fleet::telemetry::error_chain(error), "a list is broken off"),
        )
    });
    // Ends the array, and begins it when there was no user.
    let end = |empty: bool| Bytes::from_static(if empty { b"[]\n" } else { b"]\n" });
    stream::unfold((Box::pin(separated), Progress::Empty), move |(mut rows, progress)| async move {
        match (rows.next().await, progress) {
            (_, Progress::Ended) => None,
            (Some(Ok(bytes)), _) => Some((Ok(bytes), (rows, Progress::Begun))),
            (Some(Err(error)), _) => Some((Err(error), (rows, Progress::Ended))),
            (None, Progress::Empty) => Some((Ok(end(true)), (rows, Progress::Ended))),
            (None, Progress::Begun) => Some((Ok(end(false)), (rows, Progress::Ended))),
        }
    })
}

enum Progress {
    Empty,
    Begun,
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(rows: Vec<Result<&str, ApiError>>) -> Result<String, ApiError> {
        let rows = stream::iter(rows.into_iter().map(|row| row.map(str::to_owned)).collect::<Vec<_>>());
        let parts: Vec<Bytes> = as_array(rows).try_collect().await?;
        Ok(String::from_utf8(parts.concat()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn rows_become_an_array() {
        assert_eq!(text(vec![]).await.expect("no error"), "[]\n");
        assert_eq!(text(vec![Ok("1")]).await.expect("no error"), "[1]\n");
        assert_eq!(text(vec![Ok("1"), Ok("2")]).await.expect("no error"), "[1,\n2]\n");
    }

    #[tokio::test]
    async fn an_error_ends_the_stream_without_ending_the_array() {
        let rows = stream::iter([Ok("1".to_owned()), Err(ApiError::Busy), Ok("2".to_owned())]);
        let parts: Vec<_> = as_array(rows).collect().await;
        assert_eq!(parts.len(), 2);
        assert!(parts[0].as_ref().is_ok_and(|bytes| bytes == "[1") && parts[1].is_err());
    }
}
