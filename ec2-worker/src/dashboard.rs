//! The operator's picture of the fleet: `GET /admin` draws it, `GET /admin/fleet` sends it.
//!
//! It is put together from three objects of the control bucket. Each of them may be missing or may
//! hold anything, and the picture says so. An operator looks here when something is wrong, so
//! everything that can be read is shown.
//!
//! | object | gives |
//! |---|---|
//! | `desired-count` | how many there should be |
//! | `fleet/registry.json` | who gets traffic |
//! | `fleet/state.json` | the rest: what the reconciler knows, did, and holds back |
//!
//! A poll every two seconds costs three reads each time: 5 US cents for a day of an open dashboard. All who
//! poll at the same moment share them.

pub mod directory;

use std::time::Duration;

use fleet::memory::{Event, LeavingStage, Memory, Phase, Slot};
use fleet::{DesiredCount, Registry, WorkerId, keys};
use jiff::Timestamp;
use serde::Serialize;

use crate::desired_count::{self, Amount};
use crate::flights::Recent;
use crate::secrets::SecretState;
use crate::stats::Rates;
use aws::bucket::{Bucket, Object, StoreError};

/// Enough for the story of an hour; the memory keeps [`Memory::MAX_EVENTS`].
const EVENTS: usize = 50;

#[derive(Debug, PartialEq, Serialize)]
pub struct Picture {
    /// When it was taken.
    pub at: Timestamp,
    #[serde(flatten)]
    pub fleet: Fleet,
    /// The worker that answers. `rates` are its own, of the last minute.
    pub worker: WorkerId,
    #[serde(flatten)]
    pub rates: Rates,
    /// When that worker last read its secrets.
    pub secrets: [SecretState; 2],
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Fleet {
    pub desired: Option<DesiredCount>,
    pub healthy: Option<usize>,
    /// Problems with the desired count, the registry or the reconciler's state, in sentences.
    pub problems: Vec<String>,
    /// When the reconciler last checked every worker.
    pub last_check: Option<Timestamp>,
    pub balancer: Option<LoadBalancer>,
    pub workers: Vec<Row>,
    /// Actions that the reconciler deliberately holds back.
    pub held: Vec<String>,
    /// Newest first.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadBalancer {
    pub id: WorkerId,
    pub state: State,
    pub since: Timestamp,
}

/// One worker, or a slot whose worker is still to be launched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub id: Option<WorkerId>,
    /// None for those on their way out.
    pub slot: Option<u32>,
    pub state: State,
    /// Why it is on its way out.
    pub reason: Option<String>,
    pub zone: Option<String>,
    pub release: Option<String>,
    /// Known of the release that has served last.
    pub version: Option<String>,
    /// When it entered its state.
    pub since: Timestamp,
    /// Whether load balancers send it requests.
    pub is_registered: bool,
}

/// A state in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    pub name: &'static str,
    pub meaning: &'static str,
    pub tone: Tone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    Ok,
    /// On its way.
    Busy,
    Warn,
    Bad,
}

/// Fetches the fleet's picture once for all requests that ask at the same moment. Nothing is kept: an
/// operator who reloads the page wants the newest state.
pub struct Fleets {
    control: Bucket,
    shared: Recent<Fleet>,
}

impl Fleets {
    pub fn new(control: Bucket) -> Self {
        Self { control, shared: Recent::kept_for(Duration::ZERO) }
    }

    pub async fn fetch(&self) -> Fleet {
        let fetch = || {
            let control = self.control.clone();
            async move { fetch(&control).await }
        };
        self.shared.get(fetch).await
    }

    /// Makes the next request fetch again, even if a fetch is in progress.
    pub fn forget(&self) {
        self.shared.forget();
    }
}

