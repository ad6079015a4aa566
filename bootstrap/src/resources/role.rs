//! Roles with one inline policy each, and the instance profiles of the roles that instances assume.

use aws_sdk_iam::types::Tag;
use fleet::aws_code::AwsErrorKind;
use serde::Serialize;
use serde_json::Value;

use crate::aws::Aws;
use crate::cli::PolicyArn;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::names::Names;
use crate::part::{Part, RunMode};
use crate::patience::{self, Look};
use crate::policies;

/// The inline policy's name; there is only one.
const POLICY: &str = "vigia";
pub const SPOT_ROLE: &str = "AWSServiceRoleForEC2Spot";
/// The service-linked role's path, which AWS fixes.
const SPOT_PATH: &str = "/aws-service-role/spot.amazonaws.com/";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleWanted {
    pub name: String,
    pub trust: Value,
    pub policy: Value,
    pub has_instance_profile: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Worker,
    LoadBalancer,
    Reconciler,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Worker, Self::LoadBalancer, Self::Reconciler];

    /// Returns the name of the role, and of its instance profile.
    pub fn name(self, names: &Names) -> String {
        names.stack.resource(match self {
            Self::Worker => "worker",
            Self::LoadBalancer => "lb",
            Self::Reconciler => "reconciler",
        })
    }

    /// Returns the wanted state of the role.
    pub fn wanted(self, names: &Names) -> RoleWanted {
        let (service, policy) = match self {
            Self::Worker => ("ec2.amazonaws.com", policies::worker(names)),
            Self::LoadBalancer => ("ec2.amazonaws.com", policies::load_balancer(names)),
            Self::Reconciler => ("lambda.amazonaws.com", policies::reconciler(names)),
        };
        RoleWanted {
            name: self.name(names),
            trust: policies::trust(service),
            policy,
            has_instance_profile: self.has_profile(),
        }
    }

    fn has_profile(self) -> bool {
        self != Self::Reconciler
    }
}

/// The existing parts of a role.
struct Found {
    exists: bool,
    policy: Option<Value>,
    boundary: Option<String>,
    profile: Profile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Missing,
    /// Its role is missing: it is empty, or has another role.
    Empty,
    Complete,
}

/// Ensures all roles, and the instance profiles of the roles that have one. Without a permissions boundary
/// the roles keep theirs, and a role that has to be made again gets the others' boundary.
pub async fn ensure(aws: &Aws, mode: RunMode, boundary: Option<&PolicyArn>) -> Result<Vec<Part>> {
    let wanted = Role::ALL.map(|role| role.wanted(&aws.names));
    let [worker, lb, reconciler] = &wanted;
    let (worker, lb, reconciler) = tokio::try_join!(find(aws, worker), find(aws, lb), find(aws, reconciler))?;
    let found = [worker, lb, reconciler];
    let kept = found.iter().find_map(|found| found.boundary.as_deref());
    let boundary = boundary.map(PolicyArn::as_str).or(kept);
    let one = |index: usize| ensure_one(aws, mode, &wanted[index], &found[index], boundary);
    let parts = tokio::try_join!(one(0), one(1), one(2))?;
    Ok([parts.0, parts.1, parts.2].concat())
}

async fn ensure_one(
    aws: &Aws,
    mode: RunMode,
    wanted: &RoleWanted,
    found: &Found,
    boundary: Option<&str>,
) -> Result<Vec<Part>> {
    let name = &wanted.name;
    let parts = compare(wanted, found, boundary);
    if mode.applies(&parts[0]) {
        if !found.exists {
            create(aws, wanted, boundary).await?;
        } else if let Some(boundary) = boundary.filter(|_| found.boundary.as_deref() != boundary) {
            let put = aws.iam.put_role_permissions_boundary().role_name(name).permissions_boundary(boundary);
            let written = async || {
                let written = put.clone().send().await;
                written.step(|| format!("set the permissions boundary of {name}"))
            };
            aws.patience.depends_on(&format!("the role {name}"), written).await?;
        }
        if found.policy.as_ref() != Some(&wanted.policy) {
            let put = aws.iam.put_role_policy().role_name(name).policy_name(POLICY);
            let put = put.policy_document(wanted.policy.to_string());
            let written = async || put.clone().send().await.step(|| format!("write the policy of {name}"));
            aws.patience.depends_on(&format!("the role {name}"), written).await?;
        }
    }
    if parts.get(1).is_some_and(|profile| mode.applies(profile)) {
        make_profile(aws, name, found.profile).await?;
    }
    Ok(parts)
}

