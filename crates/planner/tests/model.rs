//! Every order of events around a few overlapping invocations, exhaustively: real [`Invocation`]s, a
//! tiny S3 and a tiny EC2.
//!
//! ```text
//! an invocation asks:   read, survey, probe   happen and are answered in one step
//!                       write, launch, end    happen in one step, are answered in another
//! at any moment:        ten seconds pass; an invocation vanishes; an answer is lost; an effect whose
//!                       invocation is gone or was told "no answer" happens late, or never
//! ```
//!
//! Bounds: two slots, two zones; invocations that start ten seconds apart, each with one tick and no
//! looks; a worker answers ten seconds after its launch; EC2 shows an instance at once or up to ten
//! seconds late. How many vanish and how many answers are lost is said at each run. What comes after
//! is checked from each final state: undisturbed invocations must make the fleet whole.

#[path = "support/stack.rs"]
mod stack;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use fleet::aws_code::AwsErrorKind;
use fleet::memory::Memory;
use fleet::{Registry, WorkerId};
use jiff::{SignedDuration, Timestamp};
use planner::effect::{Effect, Event, Failure, Launch, MemoryObject, Written};
use planner::invocation::Invocation;
use planner::observation::{Instance, Observation, Probe, State as RowState, Target};
use stack::{minute, observation, worker};
use stateright::{Checker as _, HasDiscoveries, Model, Property};

/// A million states are many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time passes in such steps. Two ticks closer than that are one; a survey two steps ago is too
/// old to act on.
const STEP: SignedDuration = SignedDuration::from_secs(10);
const DESIRED: u32 = 2;

/// What the world does that it must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// A write with If-Match overwrites whatever is there.
    IfMatchIsIgnored,
    /// Each launch gives a new instance.
    TokenIsIgnored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Nothing was ever launched.
    Empty,
    /// Both workers serve.
    Well,
    /// One was terminated behind our back.
    OneMissing,
    /// The program of one is gone.
    OneDead,
    BothDead,
    /// One is dead, the other one was terminated behind our back.
    OneDeadOneMissing,
}

