//! argon2id with bounded memory, bounded threads and a bounded queue.
//!
//! Hashing is the only expensive work that a stranger can cause. Each permit owns an arena of 19 MiB
//! that is allocated once, and there is one permit per core. A request that finds the queue full or waits
//! too long is refused and may try again. So a flood of sign-ins costs a fixed amount of memory, and health
//! checks, which never hash, stay fast.
//!
//! | stage | how many | for one address | what it costs |
//! |---|---|---|---|
//! | reading: a [`Ticket`], and S3 has not answered yet | 64 for each permit | a quarter of the queue, over all three stages | some kilobytes |
//! | queued: all is read, and there is no permit yet | no ticket is given while 8 for each permit wait | | some kilobytes |
//! | hashing | one for each permit | | a core and an arena |
//!
//! A request joins the queue after S3 was read, so that a slow S3 or a refusal found there does not keep
//! other requests from hashing. A full queue is noticed before the read: in a flood, two reads for each
//! refusal would cost more than the hashes. A request with a ticket is always queued, however many others
//! got a ticket since.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use accounts::Password;
use accounts::phc::{self, Arena, Cost, Phc, Unreadable};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::client::Client;
use crate::limits::{Share, Shares};

/// Attempts that read, for each permit. At S3's usual 20 ms two would do; 64 are enough for it to take a
/// second and a half.
const READERS: usize = 64;
/// One address may have this part of the queue, so that one busy address cannot get all others refused.
const PART_OF_ONE: usize = 4;

#[derive(Clone, Debug)]
pub struct HashLimits {
    /// Evaluations at the same time.
    pub permits: usize,
    /// Requests that may be queued; when there are more, no ticket is given.
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

/// The result of comparing a password with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    Wrong,
    Right {
        /// The record has another cost than new ones and should be written again.
        is_dated: bool,
    },
}

pub struct HashPool {
    permits: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    /// Requests that hash or wait for a permit.
    queued: Arc<AtomicUsize>,
    shares: Shares,
    arenas: Arc<Mutex<Vec<Arena>>>,
    limits: HashLimits,
    evaluations: AtomicU64,
    dummy: Phc,
}

/// The right to one evaluation. It is taken first, so that a request that a full queue refuses costs no
/// other work.
pub struct Ticket {
    _reading: OwnedSemaphorePermit,
    share: Share,
}

/// A place in the queue; given back when dropped.
struct Queued {
    queued: Arc<AtomicUsize>,
    _share: Share,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }
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
            readers: Arc::new(Semaphore::new(READERS * limits.permits)),
            queued: Arc::default(),
            shares: Shares::default(),
            arenas: Arc::new(Mutex::new(arenas)),
            evaluations: AtomicU64::new(0),
            dummy: Phc::parse(&dummy, &limits.cost).expect("our own record"),
            limits,
        }
    }

    pub fn ticket(&self, client: &Client) -> Result<Ticket, HashError> {
        let places = self.limits.permits + self.limits.waiters;
        if self.queued.load(Ordering::Relaxed) >= places {
            return Err(HashError::Busy);
        }
        let most = (places / PART_OF_ONE).max(2);
        let share = self.shares.take(client, most).ok_or(HashError::Busy)?;
        let reading = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| HashError::Busy)?;
        Ok(Ticket { _reading: reading, share })
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, ticket: Ticket, password: Password) -> Result<String, HashError> {
        let cost = self.limits.cost.clone();
        self.evaluate(ticket, move |arena| phc::hash(arena, &cost, password.as_bytes())).await
    }

    /// Compares a password with a record, a PHC string.
    pub async fn verify(
        &self,
        ticket: Ticket,
        password: Password,
        record: &str,
    ) -> Result<PasswordCheck, HashError> {
        let record = Phc::parse(record, &self.limits.cost)?;
        let is_dated = !record.has(&self.limits.cost);
        let work = move |arena: &mut Arena| record.verify(arena, password.as_bytes());
        let is_right = self.evaluate(ticket, work).await?;
        Ok(if is_right { PasswordCheck::Right { is_dated } } else { PasswordCheck::Wrong })
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

    fn queue(&self, ticket: Ticket) -> Queued {
        self.queued.fetch_add(1, Ordering::Relaxed);
        Queued { queued: Arc::clone(&self.queued), _share: ticket.share }
    }

    /// Permit and place go with the work: when the request is given up, the thread is still busy.
    async fn evaluate<T, F>(&self, ticket: Ticket, work: F) -> Result<T, HashError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Arena) -> T + Send + 'static,
    {
        let place = self.queue(ticket);
        let permit = tokio::time::timeout(self.limits.wait, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| HashError::Busy)?
            .expect("the semaphore is never closed");
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        let arenas = Arc::clone(&self.arenas);
        let cost = self.limits.cost.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let mut arena = pop_arena(&arenas).unwrap_or_else(|| Arena::new(&cost));
            let result = work(&mut arena);
            arenas.lock().push(arena);
            drop((permit, place));
            result
        });
        Ok(worked.await.expect("hashing does not panic and the runtime outlives its requests"))
    }
}

