//! Each client address's share of this thread's limits. No address gets all of any limit.
//!
//! ```text
//!  connections ⊇ handshakes (TLS), arriving (a head or a body), held (no worker is there),
//!                in flight (a worker is chosen)
//! ```
//!
//! An address is an IPv4 address or a /64 of IPv6, which is what one subscriber has. All is counted by
//! thread: nothing here is shared, and the kernel spreads connections evenly over the threads. A
//! connection looks its address up once; after that counting is an addition.
//!
//! A request that arrives whole never counts as arriving. When there is no room for one more, the request
//! that is furthest behind the minimum rate is dropped: from the same address if that has its share,
//! otherwise from all.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use crate::deadline::Key;
use crate::limits::{KINDS, Kind, Limits};
use crate::metrics::Counters;
use crate::pace::Pace;
use crate::place::Place;

/// Why there is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The address has its share.
    Share,
    /// All addresses together have all.
    All,
}

/// How many there may be, in all and of one address.
#[derive(Clone, Copy, Debug)]
struct Bound {
    all: usize,
    each: usize,
}

#[derive(Debug)]
struct Used {
    block: IpAddr,
    counts: [usize; KINDS],
}

#[derive(Debug)]
pub(crate) struct Shares {
    bounds: [Bound; KINDS],
    /// Bytes a second.
    rate: u64,
    places: RefCell<HashMap<IpAddr, Place>>,
    used: RefCell<Slab<Used>>,
    totals: [Cell<usize>; KINDS],
    arrivals: RefCell<Slab<Arriving>>,
    counters: Arc<Counters>,
}

/// A handshake, or a request of which a part has come.
#[derive(Debug)]
struct Arriving {
    kind: Kind,
    place: Place,
    key: Key,
    pace: Pace,
    is_dropped: bool,
}

impl Shares {
    /// The shares of one of `threads`.
    pub(crate) fn new(limits: &Limits, threads: usize, counters: Arc<Counters>) -> Self {
        let bound = |all: usize| {
            let all = all.div_ceil(threads);
            Bound { all, each: all.div_ceil(limits.shares.max(1)).max(1) }
        };
        Self {
            bounds: [
                bound(limits.connections),
                bound(limits.handshakes),
                bound(limits.arriving),
                bound(limits.held),
                bound(limits.in_flight),
            ],
            rate: limits.client_rate,
            places: RefCell::default(),
            used: RefCell::default(),
            totals: Default::default(),
            arrivals: RefCell::default(),
            counters,
        }
    }

    /// The place of an address, which lasts until [`Shares::leave`].
    pub(crate) fn place(&self, peer: IpAddr) -> Place {
        let block = block(peer);
        let mut used = self.used.borrow_mut();
        *self.places.borrow_mut().entry(block).or_insert_with(|| {
            let index = used.insert(Used { block, counts: [0; KINDS] });
            Place::new(index)
        })
    }

    /// Forgets an address that has no connection.
    pub(crate) fn leave(&self, place: Place) {
        let mut used = self.used.borrow_mut();
        let is_gone = used.get(place.index()).is_some_and(|used| used.counts == [0; KINDS]);
        if is_gone {
            let gone = used.remove(place.index());
            self.places.borrow_mut().remove(&gone.block);
        }
    }

    pub(crate) fn total(&self, kind: Kind) -> usize {
        self.totals[kind as usize].get()
    }

    /// Whether there is room for one more. An address that may have all has no share.
    pub(crate) fn room(&self, kind: Kind, place: Place) -> Result<(), Full> {
        let Bound { all, each } = self.bounds[kind as usize];
        let of_place = self.used.borrow().get(place.index()).map_or(0, |used| used.counts[kind as usize]);
        match () {
            () if of_place >= each && each < all => Err(Full::Share),
            () if self.total(kind) >= all => Err(Full::All),
            () => Ok(()),
        }
    }

    pub(crate) fn add(&self, kind: Kind, place: Place) {
        if let Some(used) = self.used.borrow_mut().get_mut(place.index()) {
            used.counts[kind as usize] += 1;
        }
        self.set_total(kind, self.total(kind) + 1);
    }

    pub(crate) fn sub(&self, kind: Kind, place: Place) {
        if let Some(used) = self.used.borrow_mut().get_mut(place.index()) {
            used.counts[kind as usize] -= 1;
        }
        self.set_total(kind, self.total(kind) - 1);
    }

