//! The parts of a stack, and how a run changes each.
//!
//! Every `ensure` of `resources/` finds and compares, and makes the difference only if the run applies.
//! `plan` and `deploy` call the same ones, so a plan shows exactly what a deployment at that moment would do.

use std::fmt;

use serde::Serialize;

/// One resource, and the change that a run made or would make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The resource and its name, for people: `bucket vigia-a-data-…`.
    pub what: String,
    pub change: Change,
    /// Its differences from the wanted state, each in a few words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Unchanged,
    Created,
    Updated,
    Removed,
}

/// Whether a run changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// A dry run. A resource that does not exist yet is called [`NEW`] where its id is needed.
    Plan,
    Apply,
}

/// Stands for the id of a resource that a deployment would make. No call is ever made with it.
pub const NEW: &str = "(new)";

impl Part {
    pub fn new(what: impl Into<String>, change: Change) -> Self {
        Self { what: what.into(), change, differs: Vec::new() }
    }

    pub fn unchanged(what: impl Into<String>) -> Self {
        Self::new(what, Change::Unchanged)
    }

    pub fn created(what: impl Into<String>) -> Self {
        Self::new(what, Change::Created)
    }

    pub fn removed(what: impl Into<String>) -> Self {
        Self::new(what, Change::Removed)
    }

    /// Makes the part of an existing resource: updated if anything differs.
    pub fn compared(what: impl Into<String>, differs: Vec<String>) -> Self {
        let change = if differs.is_empty() { Change::Unchanged } else { Change::Updated };
        Self { what: what.into(), change, differs }
    }

    /// Makes the part of a resource that may exist.
    pub fn found(what: impl Into<String>, exists: bool) -> Self {
        Self::new(what, if exists { Change::Unchanged } else { Change::Created })
    }

    /// Makes the part of a resource that was deleted, if it existed.
    pub fn deleted(what: impl Into<String>, was_there: bool) -> Self {
        Self::new(what, if was_there { Change::Removed } else { Change::Unchanged })
    }

    pub fn is_change(&self) -> bool {
        self.change != Change::Unchanged
    }
}

impl Change {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Removed => "removed",
        }
    }

    /// Returns the change that names the step as a whole.
    pub fn most_important(parts: &[Part]) -> Self {
        [Self::Created, Self::Updated, Self::Removed]
            .into_iter()
            .find(|change| parts.iter().any(|part| part.change == *change))
            .unwrap_or(Self::Unchanged)
    }
}

impl RunMode {
    /// Returns whether the difference is to be made now.
    pub fn applies(self, part: &Part) -> bool {
        match self {
            Self::Plan => false,
            Self::Apply => part.is_change(),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.differs.is_empty() { Ok(()) } else { write!(f, ": {}", self.differs.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_applies_nothing() {
        for part in [Part::created("a"), Part::removed("a"), Part::compared("a", vec!["b".to_owned()])] {
            assert!(!RunMode::Plan.applies(&part) && RunMode::Apply.applies(&part), "{part}");
        }
        assert!(!RunMode::Apply.applies(&Part::unchanged("a")));
    }
}
