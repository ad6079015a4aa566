//! The two behaviours of a data bucket. They never mix on one bucket.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `Secure` hashes passwords and closes `/list` and `/setamount`; `Classic` is the original
/// service to the letter, plain-text passwords included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Secure,
    Classic,
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a profile; use `secure` or `classic`")]
pub struct ProfileError(String);

impl Profile {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Classic => "classic",
        }
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "secure" => Ok(Self::Secure),
            "classic" => Ok(Self::Classic),
            other => Err(ProfileError(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