fn pop_arena(arenas: &Mutex<Vec<Arena>>) -> Option<Arena> {
    arenas.lock().pop()
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
            self.ticket(&Client::default()).expect("a place is free")
        }
    }

    #[tokio::test]
    async fn the_pool_verifies_records_of_any_cost() {
        let pool = patient();
        let verify = async |text: &str, record: &str| {
            pool.verify(pool.hand_out(), password(text), record).await.expect("free")
        };
        let record = pool.hash(pool.hand_out(), password("zzyzx road")).await.expect("free");
        assert_eq!(verify("zzyzx road", &record).await, PasswordCheck::Right { is_dated: false });
        assert_eq!(verify("zzyzx roae", &record).await, PasswordCheck::Wrong);
        assert_eq!(pool.evaluations(), 3);
        let other: Cost = "m=7168,t=5,p=1".parse().expect("a cost");
        let dated = phc::hash(&mut Arena::new(&other), &other, b"zzyzx road");
        assert_eq!(verify("zzyzx road", &dated).await, PasswordCheck::Right { is_dated: true });
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
        let third = pool.hand_out();
        let queued = [pool.queue(pool.hand_out()), pool.queue(pool.hand_out())];
        let refused = pool.ticket(&Client::default());
        assert!(matches!(refused, Err(HashError::Busy)), "one hashes, one waits");
        let held = Arc::clone(&pool.permits).acquire_owned().await.expect("free");
        drop(queued);
        let outcome = pool.hash(pool.hand_out(), password("zzyzx road")).await;
        assert!(matches!(outcome, Err(HashError::Busy)), "the wait is bounded");
        drop(held);
        assert!(pool.hash(third, password("zzyzx road")).await.is_ok());
        assert_eq!(pool.queued.load(Ordering::Relaxed), 0, "places are given back");
    }

    #[tokio::test]
    async fn a_reading_request_takes_no_place_for_hashing() {
        let pool = pool(1, 1, Duration::from_secs(60));
        let reading: Vec<_> = (0..READERS).map(|_| pool.ticket(&Client::default())).collect();
        assert!(reading.iter().all(Result::is_ok));
        assert!(pool.ticket(&Client::default()).is_err(), "bounded");
        drop(reading);
        assert_eq!(pool.readers.available_permits(), READERS);
    }

    #[tokio::test]
    async fn one_address_has_a_quarter_of_the_queue() {
        let pool = pool(2, 14, Duration::from_secs(60));
        let client = |text: &str| Client { address: text.parse().ok(), ..Client::default() };
        let held: Vec<_> = (0..4).map(|_| pool.ticket(&client("192.0.2.1")).expect("a place")).collect();
        assert!(pool.ticket(&client("192.0.2.1")).is_err());
        assert!(pool.ticket(&client("192.0.2.2")).is_ok());
        drop(held);
        assert!(pool.ticket(&client("192.0.2.1")).is_ok());
    }

    #[tokio::test]
    async fn a_record_that_is_not_ours_costs_nothing() {
        let pool = patient();
        let outcome = pool.verify(pool.hand_out(), password("zzyzx road"), "hunter2").await;
        assert!(matches!(outcome, Err(HashError::Unreadable(_))));
        assert_eq!(pool.evaluations(), 0);
    }
}
