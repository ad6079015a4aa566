//! Values of options, parsed into types that cannot be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use fleet::Policy;
use fleet::release::Credits;

/// As long as the reconciler's log is kept.
const MAX_AGE_SECONDS: u64 = 14 * 86_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Arm64,
    #[value(name = "x86_64")]
    X8664,
}

/// A thing that is switched on or off; make passes numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    #[value(alias = "1")]
    On,
    #[value(alias = "0")]
    Off,
}

/// What a burstable instance may spend, see [`Credits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CreditsOption {
    Standard,
    Unlimited,
}

impl From<CreditsOption> for Credits {
    fn from(option: CreditsOption) -> Self {
        match option {
            CreditsOption::Standard => Self::Standard,
            CreditsOption::Unlimited => Self::Unlimited,
        }
    }
}

/// The ARN of a managed policy, of the account or of Amazon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyArn(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not the ARN of a policy: write it like arn:aws:iam::123456789012:policy/name")]
pub struct PolicyArnError(String);

impl PolicyArn {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PolicyArn {
    type Err = PolicyArnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let is_policy = match parts[..] {
            ["arn", partition, "iam", "", account, policy] => {
                let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
                let name = policy.strip_prefix("policy/").unwrap_or_default();
                (partition == "aws" || partition.starts_with("aws-"))
                    && (account == "aws" || is_account)
                    && !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+=,.@_-".contains(&byte))
            }
            _ => false,
        };
        if is_policy {
            Ok(Self(text.to_owned()))
        } else {
            Err(PolicyArnError(text.chars().take(80).collect()))
        }
    }
}

impl Arch {
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X8664 }
    }

    /// EC2's name, also used in AMI names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X8664 => "x86_64",
        }
    }

    /// The smallest burstable type: a whole machine needs less than half of its memory under full load.
    pub const fn default_instance_type(self) -> &'static str {
        match self {
            Self::Arm64 => "t4g.nano",
            Self::X8664 => "t3.nano",
        }
    }

    /// Of an instance type: EC2 puts a `g` behind the generation of those with Graviton, as in `c7gn.large`.
    pub fn of_instance_type(kind: &str) -> Self {
        let family = kind.split('.').next().unwrap_or_default();
        let generation = family.find(|letter: char| letter.is_ascii_digit());
        let capabilities = generation.map_or("", |at| &family[at..]);
        if family == "a1" || capabilities.contains('g') { Self::Arm64 } else { Self::X8664 }
    }
}

/// An AWS account: 12 digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountId(String);

impl FromStr for AccountId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_account = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        is_account
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| "an AWS account is 12 digits, for example 123456789012".to_owned())
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `90s`, `10m`, `2h` or `1d`. CloudWatch keeps 14 days.
pub(super) fn parse_age(text: &str) -> Result<Duration, String> {
    let split = text.len().saturating_sub(usize::from(text.ends_with(['s', 'm', 'h', 'd'])));
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 86_400,
    };
    let age = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
    match age {
        Some(age @ 1..=MAX_AGE_SECONDS) => Ok(Duration::from_secs(age)),
        _ => Err("write it as 90s, 10m, 2h or 1d, at most 14d".to_owned()),
    }
}

/// More than every field of a policy takes.
const MAX_POLICY_BYTES: u64 = 64 * 1024;

/// Reads a policy from a file, or returns the default one for the word `default`.
pub(super) fn policy(text: &str) -> Result<Box<Policy>, String> {
    if text == "default" {
        return Ok(Box::default());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(text)
        .and_then(|file| file.take(MAX_POLICY_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read the file: {error}"))?;
    if bytes.len() as u64 > MAX_POLICY_BYTES {
        return Err(format!("the file has more than {} KiB, so it is not a policy", MAX_POLICY_BYTES >> 10));
    }
    let fields: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&bytes).map_err(|error| format!("the file is not a JSON object: {error}"))?;
    // A reconciler ignores unknown names, because a newer deployer may have written them. In a file they are
    // typing errors.
    let known = Policy::fields();
    if let Some(name) = fields.keys().find(|name| known.iter().all(|field| field.name != name.as_str())) {
        return Err(format!("a policy has no field `{name}`; docs/policy.md lists the fields"));
    }
    serde_json::from_slice(&bytes).map(Box::new).map_err(|error| fault(&fields).unwrap_or(error.to_string()))
}

/// Names the first field with a value that no policy can have.
fn fault(fields: &BTreeMap<String, serde_json::Value>) -> Option<String> {
    fields.iter().find_map(|(name, value)| {
        let alone = serde_json::json!({ name: value });
        let error = serde_json::from_value::<Policy>(alone).err()?.to_string();
        Some(if error.contains(name.as_str()) { error } else { format!("policy field {name}: {error}") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_file_is_read_or_its_fault_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let read = |text: &str| {
            let file = dir.path().join("policy.json");
            std::fs::write(&file, text).expect("writable");
            policy(file.to_str().expect("text"))
        };
        assert_eq!(policy("default"), Ok(Box::default()));
        assert_eq!(read("{}"), Ok(Box::default()));
        assert_eq!(read(r#"{"drain": "5s"}"#).expect("a policy").drain, jiff::SignedDuration::from_secs(5));
        for (text, says) in [
            (r#"{"drian": "5s"}"#, "a policy has no field `drian`"),
            (r#"{"drain": "5000h"}"#, "policy field drain is"),
            (r#"{"drain": "soon"}"#, "policy field drain: failed to parse"),
            ("[]", "the file is not a JSON object"),
            (&" ".repeat(70_000), "more than 64 KiB"),
        ] {
            let error = read(text).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
        assert!(policy("/no/such/file").is_err_and(|error| error.contains("cannot read the file")));
    }
}
