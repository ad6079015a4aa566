//! All printing. Results go to standard output, progress to standard error, so that a script can
//! read the one and a person the other.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::part::{Change, Part};

/// Progress of a command: one line per step, with what happened and how long it took.
pub struct Progress {
    spinner: Option<ProgressBar>,
    is_silent: bool,
    step: Option<(String, Instant)>,
    /// All that was looked at, in order.
    pub parts: Vec<Part>,
}

/// A step with more changes than this does not name each: they are in `--json`.
const NAMED: usize = 8;

impl Default for Progress {
    fn default() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}").expect("a constant template is valid"),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { spinner, is_silent: false, step: None, parts: Vec::new() }
    }
}

impl Progress {
    /// Prints no lines: for a run whose steps do nothing.
    pub fn silent() -> Self {
        Self { is_silent: true, ..Self::default() }
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
        if (1..=NAMED).contains(&changed.len()) {
            for part in changed {
                self.line(&format!("  {:<9} {part}", part.change.as_str()));
            }
        }
        self.parts.extend(parts);
    }

    /// How many things were created, updated or removed.
    pub fn changes(&self) -> usize {
        self.parts.iter().filter(|part| part.is_change()).count()
    }

    pub fn end_with(&mut self, outcome: &str) {
        if let Some((what, since)) = self.step.take() {
            self.line(&format!("{what:<38} {outcome} ({:.1} s)", since.elapsed().as_secs_f64()));
        }
    }

    /// A line of its own.
    pub fn line(&self, text: &str) {
        if self.is_silent {
            return;
        }
        match &self.spinner {
            Some(spinner) => spinner.println(text),
            None => {
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

/// A line of the result, on standard output. A reader that went away is not our error.
pub fn result(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}
