//! Waits for a condition until a deadline, or until Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes the next look fail after a signal, so that everything is ended in order.
pub(crate) fn stop_at_signals() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async { process::shutdown::requested().await });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
}

pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Looks every 20 ms; returns the result and its time. The panic shows the last result.
pub(crate) fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> (T, Duration) {
    let since = Instant::now();
    loop {
        assert!(!is_interrupted(), "interrupted while waiting: {what}");
        match look() {
            Ok(found) => return (found, since.elapsed()),
            Err(seen) => {
                assert!(since.elapsed() < within, "{what}: not within {within:?}; last seen: {seen}")
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
