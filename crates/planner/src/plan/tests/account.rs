//! Account limits: what EC2 refuses because of the account, and room that is made for it.

use fleet::aws_code::AwsErrorKind;
use fleet::memory::Phase;
use fleet::release::Rollout;
use jiff::SignedDuration;

use super::world::{Health, LaunchFault, World, decided, holds};
use crate::decision::{Decision, EndCause, LaunchDecision, ReleaseDecision, WorkerDecision};
use crate::held_back::{HeldBack, RolloutBrake};
use crate::observation::{Role, Scope};

const LIMIT: AwsErrorKind = AwsErrorKind::AccountLimit;

/// In which of the next ticks something is launched.
fn tries(world: &mut World, ticks: usize) -> Vec<usize> {
    (0..ticks).filter(|_| !world.tick().launches.is_empty()).collect()
}

/// A worker is gone, and the account has no room for another.
fn refused(desired: u32) -> World {
    let mut world = World::serving(desired);
    let gone = world.id(0);
    world.terminate(&gone);
    world.quota = Some(desired as usize - 1);
    world
}

fn healthy_of_release(world: &World) -> usize {
    let of_release = |slot: &&fleet::memory::Slot| slot.release == world.release.id;
    world.memory.slots.values().filter(of_release).filter(|slot| slot.phase == Phase::Healthy).count()
}

#[test]
fn a_quota_blames_neither_zone_nor_release() {
    for kind in [LIMIT, AwsErrorKind::PendingVerification] {
        let mut world = World::empty(2);
        world.launch_faults.extend([LaunchFault::Refused(kind); 6]);
        world.ticks(20);
        assert!(world.memory.avoid.is_empty() && world.memory.boots.is_empty(), "{:?}", world.memory);
        assert!(world.memory.losses.is_empty(), "nothing was lost");
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (2, 2));
    }
}

#[test]
fn a_refused_launch_is_tried_with_growing_pauses() {
    let mut world = refused(3);
    assert_eq!(tries(&mut world, 26), [0, 1, 3, 6, 12, 18, 24], "20, 40, 60, 120, 120 s apart");
    assert!(
        holds!(world, HeldBack::NewWorkers { workers: 1, why } if why.times == 7),
        "{:?}",
        world.held_back
    );
}

#[test]
fn the_first_refusal_is_held_back_with_its_reason() {
    let mut world = refused(3);
    world.tick();
    assert!(world.memory.held.iter().any(|held| held.contains("on purpose.")), "{:?}", world.memory.held);
}

#[test]
fn one_launch_is_tried_for_all_slots() {
    let mut world = World::serving(4);
    for slot in 0..3 {
        let gone = world.id(slot);
        world.terminate(&gone);
    }
    world.quota = Some(1);
    assert_eq!(world.tick().launches.len(), 3, "nothing was refused yet");
    assert_eq!(world.tick().launches.len(), 1);
    assert!(holds!(world, HeldBack::NewWorkers { workers: 2, .. }), "{:?}", world.held_back);
}

#[test]
fn a_refusal_that_repeats_is_one_event() {
    let mut world = refused(3);
    world.ticks(40);
    let refused = |decision: &Decision| matches!(decision, Decision::Launch(LaunchDecision::Refused { .. }));
    assert_eq!(world.decisions.iter().filter(|decision| refused(decision)).count(), 1);
    assert_eq!(world.events_of(refused).len(), 1, "{:#?}", world.memory.events);
    world.quota = None;
    world.settle_down();
    assert!(
        decided!(world, Decision::Launch(LaunchDecision::LaunchesAgain { .. })),
        "{:#?}",
        world.memory.events
    );
    assert!(world.memory.refusals.is_empty());
    assert_eq!(world.memory.healthy(), 3);
}

#[test]
fn a_new_definition_is_tried_at_once() {
    let mut world = World::empty(1);
    world.quota = Some(0);
    world.ticks(8);
    assert_eq!(world.tick().launches, [], "it waits");
    world.deploy("ami-2");
    assert_eq!(world.tick().launches.len(), 1);
    assert_eq!(world.tick().launches, [], "and waits as the other one");
}

