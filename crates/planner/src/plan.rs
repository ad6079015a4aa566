//! Decides what to do, from an observation, the memory of earlier ticks and a policy. Pure: no clock, no
//! network, no randomness. The same input gives the same plan.
//!
//! Each number is a field of [`Policy`], with its default in parentheses. A test compares the defaults with the
//! code, and writes them again if `VIGIA_UPDATE_TABLES=1` is set; `docs/policy.md` lists all fields.
//!
//! | rule | says | in |
//! |---|---|---|
//! | blind | instances unknown, no release, or neither release nor registry ever known: nothing is launched, terminated or published | `plan` |
//! | last release | if the release cannot be read, the last release stays in force | `plan` |
//! | unread registry | if the registry cannot be read, nothing is published, no drain ends, and no worker is terminated for its health | `plan`, `leave` |
//! | young | for `young_for` (50 s) after memory was lost no worker is launched, terminated or drained; workers of the registry that EC2 does not show stay in it for `missing_after` (5 min) | `is_young`, `registry` |
//! | desired | a count that is missing or wrong is not acted on; the last good count stays in force, if need be the registry's; a count below `lowering_share` (half) of it must be read again `confirm_lowering` (15 s) later | `resize` |
//! | unseen | an instance that EC2 does not show is not gone: its launch is repeated with the same token, which returns it if it lives; it is never terminated | `follow` |
//! | unresolved | a launch without any answer for `unresolved_after` (3 min), or whose zone does not answer, keeps its slot and its token, and another slot takes its place; a launch that is not wanted any more is not repeated, and keeps them for `missing_after` (5 min) from then on; once enough serve none is wanted | `follow`, `resize` |
//! | unreachable | nothing is launched, or launched again, into a zone that EC2 does not answer for | `follow`, `resize`, `balancer` |
//! | dead | refuses every probe of one tick, or is silent in two ticks in a row, at least `silence_spacing` (15 s) apart | `follow` |
//! | crash loop | `crash_restarts` (three) restarts seen within `crash_window` (5 min): it counts as a failed boot, and `crash_least` (one) at a time, or `crash_share` (a tenth) of the desired number, is replaced; the replacement answers first; a load balancer likewise, and a definition whose load balancers keep crashing is renewed `freeze_after` (two) times, then once in `frozen_retry` (30 min) | `crashes`, `balancer::crashes` |
//! | boot | an instance that does not answer within `boot_grace` (3 min) is given up if any worker, itself included, was heard in the tick; a refusal is heard | `follow` |
//! | control | a worker that served is terminated for its health only if another one answered in the same tick | `judge` |
//! | silent | a silent worker is terminated when another one answers in its place; a worker that refuses, at once | `judge` |
//! | velocity | at most `velocity_least` (one), or `velocity_share` (a tenth) of the workers that ever served, is terminated for its health within `velocity_window` (15 s) | `judge` |
//! | degraded | `degraded_least` (two) or more and over `degraded_share` (a fifth) dead, or `often_least` (two) and at least `often_share` (a third) terminated within `terminations_window` (10 min): only against a replacement that answers | `judge` |
//! | panic | `panic_least` (two) or more and over `panic_share` (half) dead: the same, one in `panic_spacing` (55 s), and the dead stay in the registry | `judge` |
//! | zone | `dark_zone_least` (two) or more and `dark_zone_share` (55 %) of a zone silent, others well: no worker there is terminated for `dark_zone_for` (15 min), replacements go elsewhere | `judge` |
//! | verdict | a termination is sent again only if the worker fails again; if it answers it is taken back | `leave` |
//! | drain | a surplus worker leaves the registry first and is terminated `drain` (15 s) later at the earliest | `leave` |
//! | unknown | an instance with the stack's tags that is not remembered is adopted if its slot is free, and counts as served if it may have; it goes into an unused slot if it answers and too few others do; else it is drained when `orphan_age` (90 s) old | `leave` |
//! | surplus | who goes first: not yet serving, suspect, of an older release, from the fullest zone, the highest slot; `surplus_least` (three) or `surplus_share` (a quarter) per tick | `resize` |
//! | zones | a new worker goes where there are fewest | `resize` |
//! | cap | never more than `cap_per_worker` (two) for each desired worker and `cap_extra` (two), whatever state they are in; if none of them answers, one more each `stuck_launch_every` (30 min) up to `stuck_cap_per_worker` (three) for each and `stuck_cap_extra` (six) | `resize` |
//! | deaf | while no worker answers: at most `deaf_least` (two) replacements, or `deaf_share` (a fifth) of the desired number, boot at a time | `resize` |
//! | boot loop | after `boot_loop` (three) boots in a row that failed: one launch at a time, with pauses that double from `boot_pause_first` (1 min) to `boot_pause_longest` (30 min); of a release that never served at most `unproven_boots` (three) boot at a time | `resize` |
//! | money | `budget_per_worker` (three) losses per desired worker and `budget_extra` (ten) within `losses_window` (60 min): one launch in `slow_launch_every` (3 min) | `resize` |
//! | account limit | a launch that EC2 refuses because of the account puts no zone aside and counts against no release; the pauses before the next tries double from `refusal_pause_first` (15 s) to `refusal_pause_longest` (2 min), one try for all slots; a definition that was not refused is tried at once | `limit`, `settle` |
//! | refusal | every refusal of EC2 empties the slot: a refusal that blames the definition is a failed boot of it; without capacity in any zone, or for a missing permission, it blames nothing and is tried again like an account limit | `settle`, `limit` |
//! | by trial | where EC2 has no room for the proven release, and has not refused the present one, one worker of it heals, on trial | `rollout` |
//! | room | refused by a quota for `room_after` (2 min): one worker that has been dead for `room_dead_for` (95 s) is terminated before its replacement; another worker answers, or none does and a load balancer | `judge` |
//! | stop first | where the release says so, or a quota refuses the extra worker: one old worker is drained and gone before the next new one is launched; not before all answer, and the only one only if the release says so | `limit`, `rollout` |
//! | room for a load balancer | if a quota refuses a load balancer, one worker leaves for it, and returns when the old load balancer is gone; for a dead load balancer the last worker that answers stays, and the others leave after `room_after` (2 min) | `limit`, `balancer` |
//! | rollout | `rollout_least` (one), or `rollout_share` (a tenth) of the desired number, of a new release beyond the desired number; the first must serve for `trial` (55 s); then as many old ones leave; not while any worker fails | `rollout` |
//! | frozen | `freeze_after` (two) boots of a new release failed: the old one is launched, unless it fails more often, and the new one is tried once in `frozen_retry` (30 min) | `rollout` |
//! | balancer | dead as a worker is; the address moves only to a load balancer that answers, and away from an answering holder only if that keeps crashing, or to one of the released definition | `balancer` |
//! | renewal | a load balancer that is not as released gets a successor and serves until it answers; a dead one is replaced by the definition that served last, unless that fails more often | `balancer` |
//! | credits | an instance of a burstable type that has served for `credits_after` (5 min) is capped to the CPU credits that it earns, unless its definition says otherwise; `credits_per_tick` (five) in a tick | `credits` |
//!
//! Parts, in the order of a tick: `follow` updates slots from the observation, `leave` ends lives, `judge`
//! holds the brakes on that, `crashes` replaces workers that answer and do not serve, `balancer` guards the
//! address, `limit` waits out account limits and makes room, `rollout` and `resize` make release and number
//! right, `credits` caps what an instance may spend, `registry` says who gets traffic, `settle` records the
//! outcomes.

