//! One file per kind of resource. Each file finds it by name or tag, compares it with the wanted state, makes
//! the difference, and deletes it. Deleting a missing resource succeeds.

pub mod artifact;
pub mod bucket;
pub mod certificate;
pub mod documents;
pub mod function;
pub mod image;
pub mod instance;
pub mod load_balancer;
pub mod network;
pub mod role;
pub mod schedule;
pub mod secrets;
mod upload;
