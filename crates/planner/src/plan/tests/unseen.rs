//! Instances that EC2 does not show.

use fleet::WorkerId;
use fleet::aws_code::AwsErrorKind;
use fleet::memory::Phase;

use super::world::{Health, LaunchFault, SUBNETS, World, decided, release};
use crate::decision::{Decision, WorkerDecision};

const LONG: i32 = 1000;

#[test]
fn an_unseen_worker_that_answers_stays() {
    let mut world = World::serving(2);
    let id = world.id(0);
    world.hide(&id, LONG);
    world.expect_rest();
    assert_eq!((world.phase(0), world.id(0)), (Phase::Healthy, id));
}

#[test]
fn an_unseen_worker_that_does_not_answer_is_asked_for_with_its_own_token() {
    let mut world = World::serving(2);
    let id = world.set(0, Health::Silent);
    let subnet = world.machine(&id).row.subnet.clone();
    world.hide(&id, LONG);
    let planned = world.tick();
    let sent: Vec<_> =
        planned.launches.iter().map(|launch| (launch.slot, launch.attempt, launch.subnet.clone())).collect();
    assert_eq!((sent, planned.terminations.len()), (vec![(0, 1, subnet)], 0));
    assert_eq!((world.id(0), world.live().len()), (id.clone(), 2));
    world.set(0, Health::Well);
    world.tick();
    world.expect_rest();
    assert_eq!(world.id(0), id);
}