mod balancer;
mod crashes;
mod credits;
mod follow;
mod judge;
mod leave;
mod limit;
mod registry;
mod resize;
mod rollout;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet::memory::{Leaving, LeavingReason, LeavingStage, Memory, Phase, Slot};
use fleet::release::{Market, Release};
use fleet::{DesiredCount, Policy, Registry, WorkerId};
use jiff::{SignedDuration, Timestamp};

use crate::decision::{Decision, ReleaseDecision};
use crate::effect::Launch;
use crate::held_back::HeldBack;
use crate::observation::{Instance, Observation, Probe, Role, known_by_zone};
use crate::token::client_token;

pub use settle::{Outcomes, Settled, settle};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The next memory, intents included. Its `held` has `held_back` as sentences.
    pub memory: Memory,
    /// The actions that wait, and why.
    pub held_back: Vec<HeldBack>,
    /// In the order of urgency: load balancers, new workers, repeated launches.
    pub launches: Vec<Launch>,
    /// How many of them, at the end, are launches of workers that an earlier tick has sent already.
    pub repeated: usize,
    pub terminations: Vec<WorkerId>,
    pub association: Option<Association>,
    /// Instances whose CPU credits are to be capped.
    pub credits: Vec<WorkerId>,
    /// When workers were launched last before this plan.
    pub last_launch: Option<Timestamp>,
    /// The registry to publish; `None` when readers have the right one.
    pub registry: Option<Registry>,
    /// Decisions of this plan, oldest first. Memory has the sentences.
    pub decisions: Vec<Decision>,
    /// How many of the newest events in `memory` are of this plan.
    pub news: usize,
}

