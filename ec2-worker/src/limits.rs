//! How much one client may ask for: a bucket of tokens for each address, in the memory of one worker.
//!
//! | what | at once | then one each | why |
//! |---|---|---|---|
//! | failed sign-ins | 100 | 10 s | an office behind one address mistypes a few dozen an hour; a list of stolen passwords has millions |
//! | sign-ups | 30 | 20 s | a class that registers together; each account costs a hash and an object for ever |
//! | tries to sign up | 300 | 2 s | each tells whether a login is taken |
//!
//! Guessing at *one* login is limited by `throttle`, for the fleet as a whole. These here are for one
//! worker, so with N of them a client has up to N times as much: they bound the cost of a flood, and
//! are not what keeps a password safe.
//!
//! Loopback addresses are not limited: they are the machine that a local cloud runs on, and all its
//! clients are one address. No client of a load balancer on AWS has one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use crate::client::Client;

/// Addresses remembered at the same time, some 100 bytes each. A flood from more of them makes room
/// by forgetting those that asked for least.
const MAX_ADDRESSES: u64 = 100_000;

pub struct Limits {
    pub failed_sign_ins: Limit,
    pub sign_ups: Limit,
    pub tries_to_sign_up: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failed_sign_ins: Limit::new(100, Duration::from_secs(10)),
            sign_ups: Limit::new(30, Duration::from_secs(20)),
            tries_to_sign_up: Limit::new(300, Duration::from_secs(2)),
        }
    }
}

/// A bucket for each address, kept as the time at which it will be full again (GCRA).
pub struct Limit {
    began: Instant,
    interval: Duration,
    depth: Duration,
    full_at: Cache<IpAddr, Arc<AtomicU64>>,
}

impl Limit {
    pub fn new(at_once: u32, interval: Duration) -> Self {
        let depth = interval * at_once;
        Self {
            began: Instant::now(),
            interval,
            depth,
            full_at: Cache::builder().max_capacity(MAX_ADDRESSES).time_to_idle(depth).build(),
        }
    }

    /// Whether a token is left; else how long until there is one.
    pub fn check(&self, client: &Client) -> Result<(), Duration> {
        let Some(bucket) = self.bucket(client) else { return Ok(()) };
        let missing = Duration::from_millis(bucket.load(Ordering::Relaxed)).saturating_sub(self.now());
        let needed = missing + self.interval;
        if needed <= self.depth { Ok(()) } else { Err(needed - self.depth) }
    }

    /// Takes a token, also if there is none.
    pub fn charge(&self, client: &Client) {
        let Some(bucket) = self.bucket(client) else { return };
        let now = self.now();
        let charged = |full_at: u64| {
            let full_at = Duration::from_millis(full_at).max(now).min(now + self.depth) + self.interval;
            Some(u64::try_from(full_at.as_millis()).unwrap_or(u64::MAX))
        };
        let _before = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged);
    }

    /// [`Limit::check`] and, if there was one, takes it.
    pub fn take(&self, client: &Client) -> Result<(), Duration> {
        self.check(client)?;
        self.charge(client);
        Ok(())
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn bucket(&self, client: &Client) -> Option<Arc<AtomicU64>> {
        let block = client.block().filter(|block| !block.is_loopback())?;
        Some(self.full_at.get_with(block, Arc::default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client { address: text.parse().ok(), ..Client::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_one_for_each_interval() {
        let limit = Limit::new(3, Duration::from_secs(10));
        let ana = client("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(limit.take(&ana), Ok(()));
        }
        assert_eq!(limit.take(&ana), Err(Duration::from_secs(10)));
        assert_eq!(limit.take(&client("192.0.2.2")), Ok(()), "another one is not affected");
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(limit.take(&ana), Err(Duration::from_secs(6)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(limit.take(&ana), Ok(()));
        assert!(limit.take(&ana).is_err());
        tokio::time::advance(Duration::from_secs(3600)).await;
        for _ in 0..3 {
            assert_eq!(limit.take(&ana), Ok(()), "never more than the burst");
        }
        assert!(limit.take(&ana).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_charged_beyond_the_limit_does_not_pile_up() {
        let limit = Limit::new(3, Duration::from_secs(10));
        let ana = client("192.0.2.1");
        for _ in 0..1000 {
            limit.charge(&ana);
        }
        assert!(limit.check(&ana).is_err());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(limit.check(&ana), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_subscriber_is_one_client_and_the_own_machine_none() {
        let limit = Limit::new(1, Duration::from_secs(10));
        assert_eq!(limit.take(&client("2001:db8:1:2::1")), Ok(()));
        assert!(limit.take(&client("2001:db8:1:2::2")).is_err());
        assert_eq!(limit.take(&client("2001:db8:1:3::1")), Ok(()));
        for _ in 0..10 {
            assert_eq!(limit.take(&client("127.0.0.1")), Ok(()));
            assert_eq!(limit.take(&Client::default()), Ok(()));
        }
    }
}
