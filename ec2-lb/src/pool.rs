//! Idle connections to one worker, newest first.
//!
//! A connection that is idle here may already be closed by the worker; whoever takes one must be
//! able to start over. Therefore only requests that may be repeated take one, see `forward.rs`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::upstream::Sender;

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    /// The worker left the table: connections end with their requests.
    is_closed: bool,
}

impl Pool {
    /// The most recently used connection that can take a request right now.
    pub(crate) fn take(&self, now: Instant, idle_timeout: Duration) -> Option<Sender> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.idle.retain(|idle| is_usable(idle, now, idle_timeout));
        // One that is not ready still has a response to put behind it, which takes microseconds.
        let index = state.idle.iter().rposition(|idle| idle.sender.is_ready())?;
        Some(state.idle.remove(index).sender)
    }

    /// Keeps a connection, unless there are `max` already or the worker has left.
    pub(crate) fn put(&self, sender: Sender, now: Instant, max: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_closed && state.idle.len() < max {
            state.idle.push(Idle { sender, since: now });
        }
    }

    /// Drops what is too old or closed.
    pub(crate) fn sweep(&self, now: Instant, idle_timeout: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.idle.retain(|idle| is_usable(idle, now, idle_timeout));
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).idle.clear();
    }

    /// Drops all, and every connection that comes back later.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_closed = true;
        state.idle.clear();
    }
}

fn is_usable(idle: &Idle, now: Instant, idle_timeout: Duration) -> bool {
    !idle.sender.is_closed() && now.saturating_duration_since(idle.since) < idle_timeout
}
