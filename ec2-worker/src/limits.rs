//! How much one client may ask for: a bucket of tokens for each address, in the memory of one worker,
//! and a share of everything that has a limited number of places.
//!
//! | what | at once | then one each | why |
//! |---|---|---|---|
//! | attempts to prove a password, right or wrong | 300 | 0.2 s | an office of a few hundred that signs in at nine; a flood has hundreds a second |
//! | failed sign-ins | 100 | 10 s | an office behind one address mistypes a few dozen an hour; a list of stolen passwords has millions |
//! | sign-ups | 30 | 20 s | a class that registers together; each account costs a hash and an object for ever |
//! | tries to sign up | 300 | 2 s | each tells whether a login is taken |
//!
//! A token is taken before an attempt costs anything. The token for a failed sign-in is given back if the
//! attempt does not fail; the token for an attempt never is.
//!
//! `throttle` limits guesses at *one* login, for the fleet as a whole. The limits here are for one worker, so
//! a client of N workers has up to N times as much. They bound the cost of a flood; they do not keep a
//! password safe.
//!
//! Loopback addresses are not limited: they are the machine that a local cloud runs on, and all its
//! clients are one address. No client of a load balancer on AWS has one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::client::Client;

/// Addresses remembered at the same time, some 100 bytes each. When a flood comes from more addresses, the
/// least active ones are forgotten.
const MAX_ADDRESSES: u64 = 100_000;

pub struct Limits {
    pub attempts: Limit,
    pub failed_sign_ins: Limit,
    pub sign_ups: Limit,
    pub tries_to_sign_up: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: Limit::new(300, Duration::from_millis(200)),
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

    /// Takes a token if there is one; otherwise returns the time until there is one.
    pub fn take(&self, client: &Client) -> Result<(), Duration> {
        let Some(bucket) = self.bucket(client) else { return Ok(()) };
        let now = self.now();
        let needed = |full_at: u64| Duration::from_millis(full_at).saturating_sub(now) + self.interval;
        let taken = |full_at: u64| {
            let needed = needed(full_at);
            (needed <= self.depth).then(|| millis(now + needed))
        };
        bucket
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .map(|_before| ())
            .map_err(|full_at| needed(full_at) - self.depth)
    }

    /// Gives back a token that was taken.
    pub fn give_back(&self, client: &Client) {
        let Some(bucket) = self.bucket(client) else { return };
        bucket
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(full_at.saturating_sub(millis(self.interval)))
            })
            .ok();
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn bucket(&self, client: &Client) -> Option<Arc<AtomicU64>> {
        Some(self.full_at.get_with(client.limited()?, Arc::default))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How many places of something limited each address has at this moment. Without it one address could
/// take all of them.
#[derive(Clone, Debug, Default)]
pub struct Shares(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One place; given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    block: Option<IpAddr>,
}

impl Shares {
    /// `None` if the client has `most` places.
    pub fn take(&self, client: &Client, most: usize) -> Option<Share> {
        let block = client.limited();
        if let Some(block) = block {
            let mut places = self.0.lock();
            let count = places.entry(block).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
        }
        Some(Share { shares: self.clone(), block })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(block) = self.block else { return };
        let mut places = self.shares.0.lock();
        if let Some(count) = places.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                places.remove(&block);
            }
        }
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
    async fn refusals_do_not_pile_up() {
        let limit = Limit::new(3, Duration::from_secs(10));
        let ana = client("192.0.2.1");
        for _ in 0..1000 {
            let _wait = limit.take(&ana);
        }
        assert!(limit.take(&ana).is_err());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(limit.take(&ana), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_given_back_can_be_taken_again() {
        let limit = Limit::new(2, Duration::from_secs(10));
        let ana = client("192.0.2.1");
        for _ in 0..10 {
            assert_eq!(limit.take(&ana), Ok(()));
            limit.give_back(&ana);
        }
        for _ in 0..10 {
            limit.give_back(&ana);
        }
        assert_eq!((limit.take(&ana), limit.take(&ana)), (Ok(()), Ok(())));
        assert!(limit.take(&ana).is_err(), "never more than the burst");
    }

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let shares = Shares::default();
        let (ana, bob) = (client("2001:db8:1:2::1"), client("192.0.2.2"));
        let held: Vec<_> = (0..3).map(|_| shares.take(&ana, 3).expect("a place")).collect();
        assert!(shares.take(&client("2001:db8:1:2::9"), 3).is_none(), "the same subscriber");
        assert!(shares.take(&bob, 3).is_some());
        drop(held);
        assert!(shares.take(&ana, 3).is_some());
        assert!(shares.0.lock().is_empty(), "nothing is left behind");
        let own = client("127.0.0.1");
        let many: Vec<_> = (0..9).map(|_| shares.take(&own, 3)).collect();
        assert!(many.iter().all(Option::is_some), "the own machine is not limited");
    }

    #[tokio::test(start_paused = true)]
    async fn one_subscriber_is_one_client() {
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
