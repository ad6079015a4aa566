//! What every program of ours does the same way: it reads settings, writes a log and shuts down.
//!
//! There is no AWS SDK and nothing of Vigia's domain in here.

pub mod settings;
pub mod telemetry;
pub mod shutdown;