#[derive(Clone, Debug)]
struct Overlap {
    starts: Vec<Start>,
    invocations: usize,
    /// The last one starts when the ones before are done or gone, though their effects may still
    /// be under way.
    is_last_alone: bool,
    /// How many may vanish.
    crashes: u8,
    /// How many answers may be lost.
    losses: u8,
    lie: Lie,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: Timestamp,
    memory: Option<(Arc<Memory>, u32)>,
    registry: Option<(Arc<Registry>, u32)>,
    /// The last version that was given to an object.
    version: u32,
    machines: Vec<Machine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Machine {
    row: Instance,
    token: String,
    launched: Timestamp,
    is_well: bool,
    /// Whether readers of the registry were ever told of it.
    served: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Runner {
    invocation: Invocation,
    /// Effects that have not happened yet.
    asked: Vec<Effect>,
    /// Answers under way.
    answers: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    world: World,
    started: usize,
    runners: Vec<Option<Runner>>,
    /// Effects whose invocation is gone, which may happen yet.
    late: Vec<Effect>,
    crashes: u8,
    losses: u8,
    /// Slots and attempts that were ever intended in a memory that was written.
    intents: BTreeSet<(u32, u32)>,
    /// What must never happen has.
    wrong: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    TimePasses,
    /// The effect with this number happens; a survey may miss an instance launched just now.
    Happens {
        runner: usize,
        effect: usize,
        is_lagging: bool,
    },
    Answered {
        runner: usize,
        answer: usize,
    },
    /// It happened, and the answer says that nothing is known.
    AnswerLost {
        runner: usize,
        answer: usize,
    },
    /// It happened, was sent again, and the second answer says that another version is there.
    SentTwice {
        runner: usize,
        answer: usize,
    },
    /// The answer says that nothing is known, before it happens or does not.
    NotAnswered {
        runner: usize,
        effect: usize,
    },
    Vanishes {
        runner: usize,
    },
    HappensLate {
        effect: usize,
    },
    NeverHappens {
        effect: usize,
    },
}

impl World {
    fn empty() -> Self {
        Self { now: minute(), memory: None, registry: None, version: 0, machines: Vec::new() }
    }

    /// Two workers that have served for a while.
    fn serving() -> Self {
        let mut world = Self::empty();
        for _ in 0..10 {
            world.undisturbed();
        }
        world
    }

    fn started_as(start: Start) -> Self {
        let mut world = if start == Start::Empty { Self::empty() } else { Self::serving() };
        let ends = |machine: &mut Machine| machine.row.state = RowState::Terminated;
        let dies = |machine: &mut Machine| machine.is_well = false;
        match start {
            Start::Empty | Start::Well => {}
            Start::OneMissing => ends(&mut world.machines[0]),
            Start::OneDead => dies(&mut world.machines[0]),
            Start::BothDead => world.machines.iter_mut().for_each(dies),
            Start::OneDeadOneMissing => {
                dies(&mut world.machines[0]);
                ends(&mut world.machines[1]);
            }
        }
        world
    }

    /// An invocation whose last tick is now: the two before are too old.
    fn invocation(&self, nonce: String) -> (Invocation, Vec<Effect>) {
        Invocation::start(self.now - SignedDuration::from_secs(40), nonce, self.now)
    }

    /// A tick without any misfortune, and twenty seconds after it.
    fn undisturbed(&mut self) {
        let (mut invocation, mut asked) = self.invocation(format!("calm-{}", self.version));
        while let Some(effect) = asked.pop() {
            if let Some(event) = self.carry_out(&effect, Lie::None, false) {
                asked.extend(invocation.step(event, self.now));
            }
        }
        self.now += STEP * 2;
    }

    fn answers(&self, machine: &Machine) -> bool {
        machine.row.state.is_live() && machine.is_well && self.now.duration_since(machine.launched) >= STEP
    }

    /// Carries an effect out and returns its answer, if the model follows it.
    fn carry_out(&mut self, effect: &Effect, lie: Lie, is_lagging: bool) -> Option<Event> {
        Some(match effect {
            Effect::ReadMemory => {
                let object = match &self.memory {
                    Some((memory, version)) => {
                        MemoryObject::Found { memory: memory.clone(), etag: version.to_string() }
                    }
                    None => MemoryObject::Missing,
                };
                Event::MemoryRead { object: Ok(object), date: Some(self.now) }
            }
            Effect::WriteMemory { memory, if_match } => {
                let there = self.memory.as_ref().map(|(_, version)| version.to_string());
                let is_free = lie == Lie::IfMatchIsIgnored || there == *if_match;
                Event::MemoryWritten(self.put(is_free, |world, version| {
                    world.memory = Some((memory.clone(), version));
                }))
            }
            Effect::Publish { registry, if_match } => {
                let there = self.registry.as_ref().map(|(_, version)| version.to_string());
                Event::Published(self.put(there == *if_match, |world, version| {
                    for machine in &mut world.machines {
                        machine.served |= registry.workers.contains_key(&machine.row.id);
                    }
                    world.registry = Some((registry.clone(), version));
                }))
            }
            Effect::Survey => Event::Surveyed(Box::new(self.survey(is_lagging))),
            Effect::Probe { targets, .. } => {
                let probes = targets.iter().map(|target| (target.id.clone(), self.probe(target))).collect();
                Event::Probed { probes, started: Vec::new() }
            }
            Effect::Launch(launch) => {
                Event::Launched { launch: launch.clone(), result: self.launch(launch, lie) }
            }
            Effect::Terminate(id) => {
                for machine in self.machines.iter_mut().filter(|machine| machine.row.id == *id) {
                    machine.row.state = RowState::Terminated;
                }
                Event::Terminated { id: id.clone(), result: Ok(()) }
            }
            Effect::Refresh { .. } => Event::Refreshed,
            Effect::CapCredits(id) => Event::CreditsCapped { id: id.clone(), result: Ok(()) },
            Effect::Describe { .. } | Effect::Associate { .. } | Effect::Sleep { .. } => return None,
        })
    }

    fn put(&mut self, is_free: bool, write: impl FnOnce(&mut Self, u32)) -> Written {
        if !is_free {
            return Written::Conflict;
        }
        self.version += 1;
        let version = self.version;
        write(self, version);
        Written::Done { etag: version.to_string() }
    }

    fn survey(&self, is_lagging: bool) -> Observation {
        let is_new = |machine: &Machine| self.now.duration_since(machine.launched) <= STEP;
        let listed = self.machines.iter().filter(|machine| !(is_lagging && is_new(machine)));
        let rows = listed.map(|machine| machine.row.clone()).collect();
        let registry = self.registry.as_ref().map(|(registry, _)| registry.as_ref().clone());
        let mut seen = observation(DESIRED, rows, registry);
        seen.registry_etag = self.registry.as_ref().map(|(_, version)| version.to_string());
        seen
    }

    fn probe(&self, target: &Target) -> Probe {
        match self.machines.iter().find(|machine| machine.row.id == target.id) {
            Some(machine) if self.answers(machine) => Probe::Answered,
            Some(machine) if machine.row.state.is_live() => Probe::Refused,
            _ => Probe::Silent,
        }
    }

    /// RunInstances: tokens hold within a zone.
    fn launch(&mut self, launch: &Launch, lie: Lie) -> Result<WorkerId, Failure> {
        let is_it = |machine: &&Machine| {
            machine.token == launch.token && machine.row.subnet == launch.subnet && lie != Lie::TokenIsIgnored
        };
        if let Some(machine) = self.machines.iter().find(is_it) {
            let why = "it was terminated".to_owned();
            let spent = Failure { kind: AwsErrorKind::TokenSpent, why };
            return if machine.row.state.is_live() { Ok(machine.row.id.clone()) } else { Err(spent) };
        }
        let mut row = worker(&format!("i-{}", self.machines.len()), launch.slot, self.now);
        row.attempt = Some(launch.attempt);
        row.subnet.clone_from(&launch.subnet);
        row.zone = launch.subnet.replace("subnet", "zone");
        let machine = Machine {
            row: row.clone(),
            token: launch.token.clone(),
            launched: self.now,
            is_well: true,
            served: false,
        };
        self.machines.push(machine);
        Ok(row.id)
    }

    fn live(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.row.state.is_live())
    }

    /// As many as desired serve, are published, and there is nothing else.
    fn is_whole(&self) -> bool {
        let live: BTreeSet<&WorkerId> = self.live().map(|machine| &machine.row.id).collect();
        let (Some((memory, _)), Some((registry, _))) = (&self.memory, &self.registry) else { return false };
        self.live().all(|machine| self.answers(machine))
            && live.len() == DESIRED as usize
            && registry.workers.keys().collect::<BTreeSet<_>>() == live
            && memory.slots.values().filter_map(|slot| slot.worker.as_ref()).collect::<BTreeSet<_>>() == live
            && memory.leaving.is_empty()
    }

    /// Whether invocations that nothing disturbs make the fleet whole, and leave it so.
    fn recovers(&self) -> bool {
        let mut world = self.clone();
        world.now += STEP * 2;
        // A minute until memory is not young any more, one for boots, one for the brakes, one to see
        // that nothing more happens.
        for _ in 0..9 {
            world.undisturbed();
        }
        (0..3).all(|_| {
            world.undisturbed();
            world.is_whole()
        })
    }
}

/// An effect whose happening and whose answer are two things.
const fn changes_the_world(effect: &Effect) -> bool {
    match effect {
        Effect::WriteMemory { .. } | Effect::Launch(_) | Effect::Terminate(_) => true,
        Effect::Publish { .. } | Effect::Associate { .. } => true,
        Effect::ReadMemory
        | Effect::Survey
        | Effect::Describe { .. }
        | Effect::Probe { .. }
        | Effect::Refresh { .. }
        | Effect::CapCredits(_)
        | Effect::Sleep { .. } => false,
    }
}

/// The answer that says that nothing is known.
fn no_answer(effect: &Effect) -> Option<Event> {
    let why = || "no answer".to_owned();
    let failure = || Failure { kind: AwsErrorKind::Other, why: why() };
    match effect {
        Effect::WriteMemory { .. } => Some(Event::MemoryWritten(Written::Unknown(why()))),
        Effect::Publish { .. } => Some(Event::Published(Written::Unknown(why()))),
        Effect::Launch(launch) => Some(Event::Launched { launch: launch.clone(), result: Err(failure()) }),
        Effect::Terminate(id) => Some(Event::Terminated { id: id.clone(), result: Err(failure()) }),
        _ => None,
    }
}

fn lost(answer: &Event) -> Option<Event> {
    let why = || "no answer".to_owned();
    let failure = || Failure { kind: AwsErrorKind::Other, why: why() };
    match answer {
        Event::MemoryWritten(_) => Some(Event::MemoryWritten(Written::Unknown(why()))),
        Event::Launched { launch, .. } => {
            Some(Event::Launched { launch: launch.clone(), result: Err(failure()) })
        }
        Event::Terminated { id, .. } => Some(Event::Terminated { id: id.clone(), result: Err(failure()) }),
        _ => None,
    }
}

impl State {
    /// Lets an effect happen, and notes what must not.
    fn carry_out(&mut self, effect: &Effect, lie: Lie, is_lagging: bool) -> Option<Event> {
        match effect {
            Effect::Launch(launch) if !self.intents.contains(&(launch.slot, launch.attempt)) => {
                self.wrong = Some("launched without an intent in memory");
            }
            Effect::Terminate(id) => self.check_end(id),
            _ => {}
        }
        let before = self.world.registry.as_ref().map_or(0, |(registry, _)| registry.revision);
        let event = self.world.carry_out(effect, lie, is_lagging);
        let after = self.world.registry.as_ref().map_or(0, |(registry, _)| registry.revision);
        if after < before {
            self.wrong = Some("the revision of the registry went back");
        }
        if let (Effect::WriteMemory { memory, .. }, Some(Event::MemoryWritten(Written::Done { .. }))) =
            (effect, &event)
        {
            self.intents.extend(memory.slots.iter().map(|(number, slot)| (*number, slot.attempt)));
        }
        event
    }

