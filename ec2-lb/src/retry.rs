//! Whether a failed try may be repeated on another worker. Pure.
//!
//! | reached the worker? | GET HEAD OPTIONS TRACE PUT DELETE | GET that changes something | others |
//! |---|---|---|---|
//! | nothing was sent | repeat | repeat | repeat |
//! | lost before the first byte of the response | repeat if the body is at hand | the same | only if the operator says so |
//! | silent, and so is its health check | repeat if the body is at hand | only if the operator says so | only if the operator says so |
//! | it works on the request for too long | never | never | never |
//! | its answer is not HTTP | repeat if the body is at hand | the same | never |
//! | the client's own fault | never | never | never |
//!
//! After silence the first worker may go on with the request when it wakes up, so a GET that changes something
//! (`fleet::layers::CHANGING_GETS`) would be carried out twice. A worker that passes its health check
//! while a request waits is working on it; another worker would do the work again, and be as slow.
//!
//! A proxy must not repeat a request that is not idempotent (RFC 9110, 9.2.2): the worker may have
//! carried it out and died before its answer. After the first byte of the response there is
//! no failed try: the client already has a part of the answer, and only a broken connection tells
//! it that the rest is missing.

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection, or not a byte of the request was taken.
    NothingSent,
    /// The connection broke.
    Lost,
    /// No first byte, and no answer to a health check that was sent then.
    Silent,
    /// No first byte in time, although the worker passes its health checks.
    Late,
    /// The answer is not HTTP.
    Invalid,
    /// The client did not send its body as announced, or not in time, or too much of it.
    Upload(UploadFault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadFault {
    Broken,
    TooLarge,
    TooSlow,
    /// It made least progress of all and had to make room.
    Dropped,
    /// The client has hung up.
    Gone,
}

/// Whether requests that are not idempotent may arrive twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonIdempotent {
    #[default]
    Never,
    /// Workers are stateless and signup is conditional, so an operator may prefer to carry a request out
    /// twice rather than to fail it.
    Repeat,
}

/// The effect of a request that arrives twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The same as once (RFC 9110, 9.2.2).
    Once,
    /// It is a GET, and changes something all the same.
    ChangesByGet,
    EachTime,
}

pub(crate) fn may_repeat(
    failure: Failure,
    effect: Effect,
    body_is_at_hand: bool,
    non_idempotent: NonIdempotent,
) -> bool {
    let is_wanted = non_idempotent == NonIdempotent::Repeat;
    body_is_at_hand
        && match failure {
            Failure::NothingSent => true,
            Failure::Lost => effect != Effect::EachTime || is_wanted,
            Failure::Silent => effect == Effect::Once || is_wanted,
            Failure::Invalid => effect != Effect::EachTime,
            Failure::Late | Failure::Upload(_) => false,
        }
}

/// Bounds the load that retries add to an outage. Each request earns a fifth of a retry, and the saved
/// retries cover the requests in flight on one dying worker.
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
    fn may_repeat_follows_the_table() {
        use Effect::{ChangesByGet, EachTime, Once};
        use NonIdempotent::{Never, Repeat};
        let upload = Failure::Upload(UploadFault::Broken);
        for (failure, effect, body_is_at_hand, non_idempotent, expected) in [
            (Failure::NothingSent, Once, true, Never, true),
            (Failure::NothingSent, ChangesByGet, true, Never, true),
            (Failure::NothingSent, EachTime, true, Never, true),
            (Failure::NothingSent, EachTime, false, Never, false),
            (Failure::Lost, Once, true, Never, true),
            (Failure::Lost, Once, false, Never, false),
            (Failure::Lost, ChangesByGet, true, Never, true),
            (Failure::Lost, EachTime, true, Never, false),
            (Failure::Lost, EachTime, true, Repeat, true),
            (Failure::Lost, EachTime, false, Repeat, false),
            (Failure::Silent, Once, true, Never, true),
            (Failure::Silent, ChangesByGet, true, Never, false),
            (Failure::Silent, ChangesByGet, true, Repeat, true),
            (Failure::Silent, EachTime, true, Never, false),
            (Failure::Silent, EachTime, true, Repeat, true),
            (Failure::Late, Once, true, Repeat, false),
            (Failure::Invalid, Once, true, Never, true),
            (Failure::Invalid, EachTime, true, Repeat, false),
            (upload, Once, true, Repeat, false),
        ] {
            assert_eq!(
                may_repeat(failure, effect, body_is_at_hand, non_idempotent),
                expected,
                "{failure:?} {effect:?} body at hand: {body_is_at_hand} {non_idempotent:?}"
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
