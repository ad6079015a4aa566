//! Asks workers whether they are alive.
//!
//! One lost packet must not cost a worker, so a silence or a refusal is asked again: three tries
//! spread over three seconds, which is longer than systemd takes to restart a program.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::ErrorKind;
use std::time::Duration;

use fleet::{WorkerAddr, WorkerId};
use futures::StreamExt as _;

use crate::observation::{Probe, Scope};

const TRIES: u32 = 3;
/// From the start of one try to the start of the next.
const SPACING: Duration = Duration::from_millis(1500);
/// A worker answers its health check from memory, in well under a millisecond.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Sockets open at a time.
const CONCURRENCY: usize = 64;

#[derive(Clone)]
pub struct Prober {
    client: reqwest::Client,
}

impl Prober {
    pub fn new() -> Result<Self, reqwest::Error> {
        // No pool: between invocations the function is frozen and its sockets die.
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { client })
    }

    pub async fn probe_all(
        &self,
        targets: BTreeMap<WorkerId, WorkerAddr>,
        scope: Scope,
    ) -> BTreeMap<WorkerId, Probe> {
        futures::stream::iter(targets)
            .map(|(id, addr)| async move { (id, self.probe(addr, scope).await) })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await
    }

    async fn probe(&self, addr: WorkerAddr, scope: Scope) -> Probe {
        let tries = match scope {
            Scope::Fleet => TRIES,
            Scope::Boots => 1,
        };
        let mut verdict = Probe::Refused;
        let mut next = tokio::time::Instant::now();
        for _ in 0..tries {
            tokio::time::sleep_until(next).await;
            next += SPACING;
            match self.ask(addr).await {
                Probe::Answered => return Probe::Answered,
                Probe::Silent => verdict = Probe::Silent,
                Probe::Refused => {}
            }
        }
        verdict
    }

    async fn ask(&self, addr: WorkerAddr) -> Probe {
        match self.client.get(format!("http://{addr}/healthcheck")).send().await {
            // An overloaded worker says 503, and saying so it is alive.
            Ok(response) if response.status().is_success() || response.status().as_u16() == 503 => {
                Probe::Answered
            }
            Ok(_) => Probe::Silent,
            Err(error) if is_refusal(&error) => Probe::Refused,
            Err(_) => Probe::Silent,
        }
    }

    /// Tells a load balancer that there is something new to read.
    pub async fn refresh(&self, addr: WorkerAddr) {
        let sent = self.client.post(format!("http://{addr}/refresh")).send().await;
        if let Err(error) = sent {
            tracing::debug!(%addr, %error, "a load balancer was not told of the new registry");
        }
    }
}

fn is_refusal(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset);
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_an_answer_from_a_refusal_and_from_silence() {
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let refused_at = WorkerAddr(refusing.local_addr().expect("bound"));
        drop(refusing);
        // Accepts (the kernel does) and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let silent_at = WorkerAddr(silent.local_addr().expect("bound"));
        let prober = Prober::new().expect("a client");
        assert_eq!(prober.probe(refused_at, Scope::Boots).await, Probe::Refused);
        assert_eq!(prober.probe(silent_at, Scope::Boots).await, Probe::Silent);
    }
}
