//! `migrate-profile`: turns the users of a classic stack into users of a secure one.
//!
//! | step | the marker `meta/profile` says | cut here, the next run |
//! |---|---|---|
//! | no worker serves; read all users, refuse if one cannot be turned | `classic` | starts over |
//! | change the marker, so that no worker of either profile starts | `migrating-to-secure` | goes on |
//! | look again for workers, read all users again | | goes on |
//! | each user: write the secure object, delete a classic one of another key | | skips finished users |
//! | delete every version of the past below `users/`: they are plain text | | deletes the rest |
//! | the release says secure | | says it again |
//! | change the marker | `secure` | has nothing to do |
//!
//! A converted object is recognised by its S3 metadata, never by its content: a classic password may look
//! like a record. The conversion cannot be undone, because it keeps no plain text.

mod convert;
mod judge;

use std::collections::BTreeSet;

use aws_sdk_ec2::types::Filter;
use fleet::release::{InstanceSpec, Release};
use fleet::stack::{ROLE_WORKER, TAG_ROLE, TAG_STACK};
use fleet::{DesiredCount, Profile, Registry, keys};

use crate::aws::Aws;
use crate::cli::Target;
use crate::error::{DeployError, Exit, Result, Step as _};
use crate::output::{self, Progress};
use crate::resources::documents::{self, Marker};
use crate::scale::no_stack;
use convert::Users;
use judge::{Plan, Unusable};

/// How many unusable users a message names.
const SHOWN: usize = 50;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub unusable: OnUnusable,
    pub mode: Mode,
}

/// How unusable users are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnusable {
    #[default]
    Refuse,
    /// They stay where they are, in plain text, where no secure worker reads them.
    Leave,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Migrate,
    DryRun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    AlreadySecure,
    WouldConvert { users: usize },
    Converted { users: usize, left: usize },
}

pub async fn run(target: &Target, options: Options) -> Result<()> {
    let aws = Aws::connect(target).await?;
    let mut progress = Progress::default();
    let outcome = migrate(&aws, options, async || worker_instances(&aws).await, &mut progress).await;
    progress.finish();
    let stack = &aws.names.stack;
    let next = format!(
        "Next: `make deploy{} PROFILE=secure N=3`",
        if stack.as_str() == "vigia" { String::new() } else { format!(" STACK={stack}") }
    );
    output::result(&match outcome? {
        Outcome::AlreadySecure => {
            format!("The users of stack {stack} are secure already: nothing changed.\n{next}")
        }
        Outcome::WouldConvert { users } => format!("{users} users would be converted; nothing was changed."),
        Outcome::Converted { users, left: 0 } => {
            format!("All {users} users of stack {stack} are secure.\n{next}")
        }
        Outcome::Converted { users, left } => format!(
            "{users} users of stack {stack} are secure. {left} objects below {} still hold plain-text \
                passwords: delete them when you no longer need them.\n{next}",
            keys::USERS_PREFIX
        ),
    });
    Ok(())
}

/// Migrates the users; `instances` returns the worker instances that may still serve.
pub async fn migrate(
    aws: &Aws,
    options: Options,
    instances: impl AsyncFn() -> Result<Vec<String>>,
    progress: &mut Progress,
) -> Result<Outcome> {
    let users = Users::new(aws);
    let (marker, etag) = match documents::marker(aws).await? {
        (Marker::Missing, _) if documents::release(aws).await?.is_none() => return Err(no_stack(aws)),
        (Marker::Profile(Profile::Secure), _) => return Ok(Outcome::AlreadySecure),
        (marker @ (Marker::Profile(Profile::Classic) | Marker::Migrating), etag) => (marker, etag),
        (Marker::Missing | Marker::Unknown, _) => return Err(no_users(aws)),
    };
    match options.mode {
        Mode::DryRun => {
            let plan = judged(&users, progress).await?;
            tell(&plan, progress);
            accept(&plan, options.unusable)?;
            return Ok(Outcome::WouldConvert { users: plan.convert.len() });
        }
        Mode::Migrate => must_not_serve(aws, &instances).await?,
    }
    if marker != Marker::Migrating {
        accept(&judged(&users, progress).await?, options.unusable)?;
        documents::write_marker(aws, keys::MIGRATING, &etag).await?;
        progress
            .line("From now on workers of both profiles refuse to start, until this command has finished.");
        // A worker that started just before has read the old profile.
        must_not_serve(aws, &instances).await?;
    }
    let etag = still_migrating(aws).await?;
    let plan = judged(&users, progress).await?;
    accept(&plan, options.unusable)?;
    tell(&plan, progress);
    let converted = plan.convert.len() + plan.done;
    users.convert(plan.convert, progress).await?;
    // Another run of this command may have ended since; then these objects belong to secure users.
    still_migrating(aws).await?;
    users.forget_the_past(progress).await?;
    if let Some(release) = documents::release(aws).await? {
        documents::write_release(aws, &as_secure(release)).await?;
    }
    documents::write_marker(aws, Profile::Secure.as_str(), &etag).await?;
    Ok(Outcome::Converted { users: converted, left: plan.left.len() })
}

/// Returns the ETag of the marker.
async fn still_migrating(aws: &Aws) -> Result<String> {
    match documents::marker(aws).await? {
        (Marker::Migrating, etag) => Ok(etag),
        _ => Err(DeployError::new(
            Exit::Failed,
            format!("{} was changed while this command ran", keys::PROFILE_MARKER),
        )
        .hint("Run this again; it shows whether anything is left to do.")),
    }
}

async fn judged(users: &Users<'_>, progress: &mut Progress) -> Result<Plan> {
    progress.begin("users");
    let plan = judge::plan(users.judge_all(progress).await?);
    progress.end_with(&format!(
        "{} to convert, {} converted already, {} unusable",
        plan.convert.len(),
        plan.done,
        plan.left.len() + plan.blocking.len()
    ));
    Ok(plan)
}

