//! The login service: what a sign-in costs beside its hash, what a session costs, and what a flood, a
//! listener with a stop-watch, a guesser, a race and a long list make of a worker.
//!
//! Workers are the program as it is deployed, alone on a core; S3 and all clients are this process, on
//! the other one. S3 here answers as late as S3 does: without that, calls to it would look free.

pub mod objects;
pub mod s3;
pub mod ground;
pub mod worker;
pub mod client;
pub mod rank;
pub mod findings;
pub mod bare;
pub mod sign_ins;
pub mod protected;
pub mod overload;
pub mod timing;
pub mod guessing;
pub mod race;
pub mod list;
pub mod starting;
