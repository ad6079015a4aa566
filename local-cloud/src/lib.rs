//! AWS on one machine: two emulators behind one endpoint, and instances that are real processes.
//!
//! It knows AWS and nothing of Vigia: no type of ours is used here, so that a wrong belief of ours
//! cannot stand on both sides of a test. What it does not do as AWS does is listed in `README.md`.

pub mod addresses;
pub mod cloud_config;
pub mod control;
pub mod credentials;
pub mod daemon;
pub mod door;
pub mod ec2;
pub mod elastic_ip;
pub mod emulators;
pub mod imds;
pub mod machine;
pub mod reply;
pub mod sigv4;
pub mod unit;
pub mod xml;

pub use door::{LocalCloud, Options};

/// The account that both emulators play.
pub const ACCOUNT: &str = "000000000000";
