//! Who has the public address.

use fleet::aws_code::AwsErrorKind;
use fleet::memory::Phase;
use fleet::{Policy, WorkerId};
use jiff::SignedDuration;

use super::world::{Health, LaunchFault, SUBNETS, World, holds};
use crate::held_back::{BalancerBrake, HeldBack, HolderDoubt, HolderFault};
use crate::observation::{Probe, Role, Scope, State};
use crate::plan::Plan;

/// A stack at rest with a load balancer that has served for long.
fn world() -> (World, WorkerId) {
    let mut world = World::serving(2);
    let holder = world.add_balancer();
    world.settle_down();
    (world, holder)
}

fn balancers(world: &World) -> Vec<WorkerId> {
    world.live_of(Role::LoadBalancer)
}

/// Attempts and subnets of the load balancers that are launched.
fn launched(planned: &Plan) -> Vec<(u32, &str)> {
    let launches = planned.launches.iter().filter(|launch| launch.role == Role::LoadBalancer);
    launches.map(|launch| (launch.attempt, launch.subnet.as_str())).collect()
}

/// A load balancer that a deployment launches now, which knows nothing of our attempts and tokens.
fn deployed(world: &mut World) -> WorkerId {
    let id = world.add(None, SUBNETS[1]);
    let release = world.release.balancer.as_ref().expect("a definition").id.clone();
    let row = &mut world.machine(&id).row;
    (row.role, row.release) = (Role::LoadBalancer, release);
    id
}

fn successor(world: &World) -> Option<WorkerId> {
    world.memory.balancer.successor.as_ref().and_then(|slot| slot.worker.clone())
}

fn moves_to(planned: &Plan) -> Option<WorkerId> {
    planned.association.as_ref().map(|association| association.instance.clone())
}

#[test]
fn a_load_balancer_that_answers_is_left_alone() {
    let (mut world, holder) = world();
    world.expect_rest();
    assert_eq!(balancers(&world), [holder]);
}

#[test]
fn one_that_refuses_is_replaced_in_another_zone_and_the_address_follows_the_first_answer() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    let first = world.tick();
    assert_eq!((launched(&first), moves_to(&first)), (vec![(1, "subnet-b")], None));
    assert_eq!(world.holder.as_ref(), Some(&holder));
    let second = world.tick();
    assert_eq!((launched(&second), moves_to(&second)), (vec![], None), "it boots");
    assert!(holds!(world, HeldBack::Move { why: HolderFault::Refuses }));
    let third = world.tick();
    let next = successor(&world).expect("a successor");
    assert_eq!(moves_to(&third), Some(next.clone()));
    assert_eq!(third.terminations, [], "the holder goes when its successor is seen to answer");
    world.settle_down();
    assert_eq!((balancers(&world), world.holder.clone()), (vec![next.clone()], Some(next)));
    assert!(world.memory.balancer.successor.is_none());
}

#[test]
fn one_that_is_silent_is_replaced_in_the_second_tick() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Silent;
    assert_eq!(launched(&world.tick()), []);
    assert!(holds!(world, HeldBack::HolderDecision { why: HolderDoubt::SilentOnce, .. }));
    assert_eq!(launched(&world.tick()), [(1, "subnet-b")]);
}

#[test]
fn two_silences_of_the_holder_with_an_answer_between_are_not_two_in_a_row() {
    let (mut world, holder) = world();
    for _ in 0..3 {
        world.machine(&holder).health = Health::Silent;
        assert_eq!(launched(&world.tick()), []);
        world.machine(&holder).health = Health::Well;
        assert_eq!(launched(&world.tick()), []);
    }
    world.expect_rest();
}

#[test]
fn one_that_was_terminated_or_stopped_or_has_lost_the_address_is_replaced_at_once() {
    let faults: [fn(&mut World, &WorkerId); 3] = [
        |world, id| world.terminate(id),
        |world, id| world.machine(id).row.state = State::Stopped,
        |world, _| world.holder = None,
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        let (mut world, holder) = world();
        fault(&mut world, &holder);
        let planned = world.tick();
        if n == 2 {
            assert_eq!(moves_to(&planned).as_ref(), Some(&holder), "it answers, and gets the address back");
        } else {
            assert_eq!(launched(&planned).len(), 1, "fault {n}");
        }
        world.settle_down();
        let holder = world.holder.clone().expect("the address is associated");
        assert_eq!(balancers(&world), [holder], "fault {n}");
    }
}

