//! What cannot be seen is not acted on.

use super::world::{Health, World};
use crate::observation::{Observation, Scope};
use crate::plan::look;

const WHY: &str = "on purpose";

type Blinding = (&'static str, fn(&mut Observation));

fn blindings() -> [Blinding; 3] {
    [
        ("instances", |seen| {
            seen.instances = Err(WHY.to_owned());
            seen.probes.clear();
        }),
        ("release", |seen| seen.release = Err(WHY.to_owned())),
        ("registry", |seen| seen.registry = Err(WHY.to_owned())),
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
            assert!(world.memory.held.iter().any(|text| text.contains(WHY)), "{what}");
        }
        assert_eq!((world.memory.slots.clone(), world.memory.leaving.clone()), (slots, leaving), "{what}");
        assert_eq!(world.registry, registry, "{what}");
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (6, 6), "{what}: sight is back");
    }
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
        assert_eq!(look(&seen, world.memory.clone(), world.now).plan, None, "{what}");
    }
}
