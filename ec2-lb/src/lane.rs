//! The part of a connection that exists only while it serves requests.
//!
//! The state of an exchange, with its buffers, is a few KiB; a connection that waits for a request
//! needs a few words. So exchanges run in *lanes*, which are kept and used again: a connection takes
//! one when a request has come, drives it as a part of its own task, and gives it back. A lane's
//! future is an endless loop over the exchanges handed to it, so nothing is allocated for a request.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::client::Client;
use crate::deadline::Key;
use crate::place::Place;
use crate::refusal::Refusal;

/// A connection with a request on it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) client: Client,
    pub(crate) peer: IpAddr,
    pub(crate) place: Place,
    pub(crate) key: Key,
    /// The answer to a head that is not whole.
    pub(crate) why_not: Refusal,
}

/// The connection after an exchange.
#[derive(Debug)]
pub(crate) enum Done {
    /// The connection waits for the next request, whose first bytes may be in `inbound`.
    Open(Client),
    Closed,
}

/// The hand-over between a connection and the lane's future.
#[derive(Default)]
pub(crate) struct Slot {
    job: Cell<Option<Job>>,
    done: Cell<Option<Done>>,
    inbound: Cell<Vec<u8>>,
}

impl Slot {
    pub(crate) fn poll_job(&self) -> Poll<Job> {
        self.job.take().map_or(Poll::Pending, Poll::Ready)
    }

    pub(crate) fn take_inbound(&self) -> Vec<u8> {
        self.inbound.take()
    }

    /// Hands the connection back, with the bytes that were read and not used.
    pub(crate) fn finish(&self, done: Done, inbound: Vec<u8>) {
        self.inbound.set(inbound);
        self.done.set(Some(done));
    }
}

pub(crate) struct Lane {
    future: Pin<Box<dyn Future<Output = Infallible>>>,
    slot: Rc<Slot>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}

impl Lane {
    /// Makes a lane of the future that serves the jobs of a slot.
    pub(crate) fn new<F>(serve: impl FnOnce(Rc<Slot>) -> F) -> Self
    where
        F: Future<Output = Infallible> + 'static,
    {
        let slot = Rc::<Slot>::default();
        let future = Box::pin(serve(Rc::clone(&slot)));
        Self { future, slot }
    }

    /// Hands in a connection and the bytes that were read from it.
    pub(crate) fn begin(&self, job: Job, bytes: &[u8]) {
        let mut inbound = self.slot.inbound.take();
        inbound.clear();
        inbound.extend_from_slice(bytes);
        self.slot.inbound.set(inbound);
        self.slot.job.set(Some(job));
    }

    /// Drives the exchange; ready when the connection is handed back.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        match self.future.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => self.slot.done.take().map_or(Poll::Pending, Poll::Ready),
        }
    }

    /// Calls `go_on` with the bytes of the next request that have come; the slice may be empty.
    pub(crate) fn with_rest(&self, go_on: impl FnOnce(&[u8])) {
        let mut inbound = self.slot.inbound.take();
        go_on(&inbound);
        inbound.clear();
        self.slot.inbound.set(inbound);
    }
}

/// Lanes that wait for a connection.
///
/// After a burst many lanes come back, and most of them are not needed again soon. So each trim halves the
/// number of lanes that were idle since the last one.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    lanes: Vec<Lane>,
    /// The fewest since the last trim: so many were not needed.
    least: usize,
}

impl Spare {
    pub(crate) fn take(&mut self) -> Option<Lane> {
        let lane = self.lanes.pop();
        self.least = self.least.min(self.lanes.len());
        lane
    }

    pub(crate) fn put(&mut self, lane: Lane) {
        self.lanes.push(lane);
    }

    pub(crate) fn trim(&mut self) {
        self.lanes.drain(..self.least.div_ceil(2).min(self.lanes.len()));
        self.least = self.lanes.len();
        self.lanes.shrink_to(2 * self.least);
    }

    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
    }
}
