//! The worker table: an immutable list, published whole, read without a lock.
//!
//! A worker that stays in the list keeps its counters and its ejection; the same id at another address is
//! another worker. A worker that leaves gets no new request. Its requests in flight go on, because they
//! hold the worker themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use fleet::{Registry, RegistryDiff};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::metrics::Metrics;
use crate::worker::Worker;

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) workers: Vec<Arc<Worker>>,
}

impl Table {
    /// Returns the table for `registry`; workers that are in both keep their state.
    fn next(&self, registry: &Registry, new: impl Fn(&fleet::WorkerId, fleet::WorkerAddr) -> Worker) -> Self {
        let kept = |id: &fleet::WorkerId, addr: fleet::WorkerAddr| {
            self.workers.iter().find(|old| old.id == *id && old.addr == addr).cloned()
        };
        let workers = registry
            .workers
            .iter()
            .map(|(id, listed)| kept(id, listed.addr).unwrap_or_else(|| Arc::new(new(id, listed.addr))))
            .collect();
        Self { workers }
    }
}

/// The table in force and how old it is.
#[derive(Debug)]
pub(crate) struct Fleet {
    table: ArcSwap<Table>,
    /// Only discovery changes it; the lock is for readers of its revision.
    registry: Mutex<Option<Registry>>,
    /// Whether S3 has ever returned the registry, or answered that there is none yet.
    was_reached: AtomicBool,
    /// Milliseconds from `epoch` to the last read that found the table up to date; 0 is never.
    confirmed_ms: AtomicU64,
    epoch: Instant,
    changed: watch::Sender<()>,
    /// Workers that do not answer a request; their health is to be checked now.
    suspects: Mutex<Vec<Arc<Worker>>>,
    suspected: Notify,
    metrics: Arc<Metrics>,
}

impl Fleet {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            table: ArcSwap::default(),
            registry: Mutex::new(None),
            was_reached: AtomicBool::new(false),
            confirmed_ms: AtomicU64::new(0),
            epoch: Instant::now(),
            changed: watch::Sender::new(()),
            suspects: Mutex::default(),
            suspected: Notify::new(),
            metrics,
        }
    }

    pub(crate) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// When its times count from.
    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    pub(crate) fn revision(&self) -> Option<u64> {
        self.registry.lock().as_ref().map(|held| held.revision)
    }

    /// How long ago the table was last known to be the registry's; `None` before the first time.
    pub(crate) fn age(&self) -> Option<Duration> {
        match self.confirmed_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(ms))),
        }
    }

    /// Whether the load balancer can route: it has reached the registry once, and keeps the last table.
    pub(crate) fn is_ready(&self) -> bool {
        self.was_reached.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_reached(&self) {
        self.was_reached.store(true, Ordering::Relaxed);
    }

    /// The table was just seen to be up to date.
    pub(crate) fn confirm(&self) {
        let ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.confirmed_ms.store(ms.max(1), Ordering::Relaxed);
    }

    pub(crate) fn apply(&self, registry: Registry) {
        let mut held = self.registry.lock();
        let diff = match &*held {
            Some(old) => old.diff(&registry),
            None => {
                RegistryDiff { added: registry.workers.keys().cloned().collect(), ..RegistryDiff::default() }
            }
        };
        if !diff.is_empty() {
            let old = self.table();
            let table = Arc::new(old.next(&registry, |id, addr| {
                Worker::new(id.clone(), addr, self.epoch, Arc::clone(&self.metrics))
            }));
            self.table.store(table);
            log(&diff, &registry);
        }
        *held = Some(registry);
        drop(held);
        self.changed.send_replace(());
    }

    /// Asks for a health check of `worker`, and returns when, see [`Worker::health_since`]. Requests
    /// that suspect it at the same time share one.
    pub(crate) fn suspect(&self, worker: &Arc<Worker>) -> u64 {
        let mut suspects = self.suspects.lock();
        let asked_ms = worker.now_ms();
        if !suspects.iter().any(|suspect| suspect.number == worker.number) {
            suspects.push(Arc::clone(worker));
        }
        drop(suspects);
        self.suspected.notify_one();
        asked_ms
    }

    /// Waits for workers whose health is to be checked now.
    pub(crate) async fn suspects(&self) -> Vec<Arc<Worker>> {
        self.suspected.notified().await;
        std::mem::take(&mut *self.suspects.lock())
    }

    /// Waits until the table lists a worker; false when `patience` is over before.
    pub(crate) async fn staffed(&self, patience: Duration) -> bool {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while self.table().workers.is_empty() {
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }
}

fn log(diff: &RegistryDiff, registry: &Registry) {
    let revision = registry.revision;
    let addr = |id| registry.workers.get(id).map(|listed| listed.addr.to_string()).unwrap_or_default();
    for worker in &diff.added {
        tracing::info!(%worker, addr = addr(worker), revision, "a worker joined the table");
    }
    for worker in &diff.changed {
        tracing::info!(%worker, addr = addr(worker), revision, "a worker moved in the table");
    }
    for worker in &diff.removed {
        tracing::info!(%worker, revision, "a worker left the table; its requests in flight may end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(revision: u64, workers: &[(&str, &str)]) -> Registry {
        let workers: serde_json::Map<_, _> = workers
            .iter()
            .map(|(id, addr)| ((*id).to_owned(), serde_json::json!({"addr": addr, "zone": "a"})))
            .collect();
        serde_json::from_value(serde_json::json!({
            "revision": revision, "written_at": "2026-01-01T00:00:00Z", "desired": 2, "workers": workers,
        }))
        .expect("a registry")
    }

    #[test]
    fn a_worker_that_stays_keeps_its_state() {
        let fleet = Fleet::new(Arc::default());
        fleet.apply(registry(1, &[("i-a", "10.0.0.1:8080"), ("i-b", "10.0.0.2:8080")]));
        let before = fleet.table();
        fleet.apply(registry(2, &[("i-b", "10.0.0.2:8080"), ("i-c", "10.0.0.3:8080")]));
        let after = fleet.table();
        assert!(Arc::ptr_eq(&before.workers[1], &after.workers[0]));
        assert_eq!(fleet.revision(), Some(2));
    }

    #[test]
    fn a_worker_at_another_address_is_another_worker() {
        let fleet = Fleet::new(Arc::default());
        fleet.apply(registry(1, &[("i-a", "10.0.0.1:8080")]));
        let before = fleet.table();
        fleet.apply(registry(2, &[("i-a", "10.0.0.9:8080")]));
        assert!(!Arc::ptr_eq(&before.workers[0], &fleet.table().workers[0]));
    }

    #[test]
    fn a_table_has_no_age_before_the_first_read() {
        let fleet = Fleet::new(Arc::default());
        assert_eq!(fleet.age(), None);
        fleet.confirm();
        assert!(fleet.age().is_some());
    }

    #[tokio::test]
    async fn the_wait_for_a_worker_is_bounded() {
        let fleet = Fleet::new(Arc::default());
        assert!(!fleet.staffed(Duration::from_millis(1)).await);
        let (is_staffed, ()) = tokio::join!(fleet.staffed(Duration::from_secs(60)), async {
            tokio::task::yield_now().await;
            fleet.apply(registry(1, &[("i-a", "10.0.0.1:8080")]));
        });
        assert!(is_staffed);
    }
}
