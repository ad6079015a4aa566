//! `Policy`: every number that the reconciler's decisions depend on.
//!
//! The default is production. `release.json` carries the values that differ from it, so a demo or a
//! system test runs the same program on faster numbers. `status` shows the differences.
//!
//! | document | is read as |
//! |---|---|
//! | without `policy` | the default |
//! | a field is missing | the default of this field |
//! | a field has an unknown name | it is ignored: an older reconciler reads a newer document |
//! | a value is out of bounds | an error that names the field, the value and the bounds |
//!
//! Bounds may be widened and never narrowed: `state.json` holds a release as well, and a reconciler that
//! cannot read its own state begins with an empty one.
//!
//! The time limits of calls to AWS are constants of the reconciler: they apply before `release.json` is
//! read.

mod bounds;
mod counts;
mod share;
#[cfg(test)]
mod tests;
mod value;

use std::hash::{Hash, Hasher};

use jiff::SignedDuration;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use self::value::{Value, check, shown_bounds};

pub use self::share::{Share, ShareError};
pub use self::value::{Difference, Field, OutOfBounds};

const fn millis(number: i64) -> SignedDuration {
    SignedDuration::from_millis(number)
}

const fn secs(number: i64) -> SignedDuration {
    SignedDuration::from_secs(number)
}

const fn mins(number: i64) -> SignedDuration {
    SignedDuration::from_mins(number)
}

const fn hours(number: i64) -> SignedDuration {
    SignedDuration::from_hours(number)
}

const fn share(part: u32, of: u32) -> Share {
    Share::new(part, of)
}

