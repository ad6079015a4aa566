//! What `settle` makes of each outcome of a launch or a termination.

use std::mem;

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{Memory, Phase};
use fleet::{Policy, WorkerId};
use jiff::SignedDuration;

use super::world::{TICK, World};
use crate::effect::{Failure, Launch};
use crate::held_back::HeldBack;
use crate::observation::{Role, Scope};
use crate::plan::{Outcomes, plan, settle};

/// A memory that intends a launch in slot 0, and that launch.
fn intended() -> (World, Memory, Launch) {
    let world = World::empty(1);
    let planned = plan(&world.observe(Scope::Fleet), Memory::default(), &Policy::default(), world.now);
    (world, planned.memory, planned.launches[0].clone())
}

fn outcome(launch: &Launch, result: Result<&str, AwsErrorKind>) -> Outcomes {
    let failure = |kind| Failure { kind, why: "why".to_owned() };
    let result = result.map(|id| id.parse().expect("an id")).map_err(failure);
    Outcomes { launched: vec![(launch.clone(), result)], ..Outcomes::default() }
}

#[test]
fn a_launch_that_succeeds_boots_from_now() {
    let (world, mut memory, launch) = intended();
    let later = world.now + SignedDuration::from_secs(3);
    settle(&mut memory, &outcome(&launch, Ok("i-1")), &Policy::default(), later);
    let slot = &memory.slots[&0];
    assert_eq!(slot.worker.as_ref().map(ToString::to_string).as_deref(), Some("i-1"));
    assert_eq!((slot.phase, slot.since), (Phase::Booting, later));
}

#[test]
fn a_launch_repeated_for_an_instance_that_is_known_changes_nothing() {
    let (world, mut memory, launch) = intended();
    settle(&mut memory, &outcome(&launch, Ok("i-1")), &Policy::default(), world.now);
    let before = memory.clone();
    settle(
        &mut memory,
        &outcome(&launch, Ok("i-1")),
        &Policy::default(),
        world.now + SignedDuration::from_mins(1),
    );
    assert_eq!(memory, before);
}

#[test]
fn no_capacity_empties_the_slot_and_avoids_the_subnet() {
    let (world, mut memory, launch) = intended();
    settle(&mut memory, &outcome(&launch, Err(AwsErrorKind::NoCapacity)), &Policy::default(), world.now);
    assert!(memory.slots.is_empty());
    assert_eq!(memory.attempts[&0], 1, "the attempt stays used");
    assert_eq!(memory.avoid[&launch.subnet], world.now + SignedDuration::from_mins(3));
}

#[test]
fn a_token_that_cannot_be_used_empties_the_slot() {
    for kind in [AwsErrorKind::TokenSpent, AwsErrorKind::TokenMismatch] {
        let (world, mut memory, launch) = intended();
        settle(&mut memory, &outcome(&launch, Err(kind)), &Policy::default(), world.now);
        assert!(memory.slots.is_empty(), "{kind:?}");
        assert_eq!(memory.attempts[&0], 1, "{kind:?}");
        assert!(memory.avoid.is_empty(), "{kind:?}");
    }
}

/// Ticks until EC2 sees a launch of this role for the first time. Returns the attempts.
fn attempts_until(last_used: u32, role: Role) -> Vec<u32> {
    let mut world = World::empty(1);
    if role == Role::LoadBalancer {
        world.add_balancer();
        world.machines.clear();
    }
    let mut attempts = Vec::new();
    for _ in 0..100 {
        let seen = world.observe(Scope::Fleet);
        let planned = plan(&seen, mem::take(&mut world.memory), &Policy::default(), world.now);
        world.memory = planned.memory;
        if let Some(launch) = planned.launches.into_iter().find(|launch| launch.role == role) {
            attempts.push(launch.attempt);
            if launch.attempt > last_used {
                break;
            }
            settle(
                &mut world.memory,
                &outcome(&launch, Err(AwsErrorKind::TokenSpent)),
                &Policy::default(),
                world.now,
            );
        }
        world.now += TICK;
    }
    attempts
}

#[test]
fn attempts_that_a_lost_memory_used_up_are_passed_in_a_few_ticks() {
    for role in [Role::Worker, Role::LoadBalancer] {
        assert_eq!(attempts_until(1, role), [1, 2], "{role:?}");
        assert_eq!(attempts_until(15, role), [1, 2, 4, 8, 16], "{role:?}");
        let many = attempts_until(10_000, role);
        assert!(many.len() <= 20, "{role:?}: {many:?}");
    }
}

#[test]
fn what_took_place_nowhere_is_not_the_last_launch() {
    let (world, memory, launch) = intended();
    let before = Some(world.now - SignedDuration::from_mins(31));
    for (result, last_launch) in [
        (Err(AwsErrorKind::NoCapacity), before),
        (Err(AwsErrorKind::TokenSpent), before),
        (Err(AwsErrorKind::Throttled), Some(world.now)),
        (Err(AwsErrorKind::Other), Some(world.now)),
        (Ok("i-1"), Some(world.now)),
    ] {
        let mut memory = memory.clone();
        settle(
            &mut memory,
            &Outcomes { last_launch: before, ..outcome(&launch, result) },
            &Policy::default(),
            world.now,
        );
        assert_eq!(memory.last_launch, last_launch, "{result:?}");
    }
}

#[test]
fn any_other_error_leaves_the_intent_as_it_is() {
    for kind in [
        AwsErrorKind::NotFound,
        AwsErrorKind::AlreadyExists,
        AwsErrorKind::Conflict,
        AwsErrorKind::InUse,
        AwsErrorKind::Throttled,
        AwsErrorKind::Other,
    ] {
        let (world, mut memory, launch) = intended();
        let before = memory.slots.clone();
        let settled = settle(&mut memory, &outcome(&launch, Err(kind)), &Policy::default(), world.now);
        assert_eq!(memory.slots, before, "{kind:?}");
        let held_back = HeldBack::Launch { role: Role::Worker, slot: 0, why: "why".to_owned() };
        assert_eq!(memory.held, [held_back.to_string()], "{kind:?}");
        assert_eq!(settled.held_back, [held_back], "{kind:?}");
    }
}

#[test]
fn an_outcome_of_another_attempt_is_not_for_this_slot() {
    let (world, mut memory, launch) = intended();
    let before = memory.clone();
    for result in [Ok("i-1"), Err(AwsErrorKind::NoCapacity)] {
        settle(
            &mut memory,
            &outcome(&Launch { attempt: 9, ..launch.clone() }, result),
            &Policy::default(),
            world.now,
        );
        settle(
            &mut memory,
            &outcome(&Launch { slot: 9, ..launch.clone() }, result),
            &Policy::default(),
            world.now,
        );
    }
    assert_eq!(memory, before);
}

#[test]
fn a_termination_that_failed_is_said() {
    let (world, mut memory, _) = intended();
    let (id, why): (WorkerId, _) = ("i-1".parse().expect("an id"), "why".to_owned());
    let outcomes = Outcomes { not_terminated: vec![(id.clone(), why.clone())], ..Outcomes::default() };
    let settled = settle(&mut memory, &outcomes, &Policy::default(), world.now);
    let held_back = HeldBack::TerminationFailed { id, why };
    assert_eq!(memory.held, [held_back.to_string()]);
    assert_eq!(settled.held_back, [held_back]);
}
