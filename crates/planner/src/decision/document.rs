//! Decisions on the documents in S3, and on the release and the count that are in force.

use std::fmt::{self, Display, Formatter};

use fleet::DesiredCount;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReleaseDecision {
    /// `release.json` cannot be read.
    Unread {
        why: String,
    },
    Proven {
        release: String,
    },
    /// The account has no room for an extra worker.
    StopsFirst {
        release: String,
    },
}

impl Display for ReleaseDecision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread { why } => {
                write!(f, "release.json cannot be read, so the last release stays in force: {why}.")
            }
            Self::Proven { release } => write!(f, "Release {release} has proved itself."),
            Self::StopsFirst { release } => write!(
                f,
                "The rollout of release {release} goes on by stopping one worker first: the account has no room for \
                 an extra one."
            ),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CountDecision {
    Changed {
        from: Option<DesiredCount>,
        to: DesiredCount,
    },
    /// State was lost.
    FromRegistry {
        desired: DesiredCount,
    },
    /// The object cannot be read or is no count; the notice says so to everyone who reads the registry.
    Ignored {
        notice: String,
    },
}

impl Display for CountDecision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { from: Some(from), to } => {
                write!(f, "Desired count changed from {from} to {to}.")
            }
            Self::Changed { from: None, to } => write!(f, "Desired count changed from nothing to {to}."),
            Self::FromRegistry { desired } => {
                write!(f, "Desired count {desired} is taken from the registry.")
            }
            Self::Ignored { notice } => write!(f, "{notice}."),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StateDecision {
    BeganEmpty {
        why: String,
    },
    /// Waiting for a time in the future would never end.
    TimesReset {
        times: usize,
    },
    /// Attempts or a revision that no reconciler has counted to.
    NumbersDropped {
        numbers: usize,
    },
}

impl Display for StateDecision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeganEmpty { why } => {
                write!(f, "state.json could not be parsed ({why}): the state began empty.")
            }
            Self::TimesReset { times } => {
                write!(f, "{times} times in state.json lay in the future and were reset to now.")
            }
            Self::NumbersDropped { numbers } => {
                write!(f, "{numbers} numbers in state.json are too high and were dropped.")
            }
        }
    }
}