macro_rules! policy {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $bounds:expr;)+) => {
        /// The numbers that decisions depend on.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "Unchecked")]
        pub struct Policy {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Default for Policy {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// A policy whose values were parsed and not compared with their bounds.
        #[derive(Deserialize)]
        #[serde(default)]
        struct Unchecked {
            $($field: $type,)+
        }

        impl Default for Unchecked {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl TryFrom<Unchecked> for Policy {
            type Error = OutOfBounds;

            fn try_from(unchecked: Unchecked) -> Result<Self, Self::Error> {
                let policy = Self { $($field: unchecked.$field,)+ };
                policy.check()?;
                Ok(policy)
            }
        }

        impl Policy {
            /// Returns every field with its default, its bounds and the reason for them, in the order of
            /// their definition.
            pub fn fields() -> Vec<Field> {
                vec![$(Field {
                    name: stringify!($field),
                    default: Value::shown(&($default as $type)),
                    bounds: shown_bounds::<$type>(&$bounds),
                    reason: concat!($($doc),+).trim(),
                }),+]
            }

            /// Returns the fields that differ from the default, in the order of their definition.
            pub fn differences(&self) -> Vec<Difference> {
                let default = Self::default();
                let mut differences = Vec::new();
                $(if self.$field != default.$field {
                    differences.push(Difference {
                        name: stringify!($field),
                        value: self.$field.shown(),
                        default: default.$field.shown(),
                    });
                })+
                differences
            }

            fn check_each(&self) -> Result<(), OutOfBounds> {
                $(check(stringify!($field), self.$field, &$bounds)?;)+
                Ok(())
            }
        }

        impl Serialize for Policy {
            /// Writes the fields that differ from the default.
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let default = Self::default();
                let mut map = serializer.serialize_map(None)?;
                $(if self.$field != default.$field {
                    self.$field.write(stringify!($field), &mut map)?;
                })+
                map.end()
            }
        }
    };
}

policy! {
    /// Time between two ticks of an invocation, counted from the time that the schedule names. A worker
    /// that dies is noticed within one or two of them. At half of this EC2's read calls would double; at
    /// twice, a dead worker would be noticed after 40 s to 80 s.
    tick_every: SignedDuration = secs(20), secs(2)..=secs(30);
    /// Ticks of one invocation. The schedule starts one invocation a minute.
    ticks: i32 = 3, 1..=20;
    /// A tick that starts later than this is left out: the next one is near.
    tick_too_late: SignedDuration = secs(15), secs(1)..=secs(30);
    /// Two ticks that are closer than this count as one. The schedule delivers at least once, and a
    /// deployment adds an invocation of its own.
    tick_closest: SignedDuration = secs(10), millis(500)..=secs(20);
    /// After the last tick, booting instances are probed for this long. The last tick starts at 40 s, the
    /// next invocation at 60 s, and Lambda stops the function at 55 s.
    last_watch: SignedDuration = secs(8), secs(0)..=secs(15);
    /// While an instance boots, the fleet is probed this often between ticks. A new worker then serves
    /// within seconds of its first answer instead of up to 20 s later.
    look_every: SignedDuration = secs(2), millis(250)..=secs(10);
    /// A plan is not carried out if its survey began longer ago than this: the next tick surveys again.
    stale_after: SignedDuration = secs(15), secs(3)..=secs(20);
    /// A termination for health is not sent if its plan was written longer ago than this. Another
    /// invocation may have heard the worker since, and taken it back.
    verdict_valid_for: SignedDuration = secs(3), secs(1)..=secs(10);
    /// Calls to EC2 at the same time. RunInstances has a bucket of five, refilled at two a second; EC2
    /// only throttles more.
    calls_at_once: usize = 4, 2..=5;
    /// Launches among those calls. A launch into a zone that hangs takes 8 s, and nothing else may have to
    /// wait for it.
    launches_at_once: usize = 3, 1..=4;
    /// A tick is dropped if this clock and the clock of S3 differ by more. Ages are compared across
    /// invocations, and a drain lasts 15 s. S3 sends whole seconds.
    clock_skew: SignedDuration = secs(3), secs(2)..=secs(10);
    /// A time in `state.json` may be this far in the future, because the clocks of two invocations differ
    /// by seconds. Half of this would change nothing; at twice, a tick that was never made would be waited
    /// for twice as long.
    times_ahead: SignedDuration = mins(1), secs(5)..=mins(5);
    /// Tries of one probe in a tick. One lost packet must not cost a worker.
    probe_tries: u32 = 3, 1..=5;
    /// Time from the start of one try of a probe to the start of the next. Three tries take 3 s, which is
    /// longer than systemd takes to restart a program.
    probe_spacing: SignedDuration = millis(1500), millis(100)..=secs(5);
    /// Time limit of one try. A worker answers its health check from memory, in well under a millisecond.
    probe_timeout: SignedDuration = secs(1), millis(100)..=secs(5);
    /// No probe of a tick begins later than this after the first one. A plan is not carried out when its
    /// survey is 15 s old. An instance that was not probed is not judged.
    probe_deadline: SignedDuration = secs(8), secs(1)..=secs(10);

    /// For this long after state was lost, no worker is launched, terminated or drained. It is three
    /// ticks and some slack.
    young_for: SignedDuration = secs(50), secs(2)..=mins(10);
    /// Losses of workers count towards the launch budget for this long.
    losses_window: SignedDuration = hours(1), mins(5)..=hours(6);
    /// Terminations for health count towards the brakes for this long.
    terminations_window: SignedDuration = mins(10), mins(1)..=hours(1);

    /// A boot that takes longer than this has failed. Boots take 40 s to 70 s on EC2.
    boot_grace: SignedDuration = secs(180), secs(5)..=mins(30);
    /// An instance that EC2 does not list counts as missing after this. Listings lag by seconds, in bad
    /// hours by minutes.
    missing_after: SignedDuration = mins(5), secs(10)..=hours(1);
    /// A launch without any answer counts as unresolved after this. EC2 answers within seconds; a zone
    /// that does not answer for minutes may not answer for hours.
    unresolved_after: SignedDuration = mins(3), secs(10)..=mins(30);
    /// Launches repeated in one tick. They share EC2's bucket with new launches.
    repeats_per_tick: usize = 10, 1..=50;
    /// Two silent ticks count as two only if they are this far apart: a tick may follow a look at once.
    silence_spacing: SignedDuration = secs(15), millis(500)..=mins(2);

    /// A worker or load balancer keeps crashing after this many restarts. One or two may be bad luck, or a
    /// deployment.
    crash_restarts: usize = 3, 1..=20;
    /// Restarts count for this long. An instance that restarts every 100 s is found; an instance that
    /// restarts every few minutes serves most of the time.
    crash_window: SignedDuration = mins(5), secs(10)..=hours(1);
    /// A process was restarted if its start is later than the last known time by more than this. Instances
    /// report whole seconds, and the clocks of two invocations differ.
    crash_slack: SignedDuration = secs(5), secs(1)..=secs(30);
    /// Share of the desired number of workers that is replaced at a time because of crashes.
    crash_share: Share = share(1, 10), share(1, 100)..=share(1, 1);
    /// At least this many are replaced at a time because of crashes.
    crash_least: usize = 1, 1..=10;

    /// Terminations for health within this time count as one burst. It is less than the time between two
    /// ticks, because a tick that a look requested may follow another one at once.
    velocity_window: SignedDuration = secs(15), millis(500)..=mins(2);
    /// Share of the workers that ever served that is terminated for health in one burst.
    velocity_share: Share = share(1, 10), share(1, 100)..=share(1, 2);
    /// At least this many are terminated for health in one burst.
    velocity_least: usize = 1, 1..=10;
    /// Many fail at once if at least this many are dead, and `degraded_share` is exceeded. Then a worker
    /// is terminated only after its replacement answers.
    degraded_least: usize = 2, 1..=100;
    /// Many fail at once if more than this share of the workers that ever served is dead.
    degraded_share: Share = share(1, 5), share(1, 100)..=share(1, 1);
    /// Many fail over time if at least this many were terminated within `terminations_window`.
    often_least: usize = 2, 1..=100;
    /// Many fail over time if at least this share was terminated within `terminations_window`.
    often_share: Share = share(1, 3), share(1, 100)..=share(1, 1);
    /// Most fail at once if at least this many are dead, and `panic_share` is exceeded. Then the dead stay
    /// in the registry.
    panic_least: usize = 2, 1..=100;
    /// Most fail at once if more than this share of the workers that ever served is dead.
    panic_share: Share = share(1, 2), share(1, 100)..=share(1, 1);
    /// While most fail, two terminations for health are at least this far apart. It is three ticks and
    /// their jitter: one a minute.
    panic_spacing: SignedDuration = secs(55), secs(5)..=mins(10);
    /// A zone is cut off if at least this many of its workers are silent, and `dark_zone_share` of them.
    dark_zone_least: usize = 2, 1..=100;
    /// A zone is cut off if at least this share of its workers is silent while others answer.
    dark_zone_share: Share = share(55, 100), share(1, 100)..=share(1, 1);
    /// Workers of a zone that is cut off are not terminated for this long. After it they are judged like
    /// others.
    dark_zone_for: SignedDuration = mins(15), secs(30)..=hours(2);

    /// Time from the registry without a worker to its termination. A load balancer may know the worker for
    /// two more seconds, and finishes its requests.
    drain: SignedDuration = secs(15), secs(3)..=mins(10);
    /// An instance that is to be terminated, and that EC2 does not list, is forgotten after this. EC2 lists
    /// a terminated instance for about an hour.
    leaving_forgotten_after: SignedDuration = hours(1), mins(5)..=hours(12);
    /// An instance that no slot knows is removed when it is this old: before, its launch may be on its way
    /// into `state.json`. Two ticks later it is drained and gone, within 140 s of its launch.
    orphan_age: SignedDuration = secs(90), secs(20)..=mins(30);
    /// Share of the desired number of workers whose unknown instances are removed in one tick.
    orphan_share: Share = share(1, 4), share(1, 100)..=share(1, 1);
    /// At least this many unknown instances may be removed in one tick.
    orphan_least: usize = 2, 1..=20;

    /// A desired count that takes most workers away is believed after it was read for this long. It is one
    /// tick and its jitter: an editor that saves twice, or a slip that is corrected at once. After a longer
    /// wait people would believe that nothing happens.
    confirm_lowering: SignedDuration = secs(15), millis(500)..=mins(10);
    /// A desired count takes most workers away if it is 0, or below this share of the count in force.
    lowering_share: Share = share(1, 2), share(1, 100)..=share(1, 1);
    /// Share of the live workers that is removed in one tick if there are too many.
    surplus_share: Share = share(1, 4), share(1, 100)..=share(1, 1);
    /// At least this many may be removed in one tick if there are too many.
    surplus_least: usize = 3, 1..=20;
    /// New launches in one tick. EC2 takes five at once, and two a second after that.
    launches_per_tick: usize = 20, 1..=50;
    /// Instances that may exist, in any state, for each desired worker.
    cap_per_worker: usize = 2, 1..=4;
    /// Instances that may exist beyond that.
    cap_extra: usize = 2, 1..=20;
    /// If no worker answers, instances that may exist for each desired worker.
    stuck_cap_per_worker: usize = 3, 1..=6;
    /// If no worker answers, instances that may exist beyond that.
    stuck_cap_extra: usize = 6, 1..=40;
    /// If no worker answers and `cap_per_worker` is reached, one more is launched this often.
    stuck_launch_every: SignedDuration = mins(30), mins(1)..=hours(6);
    /// While no worker answers, replacements that may boot at a time, as a share of the desired number.
    deaf_share: Share = share(1, 5), share(1, 100)..=share(1, 1);
    /// While no worker answers, at least this many replacements may boot at a time.
    deaf_least: usize = 2, 1..=20;
    /// Losses within `losses_window`, for each desired worker, after which launches are slow.
    budget_per_worker: usize = 3, 1..=20;
    /// Losses beyond that, after which launches are slow.
    budget_extra: usize = 10, 1..=100;
    /// Time between two launches once the budget of losses is spent.
    slow_launch_every: SignedDuration = mins(3), secs(10)..=hours(1);

    /// Failed boots in a row after which launches of a release pause. One may be bad luck, three are a bad
    /// release.
    boot_loop: u32 = 3, 1..=20;
    /// The first pause after `boot_loop` failed boots. Each further failure doubles it.
    boot_pause_first: SignedDuration = mins(1), secs(2)..=mins(30);
    /// The longest pause between two boots of a release that fails.
    boot_pause_longest: SignedDuration = mins(30), secs(10)..=hours(6);
    /// Workers of a release that never served, booting at a time.
    unproven_boots: usize = 3, 1..=20;
    /// The first worker of a new release must serve for this long. It is three ticks in a row.
    trial: SignedDuration = secs(55), secs(3)..=hours(1);
    /// Failed boots in a row after which a rollout pauses. One may be bad luck.
    freeze_after: u32 = 2, 1..=20;
    /// A rollout that paused is tried again after this. A cause outside the release may pass, and the same
    /// release cannot be deployed again to say so.
    frozen_retry: SignedDuration = mins(30), secs(10)..=hours(6);
    /// Share of the desired number of workers that a rollout replaces at a time.
    rollout_share: Share = share(1, 10), share(1, 100)..=share(1, 1);
    /// At least this many are replaced at a time by a rollout.
    rollout_least: usize = 1, 1..=10;

    /// The first pause after EC2 refused a launch because of the account. It is the time to the next tick,
    /// less its jitter: half would be the same tick, twice would skip one. Each further refusal doubles it.
    refusal_pause_first: SignedDuration = secs(15), secs(2)..=mins(2);
    /// The longest pause between two launches that EC2 refuses. A quota that was raised is used within two
    /// minutes; half would be 60 refused calls an hour.
    refusal_pause_longest: SignedDuration = mins(2), secs(5)..=mins(30);
    /// A refusal is forgotten if nothing was tried for this long.
    refusal_forgotten_after: SignedDuration = mins(5), secs(30)..=hours(2);
    /// A dead worker is terminated before its replacement if a quota refused the replacement for this long.
    room_after: SignedDuration = mins(2), secs(10)..=mins(30);
    /// The last refusal must be this much later than the first one. It is `room_after`, less the longest
    /// pause within it.
    room_still_refused: SignedDuration = secs(55), secs(2)..=mins(30);
    /// The worker itself must be dead for this long. It is `room_after`, less the jitter of a tick.
    room_dead_for: SignedDuration = secs(95), secs(5)..=mins(30);
    /// A worker that made room for a load balancer returns after this if the load balancer was not
    /// launched.
    room_lasts: SignedDuration = mins(10), secs(30)..=hours(1);
    /// Room for a load balancer may be made again after this.
    room_again_after: SignedDuration = mins(40), mins(1)..=hours(6);
    /// A subnet without capacity is avoided for this long. The value is Karpenter's.
    no_capacity_avoid: SignedDuration = mins(3), secs(10)..=mins(10);
    /// EC2 may not know a new role for this long.
    role_propagates: SignedDuration = mins(10), secs(30)..=hours(1);
    /// Attempts that are passed over at once if a client token was used before.
    attempt_stride: u32 = 1000, 1..=100_000;

    /// An instance may spend CPU credits for this long after it began to serve. At half of this the work
    /// after a boot would be cut off: caches to fill, the first password hashes.
    credits_after: SignedDuration = mins(5), secs(10)..=hours(1);
    /// Instances whose CPU credits are capped in one tick. A fleet of a hundred takes seven minutes, and
    /// the tick's own calls do not wait.
    credits_per_tick: usize = 5, 1..=20;
    /// A cap on CPU credits that EC2 refused is requested again after this. It costs cents a minute at
    /// worst, and a missing permission stays missing for longer.
    credits_again_after: SignedDuration = mins(5), secs(30)..=mins(10);

    /// A load balancer that is silent for this long is dead, if the next probe fails as well.
    holder_silence: SignedDuration = secs(15), millis(500)..=mins(2);
    /// A load balancer without an address is removed when it is this old. A deployment replaces load
    /// balancers as well, and takes the old one back if the new one fails.
    stranger_age: SignedDuration = mins(10), secs(30)..=hours(2);
    /// Load balancers of one address: the holder, its successor, and an outgoing one.
    balancers_per_address: usize = 3, 2..=6;
}

impl Policy {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Hash for Policy {
    /// Hashes the fields that differ from the default: nearly always none.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.differences().hash(state);
    }
}
