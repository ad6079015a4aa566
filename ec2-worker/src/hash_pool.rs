//! argon2id with bounded memory, bounded threads and a bounded queue.
//!
//! Hashing is the one expensive thing a stranger can ask for. Each permit owns an arena of 19 MiB
//! that is allocated once; there is one permit per core; whoever finds the queue full or waits too
//! long is told to come back. So a flood of sign-ins costs a fixed amount of memory, and health
//! checks, which never come here, stay fast.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use users::Password;
use users::phc::{self, Arena, Cost, Phc, Unreadable};

#[derive(Clone, Debug)]
pub struct HashLimits {
    /// Evaluations at the same time.
    pub permits: usize,
    /// Requests that wait for a permit.
    pub waiters: usize,
    /// How long each waits.
    pub wait: Duration,
    /// Of new records.
    pub cost: Cost,
}

impl HashLimits {
    /// Eight waiters for a permit are about 0.4 s of work at full speed. 1.5 s lets a burstable
    /// instance that is down to a third of its speed still serve its whole queue; with half of it
    /// such a machine turns users away, with double the load balancer's patience ends first.
    pub fn for_cores(cores: usize, cost: Cost) -> Self {
        Self { permits: cores, waiters: 8 * cores, wait: Duration::from_millis(1500), cost }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("too many sign-ins at once; try again in a moment")]
    Busy,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Whether a password is the one of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right {
        /// The record was made at another cost and should be made anew.
        is_dated: bool,
    },
}

pub struct HashPool {
    permits: Arc<Semaphore>,
    arenas: Arc<Mutex<Vec<Arena>>>,
    waiting: AtomicUsize,
    limits: HashLimits,
    evaluations: AtomicU64,
    dummy: Phc,
}

impl HashPool {
    pub fn new(limits: HashLimits) -> Self {
        let mut arenas: Vec<Arena> = (0..limits.permits).map(|_| Arena::new(&limits.cost)).collect();
        let mut first = arenas.pop().unwrap_or_else(|| Arena::new(&limits.cost));
        // With the current parameters: a record that cost less to check would give unknown logins away.
        let dummy = phc::hash(&mut first, &limits.cost, &rand::random::<[u8; 16]>());
        arenas.push(first);
        Self {
            permits: Arc::new(Semaphore::new(limits.permits)),
            arenas: Arc::new(Mutex::new(arenas)),
            waiting: AtomicUsize::new(0),
            evaluations: AtomicU64::new(0),
            dummy: Phc::parse(&dummy, &limits.cost).expect("our own record"),
            limits,
        }
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: Password) -> Result<String, HashError> {
        let cost = self.limits.cost.clone();
        self.evaluate(move |arena| phc::hash(arena, &cost, password.as_bytes())).await
    }

    /// Whether the password is the one of the record, a PHC string.
    pub async fn verify(&self, password: Password, record: &str) -> Result<Verdict, HashError> {
        let record = Phc::parse(record, &self.limits.cost)?;
        let is_dated = !record.has(&self.limits.cost);
        let is_right = self.evaluate(move |arena| record.verify(arena, password.as_bytes())).await?;
        Ok(if is_right { Verdict::Right { is_dated } } else { Verdict::Wrong })
    }

    /// Costs what [`HashPool::verify`] costs and is never true: for logins that do not exist.
    pub async fn verify_nothing(&self, password: Option<Password>) -> Result<(), HashError> {
        let dummy = self.dummy.clone();
        let work =
            move |arena: &mut Arena| dummy.verify(arena, password.as_ref().map_or(b"", Password::as_bytes));
        let _never = self.evaluate(work).await?;
        Ok(())
    }

    /// How many times argon2 has run, the dummy record's making apart.
    pub fn evaluations(&self) -> u64 {
        self.evaluations.load(Ordering::Relaxed)
    }

