//! What tests of several crates need. No program depends on this crate: `make check` fails if one does.

pub mod emulator;
pub mod client;
pub mod proxy;
pub mod wait;

pub use local_cloud::addresses::unused;
