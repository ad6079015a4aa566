//! How many are launched, and when no more are.

use fleet::aws_code::AwsErrorKind;
use fleet::memory::Phase;
use jiff::SignedDuration;

use super::world::{Health, LaunchFault, SUBNETS, TICK, World, count, decided, holds};
use crate::decision::{CountDecision, Decision, LaunchDecision, WorkerDecision};
use crate::held_back::{HeldBack, LaunchBrake};

/// Launches in each of the next ticks.
fn launches(world: &mut World, ticks: usize) -> Vec<usize> {
    (0..ticks).map(|_| world.tick().launches.len()).collect()
}

/// Every machine falls ill, and every later one.
fn all_ill(world: &mut World, health: Health) {
    world.machines.iter_mut().for_each(|machine| machine.health = health);
}

#[test]
fn of_a_release_that_never_served_three_boot_at_a_time() {
    let mut world = World::empty(10);
    assert_eq!(launches(&mut world, 3), [3, 0, 7], "three serve, and the release is proved");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (10, 10));
}

#[test]
fn while_nobody_answers_two_replacements_or_a_fifth_boot_at_a_time() {
    for (desired, most) in [(6, 2), (20, 4)] {
        let mut world = World::serving(desired);
        world.is_deaf = true;
        world.ticks(2);
        for _ in 0..40 {
            assert!(world.booting() <= most, "{} of {desired}", world.booting());
            world.tick();
        }
        world.is_deaf = false;
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (desired as usize, desired as usize));
    }
}

#[test]
fn never_more_than_twice_the_desired_number_and_two() {
    let mut world = World::serving(4);
    world.is_deaf = true;
    world.tick_until("ten are launched", |world| world.live().len() >= 10);
    let mut launched = world.now - TICK;
    for most in 11..=18 {
        world.tick_until_launch(|world| {
            assert!(holds!(world, HeldBack::Launches { why: LaunchBrake::Cap { .. }, .. }));
        });
        let waited = world.now.duration_since(launched) - TICK;
        assert!(waited >= SignedDuration::from_mins(30), "{waited}");
        launched = world.now - TICK;
        assert_eq!(world.live().len(), most, "one more while no worker answers");
    }
    world.ticks(3 * 60);
    assert_eq!(world.live().len(), 18, "three times the desired number and six");
    world.is_deaf = false;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (4, 4));
}

#[test]
fn a_launch_that_ec2_refuses_begins_no_pause() {
    let mut world = World::serving(1);
    for _ in 0..60 {
        all_ill(&mut world, Health::Silent);
        world.tick();
    }
    world.tick_until_launch(|world| {
        assert!(holds!(world, HeldBack::Launches { why: LaunchBrake::Cap { .. }, .. }));
    });
    all_ill(&mut world, Health::Silent);
    let launched = world.memory.last_launch.expect("one a moment ago");
    while world.now.duration_since(launched) < SignedDuration::from_mins(30) {
        assert_eq!(world.tick().launches, []);
    }
    // Attempts of a memory that was lost: EC2 knows their tokens, and shows nothing of them any more.
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::TokenMismatch); 3]);
    assert_eq!(launches(&mut world, 5), [1, 1, 1, 1, 0], "three are refused, the fourth comes to life");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_fleet_whose_hosts_and_first_replacements_all_died_is_healed() {
    for desired in [1, 3] {
        let mut world = World::serving(desired);
        for _ in 0..60 {
            all_ill(&mut world, Health::Silent);
            world.tick();
        }
        all_ill(&mut world, Health::Silent);
        // The cause is gone: workers launched from now on serve.
        world.ticks(3 * 120);
        assert_eq!(world.memory.healthy(), desired as usize, "{:#?}", world.held_back);
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (desired as usize, desired as usize));
    }
}