/// The Elastic IP, and who is to have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Association {
    pub allocation: String,
    pub instance: WorkerId,
}

/// What a look between two ticks found.
pub struct Look {
    /// `None` if there is nothing new.
    pub plan: Option<Plan>,
    /// An instance that the fleet waits for answered for the first time: a tick should follow at once.
    pub is_urgent: bool,
}

/// Plans a tick.
pub fn plan(observation: &Observation, mut memory: Memory, policy: &Policy, now: Timestamp) -> Plan {
    memory.held.clear();
    memory.losses.retain(|at| now.duration_since(*at) < policy.losses_window);
    memory.terminations.retain(|at| now.duration_since(*at) < policy.terminations_window);
    memory.avoid.retain(|_, until| *until > now);
    let mut held_back = Vec::new();
    let mut count = News::default();
    resize::take_desired(observation, &mut memory, &mut held_back, &mut count, policy, now);
    let in_force = release_in_force(observation, &memory);
    let registry = registry_in_sight(observation, &memory);
    let (instances, release, published) = match (&observation.instances, &in_force, registry) {
        (Ok(instances), Ok(release), Ok(published)) => (instances, release, published),
        (instances, release, registry) => {
            let reasons = [instances.as_ref().err(), release.as_ref().err(), registry.err()];
            let everything = |why: &String| HeldBack::Everything { why: why.clone() };
            held_back.extend(reasons.into_iter().flatten().map(everything));
            memory.held = held_back.iter().map(HeldBack::to_string).collect();
            follow::take_good_news(observation, &mut memory, &mut count, now);
            return Plan {
                last_launch: memory.last_launch,
                memory,
                held_back,
                launches: Vec::new(),
                repeated: 0,
                terminations: Vec::new(),
                association: None,
                credits: Vec::new(),
                registry: None,
                decisions: count.decisions,
                news: count.number,
            };
        }
    };
    // What a blind tick could have learned, the next one learns: it is as young.
    if memory.began.is_none() {
        memory.began = Some(now);
        // A new stack has neither registry nor workers.
        memory.follows_loss = published.is_some() || instances.iter().any(|row| row.role == Role::Worker);
    }
    let mut tick = Tick::new(observation, instances, release, published, memory, policy, now);
    tick.held_back = held_back;
    tick.name_unread();
    tick.follow_refusals();
    tick.follow_slots();
    tick.follow_leaving();
    tick.adopt_unknown();
    tick.judge();
    tick.judge_crashes();
    // Before the workers: while one of them is missing, the others are of no use.
    tick.guard_addresses();
    tick.roll_out();
    tick.unwant_unneeded();
    tick.shrink();
    tick.grow();
    tick.cap_credits();
    tick.remember_release();
    tick.keep_judged_unpublished();
    let mut plan = tick.finish();
    plan.news += count.number;
    plan.decisions.splice(..0, count.decisions);
    plan
}