    fn check_end(&mut self, id: &WorkerId) {
        let world = &self.world;
        let Some(machine) = world.live().find(|machine| machine.row.id == *id) else { return };
        let another_answers = world.live().any(|other| other.row.id != *id && world.answers(other));
        if world.answers(machine) {
            self.wrong = Some("a worker that answers is terminated");
        } else if machine.served && !another_answers {
            self.wrong = Some("a worker that served is terminated, and no other one answers");
        }
    }

    fn deliver(&mut self, runner: usize, event: Event) {
        let now = self.world.now;
        let Some(it) = &mut self.runners[runner] else { return };
        let more = it.invocation.step(event, now);
        it.asked.extend(more);
        // What follows its sleep is left to the next invocation.
        let is_over =
            it.answers.is_empty() && it.asked.iter().all(|effect| matches!(effect, Effect::Sleep { .. }));
        if is_over {
            self.runners[runner] = None;
        }
    }

    fn start(&mut self) {
        let (invocation, asked) = self.world.invocation(format!("run-{}", self.started));
        self.runners.push(Some(Runner { invocation, asked, answers: Vec::new() }));
        self.started += 1;
    }

    fn is_final(&self) -> bool {
        self.runners.iter().all(Option::is_none) && self.late.is_empty()
    }

    /// No two live instances of one launch, and none that memory does not count on.
    fn is_single(&self) -> bool {
        let mut launches = BTreeSet::new();
        let mut slots = BTreeSet::new();
        let leaving = |id: &WorkerId| {
            self.world.memory.as_ref().is_some_and(|(memory, _)| memory.leaving.contains_key(id))
        };
        self.world.live().all(|machine| {
            let row = &machine.row;
            launches.insert((row.slot, row.attempt)) && (leaving(&row.id) || slots.insert(row.slot))
        })
    }
}

impl Model for Overlap {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let begin = |start: &Start| {
            let world = World::started_as(*start);
            let slots = world.memory.iter().flat_map(|(memory, _)| &memory.slots);
            let intents = slots.map(|(number, slot)| (*number, slot.attempt)).collect();
            let mut state = State {
                world,
                started: 0,
                runners: Vec::new(),
                late: Vec::new(),
                crashes: 0,
                losses: 0,
                intents,
                wrong: None,
            };
            state.start();
            state
        };
        self.starts.iter().map(begin).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        let is_last = state.started + 1 == self.invocations;
        let waits = self.is_last_alone && is_last && state.runners.iter().any(Option::is_some);
        if state.started < self.invocations && !waits {
            actions.push(Action::TimePasses);
        }
        for (runner, it) in state.runners.iter().enumerate() {
            let Some(it) = it else { continue };
            for (effect, asked) in it.asked.iter().enumerate() {
                if matches!(asked, Effect::Sleep { .. }) {
                    continue;
                }
                actions.push(Action::Happens { runner, effect, is_lagging: false });
                if *asked == Effect::Survey {
                    actions.push(Action::Happens { runner, effect, is_lagging: true });
                }
                if state.losses < self.losses && no_answer(asked).is_some() {
                    actions.push(Action::NotAnswered { runner, effect });
                }
            }
            for (answer, event) in it.answers.iter().enumerate() {
                actions.push(Action::Answered { runner, answer });
                if state.losses < self.losses {
                    actions.push(Action::AnswerLost { runner, answer });
                    if matches!(event, Event::MemoryWritten(Written::Done { .. })) {
                        actions.push(Action::SentTwice { runner, answer });
                    }
                }
            }
            if state.crashes < self.crashes {
                actions.push(Action::Vanishes { runner });
            }
        }
        for effect in 0..state.late.len() {
            actions.push(Action::HappensLate { effect });
            actions.push(Action::NeverHappens { effect });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::TimePasses => {
                state.world.now += STEP;
                state.start();
            }
            Action::Happens { runner, effect, is_lagging } => {
                let effect = state.runners[runner].as_mut()?.asked.remove(effect);
                let event = state.carry_out(&effect, self.lie, is_lagging)?;
                if changes_the_world(&effect) {
                    state.runners[runner].as_mut()?.answers.push(event);
                } else {
                    state.deliver(runner, event);
                }
            }
            Action::Answered { runner, answer } => {
                let event = state.runners[runner].as_mut()?.answers.remove(answer);
                state.deliver(runner, event);
            }
            Action::AnswerLost { runner, answer } => {
                state.losses += 1;
                let event = state.runners[runner].as_mut()?.answers.remove(answer);
                state.deliver(runner, lost(&event)?);
            }
            Action::SentTwice { runner, answer } => {
                state.losses += 1;
                drop(state.runners[runner].as_mut()?.answers.remove(answer));
                state.deliver(runner, Event::MemoryWritten(Written::Conflict));
            }
            Action::NotAnswered { runner, effect } => {
                state.losses += 1;
                let effect = state.runners[runner].as_mut()?.asked.remove(effect);
                let event = no_answer(&effect)?;
                state.late.push(effect);
                state.deliver(runner, event);
            }
            Action::Vanishes { runner } => {
                state.crashes += 1;
                let it = state.runners[runner].take()?;
                state.late.extend(it.asked.into_iter().filter(changes_the_world));
            }
            Action::HappensLate { effect } => {
                let effect = state.late.remove(effect);
                drop(state.carry_out(&effect, self.lie, false));
            }
            Action::NeverHappens { effect } => drop(state.late.remove(effect)),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(NOTHING_WRONG, |_, state| state.wrong.is_none()),
            Property::<Self>::always(SINGLE, |_, state| state.is_single()),
            Property::<Self>::always(WHOLE, |model, state| {
                let is_last = state.started == model.invocations && state.is_final();
                !is_last || state.wrong.is_some() || state.world.recovers()
            }),
            Property::<Self>::sometimes(REPLACED, |_, state| {
                state.is_final() && state.world.machines.len() > 2 && state.world.live().count() == 2
            }),
        ]
    }
}

