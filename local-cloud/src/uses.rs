//! Which permissions of IAM the calls need: who asked for what, on which resource, and how often.
//!
//! Nothing is refused here: the emulators would let everybody do everything. A test compares the report
//! with the policies. One call may need several permissions (a launch needs one for each kind of thing
//! that it makes or names, one to tag them, and one to hand over a role), as the Service Authorization
//! Reference says; where that is silent, a comment says what is assumed.

mod ec2;
mod json;
mod lambda;
mod s3;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::ACCOUNT;
use crate::calls::{Call, Caller};
use crate::door::Admitted;
use crate::ec2::Tags;
use crate::sigv4;

/// A stack with a hundred users needs a thousand; a benchmark with a million must not take all memory.
const MAX_USES: usize = 20_000;

/// Beyond what one call names; S3 deletes at most this many objects at once.
const MAX_NAMES: usize = 1000;

/// One permission that a call needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Asked {
    /// As policies name it: `s3:PutObject`. What is not known here has its method and path: `lambda:PUT /x`.
    pub action: String,
    /// The resource's name for policies, or `*` where a service has none for the call. What is about to
    /// be made has no id yet: `arn:aws:ec2:us-east-1:000000000000:vpc/*`.
    pub resource: String,
    /// Keys that conditions may be about, as far as the call says: `aws:RequestTag/KEY`,
    /// `aws:ResourceTag/KEY`, `ec2:CreateAction`, `iam:PassedToService`.
    pub context: BTreeMap<String, String>,
}

/// A permission that somebody used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Use {
    #[serde(flatten)]
    pub who: Who,
    #[serde(flatten)]
    pub asked: Asked,
    /// Ids and values that the calls named in their parameters, at most a thousand: a call that only
    /// reads has no resource that IAM knows of, and names one all the same.
    pub names: BTreeSet<String>,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Who {
    /// As in [`Caller`].
    pub caller: String,
    /// The Lambda function, if it is one.
    pub function: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub uses: Vec<Use>,
    /// Uses that are not listed because there are too many.
    pub left_out: u64,
}

/// All uses since the local cloud was started.
#[derive(Debug, Default)]
pub struct Uses {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    uses: BTreeMap<(Who, Asked), (BTreeSet<String>, u64)>,
    left_out: u64,
}

impl Uses {
    pub(crate) fn add(&self, caller: &Caller, asked: Needs) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for one in asked.all {
            let who = Who { caller: caller.name.clone(), function: caller.function.clone() };
            let key = (who, one);
            if seen.uses.len() >= MAX_USES && !seen.uses.contains_key(&key) {
                seen.left_out += 1;
                continue;
            }
            let (names, count) = seen.uses.entry(key).or_default();
            *count += 1;
            for name in &asked.names {
                if names.len() < MAX_NAMES {
                    names.insert(name.clone());
                }
            }
        }
    }

    pub fn report(&self) -> Report {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let uses = seen.uses.iter().map(|((who, asked), (names, count))| Use {
            who: who.clone(),
            asked: asked.clone(),
            names: names.clone(),
            count: *count,
        });
        Report { uses: uses.collect(), left_out: seen.left_out }
    }
}

/// What one call needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub all: Vec<Asked>,
    /// See [`Use::names`].
    pub names: BTreeSet<String>,
    region: String,
    /// The bucket that must be listable when the call answers that there is no such object: S3 tells
    /// nobody else.
    missing: Option<String>,
}

impl Needs {
    pub(crate) fn of(call: &Call, admitted: &Admitted) -> Self {
        let authorization = admitted.parts.headers.get("authorization").and_then(|value| value.to_str().ok());
        let region = authorization.and_then(sigv4::parse).map_or("", |auth| auth.region);
        match call.service.as_str() {
            "s3" => s3::needs(admitted),
            "ec2" => ec2::needs(call, region),
            "lambda" => Self::only(lambda::needs(admitted, region)),
            "iam" | "sts" => Self::only(ec2::iam(call)),
            _ => Self::only(json::needs(call, &admitted.body, region)),
        }
    }

    fn only(all: Vec<Asked>) -> Self {
        Self { all, ..Self::default() }
    }

    /// With what the answer makes necessary.
    pub(crate) fn answered(mut self, status: StatusCode) -> Self {
        if let Some(bucket) = self.missing.take().filter(|_| status == StatusCode::NOT_FOUND) {
            self.all.push(Asked::new("s3:ListBucket", bucket));
        }
        self
    }

    /// What a call is about that names it by something else.
    pub(crate) fn is_about(&mut self, id: &str) {
        for asked in self.all.iter_mut().filter(|asked| asked.resource == "*") {
            asked.resource = ec2::resource(id, &self.region).unwrap_or_else(|| asked.resource.clone());
        }
    }

    /// Ids of resources whose tags may be in a condition.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.all.iter().filter_map(Asked::id).map(str::to_owned).collect()
    }

    pub(crate) fn add_resource_tags(&mut self, tags: &BTreeMap<String, Tags>) {
        for asked in &mut self.all {
            let own = asked.id().and_then(|id| tags.get(id)).cloned().unwrap_or_default();
            asked
                .context
                .extend(own.into_iter().map(|(key, value)| (format!("aws:ResourceTag/{key}"), value)));
        }
    }
}

impl Asked {
    fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into(), context: BTreeMap::new() }
    }

    fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(key.into(), value.into());
        self
    }

    fn with_tags(mut self, tags: &Tags) -> Self {
        self.context.extend(tags.iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), value.clone())));
        self
    }

    /// The id of an existing resource of EC2.
    fn id(&self) -> Option<&str> {
        let ec2 = self.resource.strip_prefix("arn:aws:ec2:")?;
        ec2.rsplit('/').next().filter(|id| *id != "*")
    }
}

/// The name of a resource of a service with regions.
fn arn(service: &str, region: &str, what: &str) -> String {
    format!("arn:aws:{service}:{region}:{ACCOUNT}:{what}")
}

#[cfg(test)]
mod tests;
