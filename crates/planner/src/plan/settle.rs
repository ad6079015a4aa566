//! Writes down how launches and the rest went. What an error means for the next tick is decided here.

use std::collections::BTreeSet;

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{Memory, Phase, Refusal, RefusalCause, Slot};
use fleet::{Policy, WorkerId};
use jiff::Timestamp;

use crate::decision::{Decision, LaunchDecision};
use crate::effect::{Failure, Launch};
use crate::held_back::HeldBack;
use crate::observation::Role;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outcomes {
    pub launched: Vec<(Launch, Result<WorkerId, Failure>)>,
    /// When workers were launched last before these.
    pub last_launch: Option<Timestamp>,
    pub not_terminated: Vec<(WorkerId, String)>,
    pub not_associated: Vec<(WorkerId, String)>,
    /// How the caps on CPU credits went.
    pub credits: Vec<(WorkerId, Result<(), Failure>)>,
}

impl Outcomes {
    pub fn is_empty(&self) -> bool {
        let is_without_calls = self.launched.is_empty() && self.not_terminated.is_empty();
        is_without_calls && self.not_associated.is_empty() && self.credits.is_empty()
    }
}

/// What the outcomes of a tick have led to.
#[derive(Debug, Default)]
pub struct Settled {
    /// How many of the newest events in the memory are of these outcomes.
    pub news: usize,
    /// The lessons of the outcomes, oldest first. Memory has the sentences.
    pub decisions: Vec<LaunchDecision>,
    /// The actions that did not take place, and why.
    pub held_back: Vec<HeldBack>,
}

impl Settled {
    fn record(&mut self, memory: &mut Memory, now: Timestamp, decision: LaunchDecision) {
        self.news += Decision::from(decision.clone()).record(memory, now);
        self.decisions.push(decision);
    }

    fn hold(&mut self, memory: &mut Memory, held_back: HeldBack) {
        memory.held.push(held_back.to_string());
        self.held_back.push(held_back);
    }
}

pub fn settle(memory: &mut Memory, outcomes: &Outcomes, policy: &Policy, now: Timestamp) -> Settled {
    let mut settled = Settled::default();
    let intended = intended_now(memory);
    let last_launch = memory.last_launch;
    for (launch, result) in &outcomes.launched {
        let is_holder = matches!(result, Ok(id) if holds_address(memory, id));
        let slot = match launch.role {
            Role::Worker => memory.slots.get_mut(&launch.slot),
            Role::LoadBalancer => {
                memory.balancer_mut(launch.slot).and_then(|balancer| balancer.successor.as_mut())
            }
        };
        let Some(slot) = slot.filter(|slot| slot.attempt == launch.attempt) else { continue };
        let &Launch { role, slot: number, attempt, .. } = launch;
        let decision = match result {
            Ok(id) if slot.worker.as_ref() == Some(id) => continue,
            // An attempt of a memory that was lost.
            Ok(id) if is_holder => {
                pass(memory, policy, launch);
                LaunchDecision::UsedByHolder { id: id.clone(), role, slot: number, attempt }
            }
            Ok(id) => {
                launched(slot, id, now);
                end_refusal(memory, &mut settled, launch, now);
                LaunchDecision::Launched { id: id.clone(), role, slot: number, attempt }
            }
            // Of an instance that was seen this says nothing.
            Err(Failure { kind, why })
                if slot.worker.is_some() && (is_refusal(*kind) || *kind == AwsErrorKind::TokenMismatch) =>
            {
                settled.hold(memory, unanswered(launch, why));
                continue;
            }
            Err(Failure { kind, why }) if is_refusal(*kind) => {
                let is_new = last_launch != outcomes.last_launch && Some(slot.since) == last_launch;
                let is_sent_before = !is_new || slot.phase == Phase::Unresolved;
                leave(memory, launch, *kind, is_sent_before, now);
                refused(memory, &mut settled, policy, launch, *kind, why, now);
                continue;
            }
            Err(Failure { kind: AwsErrorKind::TokenSpent | AwsErrorKind::TokenMismatch, why }) => {
                pass(memory, policy, launch);
                LaunchDecision::UsedUp { role, slot: number, attempt, why: why.clone() }
            }
            // It may have taken place, or EC2 says that it is too busy: the same launch is sent again.
            Err(Failure { kind, why }) => {
                if *kind == AwsErrorKind::Throttled && slot.phase == Phase::Launching {
                    slot.since = now;
                }
                settled.hold(memory, unanswered(launch, why));
                continue;
            }
        };
        settled.record(memory, now, decision);
    }
    // What took place nowhere begins no pause.
    if !intended.is_empty() && !intended.iter().any(|launch| is_intended(memory, launch)) {
        memory.last_launch = outcomes.last_launch;
    }
    for (id, why) in &outcomes.not_terminated {
        settled.hold(memory, HeldBack::TerminationFailed { id: id.clone(), why: why.clone() });
    }
    for (id, why) in &outcomes.not_associated {
        settled.hold(memory, HeldBack::AddressFailed { id: id.clone(), why: why.clone() });
    }
    for (id, result) in &outcomes.credits {
        settle_credits(memory, &mut settled, policy, id, result, now);
    }
    settled
}

