//! One thread of the data plane: its listeners, its connections, and what they share.
//!
//! Threads share nothing on the way of a request but the worker table and the workers' counters.
//! Everything else is here, behind `Cell`s that are never held
//! across a wait.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http1::request::{Method, Version};
use nix::sys::socket::SockFlag;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use socket2::Socket as Listener;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::Config;
use crate::connection::Connection;
use crate::deadline::{Deadlines, Key, SWEEP};
use crate::lane::{Lane, Spare};
use crate::limits::{Limits, READ_BUFFER};
use crate::metrics::Counters;
use crate::pipe::Pipes;
use crate::refusal::Refusal;
use crate::retry::{Budget, UploadFault};
use crate::shares::{Arrival, Full, Kind, Place, Shares};
use crate::socket::Socket;
use crate::table::Fleet;
use crate::tls::Certificate;
use crate::upstream::Pools;

/// After a failed accept, usually for want of descriptors: somebody has to hang up first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is kept for later is looked through once in so many sweeps: once a second.
const SWEEPS_PER_TIDYING: u32 = 20;

/// What all threads have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) fleet: Arc<Fleet>,
    /// The newest certificate, when TLS is spoken.
    pub(crate) certificate: Certificate,
}

/// The sockets of one thread.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) plain: std::net::TcpListener,
    pub(crate) tls: Option<std::net::TcpListener>,
}

#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) shared: Shared,
    /// Where it listens.
    pub(crate) address: IpAddr,
    pub(crate) counters: Arc<Counters>,
    pub(crate) deadlines: Deadlines,
    pub(crate) pools: RefCell<Pools>,
    pub(crate) pipes: RefCell<Pipes>,
    /// Every read of this thread goes here first.
    pub(crate) scratch: RefCell<Box<[u8]>>,
    pub(crate) rng: RefCell<SmallRng>,
    pub(crate) budget: RefCell<Budget>,
    pub(crate) shares: Rc<Shares>,
    /// Of idle connections to one worker.
    pub(crate) max_idle: usize,
    lanes: RefCell<Spare>,
    all_closed: Notify,
    is_draining: Cell<bool>,
}

impl Thread {
    fn new(shared: Shared, address: IpAddr, counters: Arc<Counters>, threads: usize) -> Self {
        let limits = &shared.config.limits;
        Self {
            deadlines: Deadlines::new(shared.fleet.epoch()),
            shares: Rc::new(Shares::new(limits, threads, Arc::clone(&counters))),
            max_idle: limits.idle_per_worker / threads,
            counters,
            pools: RefCell::default(),
            pipes: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            rng: RefCell::new(SmallRng::from_os_rng()),
            budget: RefCell::default(),
            lanes: RefCell::default(),
            all_closed: Notify::new(),
            is_draining: Cell::new(false),
            address,
            shared,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.config.limits
    }

    /// How old an idle connection to a worker may become.
    pub(crate) fn max_idle_ms(&self) -> u64 {
        u64::try_from(self.limits().idle_worker.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Counts a handshake or a request of which a part has come, until the guard is dropped. If there
    /// is no room, a slower one makes it.
    pub(crate) fn arrive(&self, kind: Kind, place: Place, key: Key) -> Result<Arrival, Refusal> {
        let arrived = self.shares.arrive(kind, place, key, self.deadlines.now_ms());
        let (arrival, victim) = arrived.map_err(|full| self.full(full))?;
        if let Some(victim) = victim {
            self.counters.dropped.add();
            self.deadlines.wake(victim);
        }
        Ok(arrival)
    }

    /// What is wrong with a body that has to be waited for, if anything.
    pub(crate) fn lateness(&self, arrival: &Arrival) -> Option<UploadFault> {
        let grace_ms = u64::try_from(self.limits().upload_grace.as_millis()).unwrap_or(u64::MAX);
        match () {
            () if arrival.is_dropped() => Some(UploadFault::Dropped),
            () if arrival.is_too_slow(grace_ms, self.deadlines.now_ms()) => Some(UploadFault::TooSlow),
            () => None,
        }
    }

    /// Counts what there is no room for.
    pub(crate) fn full(&self, full: Full) -> Refusal {
        match full {
            Full::Share => self.counters.over_share.add(),
            Full::All => self.counters.shed.add(),
        }
        match full {
            Full::Share => Refusal::OverShare,
            Full::All => Refusal::Overloaded,
        }
    }

    /// A new request id: 128 random bits, in hexadecimal.
    pub(crate) fn new_id(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes: [u8; 16] = self.rng.borrow_mut().random();
        std::array::from_fn(|at| {
            let byte = bytes[at / 2];
            DIGITS[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 0xf })]
        })
    }

    pub(crate) fn lane(self: &Rc<Self>) -> Lane {
        let spare = self.lanes.borrow_mut().take();
        spare.unwrap_or_else(|| Lane::new(Rc::clone(self)))
    }

    pub(crate) fn put_back(&self, lane: Lane) {
        self.lanes.borrow_mut().put(lane);
    }

    pub(crate) fn opened(&self, place: Place) {
        self.shares.add(Kind::Connection, place);
    }

    pub(crate) fn closed(&self, place: Place) {
        self.shares.sub(Kind::Connection, place);
        self.shares.leave(place);
        if self.open() == 0 {
            self.all_closed.notify_one();
        }
    }

    fn open(&self) -> usize {
        self.shares.total(Kind::Connection)
    }

    /// Whether one more connection may be opened, at the expense of another if need be.
    fn make_room(&self, place: Place) -> Result<(), Full> {
        let Err(full) = self.shares.room(Kind::Connection, place) else { return Ok(()) };
        let of = (full == Full::Share).then_some(place);
        if self.deadlines.evict_idle(of) {
            return Ok(());
        }
        let now_ms = self.deadlines.now_ms();
        let slowest = self.shares.drop_slowest(Kind::Arriving, of, now_ms).ok_or(full)?;
        self.counters.dropped.add();
        self.deadlines.wake(slowest);
        Ok(())
    }
}

/// Serves until `stop` says so and what is in flight then is answered. Runs on a `LocalSet`.
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
        // An error means that nobody is left who could say it.
        drop(stop.wait_for(|stop| *stop).await);
    };
    tokio::select! {
        () = stopped => {}
        () = accept_all(&thread, &plain, Protocol::Plain) => {}
        () = accept_tls(&thread, tls.as_ref()) => {}
        () = keep_time(&thread) => {}
    }
    // Whoever waits in the queues would be reset when they are closed.
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
            // One attempt: a fresh socket has room, and nobody waits here.
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

/// Ends what has waited too long.
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