#[test]
fn the_address_never_moves_from_one_that_answers() {
    let (mut world, holder) = world();
    // A successor is on its way when the holder answers again.
    world.machine(&holder).health = Health::Refuses;
    world.ticks(2);
    let next = successor(&world).expect("a successor");
    world.machine(&holder).health = Health::Well;
    let planned = world.tick();
    assert_eq!((moves_to(&planned), planned.terminations), (None, vec![next]));
    world.settle_down();
    assert_eq!((balancers(&world), world.holder.clone()), (vec![holder.clone()], Some(holder)));
}

#[test]
fn the_address_does_not_move_while_nobody_is_heard() {
    let (mut world, holder) = world();
    world.is_deaf = true;
    for _ in 0..60 {
        let planned = world.tick();
        assert_eq!(moves_to(&planned), None);
        assert!(world.live().len() >= 2 && balancers(&world).contains(&holder));
        assert!(balancers(&world).len() <= 2, "one successor, which is not given up: the fault may be ours");
    }
    world.is_deaf = false;
    world.settle_down();
    assert_eq!((balancers(&world), world.holder.clone()), (vec![holder.clone()], Some(holder)));
}

#[test]
fn a_holder_that_boots_is_given_180_s() {
    let (mut world, _) = world();
    let young = deployed(&mut world);
    world.holder = Some(young.clone());
    world.machine(&young).health = Health::Refuses;
    for seconds in (0..180).step_by(20) {
        let planned = world.tick();
        assert_eq!((launched(&planned), moves_to(&planned)), (vec![], None), "{seconds} s");
        assert!(holds!(world, HeldBack::HolderDecision { why: HolderDoubt::Boots, .. }), "{seconds} s");
    }
    assert!(moves_to(&world.tick()).is_some(), "180 s: the old one answers, and takes it back");
}

#[test]
fn a_successor_that_does_not_answer_within_180_s_is_given_up_and_the_next_attempt_is_made() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.tick();
    let failed = successor(&world).expect("a successor");
    world.machine(&failed).health = Health::Silent;
    for seconds in (20..=180).step_by(20) {
        assert_eq!(world.tick().terminations, [], "{seconds} s");
    }
    let planned = world.tick();
    assert_eq!((planned.terminations.clone(), launched(&planned)), (vec![failed], vec![(2, "subnet-b")]));
    assert_eq!(world.memory.balancer.boots.failures, 1);
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
    assert_eq!(world.memory.balancer.boots.failures, 0, "an answer ends it");
}

#[test]
fn a_successor_that_ec2_ends_is_replaced_by_the_next_attempt() {
    let (mut world, holder) = world();
    world.terminate(&holder);
    world.tick();
    let next = successor(&world).expect("a successor");
    world.terminate(&next);
    assert_eq!(launched(&world.tick()).iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [2]);
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
}

#[test]
fn load_balancers_that_do_not_boot_are_tried_further_and_further_apart() {
    let (mut world, holder) = world();
    world.terminate(&holder);
    let mut launched_at = Vec::new();
    for _ in 0..400 {
        let now = world.now;
        let planned = world.tick();
        launched_at.extend(launched(&planned).iter().map(|_| now));
        let ill = world.machines.iter_mut().filter(|machine| machine.row.role == Role::LoadBalancer);
        ill.for_each(|machine| machine.health = Health::Refuses);
        assert!(balancers(&world).len() <= 3);
    }
    let given_up = SignedDuration::from_secs(200);
    let minutes: Vec<_> =
        launched_at.windows(2).map(|pair| (pair[1].duration_since(pair[0]) - given_up).as_mins()).collect();
    assert_eq!(minutes[..7], [0, 0, 1, 2, 4, 8, 16]);
    assert!(holds!(world, HeldBack::NewBalancer { why: BalancerBrake::BootLoop { .. } }));
}

#[test]
fn a_launch_whose_reply_is_lost_is_found_by_its_attempt_and_not_launched_again() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.launch_faults.push_back(LaunchFault::ReplyLost);
    world.tick();
    assert_eq!((successor(&world), balancers(&world).len()), (None, 2));
    world.tick();
    assert_eq!((successor(&world).is_some(), balancers(&world).len()), (true, 2));
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
}

