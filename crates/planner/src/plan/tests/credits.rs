//! CPU credits: whose are capped, and when.

use std::collections::BTreeSet;

use fleet::aws_code::AwsErrorKind;
use fleet::release::Credits;
use jiff::SignedDuration;

use super::world::{Health, TICK, World, holds};
use crate::held_back::HeldBack;

/// Ticks of five minutes.
const FIVE_MINUTES: usize = 15;

#[test]
fn an_instance_is_capped_once_it_has_served_for_five_minutes() {
    let mut world = World::empty(2);
    world.ticks(3);
    assert_eq!(world.memory.healthy(), 2);
    let since = world.memory.slots[&0].since;
    let mut capped = Vec::new();
    for _ in 0..2 * FIVE_MINUTES {
        let at = world.now;
        for id in world.tick().credits {
            assert!(at.duration_since(since) >= SignedDuration::from_mins(5), "{id} after {at}");
            capped.push(id);
        }
    }
    assert_eq!(capped.len(), 2, "each is asked for once: {capped:?}");
    assert_eq!(world.memory.credits.done, capped.into_iter().collect::<BTreeSet<_>>());
}

#[test]
fn the_load_balancer_is_capped_as_well() {
    let mut world = World::serving(1);
    let balancer = world.add_balancer();
    world.ticks(FIVE_MINUTES + 4);
    assert!(world.memory.credits.done.contains(&balancer), "{:?}", world.memory.credits);
}

#[test]
fn a_load_balancer_is_not_capped_before_five_minutes() {
    let mut world = World::serving(1);
    let balancer = world.add_balancer();
    world.ticks(FIVE_MINUTES - 1);
    assert!(!world.memory.credits.done.contains(&balancer), "{:?}", world.memory.credits);
}

#[test]
fn an_ill_worker_is_not_capped() {
    let mut world = World::empty(1);
    world.ticks(FIVE_MINUTES);
    world.set(0, Health::Silent);
    world.ticks(FIVE_MINUTES);
    assert!(world.memory.credits.done.is_empty());
}

#[test]
fn unlimited_credits_stay_so() {
    let mut world = World::empty(1);
    world.release.worker.credits = Credits::Unlimited;
    world.ticks(3 * FIVE_MINUTES);
    assert!(world.memory.credits.done.is_empty());
}

#[test]
fn types_without_credits_are_left_alone() {
    let mut world = World::empty(1);
    "m7g.medium".clone_into(&mut world.release.worker.instance_type);
    world.ticks(3 * FIVE_MINUTES);
    assert!(world.memory.credits.done.is_empty());
}

#[test]
fn a_refused_cap_is_asked_for_again() {
    let mut world = World::empty(1);
    world.credit_refusals.extend([AwsErrorKind::Denied]);
    let mut asked = Vec::new();
    for _ in 0..4 * FIVE_MINUTES {
        if !world.tick().credits.is_empty() {
            asked.push(world.now);
        }
    }
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].duration_since(asked[0]) >= SignedDuration::from_mins(5) - TICK);
    assert_eq!(world.memory.credits.done.len(), 1);
    assert_eq!(world.memory.credits.refused, None);
}

#[test]
fn a_refused_cap_is_held_back_with_its_reason() {
    let mut world = World::empty(1);
    world.credit_refusals.extend([AwsErrorKind::Denied]);
    world.tick_until("the cap is refused", |world| world.memory.credits.refused.is_some());
    world.tick();
    assert!(
        holds!(world, HeldBack::Credits { instances: 1, why } if why == "on purpose"),
        "{:?}",
        world.held_back
    );
}

#[test]
fn what_has_no_credits_is_asked_once() {
    let mut world = World::empty(1);
    world.credit_refusals.extend([AwsErrorKind::NotSupported]);
    world.ticks(3 * FIVE_MINUTES);
    assert_eq!(world.memory.credits.done.len(), 1);
    assert_eq!(world.memory.credits.refused, None);
}

#[test]
fn five_are_asked_for_in_a_tick() {
    let mut world = World::serving(12);
    world.memory.credits.done.clear();
    world.ticks(FIVE_MINUTES);
    let mut most = 0;
    world.memory.credits.done.clear();
    for _ in 0..6 {
        most = most.max(world.tick().credits.len());
    }
    assert_eq!((most, world.memory.credits.done.len()), (5, 12));
}

#[test]
fn a_lost_memory_asks_once_more() {
    let mut world = World::empty(2);
    world.ticks(2 * FIVE_MINUTES);
    world.forget_everything();
    world.settle_down();
    world.ticks(2 * FIVE_MINUTES);
    assert_eq!(world.memory.credits.done.len(), 2);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut world = World::empty(2);
    world.ticks(2 * FIVE_MINUTES);
    let gone = world.id(0);
    world.terminate(&gone);
    world.settle_down();
    assert!(!world.memory.credits.done.contains(&gone));
}
