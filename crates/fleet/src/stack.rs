//! `StackName`, and every AWS name and tag that derives from it.
//!
//! The deployer, the reconciler and `destroy` agree on names because none of them formats a name itself. Two
//! stacks in one account differ in every name because each contains the stack's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Tag with the stack that owns a resource; the reconciler touches nothing without it.
pub const TAG_STACK: &str = "vigia:stack";
/// Tag with the role of an instance: [`ROLE_WORKER`] or [`ROLE_LB`].
pub const TAG_ROLE: &str = "vigia:role";
/// Tag with the worker's slot number, or the place of a load balancer other than the first; see
/// `memory.rs`.
pub const TAG_SLOT: &str = "vigia:slot";
/// Tag with the attempt within the slot. The reconciler counts from one; a load balancer of attempt
/// zero was launched by a deployment.
pub const TAG_ATTEMPT: &str = "vigia:attempt";
/// Tag with the release (short hash of its definition) that an instance was launched from.
pub const TAG_RELEASE: &str = "vigia:release";
pub const ROLE_WORKER: &str = "worker";
pub const ROLE_LB: &str = "lb";

/// A stack's name: 1 to 20 characters, lower-case letters, digits and single hyphens, starting
/// with a letter and not ending in a hyphen.
///
/// 20 because the longest bucket name built from it, `vigia-<stack>-control-<account>-<region>`, must stay
/// within S3's 63 characters in the region with the longest name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StackName(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a stack name: use 1 to 20 lower-case letters, digits and single hyphens, \
     starting with a letter and not ending in a hyphen, for example `vigia` or `team-a`"
)]
pub struct StackNameError(String);

impl StackName {
    pub const MAX_LEN: usize = 20;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `vigia-<stack>-<what>`: the name of a role, function, rule, security group and so on.
    pub fn resource(&self, what: &str) -> String {
        format!("vigia-{}-{what}", self.0)
    }

    /// Returns the name of the users' bucket, which is versioned.
    pub fn data_bucket(&self, account: &str, region: &str) -> String {
        format!("vigia-{}-data-{account}-{region}", self.0)
    }

    /// Returns the name of the bucket with the fleet's documents, artifacts and secrets.
    pub fn control_bucket(&self, account: &str, region: &str) -> String {
        format!("vigia-{}-control-{account}-{region}", self.0)
    }

    pub fn function(&self) -> String {
        self.resource("reconciler")
    }

    pub fn schedule_rule(&self) -> String {
        self.resource("reconcile")
    }

    /// Returns the log group to which Lambda writes the function's log.
    pub fn log_group(&self) -> String {
        format!("/aws/lambda/{}", self.function())
    }
}

impl FromStr for StackName {
    type Err = StackNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let well_formed = (1..=Self::MAX_LEN).contains(&text.len())
            && allowed
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-')
            && !text.contains("--");
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(StackNameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for StackName {
    type Error = StackNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StackName> for String {
    fn from(name: StackName) -> Self {
        name.0
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_every_aws_name_accepts() {
        for name in ["a", "vigia", "team-a", "x1", "abcdefghijklmnopqrst"] {
            assert!(name.parse::<StackName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn refuses_what_some_aws_name_would_refuse() {
        for name in ["", "A", "1a", "-a", "a-", "a--b", "a_b", "a.b", "é", "abcdefghijklmnopqrstu"] {
            assert!(name.parse::<StackName>().is_err(), "{name}");
        }
    }

    #[test]
    fn longest_bucket_name_fits_s3() {
        let stack: StackName = "abcdefghijklmnopqrst".parse().expect("20 letters are valid");
        assert!(stack.control_bucket("123456789012", "ap-southeast-1").len() <= 63);
    }
}
