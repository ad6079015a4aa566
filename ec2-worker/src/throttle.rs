//! Guessing at one login, limited for the fleet as a whole, without a database.
//!
//! Failures in a row are counted in an object, `throttle/<pseudonym of the login>`, that all workers
//! change by compare-and-swap and S3 forgets after a day. The name is a pseudonym because a login that does
//! not exist is often a password typed into the wrong field.
//!
//! | failures in a row | the next attempt |
//! |---|---|
//! | up to 4 | at once |
//! | n = 5 to 99 | 2^(n-5) s after the last one, 15 min at the most |
//! | 100 | a day after the last one, or when the operator deletes the object |
//!
//! An attempt that comes too early is refused before anything is hashed, and does not count. Logins
//! that do not exist are counted like others, so the answer tells nothing. A success resets the count, and so
//! does another active key of the ring, which makes other pseudonyms.
//!
//! Each client that can be told from others has a count of its own:
//!
//! | count | ends with |
//! |---|---|
//! | strangers at a login | its registration, so that old guesses do not lock out the new owner |
//! | a browser in which the user has signed in before, by its cookie | another password, which gives it another id |
//! | a session whose user is to prove the password again | the session, and another password, which gives it another id |
//!
//! So a stranger who fails on purpose does not lock out the owner's browser, and a thief with a stolen cookie
//! does not lock the owner out of changing the password.
//!
//! While a login has to wait, a worker that knows it refuses attempts without reading S3, for `TRUSTED` after
//! it learned of the wait. This can only refuse more than S3 would.
//!
//! A guesser gets at most 100 evaluations of argon2, and one more for each worker but the first: an attempt is
//! counted before its place is given back, and after a failure a login has one place on each worker
//! ([`Gates`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use accounts::random_id;
use jiff::{SignedDuration, Timestamp};
use moka::sync::Cache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::client::Client;
use crate::cookies::KeyRing;
use crate::hash_pool::{HashPool, Ticket};
use aws::bucket::{Bucket, ETag, Expect, NewObject, Object, StoreError, Write};

const PREFIX: &str = "throttle/";

/// NIST SP 800-63B: at most 100 in a row.
const MAX_FAILURES: u32 = 100;
/// Failures that cost nothing: people mistype.
const FREE_FAILURES: u32 = 4;
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(15);
const STOPPED: SignedDuration = SignedDuration::from_hours(24);

const MAX_BYTES: usize = 1024;
/// On each worker one attempt at a time writes the count of a login; a hundred workers collide this often
/// only during an attack through all of them at once.
const MAX_TRIES: u32 = 8;
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Attempts at the same time on one worker, for a login without failures.
const PLACES: u32 = FREE_FAILURES;
/// For a place. Half would refuse a browser that sends a page's worth of sign-ins on a busy machine,
/// double would outlast the time limit of a request together with hashing and S3.
const PATIENCE: Duration = Duration::from_secs(5);
/// Attempts at one login that are made or wait on one worker. Each waits for up to [`PATIENCE`]: without a
/// bound a few hundred a second at one login would take all the places of a worker for attempts.
const MAX_AT_GATE: usize = 128;
/// How long a worker remembers that a login has to wait. A login under attack costs one read of S3 in this
/// time; a count that the operator deletes may stay in force for as long.
const TRUSTED: Duration = Duration::from_secs(5);
/// Counts that are remembered, some 150 bytes each.
const MAX_REMEMBERED: u64 = 100_000;

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    count: u32,
    last: Option<Timestamp>,
}

impl Failures {
    /// How long the next attempt has to wait.
    pub fn wait(&self, now: Timestamp) -> Option<SignedDuration> {
        let last = self.last?;
        let pause = match self.count {
            0..=FREE_FAILURES => return None,
            MAX_FAILURES.. => STOPPED,
            count => {
                let seconds = 1_i64 << (count - FREE_FAILURES - 1).min(20);
                LONGEST_WAIT.min(SignedDuration::from_secs(seconds))
            }
        };
        // A clock that was ahead when it failed must not stop the login for longer than the pause.
        let left = (last + pause).duration_since(now).min(pause);
        (left > SignedDuration::ZERO).then_some(left)
    }

