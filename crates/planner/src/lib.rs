//! What the reconciler decides, and in which order it does things: all of it but the network.
//!
//! There is no AWS SDK, no socket, no clock and no randomness in here, and nothing is async: an
//! invocation is a state machine that is told what happened and says what to do next. The Lambda
//! function carries that out against AWS, the simulator against a world of its own, and the model
//! in every possible order.

pub mod grid;
pub mod observation;
pub mod held_back;
pub mod decision;
pub mod plan;
pub mod token;
pub mod effect;
pub mod invocation;
