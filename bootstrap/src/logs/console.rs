//! The console of an instance: the end of its output since its boot.

use aws_sdk_ec2::operation::get_console_output::GetConsoleOutputOutput;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::event::Event;
use crate::aws::Aws;
use crate::error::{Result, Step as _, found};

/// How far a console has been printed.
#[derive(Default)]
pub(super) struct Console {
    seen: String,
}

/// Returns the console's present text; empty for an instance that EC2 has forgotten.
pub(super) async fn fetch(aws: &Aws, id: &str) -> Result<String> {
    let ask = async |latest: bool| {
        let ask = aws.ec2.get_console_output().instance_id(id);
        let ask = if latest { ask.latest(true) } else { ask };
        ask.send().await.step(|| format!("read the console of {id}"))
    };
    let got = match ask(true).await {
        // Only Nitro instances have the latest output.
        Err(error) if error.message().contains("UnsupportedOperation") => ask(false).await,
        other => other,
    };
    Ok(found(got)?.as_ref().map(decoded).unwrap_or_default())
}

fn decoded(got: &GetConsoleOutputOutput) -> String {
    let bytes: Vec<u8> =
        got.output().unwrap_or_default().bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    cleaned(&String::from_utf8_lossy(&STANDARD.decode(bytes).unwrap_or_default()))
}

/// Removes the control sequences that would move the cursor or colour the reader's terminal: boots print
/// both.
fn cleaned(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => clean.push(c),
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                // Parameters, then one final letter or sign.
                while chars.next_if(|c| !('\u{40}'..='\u{7e}').contains(c)).is_some() {}
                chars.next();
            }
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}

impl Console {
    /// Returns the lines added since the last look. While the log is followed, an incomplete line waits for
    /// its end.
    pub(super) fn fresh(&mut self, now: &str, since: Option<Timestamp>, is_followed: bool) -> Vec<String> {
        let whole = if is_followed { &now[..now.rfind('\n').map_or(0, |end| end + 1)] } else { now };
        let lines = young(beyond(&self.seen, whole), since).into_iter().map(str::to_owned).collect();
        self.seen = whole.to_owned();
        lines
    }
}

/// Returns the part of `now` beyond `before`. Both are ends of one log, whose beginning falls away, so the
/// first line of `now` may be cut.
fn beyond<'a>(before: &str, now: &'a str) -> &'a str {
    let line_starts = |text: &str| {
        let inner: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        std::iter::once(0).chain(inner).filter(|at| *at < text.len()).collect::<Vec<_>>()
    };
    let second_line = now.find('\n').map_or(now.len(), |end| end + 1);
    // The longest overlap is tried first, so that repeated lines are neither lost nor printed twice.
    for start in line_starts(before) {
        let common = &before[start..];
        for from in [0, second_line] {
            if let Some(rest) = now[from..].strip_prefix(common) {
                return rest;
            }
        }
    }
    now
}

/// Returns the lines from `since` on. A line without a time has the time of the line before it.
fn young(text: &str, since: Option<Timestamp>) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let Some(since) = since else { return lines.collect() };
    let mut is_young = false;
    lines
        .filter(|line| {
            is_young = Event::parse(line).map_or(is_young, |event| event.time >= since);
            is_young
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_lines_are_shown_even_if_the_beginning_is_cut_off() {
        for (before, now, new) in [
            ("", "a\nb\n", "a\nb\n"),
            ("a\nb\n", "a\nb\n", ""),
            ("a\nb\n", "a\nb\nc\n", "c\n"),
            ("a\nb\nc\n", "b\nc\nd\n", "d\n"),
            ("aaa\nb\nc\n", "aa\nb\nc\nd\n", "d\n"),
            ("a\nb\n", "x\ny\n", "x\ny\n"),
            ("b\nb\n", "b\nb\nb\n", "b\n"),
            ("a\n", "", ""),
        ] {
            assert_eq!(beyond(before, now), new, "{before:?} then {now:?}");
        }
    }

    #[test]
    fn half_a_line_waits_for_its_end_only_if_a_look_follows() {
        let mut console = Console::default();
        assert_eq!(console.fresh("one\ntw", None, true), ["one"]);
        assert_eq!(console.fresh("one\ntwo\n", None, true), ["two"]);
        assert_eq!(Console::default().fresh("one\ntw", None, false), ["one", "tw"]);
    }

    #[test]
    fn older_lines_are_omitted_by_their_own_times() {
        let line =
            |at: &str| format!("[  12.3] ec2-worker[7]: {{\"timestamp\":\"{at}\",\"level\":\"INFO\"}}");
        let (old, new) = (line("2026-01-01T10:00:00Z"), line("2026-01-01T12:00:00.5Z"));
        let text = format!("boot\n{old}\nno time\n{new}\n\nno time either\n");
        let since = "2026-01-01T11:00:00Z".parse().expect("a time");
        assert_eq!(young(&text, Some(since)), [new.as_str(), "no time either"]);
        assert_eq!(young(&text, None).len(), 5);
    }

    #[test]
    fn nothing_in_a_console_reaches_the_terminal_as_a_command() {
        assert_eq!(cleaned("\u{1b}[0;32m  OK  \u{1b}[0m\r\nok\u{7}\u{1b}]0;t\n\té"), "  OK  \nok]0;t\n\té");
        assert_eq!(cleaned("\u{1b}["), "");
    }
}
