//! Virtual time: milliseconds since the beginning of a run.

use jiff::{SignedDuration, Timestamp};

pub type Millis = i64;

pub const SECOND: Millis = 1_000;
pub const MINUTE: Millis = 60 * SECOND;
pub const HOUR: Millis = 60 * MINUTE;
/// Never.
pub const NEVER: Millis = Millis::MAX;

/// A full minute, so that the schedule's events fall on the grid.
const BEGINNING: i64 = 1_800_000_000_000;

/// Converts a duration of a policy.
pub fn millis(duration: SignedDuration) -> Millis {
    Millis::try_from(duration.as_millis()).expect("durations of a policy are hours, not ages")
}

pub fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_millisecond(BEGINNING + at).expect("a run lasts hours, not ages")
}