#[test]
fn a_launch_whose_reply_is_lost_is_repeated_with_its_token_while_it_is_not_seen() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.launch_faults.push_back(LaunchFault::ReplyLost);
    let first = world.tick();
    let hidden = balancers(&world).pop().expect("it was launched");
    world.hide(&hidden, 2);
    let second = world.tick();
    assert_eq!(second.launches, first.launches);
    assert_eq!((successor(&world), balancers(&world).len()), (Some(hidden), 2));
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
}

#[test]
fn a_zone_without_capacity_for_a_load_balancer_is_left_for_the_other() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.without_capacity.insert("subnet-b".to_owned());
    assert_eq!(launched(&world.tick()), [(1, "subnet-b")]);
    assert_eq!(launched(&world.tick()), [(2, "subnet-a")], "a token is not used twice");
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
}

#[test]
fn without_capacity_elsewhere_the_zone_of_the_one_before_is_tried() {
    let (mut world, holder) = world();
    world.without_capacity.insert("subnet-b".to_owned());
    world.machine(&holder).health = Health::Refuses;
    assert_eq!(launched(&world.tick()), [(1, "subnet-b")]);
    assert_eq!(launched(&world.tick()), [(2, "subnet-a")]);
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
}

#[test]
fn a_young_load_balancer_that_nobody_remembers_becomes_the_successor() {
    let (mut world, holder) = world();
    let young = deployed(&mut world);
    world.machine(&holder).health = Health::Refuses;
    let planned = world.tick();
    assert_eq!((launched(&planned), successor(&world)), (vec![], Some(young.clone())));
    world.settle_down();
    assert_eq!((balancers(&world), world.holder.clone()), (vec![young.clone()], Some(young)));
}

#[test]
fn a_young_load_balancer_of_a_deployment_is_not_launched_again_when_ec2_does_not_show_it() {
    let (mut world, holder) = world();
    let young = deployed(&mut world);
    world.terminate(&holder);
    world.tick();
    assert_eq!(successor(&world).as_ref(), Some(&young));
    world.hide(&young, 3);
    world.machine(&young).health = Health::Silent;
    world.ticks(2);
    assert_eq!(balancers(&world), [young], "its token is not ours, and would launch another one");
}

#[test]
fn attempts_go_on_when_memory_is_lost() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.settle_down();
    let second = world.holder.clone().expect("attempt 1 has the address");
    world.forget_everything();
    world.tick();
    world.machine(&second).health = Health::Refuses;
    assert_eq!(launched(&world.tick()).iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [2]);
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
}

#[test]
fn the_holder_is_never_terminated_though_its_own_token_returns_it() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.settle_down();
    let second = world.holder.clone().expect("attempt 1 has the address");
    // Memory is lost, EC2 does not show the holder, and we do not hear it.
    world.forget_everything();
    world.machine(&second).health = Health::Silent;
    world.tick();
    world.hide(&second, 3);
    for _ in 0..40 {
        let planned = world.tick();
        let holder = world.holder.clone().expect("the address is associated");
        assert!(!planned.terminations.contains(&holder));
    }
    world.settle_down();
    assert_eq!(balancers(&world), Vec::from_iter(world.holder.clone()));
}

#[test]
fn an_association_that_fails_is_made_in_the_next_tick_and_costs_no_successor() {
    let (mut world, holder) = world();
    world.terminate(&holder);
    world.can_associate = false;
    world.ticks(15);
    let next = successor(&world).expect("a successor");
    assert!(holds!(world, HeldBack::AddressFailed { .. }));
    world.machine(&next).health = Health::Silent;
    assert_eq!(world.tick().terminations, [], "one lost probe");
    world.machine(&next).health = Health::Well;
    world.can_associate = true;
    assert_eq!(moves_to(&world.tick()), Some(next.clone()));
    world.settle_down();
    assert_eq!(balancers(&world), [next]);
}

#[test]
fn load_balancers_that_could_not_be_terminated_do_not_stand_in_the_way_for_ever() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Silent;
    world.can_terminate = false;
    for _ in 0..40 {
        world.tick();
        let ill = world.machines.iter_mut().filter(|machine| machine.row.role == Role::LoadBalancer);
        ill.for_each(|machine| machine.health = Health::Silent);
    }
    world.can_terminate = true;
    world.ticks(60);
    world.settle_down();
    let holder = world.holder.clone().expect("the address is associated");
    assert_eq!((world.machine(&holder).health, balancers(&world)), (Health::Well, vec![holder]));
}

