//! A new release.

use fleet::memory::{LeavingReason, Phase};
use jiff::SignedDuration;

use super::world::{Health, TICK, World, decided, holds};
use crate::decision::{Decision, ReleaseDecision};
use crate::held_back::{HeldBack, RolloutBrake};

/// Slots with a worker of the present release.
fn new_slots(world: &World) -> Vec<u32> {
    let new = world.memory.slots.iter().filter(|(_, slot)| slot.release == world.release.id);
    new.map(|(number, _)| *number).collect()
}

fn is_proven(world: &World) -> bool {
    world.memory.proven.as_ref().is_some_and(|proven| proven.id == world.release.id)
}

/// Ticks until the first worker of the present release is there, and gives its slot.
fn first_new(world: &mut World) -> u32 {
    for _ in 0..10 {
        if let Some(slot) = new_slots(world).first() {
            return *slot;
        }
        world.tick();
    }
    panic!("none is launched: {:?}", world.held_back);
}

/// A fleet with the first worker of a new release in its trial.
fn on_trial(desired: u32) -> (World, u32) {
    let mut world = World::serving(desired);
    world.deploy("ami-2");
    let slot = first_new(&mut world);
    world.tick_until("the first new one serves", |world| world.phase(slot) == Phase::Healthy);
    (world, slot)
}

#[test]
fn the_first_release_is_proved_by_its_first_answer() {
    let mut world = World::empty(2);
    world.ticks(2);
    assert!(!is_proven(&world));
    world.tick();
    assert!(is_proven(&world));
}

#[test]
fn one_worker_of_a_new_release_is_launched_beyond_the_desired_number() {
    let mut world = World::serving(3);
    world.deploy("ami-2");
    let planned = world.tick();
    let sent: Vec<_> = planned.launches.iter().map(|launch| (launch.slot, launch.release.clone())).collect();
    assert_eq!((sent, planned.terminations.len()), (vec![(3, world.release.id.clone())], 0));
    assert_eq!(world.tick().launches, [], "it boots");
}

#[test]
fn the_first_worker_serves_for_55_s_before_an_old_one_leaves() {
    let (mut world, slot) = on_trial(3);
    let since = world.memory.slots[&slot].since;
    while world.now.duration_since(since) < SignedDuration::from_secs(55) {
        let planned = world.tick();
        assert_eq!((planned.launches.len(), world.memory.leaving.len()), (0, 0));
        assert_eq!(world.published().len(), 4);
        assert!(holds!(world, HeldBack::Rollout { why: RolloutBrake::OnTrial, .. }));
    }
    world.tick();
    assert!(is_proven(&world));
    assert!(decided!(world, Decision::Release(ReleaseDecision::Proven { .. })));
    assert_eq!((world.memory.leaving.len(), world.published().len()), (1, 3));
}

#[test]
fn a_rollout_replaces_all_one_by_one_and_never_serves_with_less() {
    let mut world = World::serving(3);
    let before = world.live();
    world.deploy("ami-2");
    world.tick_until("all are new", |world| {
        assert!(world.memory.healthy() >= 3 && world.live().len() <= 3 + 1 + 1, "{:#?}", world.memory);
        assert!(world.published().len() >= 3);
        new_slots(world).len() == 3 && world.memory.slots.len() <= 3
    });
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
    assert!(before.iter().all(|id| !world.live().contains(id)));
}

#[test]
fn after_the_trial_a_tenth_is_replaced_at_a_time() {
    let (mut world, _) = on_trial(20);
    let mut most = 0;
    for _ in 0..120 {
        world.tick();
        let serving = world.memory.healthy();
        assert!(serving >= 20, "{serving}");
        most = most.max(world.memory.slots.len());
    }
    assert_eq!(new_slots(&world).len(), 20);
    assert_eq!(most, 22);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (20, 20));
}

