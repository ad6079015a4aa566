//! What the client reads when the load balancer itself has to answer.
//!
//! One shape, the workers' own: `{"error": "<code>", "message": "<what to do>"}`.

use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::limits::MAX_REQUEST_BODY;
use crate::reply::Reply;
use crate::retry::{Failure, UploadFault};
use crate::strict::Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(Malformed),
    Upload(UploadFault),
    /// The registry lists nobody, and nobody came while the request was held.
    NoWorkers,
    /// Too many requests are held already.
    Crowded,
    /// All tries failed; this is how the last one did.
    AllFailed(Failure),
}

/// When to come back: two looks at the registry fit in between.
const RETRY_AFTER_SECONDS: &str = "2";

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<UploadFault> for Refusal {
    fn from(fault: UploadFault) -> Self {
        Self::Upload(fault)
    }
}

impl Refusal {
    fn describe(self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Malformed(malformed) => {
                (StatusCode::BAD_REQUEST, "bad_request", format!("{malformed}; send a well-formed request"))
            }
            Self::Upload(fault) | Self::AllFailed(Failure::Upload(fault)) => match fault {
                UploadFault::Broken => (
                    StatusCode::BAD_REQUEST,
                    "bad_body",
                    "the body did not arrive as announced; send it again".to_owned(),
                ),
                UploadFault::TooLarge => (
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    format!("the body may have at most {MAX_REQUEST_BODY} bytes; send less"),
                ),
                UploadFault::TooSlow => (
                    StatusCode::REQUEST_TIMEOUT,
                    "body_too_slow",
                    "the body did not arrive in time; send it again".to_owned(),
                ),
            },
            Self::NoWorkers => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_workers",
                "no worker is in service; try again in a few seconds".to_owned(),
            ),
            Self::Crowded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_waiting",
                "no worker is in service and many requests are waiting; try again in a few seconds"
                    .to_owned(),
            ),
            Self::AllFailed(Failure::NothingSent) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "workers_unreachable",
                "no worker could be reached and the request was not sent; try again in a few seconds"
                    .to_owned(),
            ),
            Self::AllFailed(Failure::Lost) => (
                StatusCode::BAD_GATEWAY,
                "worker_lost",
                "the worker was lost before it answered; the request may or may not have been carried out"
                    .to_owned(),
            ),
            Self::AllFailed(Failure::Silent) => (
                StatusCode::GATEWAY_TIMEOUT,
                "worker_silent",
                "no answer came in time; the request may or may not have been carried out".to_owned(),
            ),
        }
    }

    pub(crate) fn into_response(self) -> Response<Reply> {
        let (status, code, message) = self.describe();
        let body = serde_json::json!({"error": code, "message": message}).to_string();
        let mut response = Response::new(Reply::own(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if status.is_client_error() {
            // Where the next request begins is not certain any more.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_status() {
        for (refusal, status) in [
            (Refusal::Malformed(Malformed::NoHost), 400),
            (Refusal::Upload(UploadFault::TooLarge), 413),
            (Refusal::Upload(UploadFault::TooSlow), 408),
            (Refusal::Upload(UploadFault::Broken), 400),
            (Refusal::NoWorkers, 503),
            (Refusal::Crowded, 503),
            (Refusal::AllFailed(Failure::NothingSent), 503),
            (Refusal::AllFailed(Failure::Lost), 502),
            (Refusal::AllFailed(Failure::Silent), 504),
        ] {
            let response = refusal.into_response();
            assert_eq!(response.status().as_u16(), status, "{refusal:?}");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503, "{refusal:?}");
        }
    }
}