const NOTHING_WRONG: &str = "nothing happens that must not";
const SINGLE: &str = "one live instance for each launch, and one for each slot that is not to leave";
const WHOLE: &str = "the fleet is made whole by the invocations that follow";
const REPLACED: &str = "an instance is replaced";

const STARTS: [Start; 6] =
    [Start::Empty, Start::Well, Start::OneMissing, Start::OneDead, Start::BothDead, Start::OneDeadOneMissing];

/// Explores everything, or up to the first property that does not hold, and gives those.
#[expect(clippy::print_stdout, reason = "the number of states is the worth of this test")]
fn broken(model: Overlap) -> Vec<&'static str> {
    let began = Instant::now();
    let what = format!("{model:?}");
    let always = [NOTHING_WRONG, SINGLE, WHOLE];
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from(always)))
        .spawn_bfs()
        .join();
    println!(
        "{} states, {} deep, {:.1} s: {what}",
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f32()
    );
    let discoveries = checker.discoveries();
    assert!(
        always.iter().any(|name| discoveries.contains_key(name)) || discoveries.contains_key(REPLACED),
        "no instance was replaced in any order: the model does not reach far enough"
    );
    let broken = always.into_iter().filter(|name| discoveries.contains_key(name));
    broken
        .inspect(|name| {
            let path = discoveries[name].clone();
            println!("not true: {name}, from {:#?}", path.clone().into_states().first());
            path.into_actions().iter().enumerate().for_each(|(n, action)| println!("{n:4} {action:?}"));
        })
        .collect()
}

