//! IAM: roles and instance profiles are known everywhere some seconds after they are made.

use std::time::Instant;

use super::behaviour::Behaviour;
use super::network::profile_in_ec2;
use super::young::Young;
use super::{Refused, refused};
use crate::call::Call;

/// Kinds of named things: the parameter, the calls that make and delete one, and IAM's word for it.
const KINDS: [(&str, &str, &str, &str); 2] = [
    ("InstanceProfileName", "CreateInstanceProfile", "DeleteInstanceProfile", "Instance Profile"),
    ("RoleName", "CreateRole", "DeleteRole", "The role with name"),
];

/// Returns the refusal of a call that names something that IAM does not know yet.
pub(super) fn refuse(young: &mut Young, call: &Call, now: Instant) -> Option<Refused> {
    for (parameter, maker, _, words) in KINDS {
        let Some(name) = call.parameter(parameter).filter(|_| call.action != maker) else { continue };
        if young.misses(&thing(words, name), &call.action, now) {
            let message = format!("{words} {name} cannot be found.");
            return Some(refused(Behaviour::NoSuchEntity, 404, "NoSuchEntity", message));
        }
    }
    None
}

/// Records the things that a successful call made or deleted.
pub(super) fn answered(young: &mut Young, call: &Call, now: Instant) {
    for (parameter, maker, deleter, words) in KINDS {
        let Some(name) = call.parameter(parameter) else { continue };
        if call.action == maker {
            young.named(&thing(words, name), now);
        } else if call.action == deleter {
            young.deleted(&thing(words, name));
            young.deleted(&profile_in_ec2(name));
        }
    }
    if let ("AddRoleToInstanceProfile", Some(name)) =
        (call.action.as_str(), call.parameter("InstanceProfileName"))
    {
        young.named(&profile_in_ec2(name), now);
    }
}

/// A role's name for other services, used in Lambda's error about a role that it cannot assume yet.
pub(super) fn role(name: &str) -> String {
    thing(KINDS[1].3, name)
}

fn thing(words: &str, name: &str) -> String {
    format!("{words} {name}")
}
