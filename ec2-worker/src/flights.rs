//! One fetch for all requests that need the same data at the same moment.
//!
//! A request that comes while a fetch is in progress waits for its result. If all of them disconnect, the
//! fetch is dropped. The result may be as old as the fetch, which began before some of the requests came.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::time::Instant;

type Fetch<V> = BoxFuture<'static, V>;
/// A fetch and its number.
type Flight<V> = (u64, WeakShared<Fetch<V>>);

/// The fetches in progress.
pub struct Flights<K: Eq + Hash, V: Clone> {
    under_way: Mutex<HashMap<K, Flight<V>>>,
    number: AtomicU64,
}

impl<K: Eq + Hash, V: Clone> Default for Flights<K, V> {
    fn default() -> Self {
        Self { under_way: Mutex::default(), number: AtomicU64::default() }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Flights<K, V> {
    /// Waits for the fetch in progress, or begins one.
    pub async fn join<F>(&self, key: K, begin: impl FnOnce() -> F) -> V
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (number, look) = self.board(&key, begin);
        let mut landing = Landing { flights: self, key, number, is_over: false };
        let found = look.await;
        landing.is_over = true;
        found
    }

    fn board<F>(&self, key: &K, begin: impl FnOnce() -> F) -> (u64, Shared<Fetch<V>>)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        let found = under_way.get(key).and_then(|(number, look)| Some((*number, look.upgrade()?)));
        found.unwrap_or_else(|| {
            let look = begin().boxed().shared();
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let weak = look.downgrade().expect("it has not been polled yet");
            under_way.insert(key.clone(), (number, weak));
            (number, look)
        })
    }
}

/// Removes a fetch from the list when it is over, or when the last request that waited has disconnected.
struct Landing<'a, K: Eq + Hash, V: Clone> {
    flights: &'a Flights<K, V>,
    key: K,
    number: u64,
    is_over: bool,
}

impl<K: Eq + Hash, V: Clone> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock();
        let is_done = under_way.get(&self.key).is_some_and(|(number, look)| {
            *number == self.number && (self.is_over || look.upgrade().is_none())
        });
        if is_done {
            under_way.remove(&self.key);
        }
    }
}

/// An answer that is given again for a short time, good or bad.
pub struct Recent<V: Clone> {
    kept_for: Duration,
    last: Arc<Mutex<Option<(Instant, u64, V)>>>,
    /// Grows when the last result is known to be outdated.
    generation: AtomicU64,
    flights: Flights<u64, V>,
}

impl<V: Clone + Send + 'static> Recent<V> {
    pub fn kept_for(kept_for: Duration) -> Self {
        Self { kept_for, last: Arc::default(), generation: AtomicU64::default(), flights: Flights::default() }
    }

    pub async fn get<F>(&self, look: impl FnOnce() -> F) -> V
    where
        F: Future<Output = V> + Send + 'static,
    {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some((asked, of, found)) = &*self.last.lock()
            && *of == generation
            && asked.elapsed() < self.kept_for
        {
            return found.clone();
        }
        let last = Arc::clone(&self.last);
        let begin = || {
            let look = look();
            async move {
                let asked = Instant::now();
                let found = look.await;
                let mut last = last.lock();
                *last = Some((asked, generation, found.clone()));
                found
            }
        };
        self.flights.join(generation, begin).await
    }

    /// Makes every later request fetch again.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A look that takes a second, and how many there were.
    fn look(count: &Arc<AtomicU64>) -> impl Future<Output = u64> + Send + 'static {
        let count = Arc::clone(count);
        async move {
            sleep(SECOND).await;
            count.fetch_add(1, Ordering::Relaxed) + 1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_a_fetch() {
        let (flights, count) = (Flights::default(), Arc::default());
        let found = join_all((0..100).map(|n| flights.join(n % 2, || look(&count)))).await;
        assert_eq!(count.load(Ordering::Relaxed), 2, "one for each key: {found:?}");
        assert_eq!(flights.join(0, || look(&count)).await, 3, "who asks later looks again");
        assert!(flights.under_way.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_while_one_request_waits() {
        let (flights, count) = (Flights::default(), Arc::default());
        let (impatient, patient) = tokio::join!(
            tokio::time::timeout(SECOND / 2, flights.join((), || look(&count))),
            flights.join((), || look(&count)),
        );
        assert!(impatient.is_err());
        assert_eq!(patient, 1);
        drop(tokio::time::timeout(SECOND / 2, flights.join((), || look(&count))).await);
        assert!(flights.under_way.lock().is_empty(), "all have hung up");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_until_it_is_old_or_outdated() {
        let (recent, count) = (Recent::kept_for(SECOND * 3), Arc::default());
        let ask = async || recent.get(|| look(&count)).await;
        assert_eq!((ask().await, ask().await), (1, 1));
        sleep(SECOND * 2).await;
        assert_eq!(ask().await, 2, "its age counts from the beginning of the look");
        recent.forget();
        assert_eq!(ask().await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_after_a_change_gets_the_new_value() {
        let (recent, count) = (Recent::kept_for(SECOND * 2), Arc::default());
        let before = recent.get(|| look(&count));
        let after = async {
            sleep(SECOND / 2).await;
            recent.forget();
            recent.get(|| look(&count)).await
        };
        assert_eq!(tokio::join!(before, after), (1, 2));
        assert_eq!(recent.get(|| look(&count)).await, 2);
    }
}
