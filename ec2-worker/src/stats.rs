//! How much this worker does: requests and sign-ins of the last minute.
//!
//! Counted in sixty buckets of a second each, without a lock: a bucket is one atomic word, its upper
//! half the second that it counts and its lower half the count. The first request of a later second
//! resets the bucket in the same step.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

const SECONDS: u32 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInOutcome {
    Successful,
    /// The login or the password was wrong, or there were too many tries.
    Refused,
}

#[derive(Debug)]
pub struct Stats {
    began: Instant,
    requests: Window,
    sign_ins: Window,
    refused: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    pub requests_per_second: f64,
    pub sign_ins_per_minute: u32,
    pub refused_per_minute: u32,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            requests: Window::default(),
            sign_ins: Window::default(),
            refused: Window::default(),
        }
    }
}

impl Stats {
    pub fn count_request(&self) {
        self.requests.add(self.second());
    }

    pub fn count_sign_in(&self, outcome: SignInOutcome) {
        match outcome {
            SignInOutcome::Successful => self.sign_ins.add(self.second()),
            SignInOutcome::Refused => self.refused.add(self.second()),
        }
    }

    pub fn rates(&self) -> Rates {
        let now = self.second();
        // A worker that has just begun has not had a minute.
        let seconds = (now + 1).min(SECONDS);
        Rates {
            requests_per_second: f64::from(self.requests.sum(now)) / f64::from(seconds),
            sign_ins_per_minute: self.sign_ins.sum(now),
            refused_per_minute: self.refused.sum(now),
        }
    }

    /// Since the program began.
    pub fn uptime_seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn second(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

#[derive(Debug)]
struct Window([AtomicU64; SECONDS as usize]);

impl Default for Window {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; SECONDS as usize])
    }
}

impl Window {
    fn add(&self, second: u32) {
        let counted = |word: u64| match split(word) {
            (of, count) if of == second => Some(join(of, count.saturating_add(1))),
            (of, _) if of < second => Some(join(second, 1)),
            // The thread slept for a minute between reading the clock and counting.
            _ => None,
        };
        self.0[(second % SECONDS) as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted).ok();
    }

    /// Of the sixty seconds that end with this one.
    fn sum(&self, now: u32) -> u32 {
        let words = self.0.iter().map(|word| split(word.load(Ordering::Relaxed)));
        let recent = words.filter(|(second, _)| *second <= now && now - second < SECONDS);
        recent.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }
}

fn join(second: u32, count: u32) -> u64 {
    u64::from(second) << 32 | u64::from(count)
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of a word")]
fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_older_than_a_minute_are_forgotten() {
        let window = Window::default();
        for second in [0, 0, 1, 59, 59, 59] {
            window.add(second);
        }
        assert_eq!([0, 1, 59, 60, 61, 118, 119].map(|now| window.sum(now)), [2, 3, 6, 4, 3, 3, 0]);
        window.add(60);
        assert_eq!(window.sum(60), 5, "the bucket of second 0 counts second 60 now");
        window.add(0);
        assert_eq!(window.sum(60), 5, "too late to count");
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|n| window.add(n / 5_000)));
            }
        });
        assert_eq!(window.sum(1), 40_000);
    }

    #[test]
    fn rates_match_the_counts() {
        let stats = Stats::default();
        stats.count_request();
        stats.count_sign_in(SignInOutcome::Successful);
        stats.count_sign_in(SignInOutcome::Refused);
        stats.count_sign_in(SignInOutcome::Refused);
        let rates = stats.rates();
        assert!(rates.requests_per_second > 0.0, "{rates:?}");
        assert_eq!((rates.sign_ins_per_minute, rates.refused_per_minute), (1, 2));
    }
}