#[test]
fn an_unseen_worker_whose_token_is_spent_is_replaced() {
    let mut world = World::serving(2);
    let id = world.id(0);
    world.terminate(&id);
    world.hide(&id, LONG);
    world.tick();
    assert!(!world.memory.slots.contains_key(&0), "EC2 says that it is gone");
    let planned = world.tick();
    assert_eq!((planned.launches[0].slot, planned.launches[0].attempt), (0, 2));
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_launch_whose_reply_is_lost_is_found_by_its_tags() {
    let mut world = World::empty(1);
    world.launch_faults.push_back(LaunchFault::ReplyLost);
    world.tick();
    assert_eq!((world.phase(0), world.memory.slots[&0].worker.clone()), (Phase::Launching, None));
    assert_eq!(world.tick().launches, []);
    assert_eq!(world.phase(0), Phase::Booting);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_launch_whose_reply_is_lost_is_repeated_while_it_is_not_seen() {
    let mut world = World::empty(1);
    world.launch_faults.extend([LaunchFault::ReplyLost, LaunchFault::ReplyLost]);
    let first = world.tick();
    let id = world.live()[0].clone();
    world.hide(&id, 2);
    assert_eq!(world.tick().launches, first.launches);
    assert_eq!(world.live(), [id]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_launch_that_is_refused_for_now_is_repeated_as_it_was() {
    for kind in [AwsErrorKind::Throttled, AwsErrorKind::Other] {
        let mut world = World::empty(1);
        world.launch_faults.push_back(LaunchFault::Refused(kind));
        let first = world.tick();
        assert_eq!(world.tick().launches, first.launches, "{kind:?}");
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (1, 1), "{kind:?}");
    }
}

#[test]
fn a_launch_in_a_subnet_that_is_gone_is_given_up() {
    let mut world = World::empty(1);
    world.launch_faults.push_back(LaunchFault::Refused(AwsErrorKind::Other));
    world.tick();
    world.release.worker.subnets.remove(0);
    let planned = world.tick();
    let sent: Vec<_> =
        planned.launches.iter().map(|launch| (launch.slot, launch.attempt, launch.subnet.as_str())).collect();
    assert_eq!(sent, [(0, 2, "subnet-b")]);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_launch_of_another_release_is_not_repeated_but_given_up_after_five_minutes() {
    let mut world = World::empty(1);
    world.launch_faults.push_back(LaunchFault::Refused(AwsErrorKind::Other));
    world.tick();
    world.release = release("ami-2", &SUBNETS);
    for seconds in (20..=180).step_by(20) {
        assert_eq!(world.tick().launches, [], "{seconds} s: the token belongs to other parameters");
    }
    let planned = world.tick();
    assert_eq!((planned.launches[0].slot, planned.launches[0].attempt), (1, 1), "200 s");
    assert_eq!(world.phase(0), Phase::Unresolved);
    for seconds in (220..=320).step_by(20) {
        assert_eq!(world.tick().launches, [], "{seconds} s");
        assert!(world.memory.slots.contains_key(&0), "{seconds} s");
    }
    world.tick();
    assert!(!world.memory.slots.contains_key(&0), "five minutes after it was first missed");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_launch_that_is_not_wanted_any_more_and_not_seen_for_five_minutes_is_forgotten() {
    let mut world = World::serving(1);
    world.desire(2);
    world.launch_faults.push_back(LaunchFault::Refused(AwsErrorKind::Other));
    world.tick();
    world.desire(1);
    for seconds in (0..=300).step_by(20) {
        assert_eq!(world.tick().launches, [], "{seconds} s");
        assert!(world.memory.slots.contains_key(&1), "{seconds} s");
    }
    world.tick();
    assert!(!world.memory.slots.contains_key(&1), "320 s");
    world.desire(2);
    let launches = world.tick().launches;
    assert_eq!((launches[0].slot, launches[0].attempt), (1, 2), "its token is not used again");
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_launch_that_is_not_wanted_any_more_is_not_repeated() {
    let mut world = World::empty(1);
    world.launch_faults.push_back(LaunchFault::ReplyLost);
    let first = world.tick();
    let id = world.live()[0].clone();
    world.hide(&id, 5);
    world.launch_faults.extend([LaunchFault::ReplyLost, LaunchFault::ReplyLost]);
    world.desire(0);
    assert_eq!(world.tick().launches, first.launches, "a slip of the finger so far");
    assert_eq!(world.tick().launches, []);
    assert_eq!(world.phase(0), Phase::Unresolved, "it keeps its slot, for it may have taken place");
    assert_eq!(world.tick().launches, []);
    world.settle_down();
    assert_eq!(world.live(), [], "it is found later, and removed");
}

/// The launch in slot 1 is refused for a minute, and takes place the last time that it is sent; EC2
/// shows the instance five minutes later.
fn launched_by_the_last_repetition() -> (World, WorkerId) {
    let mut world = World::serving(1);
    world.desire(2);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::Other); 3]);
    world.launch_faults.push_back(LaunchFault::ReplyLost);
    world.ticks(4);
    let id = world.live()[1].clone();
    world.hide(&id, 15);
    (world, id)
}

#[test]
fn a_launch_that_is_not_wanted_any_more_is_missed_from_its_last_repetition_on() {
    let (mut world, id) = launched_by_the_last_repetition();
    world.desire(1);
    world.ticks(15);
    assert!(world.memory.slots.contains_key(&1), "EC2 had five minutes to show it");
    world.tick();
    assert!(
        decided!(world, Decision::Worker(WorkerDecision::Found { id: found, slot: 1, .. }) if *found == id)
    );
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
}

#[test]
fn a_launch_that_cannot_be_repeated_any_more_is_missed_from_its_last_repetition_on() {
    let (mut world, id) = launched_by_the_last_repetition();
    world.memory.slots.get_mut(&1).expect("it was launched").release = "unknown".to_owned();
    world.machine(&id).row.release = "unknown".to_owned();
    world.ticks(15);
    assert!(world.memory.slots.contains_key(&1), "EC2 had five minutes to show it");
    world.tick();
    assert!(
        decided!(world, Decision::Worker(WorkerDecision::Found { id: found, slot: 1, .. }) if *found == id)
    );
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}

#[test]
fn a_launch_that_is_wanted_again_is_sent_with_its_token() {
    let mut world = World::serving(1);
    world.launch_faults.push_back(LaunchFault::Refused(AwsErrorKind::Other));
    world.desire(2);
    let first = world.tick().launches;
    world.desire(1);
    world.ticks(3);
    assert!(world.memory.slots[&1].is_unwanted);
    world.desire(2);
    assert_eq!(world.tick().launches, first);
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
}
