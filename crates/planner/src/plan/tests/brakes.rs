//! How many of the dead go at a time.

use fleet::memory::Phase;
use jiff::SignedDuration;

use super::world::{Health, TICK, World, decided, holds};
use crate::decision::{Decision, WorkerDecision};
use crate::held_back::{HeldBack, TerminationBrake};

/// How many are terminated in each of the next ticks.
fn ends(world: &mut World, ticks: usize) -> Vec<usize> {
    (0..ticks).map(|_| world.tick().terminations.len()).collect()
}

fn ill(world: &mut World, slots: impl IntoIterator<Item = u32>, health: Health) {
    slots.into_iter().for_each(|slot| drop(world.set(slot, health)));
}

#[test]
fn velocity_lets_one_go_per_tick_in_a_small_fleet() {
    let mut world = World::serving(10);
    ill(&mut world, [0, 1], Health::Refuses);
    assert_eq!(ends(&mut world, 3), [1, 1, 0]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (10, 10));
}

#[test]
fn a_fifth_of_the_fleet_is_not_degraded_and_more_is() {
    let mut world = World::serving(10);
    ill(&mut world, [0, 1, 2], Health::Refuses);
    assert_eq!(world.tick().launches.len(), 3, "replacements come first");
    assert_eq!(world.memory.terminations.len(), 0);
    assert!(holds!(world, HeldBack::Termination { why: TerminationBrake::Degraded, .. }));
    assert_eq!(world.published().len(), 7, "no panic: the dead get no traffic");
    assert_eq!(ends(&mut world, 4), [0, 1, 1, 1], "the replacements answer in the second tick");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (10, 10));
}

#[test]
fn a_single_dead_worker_is_never_degraded() {
    let mut world = World::serving(2);
    ill(&mut world, [0], Health::Refuses);
    assert_eq!(ends(&mut world, 1), [1], "half of the fleet, but one");
}

#[test]
fn a_third_terminated_within_ten_minutes_is_degraded() {
    let mut world = World::serving(6);
    for _ in 0..2 {
        ill(&mut world, [1], Health::Refuses);
        assert_eq!(ends(&mut world, 1), [1]);
        world.ticks(4);
    }
    assert_eq!((world.memory.healthy(), world.memory.terminations.len()), (6, 2));
    ill(&mut world, [1], Health::Refuses);
    assert_eq!(ends(&mut world, 3), [0, 0, 1], "only against a replacement that answers");
    world.settle_down();
    world.now += SignedDuration::from_mins(10);
    ill(&mut world, [0], Health::Refuses);
    assert_eq!(ends(&mut world, 1), [1], "that was long ago");
}

#[test]
fn with_fewer_replacements_than_dead_as_many_wait() {
    let mut world = World::serving(10);
    ill(&mut world, 0..4, Health::Refuses);
    world.tick();
    let failing = world.memory.slots.iter().filter(|(_, slot)| slot.phase == Phase::Booting);
    let failing: Vec<u32> = failing.map(|(number, _)| *number).skip(1).collect();
    ill(&mut world, failing, Health::Refuses);
    assert_eq!(ends(&mut world, 7), [0, 1, 0, 0, 0, 0, 0], "one replacement answers");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (10, 10));
}

#[test]
fn in_panic_the_dead_stay_in_the_registry() {
    let mut world = World::serving(4);
    let before = world.published();
    ill(&mut world, 0..3, Health::Refuses);
    let planned = world.tick();
    assert_eq!((planned.terminations.len(), planned.launches.len()), (0, 3));
    assert_eq!(world.published(), before);
}

#[test]
fn in_panic_one_a_minute_is_terminated_and_only_against_a_replacement() {
    let mut world = World::serving(6);
    ill(&mut world, 0..6, Health::Refuses);
    world.without_capacity.insert("subnet-a".to_owned());
    world.tick();
    // While no worker answers two boot at a time. One of them is given capacity, and no more follow.
    world.without_capacity.insert("subnet-b".to_owned());
    assert_eq!(world.tick().terminations, []);
    let first = world.tick();
    let answering = world.memory.healthy();
    assert!((1..=2).contains(&answering), "{answering} answer of six desired");
    assert_eq!(first.terminations.len(), 1, "one of six against an answering one");
    assert_eq!(world.published().len(), 5 + answering, "in panic the dead stay published");
    if answering == 2 {
        assert_eq!(ends(&mut world, 4), [0, 0, 1, 0], "one a minute");
    } else {
        assert_eq!(ends(&mut world, 6), [0; 6], "there is no replacement for a second one");
    }
    world.without_capacity.clear();
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (6, 6));
}

