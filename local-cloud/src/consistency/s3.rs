//! S3: objects are consistent, buckets and their settings are not.
//!
//! | Call | Answer |
//! |---|---|
//! | HEAD or a setting of a bucket made moments ago | 404 `NoSuchBucket` |
//! | a setting just after another one of the same bucket, or a bucket with the name of one just deleted | 409 `OperationAborted` |
//! | GET or HEAD of an object just written, if the bucket's versions were switched on just before | 404 `NoSuchKey` |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::behaviour::Behaviour;
use super::seed::Seed;
use super::young::Young;
use super::{Refused, refused};
use crate::call::Admitted;

/// Settings of a bucket, by the query that names them. Lists of objects and versions are not settings.
const SETTINGS: [&str; 13] = [
    "accelerate",
    "acl",
    "cors",
    "encryption",
    "lifecycle",
    "logging",
    "notification",
    "ownershipControls",
    "policy",
    "publicAccessBlock",
    "replication",
    "tagging",
    "versioning",
];

/// For this long after versioning is enabled, new objects may be missed. On AWS it is 15 minutes.
const VERSIONING: Duration = Duration::from_secs(5);

/// The target of a request to S3.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    method: String,
    bucket: String,
    /// Empty for the bucket itself.
    key: String,
    setting: Option<&'static str>,
    /// Whether the query asks for something other than the bucket or the object itself.
    is_other: bool,
}

impl Target {
    pub(super) fn of(admitted: &Admitted) -> Self {
        let uri = &admitted.parts.uri;
        let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query: Vec<&str> =
            uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split('=').next()).collect();
        // SDKs name the operation in `x-id`; uploading a part is a change of the object.
        let plain = ["", "x-id", "partNumber", "uploadId", "versionId"];
        Self {
            method: admitted.parts.method.to_string(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            setting: SETTINGS.into_iter().find(|setting| query.contains(setting)),
            is_other: query.iter().any(|name| !plain.contains(name)),
        }
    }

    fn is_setting(&self) -> bool {
        self.key.is_empty() && self.setting.is_some()
    }

    fn is_creation(&self) -> bool {
        self.method == "PUT" && self.is_bucket()
    }

    /// The bucket itself, not its contents.
    fn is_bucket(&self) -> bool {
        !self.bucket.is_empty() && self.key.is_empty() && !self.is_other
    }

    fn is_change(&self) -> bool {
        self.method == "PUT" || self.method == "DELETE"
    }

    fn action(&self) -> String {
        format!("{} {}", self.method, self.setting.unwrap_or("bucket"))
    }
}

#[derive(Debug)]
pub(super) struct Buckets {
    seed: Seed,
    /// By bucket: the number of its changes, and until when it is busy with the last one.
    changes: BTreeMap<String, (u32, Instant)>,
    /// When its versioning was enabled.
    versioned: BTreeMap<String, Instant>,
}

impl Buckets {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, changes: BTreeMap::new(), versioned: BTreeMap::new() }
    }

    pub(super) fn refuse(&self, young: &mut Young, target: &Target, now: Instant) -> Option<Refused> {
        let Target { bucket, key, method, .. } = target;
        let is_read = method == "GET" || method == "HEAD";
        if is_read && !key.is_empty() && !target.is_other {
            let misses = young.misses(&object(bucket, key), "read", now);
            return misses.then(|| {
                let message = "The specified key does not exist.".to_owned();
                refused(Behaviour::NoSuchKey, 404, "NoSuchKey", message)
            });
        }
        // GET of the bucket itself lists its objects.
        let is_of_bucket = target.is_setting() || (target.is_bucket() && method != "GET");
        if !is_of_bucket {
            return None;
        }
        let is_busy = self.changes.get(bucket).is_some_and(|(_, until)| now < *until);
        if is_busy && (target.is_creation() || (target.is_setting() && target.is_change())) {
            let message =
                "A conflicting conditional operation is currently in progress against this resource. \
                           Please try again."
                    .to_owned();
            return Some(refused(Behaviour::SettingsConflict, 409, "OperationAborted", message));
        }
        let misses = !target.is_creation() && young.misses(&thing(bucket), &target.action(), now);
        misses.then(|| {
            let message = "The specified bucket does not exist".to_owned();
            refused(Behaviour::NoSuchBucket, 404, "NoSuchBucket", message)
        })
    }

    /// Records the changes of a successful call.
    pub(super) fn answered(&mut self, young: &mut Young, target: &Target, body: &[u8], now: Instant) {
        let Target { bucket, key, method, .. } = target;
        if target.is_creation() {
            young.named(&thing(bucket), now);
        } else if target.is_bucket() && method == "DELETE" {
            young.deleted(&thing(bucket));
            self.versioned.remove(bucket);
            self.is_busy(bucket, now);
        } else if target.is_setting() && target.is_change() {
            self.is_busy(bucket, now);
            if target.setting == Some("versioning") && String::from_utf8_lossy(body).contains(">Enabled<") {
                self.versioned.entry(bucket.clone()).or_insert(now);
            }
        } else if !key.is_empty() && matches!(method.as_str(), "PUT" | "POST") && !target.is_other {
            let is_fresh = |since: &Instant| now.saturating_duration_since(*since) < VERSIONING;
            if self.versioned.get(bucket).is_some_and(is_fresh) {
                let object = object(bucket, key);
                young.deleted(&object);
                young.named(&object, now);
            }
        }
    }

    fn is_busy(&mut self, bucket: &str, now: Instant) {
        let (number, until) = self.changes.entry(bucket.to_owned()).or_insert((0, now));
        *number += 1;
        *until = now + self.seed.delay(&["change of bucket", bucket, &number.to_string()]);
    }
}

fn thing(bucket: &str) -> String {
    format!("bucket {bucket}")
}

fn object(bucket: &str, key: &str) -> String {
    format!("object {bucket}/{key}")
}

#[cfg(test)]
mod tests;
