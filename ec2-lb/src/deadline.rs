//! One deadline for each connection of a thread, in a list that is swept at intervals.
//!
//! A timer of the runtime for each wait would cost a wake-up of the thread for half of all requests.
//! Here a wait only writes a number; a sweep every [`SWEEP`] wakes the connections whose time is
//! over. So a deadline passes up to two sweeps late and never early, which is exact enough for every
//! timeout here.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::place::Place;

/// Twenty wake-ups a second on an idle thread, a thousandth of a core with ten thousand connections.
pub(crate) const SWEEP: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Deadlines {
    epoch: Instant,
    /// Sweeps since the epoch, as of the last one.
    now: Cell<u32>,
    entries: RefCell<Slab<Entry>>,
}

/// An idle connection costs one of these, so it is small.
#[derive(Debug)]
struct Entry {
    waker: Option<Waker>,
    /// In sweeps since the epoch, which last for six years.
    at: u32,
    /// Whose connection it is, and in the lowest bit whether it is idle.
    owner: u32,
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.owner & 1 == 1
    }

    fn set_idle(&mut self, is_idle: bool) {
        self.owner = (self.owner & !1) | u32::from(is_idle);
    }

    fn belongs_to(&self, place: Place) -> bool {
        self.owner >> 1 == place.number()
    }
}

/// A connection's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u32);

impl Key {
    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Deadlines {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self { epoch, now: Cell::new(sweeps(epoch.elapsed())), entries: RefCell::default() }
    }

    pub(crate) fn insert(&self, place: Place) -> Key {
        let entry = Entry { waker: None, at: u32::MAX, owner: place.number() << 1 };
        let index = self.entries.borrow_mut().insert(entry);
        Key(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(crate) fn remove(&self, key: Key) {
        self.entries.borrow_mut().try_remove(key.index());
    }

    /// Sets the waker of a connection. A connection is one task, so once is enough.
    pub(crate) fn register(&self, key: Key, waker: &Waker) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(key.index()) {
            entry.waker = Some(waker.clone());
        }
    }

    /// Begins a wait of `patience`, in place of the one before.
    pub(crate) fn set(&self, key: Key, patience: Duration) {
        self.write(key, patience, false);
    }

    /// Begins a wait without a request: the connection may be closed to make room.
    pub(crate) fn set_idle(&self, key: Key, patience: Duration) {
        self.write(key, patience, true);
    }

    fn write(&self, key: Key, patience: Duration, is_idle: bool) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(key.index()) {
            entry.at = self.now.get().saturating_add(sweeps(patience)).saturating_add(2);
            entry.set_idle(is_idle);
        }
    }

    pub(crate) fn is_over(&self, key: Key) -> bool {
        self.entries.borrow().get(key.index()).is_some_and(|entry| entry.at <= self.now.get())
    }

    /// Milliseconds since the epoch, as of the last sweep.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::from(self.now.get()) * ms(SWEEP)
    }

    /// Wakes every connection whose time is over.
    pub(crate) fn sweep(&self) {
        let now = sweeps(self.epoch.elapsed());
        self.now.set(now);
        for (_, entry) in self.entries.borrow().iter().filter(|(_, entry)| entry.at <= now) {
            entry.waker.iter().for_each(Waker::wake_by_ref);
        }
    }

    pub(crate) fn wake_all(&self) {
        for (_, entry) in self.entries.borrow().iter() {
            entry.waker.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Wakes a connection before its time is over.
    pub(crate) fn wake(&self, key: Key) {
        if let Some(entry) = self.entries.borrow().get(key.index()) {
            entry.waker.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Ends the wait of the connection that is idle for the longest time, of one address or of all;
    /// false if none is.
    pub(crate) fn evict_idle(&self, of: Option<Place>) -> bool {
        let mut entries = self.entries.borrow_mut();
        let idle = entries
            .iter_mut()
            .map(|(_, entry)| entry)
            .filter(|entry| entry.is_idle() && of.is_none_or(|of| entry.belongs_to(of)));
        let Some(oldest) = idle.min_by_key(|entry| entry.at) else { return false };
        oldest.at = 0;
        oldest.set_idle(false);
        oldest.waker.iter().for_each(Waker::wake_by_ref);
        true
    }
}

fn sweeps(duration: Duration) -> u32 {
    u32::try_from(ms(duration) / ms(SWEEP)).unwrap_or(u32::MAX)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::limits::Limits;
    use crate::shares::Shares;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Two addresses.
    fn places() -> [Place; 2] {
        let shares = Shares::new(&Limits::default(), 1, Arc::default());
        ["192.0.2.1", "192.0.2.2"].map(|peer| shares.place(peer.parse().expect("an address")))
    }

    fn registered(deadlines: &Deadlines, place: Place) -> (Key, Arc<Count>) {
        let (key, count) = (deadlines.insert(place), Arc::new(Count::default()));
        deadlines.register(key, &Waker::from(Arc::clone(&count)));
        (key, count)
    }

    #[test]
    fn sweep_wakes_only_overdue_connections() {
        let deadlines = Deadlines::new(Instant::now());
        let [place, _] = places();
        let ((soon, woken), (late, asleep)) = (registered(&deadlines, place), registered(&deadlines, place));
        deadlines.set(soon, Duration::from_millis(20));
        deadlines.set(late, Duration::from_secs(600));
        let set_at = Instant::now();
        while !deadlines.is_over(soon) {
            std::thread::sleep(Duration::from_millis(5));
            deadlines.sweep();
        }
        assert!(set_at.elapsed() >= Duration::from_millis(20));
        assert!(!deadlines.is_over(late));
        assert_eq!((woken.0.load(Ordering::Relaxed), asleep.0.load(Ordering::Relaxed)), (1, 0));
        deadlines.remove(soon);
        assert!(!deadlines.is_over(soon));
    }

    #[test]
    fn the_longest_idle_connection_makes_room() {
        let deadlines = Deadlines::new(Instant::now());
        let [place, _] = places();
        let [(busy, _), (older, woken), (newer, asleep)] = [(); 3].map(|()| registered(&deadlines, place));
        deadlines.set(busy, Duration::ZERO);
        deadlines.set_idle(older, Duration::from_secs(1));
        deadlines.set_idle(newer, Duration::from_secs(2));
        assert!(deadlines.evict_idle(None));
        assert!(deadlines.is_over(older) && !deadlines.is_over(newer));
        assert_eq!((woken.0.load(Ordering::Relaxed), asleep.0.load(Ordering::Relaxed)), (1, 0));
        assert!(deadlines.evict_idle(None) && !deadlines.evict_idle(None));
    }

    #[test]
    fn an_address_makes_room_for_itself() {
        let deadlines = Deadlines::new(Instant::now());
        let [ana, bob] = places();
        let ((older, _), (newer, _)) = (registered(&deadlines, bob), registered(&deadlines, ana));
        deadlines.set_idle(older, Duration::from_secs(1));
        deadlines.set_idle(newer, Duration::from_secs(2));
        assert!(deadlines.evict_idle(Some(ana)) && !deadlines.evict_idle(Some(ana)));
        assert!(deadlines.is_over(newer) && !deadlines.is_over(older));
    }

    #[test]
    fn an_idle_connection_costs_little() {
        assert!(size_of::<Entry>() <= 24);
    }
}
