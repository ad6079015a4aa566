//! The measurements, and their medians.

use serde::Serialize;

use super::memory::Memory;
use super::peer::Peer;
use super::scenario::Scenario;
use super::statistics::Spread;
use crate::load::Report;

#[derive(Debug, Serialize)]
pub struct Sample {
    pub scenario: Scenario,
    pub peer: Peer,
    pub round: usize,
    pub report: Report,
}

#[derive(Debug, Serialize)]
pub struct MemorySample {
    pub peer: Peer,
    pub round: usize,
    pub memory: Memory,
}

#[derive(Debug, Default, Serialize)]
pub struct Results {
    pub samples: Vec<Sample>,
    pub memories: Vec<MemorySample>,
}

/// A peer in a scenario, over all rounds.
#[derive(Debug, Serialize)]
pub struct Row {
    pub scenario: Scenario,
    pub peer: Peer,
    pub per_second: Spread,
    pub cpu_seconds_per_100k: Spread,
    pub p50_ms: Spread,
    pub p99_ms: Spread,
    pub cores_used: Spread,
    pub failures: u64,
}

#[derive(Debug, Serialize)]
pub struct MemoryRow {
    pub peer: Peer,
    pub alone_mib: Spread,
    pub crowded_mib: Spread,
    pub kib_per_client: Spread,
}

impl Results {
    /// Returns the row; `None` if it was not measured.
    pub fn row(&self, scenario: Scenario, peer: Peer) -> Option<Row> {
        let is_ours = |sample: &&Sample| sample.scenario == scenario && sample.peer == peer;
        let reports: Vec<&Report> =
            self.samples.iter().filter(is_ours).map(|sample| &sample.report).collect();
        let spread =
            |value: fn(&Report) -> Option<f64>| Spread::of(reports.iter().filter_map(|report| value(report)));
        Some(Row {
            scenario,
            peer,
            per_second: spread(|report| Some(report.per_second()))?,
            cpu_seconds_per_100k: spread(Report::cpu_seconds_per_100k)?,
            p50_ms: spread(|report| Some(report.latency.p50))?,
            p99_ms: spread(|report| Some(report.latency.p99))?,
            cores_used: spread(Report::cores_used)?,
            failures: reports.iter().map(|report| report.failed().all()).sum(),
        })
    }

    pub fn rows(&self, scenario: Scenario) -> Vec<Row> {
        Peer::ALL.into_iter().filter_map(|peer| self.row(scenario, peer)).collect()
    }

    pub fn memory_row(&self, peer: Peer) -> Option<MemoryRow> {
        let samples =
            || self.memories.iter().filter(|sample| sample.peer == peer).map(|sample| sample.memory);
        Some(MemoryRow {
            peer,
            alone_mib: Spread::of(samples().map(|memory| memory.alone_mib()))?,
            crowded_mib: Spread::of(samples().map(|memory| memory.crowded_mib()))?,
            kib_per_client: Spread::of(samples().map(|memory| memory.kib_per_client()))?,
        })
    }

    /// Formats a scenario: medians, minimum and maximum of the rounds, and the ratio of ec2-lb to each.
    pub fn table(&self, scenario: Scenario) -> Vec<Vec<String>> {
        let heads = [
            "proxy",
            "requests/s (min..max)",
            "ours to it",
            "CPU s/100k (min..max)",
            "ours to it",
            "p50 ms",
            "p99 ms (min..max)",
            "cores used",
            "failures",
        ];
        let mut table = vec![heads.map(str::to_owned).to_vec()];
        let ours = self.row(scenario, Peer::Ours);
        table.extend(self.rows(scenario).iter().map(|row| {
            let to_it = |quantity: fn(&Row) -> Spread| {
                let ratio = |ours: &Row| format!("{:.2}", quantity(ours).median / quantity(row).median);
                ours.as_ref().map(ratio).unwrap_or_default()
            };
            vec![
                row.peer.to_string(),
                row.per_second.text(0),
                to_it(|row| row.per_second),
                row.cpu_seconds_per_100k.text(2),
                to_it(|row| row.cpu_seconds_per_100k),
                format!("{:.2}", row.p50_ms.median),
                row.p99_ms.text(2),
                format!("{:.2}", row.cores_used.median),
                row.failures.to_string(),
            ]
        }));
        table
    }

    pub fn memory_table(&self) -> Vec<Vec<String>> {
        let heads = ["proxy", "alone MiB (min..max)", "with idle clients MiB", "KiB per idle client"];
        let mut table = vec![heads.map(str::to_owned).to_vec()];
        let rows = Peer::ALL.into_iter().filter_map(|peer| self.memory_row(peer));
        table.extend(rows.map(|row| {
            vec![
                row.peer.to_string(),
                row.alone_mib.text(1),
                row.crowded_mib.text(1),
                row.kib_per_client.text(2),
            ]
        }));
        table
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::report::{ByMethod, Latency};

    /// Returns a report of two seconds with this many answers and this much CPU time.
    pub(in crate::balancer) fn sample(
        scenario: Scenario,
        peer: Peer,
        answered: u64,
        cpu: f64,
        p99: f64,
    ) -> Sample {
        let report = Report {
            seconds: 2.0,
            answered: ByMethod { get: answered, post: 0 },
            latency: Latency { p50: p99 / 2.0, p99, ..Latency::default() },
            cpu_seconds: Some(cpu),
            ..Report::default()
        };
        Sample { scenario, peer, round: 1, report }
    }

    #[test]
    fn medians_are_of_one_peer_in_one_scenario() {
        let mut results = Results::default();
        for (answered, cpu) in [(100_000, 2.0), (120_000, 1.8), (80_000, 2.4)] {
            results.samples.push(sample(Scenario::Churn, Peer::Ours, answered, cpu, 3.0));
        }
        results.samples.push(sample(Scenario::Churn, Peer::Nginx, 50_000, 2.0, 6.0));
        results.samples.push(sample(Scenario::Tls, Peer::Ours, 1, 1.0, 1.0));
        let row = results.row(Scenario::Churn, Peer::Ours).expect("measured");
        assert_eq!(row.per_second, Spread { median: 50_000.0, min: 40_000.0, max: 60_000.0 });
        assert_eq!(row.cpu_seconds_per_100k, Spread { median: 2.0, min: 1.5, max: 3.0 });
        assert!(results.row(Scenario::Churn, Peer::Haproxy).is_none());
        let table = results.table(Scenario::Churn);
        assert_eq!(table.len(), 3);
        assert_eq!((table[2][2].as_str(), table[2][4].as_str()), ("2.00", "0.50"));
    }
}
