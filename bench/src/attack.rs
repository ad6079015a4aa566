//! Many hostile clients in one thread: a crowd that only stays, heads and bodies that come a byte a second,
//! and clients that never read their answers. A client that the proxy turns away reconnects at once.

pub mod client;
pub mod crowd;

pub use client::Kind;
pub use crowd::{Crowd, run};
