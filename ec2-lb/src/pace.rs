//! Whether a client keeps up. Pure.
//!
//! Only the time counts in which the client was waited for: a worker that reads slowly makes no client
//! slow. A client may be behind the minimum rate by a grace, which covers a stall of the network.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    bytes: u64,
    waited_ms: u64,
    waits_since_ms: Option<u64>,
}

impl Pace {
    /// There is nothing to do but wait for the client.
    pub(crate) fn waits(&mut self, now_ms: u64) {
        self.waits_since_ms.get_or_insert(now_ms);
    }

    /// The client has sent or taken so many bytes.
    pub(crate) fn moved(&mut self, bytes: usize, now_ms: u64) {
        if let Some(since_ms) = self.waits_since_ms.take() {
            self.waited_ms += now_ms.saturating_sub(since_ms);
        }
        self.bytes += bytes as u64;
    }

    /// By how many milliseconds the client is behind `rate`, in bytes a second. The most of all has
    /// made least progress.
    pub(crate) fn behind_ms(&self, rate: u64, now_ms: u64) -> u64 {
        let waits_ms = self.waits_since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        let earned_ms = self.bytes.saturating_mul(1000) / rate.max(1);
        (self.waited_ms + waits_ms).saturating_sub(earned_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_earn_time() {
        let mut pace = Pace::default();
        pace.waits(1000);
        assert_eq!(pace.behind_ms(1000, 4000), 3000);
        pace.moved(2000, 4000);
        assert_eq!(pace.behind_ms(1000, 4000), 1000);
    }

    #[test]
    fn time_that_others_take_does_not_count() {
        let mut pace = Pace::default();
        pace.waits(0);
        pace.moved(1, 1000);
        assert_eq!(pace.behind_ms(1000, 1_000_000), 999);
    }

    #[test]
    fn steady_drops_are_behind_in_the_end() {
        let mut pace = Pace::default();
        for second in 0..10 {
            pace.waits(second * 1000);
            pace.moved(1, second * 1000 + 999);
        }
        assert!(pace.behind_ms(1024, 10_000) > 9000);
    }
}