#[test]
fn the_load_balancer_is_tried_before_workers() {
    let mut world = World::serving(2);
    let holder = world.add_balancer();
    world.ticks(3);
    world.terminate(&holder);
    let gone = world.id(0);
    world.terminate(&gone);
    world.quota = Some(1);
    world.ticks(8);
    let mut roles = Vec::new();
    for _ in 0..6 {
        roles.extend(world.tick().launches.iter().map(|launch| launch.role));
    }
    assert_eq!(roles, [Role::LoadBalancer]);
}

#[test]
fn a_dead_worker_makes_room_after_two_minutes() {
    let mut world = World::serving(3);
    world.quota = Some(3);
    let dead = [world.set(0, Health::Silent), world.set(1, Health::Silent)];
    world.ticks(2);
    assert!(dead.iter().all(|id| world.live().contains(id)), "many fail: a replacement has to answer first");
    let since = world.now;
    world.tick_until("a dead one leaves", |world| dead.iter().any(|id| !world.live().contains(id)));
    let waited = world.now.duration_since(since);
    assert!((120..=180).contains(&waited.as_secs()), "{waited:#}");
    assert_eq!(world.live().len(), 2, "one at a time");
    let refused = SignedDuration::from_mins(2);
    let makes_room = EndCause::Room { refused };
    assert!(
        decided!(world, Decision::Worker(WorkerDecision::Terminating { cause, .. }) if *cause == makes_room)
    );
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (3, 3));
}

#[test]
fn dead_workers_make_room_two_minutes_apart() {
    let mut world = World::serving(4);
    // Others use the room that is made.
    world.quota = Some(0);
    for slot in 0..2 {
        world.set(slot, Health::Silent);
    }
    let mut ended = Vec::new();
    for _ in 0..60 {
        let (before, at) = (world.live().len(), world.now);
        world.tick();
        ended.extend(vec![at; before - world.live().len()]);
    }
    assert_eq!(ended.len(), 2, "{:?}", world.held_back);
    assert!(ended[1].duration_since(ended[0]) >= SignedDuration::from_mins(2), "{ended:?}");
}

#[test]
fn a_worker_that_dies_late_has_two_minutes_of_its_own() {
    let mut world = refused(4);
    world.ticks(12);
    let late = world.set(1, Health::Silent);
    world.ticks(6);
    assert!(world.live().contains(&late), "{:?}", world.held_back);
    world.ticks(9);
    assert!(!world.live().contains(&late), "{:?}", world.held_back);
}

#[test]
fn the_last_worker_makes_room_only_if_a_load_balancer_answers() {
    let mut world = World::serving(1);
    world.add_balancer();
    world.ticks(2);
    world.quota = Some(2);
    world.set(0, Health::Silent);
    let lone = world.id(0);
    world.is_deaf = true;
    world.ticks(30);
    assert!(world.live().contains(&lone), "no worker is heard: the prober may be at fault");
    world.is_deaf = false;
    world.settle_down();
    assert!(!world.live().contains(&lone));
    assert_eq!(world.memory.healthy(), 1, "the load balancer was heard");
}

#[test]
fn one_that_was_judged_before_all_died_makes_room_too() {
    let mut world = World::serving(2);
    world.add_balancer();
    world.ticks(2);
    world.quota = Some(3);
    world.can_terminate = false;
    world.set(0, Health::Refuses);
    world.tick();
    world.set(1, Health::Refuses);
    world.tick();
    world.can_terminate = true;
    world.settle_down();
    assert_eq!((world.memory.healthy(), world.live().len()), (2, 2), "{:?}", world.held_back);
}

#[test]
fn an_answering_worker_never_makes_room_for_a_dead_one() {
    let mut world = World::serving(3);
    world.quota = Some(3);
    for slot in 0..2 {
        world.set(slot, Health::Silent);
    }
    let well = world.id(2);
    for _ in 0..60 {
        world.tick();
        assert!(world.live().contains(&well));
    }
}

