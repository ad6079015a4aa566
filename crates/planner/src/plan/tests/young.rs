//! A memory that began a moment ago.

use fleet::memory::{LeavingStage, Phase};
use fleet::registry::RegisteredWorker;
use jiff::SignedDuration;

use super::world::{Health, World, count, holds};
use crate::held_back::{HeldBack, LaunchBrake, TerminationBrake};

#[test]
fn the_first_memory_of_a_stack_is_young_too_and_launches_at_once() {
    let mut world = World::empty(3);
    assert_eq!(world.tick().launches.len(), 3);
}

#[test]
fn nobody_is_terminated_while_memory_is_young_however_dead() {
    let mut world = World::serving(4);
    let dead = world.set(0, Health::Refuses);
    world.forget_everything();
    for seconds in [0, 20, 40] {
        assert_eq!(world.tick().terminations, [], "{seconds} s");
    }
    assert!(holds!(world, HeldBack::Termination { why: TerminationBrake::Young, .. }));
    assert_eq!(world.tick().terminations, [dead], "60 s");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (4, 4));
}

#[test]
fn a_boot_that_fails_while_memory_is_young_is_terminated_later() {
    let mut world = World::serving(2);
    world.desire(3);
    world.tick();
    let failed = world.set(2, Health::Refuses);
    world.ticks(8);
    world.forget_everything();
    world.ticks(2);
    assert_eq!((world.phase(2), world.live().contains(&failed)), (Phase::Dead, true));
    world.settle_down();
    assert!(!world.live().contains(&failed));
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_surplus_is_not_terminated_while_memory_is_young() {
    let mut world = World::serving(2);
    world.desire(4);
    world.tick();
    world.forget_everything();
    world.desire(2);
    for seconds in [0, 20, 40] {
        assert_eq!(world.tick().terminations, [], "{seconds} s");
    }
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn nothing_is_launched_for_50_s_after_memory_was_lost_for_ec2_may_not_show_all_yet() {
    let mut world = World::serving(3);
    let hidden = world.id(0);
    world.hide(&hidden, 2);
    world.forget_everything();
    for seconds in [0, 20] {
        assert_eq!(world.tick().launches, [], "{seconds} s");
        assert!(holds!(world, HeldBack::Launches { why: LaunchBrake::Young, .. }), "{seconds} s");
    }
    assert_eq!(world.tick().launches, [], "it is seen again, and adopted");
    assert_eq!(world.id(0), hidden);
    world.expect_rest();
}

#[test]
fn one_that_is_gone_when_memory_is_lost_is_replaced_after_50_s() {
    let mut world = World::serving(3);
    let gone = world.id(0);
    world.hide(&gone, 1000);
    world.terminate(&gone);
    world.forget_everything();
    let launches = [world.tick(), world.tick(), world.tick(), world.tick()].map(|plan| plan.launches.len());
    assert_eq!(launches, [0, 0, 0, 1]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_new_stack_does_not_wait_because_its_memory_is_young() {
    let mut world = World::empty(1);
    world.without_capacity.insert("subnet-a".to_owned());
    let subnets = [world.tick(), world.tick()].map(|plan| plan.launches[0].subnet.clone());
    assert_eq!(subnets, ["subnet-a", "subnet-b"], "the other zone is tried in the next tick");
}

#[test]
fn workers_of_the_registry_that_ec2_does_not_show_stay_in_it_for_five_minutes() {
    let mut world = World::serving(3);
    let hidden = world.id(0);
    world.hide(&hidden, 1000);
    world.forget_everything();
    for seconds in (0..=300).step_by(20) {
        world.tick();
        assert!(world.published().contains(&hidden), "{seconds} s");
    }
    world.tick();
    assert!(!world.published().contains(&hidden), "320 s");
}

#[test]
fn an_adopted_worker_counts_as_one_that_served_if_readers_know_it_or_it_is_older_than_a_boot() {
    for (is_published, age, served) in [(true, 60, true), (false, 60, false), (false, 200, true)] {
        let mut world = World::serving(1);
        let id = world.add(Some((1, 1)), "subnet-b");
        world.machine(&id).health = Health::Silent;
        world.now += SignedDuration::from_secs(age);
        if is_published {
            let addr = world.machine(&id).addr().expect("an address");
            let registry = world.registry.as_mut().expect("a registry");
            registry.workers.insert(id.clone(), RegisteredWorker { addr, zone: "zone-b".to_owned() });
        }
        world.forget_everything();
        world.desire(2);
        world.tick();
        assert_eq!(world.memory.slots[&1].served, served, "published: {is_published}, {age} s old");
    }
}

#[test]
fn a_drain_goes_on_from_the_start_when_memory_is_lost() {
    let mut world = World::serving(3);
    world.desire(2);
    world.tick();
    let drained = world.memory.leaving.keys().next().cloned().expect("one drains");
    world.forget_everything();
    world.tick();
    assert!(world.memory.leaving.values().all(|leaving| leaving.stage == LeavingStage::Draining));
    world.settle_down();
    assert!(!world.live().contains(&drained));
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn the_registry_lends_its_count_while_the_object_is_wrong_and_memory_is_lost() {
    let mut world = World::serving(3);
    world.forget_everything();
    world.desired = Err("banana is not a number".to_owned());
    world.tick();
    assert_eq!(world.memory.desired, Some(count(3)));
    assert_eq!(world.memory.notice.as_deref(), Some("banana is not a number; 3 stays in force"));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_count_that_takes_most_away_is_confirmed_although_memory_is_lost() {
    let mut world = World::serving(5);
    world.forget_everything();
    world.desire(1);
    world.tick();
    assert_eq!((world.memory.desired, world.published().len()), (Some(count(5)), 5));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn who_gets_traffic_is_drained_although_its_launch_was_repeated_with_a_lost_memory() {
    let mut world = World::serving(4);
    let hidden = world.id(0);
    world.hide(&hidden, 1000);
    world.forget_everything();
    world.ticks(4);
    assert_eq!(world.id(0), hidden, "its token returned it");
    world.desire(3);
    assert_eq!(world.tick().terminations, [], "the registry names all of them");
}
