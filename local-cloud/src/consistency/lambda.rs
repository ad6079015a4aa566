//! Lambda: a function is busy for a moment after each change, and depends on resources of other services.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::network::not_found;
use super::seed::Seed;
use super::young::Young;
use super::{Refused, iam, refused};
use crate::ACCOUNT;
use crate::call::Admitted;
use crate::sigv4;

/// Milliseconds that Lambda takes to make or update a function: more than the emulator's half second, and
/// less than in a VPC on AWS.
const TAKES: (u64, u64) = (600, 1500);

const CONFLICT: &str = "ResourceConflictException";
const INVALID: &str = "InvalidParameterValueException";

/// The target of a request to Lambda.
#[derive(Debug)]
pub(super) struct Target {
    method: String,
    /// Empty for requests without a function.
    function: String,
    /// The part of the function: `code`, `configuration`, `policy`, … or nothing for itself.
    what: String,
    region: String,
    body: Settings,
}

/// The settings of a function that depend on other resources; a package of megabytes is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Settings {
    function_name: String,
    role: Option<String>,
    vpc_config: Option<VpcConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct VpcConfig {
    subnet_ids: Vec<String>,
    security_group_ids: Vec<String>,
    ipv6_allowed_for_dual_stack: bool,
}

impl Target {
    pub(super) fn of(admitted: &Admitted) -> Self {
        let path = admitted.parts.uri.path();
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
        let mut segments = path.trim_matches('/').splitn(4, '/').skip(1);
        let is_of_functions = segments.next() == Some("functions");
        let method = admitted.parts.method.to_string();
        let named = segments.next().unwrap_or_default();
        let what = segments.next().unwrap_or_default().to_owned();
        let has_settings = is_of_functions && (named.is_empty() || what == "configuration");
        let body: Settings = match has_settings {
            true => serde_json::from_slice(&admitted.body).unwrap_or_default(),
            false => Settings::default(),
        };
        // By its name or its ARN.
        let named = if named.is_empty() { &body.function_name } else { named };
        let function = named.rsplit(':').next().filter(|_| is_of_functions).unwrap_or_default().to_owned();
        let authorization = admitted.parts.headers.get("authorization").and_then(|value| value.to_str().ok());
        let region = authorization.and_then(sigv4::parse).map_or("", |auth| auth.region).to_owned();
        Self { method, function, what, region, body }
    }

    fn is(&self, method: &str, what: &str) -> bool {
        !self.function.is_empty() && self.method == method && self.what == what
    }

    fn is_creation(&self) -> bool {
        self.is("POST", "")
    }

    fn is_update(&self) -> bool {
        self.is("PUT", "code") || self.is("PUT", "configuration")
    }

    /// Returns whether the answer is, or contains, the function's configuration.
    fn is_look(&self) -> bool {
        self.is("GET", "") || self.is("GET", "configuration")
    }

    /// Returns the subnets that are to be used with IPv6 too; none if it is not requested.
    pub(super) fn dual_stack_subnets(&self) -> Vec<String> {
        let vpc = self.body.vpc_config.iter().filter(|vpc| vpc.ipv6_allowed_for_dual_stack);
        vpc.flat_map(|vpc| vpc.subnet_ids.clone()).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Pending,
    Updating,
}

#[derive(Debug, Default)]
struct Function {
    /// Number of changes so far.
    number: u32,
    busy: Option<(Phase, Instant)>,
    /// Until when its policy cannot be changed; drawn at the first try.
    policy: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Functions {
    seed: Seed,
    all: BTreeMap<String, Function>,
}

impl Functions {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, all: BTreeMap::new() }
    }

    pub(super) fn refuse(&mut self, young: &mut Young, target: &Target, now: Instant) -> Option<Refused> {
        self.is_busy(target, now).or_else(|| unknown(young, target, now))
    }

