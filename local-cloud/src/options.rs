//! How a local cloud is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::cpu::Policy;
use crate::quotas::Quotas;

#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the endpoint.
    pub listen: SocketAddr,
    /// State, logs and the file systems of instances.
    pub dir: PathBuf,
    /// Virtual environment with the emulators and the AWS CLI.
    pub venv: PathBuf,
    /// Loopback addresses handed out as Elastic IPs, in this order.
    pub elastic_ips: Vec<Ipv4Addr>,
    /// Seed of the delays in `consistency.rs`; random if none is given.
    pub consistency_seed: Option<u64>,
    /// The account's quotas.
    pub quotas: Quotas,
    /// The instances' limits of processor time.
    pub cpu: Policy,
}
