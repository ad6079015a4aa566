//! When requests are due.
//!
//! `epoll` waits in milliseconds, in which several requests become due at once; a kernel timer wakes for each
//! of them.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// More wake-ups cost more than they smooth.
const SHORTEST: Duration = Duration::from_micros(100);

pub struct Pace {
    start: Instant,
    per_second: u32,
    /// Requests that were taken.
    taken: u64,
    /// Requests to be taken in all.
    all: u64,
    timer: TimerFd,
}

impl Pace {
    pub fn start(
        per_second: u32,
        start: Instant,
        lasts: Duration,
        registry: &Registry,
        token: Token,
    ) -> std::io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        let every = (Duration::from_secs(1) / per_second.max(1)).max(SHORTEST);
        timer.set(Expiration::Interval(TimeSpec::from_duration(every)), TimerSetTimeFlags::empty())?;
        registry.register(&mut SourceFd(&timer.as_fd().as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { start, per_second, taken: 0, all: count(per_second, lasts), timer })
    }

    /// Rewinds the timer; must be called after each wake-up.
    pub fn rewind(&self) {
        // The timer may have nothing to report if an event came first; that is fine.
        self.timer.wait().ok();
    }

    /// Returns when the next request was due, if it is due by now.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let is_due = self.taken < self.all.min(1 + count(self.per_second, now - self.start));
        is_due.then(|| {
            let nanos = u128::from(self.taken) * 1_000_000_000 / u128::from(self.per_second.max(1));
            self.taken += 1;
            self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        })
    }

    /// Returns how many were not taken yet.
    pub fn left(&self) -> u64 {
        self.all - self.taken
    }
}

fn count(per_second: u32, time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(per_second) / 1_000_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_times() {
        let poll = mio::Poll::new().expect("a poll");
        let start = Instant::now();
        let lasts = Duration::from_secs(1);
        let mut pace = Pace::start(4, start, lasts, poll.registry(), Token(0)).expect("a timer");
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(pace.take(start), Some(start));
        assert_eq!(pace.take(at(249)), None);
        assert_eq!(
            [pace.take(at(600)), pace.take(at(600)), pace.take(at(600))],
            [Some(at(250)), Some(at(500)), None]
        );
        assert_eq!(pace.left(), 1);
        assert_eq!([pace.take(at(9000)), pace.take(at(9000))], [Some(at(750)), None]);
        assert_eq!(pace.left(), 0);
    }
}
