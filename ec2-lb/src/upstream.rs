//! Connections to workers: opened, kept while idle, taken again. Each thread keeps its own.
//!
//! A connection that is idle here may already be closed by the worker; whoever takes one must be
//! able to start over. Therefore only requests that may be repeated take one, see `exchange.rs`.

use std::collections::HashMap;
use std::io;
use std::task::{Context, Poll};

use fleet::WorkerAddr;
use tokio::net::TcpStream;

use crate::client::poll_receive;
use crate::worker::Worker;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the worker refuses the connection")]
    Refused(#[source] io::Error),
    #[error("the worker does not accept the connection in time")]
    TimedOut,
    /// Ejecting workers for it would eject them all.
    #[error("this machine cannot open another connection")]
    Ours(#[source] io::Error),
}

/// Opens a connection. The caller bounds the wait.
pub(crate) async fn dial(addr: WorkerAddr) -> Result<TcpStream, DialError> {
    let stream = TcpStream::connect(addr.0).await.map_err(classify)?;
    // A failure only costs latency.
    drop(stream.set_nodelay(true));
    Ok(stream)
}

fn classify(error: io::Error) -> DialError {
    /// `EMFILE` and `ENFILE`: no descriptor left in the process or the system.
    const NO_DESCRIPTOR: [i32; 2] = [24, 23];
    let is_ours = error.raw_os_error().is_some_and(|code| NO_DESCRIPTOR.contains(&code))
        || matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory);
    match error.kind() {
        _ if is_ours => DialError::Ours(error),
        io::ErrorKind::TimedOut => DialError::TimedOut,
        _ => DialError::Refused(error),
    }
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since_ms: u64,
    /// The worker's, when the connection was put here; another one now means that it is gone.
    generation: u64,
}

/// The idle connections of one thread, newest last.
#[derive(Debug, Default)]
pub(crate) struct Pools(HashMap<u64, Vec<Idle>>);

impl Pools {
    /// The most recently used connection to `worker` that does not look closed. That is known without
    /// asking the kernel: an event on the socket has marked it readable.
    pub(crate) fn take(
        &mut self,
        worker: &Worker,
        now_ms: u64,
        max_age_ms: u64,
        cx: &mut Context<'_>,
    ) -> Option<TcpStream> {
        let pool = self.0.get_mut(&worker.number)?;
        while let Some(mut idle) = pool.pop() {
            let is_current =
                idle.generation == worker.generation() && now_ms.saturating_sub(idle.since_ms) < max_age_ms;
            if is_current && poll_receive(&mut idle.stream, cx, &mut [0]).is_pending() {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Keeps a connection, unless there are `max` already.
    pub(crate) fn put(&mut self, worker: &Worker, stream: TcpStream, now_ms: u64, max: usize) {
        let pool = self.0.entry(worker.number).or_default();
        if pool.len() < max {
            pool.push(Idle { stream, since_ms: now_ms, generation: worker.generation() });
        }
    }

    /// Drops what is too old, closed, or goes to a worker that has left the table.
    pub(crate) fn sweep<'w>(
        &mut self,
        workers: &(impl Iterator<Item = &'w Worker> + Clone),
        now_ms: u64,
        max_age_ms: u64,
        cx: &mut Context<'_>,
    ) {
        self.0.retain(|number, pool| {
            let Some(worker) = workers.clone().find(|worker| worker.number == *number) else { return false };
            pool.retain_mut(|idle| {
                idle.generation == worker.generation()
                    && now_ms.saturating_sub(idle.since_ms) < max_age_ms
                    && matches!(poll_receive(&mut idle.stream, cx, &mut [0]), Poll::Pending)
            });
            if pool.is_empty() {
                pool.shrink_to_fit();
            }
            true
        });
    }
}