#[test]
fn panic_is_over_once_as_many_answer_as_are_dead() {
    let mut world = World::serving(3);
    ill(&mut world, 0..3, Health::Silent);
    world.ticks(2);
    assert_eq!(world.published().len(), 3);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
    assert!(!decided!(world, Decision::Worker(WorkerDecision::TakenBack { .. })));
}

/// Slots 0, 2, 4 … are in zone a, the others in zone b.
fn zone_a(world: &World) -> Vec<u32> {
    let there = world.memory.slots.iter().filter(|(_, slot)| slot.zone == "zone-a");
    there.map(|(number, _)| *number).collect()
}

#[test]
fn a_zone_that_falls_silent_is_replaced_elsewhere_and_not_terminated_for_15_min() {
    let mut world = World::serving(4);
    let silent = zone_a(&world);
    let ids: Vec<_> = silent.iter().map(|slot| world.id(*slot)).collect();
    ill(&mut world, silent, Health::Silent);
    world.tick();
    let planned = world.tick();
    assert_eq!(planned.terminations, []);
    assert!(planned.launches.iter().all(|launch| launch.subnet == "subnet-b"));
    assert_eq!(planned.launches.len(), 2);
    assert!(decided!(world, Decision::Worker(WorkerDecision::ZoneSpared { zone, .. }) if zone == "zone-a"));
    let dark_since = world.memory.dark_zones["zone-a"];
    while world.now.duration_since(dark_since) < SignedDuration::from_mins(15) {
        assert_eq!(world.tick().terminations, []);
        assert!(holds!(world, HeldBack::Termination { why: TerminationBrake::Zone, .. }));
    }
    assert!(ids.iter().all(|id| world.live().contains(id)));
    assert_eq!(ends(&mut world, 3), [1, 1, 0], "judged like others from now on");
    world.settle_down();
    assert!(world.memory.dark_zones.is_empty());
    assert_eq!((world.memory.healthy(), world.live().len()), (4, 4));
}

#[test]
fn a_zone_that_is_heard_again_serves_again() {
    let mut world = World::serving(4);
    let silent = zone_a(&world);
    ill(&mut world, silent.clone(), Health::Silent);
    world.ticks(5);
    assert_eq!(world.live().len(), 6);
    ill(&mut world, silent, Health::Well);
    world.tick();
    assert!(world.memory.dark_zones.is_empty());
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (4, 4));
    assert_eq!(world.memory.terminations, []);
}

#[test]
fn a_zone_is_not_dark_by_one_silent_worker_or_by_refusals_or_while_others_die_too() {
    let mut one = World::serving(3);
    // Zone b has one worker.
    ill(&mut one, [1], Health::Silent);
    let mut refusing = World::serving(4);
    let slots = zone_a(&refusing);
    ill(&mut refusing, slots, Health::Refuses);
    let mut both = World::serving(6);
    let mut slots = zone_a(&both);
    slots.push(1);
    ill(&mut both, slots, Health::Silent);
    let mut few = World::serving(8);
    // Half of zone a.
    ill(&mut few, [0, 2], Health::Silent);
    for (what, mut world) in [("one", one), ("refusing", refusing), ("both", both), ("few", few)] {
        world.ticks(3);
        assert!(world.memory.dark_zones.is_empty(), "{what}");
        world.settle_down();
        assert_eq!(world.memory.healthy(), world.live().len(), "{what}");
    }
}

