//! The load generator: one thread that asks for the same thing again and again, and checks answers.
//!
//! It shares its core with the workers while the proxy has a core alone, so a request costs it one
//! write and one read, nothing is allocated, and of an answer only status and length are looked at.
//! Without a rate, each connection asks again as soon as it is answered: a slow answer then delays
//! the next question, and the latencies flatter the proxy. At a rate, a latency counts from the
//! moment a request was due, whatever kept it from being sent.

pub mod plan;
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