    fn is_busy(&mut self, target: &Target, now: Instant) -> Option<Refused> {
        let function = self.all.get_mut(&target.function)?;
        let arn = format!("arn:aws:lambda:{}:{ACCOUNT}:function:{}", target.region, target.function);
        let updating = |behaviour| {
            let message = format!(
                "The operation cannot be performed at this time. An update is in progress for resource: {arn}"
            );
            refused(behaviour, 409, CONFLICT, message)
        };
        let is_change = target.is_update() || target.is("POST", "versions");
        match function.busy.filter(|(_, until)| now < *until) {
            Some((Phase::Pending, _)) if is_change || target.is("POST", "invocations") => {
                let message = "The operation cannot be performed at this time. The function is currently in the \
                               following state: Pending";
                return Some(refused(Behaviour::FunctionBusy, 409, CONFLICT, message.to_owned()));
            }
            Some((Phase::Updating, _)) if is_change => return Some(updating(Behaviour::FunctionBusy)),
            _ => {}
        }
        if !target.is("POST", "policy") {
            return None;
        }
        let words = ["policy of function", target.function.as_str()];
        let until = *function.policy.get_or_insert_with(|| now + self.seed.delay(&words));
        (now < until).then(|| updating(Behaviour::PolicyBusy))
    }

    /// Records the changes of a successful call.
    pub(super) fn answered(&mut self, target: &Target, now: Instant) {
        if target.is("DELETE", "") {
            self.all.remove(&target.function);
        }
        if !target.is_creation() && !target.is_update() {
            return;
        }
        let phase = if target.is_creation() { Phase::Pending } else { Phase::Updating };
        let function = self.all.entry(target.function.clone()).or_default();
        function.number += 1;
        let words = ["change of function", &target.function, &function.number.to_string()];
        function.busy = Some((phase, now + self.seed.millis(TAKES, &words)));
    }

    /// Returns whether an answer must show that the function is not ready.
    pub(super) fn has_to_show(&self, target: &Target, now: Instant) -> bool {
        target.is_look() && self.phase(target, now).is_some()
    }

    /// Shows the previous configuration while Lambda works on the new one.
    pub(super) fn show(&self, target: &Target, answer: &mut Value, now: Instant) {
        let configuration = match answer.get("Configuration") {
            Some(_) => &mut answer["Configuration"],
            None => answer,
        };
        match self.phase(target, now) {
            Some(Phase::Pending) => {
                configuration["State"] = json!("Pending");
                configuration["StateReasonCode"] = json!("Creating");
                configuration["LastUpdateStatus"] = json!("InProgress");
            }
            Some(Phase::Updating) => {
                configuration["State"] = json!("Active");
                configuration["LastUpdateStatus"] = json!("InProgress");
            }
            None => {}
        }
    }

    fn phase(&self, target: &Target, now: Instant) -> Option<Phase> {
        let (phase, until) = self.all.get(&target.function)?.busy?;
        (now < until).then_some(phase)
    }
}

/// Returns a resource that Lambda cannot use yet: the role, or a part of the function's network.
fn unknown(young: &mut Young, target: &Target, now: Instant) -> Option<Refused> {
    let role = target.body.role.as_deref().and_then(|arn| arn.rsplit('/').next());
    if role.is_some_and(|role| young.misses(&iam::role(role), "Lambda", now)) {
        let message = "The role defined for the function cannot be assumed by Lambda.".to_owned();
        return Some(refused(Behaviour::RoleNotInLambda, 400, INVALID, message));
    }
    let vpc = target.body.vpc_config.as_ref()?;
    let lists = [("DescribeSubnets", &vpc.subnet_ids), ("DescribeSecurityGroups", &vpc.security_group_ids)];
    for (look, ids) in lists {
        let missed = ids.iter().find(|id| young.misses(id, "Lambda", now));
        if let Some((code, message)) = missed.and_then(|id| not_found(id, look)) {
            let message =
                format!("Error occurred while {look}. EC2 Error Code: {code}. EC2 Error Message: {message}");
            return Some(refused(Behaviour::NotFoundByLambda, 400, INVALID, message));
        }
    }
    None
}

/// Returns the refusal of subnets without IPv6. Lambda's guide documents that they are refused, but not the
/// words, so these are the local cloud's own.
pub(super) fn not_dual_stack(subnets: &[String]) -> Refused {
    let message = format!(
        "Ipv6AllowedForDualStack cannot be true: these subnets have no IPv6 CIDR block: {}",
        subnets.join(", ")
    );
    refused(Behaviour::NotDualStack, 400, INVALID, message)
}

#[cfg(test)]
mod tests;
