//! Checks which instance types and endpoints EC2 offers in the region.

use aws_sdk_ec2::types::LocationType;

use super::{Subject, judge};
use crate::blueprint::Ec2Api;
use crate::check::{Check, Verdict};
use crate::error::{Result, Step as _};
use crate::resources::network::{filter, stack_filter};

pub(super) async fn instance_type(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let kind = &subject.size.instance_type;
    let offered = subject
        .aws
        .ec2
        .describe_instance_type_offerings()
        .location_type(LocationType::AvailabilityZone)
        .filters(filter("instance-type", kind))
        .send()
        .await
        .step(|| format!("look where {kind} is offered"))?;
    let offered: Vec<String> = offered
        .instance_type_offerings()
        .iter()
        .filter_map(|offering| offering.location().map(str::to_owned))
        .collect();
    Ok(vec![judge::zones_of_type(kind, &zones(subject).await?, &offered)])
}

/// Returns the zones of the stack's subnets, or else the zones that a deployment would choose.
async fn zones(subject: &Subject<'_>) -> Result<Vec<String>> {
    if let Some(release) = &subject.release {
        return Ok(release.worker.subnets.iter().map(|subnet| subnet.zone.clone()).collect());
    }
    crate::resources::network::zones(subject.aws).await
}

pub(super) async fn dual_stack(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let name = "EC2 over IPv6";
    if subject.aws.endpoint_url.is_some() {
        return Ok(vec![Check::new(
            name,
            Verdict::NotKnownHere,
            "the reconciler uses this endpoint instead",
        )]);
    }
    let host = subject.aws.names.ec2_dual_stack_host();
    Ok(vec![match crate::ec2_api::of_region(&subject.aws.names).await? {
        Ec2Api::DualStack => Check::new(name, Verdict::Ok, host),
        Ec2Api::Endpoint => Check::new(name, Verdict::Warning, format!("{host} has no IPv6 address")).hint(
            "Instead, the reconciler reaches EC2 from a private subnet through an interface endpoint, which \
                costs money.",
        ),
    }])
}

/// Checks for addresses of the stack that belong to no instance.
pub(super) async fn idle_addresses(subject: &Subject<'_>) -> Result<Vec<String>> {
    let described = subject.aws.ec2.describe_addresses().filters(stack_filter(subject.aws)).send().await;
    let described = described.step(|| "look for idle Elastic IPs".to_owned())?;
    let idle = described.addresses().iter().filter(|address| address.association_id().is_none());
    Ok(idle.filter_map(|address| address.public_ip().map(str::to_owned)).collect())
}
