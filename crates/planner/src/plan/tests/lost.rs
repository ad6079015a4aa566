//! Memory that is lost, and instances that are not in it.

use fleet::aws_code::AwsErrorKind;
use fleet::memory::{Boots, Memory, Phase};
use jiff::SignedDuration;

use super::world::{Health, LaunchFault, SUBNETS, World, release};
use crate::observation::{Role, State};

#[test]
fn a_lost_memory_is_rebuilt_from_tags_without_a_change_to_the_fleet() {
    let mut world = World::serving(3);
    let before = (world.live(), world.published());
    let revision = world.registry.as_ref().map(|registry| registry.revision);
    world.forget_everything();
    let planned = world.tick();
    assert_eq!((planned.launches.len(), planned.terminations.len(), planned.registry), (0, 0, None));
    assert_eq!(Some(world.memory.revision), revision);
    assert_eq!((world.memory.healthy(), world.memory.attempts.len()), (3, 3));
    world.expect_rest();
    assert_eq!((world.live(), world.published()), before);
}

#[test]
fn nobody_who_served_dies_when_memory_is_lost_while_nobody_answers() {
    let mut world = World::serving(3);
    let before = world.live();
    let published = world.published();
    world.is_deaf = true;
    world.forget_everything();
    for _ in 0..30 {
        world.tick();
        assert!(before.iter().all(|id| world.live().contains(id)));
        assert_eq!(world.published(), published);
    }
    world.is_deaf = false;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn nobody_who_served_dies_young_when_memory_is_lost_while_nobody_answers() {
    let mut world = World::empty(2);
    world.ticks(3);
    assert_eq!(world.published().len(), 2);
    world.is_deaf = true;
    world.forget_everything();
    let before = world.live();
    for _ in 0..30 {
        world.tick();
        assert!(before.iter().all(|id| world.live().contains(id)));
    }
    world.is_deaf = false;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn one_that_is_silent_when_memory_is_lost_is_judged_like_any_other() {
    let mut world = World::serving(3);
    let id = world.set(1, Health::Silent);
    world.forget_everything();
    assert_eq!(world.tick().terminations, []);
    assert_eq!(world.phase(1), Phase::Suspect);
    for seconds in [20, 40] {
        let planned = world.tick();
        assert_eq!(planned.terminations, [], "{seconds} s: memory is young");
        assert_eq!(world.phase(1), Phase::Dead, "{seconds} s");
    }
    assert_eq!(world.tick().launches.len(), 1, "60 s");
    world.tick();
    assert_eq!(world.tick().terminations, [id], "its replacement answers");
    assert_eq!(world.failures(), 0, "it is no boot that failed");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn a_boot_goes_on_when_memory_is_lost() {
    let mut world = World::empty(1);
    world.tick();
    world.forget_everything();
    assert_eq!(world.tick().launches, []);
    assert_eq!(world.phase(0), Phase::Booting);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn attempts_go_on_from_the_highest_that_ec2_shows() {
    let mut world = World::serving(1);
    for _ in 0..3 {
        let id = world.id(0);
        world.terminate(&id);
        world.settle_down();
    }
    let id = world.id(0);
    world.terminate(&id);
    world.forget_everything();
    world.ticks(3);
    let launches = world.tick().launches;
    assert_eq!((launches[0].slot, launches[0].attempt), (0, 5));
    world.settle_down();
}

/// The tag of an unknown instance, or an edited tag. There is no attempt after it.
#[test]
fn the_highest_attempt_in_a_tag_stops_no_launch() {
    let mut world = World::serving(1);
    let strange = world.add(Some((0, u32::MAX)), "subnet-a");
    world.tick();
    assert_eq!(world.memory.attempts[&0], u32::MAX);
    world.terminate(&strange);
    let id = world.id(0);
    world.terminate(&id);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
    assert!(!world.memory.slots.contains_key(&0), "its tokens are used up");
}

#[test]
fn the_highest_attempt_of_a_load_balancer_stops_no_launch() {
    let mut world = World::serving(1);
    let holder = world.add_balancer();
    world.machine(&holder).row.attempt = Some(u32::MAX);
    world.settle_down();
    world.terminate(&holder);
    world.ticks(3);
    assert!(world.memory.balancer.successor.is_some() || world.holder != Some(holder));
}

#[test]
fn the_highest_counts_in_memory_stop_no_tick() {
    let mut world = World::serving(1);
    world.memory.revision = u64::MAX;
    let release = world.release.id.clone();
    world.memory.boots.insert(release, Boots { failures: u32::MAX, ..Boots::default() });
    world.broken.insert(world.release.id.clone());
    world.desire(2);
    world.ticks(20);
    assert_eq!(world.memory.boots[&world.release.id].failures, u32::MAX);
}

#[test]
fn attempts_that_ec2_does_not_show_any_more_are_stepped_over() {
    let mut world = World::serving(1);
    let id = world.id(0);
    world.terminate(&id);
    world.hide(&id, 1000);
    world.forget_everything();
    world.settle_down();
    assert_eq!(world.memory.slots[&0].attempt, 2);
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn an_instance_of_a_lost_memory_is_not_taken_for_the_launch_that_uses_its_attempt_again() {
    for (subnet, ami) in [("subnet-b", "ami-1"), ("subnet-a", "ami-0")] {
        let mut world = World::empty(1);
        let earlier = world.add(Some((0, 1)), subnet);
        world.machine(&earlier).row.release = release(ami, &SUBNETS).id;
        // If it answered before the launched one does, it would have a slot of its own.
        world.machine(&earlier).health = Health::Refuses;
        world.hide(&earlier, 1);
        world.launch_faults.push_back(LaunchFault::Refused(AwsErrorKind::Other));
        let first = world.tick().launches;
        assert_eq!((first[0].attempt, first[0].subnet.as_str()), (1, "subnet-a"), "{subnet}, {ami}");
        assert_eq!(world.tick().launches, first, "{subnet}, {ami}: it is not there yet");
        let launched = world.id(0);
        world.settle_down();
        assert_eq!((world.id(0), world.live()), (launched.clone(), vec![launched]), "{subnet}, {ami}");
    }
}

#[test]
fn an_orphan_that_answers_while_too_few_do_gets_an_unused_slot() {
    let mut world = World::serving(2);
    let id = world.add(Some((0, 7)), "subnet-b");
    world.now += SignedDuration::from_mins(3);
    let other = world.id(1);
    world.terminate(&other);
    let planned = world.tick();
    assert_eq!((world.id(2), world.phase(2)), (id.clone(), Phase::Healthy));
    assert_eq!(planned.launches, [], "two are desired");
    assert!(world.published().contains(&id));
    // From now on it is judged like any other.
    world.machine(&id).health = Health::Silent;
    assert_eq!(world.tick().terminations, []);
    assert_eq!(world.phase(2), Phase::Suspect);
    world.tick();
    assert_eq!(world.phase(2), Phase::Dead);
    world.ticks(2);
    assert!(!world.live().contains(&id));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_young_memory_gives_an_orphan_no_slot() {
    let mut world = World::serving(2);
    let (first, second) = (world.id(0), world.id(1));
    world.machine(&second).row.slot = Some(0);
    world.forget_everything();
    for seconds in [0, 20, 40] {
        world.tick();
        assert_eq!(world.memory.slots.len(), 1, "{seconds} s: EC2 may show the worker of a slot later");
        assert_eq!(world.published(), [first.clone(), second.clone()], "{seconds} s");
    }
    world.tick();
    assert_eq!((world.memory.healthy(), world.published()), (2, vec![first, second]), "60 s");
    world.expect_rest();
}

#[test]
fn an_attempt_is_never_used_again() {
    let mut world = World::serving(2);
    let mut used = std::collections::BTreeSet::new();
    for round in 0..4 {
        let id = world.set(round % 2, Health::Refuses);
        for _ in 0..8 {
            for launch in world.tick().launches {
                assert!(used.insert((launch.slot, launch.attempt)), "{launch:?}");
            }
        }
        assert!(!world.live().contains(&id));
    }
    world.expect_rest();
}

#[test]
fn an_orphan_is_drained_and_terminated_when_it_is_90_s_old() {
    let mut world = World::serving(1);
    let id = world.add(Some((0, 7)), "subnet-b");
    for seconds in (0..=80).step_by(20) {
        assert_eq!(world.tick().terminations, [], "{seconds} s");
        assert!(!world.memory.leaving.contains_key(&id), "{seconds} s");
    }
    assert_eq!(world.tick().terminations, []);
    assert!(world.memory.leaving.contains_key(&id));
    assert_eq!(world.tick().terminations, [id]);
    assert_eq!(world.memory.attempts[&0], 7);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn an_orphan_that_load_balancers_know_is_drained_first() {
    let mut world = World::serving(1);
    let id = world.add(Some((0, 7)), "subnet-b");
    world.now += SignedDuration::from_mins(3);
    // A registry from before memory was lost names it.
    let addr = world.machine(&id).addr().expect("an address");
    let registry = world.registry.as_mut().expect("a registry");
    let entry = fleet::registry::RegisteredWorker { addr, zone: "zone-b".to_owned() };
    registry.workers.insert(id.clone(), entry);
    world.can_publish = false;
    for _ in 0..4 {
        assert_eq!(world.tick().terminations, []);
    }
    world.can_publish = true;
    world.tick();
    assert_eq!(world.tick().terminations, [id]);
    world.settle_down();
}

#[test]
fn an_instance_without_a_slot_is_an_orphan() {
    let mut world = World::serving(1);
    let id = world.add(None, "subnet-b");
    world.settle_down();
    assert!(!world.live().contains(&id));
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_stopped_instance_that_is_not_remembered_does_not_stay_for_ever() {
    let mut world = World::serving(2);
    let id = world.id(1);
    world.machine(&id).row.state = State::Stopped;
    world.forget_everything();
    world.settle_down();
    assert_eq!(world.machine(&id).row.state, State::Terminated);
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn of_two_instances_of_a_slot_the_one_that_answers_is_adopted() {
    for newer_is_silent in [false, true] {
        let mut world = World::serving(1);
        let older = world.id(0);
        let newer = world.add(Some((0, 2)), "subnet-b");
        let (kept, silent) = if newer_is_silent { (older, newer) } else { (newer, older) };
        world.machine(&silent).health = Health::Silent;
        world.now += SignedDuration::from_mins(5);
        world.forget_everything();
        for seconds in [0, 20, 40] {
            world.tick();
            assert_eq!(world.id(0), kept);
            assert!(world.memory.leaving.is_empty(), "{seconds} s: memory is young");
        }
        world.tick();
        assert!(world.memory.leaving.contains_key(&silent), "60 s");
        world.settle_down();
        assert_eq!(world.live(), [kept]);
    }
}

#[test]
fn of_two_silent_instances_of_a_slot_the_later_attempt_is_adopted() {
    let mut world = World::serving(1);
    let later = world.add(Some((0, 2)), "subnet-b");
    world.is_deaf = true;
    world.forget_everything();
    world.tick();
    assert_eq!(world.id(0), later);
    world.is_deaf = false;
    world.settle_down();
    assert_eq!(world.live(), [later]);
}

#[test]
fn nobody_who_is_old_dies_when_memory_and_registry_are_lost_while_nobody_answers() {
    let mut world = World::serving(2);
    let before = world.live();
    world.is_deaf = true;
    world.forget_everything();
    world.registry = None;
    for _ in 0..30 {
        world.tick();
        assert!(before.iter().all(|id| world.live().contains(id)));
        assert_eq!(world.published(), before);
    }
    world.is_deaf = false;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn other_roles_and_instances_on_their_way_out_are_left_alone() {
    let mut world = World::serving(1);
    let balancer = world.add(None, "subnet-a");
    world.machine(&balancer).row.role = Role::LoadBalancer;
    let gone = world.add(Some((3, 1)), "subnet-a");
    world.terminate(&gone);
    world.now += SignedDuration::from_mins(5);
    assert_eq!(world.tick().terminations, []);
    assert!(!world.memory.slots.contains_key(&3));
    world.expect_rest();
    assert_eq!(world.live_of(Role::LoadBalancer), [balancer]);
}

#[test]
fn one_on_its_way_out_that_ec2_does_not_show_is_forgotten_after_an_hour() {
    let mut world = World::serving(2);
    world.desire(1);
    world.tick();
    let id = world.memory.leaving.keys().next().cloned().expect("one leaves");
    world.machine(&id).row.state = State::Terminated;
    world.hide(&id, 10_000);
    world.ticks(180);
    assert!(world.memory.leaving.contains_key(&id));
    world.tick();
    assert_eq!(world.memory.leaving, Memory::default().leaving);
    world.expect_rest();
}
