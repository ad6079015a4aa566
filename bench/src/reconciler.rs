//! The reconciler: how long a plan takes, and the cost of a tick of the deployed function.

pub mod stack;
pub mod planning;
pub mod cloud;
pub mod instance_xml;
pub mod workers;
pub mod runtime;
pub mod function;
pub mod tick;
pub mod package;
