//! The reconciler: every 20 seconds it observes the fleet, plans, and acts.
//!
//! `planner` decides which calls are made, and in which order; this crate carries them out. A crash between
//! any two calls needs no code here: the next invocation continues from the stored state.

pub mod config;
pub mod store;
pub mod observe;
pub mod probe;
pub mod act;

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use planner::effect::{Effect, Event};
use planner::invocation::{Invocation, Report};
use rand::RngExt as _;
use rand::distr::Alphanumeric;

use crate::act::Actor;
use crate::observe::Observer;
use crate::probe::Prober;
use crate::store::Store;

/// The schedule is at most this much ahead of the function's clock. A later time is not a schedule's.
const AHEAD: SignedDuration = SignedDuration::from_mins(1);

/// Everything an invocation needs from outside, made once at cold start.
pub struct Reconciler {
    pub store: Store,
    pub observer: Observer,
    pub prober: Prober,
    pub actor: Actor,
}

impl Reconciler {
    /// Runs one invocation: the ticks of the minute that starts at `scheduled`.
    pub async fn invoke(&self, scheduled: Timestamp) -> Report {
        let now = Timestamp::now();
        let scheduled = if scheduled.duration_since(now) > AHEAD { now } else { scheduled };
        let (mut invocation, effects) = Invocation::start(scheduled, nonce(), now);
        let mut under_way: FuturesUnordered<_> =
            effects.into_iter().map(|effect| self.carry_out(effect)).collect();
        while let Some(event) = under_way.next().await {
            let effects = invocation.step(event, Timestamp::now());
            under_way.extend(effects.into_iter().map(|effect| self.carry_out(effect)));
        }
        invocation.report().clone()
    }

    async fn carry_out(&self, effect: Effect) -> Event {
        match effect {
            Effect::ReadMemory => {
                let (object, date) = self.store.memory().await;
                Event::MemoryRead { object, date }
            }
            Effect::WriteMemory { memory, if_match } => {
                Event::MemoryWritten(self.store.write_memory(&memory, if_match.as_deref()).await)
            }
            Effect::Survey => Event::Surveyed(Box::new(self.observer.survey().await)),
            Effect::Describe { zone, ids } => {
                let rows = self.observer.describe(&ids).await;
                Event::Described { zone, rows }
            }
            Effect::Probe { targets, knocking } => {
                let (probes, started) = self.prober.probe_all(targets, knocking).await;
                Event::Probed { probes, started }
            }
            Effect::Publish { registry, if_match } => {
                Event::Published(self.store.publish(&registry, if_match.as_deref()).await)
            }
            Effect::Refresh { addresses } => {
                self.prober.refresh_all(addresses).await;
                Event::Refreshed
            }
            Effect::Launch(launch) => {
                let result = self.actor.launch(&launch).await;
                Event::Launched { launch, result }
            }
            Effect::Terminate(id) => {
                let result = self.actor.terminate(&id).await;
                Event::Terminated { id, result }
            }
            Effect::Associate { allocation, instance } => {
                let result = self.actor.associate(&allocation, &instance).await;
                Event::Associated { instance, result }
            }
            Effect::CapCredits(id) => {
                let result = self.actor.cap_credits(&id).await;
                Event::CreditsCapped { id, result }
            }
            Effect::Sleep { until } => {
                sleep_until(until).await;
                Event::Woke
            }
        }
    }
}

fn nonce() -> String {
    rand::rng().sample_iter(Alphanumeric).take(16).map(char::from).collect()
}

/// Timers run on another clock than the grid and may end early by it.
async fn sleep_until(until: Timestamp) {
    while let Some(left) = time_left(until, Timestamp::now()) {
        tokio::time::sleep(left).await;
    }
}

fn time_left(until: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(until.duration_since(now)).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_past_moment_leaves_no_time() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        assert_eq!(time_left(at(2), at(1)), Some(Duration::from_secs(1)));
        assert_eq!(time_left(at(1), at(1)), None);
        assert_eq!(time_left(at(1), at(2)), None);
    }

    #[test]
    fn a_thousand_nonces_are_distinct_and_fit_a_header() {
        let nonces: HashSet<String> = (0..1000).map(|_| nonce()).collect();
        assert_eq!(nonces.len(), 1000);
        let is_plain =
            |nonce: &String| nonce.len() == 16 && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(nonces.iter().all(is_plain), "{nonces:?}");
    }
}
