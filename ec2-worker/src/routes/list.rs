//! `GET /list`: the users, streamed in the order of their keys.
//!
//! A guess to avoid: a failure in the middle does not end the array. It breaks the transfer, so that
//! a client cannot take half of the users for all of them.

use std::iter;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use fleet::keys::USERS_PREFIX;
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::AccountError;
use crate::client::Client;
use crate::error::Shown;
use crate::extract::{RequestError, form_fields, prefers};
use crate::user::{self, User};
use crate::{ApiError, Worker, admin, audit};
use accounts::{Login, login_of, object_key};

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

/// A user in a list.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Row {
    login: String,
    /// The stored record: a PHC string (classic: the password).
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// How the list is written.
///
/// | `Accept` | form |
/// |---|---|
/// | `text/csv` | a line with the names of the columns, then one for each user |
/// | `application/x-ndjson` | a JSON object on each line |
/// | anything else | a JSON array |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Lines,
    Csv(Fields),
}

impl Format {
    fn from_accept(headers: &HeaderMap, fields: Fields) -> Self {
        match prefers(headers, &["application/json", "application/x-ndjson", "text/csv"]) {
            Some("text/csv") => Self::Csv(fields),
            Some("application/x-ndjson") => Self::Lines,
            _ => Self::Json,
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Csv(_) => "text/csv; charset=utf-8; header=present",
        }
    }

    /// Returns the text before the first row, which is also written when there is no row.
    const fn begin(self) -> &'static str {
        match self {
            Self::Json => "[",
            Self::Lines => "",
            Self::Csv(Fields::Login) => "login\r\n",
            Self::Csv(Fields::LoginAndPassword) => "login,password\r\n",
        }
    }

    const fn between(self) -> &'static str {
        match self {
            Self::Json => ",\n",
            Self::Lines | Self::Csv(_) => "",
        }
    }

    const fn end(self) -> &'static str {
        match self {
            Self::Json => "]\n",
            Self::Lines | Self::Csv(_) => "",
        }
    }

    fn row(self, row: &Row) -> String {
        match self {
            Self::Json => json(row),
            Self::Lines => format!("{}\n", json(row)),
            Self::Csv(_) => {
                let columns: Vec<_> =
                    iter::once(&row.login).chain(&row.password).map(|text| cell(text)).collect();
                format!("{}\r\n", columns.join(","))
            }
        }
    }
}

fn json(row: &Row) -> String {
    serde_json::to_string(row).expect("two texts are plain data")
}

/// A cell that a spreadsheet shows and does not calculate.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let apostrophe = if is_formula { "'" } else { "" };
    format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
}

#[utoipa::path(
    get,
    path = "/list",
    tag = "accounts",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 10000), ("after" = Option<String>, Query, description = "The last login of the page before"), ("fields" = Option<String>, Query, description = "`login`: without the records, which needs no read for each user", pattern = "^login$")),
    security(("admin" = [])),
    responses(
        (status = 200, description = "The users in the order of their keys, streamed", content((Vec<Row> = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"))),
        (status = 400, description = "A parameter is wrong", body = Shown),
        (status = 401, description = "The admin token is missing or wrong", body = Shown),
        (status = 403, description = "There is no admin token in this stack", body = Shown),
        (status = 422, description = "`after` is not a login", body = Shown),
        (status = 503, description = "Busy, or the storage does not answer; try again", body = Shown),
    ),
)]
pub(crate) async fn list(
    State(worker): State<Worker>,
    client: Client,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    admin::require(&worker, &client, &headers).await?;
    audit::users_listed(&worker, &client);
    let query = Query::parse(&worker, query.as_deref().unwrap_or_default())?;
    let format = Format::from_accept(&headers, query.fields);
    let mut rows = Box::pin(rows(worker, query).peekable());
    // Nothing is sent yet: an outage is still a proper answer.
    if let Some(Err(_)) = rows.as_mut().peek().await
        && let Some(Err(error)) = rows.next().await
    {
        return Err(error.into());
    }
    Ok(([(CONTENT_TYPE, format.content_type())], Body::from_stream(written(format, rows))).into_response())
}

impl Query {
    fn parse(worker: &Worker, text: &str) -> Result<Self, ApiError> {
        let [limit, after, fields] = form_fields(text, ["limit", "after", "fields"]).ok_or_else(|| {
            RequestError::malformed("give `limit`, `after` and `fields` once each, as UTF-8")
        })?;
        let limit = match limit {
            None => usize::MAX,
            Some(text) => {
                text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
                    RequestError::malformed(format!("`limit` is a whole number from 1 to {MAX_LIMIT}"))
                })?
            }
        };
        // A form sends an empty field when nothing was entered.
        let after = after.filter(|text| !text.is_empty());
        let after =
            after.map(|text| Login::parse(worker.profile, &text)).transpose().map_err(AccountError::Login)?;
        let fields = match fields.as_deref() {
            None => Fields::LoginAndPassword,
            Some("login") => Fields::Login,
            Some(_) => return Err(RequestError::malformed("`fields` can only be `login`").into()),
        };
        Ok(Self { limit, after, fields })
    }
}

