//! Who gets traffic.

use std::slice::from_ref;

use fleet::Registry;
use jiff::SignedDuration;

use super::world::{Health, World, count};

#[test]
fn an_unchanged_registry_is_not_written_again() {
    let mut world = World::serving(2);
    let before = world.registry.clone();
    world.expect_rest();
    assert_eq!(world.registry, before);
}

#[test]
fn the_revision_grows_with_each_change() {
    let mut world = World::serving(2);
    let mut last = world.registry.as_ref().map_or(0, |registry| registry.revision);
    for desired in [3, 1, 2, 0, 4] {
        world.desire(desired);
        for _ in 0..12 {
            if let Some(registry) = world.tick().registry {
                assert!(registry.revision > last);
                assert_eq!(registry.desired, count(desired));
                last = registry.revision;
            }
        }
    }
    world.expect_rest();
}

#[test]
fn readers_with_another_registry_get_ours_with_a_higher_revision() {
    let mut world = World::serving(2);
    let ours = world.registry.clone().expect("a registry");
    let newer = ours.revision + 1_000_000_000;
    let mut last = ours.revision;
    for (what, theirs) in [
        ("gone", None),
        ("older", Some(Registry { revision: 1, workers: [].into(), ..ours.clone() })),
        ("older, and the same", Some(Registry { revision: 1, ..ours.clone() })),
        ("newer", Some(Registry { revision: newer, workers: [].into(), ..ours.clone() })),
    ] {
        last = last.max(theirs.as_ref().map_or(0, |theirs| theirs.revision));
        world.registry = theirs;
        let published = world.tick().registry.unwrap_or_else(|| panic!("{what}: nothing is published"));
        assert!(published.revision > last, "{what}");
        last = published.revision;
        assert!(published.same_content(&ours), "{what}");
        world.expect_rest();
    }
}

#[test]
fn a_registry_that_could_not_be_published_is_published_in_the_next_tick() {
    let mut world = World::serving(2);
    let id = world.set(0, Health::Refuses);
    world.can_publish = false;
    let first = world.tick().registry.expect("one is dead");
    assert!(world.published().contains(&id));
    world.can_publish = true;
    let second = world.tick().registry.expect("readers still have the old one");
    assert!(second.revision > first.revision);
    assert!(!world.published().contains(&id));
    world.settle_down();
}

#[test]
fn the_revision_goes_on_from_the_readers_when_memory_is_lost() {
    let mut world = World::serving(2);
    let before = world.registry.as_ref().map_or(0, |registry| registry.revision);
    world.forget_everything();
    world.desire(1);
    let published = world.tick().registry.expect("one drains");
    assert!(published.revision > before);
    world.settle_down();
}

#[test]
fn the_revision_grows_when_memory_and_registry_are_lost() {
    let mut world = World::serving(2);
    for desired in [3, 2, 3] {
        world.desire(desired);
        world.settle_down();
        world.desire(desired + 1);
        let before = world.tick().registry.expect("more are desired").revision;
        world.registry = None;
        world.forget_everything();
        // The next invocation comes at once, and its clock is behind that of the one before.
        world.now -= SignedDuration::from_secs(25);
        let published = world.tick().registry.expect("readers have to know");
        assert!(published.revision > before, "{} after {before}", published.revision);
    }
    world.settle_down();
}

#[test]
fn the_revision_grows_when_old_copies_are_put_back() {
    let mut world = World::serving(2);
    let (memory, registry) = (world.memory.clone(), world.registry.clone());
    world.desire(4);
    world.settle_down();
    let before = world.registry.as_ref().map_or(0, |registry| registry.revision);
    (world.memory, world.registry) = (memory, registry);
    let published = world.tick().registry.expect("more are desired");
    assert!(published.revision > before, "{} after {before}", published.revision);
}

#[test]
fn who_boots_is_not_published_even_if_nobody_serves() {
    let mut world = World::empty(2);
    world.ticks(2);
    assert_eq!(world.published(), []);
    world.settle_down();
    assert_eq!(world.published().len(), 2);
}

#[test]
fn one_that_is_taken_back_is_published_though_another_has_its_slot() {
    for verdict_was_published in [false, true] {
        let mut world = World::serving(2);
        let id = world.set(0, Health::Refuses);
        world.can_publish = verdict_was_published;
        world.can_terminate = false;
        world.tick();
        world.can_publish = true;
        world.can_terminate = true;
        let other = world.id(1);
        world.terminate(&other);
        world.machine(&id).health = Health::Well;
        world.tick();
        assert_eq!(world.published(), from_ref(&id), "no other worker serves");
        world.hide(&id, 1);
        world.tick();
        assert!(world.published().contains(&id), "it is remembered");
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
    }
}

#[test]
fn one_that_a_look_takes_back_keeps_its_traffic_though_another_has_its_slot() {
    let mut world = World::serving(2);
    let id = world.set(0, Health::Refuses);
    world.can_publish = false;
    world.can_terminate = false;
    world.tick();
    world.can_publish = true;
    world.can_terminate = true;
    world.machine(&id).health = Health::Well;
    world.now -= SignedDuration::from_secs(10);
    world.watch().expect("it answers");
    assert!(world.published().contains(&id));
    world.now += SignedDuration::from_secs(10);
    world.tick();
    assert!(world.published().contains(&id));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}
