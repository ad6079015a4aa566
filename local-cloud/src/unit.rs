//! A systemd service unit: the part that the local cloud carries out.
//!
//! Hardening directives are ignored: here a service runs as a plain process.

use std::time::Duration;

use anyhow::Context as _;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub exec_start_pre: Vec<Vec<String>>,
    pub exec_start: Vec<String>,
    pub working_directory: Option<String>,
    pub environment_files: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub restarts_always: bool,
    pub restart_delay: Duration,
    pub stop_timeout: Duration,
}

impl Unit {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut section = "";
        let mut service: Vec<(&str, &str)> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') {
                section = line;
            } else if section == "[Service]" {
                let (key, value) = line.split_once('=').with_context(|| format!("no `=` in `{line}`"))?;
                service.push((key.trim(), value.trim()));
            }
        }
        let all = |key: &str| {
            let key = key.to_owned();
            service.iter().filter(move |(name, _)| *name == key).map(|(_, value)| *value).collect::<Vec<_>>()
        };
        let last = |key: &str| all(key).last().copied();
        let seconds = |key: &str, default: u64| -> anyhow::Result<Duration> {
            let Some(text) = last(key) else { return Ok(Duration::from_secs(default)) };
            if let Some(millis) = text.strip_suffix("ms") {
                return Ok(Duration::from_millis(millis.parse().with_context(|| format!("{key}={text}"))?));
            }
            let whole = text.trim_end_matches('s').parse().with_context(|| format!("{key}={text}"))?;
            Ok(Duration::from_secs(whole))
        };
        Ok(Self {
            exec_start_pre: all("ExecStartPre").into_iter().map(command).collect(),
            exec_start: command(last("ExecStart").context("the unit has no ExecStart")?),
            working_directory: last("WorkingDirectory").map(str::to_owned),
            environment_files: all("EnvironmentFile").into_iter().map(str::to_owned).collect(),
            environment: all("Environment")
                .into_iter()
                .flat_map(words)
                .filter_map(|word| assignment(&word))
                .collect(),
            restarts_always: last("Restart") == Some("always"),
            restart_delay: seconds("RestartSec", 1)?,
            stop_timeout: seconds("TimeoutStopSec", 30)?,
        })
    }
}

/// Parses the `KEY=value` lines of an environment file.
pub fn environment_file(text: &str) -> Vec<(String, String)> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).filter_map(assignment).collect()
}

fn assignment(text: &str) -> Option<(String, String)> {
    let (key, value) = text.trim_matches('"').split_once('=')?;
    Some((key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
}

fn command(line: &str) -> Vec<String> {
    words(line.trim_start_matches(['-', '+', '!', '@', ':']))
}

/// Splits at white space; quotes, single or double, keep a word together, as in systemd.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            None if letter == '"' || letter == '\'' => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => words.extend(word.take()),
            Some(_) | None => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_service() {
        let unit = Unit::parse(
            "[Unit]\nDescription=x\n[Service]\nEnvironmentFile=/etc/env\nExecStartPre=+/opt/fetch a\n\
             ExecStart=/opt/program\nRestart=always\nRestartSec=500ms\nTimeoutStopSec=25\n[Install]\nWantedBy=x\n",
        )
        .expect("valid");
        assert_eq!(unit.exec_start_pre, [["/opt/fetch", "a"]]);
        assert_eq!(unit.restart_delay, Duration::from_millis(500));
        assert_eq!(unit.stop_timeout, Duration::from_secs(25));
        assert!(unit.restarts_always);
    }

    #[test]
    fn one_line_may_set_several_variables() {
        let unit = Unit::parse(
            "[Service]\nExecStart=/x 'a b' \"\" c\nEnvironment=A=1 \"B=x y\"\nEnvironment=C='z'\n",
        )
        .expect("valid");
        assert_eq!(unit.exec_start, ["/x", "a b", "", "c"]);
        let set: Vec<_> =
            unit.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(set, [("A", "1"), ("B", "x y"), ("C", "z")]);
    }

    #[test]
    fn a_unit_without_a_program_is_refused() {
        assert!(Unit::parse("[Service]\nRestart=always\n").is_err());
    }

    #[test]
    fn reads_an_environment_file() {
        let pairs = environment_file("# c\nA=1\nB=\"x y\"\n\n");
        assert_eq!(pairs, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x y".to_owned())]);
    }
}
