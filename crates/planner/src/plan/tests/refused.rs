//! What EC2 refuses, and whom it blames for it: the definition, the zones, or the account.

use fleet::aws_code::AwsErrorKind;
use fleet::memory::Phase;
use jiff::SignedDuration;

use super::world::{Health, LaunchFault, SUBNETS, World, holds};
use crate::decision::{Decision, LaunchDecision};
use crate::held_back::{BalancerBrake, HeldBack, RolloutBrake};
use crate::observation::Role;
use crate::plan::Plan;

fn unlaunchable(world: &mut World) {
    world.unlaunchable.insert(world.release.id.clone());
}

/// A worker is gone.
fn lose_one(world: &mut World) {
    let gone = world.id(0);
    world.terminate(&gone);
}

/// Whether a worker of the present release is launched.
fn launches_new(world: &World, planned: &Plan) -> bool {
    planned.launches.iter().any(|launch| launch.release == world.release.id)
}

#[track_caller]
fn expect_whole(world: &mut World, workers: usize) {
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (workers, workers));
    assert!(world.memory.slots.values().all(|slot| slot.release == world.release.id));
}

#[test]
fn a_release_that_ec2_refuses_is_frozen_like_one_that_does_not_boot() {
    let mut world = World::serving(3);
    world.deploy("ami-2");
    unlaunchable(&mut world);
    world.ticks(20);
    assert_eq!((world.failures(), world.memory.slots.len(), world.memory.healthy()), (2, 3, 3));
    assert!(holds!(world, HeldBack::Rollout { why: RolloutBrake::Frozen { .. }, .. }));
    lose_one(&mut world);
    world.ticks(5);
    assert_eq!(world.memory.healthy(), 3, "healed from the old release");
    world.deploy("ami-3");
    expect_whole(&mut world, 3);
}

#[test]
fn a_proven_release_that_ec2_refuses_gives_way_to_a_new_one_at_once() {
    let mut world = World::serving(3);
    unlaunchable(&mut world);
    lose_one(&mut world);
    world.ticks(20);
    assert_eq!((world.memory.slots.len(), world.failures()), (2, 5), "1, 2, 4 min apart after the third");
    assert!(world.memory.losses.len() == 1, "nothing else was lost");
    world.deploy("ami-2");
    let planned = world.tick();
    assert!(launches_new(&world, &planned), "{:?}", world.held_back);
    expect_whole(&mut world, 3);
}

#[test]
fn a_first_release_that_ec2_refuses_leaves_no_slot_behind() {
    let mut world = World::empty(3);
    unlaunchable(&mut world);
    world.tick();
    assert_eq!((world.memory.slots.len(), world.failures()), (0, 1), "launches of a tick are one try");
    world.ticks(30);
    assert!(world.memory.slots.is_empty());
    world.deploy("ami-2");
    assert_eq!(world.tick().launches.len(), 3);
    expect_whole(&mut world, 3);
}

#[test]
fn without_capacity_in_any_zone_no_release_is_blamed() {
    let mut world = World::serving(3);
    world.without_capacity.extend(SUBNETS.map(str::to_owned));
    lose_one(&mut world);
    let tries: Vec<usize> = (0..30).filter(|_| !world.tick().launches.is_empty()).collect();
    assert_eq!(tries, [0, 1, 2, 4, 7, 13, 19, 25], "one after the other zone, then 20, 40, 60, 120 s apart");
    assert!(world.memory.boots.is_empty() && world.memory.refusals.is_empty(), "{:#?}", world.memory);
    assert!(
        holds!(world, HeldBack::NewWorkers { why, .. } if why.why.contains("t4g.nano")),
        "{:?}",
        world.held_back
    );
    let is_refusal = |decision: &Decision| {
        matches!(
            decision,
            Decision::Launch(LaunchDecision::NoCapacity { .. } | LaunchDecision::Refused { .. })
        )
    };
    assert_eq!(world.events_of(is_refusal).len(), 2, "{:#?}", world.memory.events);
    world.without_capacity.clear();
    expect_whole(&mut world, 3);
}

#[test]
fn where_the_old_release_finds_no_room_a_new_one_heals_at_once() {
    for kind in [AwsErrorKind::NoCapacity, AwsErrorKind::AccountLimit, AwsErrorKind::Denied] {
        let mut world = World::serving(3);
        lose_one(&mut world);
        for _ in 0..10 {
            world.launch_faults.clear();
            world.launch_faults.extend([LaunchFault::Refused(kind); 4]);
            world.tick();
        }
        world.launch_faults.clear();
        assert!(world.memory.slots.len() == 2 && world.memory.boots.is_empty(), "{kind:?}");
        // Another instance type, or another market.
        world.deploy("ami-2");
        let planned = world.tick();
        assert!(launches_new(&world, &planned), "{kind:?}: {:?}", world.held_back);
        expect_whole(&mut world, 3);
    }
}

#[test]
fn a_zone_that_does_not_offer_the_type_is_left_for_good() {
    let mut world = World::empty(4);
    world.not_offered.insert(SUBNETS[0].to_owned());
    world.settle_down();
    assert_eq!(world.memory.healthy(), 4);
    assert!(world.memory.boots.is_empty(), "the other zone offers it");
    world.now += SignedDuration::from_mins(10);
    lose_one(&mut world);
    assert!(world.tick().launches.iter().all(|launch| launch.subnet == SUBNETS[1]));
    world.deploy("ami-2");
    world.not_offered.clear();
    expect_whole(&mut world, 4);
    assert!(!world.memory.not_offered.contains_key("1"), "{:?}", world.memory.not_offered);
}

