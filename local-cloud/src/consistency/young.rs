//! New resources, and which calls know them already.
//!
//! | Age of a resource | A call of one kind that names it |
//! |---|---|
//! | less than the delay drawn for the two | misses it |
//! | less than [`WINDOW`] | misses it once in a while, as two reads may disagree |
//! | more | knows it, for ever |

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::seed::Seed;

/// After this time every call knows a resource. EC2 itself names no bound; SDKs and Terraform wait minutes.
pub(super) const WINDOW: Duration = Duration::from_secs(3);

/// One in this many calls within the window misses a resource that an earlier one knew.
const FLICKERS: u64 = 16;

#[derive(Debug)]
pub(super) struct Young {
    seed: Seed,
    things: BTreeMap<String, Thing>,
    /// Everything that was ever made: repeating a creation makes nothing young again.
    made: BTreeSet<String>,
    /// Number of resources of each kind.
    numbers: BTreeMap<&'static str, u32>,
}

#[derive(Debug)]
struct Thing {
    /// The word for draws. Ids are random, so it is the kind and a number, or a name.
    word: String,
    born: Instant,
    /// By kind of call, how many calls named it.
    calls: BTreeMap<String, u32>,
}

impl Young {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, things: BTreeMap::new(), made: BTreeSet::new(), numbers: BTreeMap::new() }
    }

    /// Records that a resource with a random id was made.
    pub(super) fn made(&mut self, kind: &'static str, id: &str, now: Instant) {
        if self.made.contains(id) {
            return;
        }
        let number = self.numbers.entry(kind).or_default();
        *number += 1;
        let word = format!("{kind} {number}");
        self.add(id, word, now);
    }

    /// Records that a resource with a name of the caller's choice was made.
    pub(super) fn named(&mut self, name: &str, now: Instant) {
        self.add(name, name.to_owned(), now);
    }

    fn add(&mut self, id: &str, word: String, now: Instant) {
        self.things.retain(|_, thing| now.duration_since(thing.born) < WINDOW);
        if self.made.insert(id.to_owned()) {
            self.things.insert(id.to_owned(), Thing { word, born: now, calls: BTreeMap::new() });
        }
    }

    /// Records that it was deleted; a later resource of the same name is another one.
    pub(super) fn deleted(&mut self, id: &str) {
        self.things.remove(id);
        self.made.remove(id);
    }

    /// Returns whether a call of this kind does not know it now. Each question counts as a call.
    pub(super) fn misses(&mut self, id: &str, call: &str, now: Instant) -> bool {
        let Some(thing) = self.things.get_mut(id) else { return false };
        let age = now.saturating_duration_since(thing.born);
        if age >= WINDOW {
            self.things.remove(id);
            return false;
        }
        let calls = thing.calls.entry(call.to_owned()).or_default();
        *calls += 1;
        age < self.seed.delay(&[&thing.word, call])
            || self.seed.one_in(FLICKERS, &[&thing.word, call, &calls.to_string()])
    }

    /// Returns the word for draws about it, while it is young.
    pub(super) fn word(&self, id: &str) -> Option<&str> {
        self.things.get(id).map(|thing| thing.word.as_str())
    }

    pub(super) fn list(&self, now: Instant) -> Vec<String> {
        let is_young = |(_, thing): &(&String, &Thing)| now.saturating_duration_since(thing.born) < WINDOW;
        self.things.iter().filter(is_young).map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// Returns whether a call misses a new VPC, every 10 ms of the window, in a cloud of this seed.
    fn looks(seed: u64, call: &str) -> Vec<bool> {
        let since = Instant::now();
        let mut young = Young::new(Seed(seed));
        young.made("vpc", "vpc-1", since);
        (0..300).map(|step| young.misses("vpc-1", call, since + STEP * step)).collect()
    }

    #[test]
    fn every_call_knows_resources_older_than_the_window() {
        for seed in 0..50 {
            let since = Instant::now();
            let mut young = Young::new(Seed(seed));
            young.made("vpc", "vpc-1", since);
            assert_eq!(young.list(since), ["vpc-1"]);
            assert!(!young.misses("vpc-1", "DescribeVpcs", since + WINDOW));
            assert!(!young.misses("vpc-1", "DescribeVpcs", since), "it does not become young again");
            assert!(young.list(since + WINDOW).is_empty());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_answers() {
        assert_eq!(looks(3, "CreateSubnet"), looks(3, "CreateSubnet"));
        assert!((0..20).any(|seed| looks(seed, "CreateSubnet") != looks(seed + 1, "CreateSubnet")));
        assert!((0..20).any(|seed| looks(seed, "CreateSubnet") != looks(seed, "DescribeVpcs")));
    }

    #[test]
    fn a_known_resource_is_sometimes_missed_again() {
        let flickers = |seed| looks(seed, "DescribeVpcs").windows(2).any(|pair| pair == [false, true]);
        assert!((0..10).all(flickers), "300 looks see one flicker at least");
        let missed = looks(1, "DescribeVpcs").iter().filter(|missed| **missed).count();
        assert!(missed < 250, "{missed}");
    }

    #[test]
    fn a_repeated_creation_makes_nothing_young_again() {
        let since = Instant::now();
        let mut young = Young::new(Seed(1));
        young.made("instance", "i-1", since);
        young.made("instance", "i-1", since + WINDOW * 2);
        assert!(young.list(since + WINDOW * 2).is_empty());
        young.deleted("i-1");
        young.named("i-1", since + WINDOW * 2);
        assert_eq!(young.list(since + WINDOW * 2), ["i-1"]);
    }
}
