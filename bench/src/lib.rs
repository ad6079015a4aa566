//! Benchmarks of Vigia, and the code that they share.
//!
//! Of the product's crates, only the reconciler's pure core and `accounts`, which hashes, are linked here,
//! and no AWS SDK. Everything else is measured as the deployed program, in a process of its own.

pub mod reconciler;
pub mod wire;
pub mod backend;
pub mod load;
pub mod attack;
pub mod balancer;
pub mod login;
pub mod process;
pub mod table;
