//! Objects as in S3: strongly consistent, ordered by the bytes of their keys, and written with or without a
//! condition.
//!
//! | condition | there is no object | its tag is this one | its tag is another one |
//! |---|---|---|---|
//! | `If-None-Match: *` | written | 412 | 412 |
//! | `If-Match: <tag>` | 404 | written | 412 |
//!
//! One thing differs: of two writes at the same moment S3 may tell the later one 409; here it is 412.

use std::collections::BTreeMap;
use std::ops::Bound;

use axum::body::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    pub bytes: Bytes,
    pub content_type: String,
    /// Its user metadata, by header name.
    pub metadata: Vec<(String, String)>,
}

impl Object {
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    /// Returns the ETag of the content alone, as in S3: the same content has the same tag. S3's is the MD5.
    pub fn etag(&self) -> String {
        let digest = Sha256::digest(&self.bytes);
        format!("\"{}\"", HEXLOWER.encode(digest.get(..16).unwrap_or_default()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Whatever,
    Absent,
    Unchanged(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSuchKey,
    PreconditionFailed,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    pub keys: Vec<String>,
    pub is_truncated: bool,
}

/// By `<bucket>/<key>`. All buckets exist.
#[derive(Default)]
pub struct Objects(BTreeMap<String, Object>);

impl Objects {
    pub fn get(&self, path: &str) -> Option<&Object> {
        self.0.get(path)
    }

    /// Writes an object and returns the new tag.
    pub fn put(&mut self, path: &str, object: Object, condition: &Condition) -> Result<String, Refusal> {
        self.check(path, condition)?;
        let etag = object.etag();
        self.0.insert(path.to_owned(), object);
        Ok(etag)
    }

    pub fn delete(&mut self, path: &str, condition: &Condition) -> Result<(), Refusal> {
        self.check(path, condition)?;
        self.0.remove(path);
        Ok(())
    }

    fn check(&self, path: &str, condition: &Condition) -> Result<(), Refusal> {
        match (condition, self.0.get(path)) {
            (Condition::Whatever, _) | (Condition::Absent, None) => Ok(()),
            (Condition::Absent, Some(_)) => Err(Refusal::PreconditionFailed),
            (Condition::Unchanged(_), None) => Err(Refusal::NoSuchKey),
            (Condition::Unchanged(etag), Some(object)) if *etag == object.etag() => Ok(()),
            (Condition::Unchanged(_), Some(_)) => Err(Refusal::PreconditionFailed),
        }
    }

    /// Returns keys of a bucket that begin with `prefix` and come after `after`, at most `limit`.
    pub fn list(&self, bucket: &str, prefix: &str, after: &str, limit: usize) -> Page {
        let (first, last) = (format!("{bucket}/{prefix}"), format!("{bucket}/{after}"));
        let from = if last < first { Bound::Included(first.as_str()) } else { Bound::Excluded(&*last) };
        let found = self.0.range::<str, _>((from, Bound::Unbounded));
        let mut found = found.map(|(path, _)| path.as_str()).take_while(|path| path.starts_with(&first));
        let keys = found.by_ref().take(limit);
        let keys = keys.filter_map(|path| path.get(bucket.len() + 1..)).map(str::to_owned).collect();
        Page { keys, is_truncated: found.next().is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &'static str) -> Object {
        Object::new(text)
    }

    #[test]
    fn a_write_happens_if_its_condition_holds() {
        let (one, two) = (object("1").etag(), object("2").etag());
        let table = [
            (None, Condition::Whatever, Ok(())),
            (None, Condition::Absent, Ok(())),
            (None, Condition::Unchanged(one.clone()), Err(Refusal::NoSuchKey)),
            (Some("1"), Condition::Whatever, Ok(())),
            (Some("1"), Condition::Absent, Err(Refusal::PreconditionFailed)),
            (Some("1"), Condition::Unchanged(one), Ok(())),
            (Some("1"), Condition::Unchanged(two), Err(Refusal::PreconditionFailed)),
        ];
        for (stored, condition, expected) in table {
            let mut objects = Objects::default();
            if let Some(text) = stored {
                objects.put("b/k", object(text), &Condition::Absent).expect("empty");
            }
            let written = objects.put("b/k", object("3"), &condition);
            assert_eq!(written, expected.map(|()| object("3").etag()), "{stored:?} {condition:?}");
            let now = objects.get("b/k").cloned();
            let before = stored.map(object);
            assert_eq!(now, if expected.is_ok() { Some(object("3")) } else { before.clone() });

            let mut objects = Objects::default();
            if let Some(text) = stored {
                objects.put("b/k", object(text), &Condition::Absent).expect("empty");
            }
            assert_eq!(objects.delete("b/k", &condition), expected);
            assert_eq!(objects.get("b/k").cloned(), if expected.is_ok() { None } else { before });
        }
    }

    #[test]
    fn pages_are_full_in_order_and_of_one_bucket_and_prefix() {
        let mut objects = Objects::default();
        for path in
            ["a/users/x", "b/meta/x", "b/users/a", "b/users/a!20", "b/users/b", "b/users0", "c/users/x"]
        {
            objects.put(path, object("1"), &Condition::Whatever).expect("no condition");
        }
        let page = |after: &str, limit| {
            let Page { keys, is_truncated } = objects.list("b", "users/", after, limit);
            (keys.join(" "), is_truncated)
        };
        assert_eq!(page("", 9), ("users/a users/a!20 users/b".to_owned(), false));
        assert_eq!(page("", 3), ("users/a users/a!20 users/b".to_owned(), false));
        assert_eq!(page("", 2), ("users/a users/a!20".to_owned(), true));
        assert_eq!(page("users/a!20", 2), ("users/b".to_owned(), false));
        assert_eq!(page("users/a", 1), ("users/a!20".to_owned(), true));
        assert_eq!(page("meta/y", 1), ("users/a".to_owned(), true), "before the prefix");
        assert_eq!(page("users/b", 9), (String::new(), false));
        assert_eq!(objects.list("b", "", "", 9).keys.len(), 5);
    }
}