#[test]
fn a_type_that_no_zone_offers_counts_against_its_release() {
    let mut world = World::serving(3);
    let before = world.release.id.clone();
    world.deploy("ami-2");
    world.not_offered.extend(SUBNETS.map(str::to_owned));
    world.ticks(20);
    assert_eq!((world.failures(), world.memory.healthy()), (2, 3));
    assert!(world.memory.slots.values().all(|slot| slot.release == before));
    world.not_offered.clear();
    world.deploy("ami-3");
    expect_whole(&mut world, 3);
}

#[test]
fn a_permission_that_is_missing_freezes_nothing() {
    let mut world = World::empty(2);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Denied); 8]);
    world.ticks(10);
    assert!(world.memory.slots.is_empty() && world.memory.boots.is_empty(), "{:#?}", world.memory);
    assert!(
        holds!(world, HeldBack::NewWorkers { .. } | HeldBack::Refused { role: Role::Worker, .. }),
        "{:?}",
        world.held_back
    );
    expect_whole(&mut world, 2);
}

#[test]
fn a_role_that_is_not_known_for_ten_minutes_counts_against_its_release() {
    let mut world = World::serving(2);
    world.deploy("ami-2");
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Propagating); 1000]);
    world.ticks(25);
    assert_eq!(world.failures(), 0, "a new role is not known everywhere yet");
    world.ticks(25);
    assert!(world.failures() >= 2, "{}", world.failures());
    assert_eq!(world.memory.healthy(), 2);
}

#[test]
fn a_launch_that_is_refused_when_it_is_repeated_keeps_its_slot() {
    for kind in [AwsErrorKind::Denied, AwsErrorKind::Propagating] {
        let mut world = World::serving(1);
        world.desire(2);
        world.launch_faults.extend([LaunchFault::ReplyLost, LaunchFault::Refused(kind)]);
        world.tick();
        let id = world.live()[1].clone();
        world.hide(&id, 2);
        world.tick();
        assert_eq!(
            (world.phase(1), world.memory.slots[&1].is_unwanted),
            (Phase::Unresolved, true),
            "{kind:?}"
        );
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (2, 2), "{kind:?}");
    }
}

/// A load balancer that has died, and has no successor yet.
fn without_balancer() -> World {
    let mut world = World::serving(2);
    let holder = world.add_balancer();
    world.settle_down();
    world.machine(&holder).health = Health::Refuses;
    world
}

fn tries_of_balancers(world: &mut World, ticks: usize) -> Vec<String> {
    let is_it = |launch: &&crate::effect::Launch| launch.role == Role::LoadBalancer;
    (0..ticks)
        .flat_map(|_| {
            let planned = world.tick();
            planned.launches.iter().filter(is_it).map(|launch| launch.release.clone()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_load_balancer_that_ec2_refuses_gives_way_to_a_new_definition() {
    let mut world = without_balancer();
    world.unlaunchable.insert("lb-1".to_owned());
    let tries = tries_of_balancers(&mut world, 12);
    assert_eq!((tries.len(), &world.memory.balancer.successor), (5, &None), "{tries:?}");
    assert!(
        holds!(world, HeldBack::DefinitionRefused { role: Role::LoadBalancer, .. }),
        "{:?}",
        world.held_back
    );
    world.deploy_balancer("lb-2");
    assert_eq!(tries_of_balancers(&mut world, 1), ["lb-2"]);
    world.settle_down();
    assert_eq!(world.live_of(Role::LoadBalancer).len(), 1);
}

#[test]
fn each_definition_of_a_load_balancer_waits_for_its_own_failures() {
    let mut world = World::serving(2);
    let holder = world.add_balancer();
    world.settle_down();
    world.deploy_balancer("lb-2");
    world.unlaunchable.insert("lb-2".to_owned());
    world.ticks(60);
    assert!(world.memory.balancer.boots.failures >= 5, "{:?}", world.memory.balancer.boots);
    world.machine(&holder).health = Health::Refuses;
    assert_eq!(tries_of_balancers(&mut world, 1), ["lb-1"], "{:?}", world.held_back);
}

#[test]
fn a_load_balancer_without_capacity_gives_way_to_a_new_definition() {
    for kind in [AwsErrorKind::NoCapacity, AwsErrorKind::AccountLimit, AwsErrorKind::Denied] {
        let mut world = without_balancer();
        for _ in 0..12 {
            world.launch_faults.clear();
            world.launch_faults.extend([LaunchFault::Refused(kind); 4]);
            world.tick();
        }
        world.launch_faults.clear();
        assert_eq!(world.memory.balancer.boots.failures, 0, "{kind:?}");
        assert!(
            holds!(
                world,
                HeldBack::NewBalancer { why: BalancerBrake::Refused(_) }
                    | HeldBack::Refused { role: Role::LoadBalancer, .. }
            ),
            "{kind:?}: {:?}",
            world.held_back
        );
        world.deploy_balancer("lb-2");
        assert_eq!(tries_of_balancers(&mut world, 1), ["lb-2"], "{kind:?}: {:?}", world.held_back);
        world.settle_down();
        assert_eq!(world.live_of(Role::LoadBalancer).len(), 1);
    }
}
