//! Twenty minutes of random misfortune. After each tick nothing may be broken that must never be,
//! and once the misfortune ends the fleet must become what is desired.

use std::collections::{BTreeMap, BTreeSet};

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{LeavingStage, Memory, Phase};
use fleet::{Registry, WorkerId};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::world::{Health, LaunchFault, TICK, World};
use crate::observation::{Observation, Probe, Scope, State};
use crate::plan::{Plan, plan};

const TICKS: usize = 60;
const MOST: u32 = 6;

#[derive(Clone, Copy, Debug)]
enum Event {
    Desired(u32),
    DesiredIsNonsense,
    /// A worker falls ill for good. The number chooses it among those that live.
    Dies(usize, Health),
    /// A worker hangs for so many ticks.
    Hangs(usize, i32),
    /// EC2 does not list an instance for so many ticks.
    Hidden(usize, i32),
    Terminated(usize),
    Stopped(usize),
    LaunchRefused(AwsErrorKind),
    ReplyLost,
    MemoryLost,
    /// Nobody is heard for so many ticks.
    Deaf(i32),
    Blind(Blindness),
    CannotPublish,
    CannotTerminate,
}

#[derive(Clone, Copy, Debug)]
enum Blindness {
    Instances,
    Release,
    Registry,
}

fn event() -> impl Strategy<Value = Event> {
    let which = 0..100_usize;
    let ill = prop_oneof![Just(Health::Refuses), Just(Health::Silent)];
    let refusal = prop_oneof![
        3 => Just(AwsErrorKind::NoCapacity),
        1 => Just(AwsErrorKind::TokenSpent),
        1 => Just(AwsErrorKind::TokenMismatch),
        1 => Just(AwsErrorKind::Throttled),
        1 => Just(AwsErrorKind::Denied),
        1 => Just(AwsErrorKind::Propagating),
        1 => Just(AwsErrorKind::Other),
    ];
    let blindness =
        prop_oneof![Just(Blindness::Instances), Just(Blindness::Release), Just(Blindness::Registry)];
    prop_oneof![
        6 => (0..=MOST).prop_map(Event::Desired),
        1 => Just(Event::DesiredIsNonsense),
        6 => (which.clone(), ill).prop_map(|(which, health)| Event::Dies(which, health)),
        3 => (which.clone(), 1..6).prop_map(|(which, ticks)| Event::Hangs(which, ticks)),
        4 => (which.clone(), 1..12).prop_map(|(which, ticks)| Event::Hidden(which, ticks)),
        3 => which.clone().prop_map(Event::Terminated),
        1 => which.prop_map(Event::Stopped),
        4 => refusal.prop_map(Event::LaunchRefused),
        3 => Just(Event::ReplyLost),
        1 => Just(Event::MemoryLost),
        1 => (1..12).prop_map(Event::Deaf),
        2 => blindness.prop_map(Event::Blind),
        1 => Just(Event::CannotPublish),
        1 => Just(Event::CannotTerminate),
    ]
}

proptest! {
    #[test]
    fn no_misfortune_breaks_a_rule_for_a_moment_or_the_fleet_for_good(
        events in prop::collection::vec(prop::option::weighted(0.4, event()), TICKS),
    ) {
        let mut run = Run::new();
        for event in events {
            run.step(event);
        }
        run.expect_recovery();
    }
}

struct Run {
    world: World,
    most_desired: usize,
    /// Slots and attempts that were launched since memory was lost last, and where.
    launched: BTreeMap<(u32, u32), String>,
    /// Slots and attempts of before memory was lost last: EC2 may have shown none of them then.
    forgotten: BTreeSet<(u32, u32)>,
    /// The last registry that was published.
    readers: Option<Registry>,
    /// Workers that had traffic, as far as memory or the registry can tell.
    served: BTreeSet<WorkerId>,
    hung: Vec<(WorkerId, Timestamp)>,
    deaf_until: Timestamp,
}

impl Run {
    fn new() -> Self {
        let world = World::empty(3);
        let deaf_until = world.now;
        Self {
            world,
            most_desired: 3,
            launched: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            readers: None,
            served: BTreeSet::new(),
            hung: Vec::new(),
            deaf_until,
        }
    }

