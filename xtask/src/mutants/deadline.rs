//! Runs a program that may never end.

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub(super) enum Ended {
    With(ExitStatus),
    /// It was killed at the deadline.
    Not,
}

/// Runs a program, and kills it if it needs longer.
pub(super) fn run_within(command: &mut Command, longest: Duration) -> Result<Ended> {
    let begun = Instant::now();
    let mut child =
        command.spawn().with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::With(status));
        }
        if begun.elapsed() > longest {
            child.kill()?;
            child.wait()?;
            return Ok(Ended::Not);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
