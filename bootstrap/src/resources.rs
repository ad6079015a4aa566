//! One file per kind of resource. Each knows how to find it by name or tag, compare it with what
//! is wanted, make the difference, and delete it; a delete of what is not there is done.

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
mod upload;
