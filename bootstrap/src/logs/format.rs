//! How a line of a log is printed.
//!
//! | standard output | an event | another line |
//! |---|---|---|
//! | a terminal | `14:03:05 WARN  audit: a request was refused  event=refused from=203.0.113.9` | as it is |
//! | a pipe or file, or `--json` | `{"source":…,"time":…,"level":…,"message":…,"fields":{…}}` | `{"source":…,"line":…}` |
//!
//! Clients choose some of the text: header values, logins. So no character that a terminal would obey, or that would
//! reorder the text, is printed in either form.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value};

use super::event::Event;

pub(super) enum Format {
    Terminal(Terminal),
    Json,
}

pub(super) struct Terminal {
    pub(super) zone: TimeZone,
    /// An event of another day is printed with its date.
    pub(super) now: Timestamp,
    pub(super) has_colour: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Object<'a> {
    Event {
        source: &'a str,
        time: Timestamp,
        level: &'a str,
        message: &'a str,
        fields: &'a Map<String, Value>,
    },
    Line {
        source: &'a str,
        line: &'a str,
    },
}

impl Format {
    /// Formats a line of `source`: `reconciler`, or role and id of an instance.
    pub(super) fn line(&self, source: &str, line: &str) -> String {
        match (self, Event::parse(line)) {
            (Self::Terminal(terminal), Some(event)) => terminal.event(&event),
            (Self::Terminal(_), None) => printable(line),
            (Self::Json, Some(Event { time, level, message, fields })) => {
                object(&Object::Event { source, time, level: &level, message: &message, fields: &fields })
            }
            (Self::Json, None) => object(&Object::Line { source, line }),
        }
    }
}

