//! Ctrl-C and SIGTERM: a command stops at an await, never in the middle of writing a file, and `cargo lambda`
//! stops with it.
//!
//! Nothing has to be undone: resources are found by name, so the next run continues from there.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{DeployError, Exit, Result};

/// Runs a command until it ends or is told to stop.
pub async fn unless_told_to_stop<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            DeployError::new(Exit::Failed, "cannot listen for Ctrl-C and SIGTERM").caused_by(error)
        })
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        ended = command => ended,
        _ = interrupt.recv() => Err(DeployError::new(Exit::Interrupted, "interrupted")),
        _ = terminate.recv() => Err(DeployError::new(Exit::Terminated, "told to stop by SIGTERM")),
    }
}
