//! Classifies AWS error codes. Policy matches on the class, never on a string.

/// The class of a failed call, by the reaction to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AwsErrorKind {
    /// The resource does not exist: done, when deleting.
    NotFound,
    /// The resource exists: look and compare, when creating.
    AlreadyExists,
    /// Another writer changed it since, or the write is in progress: look again.
    Conflict,
    /// Another resource still depends on it: try again later, when deleting.
    InUse,
    /// This zone has no capacity for this type now: try another zone.
    NoCapacity,
    /// A quota of the account is used up. Another zone does not help: wait, make room, or ask AWS for
    /// more. [`crate::quota::explain`] names the quota.
    AccountLimit,
    /// AWS has not verified the account yet, or has blocked it: wait, or contact AWS.
    PendingVerification,
    /// A client token that belongs to a terminated instance: the next attempt needs a new one.
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
    /// The zone does not offer the instance type, and will not tomorrow. Only of launches.
    NotOffered,
    /// The definition cannot be launched: its image, group, subnet or a parameter is at fault. Only of
    /// launches.
    Definition,
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
            // After `RequestLimitExceeded`, which is not a quota of the account.
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

    /// Classifies an answer to RunInstances: whatever reason EC2 names, nothing was launched.
    ///
    /// Codes: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>
    pub fn of_launch(code: &str, message: &str) -> Self {
        match (Self::of(code, message), code) {
            (Self::NoCapacity, "Unsupported") if message.contains("Availability Zone") => Self::NotOffered,
            (Self::NoCapacity, "Unsupported") | (Self::NotFound, _) => Self::Definition,
            // "Not authorized for images: [ami-1]": it was deleted, or is no longer shared.
            (Self::Denied, "AuthFailure") if message.contains("images") => Self::Definition,
            (Self::PendingVerification, "OptInRequired") if message.contains("Marketplace") => {
                Self::Definition
            }
            (Self::Other, _) if is_about_parameters(code) => Self::Definition,
            // EC2 has a fault, or did not answer: it may have been launched.
            (
                Self::Other,
                "" | "InternalError" | "InternalFailure" | "ServiceUnavailable" | "Unavailable"
                | "RequestTimeout",
            ) => Self::Other,
            // EC2 refuses for an unknown reason: another definition may help.
            (Self::Other, _) => Self::Denied,
            (kind, _) => kind,
        }
    }
}

fn is_about_parameters(code: &str) -> bool {
    let begins = |prefix: &&str| code.starts_with(*prefix);
    ["Invalid", "MissingParameter", "UnknownParameter", "Unsupported", "Malformed", "VPCIdNotSpecified"]
        .iter()
        .any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_launch_blames_what_is_at_fault() {
        let zone = "Your requested instance type (t4g.nano) is not supported in your requested Availability \
                    Zone (us-east-1e).";
        for (code, message, kind) in [
            ("InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", AwsErrorKind::Definition),
            ("InvalidAMIID.Unavailable", "", AwsErrorKind::Definition),
            ("AuthFailure", "Not authorized for images: [ami-1]", AwsErrorKind::Definition),
            ("AuthFailure", "AWS was not able to validate the provided credentials", AwsErrorKind::Denied),
            ("InvalidGroup.NotFound", "", AwsErrorKind::Definition),
            ("InvalidSubnetID.NotFound", "", AwsErrorKind::Definition),
            ("InvalidParameterValue", "Invalid value 't9.nano' for InstanceType.", AwsErrorKind::Definition),
            ("InvalidParameterValue", "Invalid IAM Instance Profile name", AwsErrorKind::Propagating),
            ("InvalidParameterCombination", "", AwsErrorKind::Definition),
            ("InvalidUserData.Malformed", "", AwsErrorKind::Definition),
            ("MissingParameter", "", AwsErrorKind::Definition),
            ("Unsupported", "The requested configuration is not supported.", AwsErrorKind::Definition),
            ("Unsupported", zone, AwsErrorKind::NotOffered),
            ("OptInRequired", "to use this AWS Marketplace product you need", AwsErrorKind::Definition),
            ("OptInRequired", "You are not subscribed to this service.", AwsErrorKind::PendingVerification),
            ("UnauthorizedOperation", "", AwsErrorKind::Denied),
            ("OperationNotPermitted", "", AwsErrorKind::Denied),
            ("InsufficientInstanceCapacity", "", AwsErrorKind::NoCapacity),
            ("VcpuLimitExceeded", "", AwsErrorKind::AccountLimit),
            ("RequestLimitExceeded", "", AwsErrorKind::Throttled),
            ("IdempotentParameterMismatch", "", AwsErrorKind::TokenMismatch),
            ("InternalError", "", AwsErrorKind::Other),
            ("", "", AwsErrorKind::Other),
        ] {
            assert_eq!(AwsErrorKind::of_launch(code, message), kind, "{code}: {message}");
        }
    }

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
