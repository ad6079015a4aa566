//! Who goes first when there are too many: chosen all at once, it is who would go one by one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use fleet::memory::{Memory, Phase, Slot};
use jiff::SignedDuration;
use proptest::prelude::*;

use super::world::World;
use crate::decision::{Decision, WorkerDecision};
use crate::held_back::Who;
use crate::observation::{Observation, Scope};
use crate::plan::Tick;

const OLD_RELEASE: &str = "an older one";

fn slot() -> impl Strategy<Value = Slot> {
    let phase = prop_oneof![
        1 => Just(Phase::Launching),
        1 => Just(Phase::Booting),
        5 => Just(Phase::Healthy),
        1 => Just(Phase::Suspect),
        1 => Just(Phase::Dead),
        1 => Just(Phase::Unresolved),
    ];
    let is_rare = || prop::bool::weighted(0.1);
    (phase, 0..3, is_rare(), is_rare(), is_rare(), any::<bool>()).prop_map(
        |(phase, zone, is_old, is_unwanted, is_unknown, served)| Slot {
            attempt: 1,
            release: if is_old { OLD_RELEASE.to_owned() } else { String::new() },
            subnet: "subnet-a".to_owned(),
            zone: format!("zone-{zone}"),
            phase,
            since: World::empty(0).now,
            worker: (!is_unknown).then(|| "i-0".parse().expect("an id")),
            addr: None,
            missing_since: None,
            is_adopted: false,
            is_unwanted,
            served,
        },
    )
}

/// A memory that is not young, with these slots; `world` is of the present release.
fn memory(world: &World, slots: Vec<(u32, Slot)>) -> Memory {
    let mut memory = Memory { began: Some(world.now - SignedDuration::from_hours(1)), ..Memory::default() };
    memory.desired = world.desired.clone().ok();
    for (number, mut slot) in slots {
        if slot.release != OLD_RELEASE {
            slot.release.clone_from(&world.release.id);
        }
        slot.worker = slot.worker.map(|_| format!("i-{number:x}").parse().expect("an id"));
        memory.slots.insert(number, slot);
    }
    memory
}

fn tick<'a>(world: &'a World, seen: &'a Observation, memory: Memory) -> Tick<'a> {
    let release = seen.release.as_ref().expect("it is known").as_ref().expect("it is there");
    Tick::new(seen, &[], release, None, memory, &world.release.policy, world.now)
}

/// Removes the least needed worker.
fn remove_one(tick: &mut Tick<'_>) -> Option<Who> {
    let mut crowds: BTreeMap<&str, usize> = BTreeMap::new();
    for slot in tick.memory.slots.values() {
        *crowds.entry(slot.zone.as_str()).or_insert(0) += 1;
    }
    let order = |number: u32, slot: &Slot| {
        let usefulness = match slot.phase {
            Phase::Launching | Phase::Unresolved => 0,
            Phase::Booting => 1,
            Phase::Suspect => 2,
            Phase::Healthy | Phase::Dead if tick.is_old(slot) => 3,
            Phase::Healthy | Phase::Dead => 4,
        };
        (usefulness, Reverse(crowds[slot.zone.as_str()]), Reverse(number))
    };
    let live = tick.memory.slots.iter().filter(|(_, slot)| tick.counts(slot));
    let number = live.min_by_key(|(number, slot)| order(**number, slot)).map(|(number, _)| *number)?;
    let slot = tick.memory.slots.get_mut(&number)?;
    let who = Who::of_slot(number, slot);
    if slot.worker.is_none() {
        slot.is_unwanted = true;
    } else {
        tick.memory.slots.remove(&number);
    }
    Some(who)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn who_goes_first_is_who_would_go_one_by_one(
        slots in prop::collection::vec((0..100_u32, slot()), 0..60),
        desired in 0..40_u32,
    ) {
        let world = World::empty(desired);
        let seen = world.observe(Scope::Fleet);
        let mut one_by_one = tick(&world, &seen, memory(&world, slots.clone()));
        let live = one_by_one.live();
        let number = live.saturating_sub(desired as usize).min((live / 4).max(3));
        let expected: Vec<_> = (0..number).map_while(|_| remove_one(&mut one_by_one)).collect();
        prop_assert_eq!(expected.len(), number);

        let mut at_once = tick(&world, &seen, memory(&world, slots));
        at_once.shrink();
        let removed = |decision: &Decision| match decision {
            Decision::Worker(WorkerDecision::Removing { who, .. }) => Some(who.clone()),
            _ => None,
        };
        let removed: Vec<Who> = at_once.decisions.iter().filter_map(removed).collect();
        prop_assert_eq!(removed, expected);
    }
}
