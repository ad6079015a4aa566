//! Planted bugs and mutants: wrong versions of the code that a check must notice.
//!
//! No program contains a planted bug. Each is a patch in `sim/mutants` ([`planted`]). cargo-mutants makes up others
//! ([`generated`]). Both are applied to a copy of the pure crates ([`scratch`]); the user's tree is only read.

mod deadline;
mod generated;
mod patch;
mod planted;
mod scratch;
mod simulator;

pub(crate) use generated::run as generated;
pub(crate) use planted::run as planted;