/// Plans a look between two ticks: notices new instances and first answers.
pub fn look(observation: &Observation, memory: Memory, policy: &Policy, now: Timestamp) -> Look {
    let in_force = release_in_force(observation, &memory);
    let (Ok(instances), Ok(release), Ok(published)) =
        (&observation.instances, &in_force, &observation.registry)
    else {
        return Look { plan: None, is_urgent: false };
    };
    let before = memory.clone();
    let mut tick = Tick::new(observation, instances, release, published.as_deref(), memory, policy, now);
    tick.is_look = true;
    tick.take_back_all();
    let somebody_answers = tick.notice_boots();
    let successor_answers = tick.notice_successor();
    let somebody_waits = before.slots.values().any(|slot| slot.phase == Phase::Dead)
        || tick.desired().is_some_and(|desired| tick.live() < desired.workers());
    let is_urgent = (somebody_answers && somebody_waits) || successor_answers;
    let plan = tick.finish();
    Look { plan: (plan.memory != before).then_some(plan), is_urgent }
}

/// Returns the release to launch from: if it cannot be read, the last one. A missing release was removed on
/// purpose: `destroy` begins with it.
fn release_in_force(observation: &Observation, memory: &Memory) -> Result<Arc<Release>, String> {
    match &observation.release {
        Ok(Some(release)) => Ok(release.clone()),
        Ok(None) => Err("there is no release to launch workers from".to_owned()),
        Err(why) => memory.last_release().cloned().map(Arc::new).ok_or_else(|| why.clone()),
    }
}

/// What readers have. Where it cannot be read, memory knows the workers, unless it was lost as well.
fn registry_in_sight<'a>(
    observation: &'a Observation,
    memory: &Memory,
) -> Result<Option<&'a Registry>, &'a String> {
    match &observation.registry {
        Ok(published) => Ok(published.as_deref()),
        Err(_) if memory.began.is_some() => Ok(None),
        Err(why) => Err(why),
    }
}

/// Returns the zones that EC2 answers for, if it does not list all instances. A zone without a remembered
/// instance is not asked about, so it counts as unreachable.
fn reachable(observation: &Observation, memory: &Memory) -> Option<BTreeSet<String>> {
    observation.is_partial.then(|| known_by_zone(memory).into_keys().collect())
}

/// Decisions that are written into memory at once.
#[derive(Debug, Default)]
struct News {
    decisions: Vec<Decision>,
    /// New events in memory.
    number: usize,
}

impl News {
    fn record(&mut self, memory: &mut Memory, now: Timestamp, decision: impl Into<Decision>) {
        let decision = decision.into();
        self.number += decision.record(memory, now);
        self.decisions.push(decision);
    }
}

/// The working state of one plan.
struct Tick<'a> {
    observation: &'a Observation,
    policy: &'a Policy,
    release: &'a Arc<Release>,
    /// The registry that readers have.
    published: Option<&'a Registry>,
    memory: Memory,
    now: Timestamp,
    workers: BTreeMap<&'a WorkerId, &'a Instance>,
    balancers: BTreeMap<&'a WorkerId, &'a Instance>,
    /// Slots whose worker failed this tick's probes so that it counts as dead.
    dead: Vec<u32>,
    /// A look gives no verdicts.
    is_look: bool,
    /// Most workers that ever served are dead.
    is_panic: bool,
    /// How many workers of a new release there may be beyond the desired number.
    surge: usize,
    /// How many workers are missing on purpose, so that another instance fits into the quota.
    deficit: usize,
    /// Definitions that are launched in this tick although EC2 refused launches in the last one.
    tried: Vec<(Market, String)>,
    /// A load balancer that a quota refuses.
    waiting: Option<limit::Need>,
    /// Zones that EC2 answers for, where it does not for all.
    reachable: Option<BTreeSet<String>>,
    /// Launches that an earlier tick sent, and that may have taken place.
    replays: Vec<Launch>,
    launches: Vec<Launch>,
    terminations: Vec<WorkerId>,
    association: Option<Association>,
    credits: Vec<WorkerId>,
    /// Before this tick.
    last_launch: Option<Timestamp>,
    /// Oldest first.
    decisions: Vec<Decision>,
    held_back: Vec<HeldBack>,
}

