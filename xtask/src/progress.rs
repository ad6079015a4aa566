//! Shows the progress of a long task: one line that changes on a terminal, or a line every ten seconds in a pipe.
//!
//! A task that ends before its first line is due shows nothing.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// A change that the eye can follow.
const REDRAW: Duration = Duration::from_millis(200);
/// A log of ten minutes gets sixty lines.
const IN_A_PIPE: Duration = Duration::from_secs(10);
/// Most builds after a change end before this.
const FIRST_IN_A_PIPE: Duration = Duration::from_secs(5);
/// Narrower than any terminal: a line that wraps cannot be taken back.
const WIDTH: usize = 78;

pub(crate) struct Progress {
    is_terminal: bool,
    next: Instant,
    is_drawn: bool,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let first = if is_terminal { 2 * REDRAW } else { FIRST_IN_A_PIPE };
        Self { is_terminal, next: Instant::now() + first, is_drawn: false }
    }

    /// Shows this text if the next line is due.
    pub(crate) fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let text = text();
        // An error while writing to a closed standard error is nothing that could be told.
        let mut out = std::io::stderr().lock();
        if self.is_terminal {
            let line: String = text.chars().take(WIDTH).collect();
            let _ = write!(out, "\r\x1b[K{line}");
            self.next = now + REDRAW;
        } else {
            let _ = writeln!(out, "{text}");
            self.next = now + IN_A_PIPE;
        }
        let _ = out.flush();
        self.is_drawn = true;
    }

    /// Removes the line from the terminal, so that other output can follow.
    pub(crate) fn clear(&mut self) {
        if self.is_terminal && self.is_drawn {
            eprint!("\r\x1b[K");
            self.is_drawn = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Rounds a duration for a reader: `40 s`, `6 min`.
pub(crate) fn roughly(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=89 => format!("{} s", seconds.div_ceil(10).max(1) * 10),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_to_what_can_be_known() {
        let said = [0, 1, 11, 89, 90, 149, 151, 600].map(|seconds| roughly(Duration::from_secs(seconds)));
        assert_eq!(said, ["10 s", "10 s", "20 s", "90 s", "2 min", "2 min", "3 min", "10 min"]);
    }
}
