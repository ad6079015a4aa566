//! Workers that crash and are restarted between two ticks, over and over.

use jiff::SignedDuration;

use super::world::{Health, World, decided};
use crate::decision::{Decision, WorkerDecision};
use crate::held_back::Who;

#[test]
fn a_worker_that_keeps_crashing_is_replaced_and_drained() {
    for desired in [1, 3] {
        let mut world = World::serving(desired);
        let crashing = world.set(0, Health::Crashes);
        let mut least = usize::MAX;
        for _ in 0..12 {
            world.tick();
            least = least.min(world.live().len());
        }
        world.settle_down();
        assert!(!world.live().contains(&crashing), "{:#?}", world.memory.events);
        assert_eq!(least, desired as usize, "its replacement comes first");
        assert_eq!((world.memory.healthy(), world.live().len()), (desired as usize, desired as usize));
        assert!(world.memory.restarts.is_empty());
        assert_eq!(world.failures(), 0, "the others serve, so it was not the release");
    }
}

#[test]
fn a_restart_or_two_are_no_reason() {
    let mut world = World::serving(2);
    let id = world.set(0, Health::Crashes);
    world.ticks(2);
    world.set(0, Health::Well);
    assert_eq!(world.memory.restarts[&id].seen.len(), 2);
    world.ticks(20);
    assert_eq!((world.memory.restarts.len(), world.memory.losses.len()), (0, 0));
    world.expect_rest();
}

#[test]
fn a_worker_that_stops_to_crash_is_kept_when_nothing_replaced_it() {
    let mut world = World::serving(2);
    world.quota = Some(2);
    let id = world.set(0, Health::Crashes);
    world.ticks(4);
    world.set(0, Health::Well);
    // Before two minutes of refusals are over, it has not crashed for long.
    world.quota = None;
    world.settle_down();
    assert_eq!(world.memory.healthy(), 2);
    let who = Who::Instance(id);
    assert!(
        !decided!(world, Decision::Worker(WorkerDecision::Terminating { who: ended, .. }) if *ended == who)
    );
}

#[test]
fn one_that_keeps_crashing_makes_room_where_a_quota_refuses_its_replacement() {
    let mut world = World::serving(2);
    world.quota = Some(2);
    let id = world.set(0, Health::Crashes);
    world.ticks(25);
    assert!(!world.live().contains(&id), "{:#?}", world.memory.events);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn the_only_worker_makes_no_room_though_it_keeps_crashing() {
    let mut world = World::serving(1);
    world.quota = Some(1);
    let id = world.set(0, Health::Crashes);
    world.ticks(40);
    assert_eq!(world.live(), [id]);
    assert_eq!(world.published().len(), 1, "between two crashes it serves");
}

/// Poison in the traffic, or a release that has proved itself too early.
#[test]
fn a_fleet_that_crashes_everywhere_is_not_replaced_at_once() {
    let mut world = World::serving(3);
    world.crashing.insert(world.release.id.clone());
    for _ in 0..300 {
        world.tick();
        assert!(world.live().len() <= 5, "{:#?}", world.memory.events);
        assert!(world.published().len() >= 2, "between two crashes they serve");
    }
    assert!(world.failures() >= 3, "it counts against the release");
    let launched = world.machines.len() - 3;
    assert!(launched < 12, "launches get further and further apart: {launched} in 100 min");
}

#[test]
fn a_release_that_repairs_it_is_rolled_out() {
    let mut world = World::serving(3);
    world.crashing.insert(world.release.id.clone());
    world.ticks(30);
    world.deploy("ami-2");
    world.settle_down();
    assert!(world.memory.slots.values().all(|slot| slot.release == world.release.id));
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
    assert!(world.memory.restarts.is_empty());
}

#[test]
fn a_new_release_that_keeps_crashing_is_frozen() {
    let mut world = World::serving(3);
    let before = world.release.id.clone();
    world.deploy("ami-2");
    world.crashing.insert(world.release.id.clone());
    world.ticks(60);
    assert_eq!(world.failures(), 2, "{:#?}", world.memory.events);
    assert!(world.memory.slots.values().all(|slot| slot.release == before));
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
    assert_eq!(world.memory.proven.as_ref().map(|proven| proven.id.clone()), Some(before));
}

#[test]
fn a_worker_that_does_not_say_since_when_it_runs_is_never_taken_for_one_that_crashes() {
    let mut world = World::serving(2);
    world.set(0, Health::Crashes);
    for _ in 0..20 {
        let mut seen = world.observe(crate::observation::Scope::Fleet);
        seen.started.clear();
        world.tick_seeing(&seen);
    }
    assert!(world.memory.restarts.is_empty());
    assert_eq!(world.memory.healthy(), 2);
}

#[test]
fn a_clock_that_differs_by_seconds_makes_no_restart() {
    let mut world = World::serving(2);
    for n in 0..20 {
        let mut seen = world.observe(crate::observation::Scope::Fleet);
        for started in seen.started.values_mut() {
            *started += SignedDuration::from_secs(n % 4);
        }
        world.tick_seeing(&seen);
    }
    assert!(world.memory.restarts.is_empty());
}
