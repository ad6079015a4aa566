//! The choice of a worker. Pure: standings in, index out.
//!
//! A worker that this request already tried is never chosen again: a random retry that may hit the
//! dead worker once more is the classic mistake. Ejections are a preference, not a wall: when more
//! than half of the table are ejected, the fault is more likely in this load balancer or in something that
//! all workers share, so ejections are ignored (panic rule).

use std::fmt;
use std::str::FromStr;

use rand::{Rng, RngExt as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The less loaded of two random workers: still random, and without the long queues of plain
    /// random choice.
    P2c,
    Random,
}

/// The facts of one worker that the choice needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) load: usize,
    pub(crate) is_out: bool,
    pub(crate) is_tried: bool,
}

/// Returns the index of the worker to send to, of `len` in all; `None` only when all are tried.
///
/// Mostly two random workers are both fine, and no others are examined. Otherwise the choice is made among
/// all workers that are fine. In both cases every pair of them is equally likely.
pub(crate) fn choose(
    policy: Policy,
    len: usize,
    standing: impl Fn(usize) -> Standing,
    rng: &mut impl Rng,
) -> Option<usize> {
    let pair = (len > 1).then(|| two_of(len, rng));
    if let Some((first, second)) = pair {
        let is_fine = |index| !standing(index).is_out && !standing(index).is_tried;
        if is_fine(first) && (policy == Policy::Random || is_fine(second)) {
            return Some(better(policy, first, second, &standing));
        }
    }
    let out = (0..len).filter(|index| standing(*index).is_out).count();
    let is_panic = 2 * out > len;
    // When ejections do not count, the two are as good as any.
    if let Some((first, second)) = pair
        && is_panic
        && !standing(first).is_tried
        && !standing(second).is_tried
    {
        return Some(better(policy, first, second, &standing));
    }
    let untried = || (0..len).filter(|index| !standing(*index).is_tried);
    let candidates = || untried().filter(|index| is_panic || !standing(*index).is_out);
    match candidates().count() {
        0 => among(policy, &untried(), untried().count(), &standing, rng),
        count => among(policy, &candidates(), count, &standing, rng),
    }
}

fn among(
    policy: Policy,
    candidates: &(impl Iterator<Item = usize> + Clone),
    count: usize,
    standing: impl Fn(usize) -> Standing,
    rng: &mut impl Rng,
) -> Option<usize> {
    let at = |place: usize| candidates.clone().nth(place);
    match count {
        0 => None,
        1 => at(0),
        count => {
            let (first, second) = two_of(count, rng);
            Some(better(policy, at(first)?, at(second)?, standing))
        }
    }
}

/// The one of two that are both fine; the first of them is random by itself.
fn better(policy: Policy, first: usize, second: usize, standing: impl Fn(usize) -> Standing) -> usize {
    match policy {
        Policy::P2c if standing(second).load < standing(first).load => second,
        Policy::P2c | Policy::Random => first,
    }
}

/// Two different numbers below `len`, which is at least two.
fn two_of(len: usize, rng: &mut impl Rng) -> (usize, usize) {
    let first = rng.random_range(0..len);
    (first, (first + rng.random_range(1..len)) % len)
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a policy; use `p2c` or `random`")]
pub struct PolicyError(String);

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "p2c" => Ok(Self::P2c),
            "random" => Ok(Self::Random),
            other => Err(PolicyError(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P2c => "p2c",
            Self::Random => "random",
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const OK: Standing = Standing { load: 0, is_out: false, is_tried: false };
    const OUT: Standing = Standing { is_out: true, ..OK };
    const TRIED: Standing = Standing { is_tried: true, ..OK };

    fn loaded(load: usize) -> Standing {
        Standing { load, ..OK }
    }

    fn shares(policy: Policy, workers: &[Standing]) -> Vec<u32> {
        let mut rng = StdRng::seed_from_u64(42);
        let mut shares = vec![0; workers.len()];
        for _ in 0..10_000 {
            shares[choose(policy, workers.len(), |index| workers[index], &mut rng)
                .expect("a worker is free")] += 1;
        }
        shares
    }

    #[test]
    fn equal_workers_get_equal_shares() {
        for policy in [Policy::P2c, Policy::Random] {
            let shares = shares(policy, &[OK; 4]);
            assert!(shares.iter().all(|share| (2300..2700).contains(share)), "{policy}: {shares:?}");
        }
    }

    #[test]
    fn p2c_never_takes_the_most_loaded_worker() {
        let workers = [loaded(0), loaded(0), loaded(9)];
        assert_eq!(shares(Policy::P2c, &workers)[2], 0);
        assert!(shares(Policy::Random, &workers)[2] > 3000);
    }

    #[test]
    fn ejected_workers_get_nothing() {
        assert_eq!(shares(Policy::P2c, &[OK, OUT, OK])[1], 0);
        assert_eq!(shares(Policy::Random, &[OK, OUT])[1], 0);
    }

    #[test]
    fn ejections_are_ignored_when_most_are_ejected() {
        let shares = shares(Policy::Random, &[OK, OUT, OUT]);
        assert!(shares.iter().all(|share| *share > 3000), "{shares:?}");
    }

    #[test]
    fn tried_workers_are_not_tried_again_when_others_are_ejected() {
        assert_eq!(shares(Policy::P2c, &[TRIED, OK, TRIED])[1], 10_000);
        assert_eq!(shares(Policy::P2c, &[TRIED, OUT, TRIED])[1], 10_000);
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(choose(Policy::P2c, 2, |_| TRIED, &mut rng), None);
        assert_eq!(choose(Policy::P2c, 0, |_| TRIED, &mut rng), None);
    }

    #[test]
    fn fine_workers_share_equally_among_others() {
        for policy in [Policy::P2c, Policy::Random] {
            let shares = shares(policy, &[OK, OUT, OK, TRIED, OK]);
            assert_eq!((shares[1], shares[3]), (0, 0));
            for index in [0, 2, 4] {
                assert!((3000..3700).contains(&shares[index]), "{policy}: {shares:?}");
            }
        }
    }

    #[test]
    fn one_or_two_workers_always_give_a_choice() {
        assert_eq!(shares(Policy::P2c, &[OUT]), [10_000]);
        assert!(shares(Policy::P2c, &[OUT, OUT]).iter().all(|share| *share > 4000));
    }
}
