//! Reads the account's quotas and their use, for `quota.rs` to judge.

use std::time::Duration;

use aws_sdk_ec2::types::{
    AccountAttributeName, Instance, InstanceLifecycleType, InstanceStateName, InstanceType, Tag,
};
use fleet::release::{Market, Rollout};
use fleet::stack::TAG_STACK;
use tokio::time::timeout;

use super::quota::{self, Name, Room, Size};
use crate::aws::Aws;
use crate::check::{Check, Verdict};
use crate::error::{DeployError, Exit, Result, Step as _};
use crate::resources::instance;
use crate::resources::network::filter;

/// Workers of a new stack without --workers.
pub(crate) const FIRST_COUNT: u32 = 3;
/// Families that share the quota of vCPUs, by the first letter of a type's name …
const STANDARD: [char; 9] = ['a', 'c', 'd', 'h', 'i', 'm', 'r', 't', 'z'];
/// … except these, which begin with such a letter and have quotas of their own.
const NOT_STANDARD: [&str; 5] = ["dl", "hpc", "inf", "mac", "trn"];
/// An account with more instances than these has enough vCPUs for a stack.
const MOST_PAGES: usize = 20;

/// Checks each quota of vCPUs that the stack needs, and returns the kind of rollout that it allows, if that
/// is known.
pub(crate) async fn vcpus(aws: &Aws, size: &Size, patience: Duration) -> (Vec<Check>, Option<Rollout>) {
    let kind = &size.instance_type;
    let facts = async { tokio::try_join!(each(aws, kind), used_by_others(aws)) };
    let demands = size.demands();
    let limits = demands.iter().map(async |demand| timeout(patience, limit(aws, demand.quota())).await);
    let (facts, limits) = tokio::join!(timeout(patience, facts), futures::future::join_all(limits));
    let judged = demands.iter().zip(limits).map(|(demand, limit)| {
        let name = demand.check();
        let (Ok(facts), Ok(limit)) = (&facts, limit) else { return (Check::late(name, patience), None) };
        let (each, used, limit) = match (facts, limit) {
            (Ok((each, used)), Ok(limit)) => (*each, used.of(demand.market), limit),
            (Err(error), _) => return (Check::unknown(name, error), None),
            (_, Err(error)) => return (Check::unknown(name, &error), None),
        };
        let (check, rollout) = quota::vcpus(*demand, Room { limit, used }, kind, each);
        (check, Some(rollout))
    });
    let (checks, rollouts): (Vec<Check>, Vec<Option<Rollout>>) = judged.unzip();
    (checks, quota::slowest(rollouts.into_iter().flatten()))
}

pub(crate) async fn addresses(aws: &Aws, size: &Size) -> Result<Vec<Check>> {
    let described = aws.ec2.describe_addresses().send().await;
    let described = described.step(|| "count the Elastic IPs".to_owned())?;
    let used = described.addresses().iter().filter(|address| !is_ours(aws, address.tags())).count();
    let limit = match limit(aws, quota::ADDRESSES).await {
        Ok(limit) => limit,
        Err(_) => address_attribute(aws).await?,
    };
    let what = if size.balancers == 1 { "Elastic IP" } else { "Elastic IPs" };
    let check = quota::count("Elastic IP quota", what, size.balancers, room(limit, used), quota::ADDRESSES);
    Ok(vec![check])
}

pub(crate) async fn vpcs(aws: &Aws) -> Result<Vec<Check>> {
    let described = aws.ec2.describe_vpcs().send().await.step(|| "count the VPCs".to_owned())?;
    let used = described.vpcs().iter().filter(|vpc| !is_ours(aws, vpc.tags())).count();
    let limit = limit(aws, quota::VPCS).await?;
    Ok(vec![quota::count("VPC quota", "VPC", 1, room(limit, used), quota::VPCS)])
}

pub(crate) async fn concurrency(aws: &Aws) -> Result<Vec<Check>> {
    let got = aws.lambda.get_account_settings().send().await;
    let got = got.step(|| "read the limits of Lambda".to_owned())?;
    let name = "Lambda concurrency";
    let Some(limit) = got.account_limit() else {
        return Ok(vec![Check::new(name, Verdict::NotKnownHere, "Lambda did not return its limits")]);
    };
    let all = limit.concurrent_executions();
    Ok(vec![quota::concurrency(all, limit.unreserved_concurrent_executions().unwrap_or(all))])
}

fn room(limit: u32, used: usize) -> Room {
    Room { limit, used: u32::try_from(used).unwrap_or(u32::MAX) }
}

fn is_ours(aws: &Aws, tags: &[Tag]) -> bool {
    tags.iter().any(|tag| tag.key() == Some(TAG_STACK) && tag.value() == Some(aws.names.stack.as_str()))
}

async fn limit(aws: &Aws, quota: Name) -> Result<u32> {
    let Name { service, code, .. } = quota;
    let got = aws.quotas.get_service_quota().service_code(service).quota_code(code).send().await;
    let got = got.step(|| format!("read the quota {code} of {service}"))?;
    let value = got.quota().and_then(|quota| quota.value());
    // Quotas are whole numbers that AWS writes with a decimal point.
    value.and_then(|value| format!("{value:.0}").parse().ok()).ok_or_else(|| {
        DeployError::new(
            Exit::Failed,
            format!(
                "Service Quotas did not return the value of {code} of \
            {service}"
            ),
        )
    })
}