impl Terminal {
    fn event(&self, event: &Event) -> String {
        let [time, now] = [event.time, self.now].map(|time| time.to_zoned_datetime(self.zone.clone()));
        let time = time.strftime(if time.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" });
        let level = self.coloured(&format!("{:<5}", printable(&event.level)), colour(&event.level));
        let audit = if event.is_audit() { self.coloured("audit: ", BOLD) } else { String::new() };
        let mut text = format!("{time} {level} {audit}{}", printable(&event.message));
        for (number, (name, value)) in event.fields.iter().filter(|(name, _)| *name != "target").enumerate() {
            text.push_str(if number == 0 { "  " } else { " " });
            text.push_str(&format!("{}={}", printable(name), shown(value)));
        }
        text
    }

    fn coloured(&self, text: &str, colour: u8) -> String {
        if self.has_colour { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

const BOLD: u8 = 1;

/// Returns the level's colour: red, yellow, green, or faint.
fn colour(level: &str) -> u8 {
    match level {
        "ERROR" => 31,
        "WARN" => 33,
        "INFO" => 32,
        _ => 2,
    }
}

/// Formats a field's value. A text that could be mistaken for more than one field is quoted.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let is_word = !text.is_empty()
                && text.chars().all(|c| is_printable(c) && !matches!(c, ' ' | '=' | '"' | '\\'));
            if is_word { text.clone() } else { format!("{text:?}") }
        }
        other => printable(&other.to_string()),
    }
}

fn object(object: &Object<'_>) -> String {
    let text = serde_json::to_string(object).expect("texts, numbers and a map with text keys are JSON");
    // Only strings have such characters, and there JSON may write any character like this.
    escaped(&text, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

/// Replaces characters that are not printable by escapes as Rust writes them. A tab becomes a space.
pub(super) fn printable(text: &str) -> String {
    escaped(text, |c, out| match c {
        '\t' => out.push(' '),
        c => out.extend(c.escape_debug()),
    })
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            out.push(c);
        } else {
            escape(c, &mut out);
        }
    }
    out
}

/// Returns whether a character only puts a sign or a space on the terminal. Control characters do not, nor do
/// those without a width of their own, for example U+202E, which reverses the text after it.
fn is_printable(c: char) -> bool {
    // `escape_debug` leaves printable characters as they are, apart from these three.
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(has_colour: bool) -> Format {
        let now = "2026-01-02T13:00:00Z".parse().expect("a time");
        Format::Terminal(Terminal { zone: TimeZone::fixed(jiff::tz::offset(1)), now, has_colour })
    }

    const EVENT: &str = r#"ec2-worker[7]: {"timestamp":"2026-01-02T12:03:05.25Z","level":"WARN","message":"a request was refused","event":"refused","n":3,"target":"audit::anonymous","why":"two hosts"}"#;

    #[test]
    fn an_event_is_one_line_with_its_fields() {
        assert_eq!(
            terminal(false).line("worker i-1", EVENT),
            "13:03:05 WARN  audit: a request was refused  event=refused n=3 why=\"two hosts\""
        );
    }

    #[test]
    fn only_level_and_mark_are_coloured() {
        assert_eq!(
            terminal(true).line("worker i-1", EVENT),
            "13:03:05 \u{1b}[33mWARN \u{1b}[0m \u{1b}[1maudit: \u{1b}[0ma request was refused  \
             event=refused n=3 why=\"two hosts\""
        );
    }

    #[test]
    fn an_event_of_another_day_has_its_date() {
        let line = r#"{"timestamp":"2026-01-01T22:59:59Z","level":"INFO","message":"serving"}"#;
        assert_eq!(terminal(false).line("reconciler", line), "2026-01-01 23:59:59 INFO  serving");
        let line = r#"{"timestamp":"2026-01-01T23:00:00Z","level":"INFO","message":"serving"}"#;
        assert_eq!(terminal(false).line("reconciler", line), "00:00:00 INFO  serving");
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        let line = "[    0.000000] Linux version 6.1 {x}: \"ä\" \\ 'b'";
        assert_eq!(terminal(true).line("lb i-2", line), line);
        assert_eq!(
            Format::Json.line("lb i-2", line),
            r#"{"source":"lb i-2","line":"[    0.000000] Linux version 6.1 {x}: \"ä\" \\ 'b'"}"#
        );
    }

    #[test]
    fn an_event_is_one_object_with_source_and_fields() {
        assert_eq!(
            Format::Json.line("worker i-1", EVENT),
            r#"{"source":"worker i-1","time":"2026-01-02T12:03:05.25Z","level":"WARN","message":"a request was refused","fields":{"event":"refused","n":3,"target":"audit::anonymous","why":"two hosts"}}"#
        );
    }

    #[test]
    fn values_cannot_pretend_to_be_other_fields() {
        for (value, text) in [
            (Value::from("word"), "word"),
            (Value::from(""), "\"\""),
            (Value::from("x level=INFO"), "\"x level=INFO\""),
            (Value::from("x\" n=\"y"), r#""x\" n=\"y""#),
            (Value::from("a\\n"), r#""a\\n""#),
            (Value::from(true), "true"),
            (serde_json::json!(["a\u{202e}"]), r#"["a\u{202e}"]"#),
        ] {
            assert_eq!(shown(&value), text);
        }
    }

    /// Title of the window, colour, return, bell, backspace, delete, C1's CSI, direction of text, an invisible tag.
    const EVIL: &str = "\u{1b}]0;t\u{7}\u{1b}[31mred\r\n\u{8}\u{7f}\u{9b}2J\u{202e}\u{2066}\u{e0041}";

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let event = serde_json::json!({
            "timestamp": "2026-01-02T12:00:00Z", "level": EVIL, "message": EVIL, EVIL: EVIL, "list": [EVIL],
        });
        for line in [event.to_string(), EVIL.to_owned(), format!("{{{EVIL}")] {
            for format in [terminal(false), Format::Json] {
                let printed = format.line("worker i-1", &line);
                let obeyed = printed
                    .chars()
                    .find(|c| c.is_control() || matches!(c, '\u{202e}' | '\u{2066}' | '\u{e0041}'));
                assert_eq!(obeyed, None, "{printed:?}");
                assert!(printed.contains("red"), "{printed}");
            }
        }
    }

    #[test]
    fn escapes_in_json_keep_the_text() {
        for line in [EVIL, "\\\u{9b}\\\\\u{e0041}\""] {
            let object: Value = serde_json::from_str(&Format::Json.line("lb i-2", line)).expect("JSON");
            assert_eq!(object["line"], line);
        }
    }
}
