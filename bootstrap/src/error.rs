//! Errors: what happened, why, and what to do; and the exit code for scripts.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use fleet::aws_code::AwsErrorKind;
use process::telemetry::error_chain;

use crate::policies::deployer::statements_with;

/// Exit codes, documented in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Wrong arguments.
    Usage = 2,
    /// Not an error: a deployment would change something, and `plan` was asked to report it.
    Changes = 3,
    /// Credentials are missing, wrong, or lack a permission.
    Denied = 4,
    /// AWS carried everything out, but the service is not healthy in time.
    NotHealthy = 5,
    /// The AWS endpoint does not answer.
    Unreachable = 7,
    /// A program, file or port on this machine is missing or taken.
    Prerequisite = 8,
    /// Ctrl-C. As shells count: 128 plus the signal's number.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct DeployError {
    pub exit: Exit,
    pub what: String,
    pub hint: Option<String>,
    /// Meaning of the AWS error code, for callers that act on it.
    pub kind: AwsErrorKind,
    /// The AWS error code itself; empty if AWS gave none.
    pub code: String,
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl DeployError {
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            hint: None,
            kind: AwsErrorKind::Other,
            code: String::new(),
            source: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the whole message: what happened, why, and the hint.
    pub fn message(&self) -> String {
        let mut text = error_chain(self);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n  {hint}"));
        }
        text
    }
}

pub type Result<T> = std::result::Result<T, DeployError>;

/// Names the step of a failed AWS call.
pub trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E> Step<T> for std::result::Result<T, SdkError<E, HttpResponse>>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn step(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| from_sdk(error, &step()))
    }
}

fn from_sdk<E>(error: SdkError<E, HttpResponse>, step: &str) -> DeployError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let code = error.code().unwrap_or("").to_owned();
    let message = error.message().unwrap_or("").to_owned();
    let kind = ::aws::error::kind(&error);
    let no_reply = matches!(error, SdkError::DispatchFailure(_) | SdkError::TimeoutError(_));
    let chain = aws_sdk_s3::error::DisplayErrorContext(&error).to_string();
    let no_credentials = no_reply && (chain.contains("credential") || chain.contains("Credential"));
    let what = format!("could not {step}");
    if no_credentials {
        return DeployError::new(Exit::Denied, format!("{what}: no AWS credentials were found")).hint(
            "Run `aws configure` or `aws login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. If a session \
             has expired, sign in again.",
        );
    }
    if no_reply {
        return DeployError::new(Exit::Unreachable, format!("{what}: the AWS endpoint does not answer"))
            .hint(
                "Check the network and the region; for the local cloud (ENDPOINT=…), `make local` starts it.",
            )
            .caused_by(error);
    }
    if let Some(lacking) = lacking(&message) {
        let mut denied =
            denied(DeployError::new(Exit::Denied, format!("{what}: {code}: {message}")), &lacking);
        denied.code = code;
        return denied;
    }
    if kind == AwsErrorKind::Denied {
        let hint = match code.as_str() {
            "InvalidClientTokenId" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthFailure" => {
                "The access key or its secret is wrong: check `aws configure list` and the variables \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            }
            "ExpiredToken" | "ExpiredTokenException" => "The session has expired: sign in again.",
            // S3 answers HEAD without a body.
            "" => {
                "These credentials lack a permission, and S3 does not say which one: checking a bucket needs \
                    s3:ListBucket, checking an object s3:GetObject. Add the statements `Buckets` and \
                    `Objects` of `bootstrap iam-policy` to their policy."
            }
            _ => "These credentials lack the permission for this call; the message above names it.",
        };
        let (code, message) =
            if code.is_empty() { ("403", "Forbidden") } else { (code.as_str(), message.as_str()) };
        let mut denied = DeployError::new(Exit::Denied, format!("{what}: {code}: {message}")).hint(hint);
        (denied.kind, denied.code) = (kind, code.to_owned());
        return denied;
    }
    if let Some(why) = fleet::quota::explain(&code, &message) {
        let hint = "Then deploy again: the next run continues where this one stopped.";
        let mut limited = DeployError::new(Exit::Failed, format!("{what}: {why}")).hint(hint);
        (limited.kind, limited.code) = (kind, code);
        return limited;
    }
    let what = if code.is_empty() { what } else { format!("{what}: {code}: {message}") };
    let mut failed = DeployError::new(Exit::Failed, what);
    let has_code = !code.is_empty();
    (failed.kind, failed.code) = (kind, code);
    if has_code { failed } else { failed.caused_by(error) }
}

/// A missing permission, as AWS reports it; waiting does not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    action: String,
    /// A policy denies it, so allowing it in another policy does not help.
    is_forbidden: bool,
    /// Policies allow it, the permissions boundary does not.
    is_outside_boundary: bool,
}

/// Parses AWS's refusal: `… is not authorized to perform: ACTION on resource: …`.
pub fn lacking(message: &str) -> Option<Lacking> {
    let (_, rest) = message.split_once("not authorized to perform: ")?;
    let action = rest.split_whitespace().next()?.trim_end_matches([',', '.', ';']).to_owned();
    let is_action =
        action.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty());
    is_action.then(|| Lacking {
        action,
        is_forbidden: message.contains("explicit deny"),
        is_outside_boundary: message.contains("no permissions boundary allows"),
    })
}

