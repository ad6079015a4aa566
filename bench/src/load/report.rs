//! The results of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::method::Method;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Refused,
    /// The connection ended before the first byte of an answer.
    Reset,
    /// It ended within an answer.
    Truncated,
    Timeout,
    Malformed,
    /// An answer of the wrong length.
    Length,
    Status(u16),
    /// The other side did not close, although the request said so.
    KeptOpen,
    /// The run ended before its turn.
    Unsent,
    /// No socket or port was available: the generator's own fault.
    Local,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Truncated => f.write_str("truncated"),
            Self::Timeout => f.write_str("timeout"),
            Self::Malformed => f.write_str("malformed"),
            Self::Length => f.write_str("length"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::KeptOpen => f.write_str("kept open"),
            Self::Unsent => f.write_str("unsent"),
            Self::Local => f.write_str("local"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByMethod {
    pub get: u64,
    pub post: u64,
}

impl ByMethod {
    pub fn count(&mut self, method: Method) {
        match method {
            Method::Get => self.get += 1,
            Method::Post => self.post += 1,
        }
    }

    pub fn all(self) -> u64 {
        self.get + self.post
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Seconds of measurement.
    pub seconds: f64,
    /// Good answers during the measurement.
    pub answered: ByMethod,
    pub latency: Latency,
    /// From the first request to the last, by kind.
    pub failures: BTreeMap<String, ByMethod>,
    pub connections_opened: u64,
    /// Closed by the other side with no request in flight: not a failure.
    pub closed_idle: u64,
    /// CPU time of the process of `--cpu-of`.
    pub cpu_seconds: Option<f64>,
}

impl Report {
    pub fn per_second(&self) -> f64 {
        lossy(self.answered.all()) / self.seconds
    }

    /// Returns the CPU seconds per hundred thousand answers.
    pub fn cpu_seconds_per_100k(&self) -> Option<f64> {
        (self.answered.all() > 0).then(|| Some(self.cpu_seconds? * 100_000.0 / lossy(self.answered.all())))?
    }

    /// Returns the share of a core that was used.
    pub fn cores_used(&self) -> Option<f64> {
        Some(self.cpu_seconds? / self.seconds)
    }

    pub fn failed(&self) -> ByMethod {
        let add =
            |sum: ByMethod, one: &ByMethod| ByMethod { get: sum.get + one.get, post: sum.post + one.post };
        self.failures.values().fold(ByMethod::default(), add)
    }
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Collects latencies from a microsecond to a minute, to three digits.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are valid"))
    }

    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub fn summary(&self) -> Latency {
        let milliseconds = |micros: u64| lossy(micros) / 1000.0;
        let at = |quantile| milliseconds(self.0.value_at_quantile(quantile));
        Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: milliseconds(self.0.max()),
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts here stay far below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn lossy(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_milliseconds() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|number| latencies.record(Duration::from_micros(number * 10)));
        let summary = latencies.summary();
        assert!((4.9..5.1).contains(&summary.p50) && (9.8..10.0).contains(&summary.p99), "{summary:?}");
        assert!((9.9..10.1).contains(&summary.max), "{summary:?}");
    }

    #[test]
    fn costs_are_per_hundred_thousand_answers() {
        let answered = ByMethod { get: 40_000, post: 10_000 };
        let mut report = Report { seconds: 2.0, answered, cpu_seconds: Some(1.5), ..Report::default() };
        assert_eq!(report.cpu_seconds_per_100k(), Some(3.0));
        assert_eq!((report.per_second(), report.cores_used()), (25_000.0, Some(0.75)));
        report.failures.insert(Failure::Reset.to_string(), ByMethod { get: 1, post: 2 });
        report.failures.insert(Failure::Status(502).to_string(), ByMethod { get: 4, post: 0 });
        assert_eq!(report.failed(), ByMethod { get: 5, post: 2 });
        let text = serde_json::to_string(&report).expect("plain data");
        let read: Report = serde_json::from_str(&text).expect("own output");
        assert_eq!(read.failures["status 502"].get, 4);
    }
}
