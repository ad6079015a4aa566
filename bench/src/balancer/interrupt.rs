//! Stopping a benchmark also stops the proxies and workers that it started: they would run on for ever.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::process;

/// The exit code that a shell gives for Ctrl-C.
const EXIT_CODE: i32 = 130;

/// Waits in a thread of its own for Ctrl-C or SIGTERM; then all children are killed, the directory is
/// removed, and this process ends.
pub fn watch(dir: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        end(&dir);
    });
    Ok(())
}

#[expect(clippy::exit, reason = "the other threads wait for programs that are dead now")]
fn end(dir: &Path) {
    let family = process::family(std::process::id()).unwrap_or_default();
    // The first is this process.
    for child in family.into_iter().skip(1).filter_map(|pid| i32::try_from(pid).ok()) {
        kill(Pid::from_raw(child), Signal::SIGKILL).ok();
    }
    std::fs::remove_dir_all(dir).ok();
    std::process::exit(EXIT_CODE);
}
