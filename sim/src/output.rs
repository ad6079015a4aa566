//! Lines on standard output.

use std::io::Write as _;

/// One line. A reader that went away ends the output, not the run.
pub fn line(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}

/// One line of a run's story.
pub fn story(text: &str) {
    line(text);
}

/// Of durations in milliseconds: median, 99th percentile, most; in seconds.
pub fn quantiles(durations: &[i64]) -> String {
    if durations.is_empty() {
        return "none".to_owned();
    }
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let at = |share: usize| sorted[(sorted.len() - 1) * share / 100] as f64 / 1000.0;
    format!("{} of them: p50 {:.1} s, p99 {:.1} s, longest {:.1} s", sorted.len(), at(50), at(99), at(100))
}