    fn set_total(&self, kind: Kind, total: usize) {
        self.totals[kind as usize].set(total);
        self.counters.used[kind as usize].set(total);
    }

    /// Counts a request until the guard is dropped, if there is room.
    pub(crate) fn begin(&self, kind: Kind, place: Place) -> Result<Counted<'_>, Full> {
        self.room(kind, place)?;
        self.add(kind, place);
        Ok(Counted { shares: self, kind, place })
    }

    /// Counts a handshake or a request that arrives until the guard is dropped. The other is the
    /// connection that had to make room, and is to be woken.
    pub(crate) fn arrive(
        self: &Rc<Self>,
        kind: Kind,
        place: Place,
        key: Key,
        now_ms: u64,
    ) -> Result<(Arrival, Option<Key>), Full> {
        let victim = match self.room(kind, place) {
            Ok(()) => None,
            Err(full) => {
                let of = (full == Full::Share).then_some(place);
                Some(self.drop_slowest(kind, of, now_ms).ok_or(full)?)
            }
        };
        self.add(kind, place);
        let mut pace = Pace::default();
        pace.waits(now_ms);
        let index = self.arrivals.borrow_mut().insert(Arriving { kind, place, key, pace, is_dropped: false });
        Ok((Arrival { shares: Rc::clone(self), index }, victim))
    }

    /// Drops the arrival that has made least progress, of one address or of all; none that keeps up.
    /// It no longer counts, whenever its connection comes to know.
    pub(crate) fn drop_slowest(&self, kind: Kind, of: Option<Place>, now_ms: u64) -> Option<Key> {
        let mut arrivals = self.arrivals.borrow_mut();
        let behind = |arriving: &Arriving| arriving.pace.behind_ms(self.rate, now_ms);
        let candidates = arrivals.iter_mut().map(|(_, arriving)| arriving).filter(|arriving| {
            arriving.kind == kind && !arriving.is_dropped && of.is_none_or(|of| arriving.place == of)
        });
        let slowest = candidates.max_by_key(|arriving| behind(arriving)).filter(|slow| behind(slow) > 0)?;
        slowest.is_dropped = true;
        self.sub(kind, slowest.place);
        Some(slowest.key)
    }
}

/// Counts one request until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<'s> {
    shares: &'s Shares,
    kind: Kind,
    place: Place,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.shares.sub(self.kind, self.place);
    }
}

/// Counts one handshake or arriving request until it is dropped.
#[derive(Debug)]
pub(crate) struct Arrival {
    shares: Rc<Shares>,
    index: usize,
}

impl Arrival {
    pub(crate) fn waits(&self, now_ms: u64) {
        self.with(|arriving| arriving.pace.waits(now_ms));
    }

    pub(crate) fn moved(&self, bytes: usize, now_ms: u64) {
        self.with(|arriving| arriving.pace.moved(bytes, now_ms));
    }

    /// Whether it had to make room for another.
    pub(crate) fn is_dropped(&self) -> bool {
        self.with(|arriving| arriving.is_dropped)
    }

    /// Whether it is behind the minimum rate by more than `grace_ms`.
    pub(crate) fn is_too_slow(&self, grace_ms: u64, now_ms: u64) -> bool {
        self.with(|arriving| arriving.pace.behind_ms(self.shares.rate, now_ms)) > grace_ms
    }

    fn with<T: Default>(&self, look: impl FnOnce(&mut Arriving) -> T) -> T {
        self.shares.arrivals.borrow_mut().get_mut(self.index).map(look).unwrap_or_default()
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let arriving = self.shares.arrivals.borrow_mut().try_remove(self.index);
        if let Some(arriving) = arriving.filter(|arriving| !arriving.is_dropped) {
            self.shares.sub(arriving.kind, arriving.place);
        }
    }
}

