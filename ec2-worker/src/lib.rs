//! The login service: one of the interchangeable workers behind the load balancer.
//!
//! A worker keeps nothing of its own: users are objects in the data bucket, the desired count and
//! the secrets are objects in the control bucket, a session is a sealed cookie. Any worker answers
//! any request, and a killed worker loses only the requests in flight.
//!
//! Architecture invariants: AWS SDK types appear in `s3` and `identity` only; no request path,
//! password, token or cookie reaches a log line (two routes carry a password in their path, so there
//! is no HTTP tracing layer); a failing S3 is a 503, never "no such user".

// A worker starts: it reads its settings, finds its identity, claims its bucket and reads its secrets.
pub mod config;
pub mod identity;
pub mod start;
pub mod s3;
#[cfg(test)]
pub(crate) mod memory_s3;

pub mod cookies;
pub mod secrets;

// All requests to one worker share its caches, limits and counts.
pub mod state;

pub mod flights;
pub mod hash_pool;
pub mod limits;
pub mod stats;
pub mod tally;
pub mod throttle;

// A request comes in: the connection, the checks that hold for every request, the route.
pub mod serve;

pub mod app;
pub mod client;
pub mod guard;
pub mod hosts;

pub mod extract;
pub mod openapi;
pub mod routes;

// A route acts on a user, or on the fleet for the operator.
pub mod auth;
pub mod session;
pub mod user;

pub mod admin;
pub mod dashboard;
pub mod desired_count;

// The answer goes out.
pub mod audit;
pub mod error;
pub mod pages;

pub use app::app;
pub use config::Config;
pub use error::ApiError;
pub use serve::run;
pub use start::StartError;
pub use state::Worker;