fn unanswered(launch: &Launch, why: &str) -> HeldBack {
    HeldBack::Launch { role: launch.role, slot: launch.slot, why: why.to_owned() }
}

/// EC2 says that it launched nothing, and will not if the same is asked for again now.
const fn is_refusal(kind: AwsErrorKind) -> bool {
    matches!(
        kind,
        AwsErrorKind::NoCapacity
            | AwsErrorKind::NotOffered
            | AwsErrorKind::Definition
            | AwsErrorKind::AccountLimit
            | AwsErrorKind::PendingVerification
            | AwsErrorKind::Denied
            | AwsErrorKind::Propagating
    )
}

/// Empties the place of a launch that was refused. A permission and a definition are looked at before the
/// client token: where the launch was sent before, it may have taken place then, and its slot is kept.
fn leave(memory: &mut Memory, launch: &Launch, kind: AwsErrorKind, is_sent_before: bool, now: Timestamp) {
    let is_proof = matches!(
        kind,
        AwsErrorKind::NoCapacity | AwsErrorKind::AccountLimit | AwsErrorKind::PendingVerification
    );
    match memory.slots.get_mut(&launch.slot).filter(|_| launch.role == Role::Worker) {
        Some(slot) if is_sent_before && !is_proof => slot.unwant(now),
        Some(_) | None => empty(memory, launch),
    }
}

