//! Raises the number of files that this process may open: each connection through an Elastic IP takes two,
//! and the usual limit of 1024 would end a flood before the instance notices it.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limit in Vigia's own units; more than any flood from one machine needs.
const WANTED: u64 = 1_048_576;

/// Raises the limit as far as this process may: beyond the hard limit only with privileges.
pub fn raise() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = soft >= WANTED
        || setrlimit(Resource::RLIMIT_NOFILE, WANTED, hard.max(WANTED)).is_ok()
        || setrlimit(Resource::RLIMIT_NOFILE, hard.min(WANTED), hard).is_ok();
    if !raised {
        tracing::warn!(soft, hard, "the limit of open files stays as it is");
    }
}
