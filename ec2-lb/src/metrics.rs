//! Counters, and their text for Prometheus.
//!
//! Written by hand: a dozen numbers need no registry of metrics, and a worker's series end when it
//! leaves the table.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use hyper::StatusCode;

use crate::table::Fleet;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Responses by the first digit of their status, from 1.
    responses: [AtomicU64; 5],
    in_flight: Arc<AtomicUsize>,
    pub(crate) retries: AtomicU64,
    pub(crate) ejections: AtomicU64,
}

/// A request being served; it counts until the reply is sent or dropped.
#[derive(Debug)]
pub(crate) struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn begin(&self) -> Serving {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Serving(Arc::clone(&self.in_flight))
    }

    pub(crate) fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.responses.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The text format, version 0.0.4.
    pub(crate) fn text(&self, fleet: &Fleet) -> String {
        let mut text = Text::default();
        text.family("requests_total", "counter", "Requests answered, by class of status.");
        for (class, counter) in (1..).zip(&self.responses) {
            text.sample(
                "requests_total",
                &format!("{{class=\"{class}xx\"}}"),
                counter.load(Ordering::Relaxed),
            );
        }
        text.single("in_flight", "gauge", "Requests being served.", self.in_flight.load(Ordering::Relaxed));
        let retries = self.retries.load(Ordering::Relaxed);
        text.single("retries_total", "counter", "Tries after the first.", retries);
        let ejections = self.ejections.load(Ordering::Relaxed);
        text.single("ejections_total", "counter", "Workers taken out of the choice.", ejections);
        if let Some(revision) = fleet.revision() {
            text.single("registry_revision", "gauge", "Revision of the registry in force.", revision);
        }
        if let Some(age) = fleet.age() {
            let age = format!("{:.3}", age.as_secs_f64());
            text.single(
                "registry_age_seconds",
                "gauge",
                "Since the table was last known to be current.",
                age,
            );
        }
        self.workers(fleet, &mut text);
        text.0
    }

    fn workers(&self, fleet: &Fleet, text: &mut Text) {
        let (table, now) = (fleet.table(), Instant::now());
        text.single("workers", "gauge", "Workers in the table.", table.workers.len());
        let mut family = |name, kind, help, value: &dyn Fn(&crate::worker::Worker) -> u64| {
            text.family(name, kind, help);
            for worker in &table.workers {
                text.sample(name, &format!("{{worker=\"{}\"}}", worker.id), value(worker));
            }
        };
        family("worker_requests_total", "counter", "Tries sent to a worker.", &|worker| worker.requests());
        family(
            "worker_failures_total",
            "counter",
            "Tries that failed or were answered with 5xx.",
            &|worker| worker.failures(),
        );
        family("worker_in_flight", "gauge", "Requests in flight on a worker.", &|worker| {
            worker.in_flight() as u64
        });
        family("worker_ejected", "gauge", "1 while a worker is out of the choice.", &|worker| {
            u64::from(worker.is_out(now))
        });
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP vigia_lb_{name} {help}"));
        self.line(format_args!("# TYPE vigia_lb_{name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        self.line(format_args!("vigia_lb_{name}{labels} {value}"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_class_and_says_nothing_it_does_not_know() {
        let metrics = Arc::new(Metrics::default());
        let fleet = Fleet::new(Arc::clone(&metrics));
        metrics.count(StatusCode::OK);
        metrics.count(StatusCode::CREATED);
        metrics.count(StatusCode::BAD_GATEWAY);
        let serving = metrics.begin();
        let text = metrics.text(&fleet);
        assert!(text.contains("vigia_lb_requests_total{class=\"2xx\"} 2\n"), "{text}");
        assert!(text.contains("vigia_lb_requests_total{class=\"5xx\"} 1\n"), "{text}");
        assert!(text.contains("vigia_lb_in_flight 1\n"), "{text}");
        assert!(!text.contains("registry_revision"), "{text}");
        drop(serving);
        assert!(metrics.text(&fleet).contains("vigia_lb_in_flight 0\n"));
    }
}
