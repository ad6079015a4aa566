//! Decisions on workers.

use std::fmt::{self, Display, Formatter};

use fleet::memory::LeavingReason;
use fleet::{DesiredCount, WorkerId};
use jiff::SignedDuration;

use super::CrashLoop;
use crate::held_back::{TerminationBrake, Who, in_words};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WorkerDecision {
    // --- Boots ---
    /// EC2 shows the instance of a launch.
    Found {
        id: WorkerId,
        slot: u32,
        attempt: u32,
    },
    /// It answers for the first time.
    Serves {
        who: Who,
        after: SignedDuration,
    },
    BootFailed {
        id: WorkerId,
        within: SignedDuration,
    },
    /// The boot failed, and no worker was heard.
    BootKept {
        id: WorkerId,
        within: SignedDuration,
    },
    /// Its network is being removed.
    SubnetGone {
        who: Who,
    },
    Unseen {
        who: Who,
        during: SignedDuration,
    },
    /// EC2 has not said whether the launch took place.
    Unresolved {
        who: Who,
    },
    LaunchNotNeeded {
        slot: u32,
    },
    // --- Health ---
    SilentOnce {
        id: WorkerId,
    },
    AnswersAgain {
        who: Who,
    },
    /// It is dead, and a brake keeps it.
    Dead {
        who: Who,
        brake: TerminationBrake,
    },
    Terminating {
        who: Who,
        cause: EndCause,
    },
    /// It was judged, and answers.
    TakenBack {
        id: WorkerId,
    },
    ZoneSpared {
        zone: String,
        during: SignedDuration,
    },
    KeepsCrashing(CrashLoop),
    CrashingReplaced {
        who: Who,
    },
    /// Its replacement answers.
    CrashingRemoved {
        who: Who,
    },
    // --- Leaving ---
    /// EC2 ended it, or a person did.
    Lost {
        id: WorkerId,
        how: Loss,
    },
    Removing {
        who: Who,
        why: LeavingReason,
        desired: DesiredCount,
    },
    Drained {
        id: WorkerId,
        why: LeavingReason,
    },
    Adopted {
        id: WorkerId,
        slot: u32,
    },
    /// It belongs to no slot.
    Unknown {
        id: WorkerId,
    },
}

impl Display for WorkerDecision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { id, slot, attempt } => write!(f, "Found {id} in slot {slot} (attempt {attempt})."),
            Self::Serves { who, after } => {
                write!(f, "{who} serves, {} s after its launch.", after.as_secs().max(0))
            }
            Self::BootFailed { id, within } => {
                write!(f, "Gave up {id}: it did not answer within {} s of its launch.", within.as_secs())
            }
            Self::BootKept { id, within } => write!(
                f,
                "{id} did not answer within {} s of its launch, but is not terminated yet: no worker was heard, so \
                 the fault may be the prober's.",
                within.as_secs()
            ),
            Self::SubnetGone { who } => write!(f, "Gave up {who}: its subnet does not exist any more."),
            Self::Unseen { who, during } => {
                write!(f, "Gave up {who}: EC2 has not shown it for {}.", in_words(*during))
            }
            Self::Unresolved { who } => {
                write!(f, "EC2 has not said whether {who} took place; another slot takes over for now.")
            }
            Self::LaunchNotNeeded { slot } => {
                write!(f, "The launch in slot {slot} is not needed any more: enough workers serve.")
            }
            Self::SilentOnce { id } => {
                write!(f, "{id} did not answer in time; after one more silent tick it is replaced.")
            }
            Self::AnswersAgain { who } => write!(f, "{who} answers again."),
            Self::Dead { who, brake } => write!(f, "{who} is dead, but not terminated yet: {brake}."),
            Self::Terminating { who, cause } => write!(f, "Terminating {who}: {cause}."),
            Self::TakenBack { id } => write!(f, "{id} answers after all and is not terminated."),
            Self::ZoneSpared { zone, during } => write!(
                f,
                "Most workers in {zone} are silent while others answer: no worker there is terminated for {}.",
                in_words(*during)
            ),
            Self::KeepsCrashing(crash_loop) => crash_loop.fmt(f),
            Self::CrashingReplaced { who } => {
                write!(f, "{who} is to be replaced, because it keeps crashing.")
            }
            Self::CrashingRemoved { who } => {
                write!(f, "Removing {who}: it keeps crashing, and others answer.")
            }
            Self::Lost { id, how } => write!(f, "Lost {id}: it {how}, not by us."),
            Self::Removing { who, why, desired } => {
                write!(f, "Removing {who}: {why} ({desired} are desired).")
            }
            Self::Drained { id, why } => write!(f, "Terminating {id}: it is drained ({why})."),
            Self::Adopted { id, slot } => write!(f, "Adopted {id} into slot {slot}."),
            Self::Unknown { id } => write!(f, "Removing {id}: it belongs to no slot."),
        }
    }
}

/// What a worker is terminated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndCause {
    Health,
    /// Its replacement needs its place in the account's quota, and was refused for so long.
    Room {
        refused: SignedDuration,
    },
    /// It never answered.
    Boot,
}

impl Display for EndCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Health => f.write_str("it does not answer, and others do"),
            Self::Room { refused } => write!(
                f,
                "it does not answer, and EC2 has refused its replacement for {}",
                in_words(*refused)
            ),
            Self::Boot => f.write_str("it never answered, and workers are heard"),
        }
    }
}

/// How an instance was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    Stopped,
    Terminated,
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "was stopped",
            Self::Terminated => "was terminated",
        })
    }
}