#[test]
fn stop_first_replaces_one_by_one_within_the_quota() {
    let mut world = World::serving(3);
    world.quota = Some(3);
    world.deploy("ami-2");
    world.release.rollout = Rollout::StopFirst;
    let mut least = 3;
    for _ in 0..120 {
        world.tick();
        least = least.min(world.memory.healthy());
        assert!(world.live().len() <= 3);
    }
    assert_eq!((healthy_of_release(&world), least), (3, 2), "one is missing at a time");
    assert!(!decided!(world, Decision::Launch(LaunchDecision::Refused { .. })), "{:#?}", world.memory.events);
    assert_eq!(world.memory.room, None);
    world.expect_rest();
}

#[test]
fn stop_first_waits_until_all_answer() {
    let mut world = World::serving(3);
    world.set(0, Health::Silent);
    world.deploy("ami-2");
    world.release.rollout = Rollout::StopFirst;
    world.tick();
    assert_eq!(world.memory.room, None, "one is ill");
    assert_eq!(world.live().len(), 3);
}

#[test]
fn stop_first_waits_for_a_worker_that_was_not_asked() {
    let mut world = World::serving(3);
    world.deploy("ami-2");
    world.release.rollout = Rollout::StopFirst;
    let mut seen = world.observe(Scope::Fleet);
    seen.probes.remove(&world.id(0));
    world.tick_seeing(&seen);
    assert_eq!(world.memory.room, None, "two of three answer");
    world.tick();
    assert!(world.memory.room.is_some(), "all answer");
}

#[test]
fn stop_first_holds_its_first_worker_on_trial() {
    let mut world = World::serving(3);
    world.quota = Some(3);
    world.deploy("ami-2");
    world.release.rollout = Rollout::StopFirst;
    world.tick_until("a new one serves", |world| healthy_of_release(world) > 0);
    world.tick();
    assert!(holds!(world, HeldBack::Rollout { why: RolloutBrake::OnTrial, .. }), "{:?}", world.held_back);
    assert_eq!(world.live().len(), 3);
}

#[test]
fn stop_first_returns_to_the_old_release_after_two_boots() {
    let mut world = World::serving(3);
    world.quota = Some(3);
    let before = world.release.id.clone();
    world.deploy("ami-2");
    world.release.rollout = Rollout::StopFirst;
    world.broken.insert(world.release.id.clone());
    world.ticks(50);
    assert_eq!(world.failures(), 2);
    assert!(world.memory.slots.values().all(|slot| slot.release == before), "{:#?}", world.memory.slots);
    assert_eq!(world.memory.healthy(), 3);
    assert!(
        holds!(world, HeldBack::Rollout { why: RolloutBrake::Frozen { .. }, .. }),
        "{:?}",
        world.held_back
    );
}

#[test]
fn after_a_freeze_room_is_made_for_one_try() {
    let mut world = World::serving(3);
    world.quota = Some(3);
    world.deploy("ami-2");
    world.release.rollout = Rollout::StopFirst;
    world.broken.insert(world.release.id.clone());
    world.ticks(50);
    assert_eq!(world.failures(), 2);
    world.now += SignedDuration::from_mins(30);
    world.ticks(50);
    assert_eq!((world.failures(), world.memory.healthy()), (3, 3), "{:#?}", world.memory.events);
}

#[test]
fn the_only_worker_is_stopped_if_the_release_says_so() {
    let mut world = World::serving(1);
    world.quota = Some(1);
    world.deploy("ami-2");
    world.release.rollout = Rollout::StopFirst;
    world.ticks(2);
    assert!(holds!(world, HeldBack::Rollout { why: RolloutBrake::NoWorker, .. }), "{:?}", world.held_back);
    world.settle_down();
    assert_eq!((healthy_of_release(&world), world.live().len()), (1, 1));
}

