//! SIGTERM and Ctrl-C as one future.

use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first SIGTERM or SIGINT. Call it once, early: the handlers are installed when
/// it is called, so that a signal during start-up is not lost.
pub fn requested() -> impl Future<Output = ()> + Send + 'static {
    let term = signal(SignalKind::terminate());
    let interrupt = signal(SignalKind::interrupt());
    async move {
        match (term, interrupt) {
            (Ok(mut term), Ok(mut interrupt)) => {
                tokio::select! {
                    _ = term.recv() => tracing::info!("asked to stop by SIGTERM"),
                    _ = interrupt.recv() => tracing::info!("asked to stop by SIGINT"),
                }
            }
            (term, interrupt) => {
                for error in [term.err(), interrupt.err()].into_iter().flatten() {
                    tracing::error!(%error, "cannot listen for stop signals; only SIGKILL will end this process");
                }
                std::future::pending::<()>().await;
            }
        }
    }
}
