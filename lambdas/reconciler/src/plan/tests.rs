//! One test for each rule of the table above, and one that throws everything at the planner.
//!
//! [`world`] is the rest of the system on paper. A scenario ends in `expect_rest` or `settle_down`:
//! once a fleet is right, further ticks do nothing.

mod world;

mod blind;
mod boots;
mod health;
mod lost;
mod outcomes;
mod random;
mod registry;
mod size;
mod unseen;
