//! Runs steps in order, and prints a table of their times.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::settings::Settings;

/// A step: its name in the table, and its function.
pub(super) type Step = (&'static str, fn(&Settings) -> Result<()>);

/// Runs steps until one fails, and prints how long each took.
pub(super) fn run(settings: &Settings, steps: &[Step]) -> Result<()> {
    let mut times = Vec::new();
    let mut result = Ok(());
    for (name, step) in steps {
        let start = Instant::now();
        result = step(settings);
        times.push((*name, start.elapsed(), result.is_ok()));
        if result.is_err() {
            break;
        }
    }
    print!("{}", table(&times));
    result
}

fn table(times: &[(&str, Duration, bool)]) -> String {
    let total: Duration = times.iter().map(|(_, time, _)| *time).sum();
    let row = |name: &str, time: Duration, remark: &str| {
        format!("{name:<32}{:>8.1} s{remark}\n", time.as_secs_f64())
    };
    let rows = times.iter().map(|(name, time, is_ok)| row(name, *time, if *is_ok { "" } else { "  FAILED" }));
    let rows: String = rows.collect();
    format!("\n{:<32}{:>8}\n{rows}{}", "step", "seconds", row("all", total, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::stop;

    #[test]
    fn the_table_has_a_row_for_each_step_that_was_run() {
        let times = [("build", Duration::from_millis(1250), true), ("tests", Duration::from_secs(60), false)];
        let shown = table(&times);
        let rows: Vec<Vec<&str>> =
            shown.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["build", "1.2", "s"]);
        assert_eq!(rows[2], ["tests", "60.0", "s", "FAILED"]);
        assert_eq!(rows[3], ["all", "61.2", "s"]);
    }

    #[test]
    fn a_failure_ends_the_steps() {
        let failing: Step = ("first", |_| Err(stop(7, "no")));
        let never: Step = ("second", |_| panic!("not reached"));
        let error = run(&Settings::default(), &[failing, never]).expect_err("the first fails");
        assert_eq!(error.to_string(), "no");
    }
}
