//! Tests of the deployer as a program, and of the whole system that it deploys.
//!
//! They begin in the order of their names. The names of the longest make them start early, so that the run
//! does not wait for them alone at its end.

mod a_fleet;
mod attacks;
mod aws_cli;
mod bad_input;
mod browser;
mod census;
mod classic;
mod commands;
mod consistency;
mod cuts;
mod emulators_alone;
mod eventual_consistency;
mod function;
mod healing;
mod lacking;
mod plan;
mod preflight;
mod privileges;
mod second_judge;
mod small;
mod support;
mod tls;
mod two_stacks;
