//! The login service: the cost of a sign-in in addition to its hash, the cost of a session, and the effects
//! on a worker of a flood, a listener with a stop-watch, a guesser, a race and a long list.
//!
//! Workers are the deployed program, alone on a core; S3 and all clients are this process, on the other core.
//! S3 here answers as late as the real one: otherwise calls to it would look free.

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