impl<'a> Tick<'a> {
    fn new(
        observation: &'a Observation,
        instances: &'a [Instance],
        release: &'a Arc<Release>,
        published: Option<&'a Registry>,
        memory: Memory,
        policy: &'a Policy,
        now: Timestamp,
    ) -> Self {
        let of = |role| instances.iter().filter(move |row| row.role == role).map(|row| (&row.id, row));
        Self {
            observation,
            policy,
            release,
            published,
            last_launch: memory.last_launch,
            reachable: reachable(observation, &memory),
            memory,
            now,
            workers: of(Role::Worker).collect(),
            balancers: of(Role::LoadBalancer).collect(),
            dead: Vec::new(),
            is_look: false,
            is_panic: false,
            surge: 0,
            deficit: 0,
            tried: Vec::new(),
            waiting: None,
            replays: Vec::new(),
            launches: Vec::new(),
            terminations: Vec::new(),
            association: None,
            credits: Vec::new(),
            decisions: Vec::new(),
            held_back: Vec::new(),
        }
    }

    /// Whether EC2 answers calls about this zone.
    fn is_reachable(&self, zone: &str) -> bool {
        let is_known = self.reachable.as_ref().is_none_or(|zones| zones.contains(zone));
        is_known && !self.observation.dark.contains_key(zone)
    }

    fn record(&mut self, decision: impl Into<Decision>) {
        self.decisions.push(decision.into());
    }

    fn hold(&mut self, held_back: HeldBack) {
        self.held_back.push(held_back);
    }

    fn age(&self, since: Timestamp) -> SignedDuration {
        self.now.duration_since(since)
    }

    /// Says what could not be read and is done without.
    fn name_unread(&mut self) {
        if let Err(why) = &self.observation.release {
            self.record(ReleaseDecision::Unread { why: why.clone() });
            self.hold(HeldBack::NewerRelease { why: why.clone() });
        }
        if let Err(why) = &self.observation.registry {
            self.hold(HeldBack::PublishingAndEnding { why: why.clone() });
        }
    }

    /// What stays in force where the next tick cannot read the release.
    fn remember_release(&mut self) {
        let is_proven = self.memory.proven.as_ref() == Some(self.release.as_ref());
        if is_proven || self.memory.released.as_ref() != Some(self.release.as_ref()) {
            self.memory.released = (!is_proven).then(|| self.release.as_ref().clone());
        }
    }

    /// Withdraws terminations for health if the registry cannot be read: it may still list those workers.
    fn keep_judged_unpublished(&mut self) {
        if self.observation.registry.is_err() {
            let leaving = &self.memory.leaving;
            self.terminations.retain(|id| leaving.get(id).is_none_or(|leaving| !leaving.judged));
        }
    }

    /// Whether memory was lost so recently that it may know too little to end a life.
    fn is_young(&self) -> bool {
        self.memory.follows_loss
            && self.memory.began.is_none_or(|began| self.age(began) < self.policy.young_for)
    }

    fn probe(&self, id: &WorkerId) -> Option<Probe> {
        self.observation.probes.get(id).copied()
    }

    fn probe_of(&self, slot: &Slot) -> Option<Probe> {
        self.probe(slot.worker.as_ref()?)
    }

    /// The slot of an instance, and what EC2 shows of it if anything. The slot that its tag names comes
    /// first: to look through all of them for each of ten thousand instances takes a second.
    fn slot_of(&self, id: &WorkerId, row: Option<&Instance>) -> Option<&Slot> {
        let has = |slot: &&Slot| slot.worker.as_ref() == Some(id);
        let tagged = row.and_then(|row| self.memory.slots.get(&row.slot?)).filter(has);
        tagged.or_else(|| self.memory.slots.values().find(has))
    }

