//! One check and its verdict: the lines that `doctor` and `preflight` print.
//!
//! | verdict | means |
//! |---|---|
//! | `ok` | looked at, and enough |
//! | `warning` | works, but not for long or not for everything |
//! | `failed` | a deployment or the stack fails at it |
//! | `not known here` | could not be looked at: no permission, no answer, or an emulator that has no such thing |

use std::time::Duration;

use fleet::aws_code::AwsErrorKind;
use serde::Serialize;
use tokio::time::timeout;

use crate::error::{DeployError, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Ok,
    Warning,
    Failed,
    NotKnownHere,
}

impl Verdict {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotKnownHere => "not known here",
        }
    }

    /// Returns the colour of the word on a terminal.
    const fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Warning => 33,
            Self::Failed => 31,
            Self::NotKnownHere => 36,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) detail: String,
    /// How to fix it.
    pub(crate) hint: Option<String>,
}

impl Check {
    pub(crate) fn new(name: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { name, verdict, detail: detail.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Turns a failed look into an unknown result: it never claims that the resource itself is at fault.
    pub(crate) fn unknown(name: &'static str, error: &DeployError) -> Self {
        let check = Self::new(name, Verdict::NotKnownHere, error.what.clone());
        match error.kind {
            AwsErrorKind::Denied => check.hint(
                "`bootstrap iam-policy` (make iam-policy) prints the policy that these \
                    credentials need.",
            ),
            _ => check,
        }
    }

    pub(crate) fn late(name: &'static str, patience: Duration) -> Self {
        Self::new(name, Verdict::NotKnownHere, format!("no answer within {} s", patience.as_secs()))
    }
}

/// Runs one check within its time; a check that fails or is late does not stop the others.
pub(crate) async fn within(
    patience: Duration,
    name: &'static str,
    look: impl Future<Output = Result<Vec<Check>>>,
) -> Vec<Check> {
    match timeout(patience, look).await {
        Ok(Ok(checks)) => checks,
        Ok(Err(error)) => vec![Check::unknown(name, &error)],
        Err(_) => vec![Check::late(name, patience)],
    }
}

/// Formats the checks for people: a line for each, and its hint on the next.
pub(crate) fn table(checks: &[Check], has_colour: bool) -> String {
    let mut lines = Vec::new();
    for check in checks {
        let word = format!("{:<14}", check.verdict.word());
        let word =
            if has_colour { format!("\u{1b}[{}m{word}\u{1b}[0m", check.verdict.colour()) } else { word };
        lines.push(format!("{word}  {:<19} {}", check.name, check.detail));
        lines.extend(check.hint.iter().map(|hint| format!("{:<14}  {:<19} {hint}", "", "")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_line_has_the_verdict_and_the_next_the_hint() {
        let checks = [
            Check::new("clock", Verdict::Ok, "1 s"),
            Check::new("leftovers", Verdict::NotKnownHere, "denied").hint("Ask for it."),
        ];
        let plain = table(&checks, false);
        assert_eq!(
            plain,
            "ok              clock               1 s\n\
             not known here  leftovers           denied\n                                    Ask for it."
        );
        assert!(table(&checks, true).contains("\u{1b}[32mok "));
    }

    #[test]
    fn a_permission_that_is_missing_is_not_a_failure() {
        let mut error = DeployError::new(Exit::Denied, "could not list the roles");
        error.kind = AwsErrorKind::Denied;
        let check = Check::unknown("leftovers", &error);
        assert_eq!(check.verdict, Verdict::NotKnownHere);
        assert!(check.hint.expect("a hint").contains("iam-policy"));
    }
}
