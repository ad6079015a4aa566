//! Calls a built simulator: the first seed that breaks a rule.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::deadline::{Ended, run_within};

/// A wrong plan can make a simulated run endless. All seeds of a search need some minutes.
const LONGEST: Duration = Duration::from_secs(30 * 60);

pub(super) struct Simulator {
    pub(super) program: PathBuf,
    pub(super) bad_policy: Option<String>,
}

/// What came of a search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No seed breaks a rule.
    Nothing,
    /// The first seed that does.
    Violation { seed: u64, rule: String, what: String },
    /// The simulator itself ended, or did not end.
    Failure(String),
}

impl Simulator {
    pub(super) fn search(&self, first_seed: u64, seeds: u64) -> Result<Found> {
        let mut command = Command::new(&self.program);
        command.args(["search", "--first-seed", &first_seed.to_string(), "--seeds", &seeds.to_string()]);
        if let Some(name) = &self.bad_policy {
            command.args(["--bad-policy", name]);
        }
        search(command, LONGEST)
    }

    pub(super) fn tell_how_to_replay(&self, seed: u64) {
        let policy = self.bad_policy.as_ref().map(|name| format!(" --bad-policy '{name}'"));
        let (program, policy) = (self.program.display(), policy.unwrap_or_default());
        eprintln!("Its story: {program} replay {seed} --shrink{policy}");
    }
}

fn search(mut command: Command, longest: Duration) -> Result<Found> {
    // One line needs no reader: a pipe holds more.
    let (mut reader, writer) = std::io::pipe().context("no pipe")?;
    let ended = run_within(command.stdout(writer).stderr(Stdio::null()), longest)?;
    // Its copy of the writing end keeps the pipe open.
    drop(command);
    let Ended::With(status) = ended else {
        return Ok(Found::Failure(format!("it did not end within {} s", longest.as_secs())));
    };
    let mut line = String::new();
    reader.read_to_string(&mut line).context("cannot read what the simulator said")?;
    match status.code() {
        Some(0) => Ok(Found::Nothing),
        Some(1) => {
            violation(&line).ok_or_else(|| anyhow!("the simulator said `{line}`, which is no seed and rule"))
        }
        _ => Ok(Found::Failure(status.to_string())),
    }
}

fn violation(line: &str) -> Option<Found> {
    let mut fields = line.trim_end().splitn(3, '\t');
    let seed = fields.next()?.parse().ok()?;
    Some(Found::Violation { seed, rule: fields.next()?.to_owned(), what: fields.next()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(script: &str) -> Result<Found> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        search(command, Duration::from_millis(500))
    }

    #[test]
    fn a_violation_is_read_from_the_line() {
        let found = says("printf '17\\tone owner\\ta worker has two\\n'; exit 1").expect("a line");
        let (rule, what) = ("one owner".to_owned(), "a worker has two".to_owned());
        assert_eq!(found, Found::Violation { seed: 17, rule, what });
        assert_eq!(says("exit 0").expect("an end"), Found::Nothing);
        assert!(says("echo wrong; exit 1").is_err());
    }

    #[test]
    fn a_crash_and_an_endless_run_are_failures() {
        for script in ["exit 101", "kill -9 $$", "sleep 60"] {
            assert!(matches!(says(script), Ok(Found::Failure(_))), "{script}");
        }
    }
}