#[test]
fn the_only_worker_stays_after_two_failed_boots() {
    let mut world = World::serving(1);
    world.quota = Some(1);
    world.deploy("ami-2");
    world.release.rollout = Rollout::StopFirst;
    world.broken.insert(world.release.id.clone());
    world.ticks(50);
    assert_eq!((world.failures(), world.memory.healthy()), (2, 1), "{:?}", world.held_back);
    world.now += SignedDuration::from_mins(30);
    let before = world.live();
    world.ticks(5);
    assert_eq!(world.live(), before);
    assert!(holds!(world, HeldBack::Rollout { why: RolloutBrake::BootsFailed, .. }), "{:?}", world.held_back);
}

#[test]
fn the_only_worker_is_not_stopped_without_notice() {
    let mut world = World::serving(1);
    world.quota = Some(1);
    let before = world.id(0);
    world.deploy("ami-2");
    world.ticks(60);
    assert_eq!(world.live(), [before]);
    assert_eq!(world.memory.healthy(), 1);
    assert!(holds!(world, HeldBack::Rollout { why: RolloutBrake::NoRoom, .. }), "{:?}", world.held_back);
}

#[test]
fn the_only_worker_is_updated_once_there_is_room() {
    let mut world = World::serving(1);
    world.quota = Some(1);
    world.deploy("ami-2");
    world.ticks(60);
    world.quota = None;
    world.settle_down();
    assert_eq!((healthy_of_release(&world), world.live().len()), (1, 1), "{:?}", world.held_back);
}

#[test]
fn a_refused_surge_falls_back_to_stop_first() {
    let mut world = World::serving(3);
    world.quota = Some(3);
    world.deploy("ami-2");
    world.settle_down();
    assert!(
        decided!(world, Decision::Release(ReleaseDecision::StopsFirst { .. })),
        "{:#?}",
        world.memory.events
    );
    assert_eq!((healthy_of_release(&world), world.live().len()), (3, 3));
    assert_eq!(world.memory.stop_first, None, "it is over");
    assert_eq!(world.failures(), 0);
}

#[test]
fn an_unverified_account_does_not_stop_workers() {
    let mut world = World::serving(3);
    world.deploy("ami-2");
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::PendingVerification); 4]);
    let mut least = 3;
    for _ in 0..80 {
        world.tick();
        least = least.min(world.memory.healthy());
    }
    assert_eq!((healthy_of_release(&world), least), (3, 3));
}

#[test]
fn an_unverified_account_ends_no_dead_worker() {
    let mut world = World::serving(3);
    world.launch_faults.extend([LaunchFault::Refused(AwsErrorKind::PendingVerification); 60]);
    let dead = world.set(0, Health::Silent);
    world.ticks(20);
    assert!(world.live().contains(&dead), "to end it makes no room");
}

#[test]
fn a_worker_makes_room_for_a_renewed_load_balancer() {
    let mut world = World::serving(3);
    let before = world.add_balancer();
    world.ticks(3);
    world.quota = Some(4);
    world.deploy_balancer("lb-2");
    let mut least = 3;
    for _ in 0..60 {
        world.tick();
        least = least.min(world.memory.healthy());
        let holder = world.holder.clone().expect("the address is associated");
        assert!(world.live_of(Role::LoadBalancer).contains(&holder), "the holder is not terminated");
    }
    assert_ne!(world.holder, Some(before));
    assert_eq!((world.memory.healthy(), least), (3, 2));
    assert_eq!((world.live().len(), world.live_of(Role::LoadBalancer).len()), (3, 1));
    assert_eq!(world.memory.room, None);
    world.expect_rest();
}

#[test]
fn workers_and_load_balancer_are_updated_within_the_quota() {
    for rollout in [Rollout::SurgeFirst, Rollout::StopFirst] {
        let mut world = World::serving(2);
        world.add_balancer();
        world.ticks(3);
        world.quota = Some(3);
        world.deploy("ami-2");
        world.release.rollout = rollout;
        world.deploy_balancer("lb-2");
        let mut least = 2;
        for _ in 0..120 {
            world.tick();
            least = least.min(world.memory.healthy());
        }
        let holder = world.holder.clone().expect("the address is associated");
        let release = world.machine(&holder).row.release.clone();
        assert_eq!(release, "lb-2", "{rollout:?}: {:?}", world.held_back);
        assert_eq!((healthy_of_release(&world), least), (2, 1), "{rollout:?}: {:?}", world.held_back);
        world.expect_rest();
    }
}

