//! Tests of the deployer as a program: what it refuses, and the whole system that it deploys.

mod bad_input;
mod browser;
mod commands;
mod function;
mod healing;
mod plan;
mod profile;
mod support;
mod tls;
mod whole_system;