#[test]
fn the_only_zone_is_no_dark_zone() {
    let mut world = World::empty(3);
    world.release.worker.subnets.truncate(1);
    world.settle_down();
    ill(&mut world, 0..3, Health::Silent);
    world.ticks(3);
    assert!(world.memory.dark_zones.is_empty(), "no worker answers elsewhere");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_worker_that_answers_after_its_verdict_is_not_terminated_again() {
    let mut world = World::serving(3);
    let id = world.set(0, Health::Refuses);
    world.can_terminate = false;
    assert_eq!(world.tick().terminations.as_slice(), std::slice::from_ref(&id));
    assert_eq!(world.tick().terminations.as_slice(), std::slice::from_ref(&id), "it failed again");
    world.machine(&id).health = Health::Well;
    assert_eq!(world.tick().terminations, []);
    assert!(decided!(world, Decision::Worker(WorkerDecision::TakenBack { id: back }) if *back == id));
    assert!(!world.memory.leaving.get(&id).is_some_and(|leaving| leaving.judged));
    world.can_terminate = true;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn one_that_a_look_takes_back_has_served() {
    let mut world = World::serving(4);
    world.desire(5);
    world.ticks(4);
    let id = world.set(4, Health::Refuses);
    world.can_terminate = false;
    world.without_capacity.extend(super::world::SUBNETS.map(str::to_owned));
    assert_eq!(world.tick().terminations.as_slice(), std::slice::from_ref(&id));
    world.machine(&id).health = Health::Well;
    world.watch().expect("it answers again");
    world.machine(&id).health = Health::Silent;
    let launched = world.machine(&id).row.launched.expect("it was launched");
    world.now = launched + SignedDuration::from_secs(170);
    world.ticks(2);
    assert!(world.live().contains(&id) && world.failures() == 0, "{:#?}", world.memory.events);
}

#[test]
fn a_termination_for_health_is_not_sent_again_while_nobody_else_answers() {
    let mut world = World::serving(2);
    let id = world.set(0, Health::Refuses);
    world.can_terminate = false;
    world.tick();
    ill(&mut world, [1], Health::Silent);
    world.can_terminate = true;
    let survivor = world.memory.slots.iter().find(|(_, slot)| slot.phase == Phase::Booting);
    let booting = *survivor.expect("a replacement").0;
    ill(&mut world, [booting], Health::Silent);
    for _ in 0..3 {
        assert_eq!(world.tick().terminations, []);
        assert!(holds!(world, HeldBack::Termination { why: TerminationBrake::NoOtherAnswers, .. }));
    }
    assert!(world.live().contains(&id));
    world.settle_down();
    assert!(!world.live().contains(&id));
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_well_worker_is_not_drained_while_too_few_answer() {
    let mut world = World::serving(2);
    world.ticks(20);
    let id = world.set(0, Health::Refuses);
    world.can_terminate = false;
    world.tick();
    world.can_terminate = true;
    world.machine(&id).health = Health::Well;
    world.tick();
    // Its slot was given to a replacement, which has not served yet and is one too many now.
    assert!(!world.memory.leaving.contains_key(&id), "{:#?}", world.memory.leaving);
    assert_eq!((world.id(2), world.phase(2)), (id.clone(), Phase::Healthy));
    assert!(world.published().contains(&id));
    assert!(world.live().contains(&id));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_stopped_instance_is_terminated_though_it_was_judged_before() {
    use crate::observation::State;
    let mut world = World::serving(2);
    let id = world.set(0, Health::Refuses);
    world.can_terminate = false;
    world.tick();
    world.can_terminate = true;
    world.machine(&id).row.state = State::Stopped;
    world.settle_down();
    assert_eq!(world.machine(&id).row.state, State::Terminated);
}

#[test]
fn a_suspect_is_not_dead_by_a_look_and_a_tick_in_quick_succession() {
    let mut world = World::serving(2);
    world.set(0, Health::Silent);
    world.tick();
    world.now -= TICK - SignedDuration::from_secs(14);
    world.tick();
    assert_eq!(world.phase(0), Phase::Suspect, "14 s after the first");
    world.tick();
    assert_eq!(world.phase(0), Phase::Dead);
}

#[test]
fn one_that_was_judged_goes_when_nobody_is_desired_though_nobody_is_left_to_answer() {
    let mut world = World::serving(2);
    world.set(0, Health::Refuses);
    world.can_terminate = false;
    world.tick();
    world.can_terminate = true;
    world.without_capacity.extend(super::world::SUBNETS.map(str::to_owned));
    ill(&mut world, [1], Health::Refuses);
    let booting = world.memory.slots.iter().find(|(_, slot)| slot.phase == Phase::Booting);
    let booting = *booting.expect("a replacement").0;
    ill(&mut world, [booting], Health::Refuses);
    world.desire_surely(0);
    world.settle_down();
    assert_eq!(world.live(), []);
}
