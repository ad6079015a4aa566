//! API faults on purpose: lost replies, dropped requests, delays, throttling, lack of capacity.
//!
//! A rule names its calls, the effect on them, and how many it hits:
//!
//! | Calls that match | What the rule does |
//! |---|---|
//! | the first `after` | leaves them alone |
//! | the next, up to its limit | hits them, unless an older rule does; then it hits the one after |
//! | later ones | it is over: it only stays listed |
//!
//! [`ApiFaults::decide`] reads no clock and does not wait; the front door carries its decision out.
//!
//! Two rules together cut a caller off after its k-th call that changes something, as if it were killed
//! between the call and the reply: `hold-reply` after k - 1 of them, once, and `hold-request` after k, until
//! the caller is killed. Both must exist before the caller starts, because each counts by itself.

pub mod arguments;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::connection::no_answer;
use crate::reply::refusal;

/// A test needs a handful. A test that never clears its rules gets an error.
const MAX_RULES: usize = 100;

/// Longer than the time-out of any client; a test must not hang for longer.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(60);

/// Longer than any test; a forgotten rule must end by itself.
const MAX_WINDOW: Duration = Duration::from_secs(3600);

/// Fits a response header, and any code that AWS uses.
const MAX_CODE_BYTES: usize = 100;

/// Calls that wait for a released rule look every 20 ms, so the last few are enough.
const MAX_RELEASED: usize = 100;

/// The rules, oldest first.
#[derive(Debug, Default)]
pub struct ApiFaults {
    armed: Vec<Armed>,
    released: VecDeque<u32>,
    last_id: u32,
}

/// The outcome of a call that a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Lasts,
    /// It continues as if there had been no rule.
    Released,
    /// The connection is closed.
    Ended,
}

#[derive(Debug)]
struct Armed {
    id: u32,
    rule: Rule,
    since: Instant,
    seen: u32,
    hits: u32,
    held: u32,
}

/// The effect of the rules on one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub rule: u32,
    /// The call's service, as in [`Call::service`].
    pub service: String,
    pub effect: Effect,
}

impl ApiFaults {
    /// Adds a rule and returns its id.
    pub fn add(&mut self, rule: Rule, now: Instant) -> Result<u32, RuleError> {
        rule.check()?;
        if self.armed.len() >= MAX_RULES {
            return Err(RuleError::TooMany);
        }
        self.last_id += 1;
        self.armed.push(Armed { id: self.last_id, rule, since: now, seen: 0, hits: 0, held: 0 });
        Ok(self.last_id)
    }

    /// Decides on this call; the call counts for every rule that it matches.
    pub fn decide(&mut self, call: &Call, now: Instant) -> Option<Hit> {
        let mut hit = None;
        for armed in &mut self.armed {
            if armed.is_over(now) || !armed.rule.calls.matches(call) {
                continue;
            }
            armed.seen += 1;
            if hit.is_none() && armed.seen > armed.rule.after {
                armed.hits += 1;
                let (service, effect) = (call.service.clone(), armed.rule.effect.clone());
                hit = Some(Hit { rule: armed.id, service, effect });
            }
        }
        hit
    }

    /// Returns whether a decision needs the zone of a launch, which the call does not name.
    pub fn ask_for_zones(&self, now: Instant) -> bool {
        self.armed.iter().any(|armed| armed.rule.calls.zone.is_some() && !armed.is_over(now))
    }

    /// Records that a call was carried out whose reply this rule holds.
    pub(crate) fn holds(&mut self, id: u32) {
        if let Some(armed) = self.armed.iter_mut().find(|armed| armed.id == id) {
            armed.held += 1;
        }
    }

    pub(crate) fn hold(&self, id: u32) -> Hold {
        if self.armed.iter().any(|armed| armed.id == id) {
            Hold::Lasts
        } else if self.released.contains(&id) {
            Hold::Released
        } else {
            Hold::Ended
        }
    }

    /// Removes one rule, if it exists, and releases the calls that it holds.
    pub fn release(&mut self, id: u32, now: Instant) -> Option<RuleView> {
        let released = self.clear_one(id, now)?;
        self.released.push_back(id);
        if self.released.len() > MAX_RELEASED {
            self.released.pop_front();
        }
        Some(released)
    }

    pub fn list(&self, now: Instant) -> Vec<RuleView> {
        self.armed.iter().map(|armed| armed.view(now)).collect()
    }

    /// Removes all rules and returns them.
    pub fn clear(&mut self, now: Instant) -> Vec<RuleView> {
        std::mem::take(&mut self.armed).iter().map(|armed| armed.view(now)).collect()
    }

