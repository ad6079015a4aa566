//! A count that takes most of the fleet away.

use super::world::{World, count, holds};
use crate::held_back::HeldBack;
use jiff::SignedDuration;

#[test]
fn half_is_acted_on_at_once_and_less_than_half_is_read_twice() {
    for (from, to, ticks) in [(4, 2, 0), (5, 3, 0), (4, 1, 1), (5, 2, 1), (1, 0, 1), (3, 0, 1)] {
        let mut world = World::serving(from);
        world.desire(to);
        for n in 0..ticks {
            world.tick();
            assert_eq!(world.memory.desired, Some(count(from)), "{from} to {to}, tick {n}");
            assert!(
                holds!(world, HeldBack::Lowering { after, .. } if after.as_secs() == 15),
                "{from} to {to}, tick {n}"
            );
            assert_eq!(world.published().len(), from as usize, "{from} to {to}, tick {n}");
        }
        world.tick();
        assert_eq!(world.memory.desired, Some(count(to)), "{from} to {to}");
        assert_eq!(world.memory.lowering, None, "{from} to {to}");
        world.settle_down();
        assert_eq!(world.live().len(), to as usize);
    }
}

#[test]
fn the_15_s_begin_anew_with_another_count_or_none() {
    let mut world = World::serving(8);
    world.desire(1);
    world.tick();
    world.desire(2);
    world.tick();
    assert_eq!(world.memory.desired, Some(count(8)), "2 was read once");
    world.desired = Err("banana".to_owned());
    world.tick();
    assert_eq!(world.memory.lowering, None);
    world.desire(2);
    world.tick();
    assert_eq!(world.memory.desired, Some(count(8)), "once again");
    world.tick();
    assert_eq!(world.memory.desired, Some(count(2)));
}

#[test]
fn a_slip_of_the_finger_that_is_taken_back_changes_nothing() {
    let mut world = World::serving(4);
    world.desire(0);
    world.tick();
    world.desire(4);
    world.expect_rest();
    assert_eq!(world.memory.lowering, None);
    assert_eq!(world.memory.healthy(), 4);
}

#[test]
fn a_count_in_between_or_above_is_taken_at_once_and_ends_the_wait() {
    for other in [3, 9] {
        let mut world = World::serving(4);
        world.desire(1);
        world.tick();
        world.desire(other);
        world.tick();
        assert_eq!((world.memory.desired, world.memory.lowering.clone()), (Some(count(other)), None));
    }
}

#[test]
fn it_is_the_time_that_counts_and_not_the_number_of_readings() {
    let mut world = World::serving(4);
    world.desire(1);
    for _ in 0..3 {
        world.tick();
        world.now -= SignedDuration::from_secs(13);
    }
    assert_eq!(world.memory.desired, Some(count(4)), "14 s");
}

#[test]
fn a_large_surplus_leaves_three_or_a_quarter_a_tick() {
    for (from, to, most) in [(8, 4, 3), (24, 12, 6)] {
        let mut world = World::serving(from);
        world.desire(to);
        world.tick();
        assert_eq!(world.published().len(), (from - most) as usize);
        world.settle_down();
        assert_eq!((world.memory.healthy(), world.live().len()), (to as usize, to as usize));
    }
}
