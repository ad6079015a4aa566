//! The reconciler: every 20 seconds it looks at the fleet, plans, and acts.
//!
//! A tick is: read memory → observe → plan → write the intents by compare-and-swap → publish → act.
//! The compare-and-swap is the only lock there is: two ticks at once are harmless, because the
//! second finds its write refused and drops everything.

pub mod config;
pub mod grid;
pub mod store;
pub mod observation;
pub mod observe;
pub mod probe;
pub mod plan;
pub mod token;
pub mod act;

use std::time::Duration;

use fleet::memory::{Memory, Phase};
use jiff::Timestamp;

use crate::act::Actor;
use crate::observation::Scope;
use crate::observe::Observer;
use crate::plan::{Plan, plan, promote, settle};
use crate::store::{Store, StoreError, Written};

/// While something boots, the fleet is looked at this often between ticks, so that a new worker
/// serves within seconds of its first answer instead of up to 20 later.
const BOOT_WATCH: Duration = Duration::from_secs(2);

/// Everything a tick needs from outside, made once at cold start.
pub struct Reconciler {
    pub store: Store,
    pub observer: Observer,
    pub actor: Actor,
}

/// What an invocation did, for its log line and its result.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    pub ticks: u32,
    pub skipped: u32,
    pub launched: usize,
    pub terminated: usize,
    pub failures: Vec<String>,
}

impl Reconciler {
    /// One invocation: the ticks of the minute that starts at `scheduled`, and in between a closer
    /// look at what boots.
    pub async fn invoke(&self, scheduled: Timestamp) -> Report {
        let mut report = Report::default();
        for tick in grid::ticks(scheduled, Timestamp::now()) {
            self.watch_boots_until(tick, &mut report).await;
            self.tick(tick, &mut report).await;
        }
        self.watch_boots_until(grid::end(scheduled), &mut report).await;
        report
    }

    async fn tick(&self, tick: Timestamp, report: &mut Report) {
        let (memory, etag) = match self.store.memory().await {
            Ok(read) => read,
            Err(error) => return note(report, "the tick is dropped: memory cannot be read", &error),
        };
        if grid::is_repeated(tick, memory.last_tick) {
            report.skipped += 1;
            return;
        }
        let observation = self.observer.observe(tick, &memory, Scope::Fleet).await;
        let planned = plan(&observation, memory.clone(), Timestamp::now());
        log_decisions(&memory, &planned.memory);
        let Some((mut memory, etag)) = self.commit(planned.memory.clone(), etag, report).await else {
            return;
        };
        report.ticks += 1;
        self.publish(&planned, &observation, report).await;
        let outcomes = self.actor.act(&planned, observation.release.as_ref().ok()).await;
        report.launched += outcomes.launched.iter().filter(|launch| launch.result.is_ok()).count();
        report.terminated += planned.terminations.len() - outcomes.not_terminated.len();
        if outcomes.is_empty() {
            return;
        }
        let before = memory.clone();
        settle(&mut memory, &outcomes, Timestamp::now());
        log_decisions(&before, &memory);
        self.commit(memory, Some(etag), report).await;
    }

    /// Between ticks: nothing is judged and nothing is ended, only first answers are noticed.
    async fn watch_boots_until(&self, until: Timestamp, report: &mut Report) {
        while let Some(left) = grid::time_left(until, Timestamp::now()) {
            tokio::time::sleep(left.min(BOOT_WATCH)).await;
            let Ok((memory, etag)) = self.store.memory().await else { continue };
            let boots =
                memory.slots.values().any(|slot| matches!(slot.phase, Phase::Launching | Phase::Booting));
            if !boots {
                let Some(left) = grid::time_left(until, Timestamp::now()) else { return };
                tokio::time::sleep(left).await;
                return;
            }
            let observation = self.observer.observe(until, &memory, Scope::Boots).await;
            let Some(planned) = promote(&observation, memory.clone(), Timestamp::now()) else { continue };
            log_decisions(&memory, &planned.memory);
            if self.commit(planned.memory.clone(), etag, report).await.is_some() {
                self.publish(&planned, &observation, report).await;
            }
        }
    }

    /// Writes memory over what was read. `None` if somebody else was faster: then nothing that was
    /// planned may be done.
    async fn commit(
        &self,
        memory: Memory,
        etag: Option<String>,
        report: &mut Report,
    ) -> Option<(Memory, String)> {
        match self.store.write_memory(memory, etag.as_deref()).await {
            Ok(Written::Ours { memory, etag }) => Some((*memory, etag)),
            Ok(Written::Lost) => {
                report.skipped += 1;
                tracing::info!("another invocation was faster; this tick is dropped");
                None
            }
            Err(error) => {
                note(report, "the tick is dropped: its intents cannot be written", &error);
                None
            }
        }
    }

    async fn publish(&self, planned: &Plan, observation: &observation::Observation, report: &mut Report) {
        let Some(registry) = &planned.registry else { return };
        match self.store.publish(registry, observation.registry_etag.as_deref()).await {
            Ok(()) => {
                tracing::info!(
                    revision = registry.revision,
                    workers = registry.workers.len(),
                    "registry published"
                );
                // A hint only: load balancers read the registry every two seconds anyway.
                self.observer.refresh_load_balancers(observation).await;
            }
            Err(error) => note(report, "the registry is not published", &error),
        }
    }
}

fn note(report: &mut Report, what: &str, error: &StoreError) {
    let text = format!("{what}: {}", fleet::telemetry::error_chain(error));
    tracing::error!("{text}");
    report.failures.push(text);
}

/// One log line for each decision that is new in `after`.
fn log_decisions(before: &Memory, after: &Memory) {
    let known = before.events.last();
    let new = after.events.iter().rev().take_while(|event| Some(*event) != known).collect::<Vec<_>>();
    for event in new.into_iter().rev() {
        tracing::info!("{}", event.text);
    }
    for held in after.held.iter().filter(|held| !before.held.contains(held)) {
        tracing::warn!("held back: {held}");
    }
}