#[test]
fn a_fleet_in_which_each_replacement_died_after_its_first_answer_is_healed() {
    let mut world = World::serving(1);
    world.set(0, Health::Refuses);
    for _ in 0..20 {
        world.tick();
        let next = world.now;
        world.now = next - SignedDuration::from_secs(5);
        world.watch();
        world.now = next;
        let healthy = world.memory.slots.iter().filter(|(_, slot)| slot.phase == Phase::Healthy);
        for slot in healthy.map(|(number, _)| *number).collect::<Vec<_>>() {
            world.set(slot, Health::Refuses);
        }
    }
    world.ticks(3 * 120);
    assert_eq!(world.memory.healthy(), 1, "{:#?}", world.held_back);
}

#[test]
fn past_the_budget_of_an_hour_one_is_launched_in_three_minutes() {
    let mut world = World::serving(1);
    let lost = |world: &mut World| {
        let id = world.id(*world.memory.slots.keys().next().expect("one slot"));
        world.terminate(&id);
    };
    // Twelve losses are within the budget of one worker, the thirteenth is not.
    for _ in 0..12 {
        lost(&mut world);
        assert_eq!(world.tick().launches.len(), 1);
        world.ticks(2);
    }
    assert_eq!(world.memory.losses.len(), 12);
    lost(&mut world);
    let mut waited = 0;
    world.tick_until_launch(|world| {
        assert!(
            holds!(world, HeldBack::Launches { why: LaunchBrake::Losses { within, .. }, .. } if within.as_mins() == 60)
        );
        waited += 1;
    });
    let since_last = TICK * (waited + 3);
    assert_eq!(since_last, SignedDuration::from_mins(3));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn losses_of_an_hour_ago_do_not_count() {
    let mut world = World::serving(1);
    world.memory.losses = vec![world.now; 20];
    world.now += SignedDuration::from_mins(61);
    let id = world.id(0);
    world.terminate(&id);
    assert_eq!(world.tick().launches.len(), 1);
    assert_eq!(world.memory.losses.len(), 1);
}

#[test]
fn repeated_launches_take_from_what_ec2_takes_in_a_tick() {
    let mut world = World::serving(1);
    world.desire(15);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Throttled); 14]);
    let first = world.tick();
    assert_eq!(first.launches.len(), 14);
    world.desire(30);
    let planned = world.tick();
    assert_eq!(planned.launches.len(), 20, "ten repeated ones, ten new ones");
    assert!(planned.launches[10..].iter().all(|launch| first.launches.contains(launch)));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (30, 30));
}

#[test]
fn each_repeated_launch_has_its_turn() {
    let mut world = World::serving(1);
    world.desire(17);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Throttled); 16 + 10]);
    world.tick();
    let mut turns = std::collections::BTreeSet::new();
    for _ in 0..2 {
        turns.extend(world.tick().launches.iter().map(|launch| launch.slot));
    }
    assert_eq!(turns.len(), 16);
}

#[test]
fn a_launch_of_which_nothing_is_known_for_180_s_is_replaced_and_kept() {
    let mut world = World::serving(1);
    world.desire(2);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Other); 10]);
    world.tick();
    for seconds in (20..=180).step_by(20) {
        let planned = world.tick();
        assert_eq!(planned.launches.len(), 1, "{seconds} s: the same again");
        assert_eq!(world.phase(1), Phase::Launching, "{seconds} s");
    }
    world.launch_faults.extend([LaunchFault::ReplyLost, LaunchFault::Refused(AwsErrorKind::Other)]);
    let planned = world.tick();
    assert_eq!(world.phase(1), Phase::Unresolved, "200 s");
    let sent: Vec<_> = planned.launches.iter().map(|launch| (launch.slot, launch.attempt)).collect();
    assert_eq!(sent, [(2, 1), (1, 1)], "a substitute, and its own token again");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2), "the last ones are surplus");
}