/// Returns the vCPUs of one instance of this type.
async fn each(aws: &Aws, kind: &str) -> Result<u32> {
    if !is_standard(kind) {
        let what = format!("{kind} instances have a quota of their own, which is not checked");
        return Err(DeployError::new(Exit::Failed, what));
    }
    let described = aws.ec2.describe_instance_types().instance_types(InstanceType::from(kind)).send().await;
    let described = described.step(|| format!("read how many vCPUs a {kind} has"))?;
    let each = described.instance_types().first().and_then(|kind| kind.v_cpu_info()?.default_v_cpus());
    each.and_then(|each| u32::try_from(each).ok()).filter(|each| *each > 0).ok_or_else(|| {
        DeployError::new(Exit::Failed, format!("EC2 did not return how many vCPUs a {kind} has"))
    })
}

/// vCPUs of instances that do not belong to this stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    on_demand: u32,
    spot: u32,
}

async fn used_by_others(aws: &Aws) -> Result<Used> {
    let [pending, running] = [InstanceStateName::Pending, InstanceStateName::Running];
    let mut states = filter("instance-state-name", pending.as_str());
    states.values.get_or_insert_default().push(running.as_str().to_owned());
    let mut pages = aws.ec2.describe_instances().filters(states).into_paginator().page_size(1000).send();
    let mut used = Used::default();
    for _ in 0..MOST_PAGES {
        let Some(page) = pages.next().await else { break };
        let page = page.step(|| "count the vCPUs in use".to_owned())?;
        let instances = page.reservations().iter().flat_map(|reservation| reservation.instances());
        instances.for_each(|one| used.add(one, aws.names.stack.as_str()));
    }
    Ok(used)
}

impl Used {
    const fn of(self, market: Market) -> u32 {
        match market {
            Market::OnDemand => self.on_demand,
            Market::Spot => self.spot,
        }
    }

    fn add(&mut self, one: &Instance, stack: &str) {
        let kind = one.instance_type().map_or("", |kind| kind.as_str());
        if !is_standard(kind) || instance::tag(one, TAG_STACK) == Some(stack) {
            return;
        }
        match one.instance_lifecycle() {
            Some(InstanceLifecycleType::Spot) => self.spot += vcpus_of(one),
            _ => self.on_demand += vcpus_of(one),
        }
    }
}

fn is_standard(kind: &str) -> bool {
    kind.starts_with(STANDARD) && !NOT_STANDARD.iter().any(|family| kind.starts_with(family))
}

fn vcpus_of(one: &Instance) -> u32 {
    let options = one.cpu_options();
    let cores = options.and_then(|options| options.core_count()).unwrap_or(1);
    let threads = options.and_then(|options| options.threads_per_core()).unwrap_or(2);
    u32::try_from(cores.saturating_mul(threads)).unwrap_or(0)
}

/// Reads the limit from EC2 itself, for credentials that may not read quotas.
async fn address_attribute(aws: &Aws) -> Result<u32> {
    const NAME: &str = "vpc-max-elastic-ips";
    let asked =
        aws.ec2.describe_account_attributes().attribute_names(AccountAttributeName::from(NAME)).send().await;
    let described = asked.step(|| "read how many Elastic IPs the account may have".to_owned())?;
    let all = described.account_attributes();
    let attribute = all.iter().find(|attribute| attribute.attribute_name() == Some(NAME));
    let value = attribute.and_then(|attribute| attribute.attribute_values().first()?.attribute_value());
    value.and_then(|value| value.parse().ok()).ok_or_else(|| {
        DeployError::new(Exit::Failed, "EC2 did not return how many Elastic IPs the account may have")
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::CpuOptions;

    use super::*;
    use crate::aws::stub::Stub;

    fn instance(kind: &str) -> aws_sdk_ec2::types::builders::InstanceBuilder {
        let options = CpuOptions::builder().core_count(2).threads_per_core(2).build();
        Instance::builder().instance_type(kind.into()).cpu_options(options)
    }

    #[test]
    fn only_standard_instances_of_others_count() {
        let used = |instance: aws_sdk_ec2::types::builders::InstanceBuilder| {
            let mut used = Used::default();
            used.add(&instance.build(), "a");
            (used.on_demand, used.spot)
        };
        let ours = |stack: &str| Tag::builder().key(TAG_STACK).value(stack).build();
        assert_eq!(used(instance("t3.micro")), (4, 0));
        assert_eq!(used(instance("t3.micro").tags(ours("a"))), (0, 0));
        assert_eq!(used(instance("t3.micro").tags(ours("b"))), (4, 0));
        assert_eq!(used(instance("g5.xlarge")), (0, 0));
        assert_eq!(used(instance("trn1.2xlarge")), (0, 0), "a quota of its own");
        assert_eq!(used(instance("t3.micro").instance_lifecycle(InstanceLifecycleType::Spot)), (0, 4));
    }

    #[tokio::test]
    async fn the_limit_of_addresses_is_known_without_service_quotas() {
        let attribute = "<accountAttributeSet><item><attributeName>vpc-max-elastic-ips</attributeName>\
                         <attributeValueSet><item><attributeValue>5</attributeValue></item></attributeValueSet>\
                         </item></accountAttributeSet>";
        let stub = Stub::default()
            .says("POST ", 400, r#"{"__type":"AccessDeniedException"}"#)
            .answers("DescribeAddresses", "<addressesSet/>")
            .answers("DescribeAccountAttributes", attribute);
        let instance_type = "t4g.nano".to_owned();
        let size = |balancers| Size {
            workers: 1,
            balancers,
            market: Market::OnDemand,
            instance_type: instance_type.clone(),
        };
        let aws = stub.serve().await;
        for (balancers, verdict) in [(5, Verdict::Ok), (6, Verdict::Failed)] {
            let checks = addresses(&aws, &size(balancers)).await.expect("EC2 knows it");
            assert_eq!(checks[0].verdict, verdict, "{balancers}");
        }
    }
}
