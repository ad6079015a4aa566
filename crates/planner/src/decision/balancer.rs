//! Decisions on load balancers and the addresses that they have.

use std::fmt::{self, Display, Formatter};

use fleet::WorkerId;
use jiff::SignedDuration;

use super::CrashLoop;
use crate::held_back::{HolderFault, Who};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BalancerDecision {
    // --- The holder of an address ---
    HasAddress {
        id: WorkerId,
    },
    LostAddress {
        id: WorkerId,
    },
    KeepsCrashing(CrashLoop),
    Moving {
        to: WorkerId,
        cause: MoveCause,
    },
    // --- The successor ---
    Launching {
        attempt: u32,
        cause: LaunchCause,
    },
    /// EC2 shows the instance of the launch.
    Found {
        id: WorkerId,
    },
    /// A deployment launched it a moment ago.
    Adopted {
        id: WorkerId,
    },
    /// EC2 ended it, or a person did.
    Lost {
        who: Who,
    },
    BootFailed {
        who: Who,
        within: SignedDuration,
    },
    /// EC2 does not answer for the zone of its launch.
    ZoneUnreachable {
        who: Who,
        zone: String,
    },
    Dismissed {
        id: WorkerId,
        why: Dismissal,
    },
    // --- Others ---
    /// It has had no address for a while.
    WithoutAddress {
        id: WorkerId,
    },
    /// The stack has given its address up.
    WithoutPlace {
        id: WorkerId,
    },
}

impl Display for BalancerDecision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasAddress { id } => write!(f, "{id} has the public address."),
            Self::LostAddress { id } => write!(f, "The load balancer {id} has lost the address."),
            Self::KeepsCrashing(crash_loop) => crash_loop.fmt(f),
            Self::Moving { to, cause } => {
                write!(f, "Moving the public address to {to}: it answers, and {cause}.")
            }
            Self::Launching { attempt, cause } => {
                write!(f, "Launching a load balancer (attempt {attempt}): {cause}.")
            }
            Self::Found { id } => write!(f, "Found {id}, launched to be the load balancer."),
            Self::Adopted { id } => write!(f, "{id} boots and is to be the load balancer."),
            Self::Lost { who } => {
                write!(f, "Lost {who} before it had the address: it was terminated, not by us.")
            }
            Self::BootFailed { who, within } => {
                write!(f, "Gave up {who}: it did not answer for {} s.", within.as_secs())
            }
            Self::ZoneUnreachable { who, zone } => {
                write!(f, "Gave up {who}: EC2 does not answer for {zone}.")
            }
            Self::Dismissed { id, why } => write!(f, "Removing {id}: {why}."),
            Self::WithoutAddress { id } => {
                write!(f, "Removing {id}: it is a load balancer without the address.")
            }
            Self::WithoutPlace { id } => write!(f, "Removing {id}: the release has no place for it."),
        }
    }
}

/// Why the address moves to a load balancer that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveCause {
    /// It is as released, and the holder is not.
    Renewal,
    Fault(HolderFault),
}

impl Display for MoveCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renewal => f.write_str("is as released"),
            Self::Fault(fault) => write!(f, "of the holder: {fault}"),
        }
    }
}

/// Why a load balancer is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaunchCause {
    Renewal,
    Fault(HolderFault),
}

impl Display for LaunchCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renewal => f.write_str("the serving one is not as released"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

/// Why a successor is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dismissal {
    HolderAnswers,
    NotAsReleased,
    AnotherAnswers,
}

impl Display for Dismissal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HolderAnswers => "the load balancer answers again",
            Self::NotAsReleased => "it is not as released",
            Self::AnotherAnswers => "another one answers already",
        })
    }
}
