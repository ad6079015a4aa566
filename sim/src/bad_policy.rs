//! Bad policies: planted bugs that are only a wrong number.
//!
//! The bounds of [`Policy`] refuse some of these values in `release.json`; here they are set past the
//! check, as a mistake in the defaults would be.

use fleet::Policy;
use jiff::SignedDuration;

/// A policy with wrong numbers, which the checks must catch.
pub struct BadPolicy {
    pub name: &'static str,
    /// The effect, in a sentence.
    pub wrong: &'static str,
    pub change: fn(&mut Policy),
}

impl BadPolicy {
    pub fn policy(&self) -> Policy {
        let mut policy = Policy::default();
        (self.change)(&mut policy);
        policy
    }
}

const NONE: SignedDuration = SignedDuration::ZERO;
/// Longer than a run of the simulator.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// More than any fleet has.
const ALL_OF_THEM: usize = 1_000;

macro_rules! bad_policies {
    ($($name:literal $wrong:literal { $($field:ident: $value:expr),+ })+) => {
        pub const ALL: &[BadPolicy] = &[$(BadPolicy {
            name: $name,
            wrong: $wrong,
            change: |policy| { $(policy.$field = $value;)+ },
        }),+];
    };
}

bad_policies! {
    // --- State and its lock ---
    "stale plans" "a plan is carried out however long ago the fleet was surveyed" { stale_after: DAY }
    "wrong clock" "a clock that differs from that of S3 is trusted" { clock_skew: SignedDuration::from_mins(10) }
    "young memory acts" "a state that was lost a moment ago terminates and launches workers" { young_for: NONE }
    // --- Launches ---
    "no reserved call" "launches that hang leave no call for other work" { launches_at_once: 4 }
    // --- Verdicts ---
    "no second look" "two silent ticks count although one followed the other at once" { silence_spacing: NONE }
    "short boot grace" "a boot is given up after 60 s" { boot_grace: SignedDuration::from_secs(60) }
    "boots never given up" "a worker that never answers may boot for ever" { boot_grace: DAY }
    // --- Brakes ---
    "velocity off by one" "one more than a tenth is terminated within 15 s" { velocity_least: 2 }
    "no velocity brake" "all dead workers are terminated at once" { velocity_least: ALL_OF_THEM }
    "no degraded brake" "when many fail they are terminated before replacements answer" {
        degraded_least: ALL_OF_THEM, often_least: ALL_OF_THEM
    }
    "terminations forgotten" "the terminations of the last ten minutes do not count as many failing" {
        often_least: ALL_OF_THEM
    }
    "no panic brake" "when most workers are dead more than one a minute is terminated" { panic_spacing: NONE }
    "lost panic valve" "when most workers are dead none is terminated, ever" {
        panic_spacing: DAY, terminations_window: DAY
    }
    "no zone rule" "the workers of a zone that is cut off are terminated" { dark_zone_for: NONE }
    // --- Leaving ---
    "no drain" "a worker that is not needed is terminated at once" { drain: NONE }
    "orphans stay" "an instance that belongs to no slot is left alone" { orphan_age: DAY }
    // --- Numbers ---
    "lowering at once" "a count that takes most workers away is believed at once" { confirm_lowering: NONE }
    "no cap" "any number of instances may wait for a verdict" {
        cap_extra: ALL_OF_THEM, stuck_cap_extra: ALL_OF_THEM
    }
    "lost cap valve" "where all are dead up to the cap no launch is tried any more" {
        stuck_cap_per_worker: 2, stuck_cap_extra: 2
    }
    "launches of the deaf" "all workers are replaced although no worker is heard" { deaf_least: ALL_OF_THEM }
    "no boot-loop back-off" "a release that does not boot is launched as often as it fails" { boot_loop: u32::MAX }
    "no limit on an unproven release" "the whole fleet boots a release that never served" {
        unproven_boots: ALL_OF_THEM
    }
    "no launch budget" "losses are replaced at once, however many there were" { budget_extra: 1_000_000 }
    // --- Account limits ---
    "account limit hammered" "launches that a quota refuses are sent again in each tick" {
        refusal_pause_first: NONE, refusal_pause_longest: NONE
    }
    "no room for a replacement" "a dead worker waits for a replacement that a quota refuses" { room_after: DAY }
    "room at once" "a dead worker makes room although its replacement was refused just now" {
        room_after: NONE, room_still_refused: NONE, room_dead_for: NONE
    }
    // --- Credits ---
    "credits capped too early" "an instance is capped with its first answer" { credits_after: NONE }
    // --- Releases ---
    "rollout without a trial" "the first worker of a release proves it with its first answer" { trial: NONE }
    "rollout beyond its surge" "all workers of a new release are launched at once" { rollout_least: ALL_OF_THEM }
    "rollout not frozen" "a release whose boots fail is tried on and on" { frozen_retry: NONE }
    // --- Traffic ---
    "one silence of the holder" "the load balancer is dead when it was silent once" { holder_silence: NONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_policy_differs_from_the_default() {
        for bad in ALL {
            assert!(!bad.policy().is_default(), "{}", bad.name);
        }
    }

    /// `make sim-mutants ONLY=name` would plant two.
    #[test]
    fn no_patch_has_the_name_of_a_policy() {
        let patches = concat!(env!("CARGO_MANIFEST_DIR"), "/mutants");
        let files = std::fs::read_dir(patches).expect("the patches").map(|entry| entry.expect("an entry"));
        let mut names: Vec<String> =
            files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        assert!(names.len() > 50, "{names:?}");
        names.extend(ALL.iter().map(|bad| format!("{}.patch", bad.name.replace(' ', "-"))));
        let unique: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