#[test]
fn a_load_balancer_prefers_a_zone_that_offers_its_type() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.not_offered.insert(SUBNETS[1].to_owned());
    assert_eq!(launched(&world.tick()), [(1, SUBNETS[1])], "the other zone, as always");
    assert_eq!(launched(&world.tick()), [(2, SUBNETS[0])]);
}

#[test]
fn the_old_one_of_a_deployment_is_kept_for_ten_minutes_and_removed_then() {
    let (mut world, old) = world();
    let new = deployed(&mut world);
    world.ticks(3);
    world.holder = Some(new.clone());
    let moved = world.now;
    world.tick_until("the old one is removed", |world| !balancers(world).contains(&old));
    let kept = world.now.duration_since(moved);
    assert!(kept > SignedDuration::from_mins(10) && kept < SignedDuration::from_mins(11), "{kept}");
    world.settle_down();
    assert_eq!(balancers(&world), [new]);
}

#[test]
fn without_a_definition_or_its_address_nothing_is_done() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    let spec = world.release.balancer.clone();
    world.release.balancer = None;
    assert_eq!(launched(&world.tick()), []);
    world.release.balancer = spec;
    for addresses in [Ok(Vec::new()), Err("on purpose".to_owned())] {
        let mut seen = world.observe(Scope::Fleet);
        seen.addresses = addresses;
        let planned = world.tick_seeing(&seen);
        assert_eq!((launched(&planned), moves_to(&planned)), (vec![], None));
        assert!(holds!(world, HeldBack::AddressMissing { .. } | HeldBack::Address { .. }));
    }
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
}

#[test]
fn a_holder_whose_address_is_not_known_is_not_judged() {
    let (mut world, holder) = world();
    world.forget_everything();
    let mut seen = world.observe(Scope::Fleet);
    seen.probes.remove(&holder);
    for row in seen.instances.iter_mut().flatten().filter(|row| row.id == holder) {
        row.address = None;
    }
    let planned = world.tick_seeing(&seen);
    assert_eq!((launched(&planned), moves_to(&planned)), (vec![], None));
    assert!(holds!(world, HeldBack::HolderDecision { why: HolderDoubt::NoAddressShown, .. }));
    world.settle_down();
    assert_eq!(balancers(&world), [holder]);
}

#[test]
fn a_holder_that_ec2_does_not_show_is_still_asked_where_it_was() {
    let (mut world, holder) = world();
    world.hide(&holder, 1000);
    world.tick();
    world.expect_rest();
    assert_eq!(world.observe(Scope::Fleet).probes.get(&holder), Some(&Probe::Answered));
}

#[test]
fn a_look_notices_the_first_answer_of_the_successor_and_asks_for_a_tick() {
    use crate::plan::look;
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.tick();
    world.now += SignedDuration::from_secs(11);
    let found = look(&world.observe(Scope::Boots), world.memory.clone(), &Policy::default(), world.now);
    assert!(found.is_urgent);
    let plan = found.plan.expect("it is news");
    assert_eq!(plan.memory.balancer.successor.map(|slot| slot.phase), Some(Phase::Healthy));
    assert_eq!((plan.association, plan.terminations.len(), plan.launches.len()), (None, 0, 0));
}

#[test]
fn launches_that_ec2_refuses_for_now_are_repeated_as_they_were() {
    let (mut world, holder) = world();
    world.machine(&holder).health = Health::Refuses;
    world.launch_faults.push_back(LaunchFault::Refused(AwsErrorKind::Throttled));
    let first = world.tick();
    assert_eq!(world.tick().launches, first.launches);
    world.settle_down();
    assert_eq!(balancers(&world).len(), 1);
}

/// The definition of a live load balancer.
fn definition(world: &mut World, id: &WorkerId) -> String {
    world.machine(id).row.release.clone()
}

#[test]
fn one_that_serves_keeps_the_address_until_one_of_the_new_definition_answers() {
    let (mut world, holder) = world();
    world.deploy_balancer("lb-2");
    let first = world.tick();
    assert_eq!((launched(&first), moves_to(&first)), (vec![(1, "subnet-b")], None));
    assert_eq!((moves_to(&world.tick()), world.holder.clone()), (None, Some(holder.clone())), "it boots");
    let third = world.tick();
    let next = successor(&world).expect("a successor");
    assert_eq!((moves_to(&third), third.terminations), (Some(next.clone()), vec![]));
    assert_eq!(world.tick().terminations, [holder]);
    world.settle_down();
    assert_eq!((balancers(&world), world.holder.clone()), (vec![next.clone()], Some(next.clone())));
    assert_eq!(definition(&mut world, &next), "lb-2");
    assert_eq!(world.memory.balancer.proven.as_ref().map(|proven| proven.id.as_str()), Some("lb-2"));
}

