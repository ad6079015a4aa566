//! Many clients that mean no good, in one thread: a crowd that only stays, heads and bodies that come
//! a byte a second, and clients that never read what they asked for. Whom the proxy turns away comes
//! again at once.

pub mod client;
pub mod crowd;

pub use client::Kind;
pub use crowd::{Crowd, run};
