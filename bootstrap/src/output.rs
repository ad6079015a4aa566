//! All printing. Results go to standard output, progress to standard error, so that a script can
//! read the one and a person the other.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Progress of a command: one line per step, with what happened and how long it took.
pub struct Progress {
    spinner: Option<ProgressBar>,
    step: Option<(String, Instant)>,
    /// How many things were created, updated or removed.
    pub changes: usize,
}

/// What a step did to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Unchanged,
    Created,
    Updated,
    Removed,
}

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
        Self { spinner, step: None, changes: 0 }
    }
}

impl Progress {
    /// Begins a step; the line appears when it ends, except on a terminal.
    pub fn begin(&mut self, what: impl Into<String>) {
        let what = what.into();
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{what} …"));
        }
        self.step = Some((what, Instant::now()));
    }

    /// Ends the step with its most important change.
    pub fn end(&mut self, changes: &[Change]) {
        self.changes += changes.iter().filter(|change| **change != Change::Unchanged).count();
        let word = if changes.contains(&Change::Created) {
            "created"
        } else if changes.contains(&Change::Updated) {
            "updated"
        } else if changes.contains(&Change::Removed) {
            "removed"
        } else {
            "unchanged"
        };
        self.end_with(word);
    }

    pub fn end_with(&mut self, outcome: &str) {
        if let Some((what, since)) = self.step.take() {
            self.line(&format!("{what:<38} {outcome} ({:.1} s)", since.elapsed().as_secs_f64()));
        }
    }

    /// A line of its own.
    pub fn line(&self, text: &str) {
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
