//! Benchmarks of Vigia, and the code that they share.
//!
//! No crate of the product and no AWS SDK is linked here but the reconciler's pure core and `users`,
//! which hashes: whatever else is measured is a program as it is deployed, in a process of its own.

pub mod reconciler;
pub mod wire;
pub mod backend;
pub mod load;
pub mod attack;
pub mod balancer;
pub mod login;
pub mod process;
pub mod table;
