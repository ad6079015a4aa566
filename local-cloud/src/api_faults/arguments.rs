//! A rule on the command line: `KIND WHICH OFTEN`. The local cloud itself refuses senseless combinations.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{CallFilter, Effect, Limit, Rule, Service};

/// Each kind with its own arguments.
#[derive(Debug, Subcommand)]
pub enum ApiFault {
    /// Carry the call out, then close the connection without an answer.
    LoseReply(Which),
    /// Close the connection before anything is done.
    DropRequest(Which),
    /// Carry the call out, but answer only when the rule is released or cleared, at the latest after 60 s.
    HoldReply(Which),
    /// Do nothing until the rule is released or cleared, at most for 60 s.
    HoldRequest(Which),
    /// Carry the call out at once, but answer later.
    Delay {
        /// Delay of the answer; at most 60.
        #[arg(long, value_parser = seconds)]
        seconds: Duration,
        #[command(flatten)]
        which: Which,
    },
    /// Refuse as the service refuses a caller that sends too many requests.
    Throttle(Which),
    /// Refuse RunInstances with InsufficientInstanceCapacity.
    RefuseCapacity {
        /// Only in this subnet.
        #[arg(long)]
        subnet: Option<String>,
        /// Only in this availability zone.
        #[arg(long)]
        zone: Option<String>,
        /// Only launches by this caller: an access key, a role, or `function`.
        #[arg(long)]
        caller: Option<String>,
        #[command(flatten)]
        often: Often,
    },
    /// Refuse with any code, in the format of the service.
    Error {
        #[arg(long)]
        code: String,
        /// 400 to 599.
        #[arg(long)]
        status: u16,
        #[arg(long, default_value = "A fault on purpose.")]
        message: String,
        #[command(flatten)]
        which: Which,
    },
}

/// The calls that a rule is for.
#[derive(Debug, Args)]
pub struct Which {
    /// Only calls of this service; required unless a caller is named.
    #[arg(long, required_unless_present = "caller")]
    service: Option<Service>,
    /// Only calls that change something, as `local-cloud calls` lists them.
    #[arg(long)]
    changing: bool,
    /// EC2, IAM, STS: RunInstances; EventBridge, Logs: PutRule; S3, Lambda: PUT [default: any].
    #[arg(long)]
    action: Option<String>,
    /// Part of path and query: /BUCKET/KEY in S3, /functions/NAME in Lambda.
    #[arg(long)]
    path: Option<String>,
    /// Access key, role or id of an instance, or `function` for Lambda functions.
    #[arg(long)]
    caller: Option<String>,
    #[command(flatten)]
    often: Often,
}

/// How many of the matching calls.
#[derive(Debug, Args)]
pub struct Often {
    /// Skip the first K matching calls.
    #[arg(long, value_name = "K", default_value_t = 0)]
    after: u32,
    /// Number of calls to hit.
    #[arg(long, value_name = "N", default_value = "1")]
    times: NonZeroU32,
    /// Hit all matching calls of the next SECONDS.
    #[arg(long = "for", value_name = "SECONDS", conflicts_with = "times")]
    for_seconds: Option<NonZeroU32>,
}

impl Which {
    fn rule(self, effect: Effect) -> Rule {
        let Self { service, changing, action, path, caller, often } = self;
        let calls = CallFilter { service, changing, action, path, caller, subnet: None, zone: None };
        let limit = often.for_seconds.map_or(Limit::Times(often.times), Limit::ForSeconds);
        Rule { effect, calls, after: often.after, limit }
    }
}

impl ApiFault {
    pub fn rule(self) -> Rule {
        match self {
            Self::LoseReply(which) => which.rule(Effect::LoseReply),
            Self::DropRequest(which) => which.rule(Effect::DropRequest),
            Self::HoldReply(which) => which.rule(Effect::HoldReply),
            Self::HoldRequest(which) => which.rule(Effect::HoldRequest),
            Self::Throttle(which) => which.rule(Effect::Throttle),
            Self::Delay { seconds, which } => {
                let millis = u64::try_from(seconds.as_millis()).unwrap_or(u64::MAX);
                which.rule(Effect::Delay { millis })
            }
            Self::Error { code, status, message, which } => {
                which.rule(Effect::Error { status, code, message })
            }
            Self::RefuseCapacity { subnet, zone, caller, often } => {
                let action = Some("RunInstances".to_owned());
                let launches =
                    Which { service: Some(Service::Ec2), changing: false, action, path: None, caller, often };
                let mut rule = launches.rule(Effect::RefuseCapacity);
                (rule.calls.subnet, rule.calls.zone) = (subnet, zone);
                rule
            }
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("`{text}` is not a number of seconds, for example 2.5"))
}
