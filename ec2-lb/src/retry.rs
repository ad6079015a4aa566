//! Whether a failed try may be repeated on another worker. Pure.
//!
//! | reached the worker? | GET HEAD OPTIONS TRACE PUT DELETE | others |
//! |---|---|---|
//! | nothing was sent | repeat | repeat |
//! | lost before the first byte of the response | repeat if the body is at hand | never |
//! | no first byte in time | repeat if the body is at hand | never |
//! | the client's own fault | never | never |
//!
//! A proxy must not repeat a request that is not idempotent (RFC 9110, 9.2.2): the worker may have
//! done what it was asked and died before saying so. After the first byte of the response there is
//! no failed try: the client already has a part of the answer, and only a broken connection tells
//! it that the rest is missing.

use hyper::Method;

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection, or the request came back unsent.
    NothingSent,
    /// The connection broke, or what came back is not HTTP.
    Lost,
    /// No first byte in time.
    Silent,
    /// The client did not send its body as announced, or not in time, or too much of it.
    Upload(UploadFault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadFault {
    Broken,
    TooLarge,
    TooSlow,
}

/// Methods that mean the same when they arrive twice.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

pub(crate) fn may_repeat(failure: Failure, method: &Method, body_is_at_hand: bool) -> bool {
    match failure {
        Failure::NothingSent => body_is_at_hand,
        Failure::Lost | Failure::Silent => is_idempotent(method) && body_is_at_hand,
        Failure::Upload(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_table() {
        let upload = Failure::Upload(UploadFault::Broken);
        for (failure, method, body_is_at_hand, expected) in [
            (Failure::NothingSent, Method::GET, true, true),
            (Failure::NothingSent, Method::POST, true, true),
            (Failure::NothingSent, Method::POST, false, false),
            (Failure::Lost, Method::GET, true, true),
            (Failure::Lost, Method::DELETE, true, true),
            (Failure::Lost, Method::PUT, true, true),
            (Failure::Lost, Method::PUT, false, false),
            (Failure::Lost, Method::POST, true, false),
            (Failure::Lost, Method::PATCH, true, false),
            (Failure::Silent, Method::HEAD, true, true),
            (Failure::Silent, Method::OPTIONS, true, true),
            (Failure::Silent, Method::POST, true, false),
            (upload, Method::GET, true, false),
        ] {
            assert_eq!(
                may_repeat(failure, &method, body_is_at_hand),
                expected,
                "{failure:?} {method} body at hand: {body_is_at_hand}"
            );
        }
    }

    #[test]
    fn an_unknown_method_is_not_idempotent() {
        assert!(!is_idempotent(&Method::from_bytes(b"PURGE").expect("a token")));
        assert!(!is_idempotent(&Method::PATCH));
    }
}
