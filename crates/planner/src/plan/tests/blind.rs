//! What cannot be seen is not acted on.

use fleet::Policy;

use fleet::memory::Slot;

use super::world::{Health, World, decided, holds};
use crate::decision::{Decision, ReleaseDecision};
use crate::held_back::HeldBack;
use crate::observation::{Observation, Scope};
use crate::plan::look;

const WHY: &str = "on purpose";

type Blinding = (&'static str, fn(&mut Observation));

fn blindings() -> [Blinding; 2] {
    [
        ("instances", |seen| {
            seen.instances = Err(WHY.to_owned());
            seen.probes.clear();
        }),
        ("release", |seen| seen.release = Ok(None)),
    ]
}

/// A fleet in which everything is about to happen: one is dead, one drains, one boots, one was
/// terminated behind our back, an orphan is due, and more are desired.
fn eventful() -> World {
    let mut world = World::serving(5);
    world.add(None, "subnet-a");
    world.ticks(3);
    world.desire(4);
    world.tick();
    assert_eq!(world.memory.leaving.len(), 1);
    world.desire(5);
    world.tick();
    world.set(0, Health::Refuses);
    let id = world.id(1);
    world.terminate(&id);
    world.desire(6);
    world
}

#[test]
fn blind_does_nothing_at_all() {
    for (what, blind) in blindings() {
        let mut world = eventful();
        let (slots, leaving, registry) =
            (world.memory.slots.clone(), world.memory.leaving.clone(), world.registry.clone());
        for _ in 0..5 {
            let mut seen = world.observe(Scope::Fleet);
            blind(&mut seen);
            let planned = world.tick_seeing(&seen);
            assert_eq!((planned.launches.len(), planned.terminations.len()), (0, 0), "{what}");
            assert_eq!(planned.registry, None, "{what}");
            assert!(holds!(world, HeldBack::Everything { .. }), "{what}");
        }
        assert_eq!((world.memory.slots.clone(), world.memory.leaving.clone()), (slots, leaving), "{what}");
        assert_eq!(world.registry, registry, "{what}");
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (6, 6), "{what}: sight is back");
    }
}

/// Ticks of a fleet in which one is dead and one more is desired, while this is so.
fn heals(blind: fn(&mut Observation)) -> World {
    let mut world = World::serving(3);
    let dead = world.set(0, Health::Refuses);
    world.desire(4);
    for _ in 0..6 {
        let mut seen = world.observe(Scope::Fleet);
        blind(&mut seen);
        world.tick_seeing(&seen);
    }
    assert_eq!(world.memory.healthy(), 4, "{:#?}", world.memory);
    assert!(
        holds!(world, HeldBack::PublishingAndEnding { why } | HeldBack::NewerRelease { why } if why == WHY)
    );
    assert!(!world.memory.slots.values().any(|slot| slot.worker.as_ref() == Some(&dead)));
    world
}

#[test]
fn healing_goes_on_while_the_release_cannot_be_read() {
    let mut world = heals(|seen| seen.release = Err(WHY.to_owned()));
    assert!(decided!(world, Decision::Release(ReleaseDecision::Unread { .. })));
    assert_eq!(world.live().len(), 4);
    world.expect_rest();
}

/// The release that was read last stays in force, although another one served last.
#[test]
fn a_rollout_goes_on_while_the_release_cannot_be_read() {
    let mut world = World::serving(2);
    let before = world.release.id.clone();
    world.deploy("ami-2");
    world.tick();
    assert_eq!(world.memory.released.as_ref(), Some(&world.release));
    for _ in 0..40 {
        let mut seen = world.observe(Scope::Fleet);
        seen.release = Err(WHY.to_owned());
        world.tick_seeing(&seen);
    }
    assert!(
        world.memory.slots.values().all(|slot| slot.release == world.release.id && slot.release != before)
    );
    world.expect_rest();
    assert_eq!((world.memory.released.clone(), world.memory.proven.clone()), (None, Some(world.release)));
}

#[test]
fn healing_goes_on_while_the_registry_cannot_be_read() {
    let mut world = heals(|seen| seen.registry = Err(WHY.to_owned()));
    assert_eq!(world.live().len(), 5, "readers may still know the dead one");
    assert_eq!(world.published().len(), 3, "its version is not known");
    world.settle_down();
    assert_eq!((world.live().len(), world.published().len()), (4, 4));
}

#[test]
fn a_drain_does_not_end_while_the_registry_cannot_be_read() {
    let mut world = World::serving(3);
    world.desire(2);
    for _ in 0..5 {
        let mut seen = world.observe(Scope::Fleet);
        seen.registry = Err(WHY.to_owned());
        assert_eq!(world.tick_seeing(&seen).terminations, []);
    }
    world.settle_down();
    assert_eq!(world.live().len(), 2);
}

#[test]
fn a_new_memory_without_a_registry_does_nothing() {
    let mut world = World::serving(2);
    world.forget_everything();
    world.desire(3);
    for _ in 0..5 {
        let mut seen = world.observe(Scope::Fleet);
        seen.registry = Err(WHY.to_owned());
        assert_eq!(world.tick_seeing(&seen).launches, []);
        assert!(world.memory.slots.is_empty());
    }
    world.settle_down();
}

#[test]
fn a_worker_adopted_without_a_registry_is_new_until_it_answers() {
    let mut world = World::serving(3);
    world.desire(4);
    let newcomer = world.add(Some((7, 1)), "subnet-a");
    world.machine(&newcomer).health = Health::Silent;
    let mut seen = world.observe(Scope::Fleet);
    seen.registry = Err(WHY.to_owned());
    world.tick_seeing(&seen);
    for _ in 0..3 {
        world.tick();
        assert!(!world.published().contains(&newcomer), "nothing says that it ever served");
        let served = |slot: &Slot| slot.worker.as_ref() == Some(&newcomer) && slot.served;
        assert!(!world.memory.slots.values().any(served), "the registry does not list it");
    }
    world.machine(&newcomer).health = Health::Well;
    world.tick();
    assert!(world.published().contains(&newcomer), "{:#?}", world.memory);
    world.settle_down();
}

#[test]
fn a_fleet_that_ec2_does_not_list_is_not_gone() {
    let mut world = World::serving(3);
    let mut seen = world.observe(Scope::Fleet);
    seen.instances = Ok(Vec::new());
    let planned = world.tick_seeing(&seen);
    assert_eq!((planned.launches.len(), planned.terminations.len(), planned.registry), (0, 0, None));
    world.expect_rest();
}

#[test]
fn a_look_between_ticks_that_is_blind_sees_nothing_new() {
    for (what, blind) in blindings() {
        let mut world = World::empty(2);
        world.tick();
        world.now += jiff::SignedDuration::from_secs(15);
        let mut seen = world.observe(Scope::Boots);
        blind(&mut seen);
        assert_eq!(look(&seen, world.memory.clone(), &Policy::default(), world.now).plan, None, "{what}");
    }
}
