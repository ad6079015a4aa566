//! The local cloud as an AWS SDK sees it, and as a person at the command line does.
//!
//! All tests but those of the command line share one local cloud, which lives as long as this
//! process; each has networks, buckets and instances of its own.

mod api_faults;
mod boot;
mod command_line;
mod consistency;
mod credits;
mod elastic_ip;
mod faults;
mod iam;
mod launch;
mod metadata;
mod quotas;
mod signatures;
mod support;
