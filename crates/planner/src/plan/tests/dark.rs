//! A zone that EC2 does not answer for: calls about it hang.

use fleet::memory::Phase;
use jiff::SignedDuration;

use super::world::{Health, SUBNETS, World};
use crate::observation::Role;

/// Nothing is launched into zone a, new or repeated.
#[track_caller]
fn tick_without_zone_a(world: &mut World) {
    let planned = world.tick();
    assert!(planned.launches.iter().all(|launch| launch.subnet != "subnet-a"), "{:#?}", planned.launches);
}

#[test]
fn no_launch_is_repeated_into_an_unreachable_zone() {
    for workers in [8, 20] {
        let mut world = World::serving(workers);
        let there: Vec<u32> = world.memory.slots.keys().copied().filter(|slot| slot % 2 == 0).collect();
        for slot in there {
            world.set(slot, Health::Silent);
        }
        world.zone_out = Some("zone-a".to_owned());
        for _ in 0..30 {
            tick_without_zone_a(&mut world);
        }
        assert_eq!(world.memory.healthy(), workers as usize, "replacements are in the other zone");
        world.zone_out = None;
        // A zone that is silent is spared for 15 min.
        world.now += SignedDuration::from_mins(15);
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (workers as usize, workers as usize));
    }
}

#[test]
fn a_launch_without_an_answer_has_a_substitute_once_its_zone_is_unreachable() {
    let mut world = World::serving(2);
    world.without_capacity.insert("subnet-b".to_owned());
    world.desire(3);
    world.launch_faults.push_back(super::world::LaunchFault::Refused(fleet::aws_code::AwsErrorKind::Other));
    world.tick();
    assert_eq!(world.phase(2), Phase::Launching);
    world.without_capacity.clear();
    world.zone_out = Some("zone-a".to_owned());
    tick_without_zone_a(&mut world);
    assert_eq!((world.phase(2), world.memory.slots[&3].zone.as_str()), (Phase::Unresolved, "zone-b"));
    world.zone_out = None;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_zone_in_which_nothing_is_remembered_is_not_launched_into() {
    let mut world = World::empty(1);
    world.release.worker.subnets.reverse();
    world.settle_down();
    world.zone_out = Some("zone-a".to_owned());
    world.desire(4);
    for _ in 0..5 {
        tick_without_zone_a(&mut world);
    }
    assert_eq!(world.memory.healthy(), 4);
}

#[test]
fn with_one_worker_a_dead_load_balancer_is_replaced_in_the_other_zone() {
    let mut world = World::empty(1);
    world.release.worker.subnets.reverse();
    let before = world.add_balancer();
    world.settle_down();
    world.machine(&before).health = Health::Silent;
    world.zone_out = Some("zone-a".to_owned());
    for _ in 0..6 {
        tick_without_zone_a(&mut world);
    }
    let holder = world.holder.clone().expect("the address is associated");
    assert_eq!(world.machine(&holder).row.zone, "zone-b");
    world.zone_out = None;
    world.settle_down();
    assert_eq!(world.live_of(Role::LoadBalancer), [holder]);
}

#[test]
fn a_successor_in_an_unreachable_zone_is_launched_elsewhere_at_once() {
    let mut world = World::serving(3);
    let before = world.add_balancer();
    world.settle_down();
    world.machine(&before).health = Health::Refuses;
    world.launch_faults.push_back(super::world::LaunchFault::Refused(fleet::aws_code::AwsErrorKind::Other));
    world.tick();
    let successor = world.memory.balancer.successor.clone().expect("one is launched");
    assert_eq!(successor.zone, "zone-b");
    world.zone_out = Some("zone-b".to_owned());
    world.tick();
    let successor = world.memory.balancer.successor.clone().expect("one is launched");
    assert_eq!((successor.zone.as_str(), successor.attempt), ("zone-a", 2));
    assert_eq!(world.memory.balancer.boots.failures, 0, "the zone is to blame");
}

#[test]
fn an_adopted_worker_is_not_given_up_because_its_zone_was_out() {
    let mut world = World::serving(2);
    world.forget_everything();
    world.ticks(5);
    let id = world.id(0);
    world.set(0, Health::Silent);
    world.zone_out = Some("zone-a".to_owned());
    world.ticks(20);
    world.zone_out = None;
    world.set(0, Health::Well);
    world.hide(&id, 1);
    world.is_deaf = true;
    world.tick();
    assert_eq!(world.id(0), id, "EC2 has left it out of one list");
    world.is_deaf = false;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_lost_memory_keeps_the_registry_while_a_zone_is_out() {
    let mut world = World::empty(3);
    world.release.worker.subnets.truncate(1);
    world.add_balancer();
    world.settle_down();
    let before = world.published();
    let holder = world.holder.clone().expect("there is one");
    world.machine(&holder).row.zone = "zone-b".to_owned();
    world.forget_everything();
    before.iter().for_each(|id| world.hide(id, 1));
    world.tick();
    world.zone_out = Some("zone-a".to_owned());
    world.now += SignedDuration::from_mins(6);
    world.ticks(3);
    assert_eq!(world.published(), before, "no worker is known to be gone");
}

#[test]
fn without_capacity_in_the_zones_that_answer_launches_wait() {
    let mut world = World::serving(4);
    for slot in [0, 2] {
        world.set(slot, Health::Silent);
    }
    world.zone_out = Some("zone-a".to_owned());
    world.without_capacity.insert(SUBNETS[1].to_owned());
    let tries = (0..20).filter(|_| !world.tick().launches.is_empty()).count();
    assert!(tries <= 8, "{tries} of 20 ticks");
    assert!(world.memory.boots.is_empty());
}

#[test]
fn a_zone_is_avoided_for_three_minutes_whoever_was_refused() {
    let mut world = World::serving(1);
    let before = world.add_balancer();
    world.settle_down();
    world.without_capacity.insert(SUBNETS[1].to_owned());
    world.terminate(&before);
    world.tick();
    assert!(world.memory.avoid.contains_key(SUBNETS[1]), "the load balancer was refused");
    world.without_capacity.clear();
    world.now += SignedDuration::from_mins(3);
    world.tick();
    assert!(world.memory.avoid.is_empty(), "no worker has to be launched for that");
}
