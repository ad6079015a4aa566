//! argon2id with bounded memory, bounded threads and a bounded queue.
//!
//! Hashing is the one expensive thing a stranger can ask for. Each permit owns an arena of 19 MiB
//! that is allocated once; there is one permit per core; whoever finds the queue full or waits too
//! long is told to come back. So a flood of sign-ins costs a fixed amount of memory, and health
//! checks, which never come here, stay fast.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use crate::password::Password;

/// OWASP's second set of equal strength (19 MiB, 2 passes, 1 lane), also the least that ASVS 5.0
/// accepts at 2 passes. Half would fall below both; double would halve the sign-ins per core.
fn parameters() -> Params {
    Params::new(19 * 1024, 2, 1, Some(OUTPUT_BYTES)).expect("the parameters are within argon2's bounds")
}

const OUTPUT_BYTES: usize = 32;

#[derive(Clone, Copy, Debug)]
pub struct HashLimits {
    /// Evaluations at the same time.
    pub permits: usize,
    /// Requests that wait for a permit.
    pub waiters: usize,
    /// How long each waits.
    pub wait: Duration,
}

impl HashLimits {
    /// Eight waiters for a permit are about 0.4 s of work at full speed. 1.5 s lets a burstable
    /// instance that is down to a third of its speed still serve its whole queue; with half of it
    /// such a machine turns users away, with double the load balancer's patience ends first.
    pub fn for_cores(cores: usize) -> Self {
        Self { permits: cores, waiters: 8 * cores, wait: Duration::from_millis(1500) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("too many sign-ins at once; try again in a moment")]
    Busy,
    #[error("the stored password record cannot be read")]
    Unreadable,
}

pub struct HashPool {
    permits: Arc<Semaphore>,
    arenas: Arc<Mutex<Vec<Arena>>>,
    waiting: AtomicUsize,
    limits: HashLimits,
    evaluations: AtomicU64,
    dummy: String,
}

type Arena = Vec<Block>;

impl HashPool {
    pub fn new(limits: HashLimits) -> Self {
        let mut arenas: Vec<Arena> = (0..limits.permits).map(|_| new_arena()).collect();
        let mut first = arenas.pop().unwrap_or_else(new_arena);
        // With the current parameters: a record that cost less to check would give unknown logins away.
        let dummy = hash_in(&mut first, &rand::random::<[u8; 16]>());
        arenas.push(first);
        Self {
            permits: Arc::new(Semaphore::new(limits.permits)),
            arenas: Arc::new(Mutex::new(arenas)),
            waiting: AtomicUsize::new(0),
            limits,
            evaluations: AtomicU64::new(0),
            dummy,
        }
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: Password) -> Result<String, HashError> {
        self.evaluate(move |arena| hash_in(arena, password.as_bytes())).await
    }

    /// Whether the password is the one of the record, a PHC string.
    pub async fn verify(&self, password: Password, phc: &str) -> Result<bool, HashError> {
        let record = Record::parse(phc)?;
        self.evaluate(move |arena| verify_in(arena, password.as_bytes(), &record)).await
    }

