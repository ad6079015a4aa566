//! Counters of the data path.
//!
//! Each thread writes only its own counters, so counting is an ordinary addition. `prometheus` adds them up
//! when the admin port is asked for `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::limits::KINDS;

/// A number that one thread changes and others read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.store(self.get() + 1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of the latency histogram, in microseconds. Routing takes a tenth of a
/// millisecond, hashing a password a tenth of a second.
pub(crate) const BUCKETS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];

/// The counters of one thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Responses by the first digit of their status, from 1.
    pub(crate) responses: [Count; 5],
    /// By `limits::Kind`.
    pub(crate) used: [Gauge; KINDS],
    pub(crate) retries: Count,
    /// Requests and connections refused because there were too many.
    pub(crate) shed: Count,
    /// Those refused because their address had its share.
    pub(crate) over_share: Count,
    /// Arrivals that made room for others.
    pub(crate) dropped: Count,
    /// By bucket; the last counts requests that are slower than all bounds.
    pub(crate) latency: [Count; BUCKETS.len() + 1],
    pub(crate) latency_micros: AtomicU64,
}

impl Counters {
    pub(crate) fn answered(&self, status: u16, took: Duration) {
        if let Some(count) = self.responses.get(usize::from(status / 100).wrapping_sub(1)) {
            count.add();
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency[BUCKETS.partition_point(|bound| *bound < micros)].add();
        let sum = self.latency_micros.load(Ordering::Relaxed);
        self.latency_micros.store(sum.wrapping_add(micros), Ordering::Relaxed);
    }
}

/// All counters of the process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    threads: Vec<Arc<Counters>>,
    pub(crate) ejections: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads: (0..threads).map(|_| Arc::default()).collect(), ejections: AtomicU64::new(0) }
    }

    /// The counters of each thread.
    pub(crate) fn threads(&self) -> &[Arc<Counters>] {
        &self.threads
    }

    pub(crate) fn sum(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.threads.iter().map(|thread| count(thread)).sum()
    }
}
