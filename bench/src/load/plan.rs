//! The plan of a run, as flags of `bench-load`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

#[derive(Args, Clone, Debug, PartialEq)]
pub struct Plan {
    /// Address of the proxy.
    #[arg(long)]
    pub target: SocketAddr,
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests per second [default: each connection sends its next request as soon as it is answered].
    #[arg(long)]
    pub rate: Option<u32>,
    /// Seconds of measurement.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds before the measurement; its failures count, its answers do not.
    #[arg(long, default_value_t = 0.5)]
    pub warm_up_seconds: f64,
    /// Send each request on a connection of its own.
    #[arg(long)]
    pub churn: bool,
    /// Path of GETs; `/1m` returns a MiB. Every POST is answered as `/` is.
    #[arg(long, default_value = "/")]
    pub path: String,
    /// Percentage of POSTs.
    #[arg(long, default_value_t = 0)]
    pub post_percent: u8,
    #[arg(long, default_value_t = 128)]
    pub post_bytes: usize,
    /// Use TLS, and trust this certificate for `localhost`.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// Measure the CPU time of this process and its children.
    #[arg(long)]
    pub cpu_of: Option<u32>,
    /// Longest wait for an answer, in seconds; a longer one is a failure.
    #[arg(long, default_value_t = 10.0)]
    pub patience_seconds: f64,
}

impl Plan {
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            connections: 64,
            rate: None,
            seconds: 3.0,
            warm_up_seconds: 0.5,
            churn: false,
            path: "/".to_owned(),
            post_percent: 0,
            post_bytes: 128,
            ca: None,
            cpu_of: None,
            patience_seconds: 10.0,
        }
    }

    /// Returns the flags for a run in a process of its own.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--target={}", self.target),
            format!("--connections={}", self.connections),
            format!("--seconds={}", self.seconds),
            format!("--warm-up-seconds={}", self.warm_up_seconds),
            format!("--path={}", self.path),
            format!("--post-percent={}", self.post_percent),
            format!("--post-bytes={}", self.post_bytes),
            format!("--patience-seconds={}", self.patience_seconds),
        ];
        flags.extend(self.rate.map(|rate| format!("--rate={rate}")));
        flags.extend(self.churn.then(|| "--churn".to_owned()));
        flags.extend(self.ca.as_ref().map(|ca| format!("--ca={}", ca.display())));
        flags.extend(self.cpu_of.map(|pid| format!("--cpu-of={pid}")));
        flags
    }

    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_seconds)
    }

    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience_seconds)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        plan: Plan,
    }

    fn parsed(plan: &Plan) -> Plan {
        Cli::try_parse_from(["x".to_owned()].into_iter().chain(plan.flags())).expect("own flags").plan
    }

    #[test]
    fn flags_say_the_whole_plan() {
        let plain = Plan::new("127.0.0.1:1".parse().expect("valid"));
        assert_eq!(parsed(&plain), plain);
        let full = Plan {
            connections: 9,
            rate: Some(3000),
            seconds: 1.5,
            warm_up_seconds: 0.0,
            churn: true,
            path: "/1m".to_owned(),
            post_percent: 30,
            post_bytes: 5,
            ca: Some("a.pem".into()),
            cpu_of: Some(7),
            patience_seconds: 2.0,
            ..plain
        };
        assert_eq!(parsed(&full), full);
    }
}