    /// Removes one rule, if it exists.
    pub fn clear_one(&mut self, id: u32, now: Instant) -> Option<RuleView> {
        let position = self.armed.iter().position(|armed| armed.id == id)?;
        Some(self.armed.remove(position).view(now))
    }
}

impl Armed {
    fn is_over(&self, now: Instant) -> bool {
        match self.rule.limit {
            Limit::Times(times) => self.hits >= times.get(),
            Limit::ForSeconds(seconds) => now >= self.since + Duration::from_secs(seconds.get().into()),
        }
    }

    fn view(&self, now: Instant) -> RuleView {
        let is_active = !self.is_over(now);
        let rule = self.rule.clone();
        RuleView { id: self.id, rule, seen: self.seen, hits: self.hits, held: self.held, is_active }
    }
}

/// A rule, as requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub effect: Effect,
    pub calls: CallFilter,
    /// Number of matching calls that are left alone first.
    #[serde(default)]
    pub after: u32,
    #[serde(default)]
    pub limit: Limit,
}

/// A rule, as listed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleView {
    pub id: u32,
    pub rule: Rule,
    /// Matching calls while the rule was active.
    pub seen: u32,
    /// Matching calls that it broke.
    pub hits: u32,
    /// Broken calls that were carried out and whose replies were held.
    pub held: u32,
    pub is_active: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Effect {
    /// Carried out; then the connection is closed without an answer.
    LoseReply,
    /// The connection is closed before anything is done.
    DropRequest,
    /// Carried out; the answer is held until the rule is released, which delivers it, or cleared, which
    /// closes the connection, as the 60 s limit does.
    HoldReply,
    /// Nothing is done until the rule is released; then the call is handled as a new one. When the rule is
    /// cleared, or after 60 s, the connection is closed and nothing was done.
    HoldRequest,
    /// Carried out at once; answered late.
    Delay { millis: u64 },
    /// Refused as the service refuses a caller that sends too many requests.
    Throttle,
    /// RunInstances is refused for lack of capacity.
    RefuseCapacity,
    /// Refused with this code, in the service's own format.
    Error { status: u16, code: String, message: String },
}

/// The calls that a rule is for: calls that match every given field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallFilter {
    /// Without it, calls of every service; then the caller must be set.
    #[serde(default)]
    pub service: Option<Service>,
    /// Only calls that change something, as far as they are recorded.
    #[serde(default)]
    pub changing: bool,
    /// As in [`Call::action`]; case does not count.
    #[serde(default)]
    pub action: Option<String>,
    /// Part of [`Call::path`].
    #[serde(default)]
    pub path: Option<String>,
    /// One of the names of [`crate::call::Caller`].
    #[serde(default)]
    pub caller: Option<String>,
    /// Only launches in this subnet.
    #[serde(default)]
    pub subnet: Option<String>,
    /// Only launches in this availability zone.
    #[serde(default)]
    pub zone: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// This many calls.
    Times(NonZeroU32),
    /// All calls within this many seconds after the rule was made.
    ForSeconds(NonZeroU32),
}

impl Default for Limit {
    fn default() -> Self {
        Self::Times(NonZeroU32::MIN)
    }
}

/// A service by its name in SigV4 scopes. EventBridge is `events`, CloudWatch Logs is `logs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    Ec2,
    S3,
    Iam,
    Sts,
    Lambda,
    Events,
    Logs,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("there are already {MAX_RULES} rules; remove them with `local-cloud fault-api clear`")]
    TooMany,
    #[error("a delay of {} ms is too long: use at most {} ms, or `lose-reply` for no answer at all", .0, MAX_DELAY.as_millis())]
    DelayTooLong(u64),
    #[error("{} seconds are too long for a rule: use at most {}", .0, MAX_WINDOW.as_secs())]
    WindowTooLong(u32),
    #[error("{0} is not an error status: use a number from 400 to 599")]
    NoErrorStatus(u16),
    #[error(
        "`{0}` is not an error code: use up to {MAX_CODE_BYTES} letters, digits, dots, hyphens and \
            underscores"
    )]
    NoErrorCode(String),
    #[error("this rule would break every call: name a service or a caller")]
    TooBroad,
    #[error("only launches need capacity and name a subnet: use service ec2 and action RunInstances")]
    OnlyLaunches,
}

