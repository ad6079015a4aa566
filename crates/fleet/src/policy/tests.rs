//! Tests of a policy: how a document is read, and the fields that `status` shows.

use std::collections::BTreeSet;
use std::hash::DefaultHasher;

use super::*;

fn parse(text: &str) -> Result<Policy, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn hash(policy: &Policy) -> u64 {
    let mut hasher = DefaultHasher::new();
    policy.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn the_default_is_within_its_bounds() {
    assert_eq!(Policy::default().check(), Ok(()));
    assert!(Policy::default().is_default());
    assert_eq!(Policy::default().differences(), []);
}

#[test]
fn a_missing_field_is_its_default() {
    assert_eq!(parse("{}"), Ok(Policy::default()));
    let policy = parse(r#"{"boot_grace":"1m 30s","crash_share":"1/2","ticks":2}"#).expect("a policy");
    let expected = Policy { boot_grace: secs(90), crash_share: share(1, 2), ticks: 2, ..Policy::default() };
    assert_eq!(policy, expected);
}

#[test]
fn only_differences_are_written() {
    let policy =
        Policy { probe_spacing: millis(500), boot_loop: 4, often_share: share(1, 2), ..Policy::default() };
    let text = serde_json::to_string(&policy).expect("plain data");
    assert_eq!(text, r#"{"probe_spacing":"500ms","often_share":"1/2","boot_loop":4}"#);
    assert_eq!(parse(&text), Ok(policy.clone()));
    let differences: Vec<String> = policy.differences().iter().map(ToString::to_string).collect();
    let expected = [
        "probe_spacing is 500ms (default 1s 500ms)",
        "often_share is 1/2 (default 1/3)",
        "boot_loop is 4 (default 3)",
    ];
    assert_eq!(differences, expected);
    assert_ne!(hash(&policy), hash(&Policy::default()));
}

#[test]
fn every_field_has_a_reason_and_a_name_of_its_own() {
    let fields = Policy::fields();
    let names: BTreeSet<&str> = fields.iter().map(|field| field.name).collect();
    assert_eq!(names.len(), fields.len());
    assert!(fields.iter().all(|field| field.reason.ends_with('.')));
}

#[test]
fn every_field_is_compared_with_its_bounds() {
    for field in Policy::fields() {
        let value = if field.default.contains('/') {
            r#""9/1""#
        } else if field.default.ends_with(|last: char| last.is_ascii_digit()) {
            "1000000"
        } else {
            r#""10000h""#
        };
        let text = format!(r#"{{"{}":{value}}}"#, field.name);
        let error = parse(&text).expect_err(&text);
        let start = format!("policy field {} is {}", field.name, value.trim_matches('"'));
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains(&format!("choose a value from {}", field.bounds)), "{error}");
    }
}

#[test]
fn fields_are_compared_with_each_other() {
    for (text, expected) in [
        (r#"{"ticks":4}"#, "policy field ticks is 4, out of bounds: choose a value from 1 to 3"),
        (
            r#"{"tick_every":"8s"}"#,
            "policy field tick_closest is 10s, out of bounds: choose a value from 500ms to 7s 999ms",
        ),
        (
            r#"{"calls_at_once":3}"#,
            "policy field launches_at_once is 3, out of bounds: choose a value from 1 to 2",
        ),
        (
            r#"{"boot_pause_longest":"30s"}"#,
            "policy field boot_pause_first is 1m, out of bounds: choose a value from 2s to 30s",
        ),
        (
            r#"{"room_after":"1m"}"#,
            "policy field room_dead_for is 1m 35s, out of bounds: choose a value from 5s to 1m",
        ),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn text_that_is_no_value_is_refused() {
    for text in [r#"{"drain":15}"#, r#"{"ticks":"3"}"#, r#"{"crash_share":"0.1"}"#] {
        parse(text).expect_err(text);
    }
}

/// `Memory` believes times in the future up to ten minutes.
#[test]
fn nothing_is_avoided_for_longer_than_memory_believes() {
    for field in Policy::fields() {
        if ["no_capacity_avoid", "credits_again_after"].contains(&field.name) {
            assert!(field.bounds.ends_with("to 10m"), "{}: {}", field.name, field.bounds);
        }
    }
}
