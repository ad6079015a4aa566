//! The command line; see the library.

#![expect(clippy::print_stderr, reason = "errors go to standard error")]

use std::process::ExitCode;

use xtask::failure::{Failure, USAGE};
use xtask::settings::Settings;
use xtask::targets;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(target) = words.next().filter(|word| !word.starts_with('-')) else {
        eprintln!("{}", targets::usage());
        return ExitCode::from(USAGE);
    };
    match Settings::read(words).and_then(|settings| targets::run(&target, &settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref() {
            Some(Failure::Said(code)) => ExitCode::from(*code),
            Some(Failure::Stop { code, message }) => {
                eprintln!("error: {message}");
                ExitCode::from(*code)
            }
            None => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}
