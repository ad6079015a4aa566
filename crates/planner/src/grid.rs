//! When ticks happen: at 0, 20 and 40 seconds after the time the schedule says, not after the time
//! the invocation came. Pure.

use jiff::{SignedDuration, Timestamp};

const PERIOD: SignedDuration = SignedDuration::from_secs(20);
const TICKS: i32 = 3;
/// A tick later than this after its time gives way to the next one.
const TOO_LATE: SignedDuration = SignedDuration::from_secs(15);
/// The last tick starts at 40 s; what boots is watched for these last seconds before the end. The
/// next invocation starts at 60 s and the function is cut at 55 s.
const LAST_WATCH: SignedDuration = SignedDuration::from_secs(8);
/// Two ticks closer than this are one: the schedule delivers at least once, and a deployment adds
/// an invocation of its own.
const CLOSEST: SignedDuration = SignedDuration::from_secs(10);

/// The ticks of an invocation that are still worth making at `now`.
pub fn ticks(scheduled: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    (0..TICKS).map(|n| scheduled + PERIOD * n).filter(|tick| !is_too_late(*tick, now)).collect()
}

pub fn is_too_late(tick: Timestamp, now: Timestamp) -> bool {
    now.duration_since(tick) > TOO_LATE
}

pub fn end(scheduled: Timestamp) -> Timestamp {
    scheduled + PERIOD * (TICKS - 1) + LAST_WATCH
}

/// Whether a tick at this time has been made already.
pub fn is_repeated(tick: Timestamp, last: Option<Timestamp>) -> bool {
    last.is_some_and(|last| tick.duration_since(last) < CLOSEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn three_ticks_on_the_grid_of_the_event() {
        assert_eq!(ticks(at(60), at(63)), [at(60), at(80), at(100)]);
        assert_eq!(end(at(60)), at(108));
    }

    #[test]
    fn a_late_invocation_makes_the_ticks_that_are_left() {
        assert_eq!(ticks(at(60), at(76)), [at(80), at(100)]);
        assert_eq!(ticks(at(60), at(600)), []);
    }

    #[test]
    fn a_repeated_tick_is_known() {
        assert!(!is_repeated(at(60), None));
        assert!(!is_repeated(at(60), Some(at(40))));
        assert!(is_repeated(at(60), Some(at(60))));
        assert!(is_repeated(at(60), Some(at(55))));
        assert!(is_repeated(at(40), Some(at(60))));
    }
}