#[test]
fn a_worker_makes_room_for_a_dead_load_balancer() {
    let mut world = World::serving(3);
    let before = world.add_balancer();
    world.ticks(3);
    world.quota = Some(4);
    world.machine(&before).health = Health::Silent;
    let since = world.now;
    world.tick_until("room is made", |world| world.memory.room.is_some());
    assert!(world.now.duration_since(since) >= SignedDuration::from_mins(2));
    world.settle_down();
    assert_ne!(world.holder, Some(before));
    assert_eq!((world.memory.healthy(), world.live_of(Role::LoadBalancer).len()), (3, 1));
}

#[test]
fn a_worker_that_made_room_does_not_wait_for_a_strange_load_balancer_to_go() {
    let mut world = World::serving(3);
    world.add_balancer();
    world.ticks(3);
    world.quota = Some(4);
    world.deploy_balancer("lb-2");
    world.tick_until("a worker leaves for a successor", |world| {
        world.memory.balancer.successor.is_some() && world.live().len() != 3
    });
    // Launched by hand, with the stack's tags, and room for all.
    world.quota = None;
    let stranger = world.add(None, "subnet-b");
    world.machine(&stranger).row.role = Role::LoadBalancer;
    world.machine(&stranger).health = Health::Silent;
    world.ticks(12);
    assert!(world.live_of(Role::LoadBalancer).contains(&stranger), "it stays for ten minutes");
    assert_eq!((world.memory.healthy(), &world.memory.room), (3, &None));
}

#[test]
fn one_makes_room_at_a_time_although_ec2_does_not_show_it() {
    let mut world = World::serving(4);
    let before = world.add_balancer();
    world.ticks(3);
    world.quota = Some(4);
    world.machine(&before).health = Health::Silent;
    world.can_terminate = false;
    world.tick_until("a worker makes room", |world| {
        world.memory.leaving.values().any(|leaving| leaving.reason.makes_room())
    });
    let leaver = world.memory.leaving.keys().next().cloned().expect("one leaves");
    world.hide(&leaver, 12);
    world.desire(3);
    // A new memory of the room, as after an outage: the load balancer was heard in between.
    world.memory.room = None;
    for _ in 0..8 {
        world.tick();
        let makes_room = |leaving: &&fleet::memory::Leaving| leaving.reason.makes_room();
        let leavers = world.memory.leaving.values().filter(makes_room).count();
        assert!(leavers <= 1, "{:#?}", world.memory.leaving);
    }
}

#[test]
fn the_last_worker_makes_no_room_for_a_load_balancer() {
    let mut world = World::serving(1);
    let before = world.add_balancer();
    world.ticks(3);
    world.quota = Some(2);
    world.machine(&before).health = Health::Silent;
    world.ticks(40);
    assert_eq!((world.memory.healthy(), world.live().len()), (1, 1));
    assert!(holds!(world, HeldBack::RoomForBalancer), "{:?}", world.held_back);
}

#[test]
fn a_worker_returns_if_the_load_balancer_finds_no_room() {
    let mut world = World::serving(3);
    world.add_balancer();
    world.ticks(3);
    world.quota = Some(4);
    world.deploy_balancer("lb-2");
    world.tick_until("a worker makes room", |world| world.live().len() != 3);
    // Another user of the account takes the rest of the quota, and gives it back.
    world.quota = Some(3);
    world.now += SignedDuration::from_mins(10);
    world.tick();
    world.quota = Some(4);
    world.launch_faults.extend([LaunchFault::Refused(LIMIT)]);
    world.ticks(30);
    assert_eq!(world.memory.healthy(), 3, "{:?}", world.held_back);
}