fn compare(wanted: &RoleWanted, found: &Found, boundary: Option<&str>) -> Vec<Part> {
    let what = format!("role {}", wanted.name);
    let mut differs = Vec::new();
    if found.policy.as_ref() != Some(&wanted.policy) {
        differs.push("policy".to_owned());
    }
    if let Some(boundary) = boundary.filter(|_| found.boundary.as_deref() != boundary) {
        let before = found.boundary.as_deref().unwrap_or("none");
        differs.push(format!("permissions boundary {boundary} instead of {before}"));
    }
    let mut parts = vec![if found.exists { Part::compared(what, differs) } else { Part::created(what) }];
    if wanted.has_instance_profile {
        let what = format!("instance profile {}", wanted.name);
        parts.push(match found.profile {
            Profile::Missing => Part::created(what),
            Profile::Empty => Part::compared(what, vec!["role".to_owned()]),
            Profile::Complete => Part::unchanged(what),
        });
    }
    parts
}

async fn find(aws: &Aws, wanted: &RoleWanted) -> Result<Found> {
    let name = &wanted.name;
    let got = aws.iam.get_role().role_name(name).send().await;
    let role = found(got.step(|| format!("look at the role {name}")))?.and_then(|got| got.role);
    let got = aws.iam.get_role_policy().role_name(name).policy_name(POLICY).send().await;
    let got = found(got.step(|| format!("read the policy of {name}")))?;
    // IAM returns the document percent-encoded.
    let policy = got.and_then(|got| serde_json::from_str(&decode(got.policy_document())).ok());
    let boundary = role
        .as_ref()
        .and_then(|role| role.permissions_boundary())
        .and_then(|boundary| boundary.permissions_boundary_arn())
        .map(str::to_owned);
    let profile =
        if wanted.has_instance_profile { find_profile(aws, name).await? } else { Profile::Complete };
    Ok(Found { exists: role.is_some(), policy, boundary, profile })
}

async fn find_profile(aws: &Aws, name: &str) -> Result<Profile> {
    let got = aws.iam.get_instance_profile().instance_profile_name(name).send().await;
    let got = found(got.step(|| format!("look at the instance profile {name}")))?;
    Ok(match got.as_ref().and_then(|got| got.instance_profile()) {
        None => Profile::Missing,
        Some(profile) if profile.roles().iter().any(|role| role.role_name() == name) => Profile::Complete,
        Some(_) => Profile::Empty,
    })
}

async fn create(aws: &Aws, wanted: &RoleWanted, boundary: Option<&str>) -> Result<()> {
    let name = &wanted.name;
    let create = aws
        .iam
        .create_role()
        .role_name(name)
        .description("Made by Vigia; `destroy` removes it.")
        .assume_role_policy_document(wanted.trust.to_string())
        .set_permissions_boundary(boundary.map(str::to_owned))
        .set_tags(Some(tags(aws, name)?));
    let created =
        aws.patience.settled(async || create.clone().send().await.step(|| format!("create the role {name}")));
    exists_is_fine(created.await.map(drop))
}