impl Picture {
    /// Combines the fleet's picture with the state of the worker that answers.
    pub fn new(mut fleet: Fleet, worker: WorkerId, rates: Rates, secrets: [SecretState; 2]) -> Self {
        fleet.problems.extend(secrets.iter().filter_map(SecretState::complaint));
        Self { at: Timestamp::now(), fleet, worker, rates, secrets }
    }
}

async fn fetch(control: &Bucket) -> Fleet {
    let (desired, registry, memory) = tokio::join!(
        control.get(keys::DESIRED_COUNT, DesiredCount::MAX_OBJECT_BYTES),
        control.get(keys::REGISTRY, Registry::MAX_BYTES),
        control.get(keys::STATE, Memory::MAX_BYTES),
    );
    draw(desired, registry, memory)
}

type Fetched = Result<Option<Object>, StoreError>;

fn draw(desired: Fetched, registry: Fetched, memory: Fetched) -> Fleet {
    let mut problems = Vec::new();
    let (registry, healthy) = match read_registry(registry) {
        Ok(registry) => {
            let healthy = registry.as_ref().map_or(0, |registry| registry.workers.len());
            (registry, Some(healthy))
        }
        Err(problem) => {
            problems.push(problem);
            (None, None)
        }
    };
    let memory = read_memory(memory).unwrap_or_else(|problem| {
        problems.push(problem);
        Memory::default()
    });
    let desired = match read_desired(desired, registry.as_ref()) {
        Ok(Amount { desired, problem, .. }) => {
            problems.extend(problem.map(|problem| format!("{problem}.")));
            Some(desired)
        }
        Err(problem) => {
            problems.push(problem);
            memory.desired
        }
    };
    Fleet {
        desired,
        healthy,
        problems,
        last_check: memory.last_tick,
        balancer: balancer(&memory),
        workers: rows(&memory, registry.as_ref()),
        held: held(&memory),
        events: memory.events.iter().rev().take(EVENTS).map(Event::told).collect(),
    }
}

fn read_registry(fetched: Fetched) -> Result<Option<Registry>, String> {
    let object = fetched.map_err(|error| cannot_be_read(keys::REGISTRY, &error))?;
    object.as_ref().map(desired_count::read_registry).transpose().map_err(|error| format!("{error}."))
}

fn read_memory(fetched: Fetched) -> Result<Memory, String> {
    let key = keys::STATE;
    let object = fetched
        .map_err(|error| cannot_be_read(key, &error))?
        .ok_or_else(|| format!("{key} is missing: the reconciler has not run yet."))?;
    // An object that is too large was cut, so it is not JSON.
    serde_json::from_slice(&object.bytes)
        .map_err(|_| format!("{key} cannot be parsed; the reconciler starts a new one."))
}

fn read_desired(fetched: Fetched, registry: Option<&Registry>) -> Result<Amount, String> {
    let object = fetched.map_err(|error| cannot_be_read(keys::DESIRED_COUNT, &error))?;
    desired_count::parse(object.as_ref(), registry.cloned()).map_err(|error| format!("{error}."))
}

fn cannot_be_read(key: &str, error: &StoreError) -> String {
    format!("{key} cannot be read: {error}.")
}

/// Returns the actions that the reconciler holds back, and its notice. The reconciler repeats the notice
/// among the held actions for as long as it applies; it is shown once.
fn held(memory: &Memory) -> Vec<String> {
    let notice = memory.notice.iter().filter(|notice| !memory.held.contains(notice));
    notice.chain(&memory.held).cloned().collect()
}

fn rows(memory: &Memory, registry: Option<&Registry>) -> Vec<Row> {
    let registered = |id: &WorkerId| registry.and_then(|registry| registry.workers.get(id));
    let slots = memory.slots.iter().map(|(number, slot)| Row {
        id: slot.worker.clone(),
        slot: Some(*number),
        state: State::of_phase(slot.phase),
        reason: None,
        zone: Some(slot.zone.clone()),
        release: Some(slot.release.clone()),
        version: version(memory, slot),
        since: slot.since,
        is_registered: slot.worker.as_ref().and_then(registered).is_some(),
    });
    let leaving = memory.leaving.iter().map(|(id, leaving)| Row {
        id: Some(id.clone()),
        slot: None,
        state: State::of_stage(leaving.stage),
        reason: Some(leaving.reason.to_string()),
        zone: registered(id).map(|worker| worker.zone.clone()),
        release: None,
        version: None,
        since: leaving.since,
        is_registered: registered(id).is_some(),
    });
    slots.chain(leaving).collect()
}