/// Records a refusal against its cause: the account, the zones, or the definition.
fn refused(
    memory: &mut Memory,
    settled: &mut Settled,
    policy: &Policy,
    launch: &Launch,
    kind: AwsErrorKind,
    why: &str,
    now: Timestamp,
) {
    let is_everywhere = |subnets: &dyn Fn(&str) -> bool| {
        launch.spec.subnets.iter().all(|subnet| subnet.id == launch.subnet || subnets(&subnet.id))
    };
    match kind {
        AwsErrorKind::NoCapacity => {
            // Nothing is launched into a zone that is avoided unless all others are worse: they may be out.
            let until = now + policy.no_capacity_avoid;
            let was_avoided =
                memory.avoid.insert(launch.subnet.clone(), until).is_some_and(|before| before != until);
            let none = memory.not_offered.get(&launch.release);
            let is_full =
                |id: &str| memory.avoid.contains_key(id) || none.is_some_and(|none| none.contains(id));
            if was_avoided || is_everywhere(&is_full) {
                let kind = &launch.spec.instance_type;
                let why = format!("no zone has capacity for {kind} ({why}).");
                return refuse(memory, settled, launch, RefusalCause::Capacity, &why, now);
            }
            let (role, slot, subnet, why) = (launch.role, launch.slot, launch.subnet.clone(), why.to_owned());
            let decision =
                LaunchDecision::NoCapacity { role, slot, subnet: subnet.clone(), why: why.clone() };
            settled.hold(memory, HeldBack::NoCapacity { role, subnet, why });
            settled.record(memory, now, decision);
        }
        AwsErrorKind::NotOffered => {
            let none = memory.not_offered.entry(launch.release.clone()).or_default();
            none.insert(launch.subnet.clone());
            if is_everywhere(&|id| memory.not_offered[&launch.release].contains(id)) {
                return blame(memory, settled, launch, why, now);
            }
            let (role, slot, subnet, why) = (launch.role, launch.slot, launch.subnet.clone(), why.to_owned());
            settled.record(memory, now, LaunchDecision::NotOffered { role, slot, subnet, why });
        }
        AwsErrorKind::Propagating if has_had_time(memory, policy, launch, now) => {
            blame(memory, settled, launch, why, now)
        }
        AwsErrorKind::Definition => blame(memory, settled, launch, why, now),
        AwsErrorKind::AccountLimit => refuse(memory, settled, launch, RefusalCause::Limit, why, now),
        AwsErrorKind::PendingVerification => {
            refuse(memory, settled, launch, RefusalCause::Verification, why, now)
        }
        _ => refuse(memory, settled, launch, RefusalCause::Denied, why, now),
    }
}

/// A role that is not known after so long never will be.
fn has_had_time(memory: &Memory, policy: &Policy, launch: &Launch, now: Timestamp) -> bool {
    memory.refusals.get(&launch.spec.market).is_some_and(|refusal| {
        refusal.definitions.contains(&launch.release)
            && now.duration_since(refusal.since) >= policy.role_propagates
    })
}

/// A launch that its definition makes impossible counts as a failed boot of it; those of one tick are one.
fn blame(memory: &mut Memory, settled: &mut Settled, launch: &Launch, why: &str, now: Timestamp) {
    let id = &launch.release;
    let (role, release) = (launch.role, id.clone());
    settled.hold(memory, HeldBack::DefinitionRefused { role, release, why: why.to_owned() });
    let boots = match launch.role {
        Role::Worker => memory.boots.entry(id.clone()).or_default(),
        Role::LoadBalancer => match memory.balancer_mut(launch.slot) {
            Some(balancer) if balancer.boots_of == *id => &mut balancer.boots,
            Some(balancer) => &mut balancer.proven_boots,
            None => return,
        },
    };
    let is_first = boots.last_failure != Some(now);
    boots.failures += u32::from(is_first);
    (boots.last_failure, boots.refused) = (Some(now), Some(why.to_owned()));
    if is_first {
        let (release, why) = (id.clone(), why.to_owned());
        settled.record(memory, now, LaunchDecision::DefinitionRefused { role, release, why });
    }
}

/// The reason lies outside the definition. A refusal that repeats is no event.
fn refuse(
    memory: &mut Memory,
    settled: &mut Settled,
    launch: &Launch,
    cause: RefusalCause,
    why: &str,
    now: Timestamp,
) {
    // Capacity is a matter of the instance type; everything else is one of the account.
    let before = match cause {
        RefusalCause::Capacity => memory.no_capacity.remove(&launch.release),
        _ => memory.refusals.remove(&launch.spec.market).filter(|before| before.cause == cause),
    };
    let is_first = before.is_none();
    let mut refusal = before.unwrap_or_else(|| Refusal {
        cause,
        why: String::new(),
        definitions: BTreeSet::new(),
        since: now,
        last: now,
        count: 0,
        tries: 0,
    });
    refusal.why = why.to_owned();
    let is_new = refusal.definitions.insert(launch.release.clone());
    // Launches of one tick are one try, and a definition that was not tried before says nothing of the others.
    if is_first || (!is_new && refusal.last != now) {
        refusal.tries = refusal.tries.saturating_add(1);
    }
    refusal.last = now;
    refusal.count = refusal.count.saturating_add(1);
    match cause {
        RefusalCause::Capacity => drop(memory.no_capacity.insert(launch.release.clone(), refusal)),
        _ => drop(memory.refusals.insert(launch.spec.market, refusal)),
    }
    if !memory.held.iter().any(|held| held.contains(why)) {
        settled.hold(memory, HeldBack::Refused { role: launch.role, why: why.to_owned() });
    }
    if is_first {
        settled.record(memory, now, LaunchDecision::Refused { role: launch.role, why: why.to_owned() });
    }
}

