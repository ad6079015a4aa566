//! The targets of `make` as a program: setup, builds with progress, tests, checks, benchmarks, and calls of the deployer.
//!
//! `xtask TARGET [NAME=value]...`, where NAME is a variable of make ([`settings`]). The Makefile names the targets and
//! passes its variables. Standard output has results only, progress goes to standard error. If a program fails, its exit
//! code is xtask's.
//!
//! Architecture invariant: xtask depends on no other crate of the workspace, so it builds in seconds, even if no other
//! crate compiles.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]

pub mod failure;
pub mod settings;
pub mod targets;

mod cargo;
mod cycles;
mod mutants;
mod progress;
mod prose;
mod setup;
mod unused;
mod workspace;
