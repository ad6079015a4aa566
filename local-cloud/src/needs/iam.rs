//! IAM and STS, which use the same format as EC2.

use super::Asked;
use super::ec2::{numbered, pass_role};
use crate::ACCOUNT;
use crate::call::Call;

pub(super) fn needs(call: &Call) -> Vec<Asked> {
    let action = format!("{}:{}", call.service, call.action);
    let role = call.parameter("RoleName");
    let resource = resource(call);
    let tags = numbered(call, "Tags.member", "Key");
    let mut asked = Asked::new(&action, &resource).with_tags(&tags);
    if let Some(boundary) = call.parameter("PermissionsBoundary") {
        asked = asked.with("iam:PermissionsBoundary", boundary);
    }
    if let Some(service) = call.parameter("AWSServiceName") {
        asked = asked.with("iam:AWSServiceName", service);
    }
    let mut all = vec![asked];
    let tagging = match call.action.as_str() {
        "CreateRole" => Some("iam:TagRole"),
        "CreateInstanceProfile" => Some("iam:TagInstanceProfile"),
        _ => None,
    };
    all.extend(
        tagging.filter(|_| !tags.is_empty()).map(|tagging| Asked::new(tagging, resource).with_tags(&tags)),
    );
    if let ("AddRoleToInstanceProfile", Some(role)) = (call.action.as_str(), role) {
        all.push(pass_role(role, "ec2.amazonaws.com"));
    }
    all
}

/// Returns the resource of a call, by the parameter that names it. A profile comes before the role that is
/// put into it.
fn resource(call: &Call) -> String {
    for name in ["RoleArn", "PolicySourceArn"] {
        if let Some(arn) = call.parameter(name) {
            return arn.to_owned();
        }
    }
    for (name, kind) in
        [("InstanceProfileName", "instance-profile"), ("RoleName", "role"), ("UserName", "user")]
    {
        if let Some(own) = call.parameter(name) {
            return format!("arn:aws:iam::{ACCOUNT}:{kind}/{own}");
        }
    }
    match (call.parameter("PolicyArn"), call.parameter("PolicyName"), call.parameter("AWSServiceName")) {
        (Some(arn), ..) => arn.to_owned(),
        (None, Some(name), _) => format!("arn:aws:iam::{ACCOUNT}:policy/{name}"),
        // The role's name is derived from the service's; policies have `*` there.
        (None, None, Some("spot.amazonaws.com")) => {
            format!(
                "arn:aws:iam::{ACCOUNT}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
            )
        }
        (None, None, Some(service)) => {
            format!("arn:aws:iam::{ACCOUNT}:role/aws-service-role/{service}/AWSServiceRole")
        }
        (None, None, None) => "*".to_owned(),
    }
}
