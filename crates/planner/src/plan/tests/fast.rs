//! The same rules on faster numbers: `crates/fleet/policies/fast.json`, for system tests and demos.

use fleet::Policy;
use jiff::SignedDuration;

use super::world::{Health, World, holds};
use crate::held_back::{HeldBack, RolloutBrake, in_words};

/// A stack at rest with the fast policy.
fn serving(desired: u32) -> World {
    let mut world = World::empty(desired);
    let fast = include_str!("../../../../fleet/policies/fast.json");
    world.release.policy = serde_json::from_str(fast).expect("it is within its bounds");
    world.settle_down();
    assert_eq!(world.memory.healthy(), desired as usize);
    world
}

/// Runs ticks until the condition holds, and returns the time that passed.
#[track_caller]
fn time_until(world: &mut World, is_met: impl Fn(&World) -> bool) -> SignedDuration {
    let start = world.now;
    for _ in 0..100 {
        if is_met(world) {
            return world.now.duration_since(start);
        }
        world.tick();
    }
    panic!("not met: {:#?}", world.memory);
}

#[test]
fn a_silent_worker_is_replaced_within_a_minute() {
    let mut world = serving(3);
    let id = world.set(0, Health::Silent);
    let took = time_until(&mut world, |world| world.memory.healthy() == 3 && !world.live().contains(&id));
    assert!(took <= SignedDuration::from_mins(1), "{took:#}");
    world.settle_down();
}

#[test]
fn a_rollout_takes_a_minute_for_each_worker() {
    let mut world = serving(3);
    world.deploy("ami-2");
    let id = world.release.id.clone();
    let is_done = |world: &World| {
        let slots = &world.memory.slots;
        slots.len() == 3 && slots.values().all(|slot| slot.release == id)
    };
    let took = time_until(&mut world, is_done);
    assert!(took <= SignedDuration::from_mins(3), "{took:#}");
    world.settle_down();
}

#[test]
fn sentences_name_the_times_of_the_policy() {
    for (seconds, words) in [(0, "0 s"), (45, "45 s"), (60, "1 min"), (90, "90 s"), (1800, "30 min")] {
        assert_eq!(in_words(SignedDuration::from_secs(seconds)), words);
    }
    let mut world = serving(2);
    world.deploy("ami-2");
    world.broken.insert(world.release.id.clone());
    time_until(&mut world, |world| {
        let retries = |retry: &SignedDuration| retry.as_secs() == 30;
        holds!(world, HeldBack::Rollout { why: RolloutBrake::Frozen { retry, .. }, .. } if retries(retry))
    });
}

#[test]
fn the_fast_policy_differs_in_times_alone() {
    let world = serving(1);
    let times = world.release.policy.differences();
    let numbers = times.iter().filter(|it| it.value.ends_with(|last: char| last.is_ascii_digit()));
    assert_eq!(numbers.map(|it| it.name).collect::<Vec<_>>(), ["ticks"]);
    assert!(times.len() > 30 && Policy::default().differences().is_empty());
}
