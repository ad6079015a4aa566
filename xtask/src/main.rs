//! The command line; see the library.

#![expect(clippy::print_stderr, reason = "errors go to standard error")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_write = words.iter().any(|word| word == "--write");
    let result = match words.first().map(String::as_str) {
        Some("prose") => xtask::prose::run(is_write),
        Some("cycles") => xtask::cycles::run(is_write),
        _ => {
            eprintln!("usage: xtask prose|cycles [--write]");
            return ExitCode::from(xtask::failure::USAGE);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
