//! What a failed call means, and how to say it in a few words.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use fleet::aws_code::AwsErrorKind;
use process::telemetry::error_chain;

/// Returns the meaning of a failed call: of its code, or of its status if there is no code. S3 answers HEAD
/// without a body, so without a code.
pub fn kind<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> AwsErrorKind {
    let by_code = AwsErrorKind::of(error.code().unwrap_or(""), error.message().unwrap_or(""));
    match (by_code, status(error)) {
        (AwsErrorKind::Other, Some(403)) => AwsErrorKind::Denied,
        (AwsErrorKind::Other, Some(404)) => AwsErrorKind::NotFound,
        (AwsErrorKind::Other, Some(409 | 412)) => AwsErrorKind::Conflict,
        (kind, _) => kind,
    }
}

/// Returns the HTTP status, if there was an answer.
pub fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Describes a failed call in a few words: AWS's code and message, or the chain of causes.
pub fn describe<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => error_chain(error),
    }
}
