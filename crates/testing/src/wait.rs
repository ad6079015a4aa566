//! Waiting for a condition, with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// Repeats `look` until it finds something, and returns that; the panic shows what the last look saw.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "not within {within:?}: {what}\nlast: {seen}"),
        }
        // Short against what tests wait for, long against what a look costs.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