fn rows(worker: Worker, query: Query) -> impl Stream<Item = Result<Row, AccountError>> + Send {
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

fn logins(worker: Worker, after: Option<String>) -> impl Stream<Item = Result<Login, AccountError>> + Send {
    let profile = worker.profile;
    stream::try_unfold(Some(after), move |after| {
        let worker = worker.clone();
        async move {
            let Some(after) = after else { return Ok(None) };
            let page = worker.data.list(USERS_PREFIX, after.as_deref()).await?;
            let next = page.has_more.then(|| page.keys.last().cloned()).flatten().map(Some);
            Ok::<_, AccountError>(Some((stream::iter(page.keys.into_iter().map(Ok)), next)))
        }
    })
    .try_flatten()
    .try_filter_map(move |key| async move {
        let login = login_of(profile, &key);
        if login.is_none() {
            tracing::warn!(key, "the list omits an object below users/ that is not a user");
        }
        Ok(login)
    })
}

/// `None` for a user that was deleted since the keys were read, and for a record that is damaged.
async fn row(worker: &Worker, login: Login, fields: Fields) -> Result<Option<Row>, AccountError> {
    let password = match fields {
        Fields::Login => None,
        Fields::LoginAndPassword => {
            let key = object_key(worker.profile, &login);
            let Some(object) = worker.data.get(&key, user::MAX_BYTES).await? else { return Ok(None) };
            match User::read(worker.profile, object) {
                Ok(user) => Some(user.shown_password()),
                Err(error) => {
                    tracing::warn!(key, %error, "the list omits a user whose object cannot be read");
                    return Ok(None);
                }
            }
        }
    };
    Ok(Some(Row { login: login.as_str().to_owned(), password }))
}

fn written(
    format: Format,
    rows: impl Stream<Item = Result<Row, AccountError>> + Send,
) -> impl Stream<Item = Result<Bytes, AccountError>> + Send {
    let rows = rows.enumerate().map(move |(at, row)| {
        let before = if at == 0 { format.begin() } else { format.between() };
        row.map(|row| Bytes::from(format!("{before}{}", format.row(&row)))).inspect_err(|error| {
            tracing::warn!(error = process::telemetry::error_chain(error), "a list was cut off by an error");
        })
    });
    stream::unfold((Box::pin(rows), Progress::Empty), move |(mut rows, progress)| async move {
        match (rows.next().await, progress) {
            (_, Progress::Ended) => None,
            (Some(Ok(bytes)), _) => Some((Ok(bytes), (rows, Progress::Begun))),
            (Some(Err(error)), _) => Some((Err(error), (rows, Progress::Ended))),
            (None, progress) => {
                let begin = if let Progress::Empty = progress { format.begin() } else { "" };
                Some((Ok(Bytes::from(format!("{begin}{}", format.end()))), (rows, Progress::Ended)))
            }
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

    fn row(login: &str, password: Option<&str>) -> Row {
        Row { login: login.to_owned(), password: password.map(str::to_owned) }
    }

    async fn text(format: Format, rows: Vec<Row>) -> String {
        let rows = stream::iter(rows.into_iter().map(Ok));
        let parts: Vec<Bytes> = written(format, rows).try_collect().await.expect("no error");
        String::from_utf8(parts.concat()).expect("UTF-8")
    }

    #[tokio::test]
    async fn rows_are_written_in_the_requested_format() {
        const CSV: Format = Format::Csv(Fields::LoginAndPassword);
        let table = [
            (Format::Json, "[]\n", "[{\"login\":\"a\",\"password\":\"p\"},\n{\"login\":\"b\"}]\n"),
            (Format::Lines, "", "{\"login\":\"a\",\"password\":\"p\"}\n{\"login\":\"b\"}\n"),
            (CSV, "login,password\r\n", "login,password\r\n\"a\",\"p\"\r\n\"b\"\r\n"),
        ];
        for (format, empty, two) in table {
            assert_eq!(text(format, vec![]).await, empty, "{format:?}");
            assert_eq!(text(format, vec![row("a", Some("p")), row("b", None)]).await, two, "{format:?}");
        }
    }

    #[test]
    fn a_cell_is_no_formula_and_ends_where_it_ends() {
        for (text, expected) in [
            ("ana", "\"ana\""),
            ("-ana", "\"'-ana\""),
            ("=1+1", "\"'=1+1\""),
            ("@x", "\"'@x\""),
            ("a\"b", "\"a\"\"b\""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }

    #[tokio::test]
    async fn an_error_ends_the_stream_without_ending_the_array() {
        let rows = stream::iter([Ok(row("a", None)), Err(AccountError::Busy), Ok(row("b", None))]);
        let parts: Vec<_> = written(Format::Json, rows).collect().await;
        assert_eq!(parts.len(), 2);
        assert!(parts[0].as_ref().is_ok_and(|bytes| bytes == "[{\"login\":\"a\"}") && parts[1].is_err());
    }
}