/// Returns the block that counts as one address.
fn block(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::deadline::Deadlines;

    /// Four of everything, of which an address may have two.
    fn shares() -> Rc<Shares> {
        let limits = Limits {
            connections: 4,
            handshakes: 4,
            arriving: 4,
            held: 4,
            in_flight: 4,
            shares: 2,
            ..Limits::default()
        };
        Rc::new(Shares::new(&limits, 1, Arc::default()))
    }

    fn place(shares: &Shares, peer: &str) -> Place {
        shares.place(peer.parse().expect("an address"))
    }

    fn key(shares: &Shares, place: Place) -> Key {
        let _ = shares;
        Deadlines::new(Instant::now()).insert(place)
    }

    #[test]
    fn no_address_takes_all_of_a_limit() {
        let shares = shares();
        let (ana, bob, eve) =
            (place(&shares, "192.0.2.1"), place(&shares, "192.0.2.2"), place(&shares, "192.0.2.3"));
        for kind in [Kind::Connection, Kind::Held, Kind::InFlight] {
            let (first, second) = (shares.begin(kind, ana), shares.begin(kind, ana));
            assert!(first.is_ok() && second.is_ok());
            assert_eq!(shares.begin(kind, ana).err(), Some(Full::Share), "{kind:?}");
            let others = (shares.begin(kind, bob), shares.begin(kind, bob));
            assert!(others.0.is_ok() && others.1.is_ok());
            assert_eq!(shares.begin(kind, eve).err(), Some(Full::All), "{kind:?}");
            drop(first);
            assert!(shares.begin(kind, eve).is_ok(), "{kind:?}");
        }
        assert_eq!(KINDS, shares.totals.iter().filter(|total| total.get() == 0).count());
    }

    #[test]
    fn a_subscriber_is_one_address() {
        let shares = shares();
        assert_eq!(place(&shares, "2001:db8:1:2::1"), place(&shares, "2001:db8:1:2:3:4:5:6"));
        assert_ne!(place(&shares, "2001:db8:1:2::1"), place(&shares, "2001:db8:1:3::1"));
        assert_eq!(place(&shares, "::ffff:127.0.0.2"), place(&shares, "127.0.0.2"));
        assert_ne!(place(&shares, "127.0.0.1"), place(&shares, "127.0.0.2"));
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let shares = shares();
        let ana = place(&shares, "192.0.2.1");
        let counted = shares.begin(Kind::Connection, ana).expect("room");
        shares.leave(ana);
        assert_eq!(shares.used.borrow().len(), 1);
        drop(counted);
        shares.leave(ana);
        assert!(shares.used.borrow().is_empty() && shares.places.borrow().is_empty());
    }

    #[test]
    fn the_slowest_of_an_address_makes_room_for_its_next() {
        let shares = shares();
        let (ana, bob) = (place(&shares, "192.0.2.1"), place(&shares, "192.0.2.2"));
        let (_oldest, _) = shares.arrive(Kind::Arriving, bob, key(&shares, bob), 0).expect("room");
        let (slow, none) = shares.arrive(Kind::Arriving, ana, key(&shares, ana), 1000).expect("room");
        assert_eq!(none, None);
        let (fast, _) = shares.arrive(Kind::Arriving, ana, key(&shares, ana), 1000).expect("room");
        fast.moved(100_000, 1500);
        let (_next, victim) =
            shares.arrive(Kind::Arriving, ana, key(&shares, ana), 2000).expect("it makes room");
        assert!(victim.is_some() && slow.is_dropped() && !fast.is_dropped());
        drop(slow);
        assert_eq!(shares.total(Kind::Arriving), 3);
    }

    #[test]
    fn a_request_that_keeps_up_makes_no_room() {
        let shares = shares();
        let ana = place(&shares, "192.0.2.1");
        let arrive = |now_ms| shares.arrive(Kind::Arriving, ana, key(&shares, ana), now_ms);
        let (first, second) = (arrive(0).expect("room").0, arrive(0).expect("room").0);
        for arrival in [&first, &second] {
            arrival.moved(100_000, 1000);
        }
        assert_eq!(arrive(1000).err(), Some(Full::Share));
    }

    #[test]
    fn the_slowest_of_all_makes_room_when_all_is_full() {
        let shares = shares();
        let places = ["192.0.2.1", "192.0.2.2"].map(|peer| place(&shares, peer));
        let arrivals: Vec<_> = [(0, 500), (0, 100), (1, 300), (1, 400)]
            .into_iter()
            .map(|(at, now_ms)| {
                let place = places[at];
                shares.arrive(Kind::Arriving, place, key(&shares, place), now_ms).expect("room").0
            })
            .collect();
        let eve = place(&shares, "192.0.2.3");
        assert!(shares.arrive(Kind::Arriving, eve, key(&shares, eve), 1000).is_ok());
        let dropped: Vec<bool> = arrivals.iter().map(Arrival::is_dropped).collect();
        assert_eq!(dropped, [false, true, false, false]);
    }
}
