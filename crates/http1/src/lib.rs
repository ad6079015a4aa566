//! HTTP/1.1 on the wire: pure functions and state machines over bytes, without sockets.
//!
//! Strict on purpose, in both directions: a message that two readers could understand differently is
//! refused, because the next reader is a worker. Every message that passes is written again from its parts,
//! so a worker never sees the client's framing, and a client never sees the worker's.
//!
//! | file | reads or writes |
//! |---|---|
//! | `head` | where a head ends |
//! | `field` | what a header line is to a proxy |
//! | `target` | request targets and hosts |
//! | `request` | a request head, in; the worker's request head, out |
//! | `response` | a response head, in; the client's response head, out |
//! | `framing` | how long a body is, and its pieces |
//! | `chunked` | the chunked coding |

pub mod head;
pub mod field;
pub mod target;
pub mod piece;
pub mod chunked;
pub mod framing;
pub mod request;
pub mod response;
