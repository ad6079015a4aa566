//! What a failed call means, and how to say it in a few words.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use fleet::aws_code::AwsErrorKind;
use process::telemetry::error_chain;

/// Returns the meaning of a failed call: of its code, or else of its status. S3 answers HEAD without a body, so
/// without a code.
pub fn kind<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> AwsErrorKind {
    let by_code = AwsErrorKind::of(error.code().unwrap_or(""), error.message().unwrap_or(""));
    match (by_code, status(error)) {
        (AwsErrorKind::Other, Some(403)) => AwsErrorKind::Denied,
        (AwsErrorKind::Other, Some(404)) => AwsErrorKind::NotFound,
        (AwsErrorKind::Other, Some(412)) => AwsErrorKind::Conflict,
        // With a code, 409 may be final: `BucketAlreadyExists` says that the name has another owner.
        (AwsErrorKind::Other, Some(409)) if error.code().is_none() => AwsErrorKind::Conflict,
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

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_sdk_s3::primitives::SdkBody;
    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;

    fn answer(status: u16, code: Option<&str>) -> SdkError<ErrorMetadata, HttpResponse> {
        let mut metadata = ErrorMetadata::builder();
        if let Some(code) = code {
            metadata = metadata.code(code);
        }
        let status = StatusCode::try_from(status).expect("a status");
        SdkError::service_error(metadata.build(), HttpResponse::new(status, SdkBody::empty()))
    }

    #[test]
    fn a_failed_call_means_its_code_or_its_status() {
        for (status, code, meaning) in [
            (403, None, AwsErrorKind::Denied),
            (404, None, AwsErrorKind::NotFound),
            (409, None, AwsErrorKind::Conflict),
            (412, None, AwsErrorKind::Conflict),
            (500, None, AwsErrorKind::Other),
            (409, Some("OperationAborted"), AwsErrorKind::Conflict),
            (409, Some("ConditionalRequestConflict"), AwsErrorKind::Conflict),
            (409, Some("BucketNotEmpty"), AwsErrorKind::InUse),
            (409, Some("BucketAlreadyExists"), AwsErrorKind::Other),
            (403, Some("SlowDown"), AwsErrorKind::Throttled),
            (404, Some("SomethingNew"), AwsErrorKind::NotFound),
        ] {
            assert_eq!(kind(&answer(status, code)), meaning, "{status} {code:?}");
        }
    }
}
