//! Calls other programs, and turns their exit codes into ours.

use std::fmt;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result};

/// A prerequisite is missing: the same code as in `bootstrap`.
pub const PREREQUISITE: u8 = 8;
/// The command line is wrong.
pub const USAGE: u8 = 2;

/// An error with an exit code of its own.
#[derive(Debug)]
pub enum Failure {
    /// A program failed, and has said why.
    Said(u8),
    Stop {
        code: u8,
        message: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(code) => write!(out, "exit code {code}"),
            Self::Stop { message, .. } => out.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

/// Returns an error that ends the program with this exit code.
pub fn stop(code: u8, message: impl Into<String>) -> anyhow::Error {
    Failure::Stop { code, message: message.into() }.into()
}

/// Turns the status of a program, which has printed its own errors, into a result.
pub fn checked(status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { Err(Failure::Said(code_of(status)).into()) }
}

/// Returns the exit code as a shell reports it: 128 and the signal's number for a killed program.
pub fn code_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<()> {
    checked(command.status().with_context(|| format!("cannot run {}", shown(command)))?)
}

/// Runs a program and returns its standard output.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", shown(command)))?;
    checked(output.status)?;
    String::from_utf8(output.stdout).with_context(|| format!("the output of {} is no UTF-8", shown(command)))
}

/// Replaces this process: signals and the terminal are the program's own. Returns only an error.
pub fn become_program(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", shown(command)))
}

fn shown(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
