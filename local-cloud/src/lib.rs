//! AWS on one machine: two emulators behind one endpoint, and instances that are real processes.
//!
//! It knows AWS and nothing of Vigia: no type of Vigia is used here, so that a wrong belief about AWS cannot
//! stand on both sides of a test. `README.md` lists its differences from AWS.

pub mod emulators;
pub mod connection;
pub mod options;
mod shared;
pub mod door;
pub mod sigv4;
pub mod credentials;
mod function_process;
mod form;
pub mod call;
mod forward;
pub mod calls;
mod needs;
pub mod iam;
pub mod uses;
pub mod api_faults;
pub mod consistency;
pub mod reply;
pub mod quotas;
pub mod account;
pub mod service_quotas;
pub mod ec2;
pub mod xml;
pub mod addresses;
pub mod machine;
pub mod cpu;
pub mod cloud_config;
pub mod unit;
pub mod imds;
pub mod open_files;
pub mod elastic_ip;
pub mod control;
pub mod daemon;

pub use door::LocalCloud;
pub use options::Options;

/// The account of both emulators.
pub const ACCOUNT: &str = "000000000000";