#[test]
fn an_unresolved_launch_is_not_repeated_once_enough_workers_serve() {
    let mut world = World::serving(1);
    world.desire(2);
    // Its zone swallows the launch for as long as it is repeated; its substitute takes place.
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Other); 10]);
    world.launch_faults.push_back(LaunchFault::ReplyLost);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Other); 10]);
    world.tick_until("the substitute serves", |world| world.memory.healthy() >= 2);
    assert_eq!(world.phase(1), Phase::Unresolved);
    world.launch_faults.clear();
    for _ in 0..20 {
        assert_eq!(world.tick().launches, [], "it would give a third worker");
    }
    assert!(
        decided!(world, Decision::Worker(WorkerDecision::LaunchNotNeeded { slot: 1 })),
        "{:#?}",
        world.memory.events
    );
    assert!(!world.memory.slots.contains_key(&1), "five minutes later its slot is free");
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn an_unresolved_launch_that_shows_up_boots_and_the_surplus_goes() {
    let mut world = World::serving(1);
    world.desire(2);
    world.launch_faults.extend([LaunchFault::ReplyLost; 30]);
    world.tick();
    let id = world.live().last().cloned().expect("it was launched");
    world.machine(&id).health = Health::Silent;
    world.hide(&id, 12);
    world.ticks(11);
    assert_eq!(world.phase(1), Phase::Unresolved);
    assert_eq!(world.live().len(), 3, "another one takes its place");
    world.machine(&id).health = Health::Well;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn an_unresolved_launch_has_a_substitute_in_a_boot_loop_too() {
    let mut world = World::serving(1);
    world.desire(4);
    world.tick();
    (1..4).for_each(|slot| drop(world.set(slot, Health::Refuses)));
    world.ticks(10);
    assert_eq!(world.failures(), 3);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Other); 1000]);
    world.ticks(60);
    assert!(world.memory.slots.len() > 2, "{:?} {:#?}", world.memory.held, world.memory.slots);
    world.launch_faults.clear();
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (4, 4));
}

#[test]
fn an_instance_without_an_address_does_not_stay_for_ever() {
    // Given up while no worker is heard.
    let mut world = World::serving(1);
    world.desire(2);
    world.tick();
    let booting = world.id(1);
    world.machine(&booting).row.address = None;
    world.ticks(8);
    world.is_deaf = true;
    world.ticks(3);
    world.is_deaf = false;
    world.settle_down();
    assert!(!world.live().contains(&booting));
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));

    // Adopted when memory and registry are lost.
    let mut world = World::serving(2);
    let old = world.id(0);
    world.machine(&old).row.address = None;
    world.forget_everything();
    world.registry = None;
    world.ticks(20);
    world.settle_down();
    assert!(!world.live().contains(&old));
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_boot_loop_of_all_zones_without_capacity_is_no_boot_loop() {
    let mut world = World::serving(1);
    world.without_capacity.extend(SUBNETS.map(str::to_owned));
    world.desire(2);
    assert_eq!(launches(&mut world, 10), [1, 1, 1, 0, 1, 0, 0, 1, 0, 0]);
    assert_eq!((world.failures(), world.memory.losses.len()), (0, 0));
}

#[test]
fn refusals_for_capacity_do_not_push_the_history_out() {
    let mut world = World::serving(3);
    let lost = world.id(0);
    world.terminate(&lost);
    world.desire(20);
    world.without_capacity.extend(SUBNETS.map(str::to_owned));
    world.ticks(15);
    let is_refusal =
        |decision: &Decision| matches!(decision, Decision::Launch(LaunchDecision::NoCapacity { .. }));
    let refusals: Vec<_> = world.events_of(is_refusal).iter().map(|event| event.count).collect();
    assert!(!refusals.is_empty() && refusals.iter().sum::<u32>() <= 20, "{refusals:?}");
    let is_loss = |decision: &Decision| matches!(decision, Decision::Worker(WorkerDecision::Lost { id, .. }) if *id == lost);
    assert_eq!(world.events_of(is_loss).len(), 1, "{:#?}", world.memory.events);
}

#[test]
fn the_way_of_the_desired_count_is_kept() {
    let mut world = World::serving(3);
    for desired in [4, 5, 6] {
        world.desire(desired);
        world.tick();
        let (from, to) = (Some(count(desired - 1)), count(desired));
        let expected = Decision::Count(CountDecision::Changed { from, to });
        assert!(world.decisions.contains(&expected));
    }
    let is_change = |decision: &Decision| matches!(decision, Decision::Count(CountDecision::Changed { .. }));
    assert_eq!(world.events_of(is_change).len(), 4, "from nothing to 3, and three more");
}
