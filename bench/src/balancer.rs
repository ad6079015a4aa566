//! The load balancer against its peers: the cost of a request, and the failures that clients see when workers
//! die or other clients misbehave.
//!
//! The proxy has a core alone; workers, load and this program share the others. Peers get the same workers,
//! the same load and about the same resources; their configurations are in `config`.

pub mod cores;
pub mod ports;
pub mod child;
pub mod interrupt;
pub mod certificate;
pub mod control;
pub mod workers;
pub mod peer;
pub mod config;
pub mod proxy;
pub mod rig;
pub mod statistics;
pub mod scenario;
pub mod memory;
pub mod results;
pub mod goals;
pub mod plot;
pub mod compare;
pub mod kill;
pub mod slow;
pub mod soak;
