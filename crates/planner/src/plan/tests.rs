//! A test for each rule of the table above, and a random test that throws everything at the planner.
//!
//! [`world`] is the rest of the system on paper. A scenario ends in `expect_rest` or `settle_down`:
//! once a fleet is right, further ticks do nothing.

mod rules;
mod world;

mod account;
mod balancer;
mod balancer_crashes;
mod blind;
mod boots;
mod brakes;
mod crashes;
mod credits;
mod dark;
mod fast;
mod health;
mod limits;
mod lost;
mod lowering;
mod outcomes;
mod random;
mod refused;
mod registry;
mod rollout;
mod size;
mod surplus;
mod table;
mod unseen;
mod young;