async fn make_profile(aws: &Aws, name: &str, found: Profile) -> Result<()> {
    if found == Profile::Missing {
        let create =
            aws.iam.create_instance_profile().instance_profile_name(name).set_tags(Some(tags(aws, name)?));
        let created = aws.patience.settled(async || {
            create.clone().send().await.step(|| format!("create the instance profile {name}"))
        });
        exists_is_fine(created.await.map(drop))?;
    }
    let add = aws.iam.add_role_to_instance_profile().instance_profile_name(name).role_name(name);
    let added = async || {
        let added = add.clone().send().await;
        added.step(|| format!("put the role {name} into its instance profile"))
    };
    let both = format!("the role and the instance profile {name}");
    match aws.patience.depends_on(&both, added).await {
        // A profile holds one role. If it holds this one, this run's first try has put it there.
        Err(error) if error.code == "LimitExceeded" => {
            let look = async || {
                Ok(match find_profile(aws, name).await? {
                    Profile::Complete => Look::Reached(()),
                    Profile::Missing | Profile::Empty => Look::NotYet("without its role".to_owned()),
                })
            };
            aws.patience.until(&format!("the instance profile {name}"), patience::SETTLING, look).await
        }
        done => done.map(drop),
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

/// Deletes the role in the order that IAM enforces.
pub async fn delete(aws: &Aws, role: Role) -> Result<Vec<Part>> {
    let name = role.name(&aws.names);
    let mut parts = Vec::new();
    if role.has_profile() {
        let remove =
            aws.iam.remove_role_from_instance_profile().instance_profile_name(&name).role_name(&name);
        let removed = async || {
            let removed = remove.clone().send().await;
            removed.step(|| format!("take the role {name} out of its instance profile"))
        };
        aws.patience.deleted(removed).await?;
        let delete = aws.iam.delete_instance_profile().instance_profile_name(&name);
        let deleted =
            async || delete.clone().send().await.step(|| format!("delete the instance profile {name}"));
        let deleted = aws.patience.deleted(deleted).await?;
        parts.push(Part::deleted(format!("instance profile {name}"), deleted.is_some()));
    }
    let listed = aws.iam.list_role_policies().role_name(&name).send().await;
    let listed = found(listed.step(|| format!("list the policies of {name}")))?;
    for policy in listed.iter().flat_map(|listed| listed.policy_names()) {
        let delete = aws.iam.delete_role_policy().role_name(&name).policy_name(policy);
        let deleted =
            async || delete.clone().send().await.step(|| format!("delete the policy {policy} of {name}"));
        aws.patience.deleted(deleted).await?;
    }
    let delete = aws.iam.delete_role().role_name(&name);
    let deleted = async || delete.clone().send().await.step(|| format!("delete the role {name}"));
    let deleted = aws.patience.deleted(deleted).await?;
    parts.push(Part::deleted(format!("role {name}"), deleted.is_some()));
    Ok(parts)
}

/// Returns whether the account has the role with which EC2 launches spot instances.
pub async fn has_spot(aws: &Aws) -> Result<bool> {
    let listed = aws.iam.list_roles().path_prefix(SPOT_PATH).send().await;
    Ok(!listed.step(|| format!("look for the role {SPOT_ROLE}"))?.roles().is_empty())
}

/// Ensures the role with which EC2 launches spot instances. The account has one; it belongs to no stack, so
/// `destroy` leaves it.
pub async fn ensure_spot(aws: &Aws, mode: RunMode) -> Result<Part> {
    let part = Part::found(format!("service-linked role {SPOT_ROLE}"), has_spot(aws).await?);
    if mode.applies(&part) {
        let create = aws.iam.create_service_linked_role().aws_service_name("spot.amazonaws.com");
        let created = async || create.clone().send().await.step(|| format!("create the role {SPOT_ROLE}"));
        match aws.patience.settled(created).await {
            // Another process made it just now.
            Err(error)
                if error.kind == AwsErrorKind::AlreadyExists
                    || error.message().contains("has been taken") => {}
            other => drop(other?),
        }
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;
    use crate::part::Change;

    const ARN: &str = "arn:aws:iam::123456789012:policy/limits";

    fn wanted() -> RoleWanted {
        Role::Worker.wanted(&Names {
            stack: "a".parse().expect("valid"),
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            partition: "aws".to_owned(),
        })
    }

    #[test]
    fn a_boundary_is_kept_unless_another_is_requested() {
        let wanted = wanted();
        let change = |has: Option<&str>, asked: Option<&str>| {
            let found = Found {
                exists: true,
                policy: Some(wanted.policy.clone()),
                boundary: has.map(str::to_owned),
                profile: Profile::Complete,
            };
            compare(&wanted, &found, asked)[0].change
        };
        assert_eq!(change(None, None), Change::Unchanged);
        assert_eq!(change(Some(ARN), None), Change::Unchanged);
        assert_eq!(change(Some(ARN), Some(ARN)), Change::Unchanged);
        assert_eq!(change(None, Some(ARN)), Change::Updated);
        assert_eq!(change(Some("arn:aws:iam::aws:policy/PowerUserAccess"), Some(ARN)), Change::Updated);
    }

    #[tokio::test]
    async fn a_new_role_is_waited_for_by_its_policy_and_profile() {
        let stub = Stub::default()
            .answers("CreateRole", "<CreateRoleResult/>")
            .refuses_query("PutRolePolicy", "NoSuchEntity")
            .answers("PutRolePolicy", "")
            .answers("CreateInstanceProfile", "<CreateInstanceProfileResult/>")
            .refuses_query("AddRoleToInstanceProfile", "NoSuchEntity")
            .answers("AddRoleToInstanceProfile", "");
        let found = Found { exists: false, policy: None, boundary: None, profile: Profile::Missing };
        let made = ensure_one(&stub.serve().await, RunMode::Apply, &wanted(), &found, None).await;
        assert!(made.expect("it settles").iter().all(|part| part.change == Change::Created));
        assert_eq!((stub.count("PutRolePolicy"), stub.count("AddRoleToInstanceProfile")), (2, 2));
    }

    #[tokio::test]
    async fn a_profile_may_have_its_role_already() {
        let name = wanted().name;
        let holds = |role: &str| {
            format!(
                "<GetInstanceProfileResult><InstanceProfile><InstanceProfileName>{name}</InstanceProfileName>\
                 <Roles>{role}</Roles></InstanceProfile></GetInstanceProfileResult>"
            )
        };
        let stub = Stub::default()
            .refuses_query("AddRoleToInstanceProfile", "LimitExceeded")
            .answers("GetInstanceProfile", &holds(""))
            .answers("GetInstanceProfile", &holds(&format!("<member><RoleName>{name}</RoleName></member>")));
        make_profile(&stub.serve().await, &name, Profile::Empty).await.expect("the role is in it");
        assert_eq!(stub.count("GetInstanceProfile"), 2);
    }

    #[tokio::test]
    async fn a_new_role_is_made_within_the_boundary() {
        let stub = Stub::default().answers("CreateRole", "<CreateRoleResult/>");
        create(&stub.serve().await, &wanted(), Some(ARN)).await.expect("made");
        assert!(stub.last("CreateRole").contains("PermissionsBoundary=arn%3Aaws%3Aiam"));
    }

    #[tokio::test]
    async fn a_deletion_waits_until_the_profile_is_forgotten() {
        let stub = Stub::default()
            .answers("RemoveRoleFromInstanceProfile", "")
            .answers("DeleteInstanceProfile", "")
            .refuses_query("ListRolePolicies", "NoSuchEntity")
            .refuses_query("DeleteRole", "DeleteConflict")
            .answers("DeleteRole", "");
        delete(&stub.serve().await, Role::Worker).await.expect("it settles");
        assert_eq!(stub.count("DeleteRole"), 2);
    }
}