    fn and_one(self, now: Timestamp) -> Self {
        let is_old = self.last.is_some_and(|last| now.duration_since(last) > STOPPED);
        let count = if is_old { 0 } else { self.count };
        Self { count: (count + 1).min(MAX_FAILURES), last: self.last.max(Some(now)) }
    }

    /// Returns the view of one count that has more failures, or the later last failure.
    fn or(self, other: Self) -> Self {
        if (other.count, other.last) > (self.count, self.last) { other } else { self }
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(flatten)]
    failures: Failures,
    nonce: String,
}

/// The counts of one fleet, and the places of one worker.
pub struct Throttle {
    data: Bucket,
    gates: Gates,
    /// Counts that this worker could not write to S3.
    remembered: Cache<String, Failures>,
    /// Counts of which the last attempt has to wait, and when they were learned of.
    waiting: Cache<String, (Instant, Failures)>,
}

/// An attempt that has its place and may be made.
pub struct Attempt<'a> {
    throttle: &'a Throttle,
    name: String,
    seen: StoredCount,
    _place: Place,
}

#[derive(Clone)]
struct StoredCount {
    failures: Failures,
    etag: Option<ETag>,
}

#[derive(Debug, thiserror::Error)]
pub enum ThrottleError {
    #[error("too many attempts at one login at this moment")]
    Busy,
    #[error("too many failures")]
    Wait(SignedDuration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Throttle {
    pub fn new(data: Bucket) -> Self {
        let remembered =
            Cache::builder().max_capacity(MAX_REMEMBERED).time_to_idle(STOPPED.unsigned_abs()).build();
        let waiting = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(TRUSTED).build();
        Self { data, gates: Gates::default(), remembered, waiting }
    }

    /// Takes a place for an attempt at `name`, a pseudonym, and then a ticket, before anything is read. An
    /// attempt that waits for the place must not hold a ticket, and an attempt that will not hash must not
    /// cost reads. `others` runs at the same time as the read of the count.
    pub async fn enter<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        name: String,
        client: &Client,
        hashes: &HashPool,
        others: impl Fn() -> F,
        now: impl Fn() -> Timestamp,
    ) -> Result<(Attempt<'_>, Ticket, T), ThrottleError> {
        let mut places = if self.recall(&name).count == 0 { 1 } else { PLACES };
        loop {
            self.must_not_wait(&name, now())?;
            let place = self.gates.enter(&name, places).await.ok_or(ThrottleError::Busy)?;
            // Those before it may have failed.
            self.must_not_wait(&name, now())?;
            let ticket = hashes.ticket(client).map_err(|_| ThrottleError::Busy)?;
            let asked = Instant::now();
            let (seen, other) = tokio::try_join!(self.fetch_count(&name), others())?;
            if let Some(wait) = seen.failures.wait(now()) {
                self.waiting.insert(name, (asked, seen.failures));
                return Err(ThrottleError::Wait(wait));
            }
            // Failed elsewhere: from now on one at a time.
            if seen.failures.count > 0 && places < PLACES {
                places = PLACES;
                continue;
            }
            return Ok((Attempt { throttle: self, name, seen, _place: place }, ticket, other));
        }
    }

    /// Resets the count of a login that was registered: earlier guesses were not at its password.
    pub async fn forget(&self, name: &str) {
        match self.fetch_count(name).await {
            Ok(seen) if seen.failures.count > 0 => {
                self.change(name, seen, |_| Failures::default()).await;
                self.waiting.invalidate(name);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error = process::telemetry::error_chain(&error),
                "failures at a login from before its registration are still counted"
            ),
        }
    }

    /// As far as this worker knows without asking.
    fn must_not_wait(&self, name: &str, now: Timestamp) -> Result<(), ThrottleError> {
        let known = self.waiting.get(name).filter(|(asked, _)| asked.elapsed() < TRUSTED);
        match known.and_then(|(_, failures)| failures.wait(now)) {
            Some(wait) => Err(ThrottleError::Wait(wait)),
            None => Ok(()),
        }
    }

    fn recall(&self, name: &str) -> Failures {
        self.remembered.get(name).unwrap_or_default()
    }

    async fn fetch_count(&self, name: &str) -> Result<StoredCount, StoreError> {
        let object = self.data.get(&key(name), MAX_BYTES).await?;
        let etag = object.as_ref().map(|object| object.etag.clone());
        Ok(StoredCount { failures: parse_count(object.as_ref()).or(self.recall(name)), etag })
    }

    /// Changes the count. What cannot be written stays remembered here.
    async fn change(&self, name: &str, seen: StoredCount, to: impl Fn(Failures) -> Failures) {
        let mut seen = seen;
        for _ in 0..MAX_TRIES {
            let failures = to(seen.failures);
            let nonce = random_id();
            let bytes = serde_json::to_vec(&Document { failures, nonce: nonce.clone() })
                .expect("a count is plain data");
            let object = NewObject { content_type: "application/json", bytes, nonce: Some(nonce.clone()) };
            let expect = seen.etag.take().map_or(Expect::Absent, Expect::Unchanged);
            let written = self.data.put(&key(name), &object, &expect).await;
            match written {
                // From now on the count in S3 is valid for this worker too.
                Ok(Write::Done) => return self.remembered.invalidate(name),
                Ok(Write::Refused | Write::Raced) => {}
                Err(error) => {
                    self.remembered.insert(name.to_owned(), failures);
                    tracing::warn!(
                        error = process::telemetry::error_chain(&error),
                        "a failed attempt is counted by this worker only"
                    );
                    return;
                }
            }
            tokio::time::sleep(RETRY_PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
            let Ok(object) = self.data.get(&key(name), MAX_BYTES).await else {
                return self.remembered.insert(name.to_owned(), failures);
            };
            // A write that was repeated meets its own first try.
            if object.as_ref().is_some_and(|object| object.nonce.as_deref() == Some(&*nonce)) {
                return self.remembered.invalidate(name);
            }
            let etag = object.as_ref().map(|object| object.etag.clone());
            seen = StoredCount { failures: parse_count(object.as_ref()), etag };
        }
        self.remembered.insert(name.to_owned(), to(seen.failures));
        tracing::warn!(
            "a failed attempt is counted by this worker only, because other workers change the count all the time"
        );
    }
}

impl Attempt<'_> {
    /// The password was wrong, or there is no such login. The count is written before the place is
    /// given back.
    pub async fn failed(self, now: Timestamp) -> u32 {
        let failures = self.seen.failures.and_one(now);
        self.throttle.change(&self.name, self.seen, |failures| failures.and_one(now)).await;
        if failures.wait(now).is_some() {
            self.throttle.waiting.insert(self.name, (Instant::now(), failures));
        }
        failures.count
    }

    pub async fn succeeded(self) {
        if self.seen.failures.count > 0 {
            self.throttle.change(&self.name, self.seen, |_| Failures::default()).await;
        }
    }
}

/// Returns the failures in a count's object; none if it cannot be parsed, because no worker wrote it.
fn parse_count(object: Option<&Object>) -> Failures {
    let document = object.and_then(|object| serde_json::from_slice::<Document>(&object.bytes).ok());
    document.map(|document| document.failures).unwrap_or_default()
}

/// Returns the name of a login's failure count for clients that are not known. It is a keyed hash.
pub fn count_name(ring: &KeyRing, login: &str) -> String {
    ring.pseudonym("throttle", login)
}

/// Returns the name of a login's failure count for `who`, a browser or session of the proven owner.
pub fn own_count_name(ring: &KeyRing, login: &str, who: &str) -> String {
    ring.pseudonym("throttle of its owner", &format!("{who}/{login}"))
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The attempts in progress on this worker, by login.
#[derive(Default)]
pub struct Gates(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

/// Given back when dropped.
pub struct Place {
    gates: Gates,
    name: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Gates {
    /// `None` if it takes too long, or too many wait already.
    pub async fn enter(&self, name: &str, places: u32) -> Option<Place> {
        let gate = {
            let mut gates = self.0.lock();
            let gate =
                gates.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(PLACES as usize)));
            // Each attempt that waits or has a place holds a clone.
            if Arc::strong_count(gate) > MAX_AT_GATE {
                return None;
            }
            Arc::clone(gate)
        };
        // Also when it is given up: the entry must go.
        let mut place = Place { gates: Self(Arc::clone(&self.0)), name: name.to_owned(), permit: None };
        let permit = tokio::time::timeout(PATIENCE, gate.acquire_many_owned(places)).await.ok()?;
        place.permit = Some(permit.expect("a gate is never closed"));
        Some(place)
    }

    /// The only one at this name.
    pub async fn enter_alone(&self, name: &str) -> Option<Place> {
        self.enter(name, PLACES).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permit = None;
        let mut gates = self.gates.0.lock();
        // Every attempt that waits holds a clone, made under this lock.
        if gates.get(&self.name).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            gates.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn after(count: u32) -> Failures {
        (0..count).fold(Failures::default(), |failures, _| failures.and_one(NOW))
    }

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        let seconds = SignedDuration::from_secs;
        let table = [
            (0, None),
            (4, None),
            (5, Some(seconds(1))),
            (6, Some(seconds(2))),
            (10, Some(seconds(32))),
            (14, Some(seconds(512))),
            (15, Some(seconds(900))),
            (60, Some(seconds(900))),
            (99, Some(seconds(900))),
            (100, Some(SignedDuration::from_hours(24))),
            (1000, Some(SignedDuration::from_hours(24))),
        ];
        for (count, wait) in table {
            assert_eq!(after(count).wait(NOW), wait, "{count} failures");
        }
        assert_eq!(after(6).wait(NOW + seconds(1)), Some(seconds(1)));
        assert_eq!(after(6).wait(NOW + seconds(2)), None);
        assert_eq!(after(6).wait(NOW - seconds(500)), Some(seconds(2)), "counted by a clock that is ahead");
    }

    #[test]
    fn a_count_starts_again_after_a_day() {
        let tomorrow = NOW + SignedDuration::from_hours(25);
        assert_eq!(after(100).wait(tomorrow), None);
        assert_eq!(after(100).and_one(tomorrow).count, 1);
        assert_eq!(after(99).and_one(NOW + SignedDuration::from_mins(15)).count, 100);
    }

    #[test]
    fn the_higher_of_two_counts_holds() {
        assert_eq!(after(3).or(after(5)), after(5));
        assert_eq!(after(5).or(after(3)), after(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_has_so_many_places_and_leaves_nothing_behind() {
        let gates = Gates::default();
        let first: Vec<_> = futures::future::join_all((0..PLACES).map(|_| gates.enter("ana", 1))).await;
        assert!(first.iter().all(Option::is_some));
        assert!(gates.enter("ana", 1).await.is_none(), "full");
        assert!(gates.enter("bob", PLACES).await.is_some(), "another login");
        drop(first);
        let alone = gates.enter_alone("ana").await;
        assert!(alone.is_some() && gates.enter("ana", 1).await.is_none());
        drop(alone);
        assert!(gates.0.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_wait_at_a_gate_are_limited() {
        let gates = Gates::default();
        let alone = gates.enter_alone("ana").await.expect("a place");
        let waiting = futures::future::join_all((0..MAX_AT_GATE).map(|_| gates.enter("ana", 1)));
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        let asked = Instant::now();
        assert!(gates.enter("ana", 1).await.is_none());
        assert_eq!(asked.elapsed(), Duration::ZERO, "it is refused at once");
        drop(alone);
        assert!(waiting.await.iter().filter(|place| place.is_some()).count() >= PLACES as usize);
    }
}
