//! Follows a release until every machine runs it, or until it is known to fail.
//!
//! The reconciler rolls a release out; this module only watches, so interrupting it stops nothing.
//!
//! | what `fleet/state.json` and the address say | the rollout |
//! |---|---|
//! | every worker is of the release and answers, and so is the load balancer with the address | is done |
//! | two boots of the release failed | has stopped: the old workers stay |
//! | a boot of the released load balancer failed | has stopped: the old one keeps the address |
//! | nothing changes for ten minutes | is stuck, and goes on by itself once what holds it back is over |

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::keys;
use fleet::memory::{Balancer, Memory, Phase, Slot};
use fleet::release::{BalancerSpec, Release};
use tokio::time::{Instant, sleep};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result};
use crate::output::Progress;
use crate::resources::{documents, load_balancer};
use crate::status::STOPS_FIRST;

/// A boot is given up after 180 s; a successful one is followed by a trial and a drain. This is twice that
/// time.
const STALL: Duration = Duration::from_secs(600);
/// The reconciler writes its memory every two seconds while something boots.
const EVERY: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Done,
    Under(Step),
    /// It will not finish by itself, and why.
    Failed(String),
}

/// How far it is; a change means progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Step {
    updated: usize,
    left: usize,
    failures: u32,
    balancer: BalancerStep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BalancerStep {
    #[default]
    Current,
    Waiting,
    Booting,
}

/// The machines whose rollout is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    LoadBalancers,
}

pub async fn follow(aws: &Aws, release: &Release, scope: Scope, progress: &Progress) -> Result<()> {
    let mut last = (Step::default(), Instant::now());
    let mut is_told = false;
    loop {
        let memory: Memory = documents::read_as(aws, keys::STATE).await?.unwrap_or_default();
        if !is_told && scope == Scope::All && stops_first(&memory, release) {
            is_told = true;
            progress.line(&format!("  {STOPS_FIRST}"));
        }
        let holders = load_balancer::released(aws).await?;
        let seen = match (scope, judge(&memory, release, &holders)) {
            (Scope::LoadBalancers, Seen::Under(step)) if step.balancer == BalancerStep::Current => Seen::Done,
            (_, seen) => seen,
        };
        let step = match seen {
            Seen::Done => return Ok(()),
            Seen::Failed(why) => {
                return Err(DeployError::new(Exit::NotHealthy, why).hint(
                    "The service keeps running. `bootstrap logs` and `bootstrap status` (make logs, make \
                        status) show the cause. Then deploy a fixed release, or the previous one.",
                ));
            }
            Seen::Under(step) => step,
        };
        progress.waiting(&step.to_string());
        if step != last.0 {
            progress.line(&format!("  {step}"));
            last = (step, Instant::now());
        } else if last.1.elapsed() > STALL {
            let what = format!(
                "nothing of the rollout of release {} has changed for {} min: {}",
                release.id,
                STALL.as_secs() / 60,
                if memory.held.is_empty() { last.0.to_string() } else { memory.held.join("; ") }
            );
            return Err(DeployError::new(Exit::NotHealthy, what).hint(
                "The rollout continues by itself when this is over. `bootstrap status` (make status) \
                    shows its progress.",
            ));
        }
        sleep(EVERY).await;
    }
}

/// Returns whether a worker of another release will be stopped before the next one is launched.
fn stops_first(memory: &Memory, release: &Release) -> bool {
    memory.stops_first(release) && memory.slots.values().any(|slot| slot.release != release.id)
}

/// Judges the rollout. `holders` are the definitions of the load balancers that have an address, by their
/// places.
fn judge(memory: &Memory, release: &Release, holders: &BTreeMap<u32, Option<String>>) -> Seen {
    let failures = memory.boots.get(&release.id).map_or(0, |boots| boots.failures);
    let left = memory.slots.values().filter(|slot| slot.release != release.id).count();
    let is_updated = |slot: &&Slot| slot.release == release.id && slot.phase == Phase::Healthy;
    let updated = memory.slots.values().filter(is_updated).count();
    if left > 0 && failures >= release.policy.freeze_after {
        return Seen::Failed(format!(
            "{failures} workers of release {} did not start: the rollout has stopped, and {} of an older \
                release {}",
            release.id,
            counted(left),
            if left == 1 { "stays" } else { "stay" }
        ));
    }
    let mut balancer = BalancerStep::Current;
    for (place, _) in release.balancer.iter().flat_map(BalancerSpec::places) {
        let spec = release.balancer.as_ref().map(|spec| &spec.id);
        if holders.get(&place).and_then(Option::as_ref) == spec {
            continue;
        }
        let known = if place == 0 { Some(&memory.balancer) } else { memory.more_balancers.get(&place) };
        let is_of_release = |known: &&Balancer| Some(&known.boots_of) == spec;
        if let Some(known) = known.filter(is_of_release).filter(|known| known.boots.failures > 0) {
            let definition = spec.map_or("", String::as_str);
            return Seen::Failed(if known.boots.crashes {
                format!(
                    "the load balancer of the new definition {definition} kept crashing: one of an older \
                        definition takes the address back"
                )
            } else {
                format!(
                    "the load balancer of the new definition {definition} did not answer within 180 s of its \
                        launch: the old one keeps the address"
                )
            });
        }
        let boots = known.is_some_and(|known| known.successor.is_some());
        balancer = if boots { BalancerStep::Booting } else { BalancerStep::Waiting };
    }
    let desired = memory.desired.map_or(0, |desired| desired.get() as usize);
    let is_done =
        left == 0 && updated >= desired.min(memory.slots.len()) && balancer == BalancerStep::Current;
    if is_done { Seen::Done } else { Seen::Under(Step { updated, left, failures, balancer }) }
}

