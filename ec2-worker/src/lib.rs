//! The login service: one of the interchangeable workers behind the load balancer.
//!
//! A worker keeps nothing of its own: users are objects in the data bucket, the desired count and
//! the secrets are objects in the control bucket, a session is a sealed cookie. Any worker answers
//! any request, and one that is killed loses only the requests in flight.
//!
//! Architecture invariants: AWS SDK types appear in `s3` and `identity` only; no request path,
//! password, token or cookie reaches a log line (two routes carry a password in their path, so there
//! is no HTTP tracing layer); a failing S3 is a 503, never "no such user".

pub mod auth;
pub mod admin;
pub mod amount;
pub mod audit;
pub mod client;
pub mod config;
pub mod cookies;
pub mod dashboard;
pub mod error;
pub mod extract;
pub mod flights;
pub mod guard;
pub mod hash_pool;
pub mod hosts;
pub mod identity;
pub mod limits;
pub mod openapi;
pub mod pages;
pub mod routes;
pub mod secrets;
pub mod serve;
pub mod session;
pub mod start;
pub mod state;
pub mod stats;
pub mod s3;
#[cfg(test)]
pub(crate) mod memory_s3;
pub mod throttle;
pub mod user;

pub use config::Config;
pub use error::ApiError;
pub use routes::app;
pub use serve::run;
pub use start::StartError;
pub use state::Worker;
