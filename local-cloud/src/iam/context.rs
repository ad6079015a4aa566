//! Facts about a call besides its action and resource: the keys of conditions.

use std::collections::BTreeMap;

/// Keys with their values. The names of keys are case-insensitive; `aws:TagKeys` has several values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

const REQUEST_TAG: &str = "aws:requesttag/";

impl Context {
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.set(key, vec![value.into()]);
        self
    }

    /// Sets all values of a key. A tag of the request also adds its tag key.
    pub fn set(&mut self, key: &str, values: Vec<String>) {
        let lower = key.to_ascii_lowercase();
        if lower.starts_with(REQUEST_TAG) {
            let tag = key.split_once('/').map_or("", |(_, tag)| tag).to_owned();
            let tags = self.0.entry("aws:tagkeys".to_owned()).or_default();
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        self.0.insert(lower, values);
    }

    pub(super) fn values(&self, key: &str) -> &[String] {
        self.0.get(&key.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }

    /// Returns the value of a key that has exactly one.
    pub(super) fn single(&self, key: &str) -> Option<&str> {
        match self.values(key) {
            [value] => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_count_in_keys() {
        let context = Context::default().with("aws:ResourceTag/Stack", "a");
        assert_eq!(context.single("AWS:resourcetag/stack"), Some("a"));
        assert_eq!(context.single("aws:ResourceTag/other"), None);
    }

    #[test]
    fn tags_of_the_request_are_tag_keys() {
        let context = Context::default().with("aws:RequestTag/Name", "x").with("aws:RequestTag/stack", "y");
        assert_eq!(context.values("aws:TagKeys"), ["Name", "stack"]);
    }
}
