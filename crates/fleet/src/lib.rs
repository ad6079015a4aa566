//! The shared vocabulary of Vigia's parts: names, bounds, addresses and the JSON documents that one part
//! writes and another reads.
//!
//! There is no AWS SDK and no socket in this crate, so that a domain rule never waits for a five-minute
//! compile. Documents in S3 are defined here even when only two crates use them: a shape that lives in one
//! place cannot drift.

pub mod stack;
pub mod desired;
pub mod worker;
pub mod registry;
pub mod policy;
pub mod release;
pub mod memory;
pub mod document;
pub mod keys;
pub mod hosts;
pub mod layers;
pub mod aws_code;
pub mod quota;
pub mod profile;

pub use desired::{DesiredCount, DesiredCountError};
pub use policy::Policy;
pub use profile::Profile;
pub use registry::{Registry, RegistryDiff};
pub use stack::{StackName, StackNameError};
pub use worker::{WorkerAddr, WorkerId};

/// The public port of the load balancer. Part of the contract: people type it.
pub const PUBLIC_PORT: u16 = 5000;
/// The load balancer's port for TLS, if it has a certificate.
pub const TLS_PORT: u16 = 5443;
/// The port a worker listens on, reachable from the load balancer and the reconciler only.
pub const WORKER_PORT: u16 = 8080;
/// The load balancer's admin port, reachable from the reconciler only.
pub const LB_ADMIN_PORT: u16 = 9000;

/// A stopping worker sends this response header on every response until its end: the load balancer then sends
/// it no new request, without waiting for the registry.
pub const DRAINING_HEADER: &str = "x-vigia-draining";
