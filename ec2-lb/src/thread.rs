//! The state of one thread of the data plane, which all its connections share.
//!
//! Threads share only the worker table and the workers' counters on the path of a request. Everything else
//! is here, behind `Cell`s that are never held across an await.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::sync::Notify;

use crate::Config;
use crate::deadline::{Deadlines, Key};
use crate::lane::{Lane, Spare};
use crate::limits::{Kind, Limits, READ_BUFFER};
use crate::metrics::Counters;
use crate::pipe::Pipes;
use crate::place::Place;
use crate::refusal::Refusal;
use crate::retry::{Budget, UploadFault};
use crate::shares::{Arrival, Full, Shares};
use crate::table::Fleet;
use crate::tls::Certificate;
use crate::upstream::Pools;

/// The state that all threads share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) fleet: Arc<Fleet>,
    /// The newest certificate, when TLS is spoken.
    pub(crate) certificate: Certificate,
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
    pub(crate) lanes: RefCell<Spare>,
    pub(crate) all_closed: Notify,
    pub(crate) is_draining: Cell<bool>,
}

impl Thread {
    pub(crate) fn new(shared: Shared, address: IpAddr, counters: Arc<Counters>, threads: usize) -> Self {
        let limits = &shared.config.limits;
        Self {
            deadlines: Deadlines::new(shared.fleet.epoch()),
            shares: Rc::new(Shares::new(limits, threads, Arc::clone(&counters))),
            max_idle: limits.idle_per_worker / threads,
            counters,
            pools: RefCell::default(),
            pipes: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            rng: RefCell::new(rand::make_rng()),
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

    /// Returns why an arriving body must not be waited for any longer, if it must not.
    pub(crate) fn lateness(&self, arrival: &Arrival) -> Option<UploadFault> {
        let grace_ms = u64::try_from(self.limits().upload_grace.as_millis()).unwrap_or(u64::MAX);
        match () {
            () if arrival.is_dropped() => Some(UploadFault::Dropped),
            () if arrival.is_too_slow(grace_ms, self.deadlines.now_ms()) => Some(UploadFault::TooSlow),
            () => None,
        }
    }

    /// Counts a request or connection without room, and returns its refusal.
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

    /// Returns a lane that waits for a connection, if there is one.
    pub(crate) fn spare_lane(&self) -> Option<Lane> {
        self.lanes.borrow_mut().take()
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

    pub(crate) fn open(&self) -> usize {
        self.shares.total(Kind::Connection)
    }

    /// Whether one more connection may be opened, at the expense of another if need be.
    pub(crate) fn make_room(&self, place: Place) -> Result<(), Full> {
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
