//! Values of a policy: how each is shown, written and compared with its bounds.

use std::fmt;
use std::ops::RangeInclusive;

use jiff::SignedDuration;

use super::Share;

/// A field of a policy, for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub default: String,
    pub bounds: String,
    pub reason: &'static str,
}

/// A field whose value is not the default.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Difference {
    pub name: &'static str,
    pub value: String,
    pub default: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} (default {})", self.name, self.value, self.default)
    }
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("policy field {field} is {value}, out of bounds: choose a value from {bounds}")]
pub struct OutOfBounds {
    pub field: &'static str,
    pub value: String,
    pub bounds: String,
}

/// The type of a field.
pub(super) trait Value: Copy + PartialOrd {
    fn shown(&self) -> String;
    fn write<M: serde::ser::SerializeMap>(&self, name: &'static str, map: &mut M) -> Result<(), M::Error>;
}

impl Value for SignedDuration {
    fn shown(&self) -> String {
        format!("{self:#}")
    }

    fn write<M: serde::ser::SerializeMap>(&self, name: &'static str, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry(name, &self.shown())
    }
}

macro_rules! plain_values {
    ($($type:ty),+) => {
        $(impl Value for $type {
            fn shown(&self) -> String {
                self.to_string()
            }

            fn write<M: serde::ser::SerializeMap>(
                &self,
                name: &'static str,
                map: &mut M,
            ) -> Result<(), M::Error> {
                map.serialize_entry(name, self)
            }
        })+
    };
}

plain_values!(i32, u32, usize, Share);

/// Compares a value with its bounds.
pub(super) fn check<T: Value>(
    field: &'static str,
    value: T,
    bounds: &RangeInclusive<T>,
) -> Result<(), OutOfBounds> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(OutOfBounds { field, value: value.shown(), bounds: shown_bounds(bounds) })
}

pub(super) fn shown_bounds<T: Value>(bounds: &RangeInclusive<T>) -> String {
    format!("{} to {}", bounds.start().shown(), bounds.end().shown())
}
