//! `status --watch`: prints the status every two seconds, until Ctrl-C or until standard output is closed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::{look, table};
use crate::aws::Aws;
use crate::error::Result;
use crate::output;

const PERIOD: Duration = Duration::from_secs(2);
/// To the upper left corner; each line clears the rest of the old line, and the last one everything below.
const HOME: &str = "\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

/// Prints until interrupted. The first look must succeed; later ones may fail, and print the error.
pub(super) async fn run(aws: &Aws, json: bool) -> Result<()> {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let is_screen = output::is_screen() && !json;
    let mut is_first = true;
    loop {
        period.tick().await;
        let status = match look(aws).await {
            Err(error) if is_first => return Err(error),
            other => other,
        };
        let now = Timestamp::now();
        let text = match (&status, json) {
            (Ok(status), true) => serde_json::to_string(status).expect("a status is plain data"),
            (Ok(status), false) => block(&table(status, now), now),
            (Err(error), true) => serde_json::json!({"error": error.message()}).to_string(),
            (Err(error), false) => block(&format!("Could not read the status: {}", error.message()), now),
        };
        let text = match is_screen {
            true => screen(&text, is_first),
            false => text,
        };
        is_first = false;
        if !output::is_read(&text) {
            return Ok(());
        }
    }
}

fn block(text: &str, now: Timestamp) -> String {
    format!("{}  (every {} s; Ctrl-C ends)\n{text}\n", now.strftime("%H:%M:%SZ"), PERIOD.as_secs())
}

fn screen(text: &str, is_first: bool) -> String {
    let lines: String = text.lines().map(|line| format!("{line}{CLEAR_LINE}\n")).collect();
    // The earlier contents of the screen scroll away only once.
    let begin = if is_first { "\u{1b}[2J" } else { "" };
    format!("{begin}{HOME}{lines}{CLEAR_BELOW}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrawn_screen_leaves_nothing_of_the_one_before() {
        assert_eq!(screen("a\nb", false), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert!(screen("a", true).starts_with("\u{1b}[2J"));
    }
}