fn version(memory: &Memory, slot: &Slot) -> Option<String> {
    memory.proven.as_ref().filter(|proven| proven.id == slot.release).map(|proven| proven.version.clone())
}

fn balancer(memory: &Memory) -> Option<LoadBalancer> {
    let holder = memory.balancer.holder.as_ref()?;
    let (state, since) = match holder.silent_since {
        Some(silent) => (State::SILENT, silent),
        None if holder.answered => (State::HEALTHY, holder.since),
        None => (State::BOOTING, holder.since),
    };
    Some(LoadBalancer { id: holder.id.clone(), state, since })
}

impl State {
    const fn new(tone: Tone, name: &'static str, meaning: &'static str) -> Self {
        Self { name, meaning, tone }
    }

    const HEALTHY: Self = Self::new(Tone::Ok, "healthy", "it answered the last check");
    const BOOTING: Self = Self::new(Tone::Busy, "booting", "it runs and has not answered a check yet");
    const SILENT: Self = Self::new(Tone::Bad, "silent", "it does not answer its checks");

    fn of_phase(phase: Phase) -> Self {
        match phase {
            Phase::Launching => Self::new(Tone::Busy, "launching", "requested; EC2 does not list it yet"),
            Phase::Booting => Self::BOOTING,
            Phase::Healthy => Self::HEALTHY,
            Phase::Suspect => {
                Self::new(Tone::Warn, "suspect", "it missed one check; after one more it is replaced")
            }
            Phase::Dead => Self::new(Tone::Bad, "dead", "it does not answer and will be terminated"),
            Phase::Unresolved => {
                Self::new(Tone::Warn, "unresolved", "EC2 has not said yet whether it was launched")
            }
        }
    }

