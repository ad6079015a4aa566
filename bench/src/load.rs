//! The load generator: one thread that sends the same request again and again, and checks the answers.
//!
//! It shares its core with the workers while the proxy has a core alone. So a request costs one write and one
//! read, nothing is allocated, and only status and length of an answer are checked. Without a rate, each
//! connection sends its next request as soon as it is answered: a slow answer then delays the next request,
//! and the latencies flatter the proxy. At a rate, a latency counts from the moment a request was due,
//! whatever delayed it.

pub mod plan;
pub mod method;
pub mod request;
pub mod pace;
pub mod window;
pub mod transport;
pub mod connection;
pub mod generator;
pub mod report;

pub use generator::run;
pub use plan::Plan;
pub use report::Report;
