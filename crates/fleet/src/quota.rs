//! Says in plain English which quota of the account an EC2 error is about, and where to raise it.
//!
//! The codes and names are those of the Service Quotas console, where people look for them.

use crate::aws_code::AwsErrorKind;

/// The quota of on-demand vCPUs that all of Vigia's instance types belong to.
pub const ON_DEMAND_VCPUS: &str = "L-1216C47A";
/// The quota of spot vCPUs.
pub const SPOT_VCPUS: &str = "L-34B43A08";
/// Elastic IPs in a region.
pub const ELASTIC_IPS: &str = "L-0263D0A3";
/// VPCs in a region.
pub const VPCS: &str = "L-F678F1CE";

/// Returns whole sentences: the quota that is used up, and what to do. Returns `None` for an error with
/// another cause than the account.
pub fn explain(code: &str, message: &str) -> Option<String> {
    match AwsErrorKind::of(code, message) {
        AwsErrorKind::AccountLimit => Some(limit(code, message)),
        AwsErrorKind::PendingVerification => Some(verification(code)),
        _ => None,
    }
}

fn limit(code: &str, message: &str) -> String {
    let ask = "Ask for more: Service Quotas console,";
    match code {
        "VcpuLimitExceeded" => {
            let number = vcpus(message).map_or_else(|| "no more".to_owned(), |number| number.to_string());
            format!(
                "the account may run {number} on-demand vCPUs ({code}). {ask} EC2, Running On-Demand Standard \
                 instances, {ON_DEMAND_VCPUS}."
            )
        }
        "MaxSpotInstanceCountExceeded" => format!(
            "the account may run no more spot vCPUs ({code}). {ask} EC2, All Standard Spot Instance Requests, \
             {SPOT_VCPUS}."
        ),
        "AddressLimitExceeded" => format!(
            "the account may have no more Elastic IPs ({code}). Release an unused one, or ask for more: \
                Service Quotas console, EC2, EC2-VPC Elastic IPs, {ELASTIC_IPS}."
        ),
        "VpcLimitExceeded" => format!(
            "the account may have no more VPCs ({code}). Delete an unused one, or ask for more: Service \
                Quotas console, VPC, VPCs per Region, {VPCS}."
        ),
        _ => format!("the account has reached a quota ({code}: {message}). {ask} EC2."),
    }
}

fn verification(code: &str) -> String {
    match code {
        "Blocked" => format!("AWS has blocked the account ({code}). Contact AWS Support."),
        "OptInRequired" => format!(
            "AWS has not activated the account for EC2 ({code}). A new account is activated within a day; if it \
             is not, check the payment method in the Billing console."
        ),
        _ => format!(
            "AWS is verifying the account ({code}). Wait: it usually takes minutes, and at most four hours."
        ),
    }
}

/// Parses the number in EC2's words, which are "... than your current vCPU limit of 5 allows for ...".
fn vcpus(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("vCPU limit of ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_limit_names_number_and_quota() {
        let message = "You have requested more vCPU capacity than your current vCPU limit of 5 allows for the \
                       instance bucket that the specified instance type belongs to.";
        assert_eq!(
            explain("VcpuLimitExceeded", message).expect("a quota"),
            "the account may run 5 on-demand vCPUs (VcpuLimitExceeded). Ask for more: Service Quotas console, \
             EC2, Running On-Demand Standard instances, L-1216C47A."
        );
        let without = explain("VcpuLimitExceeded", "").expect("a quota");
        assert!(without.starts_with("the account may run no more on-demand vCPUs"), "{without}");
    }

    #[test]
    fn each_quota_names_its_code() {
        for (code, quota) in [
            ("MaxSpotInstanceCountExceeded", SPOT_VCPUS),
            ("AddressLimitExceeded", ELASTIC_IPS),
            ("VpcLimitExceeded", VPCS),
            ("VolumeLimitExceeded", "VolumeLimitExceeded"),
        ] {
            let text = explain(code, "m").expect(code);
            assert!(text.contains(quota) && text.contains("Service Quotas console"), "{text}");
        }
    }

    #[test]
    fn an_unverified_account_has_to_wait() {
        let text = explain("PendingVerification", "").expect("of the account");
        assert!(text.contains("at most four hours"), "{text}");
        let text = explain("Blocked", "").expect("of the account");
        assert!(text.contains("Contact AWS Support"), "{text}");
    }

    #[test]
    fn other_errors_are_no_quota() {
        for code in ["InsufficientInstanceCapacity", "RequestLimitExceeded", "UnauthorizedOperation", ""] {
            assert_eq!(explain(code, ""), None, "{code}");
        }
    }
}
