//! Who is dead, and when a worker may be terminated for it.

use std::slice::from_ref;

use fleet::memory::Phase;
use jiff::SignedDuration;

use super::world::{Health, World, holds};
use crate::held_back::{HeldBack, TerminationBrake};
use crate::observation::{Scope, State};

#[test]
fn a_worker_that_refuses_is_replaced_in_one_tick() {
    let mut world = World::serving(3);
    let id = world.set(1, Health::Refuses);
    let planned = world.tick();
    assert_eq!(planned.terminations, from_ref(&id));
    assert_eq!(planned.launches.len(), 1);
    assert_eq!((planned.launches[0].slot, planned.launches[0].attempt), (1, 2));
    assert!(!world.published().contains(&id));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_silent_worker_is_terminated_when_its_replacement_answers() {
    let mut world = World::serving(3);
    let id = world.set(1, Health::Silent);
    let first = world.tick();
    assert_eq!((first.terminations.len(), first.launches.len()), (0, 0));
    assert_eq!(world.phase(1), Phase::Suspect);
    assert!(world.published().contains(&id), "load balancers judge by themselves");
    let second = world.tick();
    assert_eq!((second.terminations.len(), second.launches.len()), (0, 1));
    assert!(!world.published().contains(&id), "it gets no traffic until then");
    assert!(
        holds!(world, HeldBack::Termination { why: TerminationBrake::Silent, .. }),
        "{:?}",
        world.held_back
    );
    assert_eq!(world.tick().terminations, [], "the replacement boots");
    assert_eq!(world.tick().terminations, [id]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn an_overload_terminates_nobody() {
    let mut world = World::serving(3);
    let before = world.live();
    // The others have more to do without it, and the next one falls silent.
    world.set(0, Health::Silent);
    world.tick();
    world.set(1, Health::Silent);
    world.ticks(2);
    assert_eq!((world.phase(0), world.phase(1)), (Phase::Dead, Phase::Dead));
    assert!(before.iter().all(|id| world.live().contains(id)), "{:#?}", world.memory.leaving);
    (0..2).for_each(|slot| drop(world.set(slot, Health::Well)));
    world.tick();
    assert!(before.iter().all(|id| world.live().contains(id)), "{:#?}", world.memory.leaving);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_silent_worker_that_answers_again_stays_and_its_booting_replacement_goes() {
    let mut world = World::serving(3);
    let id = world.set(1, Health::Silent);
    let before = world.live();
    world.ticks(2);
    let replacement = world.live().into_iter().find(|live| !before.contains(live)).expect("it boots");
    world.set(1, Health::Well);
    assert_eq!(world.tick().terminations, [replacement]);
    assert!(world.published().contains(&id));
    world.settle_down();
    assert_eq!(world.live(), before);
}

#[test]
fn silent_workers_and_their_replacements_stay_below_the_cap() {
    let mut world = World::serving(4);
    (0..3).for_each(|slot| drop(world.set(slot, Health::Silent)));
    let release = world.release.id.clone();
    world.ticks(2);
    world.broken.insert(release);
    let well = world.id(3);
    for _ in 0..200 {
        world.tick();
        assert!(world.live().len() <= 10, "twice the desired number and two");
        assert!(world.live().contains(&well));
    }
}

#[test]
fn a_suspect_that_answers_keeps_its_place() {
    let mut world = World::serving(2);
    let id = world.set(0, Health::Silent);
    world.tick();
    world.set(0, Health::Well);
    let planned = world.tick();
    assert_eq!((planned.terminations.len(), planned.registry), (0, None));
    assert_eq!((world.phase(0), world.id(0)), (Phase::Healthy, id));
    world.expect_rest();
}

#[test]
fn two_silences_with_an_answer_between_are_not_two_in_a_row() {
    let mut world = World::serving(2);
    for _ in 0..3 {
        world.set(0, Health::Silent);
        assert_eq!(world.tick().terminations, []);
        world.set(0, Health::Well);
        assert_eq!(world.tick().terminations, []);
    }
    world.expect_rest();
}

#[test]
fn a_lone_worker_is_terminated_only_once_its_replacement_answers() {
    let mut world = World::serving(1);
    let id = world.set(0, Health::Refuses);
    let first = world.tick();
    assert_eq!((first.terminations.len(), first.launches.len()), (0, 1));
    assert_eq!(world.phase(0), Phase::Dead);
    assert_eq!(world.published(), from_ref(&id), "there is no other worker to publish");
    assert!(holds!(world, HeldBack::Termination { why: TerminationBrake::Control, .. }));
    assert_eq!(world.tick().terminations, [], "the replacement boots");
    let third = world.tick();
    assert_eq!(third.terminations, [id]);
    assert_eq!(world.published().len(), 1);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn nobody_who_served_dies_while_nobody_answers() {
    let mut world = World::serving(3);
    let before = world.published();
    world.is_deaf = true;
    for _ in 0..100 {
        world.tick();
        assert!(before.iter().all(|id| world.live().contains(id)));
        assert!(world.booting() <= 2, "two replacements at a time");
        assert!(world.live().len() <= 8, "twice the desired number and two");
    }
    assert_eq!(world.published(), before, "a fleet that is not heard is not gone");
    world.is_deaf = false;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn two_dead_of_two_are_healed() {
    let mut world = World::serving(2);
    let dead = [world.set(0, Health::Refuses), world.set(1, Health::Refuses)];
    let first = world.tick();
    assert_eq!((first.terminations.len(), first.launches.len()), (0, 2));
    world.tick();
    assert_eq!(world.tick().terminations, [dead[0].clone()], "both replacements answer");
    assert_eq!(world.tick().terminations, [dead[1].clone()]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn three_dead_of_four_are_replaced_before_they_are_terminated() {
    let mut world = World::serving(4);
    for slot in 0..3 {
        world.set(slot, Health::Refuses);
    }
    let first = world.tick();
    assert_eq!((first.terminations.len(), first.launches.len()), (0, 3));
    assert!(holds!(world, HeldBack::Termination { why: TerminationBrake::Degraded, .. }));
    assert_eq!(world.published().len(), 4, "in panic the dead stay published");
    world.tick();
    let ends = [world.tick(), world.tick(), world.tick()].map(|planned| planned.terminations.len());
    assert_eq!(ends, [1, 1, 1], "all three replacements answer, so that most are well again");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (4, 4));
}

#[test]
fn panic_ends_once_as_many_answer_as_are_desired() {
    let mut world = World::serving(1);
    let first = world.set(0, Health::Refuses);
    world.ticks(2);
    // The replacement serves between two ticks, and is dead in the next.
    world.now += SignedDuration::from_secs(5);
    world.watch();
    let second = world.set(1, Health::Refuses);
    assert_eq!(world.tick().terminations, [], "both are dead");
    world.tick();
    assert_eq!(world.tick().terminations, [first], "a third one answers, and one is desired");
    assert_eq!(world.tick().terminations, [second]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn half_of_the_fleet_is_no_panic_and_waits_for_replacements() {
    let mut world = World::serving(4);
    let dead = [world.set(0, Health::Refuses), world.set(1, Health::Refuses)];
    let first = world.tick();
    assert_eq!(first.terminations, []);
    assert_eq!(first.launches.len(), 2, "both are replaced at once");
    assert_eq!(world.published(), [world.id(2), world.id(3)], "no panic: the dead get no traffic");
    assert_eq!(world.tick().terminations, [], "the replacements boot");
    let ends = [world.tick(), world.tick()].map(|planned| planned.terminations);
    assert_eq!(ends, dead.map(|id| vec![id]), "they answer, and one a tick is terminated");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (4, 4));
}

#[test]
fn a_tenth_of_the_fleet_may_be_terminated_in_one_tick() {
    let mut world = World::serving(20);
    for slot in 0..4 {
        world.set(slot, Health::Refuses);
    }
    let ends = [world.tick(), world.tick(), world.tick()].map(|planned| planned.terminations.len());
    assert_eq!(ends, [2, 1, 1], "a tenth of 20, then of 18 and 17");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (20, 20));
}

#[test]
fn the_dead_that_answer_again_serve_again_and_the_surplus_leaves() {
    let mut world = World::serving(2);
    world.is_deaf = true;
    world.ticks(3);
    assert_eq!((world.phase(0), world.phase(1)), (Phase::Dead, Phase::Dead));
    world.is_deaf = false;
    assert_eq!(world.tick().terminations, [], "all four serve; two of them drain");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn without_an_address_there_is_no_verdict() {
    let mut world = World::serving(2);
    let id = world.id(0);
    let mut seen = world.observe(crate::observation::Scope::Fleet);
    seen.probes.remove(&id);
    for row in seen.instances.iter_mut().flatten().filter(|row| row.id == id) {
        row.address = None;
    }
    assert_eq!(world.tick_seeing(&seen).terminations, []);
    assert_eq!(world.phase(0), Phase::Healthy);
    world.expect_rest();
}

#[test]
fn a_worker_terminated_behind_our_back_is_replaced_at_once_without_a_brake() {
    let mut world = World::serving(1);
    let id = world.id(0);
    world.terminate(&id);
    let planned = world.tick();
    assert_eq!((planned.terminations.len(), planned.launches.len()), (0, 1));
    assert_eq!(world.published(), []);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
    assert!(world.memory.leaving.is_empty());
}

#[test]
fn a_worker_stopped_behind_our_back_is_terminated_and_replaced() {
    let mut world = World::serving(2);
    let id = world.id(0);
    world.machine(&id).row.state = State::Stopped;
    let planned = world.tick();
    assert_eq!(planned.terminations, from_ref(&id));
    assert_eq!(planned.launches.len(), 1);
    world.settle_down();
    assert_eq!(world.machine(&id).row.state, State::Terminated);
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_termination_that_fails_is_asked_for_again() {
    let mut world = World::serving(2);
    world.can_terminate = false;
    let id = world.set(0, Health::Refuses);
    world.tick();
    assert!(holds!(world, HeldBack::TerminationFailed { id: failed, .. } if *failed == id));
    assert_eq!(world.tick().terminations, from_ref(&id));
    world.can_terminate = true;
    assert_eq!(world.tick().terminations, [id]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_stopped_worker_is_terminated_whatever_it_was() {
    let mut world = World::serving(3);
    let stranger = world.add(None, "subnet-a");
    let (lost, leaving) = (world.id(0), world.id(1));
    world.machine(&stranger).row.state = State::Stopped;
    world.machine(&lost).row.state = State::Stopped;
    world.desire(2);
    world.ticks(2);
    world.machine(&leaving).row.state = State::Stopped;
    world.settle_down();
    for id in [stranger, lost, leaving] {
        assert_eq!(world.machine(&id).row.state, State::Terminated, "{id}");
    }
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

/// EC2 goes on showing its address for a while, and the address may be another instance's by then.
#[test]
fn an_instance_that_is_shutting_down_is_not_probed() {
    let mut world = World::serving(2);
    let (gone, stays) = (world.id(0), world.id(1));
    world.terminate(&gone);
    assert!(world.machine(&gone).row.address.is_some());
    let probes = world.observe(Scope::Fleet).probes;
    assert!(probes.contains_key(&stays) && !probes.contains_key(&gone), "{probes:?}");
}

#[test]
fn a_plan_counts_its_new_events() {
    let mut world = World::serving(3);
    let before = world.memory.events.len();
    world.set(1, Health::Refuses);
    let planned = world.tick();
    assert!(planned.news > 0);
    assert_eq!(planned.memory.events.len(), before + planned.news);
}
