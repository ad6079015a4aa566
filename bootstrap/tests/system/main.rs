//! Tests of the deployer as a program: what it refuses, and the whole system that it deploys.

mod bad_input;
mod browser;
mod census;
mod commands;
mod cuts;
mod emulators_alone;
mod function;
mod healing;
mod plan;
mod privileges;
mod profile;
mod propagation;
mod support;
mod tls;
mod two_stacks;
mod whole_system;
