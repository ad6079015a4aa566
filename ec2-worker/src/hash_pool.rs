//! argon2id with bounded memory, bounded threads and a bounded queue.
//!
//! Hashing is the one expensive thing a stranger can ask for. Each permit owns an arena of 19 MiB
//! that is allocated once; there is one permit per core; whoever finds the queue full or waits too
//! long is told to come back. So a flood of sign-ins costs a fixed amount of memory, and health
//! checks, which never come here, stay fast.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use users::Password;
use users::phc::{self, Arena, Cost, Phc, Unreadable};

#[derive(Clone, Debug)]
pub struct HashLimits {
    /// Evaluations at the same time.
    pub permits: usize,
    /// Requests that have a place and no permit yet.
    pub waiters: usize,
    /// How long each waits for a permit.
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
    /// For those who hash and those who wait to.
    places: Arc<Semaphore>,
    arenas: Arc<Mutex<Vec<Arena>>>,
    limits: HashLimits,
    evaluations: AtomicU64,
    dummy: Phc,
}

/// A place in the queue. Whoever is to be turned away because the queue is full should learn it before
/// anything else is done for the request: in a flood that costs more than the hashes.
pub struct Ticket {
    _place: OwnedSemaphorePermit,
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
            places: Arc::new(Semaphore::new(limits.permits + limits.waiters)),
            arenas: Arc::new(Mutex::new(arenas)),
            evaluations: AtomicU64::new(0),
            dummy: Phc::parse(&dummy, &limits.cost).expect("our own record"),
            limits,
        }
    }

    pub fn ticket(&self) -> Result<Ticket, HashError> {
        Arc::clone(&self.places)
            .try_acquire_owned()
            .map(|_place| Ticket { _place })
            .map_err(|_| HashError::Busy)
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, ticket: Ticket, password: Password) -> Result<String, HashError> {
        let cost = self.limits.cost.clone();
        self.evaluate(ticket, move |arena| phc::hash(arena, &cost, password.as_bytes())).await
    }

    /// Whether the password is the one of the record, a PHC string.
    pub async fn verify(
        &self,
        ticket: Ticket,
        password: Password,
        record: &str,
    ) -> Result<Verdict, HashError> {
        let record = Phc::parse(record, &self.limits.cost)?;
        let is_dated = !record.has(&self.limits.cost);
        let work = move |arena: &mut Arena| record.verify(arena, password.as_bytes());
        let is_right = self.evaluate(ticket, work).await?;
        Ok(if is_right { Verdict::Right { is_dated } } else { Verdict::Wrong })
    }

    /// Costs what [`HashPool::verify`] costs and is never true: for logins that do not exist.
    pub async fn verify_nothing(&self, ticket: Ticket, password: Option<Password>) -> Result<(), HashError> {
        let dummy = self.dummy.clone();
        let work =
            move |arena: &mut Arena| dummy.verify(arena, password.as_ref().map_or(b"", Password::as_bytes));
        let _never = self.evaluate(ticket, work).await?;
        Ok(())
    }

    /// How many times argon2 has run, the dummy record's making apart.
    pub fn evaluations(&self) -> u64 {
        self.evaluations.load(Ordering::Relaxed)
    }

    /// Permit and place go with the work: when the request is given up, the thread is still busy.
    async fn evaluate<T, F>(&self, ticket: Ticket, work: F) -> Result<T, HashError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Arena) -> T + Send + 'static,
    {
        let permit = tokio::time::timeout(self.limits.wait, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| HashError::Busy)?
            .expect("the semaphore is never closed");
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        let arenas = Arc::clone(&self.arenas);
        let cost = self.limits.cost.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let mut arena = take(&arenas).unwrap_or_else(|| Arena::new(&cost));
            let result = work(&mut arena);
            arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
            drop((permit, ticket));
            result
        });
        Ok(worked.await.expect("hashing does not panic and the runtime outlives its requests"))
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

    impl HashPool {
        fn hand_out(&self) -> Ticket {
            self.ticket().expect("a place is free")
        }
    }

    #[tokio::test]
    async fn verifies_its_own_records_and_those_of_another_cost() {
        let pool = patient();
        let verify = async |text: &str, record: &str| {
            pool.verify(pool.hand_out(), password(text), record).await.expect("free")
        };
        let record = pool.hash(pool.hand_out(), password("zzyzx road")).await.expect("free");
        assert_eq!(verify("zzyzx road", &record).await, Verdict::Right { is_dated: false });
        assert_eq!(verify("zzyzx roae", &record).await, Verdict::Wrong);
        assert_eq!(pool.evaluations(), 3);
        let other: Cost = "m=7168,t=5,p=1".parse().expect("a cost");
        let dated = phc::hash(&mut Arena::new(&other), &other, b"zzyzx road");
        assert_eq!(verify("zzyzx road", &dated).await, Verdict::Right { is_dated: true });
    }

    #[tokio::test]
    async fn the_dummy_costs_one_evaluation_at_the_current_cost() {
        let pool = patient();
        pool.verify_nothing(pool.hand_out(), Some(password("zzyzx road"))).await.expect("free");
        pool.verify_nothing(pool.hand_out(), None).await.expect("free");
        assert_eq!(pool.evaluations(), 2);
        assert!(pool.dummy.has(&Cost::default()));
    }

    #[tokio::test]
    async fn a_full_queue_and_a_long_wait_are_busy() {
        let pool = pool(1, 1, Duration::from_millis(1));
        let (first, second) = (pool.hand_out(), pool.hand_out());
        assert!(matches!(pool.ticket(), Err(HashError::Busy)), "one hashes, one waits");
        let held = Arc::clone(&pool.permits).acquire_owned().await.expect("free");
        let outcome = pool.hash(first, password("zzyzx road")).await;
        assert!(matches!(outcome, Err(HashError::Busy)), "the wait is bounded");
        drop(held);
        assert!(pool.hash(second, password("zzyzx road")).await.is_ok());
        assert_eq!(pool.places.available_permits(), 2, "places are given back");
    }

    #[tokio::test]
    async fn a_record_that_is_not_ours_costs_nothing() {
        let pool = patient();
        let outcome = pool.verify(pool.hand_out(), password("zzyzx road"), "hunter2").await;
        assert!(matches!(outcome, Err(HashError::Unreadable(_))));
        assert_eq!(pool.evaluations(), 0);
    }
}
