//! Whether a failed try may be repeated on another worker. Pure.
//!
//! | reached the worker? | GET HEAD OPTIONS TRACE PUT DELETE | others |
//! |---|---|---|
//! | nothing was sent | repeat | repeat |
//! | lost before the first byte of the response | repeat if the body is at hand | only if the operator says so |
//! | no first byte in time | repeat if the body is at hand | only if the operator says so |
//! | its answer is not HTTP | repeat if the body is at hand | never |
//! | the client's own fault | never | never |
//!
//! A proxy must not repeat a request that is not idempotent (RFC 9110, 9.2.2): the worker may have
//! done what it was asked and died before saying so. After the first byte of the response there is
//! no failed try: the client already has a part of the answer, and only a broken connection tells
//! it that the rest is missing.

use crate::http::request::Method;

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection, or not a byte of the request was taken.
    NothingSent,
    /// The connection broke.
    Lost,
    /// No first byte in time.
    Silent,
    /// What came back is not HTTP.
    Invalid,
    /// The client did not send its body as announced, or not in time, or too much of it.
    Upload(UploadFault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadFault {
    Broken,
    TooLarge,
    TooSlow,
    /// The client has hung up.
    Gone,
}

/// Whether requests that are not idempotent may arrive twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonIdempotent {
    #[default]
    Never,
    /// Workers are stateless and signup is conditional, so an operator may prefer a request that is
    /// carried out twice to one that fails.
    Repeat,
}

pub(crate) fn may_repeat(
    failure: Failure,
    method: Method,
    body_is_at_hand: bool,
    non_idempotent: NonIdempotent,
) -> bool {
    let is_repeatable = method.is_idempotent() || non_idempotent == NonIdempotent::Repeat;
    body_is_at_hand
        && match failure {
            Failure::NothingSent => true,
            Failure::Lost | Failure::Silent => is_repeatable,
            Failure::Invalid => method.is_idempotent(),
            Failure::Upload(_) => false,
        }
}

/// Bounds what retries add to an outage: each request earns a fifth of a retry, and what is saved up
/// covers the requests that one dying worker takes with it.
#[derive(Debug)]
pub(crate) struct Budget {
    fifths: u32,
}

impl Budget {
    /// A retry for each of four thousand requests in flight on one thread. A worker that dies with
    /// more than that is half of a fleet under a load that two workers cannot carry.
    const FULL: u32 = 4096 * 5;

    pub(crate) fn earn(&mut self) {
        self.fifths = (self.fifths + 1).min(Self::FULL);
    }

    /// Whether one more retry may be made.
    pub(crate) fn spend(&mut self) -> bool {
        let left = self.fifths.checked_sub(5);
        self.fifths = left.unwrap_or(self.fifths);
        left.is_some()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { fifths: Self::FULL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_table() {
        use NonIdempotent::{Never, Repeat};
        let upload = Failure::Upload(UploadFault::Broken);
        for (failure, method, body_is_at_hand, non_idempotent, expected) in [
            (Failure::NothingSent, Method::Get, true, Never, true),
            (Failure::NothingSent, Method::Post, true, Never, true),
            (Failure::NothingSent, Method::Post, false, Never, false),
            (Failure::Lost, Method::Get, true, Never, true),
            (Failure::Lost, Method::Delete, true, Never, true),
            (Failure::Lost, Method::Put, true, Never, true),
            (Failure::Lost, Method::Put, false, Never, false),
            (Failure::Lost, Method::Post, true, Never, false),
            (Failure::Lost, Method::Other, true, Never, false),
            (Failure::Lost, Method::Post, true, Repeat, true),
            (Failure::Lost, Method::Post, false, Repeat, false),
            (Failure::Silent, Method::Head, true, Never, true),
            (Failure::Silent, Method::Options, true, Never, true),
            (Failure::Silent, Method::Post, true, Never, false),
            (Failure::Silent, Method::Post, true, Repeat, true),
            (Failure::Invalid, Method::Get, true, Never, true),
            (Failure::Invalid, Method::Post, true, Repeat, false),
            (upload, Method::Get, true, Repeat, false),
        ] {
            assert_eq!(
                may_repeat(failure, method, body_is_at_hand, non_idempotent),
                expected,
                "{failure:?} {method:?} body at hand: {body_is_at_hand} {non_idempotent:?}"
            );
        }
    }

    #[test]
    fn an_outage_is_multiplied_by_a_fifth_at_most() {
        let mut budget = Budget::default();
        while budget.spend() {}
        let mut retries = 0;
        for _ in 0..1000 {
            budget.earn();
            retries += usize::from(budget.spend());
        }
        assert_eq!(retries, 200);
    }
}
