//! What the reconciler decided, or noticed, and does something about. Tests match the variants; `status`, the
//! dashboard, the log and `state.json` have the sentences.
//!
//! The sentences are stored: an older or newer version shows them as they are. Nothing reads them back.
//!
//! | area | in |
//! |---|---|
//! | workers: boots, health, and who leaves | `worker` |
//! | load balancers and their addresses | `balancer` |
//! | the outcomes of launches | `launch` |
//! | `release.json`, `desired-count`, `state.json` | `document` |

mod balancer;
mod document;
mod launch;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt::{self, Display, Formatter};

use fleet::WorkerId;
use fleet::memory::Memory;
use jiff::{SignedDuration, Timestamp};

use crate::held_back::in_words;

pub use balancer::{BalancerDecision, Dismissal, LaunchCause, MoveCause};
pub use document::{CountDecision, ReleaseDecision, StateDecision};
pub use launch::LaunchDecision;
pub use worker::{EndCause, Loss, WorkerDecision};

/// One decision. [`Memory`] keeps the newest ones as events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    Worker(WorkerDecision),
    Balancer(BalancerDecision),
    Launch(LaunchDecision),
    Release(ReleaseDecision),
    Count(CountDecision),
    State(StateDecision),
}

impl Decision {
    /// Writes the sentence into memory, and returns the number of new events.
    pub(crate) fn record(&self, memory: &mut Memory, now: Timestamp) -> usize {
        let text = self.to_string();
        match self {
            // Its numbers matter: each change is an event of its own.
            Self::Count(CountDecision::Changed { .. }) => {
                memory.record_each(now, text);
                1
            }
            _ => memory.record(now, text),
        }
    }
}

impl Display for Decision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(decision) => decision.fmt(f),
            Self::Balancer(decision) => decision.fmt(f),
            Self::Launch(decision) => decision.fmt(f),
            Self::Release(decision) => decision.fmt(f),
            Self::Count(decision) => decision.fmt(f),
            Self::State(decision) => decision.fmt(f),
        }
    }
}

macro_rules! from_areas {
    ($($area:ident($decision:ty)),+) => {
        $(impl From<$decision> for Decision {
            fn from(decision: $decision) -> Self {
                Self::$area(decision)
            }
        })+
    };
}

from_areas!(
    Worker(WorkerDecision),
    Balancer(BalancerDecision),
    Launch(LaunchDecision),
    Release(ReleaseDecision),
    Count(CountDecision),
    State(StateDecision)
);

/// A program that was restarted so often within so long.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrashLoop {
    pub id: WorkerId,
    pub restarts: usize,
    pub within: SignedDuration,
}

impl Display for CrashLoop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { id, restarts, within } = self;
        write!(f, "{id} keeps crashing: {restarts} restarts were seen within {}.", in_words(*within))
    }
}
