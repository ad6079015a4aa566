//! What the account may have, and what EC2 offers and allows here.

use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use aws_sdk_ec2::types::{
    AccountAttributeName, IamInstanceProfileSpecification, Instance, InstanceLifecycleType,
    InstanceStateName, InstanceType, LocationType, ResourceType, Tag, TagSpecification,
};
use fleet::release::{InstanceSpec, Release};
use fleet::stack::{ROLE_WORKER, TAG_ROLE, TAG_STACK};

use super::judge::{self, Quota};
use super::{Check, Subject, Verdict};
use crate::error::{Result, Step as _};
use crate::resources::instance;
use crate::resources::network::{filter, stack_filter};

/// Codes of Service Quotas.
const VCPUS: (&str, &str) = ("ec2", "L-1216C47A");
const ADDRESSES: (&str, &str) = ("ec2", "L-0263D0A3");
const VPCS: (&str, &str) = ("vpc", "L-F678F1CE");
/// Families that share the quota of vCPUs: the first letter of a type's name.
const STANDARD: [char; 9] = ['a', 'c', 'd', 'h', 'i', 'm', 'r', 't', 'z'];
/// An account with more instances than these is not short of vCPUs for ours.
const MOST_PAGES: usize = 20;

async fn limit(subject: &Subject<'_>, (service, code): (&str, &str)) -> Result<u32> {
    let got = subject.aws.quotas.get_service_quota().service_code(service).quota_code(code).send().await;
    let got = got.step(|| format!("read the quota {code} of {service}"))?;
    let value = got.quota().and_then(|quota| quota.value()).unwrap_or_default();
    // Quotas are whole numbers that AWS writes with a point.
    Ok(format!("{value:.0}").parse().unwrap_or(0))
}

pub(super) async fn vcpus(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let kind = kind(subject);
    let described =
        subject.aws.ec2.describe_instance_types().instance_types(kind.as_str().into()).send().await;
    let described = described.step(|| format!("read how many vCPUs a {kind} has"))?;
    let each = described.instance_types().first().and_then(|kind| kind.v_cpu_info()?.default_v_cpus());
    let each = each.and_then(|each| u32::try_from(each).ok()).unwrap_or(2);
    let (limit, used) = tokio::try_join!(limit(subject, VCPUS), vcpus_of_others(subject))?;
    let needed = judge::vcpus_needed(subject.workers, each);
    let mend =
        "Ask for more in the Service Quotas console: EC2, Running On-Demand Standard instances (L-1216C47A).";
    let what = format!("vCPUs for {} workers of {kind}", subject.workers);
    Ok(vec![judge::quota("vCPU quota", Quota { limit, used, needed }, &what, mend)])
}

async fn vcpus_of_others(subject: &Subject<'_>) -> Result<u32> {
    let ec2 = &subject.aws.ec2;
    let mut pages = ec2
        .describe_instances()
        .filters(filter("instance-state-name", InstanceStateName::Running.as_str()))
        .into_paginator()
        .page_size(1000)
        .send();
    let mut used = 0;
    for _ in 0..MOST_PAGES {
        let Some(page) = pages.next().await else { break };
        let page = page.step(|| "count the vCPUs in use".to_owned())?;
        let instances = page.reservations().iter().flat_map(|reservation| reservation.instances());
        used +=
            instances.filter(|one| counts(one, subject.aws.names.stack.as_str())).map(vcpus_of).sum::<u32>();
    }
    Ok(used)
}

/// Whether it takes from the quota, and is not ours.
fn counts(one: &Instance, stack: &str) -> bool {
    let is_spot = one.instance_lifecycle() == Some(&InstanceLifecycleType::Spot);
    let kind = one.instance_type().map_or("", |kind| kind.as_str());
    !is_spot && kind.starts_with(STANDARD) && instance::tag(one, TAG_STACK) != Some(stack)
}

fn vcpus_of(one: &Instance) -> u32 {
    let options = one.cpu_options();
    let cores = options.and_then(|options| options.core_count()).unwrap_or(1);
    let threads = options.and_then(|options| options.threads_per_core()).unwrap_or(2);
    u32::try_from(cores.saturating_mul(threads)).unwrap_or(0)
}

