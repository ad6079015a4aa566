//! Compares a policy with its bounds.

use jiff::SignedDuration;

use super::value::check;
use super::{OutOfBounds, Policy, millis, secs};

/// Lambda stops the function this long after it started.
const CUT: SignedDuration = secs(55);

impl Policy {
    /// Compares every field with its bounds, and with the fields that it depends on.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        self.check_each()?;
        let less = millis(1);
        check("tick_closest", self.tick_closest, &(millis(500)..=self.tick_every - less))?;
        check("ticks", self.ticks, &(1..=self.most_ticks()))?;
        check("launches_at_once", self.launches_at_once, &(1..=self.calls_at_once - 1))?;
        check("boot_pause_first", self.boot_pause_first, &(secs(2)..=self.boot_pause_longest))?;
        check("refusal_pause_first", self.refusal_pause_first, &(secs(2)..=self.refusal_pause_longest))?;
        check("cap_per_worker", self.cap_per_worker, &(1..=self.stuck_cap_per_worker))?;
        check("cap_extra", self.cap_extra, &(1..=self.stuck_cap_extra))?;
        check("room_still_refused", self.room_still_refused, &(secs(2)..=self.room_after))?;
        check("room_dead_for", self.room_dead_for, &(secs(5)..=self.room_after))
    }

    /// Returns how many ticks, and the watch after them, fit into an invocation.
    fn most_ticks(&self) -> i32 {
        let time = (CUT - self.last_watch).as_millis();
        i32::try_from(1 + (time - 1) / self.tick_every.as_millis()).unwrap_or(i32::MAX)
    }
}
