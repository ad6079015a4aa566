//! Results, as aligned columns on standard output.

use std::io::Write as _;
use std::time::Duration;

/// Prints one line. A closed output ends the output, not the run.
pub fn line(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}

/// Prints progress on standard error.
pub fn progress(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Prints rows of cells. The first row is the head; units are in the head.
pub fn print(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells =
            cells.map(
                |(column, (cell, width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            );
        line(format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end());
    }
}

/// A result with a goal.
pub struct Figure {
    pub text: String,
    pub is_met: bool,
}

/// Formats 10000 as 10,000.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

pub fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}

pub fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// Returns the median.
pub fn median<T: Copy + Ord>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([7, 100, 1000, 1_234_567].map(thousands), ["7", "100", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median::<u32>(&[]), None);
        assert_eq!(median(&[3, 1, 2]), Some(2));
    }
}