fn tell(plan: &Plan, progress: &Progress) {
    for unusable in plan.left.iter().take(SHOWN) {
        progress.line(&format!("  cannot be converted: {unusable}"));
    }
}

/// Refuses before anything is changed.
fn accept(plan: &Plan, on_unusable: OnUnusable) -> Result<()> {
    let list = |unusable: &[Unusable]| {
        let mut lines: Vec<String> = unusable.iter().take(SHOWN).map(|it| format!("\n    {it}")).collect();
        if unusable.len() > SHOWN {
            lines.push(format!("\n    … and {} more", unusable.len() - SHOWN));
        }
        lines.concat()
    };
    if !plan.blocking.is_empty() {
        let what = format!("{} users cannot be converted:{}", plan.blocking.len(), list(&plan.blocking));
        return Err(DeployError::new(Exit::Failed, what).hint(
            "Delete these objects, or write a usable password into them. --skip-unusable does not skip them, \
                because a secure worker would read them as its own.",
        ));
    }
    if !plan.left.is_empty() && on_unusable == OnUnusable::Refuse {
        let what = format!("{} users cannot be converted:{}", plan.left.len(), list(&plan.left));
        return Err(DeployError::new(Exit::Failed, what).hint(
            "Rename or delete these objects. Or skip them with --skip-unusable (make: SKIP_UNUSABLE=1): they \
                stay in plain text, and their users cannot sign in.",
        ));
    }
    Ok(())
}

async fn must_not_serve(aws: &Aws, instances: &impl AsyncFn() -> Result<Vec<String>>) -> Result<()> {
    let desired = documents::read(aws, keys::DESIRED_COUNT).await?;
    let desired = desired.map(|object| DesiredCount::from_object(&object.bytes));
    let registry = documents::read(aws, keys::REGISTRY).await?;
    let listed = registry.map(|object| serde_json::from_slice::<Registry>(&object.bytes));
    let mut why = Vec::new();
    match desired {
        Some(Ok(count)) if count.get() == 0 => {}
        Some(Ok(count)) => why.push(format!("desired-count is {count}")),
        Some(Err(_)) | None => why.push("desired-count is not 0".to_owned()),
    }
    match listed {
        None => {}
        Some(Ok(registry)) if registry.workers.is_empty() => {}
        Some(Ok(registry)) => why.push(format!("the registry lists {}", registry.workers.len())),
        Some(Err(_)) => why.push("the registry cannot be read".to_owned()),
    }
    let instances = instances().await?;
    if !instances.is_empty() {
        why.push(format!("{} run: {}", instances.len(), instances.join(", ")));
    }
    if why.is_empty() {
        return Ok(());
    }
    let what = format!("workers of stack {} may still serve: {}", aws.names.stack, why.join("; "));
    Err(DeployError::new(Exit::Failed, what)
        .hint("Run `make scale N=0`, wait until `make status` shows no worker, then run this again."))
}

/// Returns the worker instances, including those shutting down, because they answer to the last.
async fn worker_instances(aws: &Aws) -> Result<Vec<String>> {
    let filter = |name: &str, values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Filter::builder().name(name).set_values(Some(values)).build()
    };
    let mut pages = aws
        .ec2
        .describe_instances()
        .filters(filter(&format!("tag:{TAG_STACK}"), &[aws.names.stack.as_str()]))
        .filters(filter(&format!("tag:{TAG_ROLE}"), &[ROLE_WORKER]))
        .filters(filter("instance-state-name", &["pending", "running", "stopping", "shutting-down"]))
        .into_paginator()
        .page_size(1000)
        .send();
    let mut ids = BTreeSet::new();
    while let Some(page) = pages.next().await {
        let page = page.step(|| "list the workers".to_owned())?;
        let instances = page.reservations().iter().flat_map(|reservation| reservation.instances());
        ids.extend(instances.filter_map(|instance| instance.instance_id().map(str::to_owned)));
    }
    Ok(ids.into_iter().collect())
}

/// Returns the same release with secure workers, for an operator who scales before deploying.
fn as_secure(before: Release) -> Release {
    let setting = |profile: Profile| format!("VIGIA_PROFILE={profile}\n");
    let user_data = before.worker.user_data.replace(&setting(Profile::Classic), &setting(Profile::Secure));
    let worker = InstanceSpec { user_data, ..before.worker };
    Release {
        balancer: before.balancer,
        rollout: before.rollout,
        policy: before.policy,
        ..Release::new(before.stack, Profile::Secure, before.version, worker)
    }
}

fn no_users(aws: &Aws) -> DeployError {
    let what = format!("the profile of the users of stack {} is not known", aws.names.stack);
    DeployError::new(Exit::Failed, what).hint(format!(
        "Either no worker has started yet, or {} was changed by hand. Deploy and wait for a \
            healthy worker, or restore the object.",
        keys::PROFILE_MARKER
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::instance::example;

    #[test]
    fn the_release_becomes_secure_and_keeps_the_rest() {
        let user_data = "    VIGIA_PROFILE=classic\n    VIGIA_STACK=classic\n".to_owned();
        let spec = InstanceSpec { user_data, ..example() };
        let classic = Release::new("classic".parse().expect("valid"), Profile::Classic, "1".to_owned(), spec);
        let secure = as_secure(classic.clone());
        assert_eq!(secure.worker.user_data, "    VIGIA_PROFILE=secure\n    VIGIA_STACK=classic\n");
        assert_eq!(secure.profile, Profile::Secure);
        assert_ne!(secure.id, classic.id, "it is another release");
        assert_eq!(as_secure(secure.clone()), secure, "once is enough");
    }
}
