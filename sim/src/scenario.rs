//! What differs between runs before anything happens: size, zones, and when storms come.

use fastrand::Rng;
use fleet::Policy;
use fleet::release::Rollout;

use crate::clock::{MINUTE, Millis};

/// Quiet time after a storm: the longest pause of the reconciler is 30 minutes, and some boots follow.
const CALM: Millis = 40 * MINUTE;
/// And for each worker, because its release may have to be changed.
const ROLLOUT: Millis = 2 * MINUTE;
/// The same, where one has to be gone before the next is launched.
const SLOW_ROLLOUT: Millis = 6 * MINUTE;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub length: Millis,
    pub zones: usize,
    pub workers: u32,
    /// The largest number that an operator asks for.
    pub most_workers: u32,
    /// `None`: no storms; faults are the caller's.
    pub first_storm: Option<Millis>,
    pub calm: Millis,
    /// One fault, and no other.
    pub single: Option<(Millis, Single)>,
    /// The account's quota has room for the workers and one load balancer, and for nothing else.
    pub is_tight: bool,
    pub rollout: Rollout,
    /// Whether the quota counts instances that shut down.
    pub counts_leaving: bool,
    /// AWS has verified the account.
    pub verified_from: Millis,
    /// A fleet of 8 to 20 workers whose zones are out for minutes, again and again.
    pub has_outages: bool,
    /// Of every release that is deployed.
    pub policy: Policy,
}

/// A clean fault, to measure how long its repair takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Single {
    /// The program of a worker is gone; its host refuses.
    ProgramDead,
    /// A worker's program hangs for ever.
    Hang,
    /// A worker's host is dead and silent.
    HostDead,
    /// EC2 ends a worker.
    Terminated,
    /// The load balancer's host is dead.
    BalancerDead,
    /// The next instance never serves; a worker is gone, so that there is a next one.
    BootStuck,
    /// A worker that memory does not know.
    Orphan,
    /// The prober hears no instance for two hours.
    ProberBroken,
    /// No instance of the release ever serves.
    ReleaseBroken,
}

impl Scenario {
    pub fn stormy(seed: u64, length: Millis) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5ce0_a510);
        let workers = match rng.u8(0..20) {
            0..3 => 1,
            3..6 => 2,
            6..12 => 3,
            12..18 => rng.u32(4..7),
            _ => rng.u32(7..15),
        };
        let zones = if rng.u8(0..4) == 0 { 3 } else { 2 };
        let first_storm = Some(rng.i64(0..8) * MINUTE + rng.i64(0..60_000));
        let most_workers = workers * 2 + 2;
        // Drawn last, so that the others stay as they were.
        let is_tight = rng.u8(0..6) == 0;
        let is_told = if is_tight { rng.bool() } else { rng.u8(0..20) == 0 };
        let rollout = if is_told { Rollout::StopFirst } else { Rollout::SurgeFirst };
        let counts_leaving = rng.bool();
        let verified_from = if rng.u8(0..10) == 0 { rng.i64(1..20) * MINUTE } else { 0 };
        let workers = if is_tight { workers.max(2) } else { workers };
        let most_workers = if is_tight { workers * 2 + 2 } else { most_workers };
        let is_slow = is_tight || is_told;
        let has_outages = rng.u8(0..12) == 0;
        let workers = if has_outages { rng.u32(8..21) } else { workers };
        let most_workers = if has_outages { workers + 4 } else { most_workers };
        let calm = CALM + i64::from(most_workers) * if is_slow { SLOW_ROLLOUT } else { ROLLOUT };
        Self {
            seed,
            length,
            zones,
            workers,
            most_workers,
            first_storm,
            calm,
            single: None,
            is_tight,
            rollout,
            counts_leaving,
            verified_from,
            has_outages,
            policy: Policy::default(),
        }
    }

    /// One fault at a random moment of a fleet at rest.
    pub fn single(seed: u64, single: Single) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x51_4613);
        let workers = rng.u32(2..7);
        let at = if single == Single::ReleaseBroken { 0 } else { 6 * MINUTE + rng.i64(0..2 * MINUTE) };
        let length = if single == Single::ProberBroken { 180 * MINUTE } else { 30 * MINUTE };
        Self {
            seed,
            length,
            zones: 2,
            workers,
            most_workers: workers * 2,
            first_storm: None,
            calm: 0,
            single: Some((at, single)),
            is_tight: false,
            rollout: Rollout::SurgeFirst,
            counts_leaving: false,
            verified_from: 0,
            has_outages: false,
            policy: Policy::default(),
        }
    }
}
