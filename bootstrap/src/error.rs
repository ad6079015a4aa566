//! What went wrong, why, and what to do; and the exit code that says it to a script.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use fleet::aws_code::AwsErrorKind;
use fleet::telemetry::error_chain;

/// Exit codes, documented in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Wrong arguments.
    Usage = 2,
    /// Not an error: a deployment would change something, and `plan` was asked to say so.
    Changes = 3,
    /// Credentials are missing, wrong, or lack a permission.
    Denied = 4,
    /// AWS did all it was asked, but the service is not healthy in time.
    NotHealthy = 5,
    /// The AWS endpoint does not answer.
    Unreachable = 7,
    /// Something on this machine is missing or in the way.
    Prerequisite = 8,
    /// Ctrl-C. As shells count: 128 and the signal's number.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct DeployError {
    pub exit: Exit,
    pub what: String,
    pub mend: Option<String>,
    /// Meaning of the AWS error code, for those who act on it.
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
            mend: None,
            kind: AwsErrorKind::Other,
            code: String::new(),
            source: None,
        }
    }

    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The whole message: what, why, how to mend it.
    pub fn message(&self) -> String {
        let mut text = error_chain(self);
        if let Some(mend) = &self.mend {
            text.push_str(&format!("\n  {mend}"));
        }
        text
    }
}

pub type Result<T> = std::result::Result<T, DeployError>;

/// Names the step that a failed AWS call belonged to.
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
    let mut kind = AwsErrorKind::of(&code, &message);
    if kind == AwsErrorKind::Other {
        // S3 answers HEAD without a body, so without a code.
        kind = match error.raw_response().map(|response| response.status().as_u16()) {
            Some(404) => AwsErrorKind::NotFound,
            Some(403) => AwsErrorKind::Denied,
            Some(412) => AwsErrorKind::Conflict,
            _ => AwsErrorKind::Other,
        };
    }
    let no_reply = matches!(error, SdkError::DispatchFailure(_) | SdkError::TimeoutError(_));
    let chain = aws_sdk_s3::error::DisplayErrorContext(&error).to_string();
    let no_credentials = no_reply && (chain.contains("credential") || chain.contains("Credential"));
    let what = format!("could not {step}");
    if no_credentials {
        return DeployError::new(Exit::Denied, format!("{what}: no AWS credentials were found")).mend(
            "Run `aws configure` or `aws login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. If a session \
             has expired, sign in again.",
        );
    }
    if no_reply {
        return DeployError::new(Exit::Unreachable, format!("{what}: the AWS endpoint does not answer"))
            .mend(
                "Check the network and the region; for the local cloud (ENDPOINT=…), `make local` starts it.",
            )
            .caused_by(error);
    }
    if kind == AwsErrorKind::Denied && message.contains("iam:PassRole") {
        return pass_role_denied(DeployError::new(Exit::Denied, format!("{what}: {code}: {message}")));
    }
    if kind == AwsErrorKind::Denied {
        let mend = match code.as_str() {
            "InvalidClientTokenId" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthFailure" => {
                "The access key or its secret is wrong: check `aws configure list` and the variables \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            }
            "ExpiredToken" | "ExpiredTokenException" => "The session has expired: sign in again.",
            _ => "These credentials lack the permission for this call; the message above names it.",
        };
        let mut denied = DeployError::new(Exit::Denied, format!("{what}: {code}: {message}")).mend(mend);
        (denied.kind, denied.code) = (kind, code);
        return denied;
    }
    if let Some(why) = fleet::quota::explain(&code, &message) {
        let mend = "Then deploy again: it goes on where this run stopped.";
        let mut limited = DeployError::new(Exit::Failed, format!("{what}: {why}")).mend(mend);
        (limited.kind, limited.code) = (kind, code);
        return limited;
    }
    let what = if code.is_empty() { what } else { format!("{what}: {code}: {message}") };
    let mut failed = DeployError::new(Exit::Failed, what);
    let has_code = !code.is_empty();
    (failed.kind, failed.code) = (kind, code);
    if has_code { failed } else { failed.caused_by(error) }
}

/// A permission that waiting does not bring.
pub fn pass_role_denied(error: DeployError) -> DeployError {
    let mut denied = error.mend(
        "These credentials may not hand the stack's roles over. Add the statements `HandToInstances` and \
         `HandToFunction` of `bootstrap iam-policy` to their policy.",
    );
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
        assert_eq!(refused("InvalidParameterValue", "bad").mend, None, "no quota is to blame");
    }
}
