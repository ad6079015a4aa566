//! `LeavingReason`: why an instance is on its way out.
//!
//! `state.json` has the sentence, as it always had: an older version shows it, and a newer version that knows
//! another one can be followed by this one.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LeavingReason {
    /// There are more workers than desired.
    Surplus,
    /// Workers of a newer release serve.
    Replaced,
    /// A worker of a newer release needs its place in the account's quota.
    RoomForWorker,
    /// A load balancer needs its place in the account's quota.
    RoomForBalancer,
    Dead,
    /// It is dead, and EC2 refuses its replacement for want of its place.
    ReplacementRefused,
    BootFailed,
    KeepsCrashing,
    /// EC2 ended it, or a person did.
    Lost,
    /// It belongs to no slot.
    Unknown,
    /// The sentence of another version.
    Other(String),
}

impl LeavingReason {
    const KNOWN: [Self; 10] = [
        Self::Surplus,
        Self::Replaced,
        Self::RoomForWorker,
        Self::RoomForBalancer,
        Self::Dead,
        Self::ReplacementRefused,
        Self::BootFailed,
        Self::KeepsCrashing,
        Self::Lost,
        Self::Unknown,
    ];

    pub fn as_str(&self) -> &str {
        match self {
            Self::Surplus => "more workers than desired",
            Self::Replaced => "a newer release serves",
            Self::RoomForWorker => "it makes room for one of a newer release",
            Self::RoomForBalancer => "it makes room for a new load balancer",
            Self::Dead => "it does not answer",
            Self::ReplacementRefused => "EC2 refuses its replacement",
            Self::BootFailed => "its boot failed",
            Self::KeepsCrashing => "it keeps crashing",
            Self::Lost => "lost",
            Self::Unknown => "it belongs to no slot",
            Self::Other(text) => text,
        }
    }

    /// Whether a worker that is well leaves its place to another instance.
    pub const fn makes_room(&self) -> bool {
        matches!(self, Self::RoomForWorker | Self::RoomForBalancer)
    }
}

impl Display for LeavingReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for LeavingReason {
    fn from(text: String) -> Self {
        let known = Self::KNOWN.into_iter().find(|reason| reason.as_str() == text);
        known.unwrap_or(Self::Other(text))
    }
}

impl From<LeavingReason> for String {
    fn from(reason: LeavingReason) -> Self {
        reason.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_stored_as_its_sentence() {
        for reason in LeavingReason::KNOWN {
            let text = serde_json::to_string(&reason).expect("plain data");
            assert_eq!(text, format!("\"{reason}\""));
            assert_eq!(serde_json::from_str::<LeavingReason>(&text).expect("own output"), reason);
        }
    }

    #[test]
    fn the_sentence_of_another_version_is_kept() {
        let read: LeavingReason = serde_json::from_str("\"it is too old\"").expect("a text");
        assert_eq!(read, LeavingReason::Other("it is too old".to_owned()));
        assert_eq!(serde_json::to_string(&read).expect("plain data"), "\"it is too old\"");
    }
}
