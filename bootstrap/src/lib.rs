//! The deployer: creates a stack on any AWS endpoint, shows it, changes it, removes it.
//!
//! There is no local state file. Resources are found by deterministic names and by tags, so the next run
//! completes an interrupted one, and two operators see the same stack.

pub mod cli;
pub mod aws;
pub mod patience;
pub mod names;
pub mod cidr;
pub mod blueprint;
pub mod ec2_api;
pub mod part;
pub(crate) mod check;
pub mod requested;
pub mod preflight;
pub mod exposure;
pub mod deploy;
mod definition;
pub mod plan;
pub mod cost;
pub mod tls;
pub mod certificate;
pub mod executable;
pub mod resources;
pub mod policies;
pub mod iam_policy;
pub mod user_data;
pub mod healthy;
pub mod rollout;
pub mod status;
pub mod logs;
pub mod doctor;
pub mod scale;
pub mod token;
pub mod session_keys;
pub mod migrate_profile;
pub mod destroy;
pub mod output;
pub mod interrupt;
pub mod manual;
pub mod error;
