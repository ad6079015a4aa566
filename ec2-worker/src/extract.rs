//! What a request asks for, read strictly and without keeping or repeating a password.
//!
//! axum's own `Json`, `Form` and `Path` rejections are not used: they quote the input, in the answer
//! and in trace events.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::ApiError;

/// A login and a password as they came. Has no `Debug`.
pub struct Credentials {
    pub login: String,
    pub password: Zeroizing<String>,
}

/// [`Credentials`] from `/<login>/<password>` at the end of the path.
pub struct FromPath(pub Credentials);

/// [`Credentials`] from a JSON document or a form.
pub struct FromBody(pub Credentials);

impl<S: Send + Sync> FromRequestParts<S> for FromPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if parts.uri.query().is_some() {
            return Err(ApiError::bad_request(
                "this address takes no query; a `?` inside a login or a password must be written `%3F`",
            ));
        }
        let Path((login, password)) =
            Path::<(String, String)>::from_request_parts(parts, state).await.map_err(|_| {
                ApiError::bad_request(
                    "the login or the password is not UTF-8; write other bytes percent-encoded",
                )
            })?;
        Ok(Self(Credentials { login, password: Zeroizing::new(password) }))
    }
}

impl<S: Send + Sync> FromRequest<S> for FromBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let format = BodyFormat::of(request.headers()).ok_or(ApiError::UnsupportedMediaType)?;
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::BodyTooLarge
            } else {
                ApiError::bad_request("the body ended early; send it whole")
            }
        })?;
        let credentials = match format {
            BodyFormat::Json => from_json(&body).ok_or_else(|| {
                ApiError::bad_request(r#"send a JSON object of the form {"login":"…","password":"…"}"#)
            }),
            BodyFormat::Form => from_form(&body).ok_or_else(|| {
                ApiError::bad_request("send the form fields `login` and `password`, once each")
            }),
        };
        credentials.map(Self)
    }
}

/// Whether the client would rather have a page: `Accept` names `text/html`, and no JSON before it.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .find_map(|range| match range {
            "text/html" | "application/xhtml+xml" => Some(true),
            "application/json" => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}

enum BodyFormat {
    Json,
    Form,
}

impl BodyFormat {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Some(Self::Json),
            "application/x-www-form-urlencoded" => Some(Self::Form),
            _ => None,
        }
    }
}

fn from_json(body: &[u8]) -> Option<Credentials> {
    #[derive(Deserialize)]
    struct Document {
        login: String,
        password: String,
    }
    let Document { login, password } = serde_json::from_slice(body).ok()?;
    Some(Credentials { login, password: Zeroizing::new(password) })
}

fn from_form(body: &[u8]) -> Option<Credentials> {
    let body = std::str::from_utf8(body).ok()?;
    let [login, password] = form_fields(body, ["login", "password"])?;
    Some(Credentials { login: login?, password: Zeroizing::new(password?) })
}

/// The named fields of a form or a query; `None` when one is there twice or is not UTF-8. Other
/// fields are ignored.
pub fn form_fields<const N: usize>(text: &str, names: [&str; N]) -> Option<[Option<String>; N]> {
    let mut values = [const { None }; N];
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = form_decode(name)?;
        if let Some(at) = names.iter().position(|wanted| *wanted == name)
            && values[at].replace(form_decode(value)?).is_some()
        {
            return None;
        }
    }
    Some(values)
}

/// Strict about UTF-8: a lenient reader would make many wrong passwords equal.
fn form_decode(text: &str) -> Option<String> {
    let spaced = Zeroizing::new(text.replace('+', " "));
    Some(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn form(text: &str) -> Option<(String, String)> {
        from_form(text.as_bytes()).map(|c| (c.login, c.password.to_string()))
    }

    #[test]
    fn a_form_is_read_as_a_browser_writes_it() {
        let read = |login: &str, password: &str| Some((login.to_owned(), password.to_owned()));
        assert_eq!(form("login=ana&password=a+b%26c%3Dd%2B%C3%A9"), read("ana", "a b&c=d+é"));
        assert_eq!(form("password=p&x=1&login="), read("", "p"));
        for bad in ["", "login=ana", "login=a&login=b&password=p", "login=a&password=%FF"] {
            assert_eq!(form(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_page_is_for_those_who_ask_for_it_first() {
        let table = [
            ("text/html,application/xhtml+xml,*/*;q=0.8", true),
            ("text/html", true),
            ("application/json, text/html", false),
            ("text/html;q=0.9, application/json", true),
            ("*/*", false),
            ("application/json", false),
            ("", false),
        ];
        for (accept, expected) in table {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(prefers_html(&headers), expected, "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn any_text_goes_through_a_form(login in any::<String>(), password in any::<String>()) {
            let encode = |text: &str| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
            };
            let body = format!("login={}&password={}", encode(&login), encode(&password));
            prop_assert_eq!(form(&body), Some((login, password)));
        }
    }
}
