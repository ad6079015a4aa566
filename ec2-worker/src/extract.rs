//! The input of a request, read strictly and without keeping or repeating a password.
//!
//! axum's own `Json`, `Form` and `Path` rejections are not used: they quote the input, in the answer
//! and in trace events.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use zeroize::Zeroizing;

/// Fits a login and a password of the greatest length, percent-encoded, with room to spare.
pub const MAX_BODY_BYTES: usize = 16 * 1024;

/// Why a request was not understood. No message repeats the input.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    #[error("the request body is too large; send at most {MAX_BODY_BYTES} bytes")]
    BodyTooLarge,
    #[error(
        "the content type is not supported; send `application/json` or `application/x-www-form-urlencoded`"
    )]
    UnsupportedMediaType,
}

impl RequestError {
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(message.into())
    }

    /// Translates axum's rejection of a body, whose own text quotes the input.
    pub fn of_body(rejection: &BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Self::BodyTooLarge
        } else {
            Self::malformed("the request body ended early; send it whole")
        }
    }
}

/// A login and a password as they came.
pub struct Credentials {
    pub login: String,
    password: SecretString,
}

impl Credentials {
    pub fn new(login: impl Into<String>, password: impl Into<SecretString>) -> Self {
        Self { login: login.into(), password: password.into() }
    }

    pub fn password(&self) -> &str {
        self.password.expose_secret()
    }
}

/// The fields `current` and `new`.
pub struct PasswordChange {
    pub current: SecretString,
    pub new: SecretString,
}

/// [`Credentials`] from `/<login>/<password>` at the end of the path.
pub struct FromPath(pub Credentials);

/// [`Credentials`] from a JSON document or a form.
pub struct FromBody(pub Credentials);

impl<S: Send + Sync> FromRequestParts<S> for FromPath {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RequestError> {
        if parts.uri.query().is_some() {
            return Err(RequestError::malformed(
                "this address takes no query; a `?` inside a login or a password must be written `%3F`",
            ));
        }
        let Path((login, password)) =
            Path::<(String, String)>::from_request_parts(parts, state).await.map_err(|_| {
                RequestError::malformed(
                    "the login or the password is not UTF-8; write other bytes percent-encoded",
                )
            })?;
        Ok(Self(Credentials { login, password: password.into() }))
    }
}

impl<S: Send + Sync> FromRequest<S> for FromBody {
    type Rejection = RequestError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RequestError> {
        let [login, password] = fields(request, state, ["login", "password"]).await?;
        let (Some(login), Some(password)) = (login, password) else {
            return Err(RequestError::malformed(
                "send the fields `login` and `password`, once each, as text in a JSON object or a form",
            ));
        };
        Ok(Self(Credentials { login: login.expose_secret().to_owned(), password }))
    }
}

impl<S: Send + Sync> FromRequest<S> for PasswordChange {
    type Rejection = RequestError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RequestError> {
        let [current, new] = fields(request, state, ["current", "new"]).await?;
        let (Some(current), Some(new)) = (current, new) else {
            return Err(RequestError::malformed(
                "send the fields `current` and `new`, once each, as text in a JSON object or a form",
            ));
        };
        Ok(Self { current, new })
    }
}

/// The field `password`, if there is a body at all.
pub struct Proof(pub Option<SecretString>);

impl<S: Send + Sync> FromRequest<S> for Proof {
    type Rejection = RequestError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RequestError> {
        if request.body().is_end_stream() {
            return Ok(Self(None));
        }
        let [password] = fields(request, state, ["password"]).await?;
        let password = password
            .ok_or_else(|| RequestError::malformed("send the field `password`, as text, or no body"))?;
        Ok(Self(Some(password)))
    }
}

