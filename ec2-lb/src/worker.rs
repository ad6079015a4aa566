//! One worker as this load balancer sees it: its load and its health. All threads share it.
//!
//! A request reads and counts only atomics here. The lock is taken when something goes wrong, by the active
//! check once a second, and by the first good answer after trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use fleet::{WorkerAddr, WorkerId};
use parking_lot::Mutex;
use rand::rngs::ThreadRng;

use crate::ejection::{Change, Ejection};
use crate::metrics::Metrics;

static NUMBERS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) addr: WorkerAddr,
    /// `addr` as text, for a request that names no host.
    pub(crate) authority: String,
    /// Different for each worker that ever was in the table.
    pub(crate) number: u64,
    /// Grows when its idle connections are known to be dead.
    generation: AtomicU64,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    failures: AtomicU64,
    /// By the first digit of their status, from 1.
    responses: [AtomicU64; 5],
    recent: RecentFailures,
    ejection: Mutex<Ejection>,
    /// Milliseconds from `epoch` until which the worker is out; mirrors `ejection`.
    out_until_ms: AtomicU64,
    has_history: AtomicBool,
    /// When the last passed check and the last failed check began; 0 is never.
    passed_ms: AtomicU64,
    missed_ms: AtomicU64,
    /// It has announced that it stops.
    is_draining: AtomicBool,
    epoch: Instant,
    metrics: Arc<Metrics>,
}

