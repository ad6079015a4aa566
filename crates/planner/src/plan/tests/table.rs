//! The table of rules in `plan.rs` names fields of the policy, and their defaults in parentheses.
//!
//! `VIGIA_UPDATE_TABLES=1 cargo test -p planner -p sim table` writes the defaults of the code into the table,
//! and the table of all fields into `docs/policy.md`.

use fleet::Policy;
use fleet::policy::Field;
use jiff::SignedDuration;

const SOURCE: &str = include_str!("../../plan.rs");

/// Returns the words for a default as [`Policy::fields`] shows it.
fn words(shown: &str) -> String {
    let spelled =
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let shares =
        [("1/2", "half"), ("1/3", "a third"), ("1/4", "a quarter"), ("1/5", "a fifth"), ("1/10", "a tenth")];
    if let Ok(number) = shown.parse::<usize>() {
        return number.checked_sub(1).and_then(|n| spelled.get(n)).map_or(shown, |word| word).to_owned();
    }
    if let Some((part, of)) = shown.split_once('/') {
        let percent = || {
            let (part, of): (u32, u32) = (part.parse().expect("a share"), of.parse().expect("a share"));
            format!("{} %", part * 100 / of)
        };
        let known = shares.iter().find(|(share, _)| *share == shown);
        return known.map_or_else(percent, |(_, word)| (*word).to_owned());
    }
    let duration: SignedDuration = shown.parse().expect("neither a number nor a share");
    crate::held_back::in_words(duration)
}

/// Writes a value after each field that the row names, as "`boot_grace` (3 min)".
fn with_values(row: &str, value: impl Fn(&Field) -> String) -> String {
    let fields = Policy::fields();
    let mut parts = row.split('`');
    let mut written = parts.next().unwrap_or_default().to_owned();
    while let (Some(code), Some(text)) = (parts.next(), parts.next()) {
        let rest = text.strip_prefix(" (").and_then(|text| text.split_once(')'));
        written.push_str(&format!("`{code}`"));
        match (fields.iter().find(|field| field.name == code), rest) {
            (Some(field), Some((_, rest))) => written.push_str(&format!(" ({}){rest}", value(field))),
            (Some(_), None) => panic!("write its value in parentheses after `{code}`: {row}"),
            (None, _) => written.push_str(text),
        }
    }
    written
}

fn is_row(line: &str) -> bool {
    line.starts_with("//! | ")
}

#[test]
fn the_table_of_rules_has_the_defaults_of_the_policy() {
    let expected = SOURCE.lines().map(|line| match is_row(line) {
        true => with_values(line, |field| words(&field.default)),
        false => line.to_owned(),
    });
    let expected: Vec<String> = expected.collect();
    if std::env::var_os("VIGIA_UPDATE_TABLES").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan.rs");
        return std::fs::write(file, expected.join("\n") + "\n").expect("the source can be written");
    }
    for (line, expected) in SOURCE.lines().zip(&expected) {
        assert_eq!(
            line, expected,
            "write the table again: VIGIA_UPDATE_TABLES=1 cargo test -p planner table"
        );
    }
}

/// Otherwise a number would stay when the policy changes.
#[test]
fn the_table_of_rules_has_no_number_without_its_field() {
    let rows: Vec<&str> = SOURCE.lines().filter(|line| is_row(line)).collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in rows {
        let rest = with_values(row, |_| String::new());
        let mut words = rest.split(|c: char| !c.is_alphanumeric());
        let number = words.find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        assert_eq!(number, None, "name the field of the policy: {row}");
    }
}
