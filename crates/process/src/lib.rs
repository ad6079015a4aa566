//! Settings, log and shutdown: every program does these the same way.
//!
//! There is no AWS SDK and no domain type in here.

pub mod settings;
pub mod telemetry;
pub mod shutdown;
