//! The number of workers, and where they are.

use std::collections::BTreeSet;

use fleet::memory::LeavingStage;
use jiff::SignedDuration;

use super::world::{Health, SUBNETS, World, crowds, holds};
use crate::held_back::{HeldBack, NoSubnet};

#[test]
fn grows_at_once() {
    let mut world = World::serving(1);
    world.desire(4);
    assert_eq!(world.tick().launches.len(), 3);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (4, 4));
}

#[test]
fn a_large_fleet_is_launched_twenty_a_tick() {
    let mut world = World::serving(1);
    world.desire(50);
    let launches = [world.tick(), world.tick(), world.tick()].map(|planned| planned.launches.len());
    assert_eq!(launches, [20, 20, 9]);
    world.settle_down();
    assert_eq!(world.memory.healthy(), 50);
}

#[test]
fn drains_before_terminating() {
    let mut world = World::serving(3);
    world.desire(2);
    let first = world.tick();
    assert_eq!(first.terminations, []);
    assert_eq!(world.published().len(), 2, "out of the registry first");
    let leaving: Vec<_> = world.memory.leaving.keys().cloned().collect();
    assert!(!world.published().contains(&leaving[0]));
    let due = world.now;
    world.now = due - SignedDuration::from_secs(6);
    assert_eq!(world.tick().terminations, [], "14 s are not 15");
    world.now = due - SignedDuration::from_secs(5);
    assert_eq!(world.tick().terminations, leaving);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn does_not_terminate_who_is_still_published() {
    let mut world = World::serving(2);
    world.desire(1);
    world.can_publish = false;
    for _ in 0..5 {
        assert_eq!(world.tick().terminations, []);
    }
    world.can_publish = true;
    assert_eq!(world.tick().terminations, [], "it leaves the registry now");
    assert_eq!(world.tick().terminations.len(), 1);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_drain_is_counted_from_the_registry_that_takes_the_worker_out() {
    let mut world = World::serving(2);
    world.desire(1);
    world.can_publish = false;
    world.tick();
    let leaving: Vec<_> = world.memory.leaving.keys().cloned().collect();
    let due = world.now;
    world.can_publish = true;
    world.now = due - SignedDuration::from_secs(1);
    world.watch().expect("it publishes what the tick could not");
    assert!(!world.published().contains(&leaving[0]));
    world.now = due;
    assert_eq!(world.tick().terminations, [], "out of the registry for one second");
    assert_eq!(world.tick().terminations, leaving);
    world.settle_down();
}

#[test]
fn one_that_never_served_is_terminated_without_a_drain() {
    let mut world = World::serving(1);
    world.desire(2);
    world.tick();
    let booting = world.id(1);
    world.desire(1);
    assert_eq!(world.tick().terminations, [booting]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn scale_down_prefers_who_serves_least_then_the_fullest_zone() {
    let mut world = World::serving(3);
    let suspect = world.set(1, Health::Silent);
    world.desire(2);
    assert_eq!(world.tick().terminations, []);
    assert_eq!(world.memory.leaving.keys().collect::<Vec<_>>(), [&suspect]);
    world.settle_down();

    // Slots 0 and 2 are in zone a, slot 1 in zone b.
    let mut world = World::serving(3);
    let expected = world.id(2);
    world.desire(2);
    world.tick();
    assert_eq!(world.memory.leaving.keys().collect::<Vec<_>>(), [&expected]);
    world.settle_down();
    assert_eq!(crowds(&world).into_values().collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn scales_to_zero_and_back() {
    let mut world = World::serving(3);
    world.desire_surely(0);
    assert_eq!(world.published().len(), 3, "a slip of the finger so far");
    world.tick();
    assert_eq!(world.published(), []);
    world.settle_down();
    assert_eq!(world.live(), []);
    world.desire(2);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn scaling_to_zero_removes_the_dead_as_well() {
    let mut world = World::serving(2);
    world.set(0, Health::Refuses);
    world.set(1, Health::Refuses);
    world.without_capacity.extend(SUBNETS.map(str::to_owned));
    world.ticks(2);
    world.desire(0);
    world.settle_down();
    assert_eq!(world.live(), [], "no worker will ever answer and vouch for the prober");
}

#[test]
fn fills_zones_evenly() {
    let mut world = World::serving(6);
    assert_eq!(crowds(&world).into_values().collect::<Vec<_>>(), [3, 3]);
    let lost = [world.id(0), world.id(2)];
    lost.iter().for_each(|id| world.terminate(id));
    world.settle_down();
    assert_eq!(crowds(&world).into_values().collect::<Vec<_>>(), [3, 3]);
}

#[test]
fn avoids_a_zone_without_capacity_for_three_minutes() {
    let mut world = World::empty(4);
    world.without_capacity.insert("subnet-a".to_owned());
    world.tick();
    let second = world.tick();
    let subnets: BTreeSet<&str> = second.launches.iter().map(|launch| launch.subnet.as_str()).collect();
    assert_eq!(subnets, BTreeSet::from(["subnet-b"]));
    assert!(second.launches.iter().all(|launch| launch.attempt == 2), "a token is not used twice");
    world.without_capacity.clear();
    world.desire(6);
    let third = world.tick();
    assert!(third.launches.iter().all(|launch| launch.subnet == "subnet-b"), "{:?}", third.launches);
    world.settle_down();
    world.ticks(9);
    world.desire(8);
    assert!(world.tick().launches.iter().all(|launch| launch.subnet == "subnet-a"), "three minutes are over");
    world.settle_down();
    assert_eq!(world.memory.healthy(), 8);
}

#[test]
fn tries_a_zone_without_capacity_when_there_is_no_other() {
    let mut world = World::empty(1);
    world.without_capacity.extend(SUBNETS.map(str::to_owned));
    let tries = (0..5).map(|_| world.tick().launches.len());
    assert_eq!(tries.collect::<Vec<_>>(), [1, 1, 1, 0, 1]);
    world.without_capacity.clear();
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_release_without_subnets_launches_nothing_and_says_so() {
    let mut world = World::empty(1);
    world.release = super::world::release("ami-1", &[]);
    assert_eq!(world.tick().launches, []);
    assert!(holds!(world, HeldBack::NoSubnet { why: NoSubnet::Named }));
    world.expect_rest();
}

#[test]
fn a_wrong_count_leaves_the_last_good_one_in_force() {
    let mut world = World::serving(2);
    world.desired = Err("banana is not a number".to_owned());
    let planned = world.tick();
    assert_eq!((planned.launches.len(), planned.terminations.len()), (0, 0));
    let notice = world.registry.clone().and_then(|registry| registry.notice).expect("people are told");
    assert_eq!(notice, "banana is not a number; 2 stays in force");
    world.expect_rest();
    let id = world.id(0);
    world.terminate(&id);
    world.settle_down();
    assert_eq!(world.memory.healthy(), 2, "healing goes on");
    world.desire(3);
    world.settle_down();
    assert_eq!(world.memory.healthy(), 3);
    assert_eq!(world.registry.and_then(|registry| registry.notice), None);
}

#[test]
fn without_any_good_count_nothing_is_done() {
    let mut world = World::empty(0);
    world.desired = Err("it is missing".to_owned());
    let planned = world.tick();
    assert_eq!((planned.launches.len(), planned.terminations.len(), planned.registry), (0, 0, None));
    assert_eq!(world.memory.notice.as_deref(), Some("it is missing; nothing is in force"));
    world.expect_rest();
    world.desire(1);
    world.settle_down();
    assert_eq!(world.memory.healthy(), 1);
}

#[test]
fn a_drain_that_began_is_finished_though_the_count_grows_again() {
    let mut world = World::serving(2);
    world.desire(1);
    world.tick();
    assert!(world.memory.leaving.values().all(|leaving| leaving.stage == LeavingStage::Draining));
    world.desire(2);
    let planned = world.tick();
    assert_eq!((planned.terminations.len(), planned.launches.len()), (1, 1));
    assert_eq!((planned.launches[0].slot, planned.launches[0].attempt), (1, 2));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}
