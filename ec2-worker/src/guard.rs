//! The layers around the routes, which hold for every request.
//!
//! `envelope` is the outermost layer: time limit, panic, request id, headers, errors as pages.
//! `own_site_only` protects every route that changes something. Some of these are GET requests, which
//! any other site could make a visitor's browser send.

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fleet::Profile;
use fleet::layers::WORKER_REQUEST;
use futures::FutureExt as _;

use crate::client::{Client, Peer, Transport};
use crate::error::Shown;
use crate::extract::prefers_html;
use crate::{ApiError, Worker, hosts, pages};
use accounts::random_id;

/// The path that the reconciler requests directly; every other path needs a load balancer.
pub(crate) const HEALTH_CHECK: &str = "/healthcheck";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROFILE: HeaderName = HeaderName::from_static("x-profile");

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
             img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Sent where the address may contain a password, and for addresses without a route.
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");
/// Elsewhere. Without a referrer browsers send `Origin: null` with our own forms.
const OWN_REFERRER: HeaderValue = HeaderValue::from_static("same-origin");

/// Answers are personal, so no cache may keep them. Only assets say otherwise.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");

/// Sent over TLS only, because browsers ignore it over plain HTTP. It has no `includeSubDomains`, because
/// the domain's other hosts may not serve TLS.
const TLS_FROM_NOW_ON: HeaderValue = HeaderValue::from_static("max-age=31536000");

pub async fn envelope(State(worker): State<Worker>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let wants_page = prefers_html(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let peer = request.extensions().get::<Peer>().copied();
    let is_health_check = request.uri().path() == HEALTH_CHECK;
    let area = pages::Area::of_path(request.uri().path());
    let client = worker.proxies.client(peer, request.headers());
    let transport = client.as_ref().map_or(Transport::Plain, |client| client.transport);
    if !is_health_check {
        worker.stats.count_request();
    }
    let mut response = match client {
        None if !is_health_check => ApiError::DirectTraffic.into_response(),
        Some(_) if !is_health_check && !hosts::accepts(&worker.hosts, request.headers()) => {
            ApiError::WrongHost.into_response()
        }
        client => {
            let client = Client { request: Some(id.clone()), ..client.unwrap_or_default() };
            request.extensions_mut().insert(client);
            bounded(next.run(request)).await
        }
    };
    if wants_page && let Some(shown) = response.extensions_mut().remove::<Shown>() {
        response = as_page(&shown, response, area);
    }
    log(&id, &method, route.as_ref(), &response);
    let is_secret = route.is_none_or(|route| route.as_str().contains("{password}"));
    let referrer = if is_secret { NO_REFERRER } else { OWN_REFERRER };
    response.headers_mut().insert(REFERRER_POLICY, referrer);
    add_headers(response.headers_mut(), id, &worker, transport);
    response
}

/// Refuses what another site, or the browser by itself, makes a visitor send. Browsers say so only
/// on HTTPS and on localhost; over plain HTTP there is `Origin`, with forms, and the cookie's
/// `SameSite=Strict`.
pub async fn own_site_only(request: Request, next: Next) -> Response {
    if is_foreign(request.headers()) { ApiError::CrossSite.into_response() } else { next.run(request).await }
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let says = |name: &str, values: &[&str]| {
        headers.get_all(name).into_iter().any(|found| {
            found.to_str().is_ok_and(|found| {
                found
                    .split([',', ';'])
                    .any(|part| values.iter().any(|value| part.trim().eq_ignore_ascii_case(value)))
            })
        })
    };
    says("sec-fetch-site", &["cross-site", "same-site"])
        || says("sec-purpose", &["prefetch"])
        || (!headers.contains_key("sec-fetch-site") && has_other_origin(headers))
}

/// Programs send no origin.
fn has_other_origin(headers: &HeaderMap) -> bool {
    let own = headers.get(HOST);
    headers.get_all(ORIGIN).into_iter().any(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        !origin.is_some_and(|(_, host)| {
            own.is_some_and(|own| own.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
        })
    })
}

async fn bounded(answer: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(WORKER_REQUEST, AssertUnwindSafe(answer).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => ApiError::Panicked.into_response(),
        Err(_elapsed) => ApiError::TimedOut.into_response(),
    }
}

/// The client's id when it is harmless in a log line, a new one otherwise.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_harmless = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-')
    };
    headers
        .get(REQUEST_ID)
        .filter(is_harmless)
        .cloned()
        .unwrap_or_else(|| HeaderValue::try_from(random_id()).expect("hexadecimal digits are a header value"))
}

