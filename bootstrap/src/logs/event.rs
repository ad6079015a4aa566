//! One line of a log, parsed. Vigia's programs write one JSON object per event; boots, the kernel and Lambda write text.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

/// An event as `process::telemetry` writes it.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "timestamp")]
    pub(super) time: Timestamp,
    pub(super) level: String,
    #[serde(default)]
    pub(super) message: String,
    /// All other fields, `target` among them.
    #[serde(flatten)]
    pub(super) fields: Map<String, Value>,
}

impl Event {
    /// Parses a line; `None` if it is not one of our events. On a console, systemd puts its own words before the
    /// object.
    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(&line[line.find('{')?..]).ok()
    }

    pub(super) fn target(&self) -> &str {
        self.fields.get("target").and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns whether it is one of the security events in `docs/security.md`.
    pub(super) fn is_audit(&self) -> bool {
        self.target().split("::").next() == Some(process::telemetry::AUDIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_behind_the_words_of_systemd() {
        let line = r#"[  12.3] ec2-worker[7]: {"timestamp":"2026-01-01T12:00:00.5Z","level":"INFO","message":"serving","stack":"s","target":"ec2_worker"}"#;
        let event = Event::parse(line).expect("an event");
        assert_eq!((event.level.as_str(), event.message.as_str()), ("INFO", "serving"));
        assert_eq!(event.time, "2026-01-01T12:00:00.5Z".parse().expect("a time"));
        assert_eq!((event.target(), &event.fields["stack"]), ("ec2_worker", &Value::from("s")));
    }

    #[test]
    fn other_lines_are_no_events() {
        for line in [
            "",
            "[    0.000000] Linux version 6.1 {x}",
            "START RequestId: 1",
            "{}",
            r#"{"timestamp":"yesterday","level":"INFO","message":"m"}"#,
            r#"{"timestamp":"2026-01-01T12:00:00Z","message":"m"}"#,
            r#"{"timestamp":"2026-01-01T12:00:00Z","level":"INFO","message":"m"} and more"#,
        ] {
            assert!(Event::parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn audit_events_are_known_by_their_target() {
        for (target, is_audit) in [("audit", true), ("audit::anonymous", true), ("auditor", false)] {
            let line = format!(
                r#"{{"timestamp":"2026-01-01T12:00:00Z","level":"INFO","message":"m","target":"{target}"}}"#
            );
            assert_eq!(Event::parse(&line).expect("an event").is_audit(), is_audit, "{target}");
        }
    }
}