    /// Costs what [`HashPool::verify`] costs and is never true: for logins that do not exist.
    pub async fn verify_nothing(&self, password: Option<Password>) -> Result<(), HashError> {
        let record = Record::parse(&self.dummy)?;
        let bytes = password.map(|p| zeroize::Zeroizing::new(p.as_bytes().to_vec())).unwrap_or_default();
        let _never = self.evaluate(move |arena| verify_in(arena, &bytes, &record)).await?;
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
        let worked = tokio::task::spawn_blocking(move || {
            let mut arena = take(&arenas).unwrap_or_else(new_arena);
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

struct Record {
    params: Params,
    version: Version,
    salt: Salt,
    output: Output,
}

impl Record {
    /// Records with lower parameters than today's are read; higher ones do not fit the arena.
    fn parse(phc: &str) -> Result<Self, HashError> {
        let hash = PasswordHash::new(phc).map_err(|_| HashError::Unreadable)?;
        let params = Params::try_from(&hash).map_err(|_| HashError::Unreadable)?;
        let version = hash.version.map_or(Ok(Version::V0x13), Version::try_from);
        let fits = params.block_count() <= parameters().block_count() && params.t_cost() <= MAX_T_COST;
        if hash.algorithm != Algorithm::Argon2id.ident() || !fits {
            return Err(HashError::Unreadable);
        }
        Ok(Self {
            params,
            version: version.map_err(|_| HashError::Unreadable)?,
            salt: hash.salt.ok_or(HashError::Unreadable)?,
            output: hash.hash.ok_or(HashError::Unreadable)?,
        })
    }
}

/// A record is data from outside this process; it must not buy hours of a core.
const MAX_T_COST: u32 = 16;

fn new_arena() -> Arena {
    vec![Block::new(); parameters().block_count()]
}

fn take(arenas: &Mutex<Vec<Arena>>) -> Option<Arena> {
    arenas.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn hash_in(arena: &mut Arena, password: &[u8]) -> String {
    let params = parameters();
    let salt = Salt::new(&rand::random::<[u8; 16]>()).expect("16 bytes are a salt");
    let text = ParamsString::try_from(&params).expect("the parameters have a text form");
    let mut output = [0; OUTPUT_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password, salt.as_ref(), &mut output, arena.as_mut_slice())
        .expect("a password of bounded length can be hashed");
    PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: text,
        salt: Some(salt),
        hash: Some(Output::new(&output).expect("32 bytes are an output")),
    }
    .to_string()
}

fn verify_in(arena: &mut Arena, password: &[u8], record: &Record) -> bool {
    let mut output = vec![0; record.output.len()];
    let blocks = record.params.block_count();
    let hashed = Argon2::new(Algorithm::Argon2id, record.version, record.params.clone())
        .hash_password_into_with_memory(password, record.salt.as_ref(), &mut output, &mut arena[..blocks]);
    hashed.is_ok() && output.ct_eq(record.output.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use fleet::Profile;

    use super::*;

    fn password(text: &str) -> Password {
        Password::given(Profile::Secure, text).expect("a password")
    }

    fn pool(permits: usize, waiters: usize, wait: Duration) -> HashPool {
        HashPool::new(HashLimits { permits, waiters, wait })
    }

    #[tokio::test]
    async fn verifies_its_own_records_and_lighter_ones() {
        let pool = pool(1, 8, Duration::from_secs(60));
        let phc = pool.hash(password("zzyzx road")).await.expect("free");
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(pool.verify(password("zzyzx road"), &phc).await.expect("free"));
        assert!(!pool.verify(password("zzyzx roae"), &phc).await.expect("free"));
        assert_eq!(pool.evaluations(), 3);

        let lighter = {
            use argon2::password_hash::PasswordHasher as _;
            let small = Argon2::new(
                Algorithm::Argon2id,
                Version::V0x13,
                Params::new(256, 1, 1, None).expect("small parameters"),
            );
            small.hash_password(b"zzyzx road").expect("hashes").to_string()
        };
        assert!(pool.verify(password("zzyzx road"), &lighter).await.expect("free"));
    }

    #[tokio::test]
    async fn the_dummy_costs_one_evaluation() {
        let pool = pool(1, 8, Duration::from_secs(60));
        pool.verify_nothing(Some(password("zzyzx road"))).await.expect("free");
        pool.verify_nothing(None).await.expect("free");
        assert_eq!(pool.evaluations(), 2);
        let dummy = Record::parse(&pool.dummy).expect("the dummy is a record");
        assert_eq!((dummy.params.m_cost(), dummy.params.t_cost()), (19456, 2));
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
    async fn records_that_are_not_ours_are_unreadable() {
        let pool = pool(1, 8, Duration::from_secs(60));
        for phc in [
            "",
            "hunter2",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0",
            "$argon2i$v=19$m=256,t=2,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=1048576,t=2,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=256,t=4000000,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            let outcome = pool.verify(password("zzyzx road"), phc).await;
            assert!(matches!(outcome, Err(HashError::Unreadable)), "{phc}");
        }
        assert_eq!(pool.evaluations(), 0);
    }
}