    /// Remembered workers that answered in this tick.
    fn answering(&self) -> usize {
        let answers = |slot: &&Slot| self.probe_of(slot) == Some(Probe::Answered);
        // A dead worker that answers keeps crashing.
        self.memory.slots.values().filter(answers).filter(|slot| slot.phase != Phase::Dead).count()
    }

    /// Is asked for each instance on its way out, and the first answer will do.
    fn somebody_answers(&self) -> bool {
        self.memory.slots.values().any(|slot| self.probe_of(slot) == Some(Probe::Answered))
    }

    /// Whether workers were asked in this tick and none was heard: the fault may be ours. Even a
    /// refusal has come all the way back.
    fn is_deaf(&self) -> bool {
        let slots = self.memory.slots.values().filter_map(|slot| slot.worker.as_ref());
        let mut asked = slots.chain(self.workers.keys().copied()).filter_map(|id| self.probe(id)).peekable();
        asked.peek().is_some() && !asked.any(|probe| matches!(probe, Probe::Answered | Probe::Refused))
    }

    fn desired(&self) -> Option<DesiredCount> {
        self.memory.desired
    }

    /// Whether an operator asked for no worker at all.
    fn is_none_desired(&self) -> bool {
        self.desired().is_some_and(DesiredCount::is_zero)
    }

    /// The definition with this id, if it is still known.
    fn definition(&self, id: &str) -> Option<&Release> {
        if self.release.id == id {
            return Some(self.release);
        }
        self.memory.proven.as_ref().filter(|proven| proven.id == id)
    }

    /// The launch of a slot, the same each time.
    fn launch_of(&self, number: u32, slot: &Slot) -> Option<Launch> {
        let definition = self.definition(&slot.release)?;
        let spec = &definition.worker;
        Some(Launch {
            role: Role::Worker,
            slot: number,
            attempt: slot.attempt,
            subnet: slot.subnet.clone(),
            release: slot.release.clone(),
            token: client_token(&definition.stack, spec, Role::Worker, number, slot.attempt),
            spec: Arc::new(spec.clone()),
        })
    }

    /// Takes the instance of a slot out of service for good; the slot is empty afterwards.
    fn retire(&mut self, number: u32, stage: LeavingStage, reason: LeavingReason, judged: bool) {
        let Some(slot) = self.memory.slots.remove(&number) else { return };
        let Some(id) = slot.worker else { return };
        if stage == LeavingStage::Terminating && self.workers.get(&id).is_some_and(|row| row.state.is_live())
        {
            self.terminations.push(id.clone());
            self.room_is_made();
        }
        let leaving =
            Leaving { stage, since: self.now, reason, unpublished: None, judged, served: slot.served };
        self.memory.leaving.insert(id, leaving);
    }

    fn finish(mut self) -> Plan {
        let registry = self.next_registry();
        let number = self.decisions.len();
        let mut news = 0;
        // Memory keeps the newest of them; to let it forget the others one by one takes long.
        for decision in self.decisions.iter().skip(number.saturating_sub(Memory::MAX_EVENTS)) {
            news += decision.record(&mut self.memory, self.now);
        }
        self.memory.held.extend(self.held_back.iter().map(HeldBack::to_string));
        let repeated = self.replays.iter().filter(|launch| launch.role == Role::Worker).count();
        let mut launches: Vec<Launch> = self.launches.into_iter().chain(self.replays).collect();
        launches.sort_by_key(|launch| launch.role == Role::Worker);
        Plan {
            memory: self.memory,
            held_back: self.held_back,
            launches,
            repeated,
            terminations: self.terminations,
            association: self.association,
            credits: self.credits,
            last_launch: self.last_launch,
            registry,
            decisions: self.decisions,
            news,
        }
    }
}
