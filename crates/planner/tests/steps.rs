//! An invocation driven by hand: its effects, and their order. The planner has its own tests; here it
//! only gives the machine something to do.

#[path = "support/stack.rs"]
mod stack;

use std::sync::Arc;

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{Memory, Phase};
use fleet::release::{BalancerSpec, Release};
use fleet::{Policy, Registry, WorkerId};
use jiff::{SignedDuration, Timestamp};
use planner::decision::StateDecision;
use planner::effect::{Effect, Event, Failure, Launch, MemoryObject, Written};
use planner::held_back::HeldBack;
use planner::invocation::Invocation;
use planner::observation::{Instance, Observation, Probe, Role};
use stack::{count, id, minute, observation, release, worker};

const NONCE: &str = "me";

/// An invocation whose effects are answered one by one.
struct Hand {
    invocation: Invocation,
    /// Asked for, and not answered yet.
    asked: Vec<Effect>,
    now: Timestamp,
}

impl Hand {
    /// The invocation of this minute, come in time.
    fn start() -> Self {
        Self::start_late(0)
    }

    fn start_late(seconds: i64) -> Self {
        let now = minute() + SignedDuration::from_secs(seconds);
        let (invocation, asked) = Invocation::start(minute(), NONCE.to_owned(), now);
        Self { invocation, asked, now }
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn step(&mut self, event: Event) {
        let more = self.invocation.step(event, self.now);
        self.asked.extend(more);
    }

    /// Takes the one effect that is waited for.
    #[track_caller]
    fn only(&mut self) -> Effect {
        assert_eq!(self.asked.len(), 1, "{:#?}", self.asked);
        self.asked.remove(0)
    }

    #[track_caller]
    fn reads(&mut self, object: MemoryObject) {
        assert_eq!(self.only(), Effect::ReadMemory);
        let date = Some(self.now);
        self.step(Event::MemoryRead { object: Ok(object), date });
    }

    #[track_caller]
    fn sees(&mut self, observation: Observation) {
        assert_eq!(self.only(), Effect::Survey);
        self.step(Event::Surveyed(Box::new(observation)));
    }

    /// Answers for every target. Returns the number of tries that were asked for.
    #[track_caller]
    fn hears(&mut self, probe: Probe) -> u32 {
        let Effect::Probe { targets, knocking } = self.only() else { panic!("no probe is asked for") };
        let probes = targets.into_iter().map(|target| (target.id, probe)).collect();
        self.step(Event::Probed { probes, started: Vec::new() });
        knocking.tries
    }

    /// Answers a write of memory. Returns the memory, and the version it replaces.
    #[track_caller]
    fn writes(&mut self, written: Written) -> (Memory, Option<String>) {
        let Effect::WriteMemory { memory, if_match } = self.only() else { panic!("nothing is written") };
        self.step(Event::MemoryWritten(written));
        (memory.as_ref().clone(), if_match)
    }

    #[track_caller]
    fn publishes(&mut self, written: Written) -> Registry {
        let Effect::Publish { registry, .. } = self.only() else { panic!("nothing is published") };
        self.step(Event::Published(written));
        registry.as_ref().clone()
    }

    #[track_caller]
    fn sleeps(&mut self) -> SignedDuration {
        let Effect::Sleep { until } = self.only() else { panic!("it does not sleep") };
        let slept = until.duration_since(self.now);
        self.now = until;
        self.step(Event::Woke);
        slept
    }

    fn launches(&self) -> Vec<Launch> {
        let launch = |effect: &Effect| match effect {
            Effect::Launch(launch) => Some(launch.clone()),
            _ => None,
        };
        self.asked.iter().filter_map(launch).collect()
    }

    fn launched(&mut self, launch: &Launch, result: Result<WorkerId, Failure>) {
        self.asked.retain(|effect| *effect != Effect::Launch(launch.clone()));
        self.step(Event::Launched { launch: launch.clone(), result });
    }

    /// Whether anything is asked for that changes the world.
    fn acts(&self) -> bool {
        self.asked.iter().any(|effect| {
            matches!(
                effect,
                Effect::Launch(_) | Effect::Terminate(_) | Effect::Associate { .. } | Effect::Publish { .. }
            )
        })
    }

    /// Plays a tick up to its first write of memory.
    #[track_caller]
    fn plans(&mut self, object: MemoryObject, observation: Observation, probe: Probe) {
        self.reads(object);
        self.sees(observation);
        self.hears(probe);
    }
}

fn balancer() -> BalancerSpec {
    BalancerSpec {
        id: "lb-1".to_owned(),
        allocation: "eipalloc-1".to_owned(),
        more_allocations: Vec::new(),
        instance: release().worker,
    }
}

fn found(memory: Memory, etag: &str) -> MemoryObject {
    MemoryObject::Found { memory: Arc::new(memory), etag: etag.to_owned() }
}

fn done(etag: &str) -> Written {
    Written::Done { etag: etag.to_owned() }
}

fn unknown() -> Written {
    Written::Unknown("no answer".to_owned())
}

/// A fleet at rest: its workers, its memory as of the last minute, and the registry of readers.
fn serving(number: u32) -> (Vec<Instance>, Memory, Registry) {
    let launched = minute() - SignedDuration::from_hours(1);
    let rows: Vec<_> = (0..number).map(|slot| worker(&format!("i-{slot}"), slot, launched)).collect();
    let mut hand = Hand::start();
    let began = minute() - SignedDuration::from_hours(1);
    let before = Memory { began: Some(began), ..Memory::default() };
    hand.plans(found(before, "etag-0"), observation(number, rows.clone(), None), Probe::Answered);
    let (memory, _) = hand.writes(done("etag-1"));
    let registry = hand.publishes(done("registry-1"));
    let memory = Memory { last_tick: Some(minute() - SignedDuration::from_secs(20)), ..memory };
    (rows, memory, registry)
}

#[test]
fn a_tick_of_a_fleet_at_rest_writes_its_memory_and_sleeps_until_the_next() {
    let (rows, memory, registry) = serving(2);
    let mut hand = Hand::start();
    hand.reads(found(memory, "etag-1"));
    hand.sees(observation(2, rows, Some(registry)));
    assert_eq!(hand.hears(Probe::Answered), 3, "one lost packet must not cost a worker");
    let (written, if_match) = hand.writes(done("etag-2"));
    assert_eq!((written.last_tick, if_match.as_deref()), (Some(minute()), Some("etag-1")));
    assert_eq!(hand.sleeps(), SignedDuration::from_secs(20));
    assert_eq!(hand.invocation.report().ticks, 1);
}

/// The policy of the release that a state remembers, and of a survey.
fn with_policy(memory: &mut Memory, seen: &mut Observation, policy: &Policy) {
    let release = Release { policy: policy.clone(), ..release() };
    seen.release = Ok(Some(Arc::new(release.clone())));
    (memory.released, memory.proven) = (None, Some(release));
}

#[test]
fn the_policy_of_the_remembered_release_sets_the_ticks() {
    let (rows, mut memory, registry) = serving(2);
    let mut seen = observation(2, rows, Some(registry));
    let tick_every = SignedDuration::from_secs(5);
    let tick_closest = SignedDuration::from_secs(2);
    let policy = Policy { tick_every, tick_closest, ticks: 9, probe_tries: 1, ..Policy::default() };
    with_policy(&mut memory, &mut seen, &policy);
    let mut hand = Hand::start();
    for tick in 0..9 {
        hand.reads(found(memory.clone(), "etag-1"));
        hand.sees(seen.clone());
        assert_eq!(hand.hears(Probe::Answered), 1);
        let (written, _) = hand.writes(done("etag-2"));
        memory = written;
        assert_eq!(memory.last_tick, Some(minute() + tick_every * tick));
        if tick < 8 {
            assert_eq!(hand.sleeps(), tick_every);
        }
    }
    assert!(hand.invocation.is_done());
}

#[test]
fn a_new_policy_applies_from_its_first_survey() {
    let (rows, mut memory, registry) = serving(2);
    let mut seen = observation(2, rows, Some(registry));
    let before = memory.clone();
    let (tick_every, ticks) = (SignedDuration::from_secs(15), 2);
    with_policy(&mut memory, &mut seen, &Policy { tick_every, ticks, ..Policy::default() });
    let mut hand = Hand::start();
    hand.reads(found(before, "etag-1"));
    hand.sees(seen);
    hand.hears(Probe::Answered);
    let (written, _) = hand.writes(done("etag-2"));
    assert_eq!(written.last_release().expect("it was read").policy.ticks, 2, "the next invocation has it");
    assert_eq!(hand.sleeps(), tick_every);
}

#[test]
fn nothing_is_launched_before_the_commit_is_answered() {
    let mut hand = Hand::start();
    hand.reads(MemoryObject::Missing);
    assert!(!hand.acts());
    hand.sees(observation(2, Vec::new(), None));
    assert!(!hand.acts());
    hand.hears(Probe::Answered);
    assert!(!hand.acts());
    let (memory, if_match) = hand.writes(done("etag-1"));
    assert_eq!(if_match, None, "only if there is none");
    hand.publishes(done("registry-1"));
    let launches = hand.launches();
    assert_eq!(launches.len(), 2);
    for launch in launches {
        assert_eq!(memory.slots[&launch.slot].attempt, launch.attempt, "its intent is written");
    }
}

#[test]
fn the_registry_is_published_before_anybody_is_launched_or_terminated() {
    let mut hand = condemning();
    let registry = hand.publishes(done("registry-2"));
    assert!(!registry.workers.contains_key(&id("i-1")));
    let kinds: Vec<_> = hand.asked.iter().map(|effect| matches!(effect, Effect::Launch(_))).collect();
    assert_eq!(kinds, [true, false], "the replacement takes longest");
    assert_eq!(hand.asked[1], Effect::Terminate(id("i-1")));
}

#[test]
fn credits_are_capped_after_everything_else() {
    let (rows, mut memory, registry) = serving(2);
    for slot in memory.slots.values_mut() {
        slot.since = minute() - SignedDuration::from_mins(10);
    }
    let mut hand = Hand::start();
    hand.plans(found(memory, "etag-1"), observation(3, rows, Some(registry)), Probe::Answered);
    hand.writes(done("etag-2"));
    hand.publishes(done("registry-2"));
    let launches = hand.launches();
    assert_eq!(launches.len(), 1);
    let caps = [Effect::CapCredits(id("i-0")), Effect::CapCredits(id("i-1"))];
    assert_eq!(hand.asked, [vec![Effect::Launch(launches[0].clone())], caps.to_vec()].concat());
}

#[test]
fn a_cap_counts_when_ec2_has_said_so() {
    let (rows, mut memory, registry) = serving(2);
    for slot in memory.slots.values_mut() {
        slot.since = minute() - SignedDuration::from_mins(10);
    }
    let mut hand = Hand::start();
    hand.plans(found(memory, "etag-1"), observation(2, rows, Some(registry)), Probe::Answered);
    let (written, _) = hand.writes(done("etag-2"));
    assert!(written.credits.done.is_empty(), "it is not known yet");
    hand.asked.clear();
    hand.step(Event::CreditsCapped { id: id("i-0"), result: Ok(()) });
    let why = "a permission is missing".to_owned();
    let result = Err(Failure { kind: AwsErrorKind::Denied, why: why.clone() });
    hand.step(Event::CreditsCapped { id: id("i-1"), result });
    let (settled, _) = hand.writes(done("etag-3"));
    assert_eq!(settled.credits.done.into_iter().collect::<Vec<_>>(), [id("i-0")]);
    assert_eq!(settled.credits.refused.expect("it is asked for again").0, why);
}

#[test]
fn a_lost_compare_and_swap_drops_the_tick_and_all_its_effects() {
    for written in [Written::Conflict, unknown()] {
        let theirs = Memory { nonce: "theirs-1".to_owned(), last_tick: Some(minute()), ..Memory::default() };
        for object in [found(theirs, "etag-9"), MemoryObject::Missing] {
            let mut hand = Hand::start();
            hand.plans(MemoryObject::Missing, observation(2, Vec::new(), None), Probe::Answered);
            hand.writes(written.clone());
            hand.reads(object);
            assert!(!hand.acts());
            hand.sleeps();
            let report = hand.invocation.report();
            assert_eq!((report.ticks, report.skipped, report.launched), (0, 1, 0), "{written:?}");
        }
    }
}

#[test]
fn a_tick_whose_write_is_refused_is_dropped_with_the_reason() {
    let refused = || Written::Unknown("AccessDenied: no".to_owned());
    for (written, reasons) in [(refused(), 1), (Written::Conflict, 0)] {
        let mut hand = Hand::start();
        hand.plans(MemoryObject::Missing, observation(2, Vec::new(), None), Probe::Answered);
        hand.writes(written.clone());
        hand.reads(MemoryObject::Missing);
        let failures = &hand.invocation.report().failures;
        assert_eq!(failures.len(), reasons, "{written:?}: {failures:?}");
        assert!(failures.iter().all(|text| text.contains("AccessDenied: no")), "{failures:?}");
    }
}

#[test]
fn a_write_whose_answer_was_lost_is_known_by_its_nonce() {
    for written in [Written::Conflict, unknown()] {
        let mut hand = Hand::start();
        hand.plans(MemoryObject::Missing, observation(1, Vec::new(), None), Probe::Answered);
        let (memory, _) = hand.writes(written);
        assert!(!hand.acts());
        hand.reads(found(memory, "etag-7"));
        hand.publishes(done("registry-1"));
        let launch = hand.launches().remove(0);
        hand.launched(&launch, Ok(id("i-1")));
        let (_, if_match) = hand.writes(done("etag-8"));
        assert_eq!(if_match.as_deref(), Some("etag-7"), "over the version that was read back");
    }
}

#[test]
fn a_write_of_which_nothing_can_be_learned_drops_the_tick() {
    let mut hand = Hand::start();
    hand.plans(MemoryObject::Missing, observation(1, Vec::new(), None), Probe::Answered);
    hand.writes(unknown());
    assert_eq!(hand.only(), Effect::ReadMemory);
    hand.step(Event::MemoryRead { object: Err("no answer".to_owned()), date: None });
    assert!(!hand.acts());
    assert_eq!(hand.invocation.report().failures.len(), 1);
    hand.sleeps();
}

#[test]
fn every_write_has_a_nonce_of_its_own() {
    let mut hand = Hand::start();
    hand.plans(MemoryObject::Missing, observation(1, Vec::new(), None), Probe::Answered);
    let (first, _) = hand.writes(done("etag-1"));
    hand.publishes(done("registry-1"));
    let launch = hand.launches().remove(0);
    hand.launched(&launch, Ok(id("i-1")));
    let (second, _) = hand.writes(done("etag-2"));
    assert!(first.nonce.starts_with(NONCE) && second.nonce.starts_with(NONCE));
    assert_ne!(first.nonce, second.nonce);
}

#[test]
fn a_stale_plan_is_not_carried_out() {
    for (seconds, launches) in [(15, 1), (16, 0)] {
        let mut hand = Hand::start();
        hand.plans(MemoryObject::Missing, observation(1, Vec::new(), None), Probe::Answered);
        hand.wait(seconds);
        let (memory, _) = hand.writes(done("etag-1"));
        hand.publishes(done("registry-1"));
        assert_eq!(hand.launches().len(), launches, "{seconds} s after the survey");
        assert_eq!(memory.slots[&0].phase, Phase::Launching, "the next tick repeats it");
        let is_noted = hand.invocation.report().failures.iter().any(|text| text.contains("too old"));
        assert_eq!(is_noted, launches == 0);
    }
}

#[test]
fn the_age_of_a_plan_counts_from_the_moment_the_survey_was_asked_for() {
    let mut hand = Hand::start();
    hand.reads(MemoryObject::Missing);
    hand.wait(8);
    hand.sees(observation(1, Vec::new(), None));
    hand.wait(8);
    hand.hears(Probe::Answered);
    hand.writes(done("etag-1"));
    hand.publishes(done("registry-1"));
    assert_eq!(hand.launches(), [], "the answer may be 16 s old");
}

#[test]
fn what_waits_in_the_queue_grows_stale_too() {
    let mut hand = Hand::start();
    let (_, mut memory, _) = serving(1);
    memory.slots.clear();
    hand.plans(found(memory, "etag-1"), observation(6, Vec::new(), None), Probe::Answered);
    hand.writes(done("etag-2"));
    hand.publishes(done("registry-2"));
    let first = hand.launches();
    assert_eq!(first.len(), 3, "three at once");
    hand.launched(&first[0], Ok(id("i-1")));
    assert_eq!(hand.launches().len(), 3, "an answer makes room for the next");
    hand.wait(20);
    for launch in hand.launches() {
        hand.launched(&launch, Ok(id(&format!("i-{}", launch.slot + 10))));
    }
    let (written, _) = hand.writes(done("etag-3"));
    let intended = written.slots.values().filter(|slot| slot.phase == Phase::Launching).count();
    assert_eq!((intended, hand.invocation.report().launched), (2, 4), "two are for the next tick");
}

#[test]
fn a_duplicate_invocation_is_skipped_by_the_grid() {
    for last in [0, 9] {
        let (_, memory, _) = serving(2);
        let last_tick = Some(minute() + SignedDuration::from_secs(last));
        let mut hand = Hand::start();
        hand.reads(found(Memory { last_tick, ..memory }, "etag-1"));
        assert_eq!(hand.sleeps(), SignedDuration::from_secs(20), "nothing is looked at or written");
        assert_eq!((hand.invocation.report().skipped, hand.invocation.report().ticks), (1, 0));
    }
}

#[test]
fn a_tick_of_the_minute_before_is_no_duplicate() {
    let (_, memory, _) = serving(2);
    let last_tick = Some(minute() - SignedDuration::from_secs(20));
    let mut hand = Hand::start();
    hand.reads(found(Memory { last_tick, ..memory }, "etag-1"));
    assert_eq!(hand.only(), Effect::Survey);
}

#[test]
fn a_clock_that_differs_from_that_of_s3_drops_the_tick() {
    for (seconds, is_dropped) in [(-4, true), (-3, false), (0, false), (3, false), (4, true)] {
        let mut hand = Hand::start();
        assert_eq!(hand.only(), Effect::ReadMemory);
        let date = Some(hand.now + SignedDuration::from_secs(seconds));
        hand.step(Event::MemoryRead { object: Ok(MemoryObject::Missing), date });
        assert_eq!(matches!(hand.only(), Effect::Sleep { .. }), is_dropped, "{seconds} s");
    }
}

#[test]
fn memory_that_cannot_be_read_drops_the_tick_and_the_next_one_tries_again() {
    let mut hand = Hand::start();
    assert_eq!(hand.only(), Effect::ReadMemory);
    hand.step(Event::MemoryRead { object: Err("no answer".to_owned()), date: None });
    hand.sleeps();
    assert_eq!(hand.only(), Effect::ReadMemory);
    assert_eq!(hand.invocation.report().failures.len(), 1);
}

/// A body that stalls is read for as long as two clocks may be apart.
#[test]
fn a_read_that_fails_late_is_not_called_a_wrong_clock() {
    let mut hand = Hand::start();
    assert_eq!(hand.only(), Effect::ReadMemory);
    let date = Some(hand.now);
    hand.wait(8);
    hand.step(Event::MemoryRead { object: Err("S3 sent no whole body".to_owned()), date });
    let failures = &hand.invocation.report().failures;
    assert_eq!(failures, &["the tick is dropped: state.json cannot be read: S3 sent no whole body"]);
}

/// Written by a clock that was wrong, or by hand.
#[test]
fn a_last_tick_in_the_future_stops_no_tick() {
    let (rows, memory, registry) = serving(2);
    let last_tick = Some(minute() + SignedDuration::from_hours(24 * 365));
    let mut hand = Hand::start();
    hand.reads(found(Memory { last_tick, ..memory }, "etag-1"));
    hand.sees(observation(3, rows, Some(registry)));
    hand.hears(Probe::Answered);
    let (written, _) = hand.writes(done("etag-2"));
    assert_eq!(written.last_tick, Some(minute()));
    let reset = StateDecision::TimesReset { times: 1 }.to_string();
    let told = written.events.iter().filter(|event| event.text == reset);
    assert_eq!(told.count(), 1, "{:#?}", written.events);
    hand.publishes(done("registry-2"));
    assert_eq!(hand.launches().len(), 1);
}

#[test]
fn a_tick_that_another_invocation_made_is_still_made_once() {
    for seconds in [0, 2] {
        let mut hand = Hand::start_late(10);
        let last_tick = Some(hand.now + SignedDuration::from_secs(seconds));
        hand.reads(found(Memory { last_tick, ..Memory::default() }, "etag-1"));
        hand.sleeps();
        assert_eq!(hand.invocation.report().skipped, 1, "{seconds} s ahead, as clocks may be");
    }
}

#[test]
fn unreadable_memory_begins_anew_over_the_version_that_is_there() {
    let (rows, _, registry) = serving(2);
    let mut hand = Hand::start();
    let object = MemoryObject::Unreadable { why: "it is a poem".to_owned(), etag: "etag-5".to_owned() };
    hand.plans(object, observation(2, rows, Some(registry)), Probe::Answered);
    let (memory, if_match) = hand.writes(done("etag-6"));
    assert_eq!(if_match.as_deref(), Some("etag-5"));
    assert_eq!((memory.began, memory.healthy()), (Some(minute()), 2), "it is rebuilt from tags");
    let began = StateDecision::BeganEmpty { why: "it is a poem".to_owned() };
    assert_eq!(memory.events[0].text, began.to_string());
    assert!(!hand.acts());
}

#[test]
fn memory_that_is_missing_is_written_only_if_it_is_still_missing() {
    let (rows, _, registry) = serving(2);
    let mut hand = Hand::start();
    hand.plans(MemoryObject::Missing, observation(2, rows, Some(registry)), Probe::Answered);
    let (_, if_match) = hand.writes(Written::Conflict);
    assert_eq!(if_match, None);
}

/// An observation of which the list of instances failed, as while a zone is out.
fn unlisted(desired: u32, registry: Registry) -> Observation {
    let instances = Err("a zone is out".to_owned());
    Observation { instances, ..observation(desired, Vec::new(), Some(registry)) }
}

#[test]
fn when_listing_fails_remembered_instances_are_described_by_their_ids_zone_by_zone() {
    let (rows, memory, registry) = serving(3);
    let mut hand = Hand::start();
    hand.reads(found(memory, "etag-1"));
    hand.sees(unlisted(3, registry));
    let asked = std::mem::take(&mut hand.asked);
    let by_zone = |zone: &str, names: &[&str]| Effect::Describe {
        zone: zone.to_owned(),
        ids: names.iter().map(|name| id(name)).collect(),
    };
    assert_eq!(asked, [by_zone("zone-a", &["i-0", "i-2"]), by_zone("zone-b", &["i-1"])]);
    hand.step(Event::Described { zone: "zone-a".to_owned(), rows: Err("it is out".to_owned()) });
    assert_eq!(hand.asked, [], "the other one is waited for");
    hand.step(Event::Described { zone: "zone-b".to_owned(), rows: Ok(vec![rows[1].clone()]) });
    assert_eq!(hand.hears(Probe::Answered), 3, "all three are asked where they were");
    let (memory, _) = hand.writes(done("etag-2"));
    assert_eq!(memory.healthy(), 3);
    let blind = HeldBack::Everything { why: String::new() }.to_string();
    assert!(memory.held.iter().all(|text| !text.starts_with(&blind)), "it is not blind");
}

#[test]
fn a_load_balancer_is_described_by_its_id_as_well() {
    let (rows, mut memory, registry) = serving(1);
    let zone = |zone: Option<&str>| fleet::memory::Holder {
        id: id("i-9"),
        addr: None,
        since: minute(),
        answered: true,
        silent_since: None,
        missing_since: None,
        release: None,
        zone: zone.map(str::to_owned),
        started: None,
    };
    for (holder, asked) in [(zone(Some("zone-b")), "zone-b"), (zone(None), "")] {
        memory.balancer.holder = Some(holder);
        let mut hand = Hand::start();
        hand.reads(found(memory.clone(), "etag-1"));
        hand.sees(unlisted(1, registry.clone()));
        let by_id = Effect::Describe { zone: asked.to_owned(), ids: vec![id("i-9")] };
        assert!(hand.asked.contains(&by_id), "{:#?}", hand.asked);
        assert_eq!(hand.asked.len(), 2, "{rows:#?}");
    }
}

#[test]
fn when_no_zone_answers_the_tick_is_blind() {
    let (_, memory, registry) = serving(2);
    let mut hand = Hand::start();
    hand.reads(found(memory.clone(), "etag-1"));
    hand.sees(unlisted(4, registry));
    hand.asked.clear();
    for zone in ["zone-a", "zone-b"] {
        hand.step(Event::Described { zone: zone.to_owned(), rows: Err("it is out".to_owned()) });
    }
    hand.hears(Probe::Silent);
    let (written, _) = hand.writes(done("etag-2"));
    assert_eq!(written.slots, memory.slots);
    let blind = HeldBack::Everything { why: "a zone is out".to_owned() };
    assert!(written.held.contains(&blind.to_string()), "{:?}", written.held);
    assert!(!hand.acts());
}

#[test]
fn without_anything_to_remember_a_list_that_fails_is_blindness() {
    let mut hand = Hand::start();
    hand.reads(MemoryObject::Missing);
    let instances = Err("a zone is out".to_owned());
    hand.sees(Observation { instances, ..observation(2, Vec::new(), None) });
    hand.hears(Probe::Answered);
    let (memory, _) = hand.writes(done("etag-1"));
    assert!(memory.slots.is_empty());
    assert!(!hand.acts());
}

#[test]
fn outcomes_are_written_down_over_the_version_of_the_intents() {
    let mut hand = Hand::start();
    hand.plans(MemoryObject::Missing, observation(2, Vec::new(), None), Probe::Answered);
    hand.writes(done("etag-1"));
    hand.publishes(done("registry-1"));
    let launches = hand.launches();
    let why = || Failure { kind: AwsErrorKind::NoCapacity, why: "none left".to_owned() };
    hand.launched(&launches[0], Ok(id("i-1")));
    hand.launched(&launches[1], Err(why()));
    let (memory, if_match) = hand.writes(Written::Conflict);
    assert_eq!(if_match.as_deref(), Some("etag-1"));
    let worker = memory.slots.values().next().and_then(|slot| slot.worker.clone());
    assert_eq!((memory.slots.len(), worker), (1, Some(id("i-1"))));
    assert_eq!(memory.avoid.len(), 1);
    // That write was refused, and it does not matter: instances are found by their tags.
    hand.sleeps();
}

#[test]
fn a_failed_termination_and_association_are_written_down() {
    let mut hand = Hand::start();
    let (mut rows, memory, registry) = serving(3);
    let launched = minute() - SignedDuration::from_hours(1);
    rows.push(Instance { role: Role::LoadBalancer, slot: None, attempt: None, ..worker("i-9", 9, launched) });
    let mut definition = release();
    definition.balancer = Some(balancer());
    let allocation = balancer().allocation;
    let address = planner::observation::Address { allocation: allocation.clone(), instance: None };
    let seen = Observation {
        release: Ok(Some(Arc::new(definition))),
        addresses: Ok(vec![address]),
        ..observation(3, rows, Some(registry))
    };
    hand.reads(found(memory, "etag-1"));
    hand.sees(seen);
    let Effect::Probe { targets, .. } = hand.only() else { panic!("no probe is asked for") };
    let said = |name: &WorkerId| if *name == id("i-1") { Probe::Refused } else { Probe::Answered };
    let probes = targets.into_iter().map(|target| (target.id.clone(), said(&target.id))).collect();
    hand.step(Event::Probed { probes, started: Vec::new() });
    hand.writes(done("etag-2"));
    hand.publishes(done("registry-2"));
    assert!(matches!(&hand.asked[0], Effect::Refresh { addresses } if addresses.len() == 1), "first a hint");
    let launch = hand.launches().remove(0);
    assert_eq!(hand.asked.len(), 4);
    let failure = || Failure { kind: AwsErrorKind::Throttled, why: "later".to_owned() };
    hand.asked.clear();
    hand.step(Event::Refreshed);
    hand.step(Event::Launched { launch, result: Err(failure()) });
    hand.step(Event::Terminated { id: id("i-1"), result: Err(failure()) });
    hand.step(Event::Associated { instance: id("i-9"), result: Err(failure()) });
    let (memory, _) = hand.writes(done("etag-3"));
    let why = || "later".to_owned();
    let termination = HeldBack::TerminationFailed { id: id("i-1"), why: why() };
    let address = HeldBack::AddressFailed { id: id("i-9"), why: why() };
    for held_back in [termination, address] {
        assert!(memory.held.contains(&held_back.to_string()), "{:?}", memory.held);
    }
}

/// A tick in which the address moves, a worker is terminated, one is launched, and earlier launches
/// are repeated.
fn busy(repeated: u32) -> Hand {
    let (mut rows, mut memory, registry) = serving(3);
    let launched = minute() - SignedDuration::from_hours(1);
    rows.push(Instance { role: Role::LoadBalancer, slot: None, attempt: None, ..worker("i-9", 9, launched) });
    let mut intended = memory.slots[&0].clone();
    (intended.worker, intended.addr, intended.phase) = (None, None, Phase::Launching);
    (intended.since, intended.is_adopted, intended.served) = (minute(), false, false);
    memory.slots.extend((10..10 + repeated).map(|number| (number, intended.clone())));
    let mut definition = release();
    definition.balancer = Some(balancer());
    let allocation = balancer().allocation;
    let address = planner::observation::Address { allocation, instance: None };
    let seen = Observation {
        release: Ok(Some(Arc::new(definition))),
        addresses: Ok(vec![address]),
        ..observation(3 + repeated, rows, Some(registry))
    };
    let mut hand = Hand::start();
    hand.reads(found(memory, "etag-1"));
    hand.sees(seen);
    let Effect::Probe { targets, .. } = hand.only() else { panic!("no probe is asked for") };
    let said = |name: &WorkerId| if *name == id("i-1") { Probe::Refused } else { Probe::Answered };
    let probes = targets.into_iter().map(|target| (target.id.clone(), said(&target.id))).collect();
    hand.step(Event::Probed { probes, started: Vec::new() });
    hand.writes(done("etag-2"));
    hand.publishes(done("registry-2"));
    hand.asked.retain(|effect| !matches!(effect, Effect::Refresh { .. }));
    hand.step(Event::Refreshed);
    hand
}

#[test]
fn the_address_comes_before_launches_and_launches_of_before_come_last() {
    let hand = busy(2);
    let kinds = hand.asked.iter().map(|effect| match effect {
        Effect::Associate { .. } => "address",
        Effect::Launch(launch) if launch.slot >= 10 => "repeated launch",
        Effect::Launch(_) => "new launch",
        Effect::Terminate(_) => "end",
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["address", "new launch", "end", "repeated launch"]);
}

#[test]
fn launches_that_hang_leave_a_call_for_everything_else() {
    let mut hand = busy(8);
    let is_launch = |effect: &Effect| matches!(effect, Effect::Launch(_));
    // The launches do not answer; all else does.
    while let Some(position) = hand.asked.iter().position(|effect| !is_launch(effect)) {
        assert!(hand.launches().len() <= 3, "{:#?}", hand.asked);
        let event = match hand.asked.remove(position) {
            Effect::Associate { instance, .. } => Event::Associated { instance, result: Ok(()) },
            Effect::Terminate(id) => Event::Terminated { id, result: Ok(()) },
            other => panic!("{other:?}"),
        };
        hand.step(event);
    }
    assert_eq!((hand.launches().len(), hand.invocation.report().terminated), (3, 1));
}

#[test]
fn a_registry_that_could_not_be_published_does_not_hold_up_what_was_planned() {
    for (written, failures) in [(Written::Conflict, 0), (unknown(), 1)] {
        let mut hand = Hand::start();
        hand.plans(MemoryObject::Missing, observation(1, Vec::new(), None), Probe::Answered);
        hand.writes(done("etag-1"));
        hand.publishes(written);
        assert_eq!(hand.launches().len(), 1);
        assert_eq!(hand.invocation.report().failures.len(), failures);
    }
}

/// A tick that has written the end of i-1, which refuses, and its replacement; the registry is next.
fn condemning() -> Hand {
    let (rows, memory, registry) = serving(3);
    let mut hand = Hand::start();
    hand.reads(found(memory, "etag-1"));
    hand.sees(observation(3, rows, Some(registry)));
    let Effect::Probe { targets, .. } = hand.only() else { panic!("no probe is asked for") };
    let said = |name: &WorkerId| if *name == id("i-1") { Probe::Refused } else { Probe::Answered };
    let probes = targets.into_iter().map(|target| (target.id.clone(), said(&target.id))).collect();
    hand.step(Event::Probed { probes, started: Vec::new() });
    hand.writes(done("etag-2"));
    hand
}

#[test]
fn nobody_is_terminated_for_its_health_whose_registry_was_not_written() {
    for written in [Written::Conflict, unknown()] {
        let mut hand = condemning();
        hand.publishes(written.clone());
        assert_eq!((hand.asked.len(), hand.launches().len()), (1, 1), "{written:?}: {:#?}", hand.asked);
        let report = hand.invocation.report();
        assert!(report.failures.iter().any(|text| text.contains("not terminated")), "{report:?}");
    }
}

#[test]
fn nobody_is_terminated_who_may_have_been_taken_back_meanwhile() {
    for (seconds, is_terminated) in [(3, true), (4, false)] {
        let mut hand = condemning();
        hand.wait(seconds);
        hand.publishes(done("registry-2"));
        assert_eq!(hand.launches().len(), 1);
        assert_eq!(hand.asked.contains(&Effect::Terminate(id("i-1"))), is_terminated, "{seconds} s");
    }
}

/// An invocation whose first tick has launched one worker.
fn booting() -> (Hand, Memory, Registry) {
    let mut hand = Hand::start();
    hand.plans(MemoryObject::Missing, observation(1, Vec::new(), None), Probe::Answered);
    hand.writes(done("etag-1"));
    let registry = hand.publishes(done("registry-1"));
    let launch = hand.launches().remove(0);
    hand.launched(&launch, Ok(id("i-0")));
    let (memory, _) = hand.writes(done("etag-2"));
    (hand, memory, registry)
}

#[test]
fn while_something_boots_it_is_looked_at_every_two_seconds() {
    let (mut hand, memory, registry) = booting();
    assert_eq!(hand.sleeps(), SignedDuration::from_secs(2));
    let began = hand.now;
    hand.reads(found(memory, "etag-2"));
    hand.sees(observation(1, vec![worker("i-0", 0, minute())], Some(registry)));
    assert_eq!(hand.hears(Probe::Refused), 1, "a silence means nothing, and is not asked for twice");
    assert_eq!(hand.now, began);
    // The instance has an address now, which is news; no worker is judged.
    let (memory, _) = hand.writes(done("etag-3"));
    assert_eq!(memory.slots[&0].phase, Phase::Booting);
    assert!(!hand.acts());
    assert_eq!(hand.sleeps(), SignedDuration::from_secs(2));
}

#[test]
fn a_look_that_finds_nothing_new_writes_nothing() {
    let (mut hand, memory, registry) = booting();
    hand.sleeps();
    hand.reads(found(memory, "etag-2"));
    hand.sees(observation(1, Vec::new(), Some(registry)));
    hand.hears(Probe::Refused);
    assert_eq!(hand.sleeps(), SignedDuration::from_secs(2));
}

#[test]
fn a_first_answer_in_a_look_is_published_at_once() {
    let (mut hand, memory, registry) = booting();
    hand.sleeps();
    hand.plans(
        found(memory, "etag-2"),
        observation(1, vec![worker("i-0", 0, minute())], Some(registry)),
        Probe::Answered,
    );
    let (memory, if_match) = hand.writes(done("etag-3"));
    assert_eq!((memory.healthy(), if_match.as_deref()), (1, Some("etag-2")));
    assert!(hand.publishes(done("registry-2")).workers.contains_key(&id("i-0")));
    assert_eq!(hand.sleeps(), SignedDuration::from_secs(18), "nothing boots any more");
}

#[test]
fn a_first_answer_that_somebody_waits_for_is_followed_by_a_tick_at_once() {
    let (mut hand, mut memory, registry) = booting();
    // One more is desired, and the launch of it is waited for.
    memory.desired = Some(count(2));
    hand.sleeps();
    hand.plans(
        found(memory, "etag-2"),
        observation(2, vec![worker("i-0", 0, minute())], Some(registry)),
        Probe::Answered,
    );
    hand.writes(done("etag-3"));
    hand.publishes(done("registry-2"));
    assert_eq!(hand.only(), Effect::ReadMemory);
}

#[test]
fn a_look_does_not_describe_by_id_and_reads_no_unreadable_memory() {
    let (mut hand, memory, registry) = booting();
    hand.sleeps();
    hand.reads(found(memory, "etag-2"));
    hand.sees(unlisted(1, registry));
    hand.hears(Probe::Silent);
    hand.sleeps();
    hand.reads(MemoryObject::Unreadable { why: "it is a poem".to_owned(), etag: "etag-3".to_owned() });
    assert!(matches!(hand.only(), Effect::Sleep { .. }), "a tick begins with an empty state, not a look");
}

#[test]
fn an_event_that_nobody_waits_for_changes_nothing() {
    let mut hand = Hand::start();
    let before = hand.invocation.clone();
    for event in [
        Event::Woke,
        Event::Refreshed,
        Event::MemoryWritten(done("etag-1")),
        Event::Published(Written::Conflict),
        Event::Terminated { id: id("i-1"), result: Ok(()) },
    ] {
        hand.step(event);
        assert_eq!(hand.invocation, before);
    }
    assert_eq!(hand.asked, [Effect::ReadMemory]);
}

#[test]
fn an_invocation_makes_three_ticks_and_ends() {
    let (rows, memory, registry) = serving(2);
    let mut hand = Hand::start();
    let mut object = found(memory, "etag-1");
    let mut ticks = Vec::new();
    while !hand.invocation.is_done() {
        ticks.push(hand.now.duration_since(minute()).as_secs());
        hand.plans(object, observation(2, rows.clone(), Some(registry.clone())), Probe::Answered);
        let (memory, _) = hand.writes(done("etag-2"));
        object = found(memory, "etag-2");
        if !hand.asked.is_empty() {
            hand.sleeps();
        }
    }
    assert_eq!(ticks, [0, 20, 40]);
    assert_eq!(hand.invocation.report().ticks, 3);
}

#[test]
fn a_late_invocation_makes_the_ticks_that_are_left() {
    let (rows, memory, registry) = serving(2);
    let mut hand = Hand::start_late(17);
    assert_eq!(
        hand.sleeps(),
        SignedDuration::from_secs(2),
        "the first tick is 17 s old; a look comes before the next"
    );
    hand.reads(found(memory.clone(), "etag-1"));
    assert_eq!(hand.sleeps(), SignedDuration::from_secs(1), "nothing boots");
    hand.plans(found(memory, "etag-1"), observation(2, rows, Some(registry)), Probe::Answered);
    let (memory, _) = hand.writes(done("etag-2"));
    assert_eq!(memory.last_tick, Some(minute() + SignedDuration::from_secs(20)));
    let mut hand = Hand::start_late(15);
    assert_eq!(hand.only(), Effect::ReadMemory);
    assert!(Hand::start_late(300).invocation.is_done(), "the next invocation is due already");
}

#[test]
fn a_slow_tick_gives_way_to_the_next() {
    let (rows, memory, registry) = serving(2);
    let mut hand = Hand::start();
    hand.reads(found(memory.clone(), "etag-1"));
    hand.wait(37);
    hand.sees(observation(2, rows, Some(registry)));
    hand.hears(Probe::Answered);
    let (written, _) = hand.writes(done("etag-2"));
    assert_eq!(written.last_tick, Some(minute()));
    assert_eq!(hand.sleeps(), SignedDuration::from_secs(3), "the tick of 20 s is left out");
}
