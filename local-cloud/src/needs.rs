//! The IAM permissions that a call needs.
//!
//! It decides nothing; [`crate::iam`] does. One call may need several permissions (a launch needs one for each kind of resource
//! that it makes or names, one to tag them, and one to hand over a role), as the Service Authorization
//! Reference says; where that is silent, a comment states the assumption.

mod ec2;
mod iam;
mod json;
mod lambda;
mod s3;

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::ACCOUNT;
use crate::call::{Admitted, Call, Tags};
use crate::sigv4;

/// One permission that a call needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Asked {
    /// The action's name in policies: `s3:PutObject`. An action unknown here has its method and path:
    /// `lambda:PUT /x`.
    pub action: String,
    /// The resource's name in policies, or `*` where a service has none for the call. A resource still to be
    /// made has no id yet: `arn:aws:ec2:us-east-1:000000000000:vpc/*`.
    pub resource: String,
    /// Keys of conditions, as far as the call contains them: `aws:RequestTag/KEY`, `aws:ResourceTag/KEY`,
    /// `ec2:CreateAction`, `iam:PassedToService`, `iam:PermissionsBoundary`, `lambda:SourceFunctionArn`.
    pub context: BTreeMap<String, String>,
}

/// The permissions that one call needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub all: Vec<Asked>,
    /// See [`crate::uses::Use::names`].
    pub names: BTreeSet<String>,
    pub region: String,
    /// The bucket that must be listable when the call answers that the object is missing: S3 tells only
    /// callers who may list it.
    missing: Option<String>,
}

impl Needs {
    pub(crate) fn of(call: &Call, admitted: &Admitted) -> Self {
        let authorization = admitted.parts.headers.get("authorization").and_then(|value| value.to_str().ok());
        let region = authorization.and_then(sigv4::parse).map_or("", |auth| auth.region);
        let needs = match call.service.as_str() {
            "s3" => s3::needs(admitted),
            "ec2" => ec2::needs(call, region),
            "lambda" => Self::only(lambda::needs(admitted, region)),
            "iam" | "sts" => Self::only(iam::needs(call)),
            _ => Self::only(json::needs(call, &admitted.body, region)),
        };
        Self { region: region.to_owned(), ..needs }
    }

    fn only(all: Vec<Asked>) -> Self {
        Self { all, ..Self::default() }
    }

    /// Returns the permission that the answer makes necessary as well.
    pub(crate) fn after(&self, status: StatusCode) -> Option<Asked> {
        let bucket = self.missing.as_ref().filter(|_| status == StatusCode::NOT_FOUND)?;
        Some(Asked::new("s3:ListBucket", bucket))
    }

    /// Sets the resources of a call that names them indirectly.
    pub(crate) fn are_about(&mut self, ids: &[String]) {
        let Some(at) = self.all.iter().position(|asked| asked.resource == "*") else { return };
        let about: Vec<Asked> = ids
            .iter()
            .filter_map(|id| ec2::resource(id, &self.region))
            .map(|resource| Asked { resource, ..self.all[at].clone() })
            .collect();
        if !about.is_empty() {
            self.all.splice(at..=at, about);
        }
    }

    /// Replaces the interface of a call that does not name it.
    pub(crate) fn concerns_interface(&mut self, id: &str) {
        for asked in self.all.iter_mut().filter(|asked| asked.resource.ends_with(":network-interface/*")) {
            asked.resource = ec2::resource(id, &self.region).unwrap_or_else(|| asked.resource.clone());
        }
    }

    /// Replaces the role of a launch, which names only its profile.
    pub(crate) fn hands_over(&mut self, role: &str) {
        for asked in self.all.iter_mut().filter(|asked| asked.action == "iam:PassRole") {
            asked.resource = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        }
    }

    /// Sets the role's existing permissions boundary. A call that sets one names it itself.
    pub(crate) fn are_of_role_within(&mut self, boundary: &str) {
        for asked in &mut self.all {
            asked.context.entry("iam:PermissionsBoundary".to_owned()).or_insert_with(|| boundary.to_owned());
        }
    }

    /// Returns the ids of resources whose tags may be in a condition.
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

    /// Returns the id of an existing EC2 resource.
    pub(crate) fn id(&self) -> Option<&str> {
        let ec2 = self.resource.strip_prefix("arn:aws:ec2:")?;
        ec2.rsplit('/').next().filter(|id| *id != "*")
    }
}

/// Returns the ARN of a resource of a regional service.
fn arn(service: &str, region: &str, what: &str) -> String {
    format!("arn:aws:{service}:{region}:{ACCOUNT}:{what}")
}

#[cfg(test)]
mod tests;
