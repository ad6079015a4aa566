//! All printing. Results go to standard output, progress to standard error, so that a script can
//! read the one and a person the other.
//!
//! | mode | standard error | standard output |
//! |---|---|---|
//! | for people, on a terminal | a spinner, and a line for each step | the result |
//! | for people, elsewhere, or with `TERM=dumb` | a line for each step | the result |
//! | `--quiet` | errors alone | the result |
//! | `--json` | one JSON object a line: `step`, `message`, `error` | the result, one JSON object; of `logs` one a line |

use std::io::{IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use process::settings::{Env, Vars as _};
use serde_json::{Value, json};

use crate::part::{Change, Part};

/// How this process prints; set once at its start, before anything is printed.
static MODE: OnceLock<Mode> = OnceLock::new();

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    People,
    Quiet,
    Json,
}

/// Sets the mode; only the first call counts.
pub fn choose(mode: Mode) {
    MODE.set(mode).ok();
}

pub fn mode() -> Mode {
    MODE.get().copied().unwrap_or_default()
}

/// Returns whether a person reads standard output.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Returns whether standard output is a screen that can be redrawn.
pub fn is_screen() -> bool {
    is_terminal() && !is_dumb()
}

/// Returns whether words may be coloured: on a screen, unless <https://no-color.org> is asked for.
pub fn has_colour() -> bool {
    is_screen() && Env.get("NO_COLOR").is_none_or(|text| text.is_empty())
}

fn is_dumb() -> bool {
    Env.get("TERM").as_deref() == Some("dumb")
}

/// The spinner of the running command, so that a wait deep inside a step can show itself.
static SPINNER: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Progress of a command: one line per step, with what happened and how long it took.
pub struct Progress {
    spinner: Option<ProgressBar>,
    is_silent: bool,
    step: Option<(String, Instant)>,
    /// All compared resources, in order.
    pub parts: Vec<Part>,
}

/// A step with more changes than this does not list them; `--json` does.
const NAMED: usize = 8;

impl Default for Progress {
    fn default() -> Self {
        let is_animated = mode() == Mode::People && std::io::stderr().is_terminal() && !is_dumb();
        let spinner = is_animated.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}").expect("a constant template is valid"),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        SPINNER.lock().clone_from(&spinner);
        Self { spinner, is_silent: false, step: None, parts: Vec::new() }
    }
}

/// Clears the spinner, so that an interrupted command leaves no half line.
impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Progress {
    /// Prints no lines: for a run whose steps do nothing.
    pub fn silent() -> Self {
        let mut progress = Self::default();
        progress.is_silent = true;
        progress
    }

    /// Begins a step; the line appears when it ends, except on a terminal.
    pub fn begin(&mut self, what: impl Into<String>) {
        let what = what.into();
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{what} …"));
        }
        self.step = Some((what, Instant::now()));
    }

    /// Ends the step with its most important change, and names what changed.
    pub fn end(&mut self, parts: Vec<Part>) {
        self.end_with(Change::most_important(&parts).as_str());
        let changed: Vec<&Part> = parts.iter().filter(|part| part.is_change()).collect();
        if mode() == Mode::People && (1..=NAMED).contains(&changed.len()) {
            for part in changed {
                self.line(&format!("  {:<9} {part}", part.change.as_str()));
            }
        }
        self.parts.extend(parts);
    }

    /// Returns how many things were created, updated or removed.
    pub fn changes(&self) -> usize {
        self.parts.iter().filter(|part| part.is_change()).count()
    }

    pub fn end_with(&mut self, outcome: &str) {
        let Some((what, since)) = self.step.take() else { return };
        let seconds = since.elapsed().as_secs_f64();
        if self.is_silent {
            return;
        }
        match mode() {
            Mode::Json => event(&step_event(&what, outcome, seconds)),
            Mode::People | Mode::Quiet => self.line(&format!("{what:<38} {outcome} ({seconds:.1} s)")),
        }
    }

    /// Prints a line of its own.
    pub fn line(&self, text: &str) {
        if self.is_silent {
            return;
        }
        match (mode(), &self.spinner) {
            (Mode::Quiet, _) => {}
            (Mode::Json, _) => event(&json!({"event": "message", "text": text})),
            (Mode::People, Some(spinner)) => spinner.println(text),
            (Mode::People, None) => {
                writeln!(std::io::stderr(), "{text}").ok();
            }
        }
    }

    /// Replaces the spinner's text while a step waits; without a terminal nothing is printed.
    pub fn waiting(&self, text: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(text.to_owned());
        }
    }

    pub fn finish(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn step_event(what: &str, outcome: &str, seconds: f64) -> Value {
    json!({"event": "step", "what": what, "change": outcome, "seconds": (seconds * 10.0).round() / 10.0})
}

fn event(value: &Value) {
    writeln!(std::io::stderr(), "{value}").ok();
}

/// Shows what a step waits for, in the spinner.
pub fn waiting(text: &str) {
    if let Some(spinner) = &*SPINNER.lock() {
        spinner.set_message(text.to_owned());
    }
}

/// Prints what a step has been waiting for, in a line of its own.
pub fn still_waiting(text: &str) {
    let spinner = SPINNER.lock().clone();
    match (mode(), spinner) {
        (Mode::People, Some(spinner)) => spinner.println(text),
        _ => note(text),
    }
}

/// Prints the last line of a failed command.
pub fn failure(message: &str, exit: u8) {
    match mode() {
        Mode::Json => event(&json!({"event": "error", "text": message, "exit": exit})),
        Mode::People | Mode::Quiet => {
            writeln!(std::io::stderr(), "error: {message}").ok();
        }
    }
}

/// Prints a message that a person should know in addition to the result.
pub fn note(text: &str) {
    match mode() {
        Mode::People => {
            writeln!(std::io::stderr(), "{text}").ok();
        }
        Mode::Json => event(&json!({"event": "message", "text": text})),
        Mode::Quiet => {}
    }
}

/// Prints a line of the result on standard output. A closed standard output is not an error.
pub fn result(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}

/// Prints like `result`, for commands without an end; returns whether standard output is still open.
pub fn is_read(text: &str) -> bool {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_object_with_what_change_and_seconds() {
        let event = step_event("buckets", "created", 1.2345);
        assert_eq!(
            event.to_string(),
            r#"{"change":"created","event":"step","seconds":1.2,"what":"buckets"}"#
        );
    }
}