pub(super) async fn addresses(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let described = subject.aws.ec2.describe_addresses().send().await;
    let described = described.step(|| "count the Elastic IPs".to_owned())?;
    let stack = subject.aws.names.stack.as_str();
    let is_ours =
        |tags: &[Tag]| tags.iter().any(|tag| tag.key() == Some(TAG_STACK) && tag.value() == Some(stack));
    let others = described.addresses().iter().filter(|address| !is_ours(address.tags())).count();
    let limit = match limit(subject, ADDRESSES).await {
        Ok(limit) => limit,
        Err(_) => address_attribute(subject).await?,
    };
    let quota = Quota { limit, used: u32::try_from(others).unwrap_or(u32::MAX), needed: 1 };
    let mend = "Release one that nobody needs, or ask for more in the Service Quotas console: EC2, EC2-VPC Elastic IPs (L-0263D0A3).";
    Ok(vec![judge::quota("Elastic IP quota", quota, "Elastic IP", mend)])
}

/// What EC2 says itself, for whoever may not read quotas.
async fn address_attribute(subject: &Subject<'_>) -> Result<u32> {
    let name = AccountAttributeName::from("vpc-max-elastic-ips");
    let described = subject.aws.ec2.describe_account_attributes().attribute_names(name).send().await;
    let described = described.step(|| "read how many Elastic IPs the account may have".to_owned())?;
    let attribute = described
        .account_attributes()
        .iter()
        .find(|attribute| attribute.attribute_name() == Some("vpc-max-elastic-ips"));
    let value = attribute.and_then(|attribute| attribute.attribute_values().first()?.attribute_value());
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
}

pub(super) async fn concurrency(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let got = subject.aws.lambda.get_account_settings().send().await;
    let got = got.step(|| "read the limits of Lambda".to_owned())?;
    let limit = got.account_limit();
    let all = limit.map_or(0, |limit| limit.concurrent_executions());
    let unreserved = limit.and_then(|limit| limit.unreserved_concurrent_executions()).unwrap_or(all);
    Ok(vec![judge::concurrency(all, unreserved)])
}

pub(super) async fn vpcs(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let described = subject.aws.ec2.describe_vpcs().send().await.step(|| "count the VPCs".to_owned())?;
    let stack = subject.aws.names.stack.as_str();
    let is_ours =
        |tags: &[Tag]| tags.iter().any(|tag| tag.key() == Some(TAG_STACK) && tag.value() == Some(stack));
    let others = described.vpcs().iter().filter(|vpc| !is_ours(vpc.tags())).count();
    let limit = limit(subject, VPCS).await?;
    let quota = Quota { limit, used: u32::try_from(others).unwrap_or(u32::MAX), needed: 1 };
    let mend = "Delete one that nobody needs, or ask for more in the Service Quotas console: VPC, VPCs per Region (L-F678F1CE).";
    Ok(vec![judge::quota("VPC quota", quota, "VPC", mend)])
}

pub(super) async fn instance_type(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let kind = kind(subject);
    let offered = subject
        .aws
        .ec2
        .describe_instance_type_offerings()
        .location_type(LocationType::AvailabilityZone)
        .filters(filter("instance-type", &kind))
        .send()
        .await
        .step(|| format!("look where {kind} is offered"))?;
    let offered: Vec<String> = offered
        .instance_type_offerings()
        .iter()
        .filter_map(|offering| offering.location().map(str::to_owned))
        .collect();
    Ok(vec![judge::zones_of_type(&kind, &zones(subject).await?, &offered)])
}

/// Those of the stack's subnets, or those that a deployment would choose.
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
    let host = format!("ec2.{}.api.aws", subject.aws.names.region);
    let found = tokio::net::lookup_host((host.as_str(), 443)).await;
    let is_known = found.is_ok_and(|mut addresses| addresses.next().is_some());
    Ok(vec![match is_known {
        true => Check::new(name, Verdict::Ok, host),
        false => Check::new(name, Verdict::Warning, format!("{host} has no address")).mend(
            "From a private subnet the reconciler reaches EC2 through an interface endpoint then, which costs \
             money.",
        ),
    }])
}

