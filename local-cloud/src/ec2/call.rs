//! A call of EC2's query API, and its answer.

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};

use crate::form::Form;
use crate::reply::refusal;
use crate::sigv4;

pub(super) struct Call {
    pub(super) parts: Parts,
    pub(super) form: Form,
}

impl Call {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.form.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let position = self.form.iter().position(|(name, _)| name == key)?;
        Some(self.form.remove(position).1)
    }

    /// Returns the values of `key.1`, `key.2`, ….
    pub(super) fn numbered<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        (1_u32..).map_while(move |number| self.get(&format!("{key}.{number}")))
    }

    /// Returns the values of the filter with this name.
    pub(super) fn filter<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let number = self.numbered_filters().position(|filter| filter == name).map(|index| index + 1);
        let prefix = number.map(|number| format!("Filter.{number}.Value."));
        let is_value = move |key: &str| prefix.as_ref().is_some_and(|prefix| key.starts_with(prefix));
        self.form.iter().filter(move |(key, _)| is_value(key)).map(|(_, value)| value.as_str())
    }

    fn numbered_filters(&self) -> impl Iterator<Item = &str> {
        (1_u32..).map_while(|number| self.get(&format!("Filter.{number}.Name")))
    }

    pub(super) fn region(&self) -> &str {
        region_of(&self.parts)
    }
}

pub(super) fn region_of(parts: &Parts) -> &str {
    parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(sigv4::parse)
        .map_or("us-east-1", |auth| auth.region)
}

/// Returns the head of a request in a region.
pub(super) fn in_region(region: &str) -> anyhow::Result<Parts> {
    let (mut parts, ()) = hyper::Request::post("http://local-cloud/").body(())?.into_parts();
    let scope = format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/ec2/aws4_request, SignedHeaders=host, Signature=0"
    );
    parts.headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&scope)?);
    Ok(parts)
}

pub(super) struct Reply {
    pub(super) ok: bool,
    pub(super) head: axum::http::response::Parts,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn into_response(mut self) -> Response<Body> {
        self.head.headers.remove(header::TRANSFER_ENCODING);
        self.head.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(self.head, Body::from(self.body))
    }
}

pub(super) fn bad_request(code: &str, message: &str) -> Response<Body> {
    refusal("ec2", StatusCode::BAD_REQUEST, code, message)
}

pub(super) fn owned(form: &[(&str, &str)]) -> Form {
    form.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
