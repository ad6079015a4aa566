//! Keeps the table equal to the registry. It reads when the source wakes it or `/refresh` is called.
//!
//! | read | action |
//! |---|---|
//! | newer or same revision | applied |
//! | older revision | ignored, and read again: it must not become the version to compare with |
//! | missing, unreadable, too large, nonsense | the last list stays in force and grows older |

use process::telemetry::error_chain;
use tokio::sync::{mpsc, oneshot};

use crate::source::{FetchError, Fetched, RegistrySource, Version};
use crate::table::Fleet;

/// The result of a read of the registry, for the client that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refreshed {
    pub(crate) revision: Option<u64>,
    /// Why the table may be out of date.
    pub(crate) trouble: Option<String>,
}

pub(crate) type Refresh = oneshot::Sender<Refreshed>;

/// Follows the registry for as long as it is polled.
pub(crate) async fn follow(
    mut source: impl RegistrySource,
    fleet: &Fleet,
    mut refreshes: mpsc::Receiver<Refresh>,
) {
    let mut follower = Follower { fleet, version: None, trouble: None };
    let mut asked: Vec<Refresh> = Vec::new();
    loop {
        // A request that comes during a read waits for the next one: the current one may have begun too early.
        while let Ok(refresh) = refreshes.try_recv() {
            asked.push(refresh);
        }
        let seen = source.fetch(follower.version.as_ref()).await;
        follower.apply(seen);
        for refresh in asked.drain(..) {
            // The client may have disconnected.
            drop(refresh.send(follower.refreshed()));
        }
        tokio::select! {
            () = source.wake() => {}
            Some(refresh) = refreshes.recv() => asked.push(refresh),
        }
    }
}

struct Follower<'a> {
    fleet: &'a Fleet,
    /// Version of the document in force; never of a refused document.
    version: Option<Version>,
    trouble: Option<String>,
}

impl Follower<'_> {
    fn apply(&mut self, seen: Result<Fetched, FetchError>) {
        let held = self.fleet.revision();
        if seen.is_ok() {
            self.fleet.mark_reached();
        }
        let trouble = match (seen, held) {
            (Ok(Fetched::Unchanged), _) => None,
            (Ok(Fetched::Found { registry, .. }), Some(held)) if registry.revision < held => Some(format!(
                "the registry has revision {}, older than {held}, the one in force",
                registry.revision
            )),
            (Ok(Fetched::Found { registry, version }), _) => {
                self.version = version;
                self.fleet.apply(registry);
                None
            }
            (Ok(Fetched::Missing), None) => Some("there is no registry yet".to_owned()),
            (Ok(Fetched::Missing), Some(_)) => Some("the registry is gone".to_owned()),
            (Err(error), _) => {
                // The causes name a request id, new each time; only the top line can repeat.
                let top = error.to_string();
                if self.trouble.as_ref() != Some(&top) {
                    tracing::warn!(error = error_chain(&error), "a read of the registry failed");
                }
                Some(top)
            }
        };
        if trouble.is_none() {
            self.fleet.confirm();
        }
        self.report(trouble);
    }

    /// Logs a problem when it begins, changes or ends, not at each read.
    fn report(&mut self, trouble: Option<String>) {
        if trouble == self.trouble {
            return;
        }
        match &trouble {
            Some(trouble) => tracing::warn!(
                trouble,
                revision = self.fleet.revision(),
                "the registry cannot be followed; the last list of workers stays in force"
            ),
            None if self.trouble.is_some() => {
                tracing::info!(revision = self.fleet.revision(), "the registry is followed again");
            }
            None => {}
        }
        self.trouble = trouble;
    }

    fn refreshed(&self) -> Refreshed {
        Refreshed { revision: self.fleet.revision(), trouble: self.trouble.clone() }
    }
}
