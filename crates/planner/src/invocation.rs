//! One invocation of the function as a state machine: the ticks of a minute, and in between a closer
//! look at what boots.
//!
//! ```text
//! sleep --> read memory --> survey --> (describe by id) --> probe --> PLAN --> write memory
//!   ^                                                                            |  |
//!   |                                        refused, and not our own write: drop  |
//!   |                                                                               v
//!   +---- write memory <-- SETTLE <-- launch, move the address, terminate <-- publish
//! ```
//!
//! Nothing is launched, moved or terminated whose intent is not in the memory that was written. The
//! compare-and-swap on that write is the only lock there is: of two invocations at once the second
//! finds its write refused and drops its tick. A crash anywhere needs no special code: launches are
//! repeated with their token, and terminations need a new verdict.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use fleet::memory::Memory;
use fleet::{Policy, WorkerId};
use jiff::Timestamp;

use crate::decision::{Decision, StateDecision};
use crate::effect::{Effect, Event, Knocking, MemoryObject, Written};
use crate::grid;
use crate::observation::{Instance, Observation, Role, Scope, State, is_booting, known_by_zone, targets};
use crate::plan::{Association, Outcomes, Plan, look, plan, settle};

/// What an invocation did, for its log line and its result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Report {
    pub ticks: u32,
    pub skipped: u32,
    pub launched: u32,
    pub terminated: u32,
    pub failures: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Invocation {
    nonce: String,
    writes: u32,
    scheduled: Timestamp,
    /// That of the release read last: until memory is read, the default.
    policy: Policy,
    ticks: VecDeque<Timestamp>,
    end: Timestamp,
    /// Whether something boots, as far as was seen last.
    boots: bool,
    stage: Stage,
    report: Report,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Job {
    /// With its time on the grid; none if a look asked for it.
    Tick(Option<Timestamp>),
    Look,
}

/// The event that the invocation waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Asleep,
    Reading(Job),
    Surveying(Snapshot),
    Describing {
        snapshot: Snapshot,
        observation: Box<Observation>,
        left: usize,
        rows: Vec<Instance>,
    },
    Probing(Snapshot, Box<Observation>),
    Committing(Box<Work>),
    /// The write was refused or not answered, and why if it met no other: is it ours that is there?
    ReadingBack(Box<Work>, Option<String>),
    Publishing(Box<Work>),
    Acting(Box<Work>),
    Settling,
    Done,
}

/// What a tick or a look began with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Snapshot {
    job: Job,
    known: Known,
    /// When looking around began: all that is seen is at least this young.
    since: Timestamp,
}

/// Memory as it was read, and its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Known {
    memory: Arc<Memory>,
    etag: Option<String>,
}

/// A plan on its way into the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Work {
    is_tick: bool,
    /// A tick follows at once.
    is_urgent: bool,
    memory: Arc<Memory>,
    etag: Option<String>,
    registry: Option<(Arc<fleet::Registry>, Option<String>)>,
    /// Load balancers to tell.
    balancers: Vec<std::net::IpAddr>,
    /// When looking around began.
    seen: Timestamp,
    /// When its intents were written.
    committed: Timestamp,
    /// In the order of urgency.
    queue: VecDeque<Effect>,
    in_flight: usize,
    /// Of those in flight.
    launches_in_flight: usize,
    outcomes: Outcomes,
    news: usize,
}

impl Invocation {
    /// Begins the minute that starts at `scheduled`. The nonce must differ between invocations.
    pub fn start(scheduled: Timestamp, nonce: String, now: Timestamp) -> (Self, Vec<Effect>) {
        let policy = Policy::default();
        let mut invocation = Self {
            nonce,
            writes: 0,
            scheduled,
            ticks: grid::ticks(&policy, scheduled, now).into(),
            end: grid::end(&policy, scheduled),
            policy,
            // Not known before memory was read once.
            boots: true,
            stage: Stage::Done,
            report: Report::default(),
        };
        let effects = invocation.next(now);
        (invocation, effects)
    }