    fn step(&mut self, event: Option<Event>) {
        let blindness = event.and_then(|event| self.happens(event));
        self.time_heals();
        let mut seen = self.world.observe(Scope::Fleet);
        match blindness {
            Some(Blindness::Instances) => seen.instances = Err("blind".to_owned()),
            Some(Blindness::Release) => seen.release = Err("blind".to_owned()),
            Some(Blindness::Registry) => seen.registry = Err("blind".to_owned()),
            None => {}
        }
        let (before, now, readers) = (self.world.memory.clone(), self.world.now, self.world.registry.clone());
        let planned = self.world.tick_seeing(&seen);
        assert_eq!(planned, plan(&seen, before.clone(), now), "the same input gives the same plan");
        if blindness.is_some() {
            assert_eq!((planned.launches.len(), planned.terminations.len()), (0, 0), "blind");
            assert_eq!((&planned.registry, &planned.memory.slots), (&None, &before.slots), "blind");
        }
        self.check_terminations(&planned, &before, &seen, readers.as_ref());
        self.check_launches(&planned, &before);
        self.check_registry(&planned, &seen);
        self.check_readers();
        self.check_memory();
        self.check_money();
        self.look_between_ticks();
        self.check_readers();
        self.world.can_publish = true;
        self.world.can_terminate = true;
    }

    fn happens(&mut self, event: Event) -> Option<Blindness> {
        let chosen = |world: &World, which: usize| {
            let live = world.live();
            live.get(which % live.len().max(1)).cloned()
        };
        let world = &mut self.world;
        match event {
            Event::Desired(number) => {
                world.desire(number);
                self.most_desired = self.most_desired.max(number as usize);
            }
            Event::DesiredIsNonsense => world.desired = Err("nonsense".to_owned()),
            Event::Dies(which, health) => {
                if let Some(id) = chosen(world, which) {
                    world.machine(&id).health = health;
                    self.hung.retain(|(hung, _)| *hung != id);
                }
            }
            Event::Hangs(which, ticks) => {
                if let Some(id) = chosen(world, which)
                    && world.machine(&id).health == Health::Well
                {
                    world.machine(&id).health = Health::Silent;
                    self.hung.push((id, world.now + TICK * ticks));
                }
            }
            Event::Hidden(which, ticks) => {
                if let Some(id) = chosen(world, which) {
                    world.hide(&id, ticks);
                }
            }
            Event::Terminated(which) => {
                if let Some(id) = chosen(world, which) {
                    world.terminate(&id);
                }
            }
            Event::Stopped(which) => {
                if let Some(id) = chosen(world, which) {
                    world.machine(&id).row.state = State::Stopped;
                }
            }
            Event::LaunchRefused(kind) => world.launch_faults.push_back(LaunchFault::Refused(kind)),
            Event::ReplyLost => world.launch_faults.push_back(LaunchFault::ReplyLost),
            Event::MemoryLost => {
                world.forget_everything();
                // The next tick knows again who served from the registry and from what EC2 lists.
                let known = world.observe(Scope::Fleet).instances.into_iter().flatten().map(|row| row.id);
                let published = world.published();
                self.served = known.filter(|id| published.contains(id)).collect();
                self.forgotten.extend(std::mem::take(&mut self.launched).into_keys());
            }
            Event::Deaf(ticks) => self.deaf_until = world.now + TICK * ticks,
            Event::Blind(blindness) => return Some(blindness),
            Event::CannotPublish => world.can_publish = false,
            Event::CannotTerminate => world.can_terminate = false,
        }
        None
    }

    fn time_heals(&mut self) {
        let now = self.world.now;
        self.world.is_deaf = self.deaf_until > now;
        for (id, _) in self.hung.extract_if(.., |(_, until)| *until <= now) {
            self.world.machine(&id).health = Health::Well;
        }
    }

    fn check_terminations(
        &self,
        planned: &Plan,
        before: &Memory,
        seen: &Observation,
        readers: Option<&Registry>,
    ) {
        let answers = |id: &WorkerId| seen.probes.get(id) == Some(&Probe::Answered);
        // Only those that are or were part of the fleet can vouch for the prober.
        let of_fleet = before.slots.values().chain(planned.memory.slots.values());
        let somebody_answers = of_fleet.filter_map(|slot| slot.worker.as_ref()).any(answers);
        for id in &planned.terminations {
            assert!(!answers(id), "{id} answers, and is terminated");
            if let Some(leaving) = before.leaving.get(id) {
                let is_drained = seen.tick.duration_since(leaving.since) >= SignedDuration::from_secs(15)
                    && readers.is_none_or(|registry| !registry.workers.contains_key(id));
                assert!(leaving.stage == LeavingStage::Terminating || is_drained, "{id} is not drained");
                continue;
            }
            let row = seen.instances.iter().flatten().find(|row| row.id == *id).expect("only what is seen");
            let is_for_health = self.served.contains(id) && row.state != State::Stopped;
            assert!(!is_for_health || somebody_answers, "{id} is terminated, and nobody answers");
        }
    }