fn as_page(shown: &Shown, json: Response, area: pages::Area) -> Response {
    let (mut parts, _) = json.into_parts();
    let page = pages::error(parts.status, &shown.message, area).into_response();
    parts.headers.remove(CONTENT_LENGTH);
    for (name, value) in page.headers() {
        parts.headers.insert(name, value.clone());
    }
    Response::from_parts(parts, page.into_body())
}

fn add_headers(headers: &mut HeaderMap, id: HeaderValue, worker: &Worker, transport: Transport) {
    headers.insert(REQUEST_ID, id);
    headers.entry(CACHE_CONTROL).or_insert(NOT_KEPT);
    if transport == Transport::Tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, TLS_FROM_NOW_ON);
    }
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    if worker.profile == Profile::Classic {
        headers.insert(PROFILE, HeaderValue::from_static("classic"));
    }
    if worker.is_draining() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(HeaderName::from_static(fleet::DRAINING_HEADER), HeaderValue::from_static("1"));
    }
}

/// The route's template, never the path: two routes carry a password in it.
fn log(id: &HeaderValue, method: &Method, route: Option<&MatchedPath>, response: &Response) {
    tracing::debug!(
        request = id.to_str().unwrap_or_default(),
        method = method.as_str(),
        route = route.map_or("none", MatchedPath::as_str),
        status = response.status().as_u16(),
        "answered a request"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).expect("a header value");
        HeaderMap::from_iter([(HeaderName::from_static(name), value)])
    }

    #[test]
    fn a_harmless_request_id_is_kept_and_no_other() {
        let long = "a".repeat(65);
        assert_eq!(request_id(&headers("x-request-id", "ab-C_9")), "ab-C_9");
        for bad in ["", "a b", "a;b", "é", long.as_str()] {
            let id = request_id(&headers("x-request-id", bad));
            assert_eq!(id.len(), 32, "{bad}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn other_sites_and_prefetches_are_foreign() {
        let table = [
            ("sec-fetch-site", "cross-site", true),
            ("sec-fetch-site", "same-site", true),
            ("sec-fetch-site", "same-origin", false),
            ("sec-fetch-site", "none", false),
            ("sec-purpose", "prefetch", true),
            ("sec-purpose", "prefetch;prerender", true),
        ];
        for (name, value, expected) in table {
            assert_eq!(is_foreign(&headers(name, value)), expected, "{name}: {value}");
        }
        assert!(!is_foreign(&HeaderMap::new()), "programs send no such header");
        let with_origin = |origin: &str, more: &[(&'static str, &str)]| {
            let mut all = headers("origin", origin);
            all.extend(headers("host", "10.0.0.1:5000"));
            more.iter().for_each(|(name, value)| all.extend(headers(name, value)));
            is_foreign(&all)
        };
        for (origin, expected) in [
            ("http://10.0.0.1:5000", false),
            ("http://10.0.0.1:8000", true),
            ("http://10.0.0.1", true),
            ("https://evil.example", true),
            ("null", true),
        ] {
            assert_eq!(with_origin(origin, &[]), expected, "{origin}");
        }
        assert!(!with_origin("null", &[("sec-fetch-site", "same-origin")]), "that says more");
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let response = bounded(async { panic!("on purpose") }).await;
        assert_eq!(response.status(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_stopped() {
        let asked = tokio::time::Instant::now();
        let response = bounded(std::future::pending()).await;
        assert_eq!((response.status().as_u16(), asked.elapsed()), (503, WORKER_REQUEST));
        let wait = response.headers()["retry-after"].to_str().map(str::parse::<u32>);
        assert!(matches!(wait, Ok(Ok(1..=3))), "{wait:?}");
    }
}
