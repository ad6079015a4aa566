//! Runs `cargo lambda deploy` on a package of its own, and reads its output.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::aws::Aws;
use crate::cli::Deploy;
use crate::error::{DeployError, Exit, Result};
use crate::resources::artifact::Artifact;

/// Bytes per second of the slowest uplink that is good enough: a tenth of 1 Mbit/s.
const SLOWEST_UPLOAD: u64 = 12_500;
const EMPTY_PACKAGE: &str = "[package]\nname = \"upload\"\nversion = \"0.0.0\"\n[lib]\npath = \"lib.rs\"\n";

/// The program as `cargo lambda` wants it: under this name, in a package of its own.
pub(super) struct Package {
    directory: TempDir,
    binary: PathBuf,
    /// Of the program, in bytes; the zip file is smaller.
    pub(super) len: u64,
}

impl Package {
    pub(super) fn new(program: &Artifact) -> Result<Self> {
        let failed = |error: std::io::Error| failed("cannot copy the program").caused_by(error);
        let directory = tempfile::tempdir().map_err(failed)?;
        let binary = directory.path().join("bootstrap");
        std::fs::write(&binary, program.bytes())
            .and_then(|()| {
                std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            })
            // It asks cargo about the package around it, even when it is given a program.
            .and_then(|()| std::fs::write(directory.path().join("Cargo.toml"), EMPTY_PACKAGE))
            .and_then(|()| std::fs::write(directory.path().join("lib.rs"), ""))
            .map_err(failed)?;
        Ok(Self { directory, binary, len: program.bytes().len() as u64 })
    }

    /// Returns `cargo lambda deploy` of this package, without its input and output.
    pub(super) fn command(&self, aws: &Aws, options: &Deploy) -> Command {
        let mut command = Command::new(&options.cargo_lambda);
        command
            .args(["lambda", "deploy"])
            .arg(aws.names.stack.function())
            .arg("--binary-path")
            .arg(&self.binary)
            .args(["--region", &aws.names.region])
            .args(["--output-format", "json"])
            .current_dir(self.directory.path())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        if let Some(url) = &aws.endpoint_url {
            command.args(["--endpoint-url", url]);
        }
        command
    }

    /// Returns how long `cargo lambda` may take, beyond `ready` for the function. It prints no progress, so its time
    /// is bounded by the size of its upload.
    pub(super) fn deadline(&self, ready: Duration) -> Duration {
        ready + Duration::from_secs(self.len / SLOWEST_UPLOAD)
    }

    /// Returns the zip file that a deployment would send.
    pub(super) async fn zip(&self, aws: &Aws, options: &Deploy, ready: Duration) -> Result<Vec<u8>> {
        let mut command = self.command(aws, options);
        command.arg("--dry");
        let output = run(command, options, self.deadline(ready)).await?;
        let read = std::fs::read(self.binary.with_extension("zip"));
        read.map_err(|error| failed(&says(&output)).caused_by(error))
    }
}

pub(super) fn failed(what: &str) -> DeployError {
    DeployError::new(Exit::Failed, format!("could not upload the reconciler: {what}"))
}

pub(super) fn says(output: &Output) -> String {
    format!("`cargo lambda deploy` says: {}", unwrapped(&String::from_utf8_lossy(&output.stderr)))
}

pub(super) async fn run(mut command: Command, options: &Deploy, deadline: Duration) -> Result<Output> {
    let late = |_| failed(&format!("`cargo lambda deploy` did not end within {} s", deadline.as_secs()));
    tokio::time::timeout(deadline, command.output()).await.map_err(late)?.map_err(|error| {
        DeployError::new(Exit::Prerequisite, format!("cannot run {}", options.cargo_lambda.display()))
            .hint(
                "Install it with `make venv` or `pip install cargo-lambda`, or name it with --cargo-lambda.",
            )
            .caused_by(error)
    })
}

/// Joins the lines of an error: `cargo lambda` breaks its errors into lines and draws their outline, in the
/// middle of a sentence too.
fn unwrapped(said: &str) -> String {
    let is_outline = |word: &&str| word.chars().all(|c| matches!(c, '\u{2500}'..='\u{257f}' | '▶' | '×'));
    said.split_whitespace().filter(|word| !is_outline(word)).collect::<Vec<_>>().join(" ")
}

/// Why `cargo lambda deploy` failed, by the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The role is not known everywhere yet.
    RoleIsNew,
    /// Lambda does not see the subnets, their IPv6 blocks or the security group yet. All existed when this
    /// run looked.
    NetworkIsNew,
    /// Another update is still in progress, of an interrupted run or of this one.
    Busy,
    Final,
}

impl Refusal {
    pub(super) fn of(said: &str) -> Self {
        let has = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
        if has(&["cannot be assumed", "CreateNetworkInterface", "KMS key is invalid"]) {
            Self::RoleIsNew
        } else if has(&[
            "SubnetID.NotFound",
            "Group.NotFound",
            "GroupID.NotFound",
            "IPv6",
            "Ipv6",
            "dual-stack",
        ]) {
            Self::NetworkIsNew
        } else if has(&["ResourceConflict", "didn't finish in time", "TooManyRequests", "Throttling"]) {
            Self::Busy
        } else {
            Self::Final
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_errors_are_waited_for_and_others_are_final() {
        for (said, expected) in [
            (
                "InvalidParameterValueException: The role defined for the function cannot be assumed by Lambda.",
                Refusal::RoleIsNew,
            ),
            (
                "The provided execution role does not have permissions to call CreateNetworkInterface on EC2",
                Refusal::RoleIsNew,
            ),
            (
                "ResourceConflictException: The operation cannot be performed at this time. An update is in progress",
                Refusal::Busy,
            ),
            ("configuration update didn't finish in time, wait a few minutes and try again", Refusal::Busy),
            (
                "InvalidParameterValueException: Error occurred while DescribeSubnets. EC2 Error Code: \
                 InvalidSubnetID.NotFound.",
                Refusal::NetworkIsNew,
            ),
            (
                "InvalidParameterValueException: Subnets must have an IPv6 CIDR block for dual-stack access.",
                Refusal::NetworkIsNew,
            ),
            ("AccessDeniedException: not authorized to perform: iam:PassRole", Refusal::Final),
        ] {
            assert_eq!(Refusal::of(said), expected, "{said}");
        }
    }

    #[test]
    fn a_sentence_that_was_broken_into_lines_is_whole_again() {
        let said = "Error:   × failed to create the new lambda function\n  ├─▶ service error\n  \
                    ╰─▶ InvalidParameterValueException: The role defined for the function cannot\n      │ be \
                    assumed by Lambda.\n";
        assert!(unwrapped(said).ends_with("The role defined for the function cannot be assumed by Lambda."));
        assert!(unwrapped(said).starts_with("Error: failed to create"), "{}", unwrapped(said));
    }
}