    fn check_launches(&mut self, planned: &Plan, before: &Memory) {
        for launch in &planned.launches {
            let key = (launch.slot, launch.attempt);
            let is_repeated =
                before.slots.get(&launch.slot).is_some_and(|slot| slot.attempt == launch.attempt);
            let first = self.launched.get(&key);
            assert!(first.is_none_or(|_| is_repeated), "attempt used again: {launch:?}");
            assert!(first.is_none_or(|subnet| *subnet == launch.subnet), "repeated elsewhere: {launch:?}");
            self.launched.insert(key, launch.subnet.clone());
        }
    }

    fn check_registry(&mut self, planned: &Plan, seen: &Observation) {
        let Some(registry) = &planned.registry else { return };
        for id in registry.workers.keys() {
            let slot = planned.memory.slots.values().find(|slot| slot.worker.as_ref() == Some(id));
            let serves = slot.is_some_and(|slot| !matches!(slot.phase, Phase::Launching | Phase::Booting));
            assert!(serves, "{id} is published: {slot:?}");
            let row = seen.instances.iter().flatten().find(|row| row.id == *id);
            assert!(row.is_none_or(|row| row.state.is_live()), "{id} is published: {row:?}");
        }
    }

    fn check_memory(&self) {
        let Memory { slots, leaving, .. } = &self.world.memory;
        let mut workers = BTreeSet::new();
        for id in slots.values().filter_map(|slot| slot.worker.as_ref()) {
            assert!(workers.insert(id), "{id} is in two slots");
            assert!(!leaving.contains_key(id), "{id} stays and leaves");
        }
    }

    fn check_money(&self) {
        let world = &self.world;
        assert!(world.live().len() <= 2 * self.most_desired + 2, "{:?} {:#?}", world.live(), world.memory);
        let mut places = BTreeSet::new();
        for machine in world.machines.iter().filter(|machine| machine.row.state.is_live()) {
            let (slot, attempt) =
                (machine.row.slot.expect("a slot"), machine.row.attempt.expect("an attempt"));
            let is_first = places.insert((slot, attempt));
            // Tokens hold within a zone, and the zone may have been forgotten.
            assert!(is_first || self.forgotten.contains(&(slot, attempt)), "{slot}/{attempt} twice");
        }
    }

    fn look_between_ticks(&mut self) {
        let next = self.world.now;
        self.world.now = next - TICK / 2;
        let before = self.world.memory.slots.clone();
        if let Some(planned) = self.world.watch() {
            assert_eq!((planned.launches.len(), planned.terminations.len()), (0, 0), "between ticks");
            assert!(planned.memory.slots.keys().eq(before.keys()), "between ticks");
            for (number, slot) in &planned.memory.slots {
                let is_judged =
                    slot.phase != before[number].phase && matches!(slot.phase, Phase::Suspect | Phase::Dead);
                assert!(!is_judged, "between ticks: {slot:?}");
            }
        }
        self.world.now = next;
    }

    fn check_readers(&mut self) {
        let Some(registry) = &self.world.registry else { return };
        if self.readers.as_ref() != Some(registry) {
            let last = self.readers.as_ref().map_or(0, |registry| registry.revision);
            assert!(registry.revision > last, "{} after {last}", registry.revision);
            self.readers = Some(registry.clone());
            self.served.extend(registry.workers.keys().cloned());
        }
    }

    fn expect_recovery(mut self) {
        self.deaf_until = self.world.now;
        self.hung.iter_mut().for_each(|(_, until)| *until = self.deaf_until);
        self.world.launch_faults.clear();
        let desired = self.world.desired.as_ref().map_or(MOST, |count| count.get());
        self.step(Some(Event::Desired(desired)));
        let now = self.world.now;
        self.world.machines.iter_mut().for_each(|machine| machine.hidden_until = now);
        // After boots that failed, launches pause for up to half an hour.
        let is_paused = self.world.memory.boot_failures >= 3;
        for _ in 0..if is_paused { 150 } else { 30 } {
            self.step(None);
        }
        let live = self.world.live().len();
        assert_eq!(
            (self.world.memory.healthy(), live),
            (desired as usize, desired as usize),
            "{:#?}",
            self.world.memory
        );
        let stopped = self.world.machines.iter().find(|machine| machine.row.state == State::Stopped);
        assert!(stopped.is_none(), "{:?}", stopped.map(|machine| &machine.row));
        self.world.expect_rest();
    }
}