const TWO: Overlap = Overlap {
    starts: Vec::new(),
    invocations: 2,
    is_last_alone: false,
    crashes: 0,
    losses: 0,
    lie: Lie::None,
};

/// Two that overlap.
fn overlapping(starts: &[Start]) -> Overlap {
    Overlap { starts: starts.to_vec(), crashes: 1, losses: 1, ..TWO }
}

/// Two that overlap, of which any may vanish, and a third that follows.
fn followed(starts: &[Start]) -> Overlap {
    Overlap { starts: starts.to_vec(), invocations: 3, is_last_alone: true, crashes: 2, losses: 1, ..TWO }
}

#[test]
fn two_invocations_that_overlap_do_no_harm() {
    assert_eq!(broken(overlapping(&[Start::OneMissing, Start::OneDeadOneMissing])), [""; 0]);
}

#[test]
fn an_invocation_after_two_that_vanish_does_no_harm() {
    assert_eq!(broken(followed(&[Start::OneDead])), [""; 0]);
}

#[test]
#[ignore = "a minute of two cores; `make test-full` runs it"]
fn from_every_start_two_that_overlap_do_no_harm() {
    assert_eq!(broken(overlapping(&STARTS)), [""; 0]);
}

#[test]
#[ignore = "a minute of two cores; `make test-full` runs it"]
fn from_every_start_one_after_two_does_no_harm() {
    assert_eq!(broken(followed(&[Start::OneMissing, Start::OneDead, Start::BothDead])), [""; 0]);
}

#[test]
#[ignore = "tens of millions of states: cargo test -p planner --test model -- --ignored"]
fn three_invocations_that_overlap_do_no_harm_in_any_order() {
    for start in STARTS.into_iter().filter(|start| *start != Start::Well) {
        let bounds = Overlap { starts: vec![start], invocations: 3, crashes: 1, ..TWO };
        assert_eq!(broken(bounds), [""; 0]);
    }
}

#[test]
fn a_store_that_ignores_if_match_is_found_out() {
    let bounds = Overlap { starts: vec![Start::OneDead], lie: Lie::IfMatchIsIgnored, ..TWO };
    assert_eq!(broken(bounds), [SINGLE]);
}

#[test]
fn an_ec2_that_ignores_the_client_token_is_found_out() {
    let bounds = Overlap { starts: vec![Start::OneMissing], lie: Lie::TokenIsIgnored, ..TWO };
    assert_eq!(broken(bounds), [SINGLE]);
}
