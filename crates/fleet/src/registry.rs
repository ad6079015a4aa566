//! `fleet/registry.json`: the workers that should get traffic.
//!
//! The reconciler writes it, load balancers and workers read it. A reader ignores a revision older than its
//! own, so a late read can never bring a terminated worker back. A draining worker is not in it: leaving the
//! registry is the first step of draining.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{DesiredCount, WorkerAddr, WorkerId};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registry {
    /// Grows with each change and never goes back, even when writers change: the milliseconds since 1970, so
    /// that it grows even if all earlier documents are lost.
    #[serde(deserialize_with = "revision")]
    pub revision: u64,
    pub written_at: Timestamp,
    /// The desired count in force: the last valid value while the object is invalid.
    pub desired: DesiredCount,
    /// A message for people: why a desired count is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    pub workers: BTreeMap<WorkerId, RegisteredWorker>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RegisteredWorker {
    pub addr: WorkerAddr,
    pub zone: String,
}

/// The changes for a reader that goes from one registry to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryDiff {
    pub added: Vec<WorkerId>,
    pub removed: Vec<WorkerId>,
    /// Same id, other address or zone.
    pub changed: Vec<WorkerId>,
}

impl Registry {
    /// Objects larger than this are refused by readers: 100 workers are about 10 KiB.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// The reconciler never writes a higher one. A reader that took it would never take another registry.
    pub const MAX_REVISION: u64 = u64::MAX >> 1;

    pub fn diff(&self, next: &Self) -> RegistryDiff {
        RegistryDiff {
            added: next.workers.keys().filter(|id| !self.workers.contains_key(*id)).cloned().collect(),
            removed: self.workers.keys().filter(|id| !next.workers.contains_key(*id)).cloned().collect(),
            changed: next
                .workers
                .iter()
                .filter(|(id, worker)| self.workers.get(*id).is_some_and(|old| old != *worker))
                .map(|(id, _)| id.clone())
                .collect(),
        }
    }

    /// Returns whether the two are equal for a reader, revision and time apart.
    pub fn same_content(&self, other: &Self) -> bool {
        self.desired == other.desired && self.notice == other.notice && self.workers == other.workers
    }
}

fn revision<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    let revision = u64::deserialize(value)?;
    if revision <= Registry::MAX_REVISION {
        Ok(revision)
    } else {
        Err(D::Error::custom(format!("revision {revision} is out of range")))
    }
}

impl RegistryDiff {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(workers: &[(&str, &str)]) -> Registry {
        Registry {
            revision: 1,
            written_at: Timestamp::UNIX_EPOCH,
            desired: DesiredCount::try_from(2).expect("2 is within bounds"),
            notice: None,
            workers: workers
                .iter()
                .map(|(id, addr)| {
                    let worker = RegisteredWorker {
                        addr: WorkerAddr(addr.parse().expect("test address")),
                        zone: "us-east-1a".to_owned(),
                    };
                    (id.parse().expect("test id"), worker)
                })
                .collect(),
        }
    }

    #[test]
    fn diff_names_new_gone_and_moved_workers() {
        let old = registry(&[("i-a", "10.0.0.1:8080"), ("i-b", "10.0.0.2:8080")]);
        let new = registry(&[("i-b", "10.0.0.9:8080"), ("i-c", "10.0.0.3:8080")]);
        let diff = old.diff(&new);
        let ids = |list: &[WorkerId]| list.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(ids(&diff.added), ["i-c"]);
        assert_eq!(ids(&diff.removed), ["i-a"]);
        assert_eq!(ids(&diff.changed), ["i-b"]);
        assert!(old.diff(&old).is_empty());
    }

    #[test]
    fn a_revision_that_no_other_can_follow_is_refused() {
        for (revision, is_read) in [(0, true), (Registry::MAX_REVISION, true), (u64::MAX, false)] {
            let written = Registry { revision, ..registry(&[]) };
            let text = serde_json::to_string(&written).expect("registry is plain data");
            assert_eq!(serde_json::from_str::<Registry>(&text).is_ok(), is_read, "{revision}");
        }
    }

    #[test]
    fn json_form_survives_a_round_trip() {
        let registry = registry(&[("i-a", "10.0.0.1:8080")]);
        let text = serde_json::to_string(&registry).expect("registry is plain data");
        assert_eq!(serde_json::from_str::<Registry>(&text).expect("own output"), registry);
    }
}
