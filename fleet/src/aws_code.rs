//! What an AWS error code means to us. Policy matches on the meaning, never on a string.

/// What to do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AwsErrorKind {
    /// The thing is not there: done, when deleting.
    NotFound,
    /// The thing is there: look and compare, when creating.
    AlreadyExists,
    /// Somebody changed it meanwhile, or the write is in progress: look again.
    Conflict,
    /// Something still depends on it: try again later, when deleting.
    InUse,
    /// No capacity in this zone for this type now: try another.
    NoCapacity,
    /// A quota of the account is used up. Another zone does not help: wait, make room, or ask AWS for
    /// more. [`crate::quota::explain`] names the quota.
    AccountLimit,
    /// AWS has not verified the account yet, or has blocked it: wait, or ask AWS.
    PendingVerification,
    /// A client token that belongs to an instance that is gone: the next attempt needs a new one.
    TokenSpent,
    /// A client token that was used with other parameters.
    TokenMismatch,
    /// Credentials are missing, wrong or not allowed to do this.
    Denied,
    /// Too many requests: wait.
    Throttled,
    /// A new role or profile that is not known everywhere yet: wait.
    Propagating,
    /// The instance type has no CPU credits: done, when capping them.
    NotSupported,
    Other,
}

impl AwsErrorKind {
    pub fn of(code: &str, message: &str) -> Self {
        match code {
            "NoSuchEntity"
            | "NoSuchBucket"
            | "NoSuchKey"
            | "NotFound"
            | "404"
            | "ResourceNotFoundException"
            | "NoSuchUpload"
            | "InvalidAllocationID.NotFound"
            | "InvalidAssociationID.NotFound"
            | "InvalidAddress.NotFound"
            | "Gateway.NotAttached" => Self::NotFound,
            _ if code.ends_with(".NotFound") || code.ends_with("NotFoundException") => Self::NotFound,
            "InsufficientInstanceCapacity"
            | "UnfulfillableCapacity"
            | "InsufficientFreeAddressesInSubnet"
            | "SpotMaxPriceTooLow"
            | "Unsupported" => Self::NoCapacity,
            "PendingVerification" | "Blocked" | "OptInRequired" => Self::PendingVerification,
            "InstanceCreditSpecification.NotSupported" => Self::NotSupported,
            "IdempotentInstanceTerminated" => Self::TokenSpent,
            "IdempotentParameterMismatch" => Self::TokenMismatch,
            "EntityAlreadyExists"
            | "BucketAlreadyOwnedByYou"
            | "ResourceAlreadyExistsException"
            | "InvalidGroup.Duplicate"
            | "InvalidSubnet.Conflict"
            | "InvalidPermission.Duplicate"
            | "Resource.AlreadyAssociated"
            | "RouteAlreadyExists" => Self::AlreadyExists,
            "PreconditionFailed"
            | "ConditionalRequestConflict"
            | "412"
            | "OperationAborted"
            | "ResourceConflictException"
            | "ConcurrentModification"
            | "ConcurrentModificationException" => Self::Conflict,
            "DependencyViolation" | "DeleteConflict" | "InvalidIPAddress.InUse" | "BucketNotEmpty" => {
                Self::InUse
            }
            "UnauthorizedOperation"
            | "AccessDenied"
            | "AccessDeniedException"
            | "AuthFailure"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "UnrecognizedClientException"
            | "403"
            | "Forbidden" => Self::Denied,
            "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequestsException"
            | "SlowDown"
            | "503" => Self::Throttled,
            // After `RequestLimitExceeded`, which is no quota of the account.
            "MaxSpotInstanceCountExceeded" => Self::AccountLimit,
            _ if code.ends_with("LimitExceeded") => Self::AccountLimit,
            "InvalidParameterValue" | "InvalidParameterValueException"
                if message.contains("IAM Instance Profile")
                    || message.contains("cannot be assumed")
                    || message.contains("does not have permissions to call CreateNetworkInterface")
                    || message.contains("KMS key is invalid") =>
            {
                Self::Propagating
            }
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_meaning_we_act_on() {
        for (code, message, kind) in [
            ("InvalidInstanceID.NotFound", "", AwsErrorKind::NotFound),
            ("InvalidGroup.Duplicate", "", AwsErrorKind::AlreadyExists),
            ("DependencyViolation", "", AwsErrorKind::InUse),
            ("InvalidParameterValue", "Invalid IAM Instance Profile name", AwsErrorKind::Propagating),
            ("InvalidParameterValue", "bad subnet", AwsErrorKind::Other),
            ("IdempotentInstanceTerminated", "", AwsErrorKind::TokenSpent),
            ("PreconditionFailed", "", AwsErrorKind::Conflict),
            ("InsufficientInstanceCapacity", "", AwsErrorKind::NoCapacity),
            ("SpotMaxPriceTooLow", "", AwsErrorKind::NoCapacity),
            ("InstanceCreditSpecification.NotSupported", "", AwsErrorKind::NotSupported),
            ("VcpuLimitExceeded", "", AwsErrorKind::AccountLimit),
            ("MaxSpotInstanceCountExceeded", "", AwsErrorKind::AccountLimit),
            ("InstanceLimitExceeded", "", AwsErrorKind::AccountLimit),
            ("VolumeLimitExceeded", "", AwsErrorKind::AccountLimit),
            ("AddressLimitExceeded", "", AwsErrorKind::AccountLimit),
            ("VpcLimitExceeded", "", AwsErrorKind::AccountLimit),
            ("RequestLimitExceeded", "", AwsErrorKind::Throttled),
            ("PendingVerification", "", AwsErrorKind::PendingVerification),
            ("Blocked", "", AwsErrorKind::PendingVerification),
            ("OptInRequired", "", AwsErrorKind::PendingVerification),
        ] {
            assert_eq!(AwsErrorKind::of(code, message), kind, "{code}");
        }
    }
}