    fn of_stage(stage: LeavingStage) -> Self {
        match stage {
            LeavingStage::Draining => {
                Self::new(Tone::Busy, "draining", "it gets no new requests and finishes the current ones")
            }
            LeavingStage::Terminating => Self::new(Tone::Busy, "terminating", "EC2 is terminating it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use aws::bucket::ETag;

    fn object(text: &str) -> Fetched {
        Ok(Some(Object {
            bytes: text.as_bytes().to_vec(),
            size: text.len() as u64,
            etag: ETag("\"e\"".to_owned()),
            nonce: None,
        }))
    }

    fn registry() -> Fetched {
        let workers = json!({"i-a": {"addr": "10.0.0.1:8080", "zone": "z1"}});
        let registry =
            json!({"revision": 1, "written_at": "2026-01-01T00:00:00Z", "desired": 2, "workers": workers});
        object(&registry.to_string())
    }

    fn slot(phase: &str, worker: Option<&str>) -> serde_json::Value {
        json!({"attempt": 1, "release": "r1", "subnet": "s", "zone": "z1", "phase": phase,
               "since": "2026-01-01T00:00:00Z", "worker": worker, "addr": null})
    }

    fn memory() -> serde_json::Value {
        json!({
            "last_tick": "2026-01-01T00:01:00Z",
            "desired": 3,
            "held": ["nothing is launched: a brake"],
            "slots": {"1": slot("healthy", Some("i-a")), "2": slot("launching", None)},
            "leaving": {"i-b": {"stage": "draining", "since": "2026-01-01T00:00:00Z", "reason": "not wanted"}},
            "events": [{"at": "2026-01-01T00:00:00Z", "text": "older"}, {"at": "2026-01-01T00:00:01Z", "text": "newer"}],
        })
    }

    fn unavailable() -> Fetched {
        let source = "no route".into();
        Err(StoreError::Unavailable { operation: "GetObject", bucket: "c".to_owned(), source })
    }

    #[test]
    fn a_fleet_is_shown_whole() {
        let fleet = draw(object("4"), registry(), object(&memory().to_string()));
        assert_eq!((fleet.desired.map(DesiredCount::get), fleet.healthy), (Some(4), Some(1)));
        assert_eq!(fleet.problems, Vec::<String>::new());
        let rows: Vec<_> = fleet
            .workers
            .iter()
            .map(|row| (row.id.as_ref().map(WorkerId::as_str), row.slot, row.state.name, row.is_registered))
            .collect();
        assert_eq!(
            rows,
            [
                (Some("i-a"), Some(1), "healthy", true),
                (None, Some(2), "launching", false),
                (Some("i-b"), None, "draining", false),
            ]
        );
        assert_eq!(fleet.workers[2].reason.as_deref(), Some("not wanted"));
        assert_eq!(fleet.events.iter().map(|event| &*event.text).collect::<Vec<_>>(), ["newer", "older"]);
        assert_eq!(fleet.held, ["nothing is launched: a brake"]);
    }

    #[test]
    fn the_notice_is_shown_once() {
        let mut memory: Memory = serde_json::from_value(memory()).expect("a memory");
        memory.notice = Some("the count is nonsense".to_owned());
        assert_eq!(held(&memory), ["the count is nonsense", "nothing is launched: a brake"]);
        memory.held.push("the count is nonsense".to_owned());
        assert_eq!(held(&memory), ["nothing is launched: a brake", "the count is nonsense"]);
    }

    #[test]
    fn unreadable_objects_are_named_and_the_rest_is_shown() {
        let good = || object(&memory().to_string());
        let table: [(Fleet, &str); 6] = [
            (draw(object("4"), registry(), Ok(None)), "fleet/state.json is missing"),
            (draw(object("4"), registry(), object("<html>")), "fleet/state.json cannot be parsed"),
            (draw(object("4"), registry(), unavailable()), "fleet/state.json cannot be read"),
            (draw(object("banana"), registry(), good()), "desired-count holds `banana`"),
            (draw(unavailable(), registry(), good()), "desired-count cannot be read"),
            (draw(object("4"), object("{}"), good()), "fleet/registry.json cannot be parsed"),
        ];
        for (fleet, problem) in table {
            assert!(fleet.problems.len() == 1 && fleet.problems[0].contains(problem), "{fleet:?}");
            assert!(fleet.desired.is_some(), "{fleet:?}");
        }
        let fleet = draw(unavailable(), unavailable(), unavailable());
        assert_eq!((fleet.problems.len(), fleet.desired, fleet.healthy), (3, None, None));
        let fleet = draw(object("banana"), Ok(None), good());
        assert_eq!(fleet.desired.map(DesiredCount::get), Some(3), "what the reconciler knows");
    }

    #[test]
    fn only_the_proven_release_shows_its_version() {
        let mut memory: Memory = serde_json::from_value(memory()).expect("a memory");
        let stack = "vigia".parse().expect("a name");
        let spec = json!({"ami": "a", "instance_type": "t", "subnets": [], "security_group": "s",
                          "instance_profile": "p", "user_data": "secret-ish"});
        let spec = serde_json::from_value(spec).expect("a definition");
        let release = fleet::release::Release::new(stack, fleet::Profile::Secure, "1.2.3".to_owned(), spec);
        memory.slots.get_mut(&1).expect("slot 1").release = release.id.clone();
        memory.proven = Some(release);
        let rows = rows(&memory, None);
        assert_eq!((rows[0].version.as_deref(), rows[1].version.as_deref()), (Some("1.2.3"), None));
    }
}