    /// The permit goes with the work: when the request is given up, the thread is still busy.
    async fn evaluate<T, F>(&self, work: F) -> Result<T, HashError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Arena) -> T + Send + 'static,
    {
        let permit = self.permit().await?;
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        let arenas = Arc::clone(&self.arenas);
        let cost = self.limits.cost.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let mut arena = take(&arenas).unwrap_or_else(|| Arena::new(&cost));
            let result = work(&mut arena);
            arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
            drop(permit);
            result
        });
        Ok(worked.await.expect("hashing does not panic and the runtime outlives its requests"))
    }

    async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, HashError> {
        let semaphore = Arc::clone(&self.permits);
        if let Ok(permit) = Arc::clone(&semaphore).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.limits.waiters).ok_or(HashError::Busy)?;
        tokio::time::timeout(self.limits.wait, semaphore.acquire_owned())
            .await
            .map_err(|_| HashError::Busy)
            .map(|permit| permit.expect("the semaphore is never closed"))
    }
}

/// A place in the queue, given back when the request gets its permit or is given up.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take(arenas: &Mutex<Vec<Arena>>) -> Option<Arena> {
    arenas.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

#[cfg(test)]
mod tests {
    use fleet::Profile;

    use super::*;

    fn password(text: &str) -> Password {
        Password::given(Profile::Secure, text).expect("a password")
    }

    fn pool(permits: usize, waiters: usize, wait: Duration) -> HashPool {
        HashPool::new(HashLimits { permits, waiters, wait, cost: Cost::default() })
    }

    fn patient() -> HashPool {
        pool(1, 8, Duration::from_secs(60))
    }

    #[tokio::test]
    async fn verifies_its_own_records_and_those_of_another_cost() {
        let pool = patient();
        let record = pool.hash(password("zzyzx road")).await.expect("free");
        let right = Verdict::Right { is_dated: false };
        assert_eq!(pool.verify(password("zzyzx road"), &record).await.expect("free"), right);
        assert_eq!(pool.verify(password("zzyzx roae"), &record).await.expect("free"), Verdict::Wrong);
        assert_eq!(pool.evaluations(), 3);
        let other: Cost = "m=7168,t=5,p=1".parse().expect("a cost");
        let dated = phc::hash(&mut Arena::new(&other), &other, b"zzyzx road");
        let right = Verdict::Right { is_dated: true };
        assert_eq!(pool.verify(password("zzyzx road"), &dated).await.expect("free"), right);
    }

    #[tokio::test]
    async fn the_dummy_costs_one_evaluation_at_the_current_cost() {
        let pool = patient();
        pool.verify_nothing(Some(password("zzyzx road"))).await.expect("free");
        pool.verify_nothing(None).await.expect("free");
        assert_eq!(pool.evaluations(), 2);
        assert!(pool.dummy.has(&Cost::default()));
    }

    #[tokio::test]
    async fn a_full_queue_and_a_long_wait_are_busy() {
        let pool = pool(1, 0, Duration::from_secs(60));
        let held = pool.permit().await.expect("free");
        assert!(matches!(pool.hash(password("zzyzx road")).await, Err(HashError::Busy)), "no place to wait");
        drop(held);
        assert!(pool.hash(password("zzyzx road")).await.is_ok());

        let pool = self::pool(1, 1, Duration::from_millis(1));
        let held = pool.permit().await.expect("free");
        assert!(
            matches!(pool.hash(password("zzyzx road")).await, Err(HashError::Busy)),
            "the wait is bounded"
        );
        assert_eq!(pool.waiting.load(Ordering::Relaxed), 0, "the place is given back");
        drop(held);
    }

    #[tokio::test]
    async fn a_record_that_is_not_ours_costs_nothing() {
        let pool = patient();
        let outcome = pool.verify(password("zzyzx road"), "hunter2").await;
        assert!(matches!(outcome, Err(HashError::Unreadable(_))));
        assert_eq!(pool.evaluations(), 0);
    }
}
