//! One thread of the data plane: it accepts connections, ends those whose time is over, and drains.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http1::request::{Method, Version};
use nix::sys::socket::SockFlag;
use socket2::Socket as Listener;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::connection::Connection;
use crate::deadline::SWEEP;
use crate::metrics::Counters;
use crate::socket::Socket;
use crate::thread::{Shared, Thread};

/// Pause after a failed accept. Usually no descriptor is free, and a connection has to close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Idle lanes and connections to workers are trimmed once in so many sweeps: once a second.
const SWEEPS_PER_TIDYING: u32 = 20;

/// The sockets of one thread.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) plain: std::net::TcpListener,
    pub(crate) tls: Option<std::net::TcpListener>,
}

/// Serves until `stop` becomes true and the requests in flight are answered. Runs on a `LocalSet`.
pub(crate) async fn run(
    shared: Shared,
    counters: Arc<Counters>,
    threads: usize,
    listeners: Listeners,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let address = listeners.plain.local_addr()?.ip();
    let thread = Rc::new(Thread::new(shared, address, counters, threads));
    let plain = watch_listener(listeners.plain)?;
    let tls = listeners.tls.map(watch_listener).transpose()?;
    let stopped = async {
        // An error means that the sender is gone, which stops the thread as well.
        drop(stop.wait_for(|stop| *stop).await);
    };
    tokio::select! {
        () = stopped => {}
        () = accept_all(&thread, &plain, Protocol::Plain) => {}
        () = accept_tls(&thread, tls.as_ref()) => {}
        () = keep_time(&thread) => {}
    }
    // Closing the listeners would reset the connections that wait in their queues.
    accept_waiting(&thread, plain.get_ref(), Protocol::Plain);
    if let Some(tls) = &tls {
        accept_waiting(&thread, tls.get_ref(), Protocol::Tls);
    }
    drop((plain, tls));
    drain(&thread).await;
    // A connection that is left refers to the thread through its lane.
    thread.lanes.borrow_mut().clear();
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Plain,
    Tls,
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for descriptors that others may close; this one is owned"
)]
fn watch_listener(listener: std::net::TcpListener) -> io::Result<AsyncFd<Listener>> {
    AsyncFd::with_interest(listener.into(), Interest::READABLE)
}

/// A connection as the runtime does not know it, see `socket.rs`.
fn accept(listener: &Listener) -> io::Result<(TcpStream, IpAddr)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (stream, peer) = listener.accept4(flags.bits())?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((stream.into(), peer.ip()))
}

async fn accept_tls(thread: &Rc<Thread>, listener: Option<&AsyncFd<Listener>>) {
    match listener {
        Some(listener) => accept_all(thread, listener, Protocol::Tls).await,
        None => std::future::pending().await,
    }
}

async fn accept_all(thread: &Rc<Thread>, listener: &AsyncFd<Listener>, protocol: Protocol) {
    loop {
        match listener.async_io(Interest::READABLE, accept).await {
            Ok((stream, peer)) => admit(thread, stream, peer, protocol),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn accept_waiting(thread: &Rc<Thread>, listener: &Listener, protocol: Protocol) {
    while let Ok((stream, peer)) = accept(listener) {
        admit(thread, stream, peer, protocol);
    }
}

fn admit(thread: &Rc<Thread>, stream: TcpStream, peer: IpAddr, protocol: Protocol) {
    let place = thread.shares.place(peer);
    if let Err(full) = thread.make_room(place) {
        thread.shares.leave(place);
        let refusal = thread.full(full);
        let mut out = Vec::new();
        refusal.write(Method::Get, Version::Http11, &thread.new_id(), false, &mut out);
        if matches!(protocol, Protocol::Plain) {
            // One attempt without waiting: a fresh socket has room.
            drop((&stream).write(&out));
        }
        return;
    }
    let connection = match protocol {
        Protocol::Plain => Connection::plain(Rc::clone(thread), Socket::new(stream), peer, place),
        Protocol::Tls => match (thread.shared.certificate.current(), stream.try_into()) {
            (Some(config), Ok(stream)) => Connection::tls(Rc::clone(thread), stream, peer, place, config),
            (None, _) | (_, Err(_)) => return thread.shares.leave(place),
        },
    };
    tokio::task::spawn_local(connection);
}

/// Ends connections whose deadline has passed, and now and then frees idle buffers and connections to workers.
async fn keep_time(thread: &Rc<Thread>) {
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut until_tidying = SWEEPS_PER_TIDYING;
    loop {
        sweeps.tick().await;
        thread.deadlines.sweep();
        until_tidying -= 1;
        if until_tidying == 0 {
            until_tidying = SWEEPS_PER_TIDYING;
            thread.lanes.borrow_mut().trim();
            tidy_pools(thread).await;
        }
    }
}

async fn tidy_pools(thread: &Thread) {
    poll_fn(|cx| {
        let table = thread.shared.fleet.table();
        let workers = table.workers.iter().map(|worker| &**worker);
        let (now_ms, max_age_ms) = (thread.deadlines.now_ms(), thread.max_idle_ms());
        thread.pools.borrow_mut().sweep(&workers, now_ms, max_age_ms, cx);
        Poll::Ready(())
    })
    .await;
}

/// Waits for the requests in flight; idle connections end at once.
async fn drain(thread: &Rc<Thread>) {
    thread.is_draining.set(true);
    thread.deadlines.wake_all();
    let patience = thread.limits().drain;
    let all_closed = async {
        while thread.open() > 0 {
            thread.all_closed.notified().await;
        }
    };
    let waited = tokio::select! {
        waited = timeout(patience, all_closed) => waited,
        () = keep_time(thread) => return,
    };
    if waited.is_err() {
        tracing::warn!(connections = thread.open(), "connections are cut at the end of the drain");
    }
}
