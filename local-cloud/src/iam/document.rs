//! Values in a policy document, and the faults that a document may have.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the policy is not JSON")]
    Json,
    #[error("`{0}` is missing, or is not what a policy has there")]
    Shape(&'static str),
    #[error("`{0}` is not a condition operator")]
    Operator(String),
}

/// Returns a value or a list of values; numbers and booleans as they are written.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(several) => several.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Bool(_) | Value::Number(_) => vec![value.to_string()],
        Value::Null | Value::Object(_) => Vec::new(),
    }
}
