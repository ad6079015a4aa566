//! EC2's refusals because of the account, and its answers about the account's limits.

use std::time::Instant;

use axum::body::Body;
use axum::http::Response;

use super::Ec2;
use super::call::{Call, bad_request};
use crate::account::{Market, Refusal, Running, not_offered};
use crate::cpu::Credits;
use crate::quotas::Quota;
use crate::reply::xml;
use crate::xml::Element;

/// RunInstances' own default.
const DEFAULT_TYPE: &str = "m1.small";

/// In the order of AWS's rules, as far as it is known: the account, the type, the quota. A dry run is not
/// refused here: it only says whether the caller has the permission.
impl Ec2 {
    /// Returns the refusal of a launch. The launches' lock is held, so that two at once cannot both have the
    /// last vCPU.
    pub(super) async fn refuse_launch(
        &self,
        call: &Call,
        zone: &str,
    ) -> anyhow::Result<Option<Response<Body>>> {
        if let Err(refusal) = self.account.may_launch(Instant::now()) {
            return Ok(Some(refused(&refusal)));
        }
        let wanted = wanted(call);
        if let Some(refusal) = self.zone_lacks(call, zone, &wanted.instance_type).await? {
            return Ok(Some(refused(&refusal)));
        }
        if let Err(refusal) = credits(call) {
            return Ok(Some(*refusal));
        }
        let running = self.running(call).await?;
        Ok(self.account.has_room(&wanted, &running).err().map(|refusal| refused(&refusal)))
    }

    /// Returns everything that uses vCPUs in the region of the call.
    async fn running(&self, call: &Call) -> anyhow::Result<Vec<Running>> {
        let alive = [
            ("Action", "DescribeInstances"),
            ("MaxResults", "1000"),
            ("Filter.1.Name", "instance-state-name"),
            ("Filter.1.Value.1", "pending"),
            ("Filter.1.Value.2", "running"),
        ];
        let tree = self.read(&call.parts, &alive).await?;
        let instances = tree.all("instancesSet").into_iter().flat_map(|set| set.children.iter());
        let running = instances.map(|instance| Running {
            instance_type: instance.text_of("instanceType").unwrap_or(DEFAULT_TYPE).to_owned(),
            market: market(instance.text_of("instanceLifecycle")),
        });
        Ok(running.collect())
    }

    async fn zone_lacks(
        &self,
        call: &Call,
        zone: &str,
        instance_type: &str,
    ) -> anyhow::Result<Option<Refusal>> {
        if self.account.offers(zone, instance_type) {
            return Ok(None);
        }
        let form = [
            ("Action", "DescribeInstanceTypeOfferings"),
            ("LocationType", "availability-zone"),
            ("Filter.1.Name", "instance-type"),
            ("Filter.1.Value.1", instance_type),
        ];
        let tree = self.read(&call.parts, &form).await?;
        let zones =
            tree.items("instanceTypeOfferingSet").into_iter().filter_map(|item| item.text_of("location"));
        let mut others: Vec<String> =
            zones.filter(|zone| self.account.offers(zone, instance_type)).map(str::to_owned).collect();
        others.sort_unstable();
        Ok(Some(not_offered(instance_type, zone, &others)))
    }

    /// Returns the emulator's offerings, without types that a zone does not offer here.
    pub(super) async fn describe_offerings(&self, call: &Call) -> anyhow::Result<Response<Body>> {
        let reply = self.to_moto(call).await?;
        if !reply.ok {
            return Ok(reply.into_response());
        }
        let mut tree = Element::parse(&reply.body)?;
        if let Some(set) = tree.find_mut("instanceTypeOfferingSet") {
            set.children.retain(|item| {
                let [zone, name] =
                    ["location", "instanceType"].map(|field| item.text_of(field).unwrap_or(""));
                self.account.offers(zone, name)
            });
        }
        Ok(xml(tree.write_ec2()))
    }

    /// One of the attributes is a quota.
    pub(super) async fn describe_account_attributes(&self, call: &Call) -> anyhow::Result<Response<Body>> {
        let reply = self.to_moto(call).await?;
        if !reply.ok {
            return Ok(reply.into_response());
        }
        let mut tree = Element::parse(&reply.body)?;
        let set = tree.find_mut("accountAttributeSet").map(|set| set.children.iter_mut());
        for attribute in set.into_iter().flatten() {
            if attribute.text_of("attributeName") == Some("vpc-max-elastic-ips")
                && let Some(value) = attribute.find_mut("attributeValue")
            {
                value.text = self.account.quota(Quota::Addresses).to_string();
            }
        }
        Ok(xml(tree.write_ec2()))
    }

    /// Returns whether the region of the call has room for one more of the things that this action lists.
    pub(super) async fn has_room_for(
        &self,
        call: &Call,
        quota: Quota,
        list: &str,
        set: &str,
    ) -> anyhow::Result<bool> {
        let there_are = self.read(&call.parts, &[("Action", list)]).await?.items(set).len();
        Ok(u32::try_from(there_are).is_ok_and(|count| count < self.account.quota(quota)))
    }
}

fn wanted(call: &Call) -> Running {
    Running {
        instance_type: call.get("InstanceType").unwrap_or(DEFAULT_TYPE).to_owned(),
        market: market(call.get("InstanceMarketOptions.MarketType")),
    }
}

fn market(name: Option<&str>) -> Market {
    if name == Some("spot") { Market::Spot } else { Market::OnDemand }
}

/// Returns the credit option of a launch: the requested one, or the default of its type.
pub(super) fn credits(call: &Call) -> Result<Option<Credits>, Box<Response<Body>>> {
    let instance_type = call.get("InstanceType").unwrap_or(DEFAULT_TYPE);
    let default = Credits::default_of(instance_type);
    let Some(asked) = call.get("CreditSpecification.CpuCredits") else { return Ok(default) };
    if default.is_none() {
        let message = format!("The {instance_type} instance type does not support T2 Unlimited.");
        return Err(Box::new(bad_request("InstanceCreditSpecification.NotSupported", &message)));
    }
    match Credits::parse(asked) {
        Some(credits) => Ok(Some(credits)),
        None => {
            let message =
                format!("Invalid value '{asked}' for CpuCredits. Valid values: standard, unlimited.");
            Err(Box::new(bad_request("InvalidParameterValue", &message)))
        }
    }
}

pub(super) fn refused(refusal: &Refusal) -> Response<Body> {
    bad_request(refusal.code, &refusal.message)
}
