//! The counters as Prometheus text.
//!
//! Written by hand: two dozen numbers need no registry of metrics, and a worker's series end when it leaves
//! the table.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::limits::Kind;
use crate::metrics::{BUCKETS, Metrics};
use crate::table::Fleet;

/// The text format, version 0.0.4.
pub(crate) fn text(metrics: &Metrics, fleet: &Fleet) -> String {
    let mut text = Text::default();
    text.family("requests_total", "counter", "Requests answered, by class of status.");
    for class in 1..=5 {
        let value = metrics.sum(|thread| thread.responses[class - 1].get());
        text.sample("requests_total", &format!("{{class=\"{class}xx\"}}"), value);
    }
    for (kind, name, help) in [
        (Kind::InFlight, "in_flight", "Requests with a chosen worker whose answer has not ended."),
        (Kind::Held, "held", "Requests that wait for a worker to appear."),
        (Kind::Arriving, "arriving", "Requests that have arrived in part."),
        (Kind::Handshake, "handshakes", "TLS handshakes in progress."),
        (Kind::Connection, "connections", "Client connections open."),
    ] {
        text.single(name, "gauge", help, metrics.sum(|thread| thread.used[kind as usize].get() as u64));
    }
    let retries = metrics.sum(|thread| thread.retries.get());
    text.single("retries_total", "counter", "Tries of a request after its first.", retries);
    let shed = metrics.sum(|thread| thread.shed.get());
    text.single("shed_total", "counter", "Requests and connections refused for overload.", shed);
    let over_share = metrics.sum(|thread| thread.over_share.get());
    let help = "Requests and connections refused because their address had its share.";
    text.single("over_share_total", "counter", help, over_share);
    let dropped = metrics.sum(|thread| thread.dropped.get());
    let help = "Slow requests and handshakes that made room for others.";
    text.single("dropped_total", "counter", help, dropped);
    let ejections = metrics.ejections.load(Ordering::Relaxed);
    text.single("ejections_total", "counter", "Ejections of workers.", ejections);
    latency(metrics, &mut text);
    if let Some(revision) = fleet.revision() {
        text.single("registry_revision", "gauge", "Revision of the registry in force.", revision);
    }
    if let Some(age) = fleet.age() {
        let age = format!("{:.3}", age.as_secs_f64());
        text.single("registry_age_seconds", "gauge", "Since the table was last known to be current.", age);
    }
    workers(fleet, &mut text);
    text.0
}

fn latency(metrics: &Metrics, text: &mut Text) {
    const NAME: &str = "request_duration_seconds";
    text.family(NAME, "histogram", "From the request's head to the end of its response.");
    let mut total = 0;
    for (index, bound) in BUCKETS.iter().enumerate() {
        total += metrics.sum(|thread| thread.latency[index].get());
        let bound = Duration::from_micros(*bound).as_secs_f64();
        text.sample("request_duration_seconds_bucket", &format!("{{le=\"{bound}\"}}"), total);
    }
    total += metrics.sum(|thread| thread.latency[BUCKETS.len()].get());
    text.sample("request_duration_seconds_bucket", "{le=\"+Inf\"}", total);
    let micros = metrics.sum(|thread| thread.latency_micros.load(Ordering::Relaxed));
    text.sample("request_duration_seconds_sum", "", Duration::from_micros(micros).as_secs_f64());
    text.sample("request_duration_seconds_count", "", total);
}

fn workers(fleet: &Fleet, text: &mut Text) {
    let (table, now) = (fleet.table(), Instant::now());
    text.single("workers", "gauge", "Workers in the table.", table.workers.len());
    let mut family = |name, kind, help, value: &dyn Fn(&crate::worker::Worker) -> u64| {
        text.family(name, kind, help);
        for worker in &table.workers {
            text.sample(name, &format!("{{worker=\"{}\"}}", worker.id), value(worker));
        }
    };
    family("worker_requests_total", "counter", "Tries sent to a worker.", &|worker| worker.requests());
    family("worker_failures_total", "counter", "Tries that failed or were answered with 5xx.", &|worker| {
        worker.failures()
    });
    family("worker_in_flight", "gauge", "Requests in flight on a worker.", &|worker| {
        worker.in_flight() as u64
    });
    family("worker_ejected", "gauge", "1 while a worker is ejected.", &|worker| {
        u64::from(worker.is_out(now))
    });
    text.family("worker_responses_total", "counter", "Responses of a worker, by class of status.");
    for worker in &table.workers {
        for class in 1..=5 {
            let labels = format!("{{worker=\"{}\",class=\"{class}xx\"}}", worker.id);
            text.sample("worker_responses_total", &labels, worker.responses(class));
        }
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
    use std::sync::Arc;

    use super::*;

    #[test]
    fn metrics_add_up_all_threads_and_omit_unknown_values() {
        let metrics = Arc::new(Metrics::new(2));
        let fleet = Fleet::new(Arc::clone(&metrics));
        metrics.threads()[0].answered(200, Duration::from_micros(300));
        metrics.threads()[1].answered(201, Duration::from_secs(60));
        metrics.threads()[1].answered(502, Duration::from_micros(250));
        let in_flight = &metrics.threads()[0].used[Kind::InFlight as usize];
        in_flight.set(1);
        let written = text(&metrics, &fleet);
        for line in [
            "vigia_lb_requests_total{class=\"2xx\"} 2\n",
            "vigia_lb_requests_total{class=\"5xx\"} 1\n",
            "vigia_lb_in_flight 1\n",
            "vigia_lb_request_duration_seconds_bucket{le=\"0.00025\"} 1\n",
            "vigia_lb_request_duration_seconds_bucket{le=\"0.0005\"} 2\n",
            "vigia_lb_request_duration_seconds_bucket{le=\"10\"} 2\n",
            "vigia_lb_request_duration_seconds_bucket{le=\"+Inf\"} 3\n",
            "vigia_lb_request_duration_seconds_sum 60.00055\n",
            "vigia_lb_request_duration_seconds_count 3\n",
        ] {
            assert!(written.contains(line), "{line} in {written}");
        }
        assert!(!written.contains("registry_revision"), "{written}");
        in_flight.set(0);
        assert!(text(&metrics, &fleet).contains("vigia_lb_in_flight 0\n"));
    }
}
