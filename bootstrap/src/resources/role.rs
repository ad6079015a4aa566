//! Roles with one inline policy each, and the instance profiles of those that instances assume.

use aws_sdk_iam::types::Tag;
use fleet::aws_code::AwsErrorKind;
use serde_json::Value;

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::output::Change;
use crate::policies;

/// The inline policy's name; there is only one.
const POLICY: &str = "vigia";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Worker,
    LoadBalancer,
    Reconciler,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Worker, Self::LoadBalancer, Self::Reconciler];

    /// Name of the role, and of its instance profile.
    pub fn name(self, aws: &Aws) -> String {
        aws.names.stack.resource(match self {
            Self::Worker => "worker",
            Self::LoadBalancer => "lb",
            Self::Reconciler => "reconciler",
        })
    }

    fn service(self) -> &'static str {
        match self {
            Self::Worker | Self::LoadBalancer => "ec2.amazonaws.com",
            Self::Reconciler => "lambda.amazonaws.com",
        }
    }

    fn policy(self, aws: &Aws) -> Value {
        match self {
            Self::Worker => policies::worker(&aws.names),
            Self::LoadBalancer => policies::load_balancer(&aws.names),
            Self::Reconciler => policies::reconciler(&aws.names),
        }
    }

    fn has_profile(self) -> bool {
        self != Self::Reconciler
    }
}

pub async fn ensure(aws: &Aws, role: Role) -> Result<Change> {
    let name = role.name(aws);
    let mut change = ensure_role(aws, role, &name).await?;
    let policy = role.policy(aws);
    let current = aws.iam.get_role_policy().role_name(&name).policy_name(POLICY).send().await;
    let current = found(current.step(|| format!("read the policy of {name}")))?;
    // IAM returns the document percent-encoded.
    let current = current.map(|got| decode(got.policy_document()));
    if current.and_then(|text| serde_json::from_str::<Value>(&text).ok()).as_ref() != Some(&policy) {
        let put = aws.iam.put_role_policy().role_name(&name).policy_name(POLICY);
        let put = put.policy_document(policy.to_string());
        let written = aws
            .patience
            .settled(async || put.clone().send().await.step(|| format!("write the policy of {name}")));
        written.await?;
        if change == Change::Unchanged {
            change = Change::Updated;
        }
    }
    if role.has_profile() && ensure_profile(aws, &name).await? == Change::Created {
        change = Change::Created;
    }
    Ok(change)
}

async fn ensure_role(aws: &Aws, role: Role, name: &str) -> Result<Change> {
    let got = aws.iam.get_role().role_name(name).send().await;
    if found(got.step(|| format!("look at the role {name}")))?.is_some() {
        return Ok(Change::Unchanged);
    }
    let create = aws
        .iam
        .create_role()
        .role_name(name)
        .description("Made by Vigia; `destroy` removes it.")
        .assume_role_policy_document(policies::trust(role.service()).to_string())
        .set_tags(Some(tags(aws, name)?));
    let created =
        aws.patience.settled(async || create.clone().send().await.step(|| format!("create the role {name}")));
    exists_is_fine(created.await.map(drop))?;
    Ok(Change::Created)
}

async fn ensure_profile(aws: &Aws, name: &str) -> Result<Change> {
    let got = aws.iam.get_instance_profile().instance_profile_name(name).send().await;
    let got = found(got.step(|| format!("look at the instance profile {name}")))?;
    let profile = got.as_ref().and_then(|got| got.instance_profile());
    if profile.is_some_and(|profile| !profile.roles().is_empty()) {
        return Ok(Change::Unchanged);
    }
    if profile.is_none() {
        let create =
            aws.iam.create_instance_profile().instance_profile_name(name).set_tags(Some(tags(aws, name)?));
        let created = aws.patience.settled(async || {
            create.clone().send().await.step(|| format!("create the instance profile {name}"))
        });
        exists_is_fine(created.await.map(drop))?;
    }
    let add = aws.iam.add_role_to_instance_profile().instance_profile_name(name).role_name(name);
    let added = aws.patience.settled(async || {
        add.clone().send().await.step(|| format!("put the role {name} into its instance profile"))
    });
    match added.await {
        Ok(_) => Ok(Change::Created),
        // A profile holds one role: the limit means that it is in there already.
        Err(error) if error.message().contains("LimitExceeded") => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

fn exists_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind == AwsErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn tags(aws: &Aws, name: &str) -> Result<Vec<Tag>> {
    let what = name.rsplit('-').next().unwrap_or(name);
    aws.names
        .tags(what)
        .into_iter()
        .map(|(key, value)| {
            Tag::builder().key(key).value(value).build().map_err(|error| {
                DeployError::new(Exit::Failed, format!("the tags of {name} are incomplete")).caused_by(error)
            })
        })
        .collect()
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Deletes in the order that IAM enforces.
pub async fn delete(aws: &Aws, role: Role) -> Result<Change> {
    let name = role.name(aws);
    let mut change = Change::Unchanged;
    if role.has_profile() {
        let removed = aws
            .iam
            .remove_role_from_instance_profile()
            .instance_profile_name(&name)
            .role_name(&name)
            .send()
            .await;
        found(removed.step(|| format!("take the role {name} out of its instance profile")))?;
        let deleted = aws.iam.delete_instance_profile().instance_profile_name(&name).send().await;
        if found(deleted.step(|| format!("delete the instance profile {name}")))?.is_some() {
            change = Change::Removed;
        }
    }
    let listed = aws.iam.list_role_policies().role_name(&name).send().await;
    let listed = found(listed.step(|| format!("list the policies of {name}")))?;
    for policy in listed.iter().flat_map(|listed| listed.policy_names()) {
        let deleted = aws.iam.delete_role_policy().role_name(&name).policy_name(policy).send().await;
        found(deleted.step(|| format!("delete the policy {policy} of {name}")))?;
    }
    let deleted = aws.iam.delete_role().role_name(&name).send().await;
    if found(deleted.step(|| format!("delete the role {name}")))?.is_some() {
        change = Change::Removed;
    }
    Ok(change)
}
