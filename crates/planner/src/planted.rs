//! Planted bugs: small wrong versions of the rules, which the simulator's checks must catch.
//!
//! A check that never fails proves nothing, and the rules have many brakes that back each other up.
//! So each rule asks, at the line where it stands, whether it is to be broken; `sim mutants` breaks
//! one at a time and counts the seeds until a check notices. What belongs to the function's own
//! adapters is broken in the adapters of the simulator.
//!
//! Without the cargo feature `planted`, which only `make sim-mutants` switches on, [`is`] is a
//! constant `false`: nothing of this is in a program.

macro_rules! bugs {
    ($($bug:ident $name:literal $wrong:literal),* $(,)?) => {
        /// A wrong version of a rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $($bug),* }

        impl Bug {
            pub const ALL: &[Self] = &[$(Self::$bug),*];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name),* }
            }

            /// Its effect, in a sentence.
            pub const fn wrong(self) -> &'static str {
                match self { $(Self::$bug => $wrong),* }
            }
        }
    };
}

bugs! {
    // --- Memory and its lock ---
    NoCompareAndSwap "no compare-and-swap" "memory is written over any version",
    ConflictIsSuccess "412 misread" "a refused write of memory is taken as done",
    UnknownIsSuccess "unknown write trusted" "a write of memory without an answer is taken as done",
    EffectsFirst "effects before intents" "a plan is carried out before memory is written",
    // --- Launches ---
    RegionalToken "regional token" "an unknown launch moves to another zone with its token",
    NoAttemptBump "no attempt bump" "a new worker of a slot has the attempt of the one before",
    SpentTokenKept "spent token kept" "a launch whose token is spent is repeated for ever",
    BumpOnUnknown "attempt bumped too early" "a launch without an answer is repeated as another attempt",
    ReplayNotVerbatim "replay not verbatim" "a launch is repeated with the parameters of the newest release",
    UnresolvedForgotten "unresolved launch forgotten" "a launch of which nothing is known for 180 s loses its slot",
    UnwantedForgotten "unwanted launch forgotten" "a launch that is not wanted any more loses its slot at once",
    RepeatsIntoDark "repeats into a dark zone" "a launch is repeated into a zone that EC2 does not answer for",
    LaunchesFirst "repeated launches first" "repeated launches are sent before the address moves",
    UnneededRepeated "unneeded launch repeated" "an unresolved launch is repeated although enough workers serve",
    EmptyIsGone "unseen is gone" "an instance that EC2 does not show is taken as gone",
    ListingErrorIsEmpty "listing error is empty" "a listing that fails is read as an empty one",
    // --- Verdicts ---
    OneSilence "one silence is enough" "a worker is dead when it was silent once",
    MissingAddressFails "missing address fails" "a worker whose address EC2 does not show has failed its probe",
    NoPositiveControl "no positive control" "workers are terminated although no other one answers",
    BlindReplay "blind replay" "a termination is sent again without a new verdict",
    NeverTakenBack "never taken back" "a worker that was judged and answers after all is still terminated",
    DeafBootsGivenUp "boots given up by the deaf" "a boot is given up although no worker is heard",
    AdoptedAsNew "adopted as new" "a worker of a lost memory is judged as if it never served",
    // --- Brakes ---
    SilentEndedFirst "silent worker ended first" "a silent worker is terminated before its replacement answers",
    // --- Leaving ---
    DrainFromPlan "drain counted from the plan" "a drain is over 15 s after it was planned, published or not",
    // --- Numbers ---
    GarbageIsZero "garbage is zero" "a desired count that cannot be read is taken as 0",
    DeadCount "the dead count" "a dead worker that waits for a brake is not replaced",
    SurplusServes "surplus of the useful" "of too many workers the serving ones go first",
    // --- Account limits ---
    LimitAvoidsZone "account limit avoids zone" "a zone is left alone when the account's quota is used up",
    LimitIsFailure "account limit is a failed boot" "a launch that a quota refuses counts against its release",
    RefusalForgotten "refusal forgotten" "a launch that EC2 refuses for its definition is repeated as if unanswered",
    DefinitionBlameless "definition without blame" "a definition that EC2 refuses is launched on and on",
    CapacityBlames "capacity is a failed boot" "a launch without capacity in any zone counts against its release",
    CapacityHammered "capacity hammered" "launches without capacity in any zone are sent again in each tick",
    RoomUncontrolled "room without control" "a dead worker makes room although no worker answers",
    NoFallback "no fallback to stop-first" "a rollout whose extra worker is refused asks for it for ever",
    RoomForTwo "room for two" "two workers leave at once to make room for one",
    RoomWhileIll "room while ill" "a worker makes room although others do not answer",
    RoomKept "room kept" "the place of a worker that made room stays empty",
    // --- Credits ---
    CreditsForgotten "credits forgotten" "a cap that was refused is taken as done",
    CreditsAskedAgain "credits asked again" "a cap that is done is asked for in each tick",
    // --- Releases ---
    DrainsFirst "rollout drains first" "old workers leave before the new one serves",
    RollsOutWhileIll "rollout while ill" "old workers leave although others do not answer",
    // --- Traffic ---
    RevisionStays "revision stays" "the registry's revision does not grow",
    RevisionRestarts "revision restarts" "where memory and registry are lost the revision begins with 1",
    RegistryEmptied "registry emptied" "when no worker answers the registry is empty",
    RegistryForgets "registry forgets" "workers that a lost memory does not know yet lose their traffic",
    PublishesBoots "boots published" "a worker gets traffic before its first answer",
    AddressTaken "address taken" "the address moves away from a load balancer that answers",
    AddressToSilent "address to the silent" "the address moves to a load balancer that does not answer",
    NotRenewed "never renewed" "a load balancer of another definition than the released one stays",
    StoppedStays "stopped load balancer stays" "a load balancer that was stopped is never terminated",
    HolderEnded "holder terminated" "the load balancer that has the address is terminated",
}

#[cfg(not(feature = "planted"))]
pub use absent::{is, plant};
#[cfg(feature = "planted")]
pub use present::{is, plant};

#[cfg(not(feature = "planted"))]
mod absent {
    use super::Bug;

    pub const fn is(_: Bug) -> bool {
        false
    }

    /// Does nothing.
    pub const fn plant(_: Option<Bug>) {}
}

#[cfg(feature = "planted")]
mod present {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Bug;

    const NONE: usize = usize::MAX;
    static PLANTED: AtomicUsize = AtomicUsize::new(NONE);

    /// Whether this rule is to be broken.
    pub fn is(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as usize
    }

    /// For the whole process: nothing that plans may be under way.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(NONE, |bug| bug as usize), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(feature = "planted")))]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_nothing_is_planted() {
        const { assert!(!is(Bug::NoPositiveControl)) };
        for bug in Bug::ALL {
            plant(Some(*bug));
            assert!(!is(*bug));
        }
    }
}
