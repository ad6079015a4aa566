//! Checks of structure and prose, for `make check`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]

pub mod cycles;
pub mod failure;
pub mod prose;

mod workspace;