impl Rule {
    fn check(&self) -> Result<(), RuleError> {
        match &self.effect {
            Effect::Delay { millis } if Duration::from_millis(*millis) > MAX_DELAY => {
                return Err(RuleError::DelayTooLong(*millis));
            }
            Effect::Error { status, .. } if !(400..=599).contains(status) => {
                return Err(RuleError::NoErrorStatus(*status));
            }
            Effect::Error { code, .. } if !is_error_code(code) => {
                return Err(RuleError::NoErrorCode(code.clone()));
            }
            _ => {}
        }
        if let Limit::ForSeconds(seconds) = self.limit
            && Duration::from_secs(seconds.get().into()) > MAX_WINDOW
        {
            return Err(RuleError::WindowTooLong(seconds.get()));
        }
        let CallFilter { service, action, caller, subnet, zone, .. } = &self.calls;
        if service.is_none() && caller.is_none() {
            return Err(RuleError::TooBroad);
        }
        let is_ec2 = *service == Some(Service::Ec2);
        let is_about_launches = self.effect == Effect::RefuseCapacity || subnet.is_some() || zone.is_some();
        let action = action.as_deref().unwrap_or("");
        if is_about_launches && (!is_ec2 || !action.eq_ignore_ascii_case("RunInstances")) {
            return Err(RuleError::OnlyLaunches);
        }
        Ok(())
    }
}

fn is_error_code(code: &str) -> bool {
    let is_in_codes = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_CODE_BYTES).contains(&code.len()) && code.bytes().all(is_in_codes)
}

impl CallFilter {
    fn matches(&self, call: &Call) -> bool {
        let Self { service, changing, action, path, caller, subnet, zone } = self;
        let is =
            |wanted: &Option<String>, given: Option<&str>| wanted.is_none() || wanted.as_deref() == given;
        // A dry run is neither a change that a rule counts nor a change that it could prevent.
        !call.is_dry_run()
            && service.is_none_or(|service| service.name() == call.service)
            && (!changing || call.is_mutating())
            && action.as_ref().is_none_or(|action| action.eq_ignore_ascii_case(&call.action))
            && path.as_ref().is_none_or(|part| call.path.contains(part.as_str()))
            && caller.as_ref().is_none_or(|name| call.caller.is(name))
            && is(subnet, call.parameter("SubnetId"))
            && is(zone, call.zone.as_deref())
    }
}

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::S3 => "s3",
            Self::Iam => "iam",
            Self::Sts => "sts",
            Self::Lambda => "lambda",
            Self::Events => "events",
            Self::Logs => "logs",
        }
    }
}

/// Returns a service's refusal of a caller that sends too many requests.
///
/// EC2 API reference, "Error codes"; S3 API reference, "Error responses"; IAM, EventBridge and
/// Logs API references, "Common errors"; Lambda API reference, `TooManyRequestsException`.
fn throttling(service: &str) -> (StatusCode, &'static str, &'static str) {
    match service {
        "ec2" => (StatusCode::SERVICE_UNAVAILABLE, "RequestLimitExceeded", "Request limit exceeded."),
        "s3" => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate."),
        "iam" | "sts" => (StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded"),
        "lambda" => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded."),
        // EventBridge, Logs, and other JSON services.
        _ => (StatusCode::BAD_REQUEST, "ThrottlingException", "Rate exceeded"),
    }
}

impl Effect {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LoseReply => "lose-reply",
            Self::DropRequest => "drop-request",
            Self::HoldReply => "hold-reply",
            Self::HoldRequest => "hold-request",
            Self::Delay { .. } => "delay",
            Self::Throttle => "throttle",
            Self::RefuseCapacity => "refuse-capacity",
            Self::Error { .. } => "error",
        }
    }

    /// Returns the answer that replaces carrying the call out; `None` if it is carried out.
    pub(crate) fn instead(&self, service: &str) -> Option<Response<Body>> {
        let (status, code, message) = match self {
            Self::LoseReply | Self::HoldReply | Self::Delay { .. } => return None,
            Self::DropRequest | Self::HoldRequest => return Some(no_answer()),
            Self::Throttle => throttling(service),
            Self::RefuseCapacity => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "InsufficientInstanceCapacity",
                "We currently do not have sufficient capacity in the Availability Zone you requested.",
            ),
            Self::Error { status, code, message } => {
                let status = StatusCode::from_u16(*status).expect("a rule's status was checked");
                (status, code.as_str(), message.as_str())
            }
        };
        Some(refusal(service, status, code, message))
    }

    /// Returns the fate of the answer to a call that was carried out.
    pub(crate) async fn deliver(&self, answer: Response<Body>) -> Response<Body> {
        match self {
            Self::LoseReply => no_answer(),
            Self::Delay { millis } => {
                tokio::time::sleep(Duration::from_millis(*millis)).await;
                answer
            }
            Self::DropRequest
            | Self::HoldReply
            | Self::HoldRequest
            | Self::Throttle
            | Self::RefuseCapacity
            | Self::Error { .. } => answer,
        }
    }
}

#[cfg(test)]
mod tests;