fn end_refusal(memory: &mut Memory, settled: &mut Settled, launch: &Launch, now: Timestamp) {
    let of_account = memory.refusals.remove(&launch.spec.market);
    let of_type = memory.no_capacity.remove(&launch.release);
    if let Some(refusal) = of_account.or(of_type) {
        settled.record(memory, now, LaunchDecision::LaunchesAgain { refusals: refusal.count });
    }
}

fn settle_credits(
    memory: &mut Memory,
    settled: &mut Settled,
    policy: &Policy,
    id: &WorkerId,
    result: &Result<(), Failure>,
    now: Timestamp,
) {
    match result {
        Ok(()) => drop(memory.credits.done.insert(id.clone())),
        Err(Failure { kind: AwsErrorKind::NotSupported, .. }) => {
            memory.credits.done.insert(id.clone());
        }
        // It is on its way out.
        Err(Failure { kind: AwsErrorKind::NotFound, .. }) => {}
        Err(Failure { why, .. }) => {
            settled.hold(memory, HeldBack::CreditsFailed { id: id.clone(), why: why.clone() });
            memory.credits.refused = Some((why.clone(), now + policy.credits_again_after));
        }
    }
}

/// Slots that the tick has opened, and their attempts.
fn intended_now(memory: &Memory) -> Vec<(u32, u32)> {
    let is_new = |slot: &Slot| slot.phase == Phase::Launching && Some(slot.since) == memory.last_launch;
    let slots = memory.slots.iter().filter(|(_, slot)| is_new(slot));
    slots.map(|(number, slot)| (*number, slot.attempt)).collect()
}

fn is_intended(memory: &Memory, (number, attempt): &(u32, u32)) -> bool {
    memory.slots.get(number).is_some_and(|slot| slot.attempt == *attempt)
}

fn launched(slot: &mut Slot, id: &WorkerId, now: Timestamp) {
    slot.worker = Some(id.clone());
    slot.missing_since = None;
    slot.phase = Phase::Booting;
    slot.since = now;
}

fn holds_address(memory: &Memory, id: &WorkerId) -> bool {
    memory.balancers().filter_map(|balancer| balancer.holder.as_ref()).any(|holder| holder.id == *id)
}

fn empty(memory: &mut Memory, launch: &Launch) {
    match launch.role {
        Role::Worker => drop(memory.slots.remove(&launch.slot)),
        Role::LoadBalancer => {
            if let Some(balancer) = memory.balancer_mut(launch.slot) {
                balancer.successor = None;
            }
        }
    }
}

/// Empties the slot of an attempt that is used up. Where a lost memory used up many, EC2 may show none
/// of them any more, and each one tried costs a tick: the next one has twice the number.
fn pass(memory: &mut Memory, policy: &Policy, launch: &Launch) {
    empty(memory, launch);
    let used = match (launch.role, launch.slot) {
        (Role::Worker, slot) => memory.attempts.entry(slot).or_default(),
        (Role::LoadBalancer, 0) => &mut memory.balancer.attempt,
        (Role::LoadBalancer, place) => &mut memory.more_balancers.entry(place).or_default().attempt,
    };
    let passed = launch.attempt.saturating_sub(1).min(policy.attempt_stride);
    *used = (*used).max(launch.attempt.saturating_add(passed));
}
