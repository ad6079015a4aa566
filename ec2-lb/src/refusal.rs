//! The answers that the load balancer writes itself.
//!
//! One shape, the workers' own: `{"error": "<code>", "message": "<what to do>"}`.

use http1::request::{Malformed, Method, Version, line, write_number};

use crate::limits::MAX_REQUEST_BODY;
use crate::retry::{Failure, UploadFault};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(Malformed),
    /// The head did not come in time.
    SlowHead,
    Upload(UploadFault),
    /// The registry listed no worker for as long as the request was held.
    NoWorkers,
    /// Too many requests are held already.
    Crowded,
    /// Too many requests are being served, or too many connections open.
    Overloaded,
    /// The client's address has used its share of the limit.
    OverShare,
    /// All tries failed; this is how the last one did.
    AllFailed(Failure),
}

/// The wait named in `Retry-After`; the registry is read again within it.
const RETRY_AFTER_SECONDS: &[u8] = b"2";

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
    pub(crate) fn status(self) -> u16 {
        self.describe().0
    }

    fn describe(self) -> (u16, &'static str, &'static str, String) {
        const BAD: &str = "Bad Request";
        const UNAVAILABLE: &str = "Service Unavailable";
        let text = str::to_owned;
        match self {
            Self::Malformed(malformed) => {
                let (status, reason, code) = match malformed {
                    Malformed::TooLarge => (431, "Request Header Fields Too Large", "head_too_large"),
                    Malformed::Version => (505, "HTTP Version Not Supported", "bad_version"),
                    Malformed::UnknownCoding | Malformed::Connect => {
                        (501, "Not Implemented", "not_implemented")
                    }
                    Malformed::Expectation => (417, "Expectation Failed", "bad_expectation"),
                    Malformed::Head
                    | Malformed::BareLineFeed
                    | Malformed::TwoFramings
                    | Malformed::Length
                    | Malformed::Coding
                    | Malformed::Target
                    | Malformed::NoHost
                    | Malformed::Host
                    | Malformed::TraceBody => (400, BAD, "bad_request"),
                };
                (status, reason, code, format!("{malformed}; send a well-formed request"))
            }
            Self::SlowHead => (
                408,
                "Request Timeout",
                "head_too_slow",
                text("the request did not arrive in time; send it again"),
            ),
            Self::Upload(fault) | Self::AllFailed(Failure::Upload(fault)) => match fault {
                UploadFault::Broken | UploadFault::Gone => {
                    (400, BAD, "bad_body", text("the body did not arrive as announced; send it again"))
                }
                UploadFault::TooLarge => (
                    413,
                    "Content Too Large",
                    "body_too_large",
                    format!("the body is larger than {MAX_REQUEST_BODY} bytes; send a smaller one"),
                ),
                UploadFault::TooSlow => (
                    408,
                    "Request Timeout",
                    "body_too_slow",
                    text("the body did not arrive in time; send it again"),
                ),
                UploadFault::Dropped => (
                    503,
                    UNAVAILABLE,
                    "overloaded",
                    text(
                        "too many requests are arriving and this one was the slowest; send it again in a few seconds",
                    ),
                ),
            },
            Self::NoWorkers => {
                (503, UNAVAILABLE, "no_workers", text("no worker is in service; try again in a few seconds"))
            }
            Self::Crowded => (
                503,
                UNAVAILABLE,
                "too_many_waiting",
                text("no worker is in service and many requests are waiting; try again in a few seconds"),
            ),
            Self::Overloaded => (
                503,
                UNAVAILABLE,
                "overloaded",
                text("the service is at its limit and the request was not sent; try again in a few seconds"),
            ),
            Self::OverShare => (
                429,
                "Too Many Requests",
                "too_many_from_address",
                text(
                    "this address has as many requests in progress as it may have and this one was not sent; \
                     try again in a few seconds",
                ),
            ),
            Self::AllFailed(Failure::NothingSent) => (
                503,
                UNAVAILABLE,
                "workers_unreachable",
                text("no worker could be reached and the request was not sent; try again in a few seconds"),
            ),
            Self::AllFailed(Failure::Lost) => (
                502,
                "Bad Gateway",
                "worker_lost",
                text(
                    "the worker failed before it answered, so the request may or may not have been carried out; \
                     check before you send it again",
                ),
            ),
            Self::AllFailed(Failure::Invalid) => (
                502,
                "Bad Gateway",
                "worker_invalid",
                text(
                    "the worker's answer is not valid HTTP, so the request may or may not have been carried out; \
                     check before you send it again",
                ),
            ),
            Self::AllFailed(Failure::Silent | Failure::Late) => (
                504,
                "Gateway Timeout",
                "worker_silent",
                text(
                    "no worker answered in time, so the request may or may not have been carried out; \
                     check before you send it again",
                ),
            ),
        }
    }

    /// Writes the whole response. `method` and `version` are those of the request as far as they are
    /// known.
    pub(crate) fn write(
        self,
        method: Method,
        version: Version,
        id: &[u8],
        is_persistent: bool,
        out: &mut Vec<u8>,
    ) {
        let (status, reason, code, message) = self.describe();
        let body = serde_json::json!({"error": code, "message": message}).to_string();
        out.extend_from_slice(match version {
            Version::Http10 => b"HTTP/1.0 ",
            Version::Http11 => b"HTTP/1.1 ",
        });
        write_number(u64::from(status), out);
        out.push(b' ');
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(
            b"\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n",
        );
        line("X-Request-Id", id, out);
        if matches!(status, 429 | 503) {
            line("Retry-After", RETRY_AFTER_SECONDS, out);
        }
        match (is_persistent, version) {
            (false, _) => line("Connection", b"close", out),
            (true, Version::Http10) => line("Connection", b"keep-alive", out),
            (true, Version::Http11) => {}
        }
        out.extend_from_slice(b"Content-Length: ");
        write_number(body.len() as u64, out);
        out.extend_from_slice(b"\r\n\r\n");
        if method != Method::Head {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_status() {
        for (refusal, status) in [
            (Refusal::Malformed(Malformed::NoHost), 400),
            (Refusal::Malformed(Malformed::TooLarge), 431),
            (Refusal::Malformed(Malformed::Connect), 501),
            (Refusal::Malformed(Malformed::Version), 505),
            (Refusal::Malformed(Malformed::Expectation), 417),
            (Refusal::SlowHead, 408),
            (Refusal::Upload(UploadFault::TooLarge), 413),
            (Refusal::Upload(UploadFault::TooSlow), 408),
            (Refusal::Upload(UploadFault::Broken), 400),
            (Refusal::NoWorkers, 503),
            (Refusal::Crowded, 503),
            (Refusal::Overloaded, 503),
            (Refusal::OverShare, 429),
            (Refusal::Upload(UploadFault::Dropped), 503),
            (Refusal::AllFailed(Failure::Late), 504),
            (Refusal::AllFailed(Failure::NothingSent), 503),
            (Refusal::AllFailed(Failure::Lost), 502),
            (Refusal::AllFailed(Failure::Invalid), 502),
            (Refusal::AllFailed(Failure::Silent), 504),
        ] {
            assert_eq!(refusal.status(), status, "{refusal:?}");
            let mut out = Vec::new();
            refusal.write(Method::Get, Version::Http11, b"id", false, &mut out);
            let text = String::from_utf8(out).expect("text");
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            assert!(text.contains("X-Content-Type-Options: nosniff\r\n"), "{text}");
            assert_eq!(text.contains("Retry-After: 2\r\n"), matches!(status, 429 | 503), "{text}");
            assert!(
                text.contains("X-Request-Id: id\r\n") && text.contains("Connection: close\r\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let mut out = Vec::new();
        Refusal::NoWorkers.write(Method::Head, Version::Http10, b"id", true, &mut out);
        assert!(out.ends_with(b"\r\n\r\n"));
    }
}
