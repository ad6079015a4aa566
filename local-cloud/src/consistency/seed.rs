//! Draws everything that differs between two local clouds from one number. The same number and the same words
//! give the same draw, at any time and in any order.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// One in sixteen delays is long, three are short, and the rest is zero. A deployment makes some sixty calls
/// that depend on a new resource: it must meet two dozen such answers and still end within half a minute.
const SHORT: (u64, u64) = (100, 600);
const LONG: (u64, u64) = (800, 2000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// Returns any number, each with the same probability.
    pub fn draw(self, words: &[&str]) -> u64 {
        let mut hash = Sha256::new_with_prefix(self.0.to_le_bytes());
        for word in words {
            hash.update(word.as_bytes());
            hash.update([0]);
        }
        let digest = hash.finalize();
        u64::from_le_bytes(std::array::from_fn(|index| digest[index]))
    }

    /// Returns true in one of `many` cases.
    pub fn one_in(self, many: u64, words: &[&str]) -> bool {
        self.draw(words).is_multiple_of(many)
    }

    /// Returns a number of milliseconds from `least` to `most`.
    pub fn millis(self, (least, most): (u64, u64), words: &[&str]) -> Duration {
        Duration::from_millis(least + self.draw(words) % (most - least + 1))
    }

    /// Returns how long one kind of call does not know a resource that another one made; often zero.
    pub fn delay(self, words: &[&str]) -> Duration {
        let length = [words, &["length"]].concat();
        match self.draw(words) % 16 {
            0..=11 => Duration::ZERO,
            12..=14 => self.millis(SHORT, &length),
            _ => self.millis(LONG, &length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_the_seed_and_on_each_word() {
        let draw = Seed(1).draw(&["a", "b"]);
        assert_eq!(draw, Seed(1).draw(&["a", "b"]));
        assert_ne!(draw, Seed(2).draw(&["a", "b"]));
        assert_ne!(draw, Seed(1).draw(&["ab"]));
        assert_ne!(draw, Seed(1).draw(&["b", "a"]));
    }

    #[test]
    fn delays_are_none_short_or_long() {
        let delays: Vec<Duration> =
            (0..800).map(|number: u32| Seed(7).delay(&[&number.to_string()])).collect();
        let none = delays.iter().filter(|delay| delay.is_zero()).count();
        let long = delays.iter().filter(|delay| **delay >= Duration::from_millis(LONG.0)).count();
        assert!((540..660).contains(&none), "{none}");
        assert!((25..90).contains(&long), "{long}");
        assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(LONG.1)));
    }
}
