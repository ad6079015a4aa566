//! Settings are read once, at start, and every problem is reported together.
//!
//! Only this module reads the environment, so a program's settings are all in its `Config`, and a
//! test passes a map.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// The source of settings: the process's environment, or a map in a test.
pub trait Vars {
    fn get(&self, key: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Env;

impl Vars for Env {
    fn get(&self, key: &str) -> Option<String> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        std::env::var(key).ok()
    }
}

impl Vars for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<String> {
        Self::get(self, key).cloned()
    }
}

/// Exit code for wrong settings, `EX_USAGE` of sysexits.h.
pub const EX_USAGE: u8 = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.join("\n"))]
pub struct SettingsError(pub Vec<String>);

/// Collects values and problems; [`Reader::finish`] returns either all values or all problems.
pub struct Reader<'a, V: Vars> {
    vars: &'a V,
    problems: Vec<String>,
}

impl<'a, V: Vars> Reader<'a, V> {
    pub fn new(vars: &'a V) -> Self {
        Self { vars, problems: Vec::new() }
    }

    /// Reads a value that must be set. `example` is shown if it is not.
    pub fn required<T>(&mut self, key: &str, example: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        match self.vars.get(key).filter(|text| !text.is_empty()) {
            None => {
                self.problems.push(format!("{key} is not set; set it, for example {key}={example}"));
                None
            }
            Some(text) => self.parse(key, &text, example),
        }
    }

    /// Reads a value with a default; an empty variable counts as not set.
    pub fn or<T>(&mut self, key: &str, default: T, example: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        match self.vars.get(key).filter(|text| !text.is_empty()) {
            None => Some(default),
            Some(text) => self.parse(key, &text, example),
        }
    }

    /// Reads a value that may be missing.
    pub fn optional<T>(&mut self, key: &str, example: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let text = self.vars.get(key).filter(|text| !text.is_empty())?;
        self.parse(key, &text, example)
    }

    /// Adds a problem that concerns more than one value.
    pub fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    pub fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, SettingsError> {
        if !self.problems.is_empty() {
            return Err(SettingsError(self.problems));
        }
        build().ok_or_else(|| SettingsError(vec!["a setting is missing".to_owned()]))
    }

    fn parse<T>(&mut self, key: &str, text: &str, example: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("{key}: {error}; for example {key}={example}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn reports_every_problem_at_once() {
        let vars = vars(&[("PORT", "many")]);
        let mut reader = Reader::new(&vars);
        let port = reader.or::<u16>("PORT", 5000, "5000");
        let bucket = reader.required::<String>("BUCKET", "my-bucket");
        let error = reader.finish(|| port.zip(bucket)).expect_err("both are wrong");
        assert_eq!(error.0.len(), 2, "{error}");
        assert!(error.to_string().contains("BUCKET is not set"), "{error}");
    }

    #[test]
    fn empty_counts_as_not_set() {
        let vars = vars(&[("PORT", "")]);
        let mut reader = Reader::new(&vars);
        assert_eq!(reader.or::<u16>("PORT", 5000, "5000"), Some(5000));
        assert_eq!(reader.optional::<u16>("PORT", "5000"), None);
        assert!(reader.finish(|| Some(())).is_ok());
    }
}
