//! Waits until the service is healthy, asked through its public address.

mod handshake;

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::certificate::Certificate;
use crate::error::{DeployError, Exit, Result};
use crate::output::Progress;

/// A boot takes 40 to 70 s on EC2; a first tick may start a minute late.
const DEADLINE: Duration = Duration::from_secs(300);

/// The load balancer looks at its certificate every 20 s; three looks.
const CERTIFICATE_DEADLINE: Duration = Duration::from_secs(60);

/// The answer of `/checkamount`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Amount {
    pub desired: u32,
    pub healthy: u32,
    pub problem: Option<String>,
}

/// Waits for as many workers as wanted, and for no more than `most`: during a rollout there are more than the
/// desired number.
pub async fn wait(url: &str, wanted: u32, most: u32, progress: &Progress) -> Result<()> {
    let client = client()?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen = match ask(&client, url).await {
            Ok(amount) if amount.desired == wanted && (wanted..=most).contains(&amount.healthy) => {
                return Ok(());
            }
            Ok(amount) => format!("{} of {wanted} workers healthy", amount.healthy.min(wanted)),
            Err(why) => why,
        };
        progress.waiting(&format!("waiting for {wanted} healthy workers: {seen}"));
        if Instant::now() > deadline {
            let what = format!("{url} is not healthy after {} s: {seen}", DEADLINE.as_secs());
            return Err(DeployError::new(Exit::NotHealthy, what)
                .hint("`bootstrap status` (make status) shows what the reconciler does and why."));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Reads `/checkamount` once; the error is a sentence for people.
pub async fn ask(client: &reqwest::Client, url: &str) -> std::result::Result<Amount, String> {
    let response = client.get(format!("{url}/checkamount")).send().await.map_err(|error| {
        if error.is_timeout() { "no answer in time".to_owned() } else { "no connection".to_owned() }
    })?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("it answers {status}"));
    }
    response.json().await.map_err(|_| "its answer is not JSON".to_owned())
}

/// Waits until the port serves TLS with this certificate and no other.
pub async fn wait_for_certificate(
    address: Ipv4Addr,
    certificate: &Certificate,
    progress: &Progress,
) -> Result<()> {
    let deadline = Instant::now() + CERTIFICATE_DEADLINE;
    loop {
        let Err(seen) = ask_for_certificate(address, certificate).await else { return Ok(()) };
        progress.waiting(&format!("waiting for the certificate: {seen}"));
        if Instant::now() > deadline {
            let what = format!(
                "port {} of {address} does not serve the certificate after {} s: {seen}",
                fleet::TLS_PORT,
                CERTIFICATE_DEADLINE.as_secs()
            );
            return Err(DeployError::new(Exit::NotHealthy, what).hint(
                "A firewall between this machine and the load balancer may block that port. `bootstrap logs \
                    lb` (make logs OF=lb) shows whether the load balancer has the certificate. `--tls off` \
                    (make: TLS=off) switches TLS off.",
            ));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Does one handshake; the error is a sentence for people.
pub async fn ask_for_certificate(
    address: Ipv4Addr,
    certificate: &Certificate,
) -> std::result::Result<(), String> {
    handshake::with((address, fleet::TLS_PORT).into(), certificate.first()).await
}

pub fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| DeployError::new(Exit::Failed, "cannot make an HTTP client").caused_by(error))
}