/// A launch that EC2 judges and does not carry out. Only where a stack is: it needs subnets.
pub(super) async fn launch(subject: &Subject<'_>) -> Result<Vec<Check>> {
    let name = "launch permission";
    let Some(Release { id, worker, .. }) = &subject.release else {
        return Ok(vec![Check::new(
            name,
            Verdict::NotKnownHere,
            "there is no network to launch into before the first deployment",
        )]);
    };
    let Some(subnet) = worker.subnets.first() else {
        return Ok(vec![
            Check::new(name, Verdict::Failed, "the release names no subnet").mend("Deploy again."),
        ]);
    };
    let InstanceSpec { ami, instance_type, security_group, instance_profile, .. } = worker;
    let mut tags: Vec<Tag> = Vec::new();
    for (key, value) in subject.aws.names.tags(ROLE_WORKER) {
        tags.push(Tag::builder().key(key).value(value).build());
    }
    tags.push(Tag::builder().key(TAG_ROLE).value(ROLE_WORKER).build());
    let tagged = |kind| TagSpecification::builder().resource_type(kind).set_tags(Some(tags.clone())).build();
    let asked = subject
        .aws
        .ec2
        .run_instances()
        .dry_run(true)
        .image_id(ami)
        .instance_type(InstanceType::from(instance_type.as_str()))
        .min_count(1)
        .max_count(1)
        .subnet_id(&subnet.id)
        .security_group_ids(security_group)
        .iam_instance_profile(IamInstanceProfileSpecification::builder().name(instance_profile).build())
        .tag_specifications(tagged(ResourceType::Instance))
        .tag_specifications(tagged(ResourceType::Volume))
        .tag_specifications(tagged(ResourceType::NetworkInterface))
        .send()
        .await;
    let Err(error) = asked else {
        return Ok(vec![Check::new(
            name,
            Verdict::NotKnownHere,
            "the endpoint did not say what a trial without effect would do",
        )]);
    };
    let (code, message) =
        (error.code().unwrap_or_default().to_owned(), error.message().unwrap_or_default().to_owned());
    Ok(vec![match code.as_str() {
        "DryRunOperation" => {
            Check::new(name, Verdict::Ok, format!("a worker of release {id} could be launched"))
        }
        "UnauthorizedOperation" | "AccessDenied" => {
            Check::new(name, Verdict::Failed, format!("these credentials may not launch a worker: {message}"))
                .mend("`bootstrap iam-policy` (make iam-policy) prints what they need.")
        }
        "" => return Err(asked_nobody(error)),
        _ => Check::new(name, Verdict::Failed, format!("EC2 would refuse a worker: {code}: {message}"))
            .mend("`make deploy` writes the release anew, with what there is now."),
    }])
}

fn asked_nobody<E>(
    error: aws_sdk_ec2::error::SdkError<E, aws_sdk_ec2::config::http::HttpResponse>,
) -> crate::error::DeployError
where
    E: aws_sdk_ec2::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let asked: std::result::Result<(), _> = Err(error);
    asked.step(|| "try a launch without effect".to_owned()).expect_err("it is one")
}

fn kind(subject: &Subject<'_>) -> String {
    let wanted = subject.options.instance_type.clone();
    let released = || subject.release.as_ref().map(|release| release.worker.instance_type.clone());
    wanted.or_else(released).unwrap_or_else(|| subject.options.arch.default_instance_type().to_owned())
}

/// Addresses of the stack that belong to no instance.
pub(super) async fn idle_addresses(subject: &Subject<'_>) -> Result<Vec<String>> {
    let described = subject.aws.ec2.describe_addresses().filters(stack_filter(subject.aws)).send().await;
    let described = described.step(|| "look for idle Elastic IPs".to_owned())?;
    let idle = described.addresses().iter().filter(|address| address.association_id().is_none());
    Ok(idle.filter_map(|address| address.public_ip().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::CpuOptions;

    use super::*;

    fn instance(kind: &str) -> aws_sdk_ec2::types::builders::InstanceBuilder {
        let options = CpuOptions::builder().core_count(2).threads_per_core(2).build();
        Instance::builder().instance_type(kind.into()).cpu_options(options)
    }

    #[test]
    fn only_standard_instances_of_others_that_are_on_demand_count() {
        let ours = Tag::builder().key(TAG_STACK).value("a").build();
        assert!(counts(&instance("t3.micro").build(), "a"));
        assert!(!counts(&instance("t3.micro").tags(ours.clone()).build(), "a"));
        assert!(counts(&instance("t3.micro").tags(ours).build(), "b"));
        assert!(!counts(&instance("g5.xlarge").build(), "a"));
        assert!(!counts(&instance("t3.micro").instance_lifecycle(InstanceLifecycleType::Spot).build(), "a"));
        assert_eq!(vcpus_of(&instance("c7g.xlarge").build()), 4);
    }
}