/// Returns the named fields of a JSON object or a form and ignores all others. Each is a secret until the
/// caller exposes it.
async fn fields<S: Send + Sync, const N: usize>(
    request: Request,
    state: &S,
    names: [&str; N],
) -> Result<[Option<SecretString>; N], RequestError> {
    let format = BodyFormat::from_headers(request.headers()).ok_or(RequestError::UnsupportedMediaType)?;
    let body =
        Bytes::from_request(request, state).await.map_err(|rejection| RequestError::of_body(&rejection))?;
    let read = match format {
        BodyFormat::Json => from_json(&body, names),
        BodyFormat::Form => from_form(&body, names),
    };
    read.ok_or_else(|| {
        RequestError::malformed(
            "the body does not match its content type, or names a field twice; correct it",
        )
    })
}

/// Whether the client would rather have a page: `Accept` names `text/html`, and no JSON before it.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let prefers = prefers(headers, &["text/html", "application/xhtml+xml", "application/json"]);
    prefers.is_some_and(|media_type| media_type != "application/json")
}

/// Which of these media types `Accept` names first.
pub fn prefers<'a>(headers: &HeaderMap, media_types: &[&'a str]) -> Option<&'a str> {
    headers
        .get_all(ACCEPT)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .find_map(|range| {
            media_types.iter().copied().find(|media_type| range.eq_ignore_ascii_case(media_type))
        })
}

enum BodyFormat {
    Json,
    Form,
}

impl BodyFormat {
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Some(Self::Json),
            "application/x-www-form-urlencoded" => Some(Self::Form),
            _ => None,
        }
    }
}

/// A field that is no text counts as missing.
fn from_json<const N: usize>(body: &[u8], names: [&str; N]) -> Option<[Option<SecretString>; N]> {
    let mut document: Fields = serde_json::from_slice(body).ok()?;
    Some(names.map(|name| document.0.remove(name).flatten()))
}

/// The text fields of a JSON object. A duplicate name is refused, because other readers may take another value.
struct Fields(HashMap<String, Option<SecretString>>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = HashMap::new();
                while let Some((name, value)) = map.next_entry::<String, Text>()? {
                    if fields.insert(name, value.0).is_some() {
                        return Err(serde::de::Error::custom("a name is there twice"));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A text, or anything else, which is not kept.
#[derive(Deserialize)]
#[serde(from = "TextOrNot")]
struct Text(Option<SecretString>);

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNot {
    Text(String),
    Other(serde::de::IgnoredAny),
}

impl From<TextOrNot> for Text {
    fn from(value: TextOrNot) -> Self {
        match value {
            TextOrNot::Text(text) => Self(Some(text.into())),
            TextOrNot::Other(_) => Self(None),
        }
    }
}

fn from_form<const N: usize>(body: &[u8], names: [&str; N]) -> Option<[Option<SecretString>; N]> {
    let body = std::str::from_utf8(body).ok()?;
    Some(form_fields(body, names)?.map(|value| value.map(SecretString::from)))
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
        let [login, password] = from_form(text.as_bytes(), ["login", "password"])?;
        let text = |secret: SecretString| secret.expose_secret().to_owned();
        Some((text(login?), text(password?)))
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
    fn json_is_read_strictly() {
        let read = |text: &str| {
            let [login, password] = from_json(text.as_bytes(), ["login", "password"])?;
            let shown = |secret: Option<SecretString>| secret.map(|secret| secret.expose_secret().to_owned());
            Some((shown(login), shown(password)))
        };
        let both = Some((Some("ana".to_owned()), Some("p".to_owned())));
        assert_eq!(read(r#"{"login":"ana","password":"p"}"#), both);
        assert_eq!(read(r#"{"x":{"login":"b"},"password":"p","y":[1],"login":"ana"}"#), both);
        assert_eq!(read(r#"{"login":"ana","password":1}"#), Some((Some("ana".to_owned()), None)));
        for bad in ["", "[]", r#"{"login":"a","login":"b","password":"p"}"#, r#"{"login":"a"} x"#, "\"ana\""]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_client_gets_html_when_it_names_html_first() {
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