    /// Takes what happened, and says what to do next. The effects of one step may be carried out at
    /// the same time; each of them is answered by one event.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        match (mem::replace(&mut self.stage, Stage::Done), event) {
            (Stage::Asleep, Event::Woke) => self.wake(now),
            (Stage::Reading(job), Event::MemoryRead { object, date }) => self.read(job, object, date, now),
            (Stage::Surveying(snapshot), Event::Surveyed(observation)) => {
                self.surveyed(snapshot, observation)
            }
            (
                Stage::Describing { snapshot, observation, left, rows },
                Event::Described { zone, rows: more },
            ) => self.described(snapshot, observation, left, rows, zone, more),
            (Stage::Probing(snapshot, mut observation), Event::Probed { probes, started }) => {
                observation.probes = probes.into_iter().collect();
                observation.started = started.into_iter().collect();
                self.planned(snapshot, &observation, now)
            }
            (Stage::Committing(work), Event::MemoryWritten(written)) => self.written(work, written, now),
            (Stage::ReadingBack(work, why), Event::MemoryRead { object, .. }) => {
                self.read_back(work, why, object, now)
            }
            (Stage::Publishing(work), Event::Published(written)) => self.published(work, written, now),
            (Stage::Acting(work), event) => self.acted(work, event, now),
            (Stage::Settling, Event::MemoryWritten(_)) => self.next(now),
            // The stage does not wait for this event: nothing changes.
            (stage, _) => {
                self.stage = stage;
                Vec::new()
            }
        }
    }

    /// No effect is under way and none will follow.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The next tick if it is time, else sleep: briefly while something boots.
    fn next(&mut self, now: Timestamp) -> Vec<Effect> {
        while self.ticks.front().is_some_and(|tick| grid::is_too_late(&self.policy, *tick, now)) {
            self.ticks.pop_front();
        }
        let until = match self.ticks.front().copied() {
            Some(tick) if tick <= now => {
                self.ticks.pop_front();
                return self.begin(Job::Tick(Some(tick)));
            }
            Some(tick) => tick,
            None if self.boots && now < self.end => self.end,
            None => {
                self.stage = Stage::Done;
                return Vec::new();
            }
        };
        let until = if self.boots { until.min(now + self.policy.look_every) } else { until };
        self.stage = Stage::Asleep;
        vec![Effect::Sleep { until }]
    }

    fn wake(&mut self, now: Timestamp) -> Vec<Effect> {
        let is_tick_due = self.ticks.front().is_some_and(|tick| *tick <= now);
        if is_tick_due || !self.boots || now >= self.end { self.next(now) } else { self.begin(Job::Look) }
    }

    fn begin(&mut self, job: Job) -> Vec<Effect> {
        self.stage = Stage::Reading(job);
        vec![Effect::ReadMemory]
    }

    fn read(
        &mut self,
        job: Job,
        object: Result<MemoryObject, String>,
        date: Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let object = match object {
            Ok(object) => object,
            Err(why) => return self.give_up("the tick is dropped: state.json cannot be read", &why, now),
        };
        if let MemoryObject::Found { memory, .. } = &object
            && let Some(release) = memory.last_release()
        {
            self.follow_policy(&release.policy, now);
        }
        if let Some(skew) =
            date.map(|date| now.duration_since(date).abs()).filter(|skew| *skew > self.policy.clock_skew)
        {
            let why = format!("this clock and the clock of S3 are {} s apart", skew.as_secs());
            return self.give_up("the tick is dropped", &why, now);
        }
        let known = match (object, job) {
            (MemoryObject::Found { memory, etag }, _) => Known { memory, etag: Some(etag) },
            (MemoryObject::Missing, _) => Known { memory: Arc::new(Memory::default()), etag: None },
            (MemoryObject::Unreadable { why, etag }, Job::Tick(_)) => {
                self.note("state.json cannot be parsed; the state begins empty", &why);
                let mut memory = Memory::default();
                Decision::from(StateDecision::BeganEmpty { why }).record(&mut memory, now);
                Known { memory: Arc::new(memory), etag: Some(etag) }
            }
            (MemoryObject::Unreadable { .. }, Job::Look) => return self.next(now),
        };
        let known = self.bounded(known, now);
        match job {
            Job::Tick(Some(tick)) if grid::is_repeated(&self.policy, tick, known.memory.last_tick) => {
                self.report.skipped += 1;
                self.boots = has_boots(&known.memory);
                return self.next(now);
            }
            Job::Look if !has_boots(&known.memory) => {
                self.boots = false;
                return self.next(now);
            }
            Job::Tick(_) | Job::Look => {}
        }
        self.stage = Stage::Surveying(Snapshot { job, known, since: now });
        vec![Effect::Survey]
    }

    /// Moves times that lie in the future back to now, because a pause that ends in a year would never end.
    /// Forgets numbers that are too high to be counters of the reconciler.
    fn bounded(&mut self, mut known: Known, now: Timestamp) -> Known {
        let memory = Arc::make_mut(&mut known.memory);
        let moved = memory.bound_times(now, self.policy.times_ahead);
        if moved > 0 {
            let what = "times in state.json lay in the future and were reset to now";
            self.note(what, &format!("{moved} of them"));
            Decision::from(StateDecision::TimesReset { times: moved }).record(memory, now);
        }
        let forgotten = memory.forget_wild_numbers();
        if forgotten > 0 {
            let what = "numbers in state.json are too high and were dropped";
            self.note(what, &format!("{forgotten} of them"));
            Decision::from(StateDecision::NumbersDropped { numbers: forgotten }).record(memory, now);
        }
        known
    }

    /// While a zone is out, EC2 lists nothing at all; by their ids it shows instances of the others.
    fn surveyed(&mut self, snapshot: Snapshot, observation: Box<Observation>) -> Vec<Effect> {
        let zones = known_by_zone(&snapshot.known.memory);
        if observation.instances.is_ok() || zones.is_empty() || snapshot.job == Job::Look {
            return self.ask(snapshot, observation);
        }
        self.stage = Stage::Describing { snapshot, observation, left: zones.len(), rows: Vec::new() };
        zones.into_iter().map(|(zone, ids)| Effect::Describe { zone, ids }).collect()
    }

    fn described(
        &mut self,
        snapshot: Snapshot,
        mut observation: Box<Observation>,
        left: usize,
        mut rows: Vec<Instance>,
        zone: String,
        more: Result<Vec<Instance>, String>,
    ) -> Vec<Effect> {
        match more {
            Ok(more) => rows.extend(more),
            Err(why) => drop(observation.dark.insert(zone, why)),
        }
        if left > 1 {
            self.stage = Stage::Describing { snapshot, observation, left: left - 1, rows };
            return Vec::new();
        }
        // If no zone answers, the reason of the first failure stands.
        if observation.dark.len() < known_by_zone(&snapshot.known.memory).len() {
            observation.instances = Ok(rows);
            observation.is_partial = true;
        }
        self.ask(snapshot, observation)
    }

    fn ask(&mut self, snapshot: Snapshot, observation: Box<Observation>) -> Vec<Effect> {
        let (scope, tries) = match snapshot.job {
            Job::Tick(_) => (Scope::Fleet, self.policy.probe_tries),
            Job::Look => (Scope::Boots, 1),
        };
        let rows = observation.instances.as_deref().unwrap_or_default();
        let targets = targets(rows, &snapshot.known.memory, scope);
        self.stage = Stage::Probing(snapshot, observation);
        vec![Effect::Probe { targets, knocking: Knocking::new(&self.policy, tries) }]
    }

    fn planned(&mut self, snapshot: Snapshot, observation: &Observation, now: Timestamp) -> Vec<Effect> {
        let Snapshot { job, known, since } = snapshot;
        if let Ok(Some(release)) = &observation.release {
            self.follow_policy(&release.policy, now);
        }
        let mut memory = Arc::unwrap_or_clone(known.memory);
        let (planned, is_urgent) = match job {
            Job::Tick(tick) => {
                memory.last_tick = tick.or(memory.last_tick);
                (plan(observation, memory, &self.policy, now), false)
            }
            Job::Look => {
                let found = look(observation, memory, &self.policy, now);
                match found.plan {
                    Some(plan) => (plan, found.is_urgent),
                    None => return self.next(now),
                }
            }
        };
        self.commit(Work::new(planned, observation, known.etag, since, job != Job::Look, is_urgent))
    }

    fn commit(&mut self, mut work: Work) -> Vec<Effect> {
        self.writes += 1;
        let mut memory = Arc::unwrap_or_clone(work.memory);
        memory.nonce = format!("{}-{}", self.nonce, self.writes);
        work.memory = Arc::new(memory);
        let effect = Effect::WriteMemory { memory: work.memory.clone(), if_match: work.etag.clone() };
        self.stage = Stage::Committing(Box::new(work));
        vec![effect]
    }

    fn written(&mut self, mut work: Box<Work>, written: Written, now: Timestamp) -> Vec<Effect> {
        let why = match written {
            Written::Done { etag } => {
                work.etag = Some(etag);
                return self.committed(work, now);
            }
            Written::Conflict => None,
            Written::Unknown(why) => Some(why),
        };
        self.stage = Stage::ReadingBack(work, why);
        vec![Effect::ReadMemory]
    }

    /// A repeated write whose first reply was lost meets its own result; the nonce tells.
    fn read_back(
        &mut self,
        mut work: Box<Work>,
        why: Option<String>,
        object: Result<MemoryObject, String>,
        now: Timestamp,
    ) -> Vec<Effect> {
        match object {
            Ok(MemoryObject::Found { memory, etag }) if memory.nonce == work.memory.nonce => {
                work.etag = Some(etag);
                self.committed(work, now)
            }
            Ok(_) => {
                self.report.skipped += 1;
                match why {
                    Some(why) => self.note("the tick is dropped: its intents are not written", &why),
                    None => tracing::info!("another invocation was faster; this tick is dropped"),
                }
                self.next(now)
            }
            Err(why) => {
                self.give_up("the tick is dropped: whether its intents are written is unknown", &why, now)
            }
        }
    }

    fn committed(&mut self, mut work: Box<Work>, now: Timestamp) -> Vec<Effect> {
        work.committed = now;
        self.report.ticks += u32::from(work.is_tick);
        self.boots = has_boots(&work.memory);
        log(&work.memory, work.news);
        let Some((mut registry, if_match)) = work.registry.take() else { return self.act(work, now) };
        // Writing memory may have taken seconds, and drains are counted from here.
        Arc::make_mut(&mut registry).written_at = now;
        tracing::info!(revision = registry.revision, workers = registry.workers.len(), "registry published");
        if !work.balancers.is_empty() {
            let addresses = mem::take(&mut work.balancers);
            work.queue.push_front(Effect::Refresh { addresses });
        }
        self.stage = Stage::Publishing(work);
        vec![Effect::Publish { registry, if_match }]
    }

    /// Withdraws the terminations for health if the registry was not published. Another invocation that
    /// published since has surveyed later, and an old registry still lists the workers to terminate.
    fn published(&mut self, mut work: Box<Work>, written: Written, now: Timestamp) -> Vec<Effect> {
        let why = match written {
            Written::Done { .. } => None,
            Written::Conflict => Some("another registry was published"),
            Written::Unknown(why) => {
                self.note("the registry is not published", &why);
                Some("the registry is not published")
            }
        };
        if let Some(why) = why {
            self.keep_judged(&mut work, why);
        }
        self.act(work, now)
    }

    /// Withdraws the terminations for health of this tick. Launches take place.
    fn keep_judged(&mut self, work: &mut Work, why: &str) {
        let leaving = &work.memory.leaving;
        let is_judged = |id: &WorkerId| leaving.get(id).is_some_and(|leaving| leaving.judged);
        let before = work.queue.len();
        work.queue.retain(|effect| !matches!(effect, Effect::Terminate(id) if is_judged(id)));
        if work.queue.len() < before {
            self.note("not terminated", why);
        }
    }

    fn act(&mut self, mut work: Box<Work>, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if now.duration_since(work.committed) > self.policy.verdict_valid_for {
            self.keep_judged(&mut work, "they were judged too long ago");
        }
        if !work.queue.is_empty() && now.duration_since(work.seen) > self.policy.stale_after {
            self.note("not carried out", "the plan is too old by now");
            work.queue.clear();
        }
        while work.in_flight < self.policy.calls_at_once
            && let Some(effect) = work.next_effect(&self.policy)
        {
            work.in_flight += 1;
            work.launches_in_flight += usize::from(matches!(effect, Effect::Launch(_)));
            effects.push(effect);
        }
        if work.in_flight > 0 {
            self.stage = Stage::Acting(work);
            return effects;
        }
        if !work.outcomes.is_empty() {
            return self.settle(*work, now);
        }
        if work.is_urgent { self.begin(Job::Tick(None)) } else { self.next(now) }
    }

    fn acted(&mut self, mut work: Box<Work>, event: Event, now: Timestamp) -> Vec<Effect> {
        match event {
            Event::Launched { launch, result } => {
                self.report.launched += u32::from(result.is_ok());
                work.launches_in_flight -= 1;
                work.outcomes.launched.push((launch, result));
            }
            Event::Terminated { id, result } => match result {
                Ok(()) => self.report.terminated += 1,
                Err(failure) => work.outcomes.not_terminated.push((id, failure.why)),
            },
            Event::Associated { instance, result } => {
                work.outcomes.not_associated.extend(result.err().map(|failure| (instance, failure.why)));
            }
            Event::CreditsCapped { id, result } => work.outcomes.credits.push((id, result)),
            Event::Refreshed => {}
            // Nothing else is under way.
            _ => {
                self.stage = Stage::Acting(work);
                return Vec::new();
            }
        }
        work.in_flight -= 1;
        self.act(work, now)
    }

    /// If this write is lost, the next tick finds the instances by their tags.
    fn settle(&mut self, work: Work, now: Timestamp) -> Vec<Effect> {
        let mut memory = Arc::unwrap_or_clone(work.memory);
        let settled = settle(&mut memory, &work.outcomes, &self.policy, now);
        log(&memory, settled.news);
        for held_back in &settled.held_back {
            tracing::warn!("held back: {held_back}");
        }
        self.boots = has_boots(&memory);
        self.writes += 1;
        memory.nonce = format!("{}-{}", self.nonce, self.writes);
        self.stage = Stage::Settling;
        vec![Effect::WriteMemory { memory: Arc::new(memory), if_match: work.etag }]
    }

    /// Goes on by the policy of the release that was read last. Its ticks are those after now.
    fn follow_policy(&mut self, policy: &Policy, now: Timestamp) {
        if self.policy == *policy {
            return;
        }
        self.policy = policy.clone();
        self.ticks = grid::ticks(policy, self.scheduled, now).into();
        self.ticks.retain(|tick| *tick > now);
        self.end = grid::end(policy, self.scheduled);
    }

    fn give_up(&mut self, what: &str, why: &str, now: Timestamp) -> Vec<Effect> {
        self.note(what, why);
        self.next(now)
    }

    fn note(&mut self, what: &str, why: &str) {
        let text = format!("{what}: {why}");
        tracing::error!("{text}");
        self.report.failures.push(text);
    }
}

