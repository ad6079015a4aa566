//! Cargo with progress: which crate, how many of how many, and roughly how long.
//!
//! Cargo draws a progress bar for terminals on standard error, `Building [==> ] 12/345: serde, syn`; it is switched on
//! and read here, and shown in our own form. On standard output cargo reports each finished artifact as JSON, which
//! says whether it was compiled or there already. Errors and warnings pass through as rustc writes them.

mod estimate;
mod line;

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::estimate::Estimate;
use self::line::Line;
use crate::failure::checked;
use crate::progress::Progress;

/// Returns a call of cargo.
pub(crate) fn cargo() -> Command {
    Command::new("cargo")
}

/// Runs a command of cargo that compiles. Prints nothing if there is nothing to compile.
pub(crate) fn compile(subcommand: &str, arguments: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.arg(subcommand).args(arguments);
    watch(&command, 1)
}

/// Runs a command that calls cargo's `build`, `test --no-run`, `clippy`, `doc` or `install`.
///
/// `--message-format` is put in after the first `after` arguments.
pub(crate) fn watch(command: &Command, after: usize) -> Result<()> {
    let mut command = with_messages(command, after);
    command
        .env("CARGO_TERM_QUIET", "false")
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        // Enough for the names of all crates in work.
        .env("CARGO_TERM_PROGRESS_WIDTH", "200")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let is_colourful = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if is_colourful && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let is_everything = command.get_args().any(|argument| argument == "--workspace");
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let (sender, events) = channel();
    let readers = [
        child.stdout.take().map(|out| spawn(out, sender.clone(), artifacts)),
        child.stderr.take().map(|out| spawn(out, sender, lines)),
    ];
    let mut progress = Progress::start();
    let mut estimate = Estimate::new(is_everything, Instant::now());
    loop {
        match events.recv_timeout(Duration::from_millis(500)) {
            Ok(Event::Artifact { name, is_fresh }) => estimate.finished(&name, is_fresh),
            Ok(Event::Line(Line::Units { done, total, active })) => {
                estimate.at(done, total, active, Instant::now())
            }
            Ok(Event::Line(Line::Status(text))) => estimate.waits_for(text),
            Ok(Event::Line(Line::Silent)) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Line(Line::Text(text))) => {
                progress.clear();
                let mut out = std::io::stderr().lock();
                let _ = writeln!(out, "{text}");
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if estimate.is_worth_showing() {
            progress.show(|| estimate.text(Instant::now()));
        }
    }
    progress.clear();
    for reader in readers.into_iter().flatten() {
        // A reader only reads.
        let _ = reader.join();
    }
    checked(child.wait().with_context(|| format!("cannot wait for {name}"))?)
}

fn with_messages(command: &Command, after: usize) -> Command {
    let mut with = Command::new(command.get_program());
    let arguments: Vec<_> = command.get_args().collect();
    let (before, rest) = arguments.split_at(after.min(arguments.len()));
    with.args(before).arg("--message-format=json-render-diagnostics").args(rest);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => with.env(name, value),
            None => with.env_remove(name),
        };
    }
    with
}

enum Event {
    /// A crate, a program or a build script is there.
    Artifact {
        name: String,
        is_fresh: bool,
    },
    Line(Line),
}

fn spawn<R: Read + Send + 'static>(
    from: R,
    to: Sender<Event>,
    read: fn(R, &Sender<Event>),
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || read(from, &to))
}

fn artifacts<R: Read>(from: R, to: &Sender<Event>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        if message["reason"] == "compiler-artifact" {
            let name = message["target"]["name"].as_str().unwrap_or_default().replace('_', "-");
            let is_fresh = message["fresh"].as_bool().unwrap_or(false);
            let _ = to.send(Event::Artifact { name, is_fresh });
        }
    }
}

/// Splits at carriage returns as well, with which the progress bar ends.
fn lines<R: Read>(from: R, to: &Sender<Event>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        let Ok(available) = from.fill_buf() else { return };
        if available.is_empty() {
            break;
        }
        let end = available.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = end.map_or(available.len(), |end| end + 1);
        line.extend_from_slice(&available[..end.unwrap_or(taken)]);
        let is_line = end.is_some_and(|end| available[end] == b'\n');
        from.consume(taken);
        if end.is_some() {
            let text = String::from_utf8_lossy(&line).into_owned();
            // An empty line separates errors; what a carriage return leaves empty is none.
            if is_line || !text.trim().is_empty() {
                let _ = to.send(Event::Line(line::read(&text)));
            }
            line.clear();
        }
    }
    if !line.is_empty() {
        let _ = to.send(Event::Line(line::read(&String::from_utf8_lossy(&line))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn the_exit_code_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo '    Building [=> ] 1/2: a' >&2; echo '{\"reason\":\"x\"}'; exit 101"]);
        let error = watch(&command, 2).expect_err("it fails");
        assert!(matches!(error.downcast_ref(), Some(Failure::Said(101))), "{error}");
        assert!(watch(Command::new("sh").args(["-c", "true"]), 2).is_ok());
    }

    #[test]
    fn lines_end_at_carriage_returns_too() {
        let (sender, events) = channel();
        lines(&b"    Building [=> ] 1/2: a\r   Compiling a v1\nerror: x\n\n  --> y"[..], &sender);
        drop(sender);
        let read: Vec<Line> = events
            .into_iter()
            .filter_map(|event| if let Event::Line(line) = event { Some(line) } else { None })
            .collect();
        let text = |text: &str| Line::Text(text.to_owned());
        let units = Line::Units { done: 1, total: 2, active: vec!["a".to_owned()] };
        assert_eq!(read, [units, Line::Silent, text("error: x"), text(""), text("  --> y")]);
    }
}
