//! When ticks happen: at 0, 20 and 40 seconds after the time that the schedule names, not after the time
//! at which the invocation started. Pure.

use fleet::Policy;
use jiff::Timestamp;

/// Returns the ticks of an invocation that are not too late at `now`.
pub fn ticks(policy: &Policy, scheduled: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    let ticks = (0..policy.ticks).map(|n| scheduled + policy.tick_every * n);
    ticks.filter(|tick| !is_too_late(policy, *tick, now)).collect()
}

pub fn is_too_late(policy: &Policy, tick: Timestamp, now: Timestamp) -> bool {
    now.duration_since(tick) > policy.tick_too_late
}

pub fn end(policy: &Policy, scheduled: Timestamp) -> Timestamp {
    scheduled + policy.tick_every * (policy.ticks - 1) + policy.last_watch
}

/// Whether a tick at this time took place already.
pub fn is_repeated(policy: &Policy, tick: Timestamp, last: Option<Timestamp>) -> bool {
    last.is_some_and(|last| tick.duration_since(last) < policy.tick_closest)
}

/// Counts ticks since 1970: who comes first when not all can changes with this number.
pub(crate) fn turn(policy: &Policy, now: Timestamp) -> usize {
    let every = policy.tick_every.as_secs().unsigned_abs().max(1);
    usize::try_from(now.as_second().unsigned_abs() / every).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn three_ticks_on_the_grid_of_the_event() {
        let policy = Policy::default();
        assert_eq!(ticks(&policy, at(60), at(63)), [at(60), at(80), at(100)]);
        assert_eq!(end(&policy, at(60)), at(108));
    }

    #[test]
    fn a_late_invocation_makes_the_ticks_that_are_left() {
        let policy = Policy::default();
        assert_eq!(ticks(&policy, at(60), at(76)), [at(80), at(100)]);
        assert_eq!(ticks(&policy, at(60), at(600)), []);
    }

    #[test]
    fn a_repeated_tick_is_known() {
        let is_repeated = |tick, last| is_repeated(&Policy::default(), tick, last);
        assert!(!is_repeated(at(60), None));
        assert!(!is_repeated(at(60), Some(at(40))));
        assert!(is_repeated(at(60), Some(at(60))));
        assert!(is_repeated(at(60), Some(at(55))));
        assert!(is_repeated(at(40), Some(at(60))));
    }
}
