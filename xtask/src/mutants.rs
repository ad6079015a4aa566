//! Planted bugs: wrong versions of the rules that a check must notice.
//!
//! No program contains a planted bug. Each is a patch in `sim/mutants` ([`planted`]), which is applied to a copy of the
//! pure crates ([`scratch`]); the user's tree is only read.

mod deadline;
mod patch;
mod planted;
mod scratch;
mod simulator;

pub(crate) use planted::run as planted;
