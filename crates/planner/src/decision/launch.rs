//! The outcomes of launches.

use std::fmt::{self, Display, Formatter};

use fleet::WorkerId;

use crate::held_back::{new_instance, place};
use crate::observation::Role;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LaunchDecision {
    Launched {
        id: WorkerId,
        role: Role,
        slot: u32,
        attempt: u32,
    },
    /// A memory that was lost used the attempt for a load balancer that has the address.
    UsedByHolder {
        id: WorkerId,
        role: Role,
        slot: u32,
        attempt: u32,
    },
    UsedUp {
        role: Role,
        slot: u32,
        attempt: u32,
        why: String,
    },
    /// Another zone is tried next.
    NoCapacity {
        role: Role,
        slot: u32,
        subnet: String,
        why: String,
    },
    /// The zone does not offer the instance type.
    NotOffered {
        role: Role,
        slot: u32,
        subnet: String,
        why: String,
    },
    /// The definition is to blame.
    DefinitionRefused {
        role: Role,
        release: String,
        why: String,
    },
    /// The account, or a lack of capacity in every zone, is to blame.
    Refused {
        role: Role,
        why: String,
    },
    /// A launch took place after so many refusals.
    LaunchesAgain {
        refusals: u32,
    },
}

impl Display for LaunchDecision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launched { id, role, slot, attempt } => {
                write!(f, "Launched {id} in {} (attempt {attempt}).", place(*role, *slot))
            }
            Self::UsedByHolder { id, role, slot, attempt } => write!(
                f,
                "Attempt {attempt} of {} is used up: it is {id}, which has the address.",
                place(*role, *slot)
            ),
            Self::UsedUp { role, slot, attempt, why } => {
                write!(f, "Attempt {attempt} of {} is used up: {why}.", place(*role, *slot))
            }
            Self::NoCapacity { role, slot, subnet, why } => {
                write!(f, "No capacity in {subnet} for {}: {why}; another zone is next.", place(*role, *slot))
            }
            Self::NotOffered { role, slot, subnet, why } => {
                write!(f, "{subnet} does not offer what {} needs: {why}", place(*role, *slot))
            }
            Self::DefinitionRefused { role, release, why } => {
                write!(f, "EC2 refuses to launch {} of {release}: {why}", new_instance(*role))
            }
            Self::Refused { role, why } => write!(f, "EC2 refuses to launch {}: {why}", new_instance(*role)),
            Self::LaunchesAgain { refusals: 1 } => f.write_str("EC2 launches again; it refused once."),
            Self::LaunchesAgain { refusals } => {
                write!(f, "EC2 launches again; it refused {refusals} times.")
            }
        }
    }
}