impl Worker {
    /// `epoch` is any moment before the first event; times are kept as milliseconds from it.
    pub(crate) fn new(id: WorkerId, addr: WorkerAddr, epoch: Instant, metrics: Arc<Metrics>) -> Self {
        Self {
            id,
            addr,
            authority: addr.to_string(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            generation: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            responses: Default::default(),
            recent: RecentFailures::default(),
            ejection: Mutex::default(),
            out_until_ms: AtomicU64::new(0),
            has_history: AtomicBool::new(false),
            passed_ms: AtomicU64::new(0),
            missed_ms: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            epoch,
            metrics,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Returns the requests in flight plus the failures of the last moment: a worker that fails fast has
    /// nothing in flight and would otherwise look like the best choice.
    pub(crate) fn load(&self, now: Instant) -> usize {
        self.in_flight() + self.recent.count(self.ms(now) / 1000)
    }

    /// Ejected, or about to stop.
    pub(crate) fn is_out(&self, now: Instant) -> bool {
        self.is_draining() || self.ms(now) < self.out_until_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Responses with a status of `class`, 1 for 1xx.
    pub(crate) fn responses(&self, class: usize) -> u64 {
        self.responses.get(class.wrapping_sub(1)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(crate) fn count_response(&self, class: usize) {
        if let Some(count) = self.responses.get(class.wrapping_sub(1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one request in flight until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Refused, reset, or not connected in time.
    pub(crate) fn unreachable(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.failed();
        self.note("it cannot be reached", Ejection::unreachable);
    }

    /// No first byte, and no answer to a health check that was sent then.
    pub(crate) fn silent(&self) {
        self.failed();
        self.note("it answers neither a request nor a health check", Ejection::silent);
    }

    /// The time as [`Worker::health_since`] counts it.
    pub(crate) fn now_ms(&self) -> u64 {
        self.ms(Instant::now()) + 1
    }

    /// Returns the result of the health checks that began at or after `since_ms`.
    pub(crate) fn health_since(&self, since_ms: u64) -> Health {
        match () {
            () if self.passed_ms.load(Ordering::Relaxed) >= since_ms => Health::Well,
            () if self.missed_ms.load(Ordering::Relaxed) >= since_ms => Health::Silent,
            () => Health::Unknown,
        }
    }

    /// A check that began then was passed, or was not.
    pub(crate) fn checked(&self, began_ms: u64, is_passed: bool) {
        let at = if is_passed { &self.passed_ms } else { &self.missed_ms };
        at.fetch_max(began_ms, Ordering::Relaxed);
    }

    /// Answered with a status from 500 up, or broke off its answer: not to be flooded, but if it is
    /// dead the next connection will tell.
    pub(crate) fn answered_badly(&self) {
        self.failed();
    }

    pub(crate) fn answered(&self) {
        if self.has_history.load(Ordering::Relaxed) {
            self.note("", |ejection, now, _| ejection.answered(now));
        }
    }

    /// Records that its response announced a stop. It gets no new request until it passes a check, which a
    /// stopping worker never does.
    pub(crate) fn drains(&self) {
        if !self.is_draining.swap(true, Ordering::Relaxed) {
            tracing::info!(worker = %self.id, addr = %self.addr, "a worker announced that it stops; it gets no new requests");
        }
    }

    pub(crate) fn check_refused(&self) {
        self.note("it refuses the health check", Ejection::check_refused);
    }

    pub(crate) fn check_missed(&self) {
        self.note("it does not pass the health check", Ejection::check_missed);
    }

    pub(crate) fn check_passed(&self) {
        self.is_draining.store(false, Ordering::Relaxed);
        self.note("", |ejection, _, _| ejection.check_passed());
    }

    fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.recent.add(self.ms(Instant::now()) / 1000);
    }

    fn note(&self, reason: &str, event: impl FnOnce(&mut Ejection, Instant, &mut ThreadRng) -> Change) {
        let now = Instant::now();
        let change = {
            let mut ejection = self.ejection.lock();
            let change = event(&mut ejection, now, &mut rand::rng());
            let until = ejection.until().map_or(0, |until| self.ms(until));
            self.out_until_ms.store(until, Ordering::Relaxed);
            self.has_history.store(ejection.has_history(), Ordering::Relaxed);
            change
        };
        match change {
            Change::Nothing => {}
            Change::Ejected(duration) => {
                self.metrics.ejections.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(worker = %self.id, addr = %self.addr, reason, for_ms = duration.as_millis(), "a worker is ejected");
            }
            Change::Returned => {
                tracing::info!(worker = %self.id, addr = %self.addr, "a worker is no longer ejected");
            }
        }
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A worker's health as the checks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Unknown,
    Well,
    Silent,
}

/// A request in flight on a worker.
#[derive(Debug)]
pub(crate) struct InFlight(pub Arc<Worker>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Failures in the current second and the one before it. Second and count share one word, so that neither is
/// read without the other.
#[derive(Debug, Default)]
struct RecentFailures(AtomicU64);

impl RecentFailures {
    fn add(&self, second: u64) {
        let next = |word| {
            let (since, count) = (word >> 32, word & u64::from(u32::MAX));
            let count = if second.saturating_sub(since) <= 1 { count } else { 0 };
            Some(((second & u64::from(u32::MAX)) << 32) | (count + 1).min(u64::from(u32::MAX)))
        };
        // The closure never gives up, so there is no error to look at.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn count(&self, second: u64) -> usize {
        let word = self.0.load(Ordering::Relaxed);
        let is_recent = second.saturating_sub(word >> 32) <= 1;
        if is_recent { usize::try_from(word & u64::from(u32::MAX)).unwrap_or(usize::MAX) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_as_load_for_a_moment() {
        let recent = RecentFailures::default();
        recent.add(10);
        recent.add(10);
        assert_eq!(recent.count(10), 2);
        assert_eq!(recent.count(11), 2);
        assert_eq!(recent.count(12), 0);
        recent.add(20);
        assert_eq!(recent.count(20), 1);
    }

    #[test]
    fn a_worker_that_stops_is_out_until_a_check_passes() {
        let addr = WorkerAddr("10.0.0.1:8080".parse().expect("valid"));
        let worker =
            Worker::new("i-a".parse().expect("valid"), addr, Instant::now(), Arc::new(Metrics::default()));
        worker.drains();
        assert!(worker.is_out(Instant::now()));
        worker.check_passed();
        assert!(!worker.is_out(Instant::now()));
    }

    #[test]
    fn only_a_later_check_shows_the_health() {
        let addr = WorkerAddr("10.0.0.1:8080".parse().expect("valid"));
        let worker =
            Worker::new("i-a".parse().expect("valid"), addr, Instant::now(), Arc::new(Metrics::default()));
        worker.checked(10, true);
        assert_eq!(worker.health_since(11), Health::Unknown);
        worker.checked(12, false);
        assert_eq!(worker.health_since(11), Health::Silent);
        worker.checked(11, true);
        assert_eq!(worker.health_since(11), Health::Well, "one answer is enough");
    }

    #[test]
    fn a_worker_that_is_ejected_comes_back_by_a_passed_check() {
        let addr = WorkerAddr("10.0.0.1:8080".parse().expect("valid"));
        let worker =
            Worker::new("i-a".parse().expect("valid"), addr, Instant::now(), Arc::new(Metrics::default()));
        assert!(!worker.is_out(Instant::now()));
        worker.unreachable();
        assert!(worker.is_out(Instant::now()));
        worker.check_passed();
        assert!(!worker.is_out(Instant::now()));
        assert_eq!(worker.failures(), 1);
    }
}