#[test]
fn a_rollout_is_not_begun_while_anybody_is_ill() {
    let mut world = World::serving(3);
    world.set(0, Health::Silent);
    world.deploy("ami-2");
    assert_eq!(world.tick().launches, [], "one is suspect");
    let planned = world.tick();
    assert!(planned.launches.iter().all(|launch| launch.release != world.release.id), "it is replaced first");
    assert_eq!(planned.launches.len(), 1);
    world.settle_down();
    assert_eq!(new_slots(&world).len(), 3);
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_worker_that_dies_during_the_trial_is_replaced_by_the_proved_release() {
    let (mut world, _) = on_trial(3);
    let id = world.id(0);
    world.terminate(&id);
    let old = world.memory.proven.clone().expect("it served").id;
    let mut launched = Vec::new();
    for _ in 0..2 {
        launched.extend(world.tick().launches.into_iter().map(|launch| launch.release));
    }
    assert_eq!(launched, [old]);
    assert_eq!(new_slots(&world).len(), 1, "the first one is on trial");
    world.settle_down();
    assert_eq!((new_slots(&world).len(), world.live().len()), (3, 3));
}

#[test]
fn more_workers_are_of_the_proved_release_while_the_new_one_is_on_trial() {
    let (mut world, _) = on_trial(3);
    world.desire(5);
    for _ in 0..2 {
        for launch in world.tick().launches {
            assert_ne!(launch.release, world.release.id);
        }
    }
    world.settle_down();
    assert_eq!((new_slots(&world).len(), world.live().len()), (5, 5));
}

#[test]
fn a_missing_worker_is_launched_from_the_proved_release_during_a_rollout() {
    let mut world = World::serving(3);
    let old = world.release.id.clone();
    world.deploy("ami-2");
    first_new(&mut world);
    let id = world.id(0);
    world.terminate(&id);
    let planned = world.tick();
    let sent: Vec<_> = planned.launches.iter().map(|launch| launch.release.clone()).collect();
    assert_eq!(sent.first(), Some(&old), "healing is no time for experiments");
    world.settle_down();
    assert_eq!((new_slots(&world).len(), world.live().len()), (3, 3));
}

#[test]
fn a_release_whose_boots_fail_twice_is_frozen_and_tried_again_in_half_an_hour() {
    let mut world = World::serving(2);
    let before = world.live();
    world.deploy("ami-2");
    world.broken.insert(world.release.id.clone());
    let mut launched_at = Vec::new();
    for _ in 0..400 {
        let now = world.now;
        launched_at.extend(world.tick().launches.iter().map(|_| now));
        assert!(before.iter().all(|id| world.published().contains(id)), "the old workers stay");
    }
    let pauses: Vec<_> =
        launched_at.windows(2).map(|pair| (pair[1].duration_since(pair[0]) - TICK * 10).as_mins()).collect();
    assert_eq!(pauses[..3], [0, 30, 30], "a boot takes ten ticks to fail");
    assert!(
        holds!(world, HeldBack::Rollout { why: RolloutBrake::Frozen { retry, .. }, .. } if retry.as_mins() == 30)
    );
    // An outage of the network that is over: the same release boots.
    world.broken.clear();
    world.ticks(100);
    world.settle_down();
    assert_eq!((new_slots(&world).len(), world.live().len()), (2, 2));
    assert_eq!(world.failures(), 0);
}

#[test]
fn while_a_release_is_frozen_the_fleet_heals_from_the_proved_one() {
    let mut world = World::serving(2);
    let old = world.release.id.clone();
    world.deploy("ami-2");
    world.broken.insert(world.release.id.clone());
    world.ticks(25);
    assert_eq!(world.failures(), 2);
    let ids = world.live();
    ids.iter().for_each(|id| world.terminate(id));
    let planned = world.tick();
    assert_eq!(planned.launches.len(), 2);
    assert!(planned.launches.iter().all(|launch| launch.release == old));
    world.ticks(3);
    assert_eq!(world.memory.healthy(), 2);
}

#[test]
fn going_back_to_the_proved_release_removes_the_trial() {
    let mut world = World::serving(2);
    let before = world.live();
    world.deploy("ami-2");
    world.broken.insert(world.release.id.clone());
    world.ticks(4);
    world.deploy("ami-1");
    world.settle_down();
    assert_eq!(world.live(), before);
    assert_eq!(new_slots(&world).len(), 2);
}

#[test]
fn a_release_that_answers_once_and_dies_in_its_trial_takes_nobodys_place() {
    let (mut world, slot) = on_trial(3);
    world.set(slot, Health::Refuses);
    world.tick();
    assert!(!is_proven(&world));
    assert_eq!(world.memory.slots.values().filter(|slot| slot.phase == Phase::Healthy).count(), 3);
    assert!(world.memory.leaving.values().all(|leaving| leaving.judged));
}

#[test]
fn a_surplus_of_old_workers_does_not_pass_for_a_trial() {
    let mut world = World::serving(4);
    // Both zones fall silent one after the other and come back: replacements and the dead serve.
    world.is_deaf = true;
    world.ticks(3);
    world.is_deaf = false;
    world.deploy("ami-2");
    world.settle_down();
    assert_eq!((new_slots(&world).len(), world.live().len()), (4, 4), "{:?}", world.held_back);
}

#[test]
fn a_surplus_is_not_called_a_rollout_while_no_new_worker_serves() {
    let mut world = World::serving(3);
    world.deploy("ami-2");
    world.desire(2);
    world.tick();
    assert!(world.memory.leaving.values().all(|leaving| leaving.reason == LeavingReason::Surplus));
    world.settle_down();
}

#[test]
fn nobody_stays_when_nobody_is_desired_whatever_the_release() {
    for health in [Health::Well, Health::Refuses, Health::Silent] {
        let mut world = World::serving(3);
        world.deploy("ami-2");
        world.tick();
        world.broken.insert(world.release.id.clone());
        world.without_capacity.extend(super::world::SUBNETS.map(str::to_owned));
        (0..3).for_each(|slot| drop(world.set(slot, health)));
        world.ticks(2);
        world.desire(0);
        world.settle_down();
        assert_eq!(world.live(), [], "{health:?}");
    }
}

#[test]
fn a_deployment_over_one_that_never_served_starts_at_once() {
    let mut world = World::empty(3);
    world.broken.insert(world.release.id.clone());
    world.ticks(3);
    world.deploy("ami-2");
    world.ticks(12);
    assert_eq!(new_slots(&world).len(), 3);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_proved_release_that_does_not_boot_any_more_gives_way_to_the_new_one() {
    let mut world = World::serving(2);
    world.broken.insert(world.release.id.clone());
    world.deploy("ami-2");
    world.ticks(60);
    world.settle_down();
    assert!(is_proven(&world));
    assert_eq!((new_slots(&world).len(), world.live().len()), (2, 2));
}
