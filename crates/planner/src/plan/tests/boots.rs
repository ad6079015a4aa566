//! From an empty stack to workers that serve, and boots that fail.

use fleet::aws_code::AwsErrorKind;
use fleet::memory::Phase;
use jiff::SignedDuration;

use super::world::{Health, LaunchFault, TICK, World, holds};
use crate::held_back::{HeldBack, LaunchBrake};
use crate::plan::Plan;

fn places(planned: &Plan) -> Vec<(u32, u32, &str)> {
    planned.launches.iter().map(|launch| (launch.slot, launch.attempt, launch.subnet.as_str())).collect()
}

#[test]
fn an_empty_stack_launches_what_is_desired_and_publishes_who_answers() {
    let mut world = World::empty(3);
    let first = world.tick();
    assert_eq!(places(&first), [(0, 1, "subnet-a"), (1, 1, "subnet-b"), (2, 1, "subnet-a")]);
    assert_eq!(first.registry.map(|registry| registry.workers.len()), Some(0));
    let second = world.tick();
    assert_eq!((second.launches.len(), second.registry), (0, None), "they boot");
    let third = world.tick();
    assert_eq!(third.registry.map(|registry| registry.workers.len()), Some(3));
    world.expect_rest();
}

#[test]
fn nothing_desired_is_launched_for_nothing() {
    let mut world = World::empty(0);
    assert_eq!(world.tick().launches, []);
    world.expect_rest();
}

#[test]
fn intends_a_launch_before_it_is_sent() {
    let mut world = World::empty(1);
    let planned = world.tick();
    assert_eq!(planned.memory.slots[&0].phase, Phase::Launching);
    assert_eq!(planned.memory.attempts[&0], 1);
    world.settle_down();
}

#[test]
fn a_boot_is_given_up_after_180_s() {
    let mut world = World::empty(1);
    world.tick();
    let id = world.set(0, Health::Refuses);
    for seconds in (20..=180).step_by(20) {
        assert_eq!(world.tick().terminations, [], "{seconds} s");
    }
    let planned = world.tick();
    assert_eq!(planned.terminations, [id], "200 s");
    assert_eq!(places(&planned), [(0, 2, "subnet-a")]);
    world.settle_down();
    assert_eq!(world.memory.healthy(), 1);
}

#[test]
fn an_instance_that_never_gets_an_address_is_given_up_too() {
    let mut world = World::empty(1);
    world.tick();
    let id = world.id(0);
    world.machine(&id).row.address = None;
    world.ticks(9);
    assert_eq!(world.tick().terminations, [id]);
    world.settle_down();
}

#[test]
fn a_boot_is_given_up_even_if_nobody_answers() {
    let mut world = World::serving(1);
    let dead = world.set(0, Health::Silent);
    world.ticks(2);
    let failed = world.set(1, Health::Refuses);
    world.ticks(9);
    let planned = world.tick();
    assert_eq!((planned.terminations, planned.launches.len()), (vec![failed], 1), "it never served");
    assert!(world.live().contains(&dead), "it may serve without being heard");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn boots_that_fail_in_a_row_are_tried_further_and_further_apart() {
    let mut world = World::empty(3);
    let mut launched_at = Vec::new();
    for _ in 0..600 {
        let now = world.now;
        let planned = world.tick();
        launched_at.extend(planned.launches.iter().map(|_| now));
        world.machines.iter_mut().for_each(|machine| machine.health = Health::Refuses);
    }
    let pauses: Vec<SignedDuration> =
        launched_at.windows(2).map(|pair| pair[1].duration_since(pair[0])).collect();
    assert_eq!(pauses[..2], [SignedDuration::ZERO; 2], "the first three come together");
    // A boot is given up in the tenth tick after its launch; the pause is counted from there.
    let given_up = TICK * 10;
    let minutes = pauses[2..].iter().map(|pause| (*pause - given_up).as_mins()).collect::<Vec<_>>();
    assert_eq!(minutes[..7], [1, 2, 4, 8, 16, 30, 30]);
    assert!(holds!(world, HeldBack::Launches { why: LaunchBrake::BootLoop { .. }, .. }));
    world.ticks(120);
    assert_eq!(world.memory.healthy(), 3);
    assert_eq!(world.failures(), 0, "one good boot ends it");
    world.expect_rest();
}

#[test]
fn an_instance_that_ec2_ends_while_it_boots_is_a_boot_that_failed() {
    let mut world = World::empty(1);
    world.tick();
    let id = world.id(0);
    world.terminate(&id);
    world.tick();
    assert_eq!(world.failures(), 1);
    world.settle_down();
    assert_eq!(world.memory.healthy(), 1);
}

#[test]
fn the_time_to_boot_starts_with_the_launch_and_not_with_the_intent() {
    let mut world = World::empty(1);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Throttled); 12]);
    world.launch_faults.push_back(LaunchFault::ReplyLost);
    world.ticks(13);
    let id = world.live()[0].clone();
    assert_eq!(world.tick().terminations, []);
    world.settle_down();
    assert_eq!(world.live(), [id]);
}

#[test]
fn a_worker_that_recovers_does_not_end_a_boot_loop() {
    let mut world = World::serving(2);
    world.desire(5);
    world.tick();
    for slot in 2..5 {
        world.set(slot, Health::Refuses);
    }
    world.ticks(10);
    assert_eq!(world.failures(), 3);
    world.set(0, Health::Silent);
    world.tick();
    world.set(0, Health::Well);
    world.tick();
    assert_eq!(world.phase(0), Phase::Healthy);
    assert_eq!(world.failures(), 3);
    world.settle_down();
}

#[test]
fn a_look_between_ticks_publishes_who_answers_for_the_first_time() {
    let mut world = World::empty(1);
    world.tick();
    world.now += SignedDuration::from_secs(11);
    let seen = world.watch().expect("there is something new");
    assert_eq!(seen.registry.map(|registry| registry.workers.len()), Some(1));
    assert_eq!(world.watch(), None, "nothing is new any more");
    world.expect_rest();
}

#[test]
fn a_look_between_ticks_judges_nobody() {
    let mut world = World::serving(3);
    world.desire(4);
    world.tick();
    assert!(world.watch().is_some(), "the new instance has an address");
    let before = world.memory.slots.clone();
    for machine in &mut world.machines {
        machine.health = Health::Refuses;
    }
    world.now += SignedDuration::from_mins(10);
    assert_eq!(world.watch(), None);
    assert_eq!(world.memory.slots, before);
}

#[test]
fn a_look_between_ticks_takes_one_that_ec2_ended_out_of_the_registry_and_leaves_the_rest_to_the_tick() {
    let mut world = World::serving(3);
    world.desire(4);
    world.tick();
    world.watch();
    let before = world.memory.slots.clone();
    let lost = world.id(0);
    world.terminate(&lost);
    let planned = world.watch().expect("readers are told");
    assert_eq!((planned.launches.len(), planned.terminations.len()), (0, 0));
    assert_eq!((world.published().len(), world.published().contains(&lost)), (2, false));
    assert_eq!(world.memory.slots, before);
}