#[test]
fn a_definition_that_does_not_boot_never_gets_the_address_and_is_tried_further_and_further_apart() {
    let (mut world, holder) = world();
    world.broken.insert("lb-2".to_owned());
    world.deploy_balancer("lb-2");
    let mut launched_at = Vec::new();
    for _ in 0..400 {
        let now = world.now;
        let planned = world.tick();
        launched_at.extend(launched(&planned).iter().map(|_| now));
        assert_eq!((moves_to(&planned), world.holder.as_ref()), (None, Some(&holder)));
        assert!(balancers(&world).len() <= 2);
    }
    let given_up = SignedDuration::from_secs(200);
    let minutes: Vec<_> =
        launched_at.windows(2).map(|pair| (pair[1].duration_since(pair[0]) - given_up).as_mins()).collect();
    assert_eq!(minutes[..7], [0, 0, 1, 2, 4, 8, 16]);
    assert!(holds!(world, HeldBack::NewBalancer { why: BalancerBrake::BootLoop { .. } }));
    // The next definition has a record of its own.
    world.deploy_balancer("lb-3");
    world.settle_down();
    let holder = world.holder.clone().expect("the address is associated");
    assert_eq!((definition(&mut world, &holder), balancers(&world)), ("lb-3".to_owned(), vec![holder]));
}

#[test]
fn a_dead_one_is_replaced_by_what_served_last_while_the_new_definition_does_not_boot() {
    let (mut world, holder) = world();
    world.broken.insert("lb-2".to_owned());
    world.deploy_balancer("lb-2");
    world.ticks(40);
    world.terminate(&holder);
    world.ticks(15);
    let next = world.holder.clone().expect("the address is associated");
    assert_eq!(definition(&mut world, &next), "lb-1");
    assert!(world.memory.balancer.boots.failures >= 3, "the record of the new one is kept");
}

#[test]
fn a_dead_one_is_replaced_by_the_new_definition_if_what_served_last_boots_no_more() {
    let (mut world, holder) = world();
    world.deploy_balancer("lb-2");
    world.broken.insert("lb-1".to_owned());
    world.terminate(&holder);
    world.ticks(30);
    let next = world.holder.clone().expect("the address is associated");
    assert_eq!(definition(&mut world, &next), "lb-2");
    world.settle_down();
    assert_eq!(balancers(&world), [next]);
}

#[test]
fn a_holder_that_dies_during_its_renewal_is_followed_by_the_one_that_boots() {
    let (mut world, holder) = world();
    world.deploy_balancer("lb-2");
    world.tick();
    world.machine(&holder).health = Health::Refuses;
    world.ticks(3);
    let next = world.holder.clone().expect("the address is associated");
    assert_eq!((definition(&mut world, &next), next != holder), ("lb-2".to_owned(), true));
    world.settle_down();
    assert_eq!(balancers(&world), [next]);
}

#[test]
fn a_successor_of_a_definition_that_was_replaced_meanwhile_goes() {
    let (mut world, holder) = world();
    world.deploy_balancer("lb-2");
    world.ticks(2);
    let second = successor(&world).expect("a successor");
    world.deploy_balancer("lb-3");
    let planned = world.tick();
    assert_eq!((planned.terminations.clone(), moves_to(&planned)), (vec![second], None));
    assert_eq!(world.holder.as_ref(), Some(&holder));
    world.settle_down();
    let next = world.holder.clone().expect("the address is associated");
    assert_eq!((definition(&mut world, &next), balancers(&world)), ("lb-3".to_owned(), vec![next]));
}

#[test]
fn one_of_the_new_definition_that_somebody_launched_is_taken() {
    let (mut world, _) = world();
    world.deploy_balancer("lb-2");
    let young = deployed(&mut world);
    assert_eq!((launched(&world.tick()), successor(&world)), (vec![], Some(young.clone())));
    world.settle_down();
    assert_eq!((balancers(&world), world.holder.clone()), (vec![young.clone()], Some(young)));
}

