//! When a worker is taken out of the choice, for how long, and what brings it back. Pure: `now` and
//! the random numbers are handed in.
//!
//! | event | effect |
//! |---|---|
//! | connect refused or timed out, connection reset | out at once |
//! | active check refused or reset | out at once, and for longer |
//! | a request, and a health check sent while it waited, both unanswered | out at once |
//! | active check not answered in time, or not with success | out at the second in a row |
//! | active check passed | back |
//! | a request was answered | forgets earlier trouble, unless out |
//!
//! Out lasts 1 s and doubles to at most 10 s, with jitter so that several load balancers do not try again
//! in step. A worker that answers its health check is never put out by silence on requests: the client or
//! S3 may be the cause, and then all workers would be put out. Until the silence ends, the choice by
//! requests in flight sends that worker less. An active check that keeps failing prolongs the ejection, so
//! a dead worker stays out.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt as _};

/// The shortest ejection: the time between two active checks.
const BASE: Duration = Duration::from_secs(1);

/// The longest ejection: half a tick of the reconciler, which decides whether to replace the worker.
const MAX: Duration = Duration::from_secs(10);

/// One lost packet must not cost a worker its traffic; two in a row are two seconds of silence.
const MISSED_CHECKS: u32 = 2;

#[derive(Debug, Default)]
pub(crate) struct Ejection {
    /// Until when.
    out: Option<Instant>,
    /// Ejections and prolongations since things were well; the exponent of the time out.
    streak: u32,
    missed_checks: u32,
}

/// The change that an event made, for the log and the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Ejected(Duration),
    Returned,
}

impl Ejection {
    pub(crate) fn is_out(&self, now: Instant) -> bool {
        self.out.is_some_and(|until| now < until)
    }

    /// When the worker may be chosen again, if it is out at all.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.out
    }

    /// Whether an answered request would change anything.
    pub(crate) fn has_history(&self) -> bool {
        self.out.is_some() || self.streak > 0 || self.missed_checks > 0
    }

    pub(crate) fn unreachable(&mut self, now: Instant, rng: &mut impl Rng) -> Change {
        self.eject(now, rng)
    }

    pub(crate) fn silent(&mut self, now: Instant, rng: &mut impl Rng) -> Change {
        if self.is_out(now) {
            // One hang fails many requests at once; they are one piece of news.
            return Change::Nothing;
        }
        self.eject(now, rng)
    }

    pub(crate) fn check_refused(&mut self, now: Instant, rng: &mut impl Rng) -> Change {
        // The next result comes after one second, or two if it has to time out; one second out would
        // end before it.
        self.streak = self.streak.max(1);
        self.eject(now, rng)
    }

    pub(crate) fn check_missed(&mut self, now: Instant, rng: &mut impl Rng) -> Change {
        self.missed_checks = self.missed_checks.saturating_add(1);
        if self.missed_checks < MISSED_CHECKS && !self.is_out(now) {
            return Change::Nothing;
        }
        self.check_refused(now, rng)
    }

    pub(crate) fn check_passed(&mut self) -> Change {
        self.missed_checks = 0;
        if self.out.take().is_none() {
            return Change::Nothing;
        }
        self.streak = 0;
        Change::Returned
    }

    pub(crate) fn answered(&mut self, now: Instant) -> Change {
        if self.is_out(now) {
            // The answer to a request from before, or panic mode: no proof of health.
            return Change::Nothing;
        }
        let was_out = self.out.is_some();
        *self = Self::default();
        if was_out { Change::Returned } else { Change::Nothing }
    }

    fn eject(&mut self, now: Instant, rng: &mut impl Rng) -> Change {
        let was_out = self.is_out(now);
        let duration = duration(self.streak, rng);
        self.out = Some(self.out.map_or(now + duration, |until| until.max(now + duration)));
        self.streak = self.streak.saturating_add(1);
        if was_out { Change::Nothing } else { Change::Ejected(duration) }
    }
}

fn duration(streak: u32, rng: &mut impl Rng) -> Duration {
    let doubled = BASE * 2_u32.pow(streak.min(5));
    doubled.mul_f64(rng.random_range(1.0..1.5)).min(MAX)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fixture() -> (Ejection, Instant, StdRng) {
        (Ejection::default(), Instant::now(), StdRng::seed_from_u64(7))
    }

    #[test]
    fn a_refused_connection_ejects_at_once() {
        let (mut ejection, now, mut rng) = fixture();
        assert!(matches!(ejection.unreachable(now, &mut rng), Change::Ejected(time) if time >= SECOND));
        assert!(ejection.is_out(now));
        assert!(!ejection.is_out(now + 2 * SECOND));
    }

    #[test]
    fn one_missed_check_is_forgiven_and_two_are_not() {
        let (mut ejection, now, mut rng) = fixture();
        assert_eq!(ejection.check_missed(now, &mut rng), Change::Nothing);
        assert_eq!(ejection.check_passed(), Change::Nothing);
        assert_eq!(ejection.check_missed(now, &mut rng), Change::Nothing);
        assert!(!ejection.is_out(now));
        assert!(matches!(ejection.check_missed(now + SECOND, &mut rng), Change::Ejected(_)));
    }

    #[test]
    fn a_passed_check_brings_an_unreachable_worker_back_early() {
        let (mut ejection, now, mut rng) = fixture();
        ejection.unreachable(now, &mut rng);
        assert_eq!(ejection.check_passed(), Change::Returned);
        assert!(!ejection.is_out(now));
    }

    #[test]
    fn one_hang_is_reported_once() {
        let (mut ejection, now, mut rng) = fixture();
        assert!(matches!(ejection.silent(now, &mut rng), Change::Ejected(time) if time < 2 * SECOND));
        for _ in 0..100 {
            assert_eq!(ejection.silent(now, &mut rng), Change::Nothing);
        }
        assert!(!ejection.is_out(now + 2 * SECOND));
    }

    #[test]
    fn a_silent_worker_is_out_longer_each_time_up_to_the_maximum() {
        let (mut ejection, mut now, mut rng) = fixture();
        let mut last = Duration::ZERO;
        for _ in 0..8 {
            let Change::Ejected(time) = ejection.silent(now, &mut rng) else { panic!("not ejected") };
            assert!(time >= last && time <= MAX, "{time:?} after {last:?}");
            last = time;
            now += time;
        }
        assert_eq!(last, MAX);
        ejection.answered(now);
        assert!(matches!(ejection.silent(now, &mut rng), Change::Ejected(time) if time < 2 * SECOND));
    }

    #[test]
    fn failing_checks_leave_no_gap() {
        let (mut ejection, mut now, mut rng) = fixture();
        ejection.check_missed(now, &mut rng);
        for _ in 0..100 {
            now += 2 * SECOND;
            ejection.check_missed(now, &mut rng);
            assert!(ejection.is_out(now + 2 * SECOND - Duration::from_millis(1)));
        }
    }

    #[test]
    fn an_answer_from_before_the_ejection_proves_nothing() {
        let (mut ejection, now, mut rng) = fixture();
        ejection.unreachable(now, &mut rng);
        assert_eq!(ejection.answered(now), Change::Nothing);
        assert!(ejection.is_out(now));
    }

    #[test]
    fn jitter_spreads_the_return() {
        let (_, _, mut rng) = fixture();
        let times: Vec<_> = (0..50).map(|_| duration(0, &mut rng)).collect();
        assert!(times.iter().all(|time| (SECOND..SECOND * 3 / 2).contains(time)), "{times:?}");
        assert!(times.iter().max() > times.iter().min());
    }
}