fn counted(workers: usize) -> String {
    if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of the release, {} of another release", counted(self.updated), self.left)?;
        if self.failures > 0 {
            write!(f, "; boots that failed: {}", self.failures)?;
        }
        match self.balancer {
            BalancerStep::Current => Ok(()),
            BalancerStep::Waiting => write!(f, "; a new load balancer is to be launched"),
            BalancerStep::Booting => write!(f, "; a new load balancer boots, the old one serves"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet::Profile;
    use fleet::release::InstanceSpec;
    use serde_json::{Value, json};

    use super::*;

    fn release() -> Release {
        let spec: InstanceSpec = serde_json::from_value(json!({
            "ami": "ami-1", "instance_type": "t4g.nano", "subnets": [], "security_group": "sg-1",
            "instance_profile": "p", "user_data": "#cloud-config\n"
        }))
        .expect("a definition as it is in release.json");
        let stack = "vigia".parse().expect("valid");
        let mut release = Release::new(stack, Profile::Secure, "1".to_owned(), spec.clone());
        release.balancer = Some(BalancerSpec::new("eipalloc-1".to_owned(), spec));
        release
    }

    fn slot(release: &str, phase: &str) -> Value {
        json!({
            "attempt": 1, "release": release, "subnet": "s", "zone": "z", "phase": phase,
            "since": "2026-01-01T00:00:00Z", "worker": null, "addr": null
        })
    }

    fn seen(memory: Value, is_current: bool) -> Seen {
        let release = release();
        let memory: Memory = serde_json::from_value(memory).expect("a memory");
        let spec = release.balancer.as_ref().expect("it has one").id.clone();
        let holder = if is_current { spec } else { "before".to_owned() };
        judge(&memory, &release, &BTreeMap::from([(0, Some(holder))]))
    }

    #[test]
    fn it_is_done_when_every_machine_is_of_the_release_and_answers() {
        let id = release().id;
        let two = |one, other| json!({"desired": 2, "slots": {"0": one, "1": other}});
        let (new, old) = (slot(&id, "healthy"), slot("before", "healthy"));
        assert_eq!(seen(two(new.clone(), new.clone()), true), Seen::Done);
        assert!(matches!(seen(two(new.clone(), old), true), Seen::Under(Step { updated: 1, left: 1, .. })));
        assert!(matches!(seen(two(new.clone(), slot(&id, "booting")), true), Seen::Under(_)));
        assert!(matches!(seen(two(new.clone(), new), false), Seen::Under(_)), "the load balancer is another");
        assert_eq!(seen(json!({"desired": 0}), true), Seen::Done, "no workers are wanted");
    }

    #[test]
    fn two_failed_boots_stop_a_rollout_while_old_workers_serve() {
        let id = release().id;
        let with = |failures| {
            json!({
                "desired": 1, "slots": {"0": slot("before", "healthy")},
                "boots": {id.clone(): {"failures": failures, "last_failure": "2026-01-01T00:00:00Z"}}
            })
        };
        assert!(matches!(seen(with(1), true), Seen::Under(Step { failures: 1, .. })));
        let Seen::Failed(why) = seen(with(2), true) else { panic!("it has stopped") };
        assert!(why.contains("2 workers") && why.contains("1 worker of an older release stays"), "{why}");
    }

    #[test]
    fn a_rollout_without_room_stops_one_worker_first() {
        let mut release = release();
        let memory = |memory: Value| serde_json::from_value::<Memory>(memory).expect("a memory");
        let old = memory(json!({"slots": {"0": slot("before", "healthy")}}));
        assert!(!stops_first(&old, &release));
        let refused = memory(json!({"stop_first": release.id, "slots": {"0": slot("before", "healthy")}}));
        assert!(stops_first(&refused, &release), "EC2 refused an extra worker");
        release.rollout = fleet::release::Rollout::StopFirst;
        assert!(stops_first(&old, &release));
        let new = memory(json!({"slots": {"0": slot(&release.id, "healthy")}}));
        assert!(!stops_first(&new, &release), "it is over");
    }

    #[test]
    fn only_a_failed_boot_of_the_new_load_balancer_stops_a_rollout() {
        let spec = release().balancer.expect("a definition").id;
        let with = |of: &str| json!({"balancer": {"boots_of": of, "boots": {"failures": 1, "last_failure": "2026-01-01T00:00:00Z"}}});
        assert!(matches!(seen(with(&spec), false), Seen::Failed(_)));
        let crashed = json!({"balancer": {"boots_of": spec, "boots": {"failures": 1, "last_failure": null, "crashes": true}}});
        assert!(matches!(seen(crashed, false), Seen::Failed(why) if why.contains("kept crashing")));
        assert!(matches!(seen(with("another"), false), Seen::Under(_)));
        assert_eq!(seen(with(&spec), true), Seen::Done);
    }
}