impl Work {
    fn new(
        plan: Plan,
        observation: &Observation,
        etag: Option<String>,
        seen: Timestamp,
        is_tick: bool,
        is_urgent: bool,
    ) -> Self {
        let Plan { memory, terminations, association, credits, last_launch, registry, news, .. } = plan;
        let mut launches: VecDeque<Effect> = plan.launches.into_iter().map(Effect::Launch).collect();
        let repeated = launches.split_off(launches.len() - plan.repeated);
        let rows = observation.instances.iter().flatten();
        let balancers = rows.filter(|row| row.role == Role::LoadBalancer && row.state == State::Running);
        // What helps people soonest comes first, and what may hang comes last: a launch without an answer
        // is repeated in each tick.
        let associate =
            |to: Association| Effect::Associate { allocation: to.allocation, instance: to.instance };
        let mut queue: VecDeque<Effect> = association.map(associate).into_iter().collect();
        queue.append(&mut launches);
        queue.extend(terminations.into_iter().map(Effect::Terminate));
        queue.extend(repeated);
        // Whatever the rest of the tick is for is more urgent.
        queue.extend(credits.into_iter().map(Effect::CapCredits));
        Self {
            is_tick,
            is_urgent,
            memory: Arc::new(memory),
            etag,
            registry: registry.map(|registry| (Arc::new(registry), observation.registry_etag.clone())),
            balancers: balancers.filter_map(|row| row.address).collect(),
            seen,
            committed: seen,
            queue,
            in_flight: 0,
            launches_in_flight: 0,
            outcomes: Outcomes { last_launch, ..Outcomes::default() },
            news,
        }
    }

    /// Takes the most urgent effect that may be sent now.
    fn next_effect(&mut self, policy: &Policy) -> Option<Effect> {
        let may_launch = self.launches_in_flight < policy.launches_at_once;
        let position =
            self.queue.iter().position(|effect| may_launch || !matches!(effect, Effect::Launch(_)))?;
        self.queue.remove(position)
    }
}

fn has_boots(memory: &Memory) -> bool {
    let successors = memory.balancers().filter_map(|balancer| balancer.successor.as_ref());
    memory.slots.values().chain(successors).any(|slot| is_booting(slot.phase))
}

/// One log line for each decision, and for each thing that was not done.
fn log(memory: &Memory, news: usize) {
    let new: Vec<_> = memory.events.iter().rev().filter(|event| event.count == 1).take(news).collect();
    for event in new.into_iter().rev() {
        tracing::info!("{}", event.text);
    }
    if news > 0 {
        for held in &memory.held {
            tracing::warn!("held back: {held}");
        }
    }
}