#[test]
fn a_launch_for_a_renewal_whose_reply_is_lost_is_repeated_with_its_token() {
    let (mut world, _) = world();
    world.deploy_balancer("lb-2");
    world.launch_faults.push_back(LaunchFault::ReplyLost);
    let first = world.tick();
    let hidden = balancers(&world).pop().expect("it was launched");
    world.hide(&hidden, 2);
    assert_eq!(world.tick().launches, first.launches);
    world.settle_down();
    assert_eq!(balancers(&world), [hidden]);
}

#[test]
fn a_renewal_outlives_a_lost_memory() {
    let (mut world, _) = world();
    world.deploy_balancer("lb-2");
    world.ticks(2);
    world.forget_everything();
    world.settle_down();
    let next = world.holder.clone().expect("the address is associated");
    assert_eq!((definition(&mut world, &next), balancers(&world)), ("lb-2".to_owned(), vec![next]));
}

/// A stack at rest with two load balancers, each with its own address.
fn two() -> (World, WorkerId, WorkerId) {
    let mut world = World::serving(2);
    let (first, second) = (world.add_balancer(), world.add_second_balancer());
    world.settle_down();
    (world, first, second)
}

#[test]
fn each_of_two_load_balancers_is_at_home_with_its_own_address() {
    let (mut world, first, second) = two();
    world.expect_rest();
    assert_eq!(balancers(&world), [first, second]);
}

#[test]
fn the_second_is_replaced_like_the_first_and_the_first_is_left_alone() {
    let (mut world, first, second) = two();
    world.machine(&second).health = Health::Refuses;
    let planned = world.tick();
    let places: Vec<u32> = planned.launches.iter().map(|launch| launch.slot).collect();
    assert_eq!((launched(&planned), places), (vec![(1, "subnet-a")], vec![1]));
    world.settle_down();
    let next = world.more_holders[&1].clone();
    assert_ne!(next, second);
    assert_eq!(world.holder.as_ref(), Some(&first));
    assert_eq!(balancers(&world), [first, next]);
    assert!(world.memory.balancer.former.is_empty());
}

#[test]
fn two_that_die_together_are_both_replaced_and_their_addresses_move_one_after_the_other() {
    let (mut world, first, second) = two();
    for id in [&first, &second] {
        world.machine(id).health = Health::Refuses;
    }
    let planned = world.tick();
    let tokens: std::collections::BTreeSet<&str> =
        planned.launches.iter().map(|launch| launch.token.as_str()).collect();
    assert_eq!(tokens.len(), 2, "each launch is of its own");
    world.settle_down();
    let holders = [world.holder.clone().expect("a holder"), world.more_holders[&1].clone()];
    assert!(!holders.contains(&first) && !holders.contains(&second));
    assert_eq!(balancers(&world), holders);
}

#[test]
fn one_whose_place_is_given_up_goes_after_a_while() {
    let (mut world, first, _) = two();
    world.release.balancer.as_mut().expect("a definition").more_allocations.clear();
    world.more_holders.clear();
    world.settle_down();
    assert_eq!(balancers(&world), [first]);
    assert!(world.memory.more_balancers.is_empty());
}

#[test]
fn a_stopped_load_balancer_is_terminated_whatever_it_was() {
    let ended = |world: &mut World, id: &WorkerId, what: &str| {
        world.machine(id).row.state = State::Stopped;
        world.now += SignedDuration::from_mins(11);
        world.settle_down();
        assert_eq!(world.machine(id).row.state, State::Terminated, "{what}");
        assert_eq!(balancers(world).len(), 1, "{what}");
    };
    let (mut held, holder) = world();
    ended(&mut held, &holder, "the holder");

    let (mut replacing, holder) = world();
    replacing.machine(&holder).health = Health::Refuses;
    replacing.tick();
    let next = successor(&replacing).expect("one is launched");
    ended(&mut replacing, &next, "the successor");

    let (mut moved, holder) = world();
    moved.machine(&holder).health = Health::Refuses;
    moved.can_terminate = false;
    moved.tick_until("the address moves", |world| world.holder.as_ref() != Some(&holder));
    moved.ticks(3);
    moved.can_terminate = true;
    ended(&mut moved, &holder, "it had the address before");

    let (mut strange, _) = world();
    let stranger = deployed(&mut strange);
    ended(&mut strange, &stranger, "a stranger");

    let (mut placeless, _) = world();
    let surplus = deployed(&mut placeless);
    placeless.machine(&surplus).row.slot = Some(3);
    ended(&mut placeless, &surplus, "one without a place");
}