/// Returns the error of a call that lacks a permission, with the statement that grants it.
pub fn denied(error: DeployError, lacking: &Lacking) -> DeployError {
    let Lacking { action, is_forbidden, is_outside_boundary } = lacking;
    let statements: Vec<String> = statements_with(action).iter().map(|sid| format!("`{sid}`")).collect();
    let hint = if *is_forbidden {
        format!(
            "A policy forbids {action} to these credentials: look for `Deny` in their policies, in their \
             permissions boundary and in the organization's service control policies."
        )
    } else if *is_outside_boundary {
        format!("The permissions boundary of these credentials does not allow {action}: add it there.")
    } else {
        match statements.as_slice() {
            [] => format!("These credentials lack the permission {action}: add it to their policy."),
            [one] => format!(
                "These credentials lack the permission {action}. Add the statement {one} of `bootstrap iam-policy` \
                 to their policy."
            ),
            several => format!(
                "These credentials lack the permission {action}. Add the statements {} of `bootstrap iam-policy` \
                 to their policy.",
                several.join(" and ")
            ),
        }
    };
    let mut denied = error.hint(hint);
    (denied.exit, denied.kind) = (Exit::Denied, AwsErrorKind::Denied);
    denied
}

/// Turns a not-found error into `None`.
pub fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == AwsErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::config::http::HttpResponse;
    use aws_sdk_ec2::error::{ErrorMetadata, SdkError};
    use aws_sdk_ec2::operation::run_instances::RunInstancesError;
    use aws_sdk_s3::primitives::SdkBody;

    use super::*;

    fn hint(message: &str) -> String {
        let lacking = lacking(message).expect("a refusal");
        let denied = denied(DeployError::new(Exit::Failed, message), &lacking);
        assert_eq!((denied.exit, denied.kind), (Exit::Denied, AwsErrorKind::Denied));
        denied.hint.expect("advice")
    }

    #[test]
    fn a_refusal_names_the_action_and_the_statement_that_allows_it() {
        let refused = "You are not authorized to perform this operation. User: arn:aws:iam::1:user/u is not authorized to \
            perform: ec2:CreateVpc on resource: arn:aws:ec2:r:1:vpc/* because no identity-based policy allows the \
            ec2:CreateVpc action";
        let hint = hint(refused);
        assert!(hint.contains("permission ec2:CreateVpc. Add the statement `MakeTagged`"), "{hint}");
    }

    #[test]
    fn an_action_in_two_statements_names_both() {
        let hint = hint("User: u is not authorized to perform: iam:PassRole on resource: r because x");
        assert!(hint.contains("`HandToInstances` and `HandToFunction`"), "{hint}");
    }

    #[test]
    fn a_permission_that_is_forbidden_is_not_to_be_added() {
        let hint = hint(
            "User: u is not authorized to perform: s3:GetObject on resource: r with an explicit deny in a x",
        );
        assert!(hint.contains("forbids s3:GetObject") && !hint.contains("Add the"), "{hint}");
    }

    #[test]
    fn an_action_outside_the_boundary_is_to_be_added_there() {
        let hint = hint(
            "User: u is not authorized to perform: s3:GetObject on resource: r because no permissions boundary \
             allows the s3:GetObject action",
        );
        assert!(hint.contains("permissions boundary of these credentials"), "{hint}");
    }

    #[test]
    fn other_messages_lack_no_permission() {
        for message in ["", "Access Denied", "not authorized to perform: this operation"] {
            assert_eq!(lacking(message), None, "{message}");
        }
    }

    fn refused(code: &str, message: &str) -> DeployError {
        let status = 400_u16.try_into().expect("a status");
        let metadata = ErrorMetadata::builder().code(code).message(message).build();
        let answer: std::result::Result<(), SdkError<RunInstancesError, HttpResponse>> =
            Err(SdkError::service_error(
                RunInstancesError::generic(metadata),
                HttpResponse::new(status, SdkBody::empty()),
            ));
        answer.step(|| "launch the lb in eu-west-1a".to_owned()).expect_err("it is refused")
    }

    #[test]
    fn an_account_limit_names_the_quota() {
        for (code, message, says) in [
            ("VcpuLimitExceeded", "your current vCPU limit of 5 allows", "may run 5 on-demand vCPUs"),
            ("VcpuLimitExceeded", "", "L-1216C47A"),
            ("MaxSpotInstanceCountExceeded", "", "L-34B43A08"),
            ("AddressLimitExceeded", "", "Elastic IPs"),
            ("PendingVerification", "", "at most four hours"),
        ] {
            let error = refused(code, message);
            let text = error.message();
            assert!(text.starts_with("could not launch the lb in eu-west-1a: "), "{text}");
            assert!(text.contains(says) && text.contains("deploy again"), "{text}");
            assert_eq!(error.exit, Exit::Failed);
        }
        assert_eq!(refused("InvalidParameterValue", "bad").hint, None, "no quota is to blame");
    }
}
