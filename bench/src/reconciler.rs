//! The reconciler: how long a plan takes, and what a tick costs the function as it is deployed.

pub mod stack;
pub mod planning;
pub mod cloud;
pub mod instance_xml;
pub mod workers;
pub mod runtime;
pub mod function;
pub mod tick;
pub mod package;
