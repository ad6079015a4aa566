//! Load balancers that crash and are restarted between two ticks, over and over.

use fleet::WorkerId;
use jiff::SignedDuration;

use super::world::{Health, World, holds};
use crate::held_back::{BalancerBrake, HeldBack, HolderFault};
use crate::observation::{Role, Scope};

/// A stack at rest with a load balancer that has served for long.
fn world() -> (World, WorkerId) {
    let mut world = World::serving(2);
    let holder = world.add_balancer();
    world.settle_down();
    (world, holder)
}

fn definition(world: &World) -> String {
    let holder = world.holder.as_ref().expect("the address is associated");
    let machine = world.machines.iter().find(|machine| machine.row.id == *holder);
    machine.expect("it exists").row.release.clone()
}

/// Ticks so often, and returns the holders of the address one after the other.
fn holders(world: &mut World, ticks: usize) -> Vec<WorkerId> {
    let mut holders = Vec::from_iter(world.holder.clone());
    for _ in 0..ticks {
        world.tick();
        let holder = world.holder.clone().expect("the address is associated");
        assert!(world.live_of(Role::LoadBalancer).contains(&holder), "{:#?}", world.memory.events);
        if holders.last() != Some(&holder) {
            holders.push(holder);
        }
    }
    holders
}

#[test]
fn the_successor_of_one_that_keeps_crashing_comes_first() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Crashes;
    let mut ticks = 0;
    while world.live_of(Role::LoadBalancer).len() == 1 {
        world.tick();
        ticks += 1;
    }
    assert_eq!(ticks, 3, "three restarts");
    world.tick();
    assert!(holds!(world, HeldBack::Move { why: HolderFault::KeepsCrashing }));
    assert_eq!(world.holder.as_ref(), Some(&holder), "it serves between two crashes");
    world.settle_down();
    let next = world.holder.clone().expect("the address is associated");
    assert_ne!(next, holder);
    assert_eq!(world.live_of(Role::LoadBalancer), [next]);
    world.ticks(20);
    assert!(world.memory.restarts.is_empty());
    assert_eq!(world.memory.balancer.boots.failures, 0, "another one serves, so it was not the definition");
}

#[test]
fn two_restarts_of_a_load_balancer_are_no_reason() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Crashes;
    world.ticks(2);
    world.machine(&holder).health = Health::Well;
    assert_eq!(world.memory.restarts[&holder].seen.len(), 2);
    assert_eq!(holders(&mut world, 20), [holder]);
    assert!(world.memory.restarts.is_empty());
}

#[test]
fn a_load_balancer_that_stops_crashing_keeps_the_address() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Crashes;
    world.without_capacity.extend(["subnet-a".to_owned(), "subnet-b".to_owned()]);
    world.ticks(6);
    world.machine(&holder).health = Health::Well;
    world.ticks(16);
    world.without_capacity.clear();
    assert_eq!(holders(&mut world, 20), [holder]);
}

#[test]
fn a_load_balancer_without_uptime_is_never_taken_for_one_that_crashes() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Crashes;
    for _ in 0..20 {
        let mut seen = world.observe(Scope::Fleet);
        seen.started.clear();
        world.tick_seeing(&seen);
    }
    assert!(world.memory.restarts.is_empty());
    assert_eq!(world.holder, Some(holder));
}

#[test]
fn clocks_that_differ_make_no_restart_of_a_load_balancer() {
    let (mut world, holder) = world();
    for n in 0..20 {
        let mut seen = world.observe(Scope::Fleet);
        for started in seen.started.values_mut() {
            *started += SignedDuration::from_secs(n % 4);
        }
        world.tick_seeing(&seen);
    }
    assert!(world.memory.restarts.is_empty());
    assert_eq!(world.holder, Some(holder));
}

/// Poison in the traffic, or a definition that has proved itself too early.
#[test]
fn load_balancers_that_all_crash_are_replaced_with_pauses_between() {
    let (mut world, _) = world();
    world.crashing.insert("lb-1".to_owned());
    let holders = holders(&mut world, 300);
    assert!(world.memory.balancer.boots.failures >= 3, "it counts against the definition");
    assert!((4..12).contains(&holders.len()), "{} in 100 min", holders.len());
    assert!(holds!(world, HeldBack::NewBalancer { why: BalancerBrake::BootLoop { .. } }));
    // The next definition has a record of its own.
    world.deploy_balancer("lb-2");
    world.settle_down();
    assert_eq!(definition(&world), "lb-2");
}

#[test]
fn a_new_definition_that_keeps_crashing_is_tried_twice_and_then_seldom() {
    let (mut world, _) = world();
    world.crashing.insert("lb-2".to_owned());
    world.deploy_balancer("lb-2");
    let before = world.machines.len();
    world.ticks(60);
    assert_eq!(definition(&world), "lb-1", "what served last has the address: {:#?}", world.memory.events);
    assert_eq!(world.memory.balancer.boots.failures, 2);
    assert_eq!(world.machines.len() - before, 4, "two of each definition");
    world.ticks(60);
    assert_eq!(world.machines.len() - before, 6, "one more of each after 30 min");
    world.deploy_balancer("lb-3");
    world.settle_down();
    assert_eq!(definition(&world), "lb-3");
    assert_eq!(world.live_of(Role::LoadBalancer).len(), 1);
}

#[test]
fn several_that_keep_crashing_do_not_take_turns() {
    let (mut world, holder) = world();
    for subnet in ["subnet-a", "subnet-b"] {
        let id = world.add(None, subnet);
        let row = &mut world.machine(&id).row;
        row.role = Role::LoadBalancer;
        "lb-1".clone_into(&mut row.release);
    }
    world.crashing.insert("lb-1".to_owned());
    let moved = holders(&mut world, 90);
    assert!(moved.len() < 9, "{moved:?}");
    assert!(!world.live_of(Role::LoadBalancer).contains(&holder));
}

#[test]
fn in_place_of_a_dead_one_any_that_answers_will_do() {
    let (mut world, holder) = world();
    world.crashing.insert("lb-1".to_owned());
    world.can_terminate = false;
    while world.holder.as_ref() == Some(&holder) {
        world.tick();
    }
    let second = world.holder.clone().expect("the address is associated");
    world.tick();
    assert!(world.memory.keeps_crashing(&holder), "it lost the address for that");
    world.machine(&second).health = Health::Refuses;
    world.tick();
    assert_eq!(world.holder, Some(holder));
}
