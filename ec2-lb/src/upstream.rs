//! Connections to workers: opened, kept while idle, taken again. Each thread keeps its own.
//!
//! A connection that is idle here may already be closed by the worker, and the request on it must then be
//! sent again. So only requests that may be repeated take an idle connection, see `forward.rs`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use fleet::WorkerAddr;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use tokio::net::{TcpSocket, TcpStream};

use crate::client::poll_receive;
use crate::worker::Worker;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the worker refuses the connection")]
    Refused(#[source] io::Error),
    #[error("the worker does not accept the connection in time")]
    TimedOut,
    /// Ejecting workers for it would eject them all.
    #[error("this machine cannot open another connection; raise its limits of open files and ports")]
    Ours(#[source] io::Error),
}

/// Opens a connection, from `source` if one is given. The caller bounds the wait.
pub(crate) async fn dial(addr: WorkerAddr, source: Option<IpAddr>) -> Result<TcpStream, DialError> {
    let connected = match source {
        Some(source) => connect_from(source, addr.0).await,
        None => TcpStream::connect(addr.0).await,
    };
    let stream = connected.map_err(classify)?;
    // A failure only costs latency.
    drop(stream.set_nodelay(true));
    Ok(stream)
}

async fn connect_from(source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The port is then chosen when the other end is known, and each worker has all of them. A kernel
    // that refuses it gives a port to this connection alone: 28,000 at a time for all workers together.
    setsockopt(&socket, IpBindAddressNoPort, &true).ok();
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(to).await
}

/// Returns the source address for connections to a worker: the address on which this load balancer listens,
/// by which the worker recognises it. `None` leaves the choice to the kernel, which takes the address of the
/// outgoing interface; an instance has only one.
///
/// From a loopback address only this machine can be reached.
pub(crate) fn source(listen: IpAddr, worker: IpAddr) -> Option<IpAddr> {
    let is_usable = !listen.is_unspecified()
        && listen.is_ipv4() == worker.is_ipv4()
        && (!listen.is_loopback() || worker.is_loopback());
    is_usable.then_some(listen)
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
    /// Returns the most recently used connection to `worker` that does not look closed. This needs no system
    /// call: when the worker closes a connection, an event marks the socket readable.
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

    /// Drops connections that are too old, closed, or lead to a worker that has left the table.
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

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn workers_are_reached_from_where_the_load_balancer_listens() {
        for (listen, worker, expected) in [
            ("10.77.0.9", "10.77.128.4", Some("10.77.0.9")),
            ("127.77.0.9", "127.77.128.4", Some("127.77.0.9")),
            ("10.77.0.9", "127.0.0.1", Some("10.77.0.9")),
            ("127.0.0.1", "10.77.128.4", None),
            ("0.0.0.0", "10.77.128.4", None),
            ("::", "fd00::1", None),
            ("10.77.0.9", "fd00::1", None),
        ] {
            let address = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(source(address(listen), address(worker)), expected.map(address), "{listen} {worker}");
        }
    }

    #[tokio::test]
    async fn a_connection_from_a_given_address_takes_no_port_from_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let worker = WorkerAddr(listener.local_addr().expect("bound"));
        let source = "127.0.0.7".parse().expect("an address");
        let stream = dial(worker, Some(source)).await.expect("it listens");
        assert_eq!(stream.local_addr().expect("connected").ip(), source);
        assert_eq!(getsockopt(&stream, IpBindAddressNoPort), Ok(true));
    }

    #[tokio::test]
    async fn a_lost_source_address_is_not_the_workers_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let worker = WorkerAddr(listener.local_addr().expect("bound"));
        let gone = "192.0.2.7".parse().expect("an address for documentation");
        let error = dial(worker, Some(gone)).await.expect_err("no interface has this address");
        assert!(matches!(error, DialError::Ours(_)), "{error:?}");
    }
}
