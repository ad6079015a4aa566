//! Facts that permissions depend on beyond the call itself: an instance's interface, the two ends of an
//! association, the existence of a resource. Read from moto, past every fault.

use anyhow::Context as _;
use axum::http::request::Parts;

use super::Ec2;
use super::call::Call;

/// How a resource is described by its id: the beginning of the id, the call, its parameter.
const BY_ID: [(&str, &str, &str); 12] = [
    ("eigw-", "DescribeEgressOnlyInternetGateways", "EgressOnlyInternetGatewayId.1"),
    ("eipalloc-", "DescribeAddresses", "AllocationId.1"),
    ("eni-", "DescribeNetworkInterfaces", "NetworkInterfaceId.1"),
    ("i-", "DescribeInstances", "InstanceId.1"),
    ("igw-", "DescribeInternetGateways", "InternetGatewayId.1"),
    ("rtb-", "DescribeRouteTables", "RouteTableId.1"),
    ("sg-", "DescribeSecurityGroups", "GroupId.1"),
    ("sgr-", "DescribeSecurityGroupRules", "SecurityGroupRuleId.1"),
    ("subnet-", "DescribeSubnets", "SubnetId.1"),
    ("vol-", "DescribeVolumes", "VolumeId.1"),
    ("vpce-", "DescribeVpcEndpoints", "VpcEndpointId.1"),
    ("vpc-", "DescribeVpcs", "VpcId.1"),
];

impl Ec2 {
    /// Returns whether there is a resource with this id. If it cannot be looked up, it counts as existing.
    pub(crate) async fn exists(&self, parts: &Parts, id: &str) -> bool {
        let Some((_, action, parameter)) = BY_ID.iter().find(|(prefix, ..)| id.starts_with(prefix)) else {
            return true;
        };
        match self.ask(parts, &[("Action", action), (parameter, id)]).await {
            Ok(reply) => reply.ok && String::from_utf8_lossy(&reply.body).contains(id),
            Err(_) => true,
        }
    }

    /// Sets the launch's tags on the interface of a new instance; moto omits them.
    pub(super) async fn tag_interface(&self, call: &Call, instance: &str) -> anyhow::Result<()> {
        let is_for_interfaces = |number: &u32| {
            call.get(&format!("TagSpecification.{number}.ResourceType")) == Some("network-interface")
        };
        let is_there = |number: &u32| call.get(&format!("TagSpecification.{number}.ResourceType")).is_some();
        let Some(number) = (1..).take_while(is_there).find(is_for_interfaces) else { return Ok(()) };
        let interface = self.interface_of(&call.parts, instance).await;
        let interface = interface.with_context(|| format!("moto has no interface of {instance}"))?;
        let mut form = super::owned(&[("Action", "CreateTags"), ("ResourceId.1", &interface)]);
        let prefix = format!("TagSpecification.{number}.Tag.");
        form.extend(
            call.form.iter().filter_map(|(key, value)| {
                Some((format!("Tag.{}", key.strip_prefix(&prefix)?), value.clone()))
            }),
        );
        form.push(("Version".to_owned(), "2016-11-15".to_owned()));
        let reply = self.send(self.moto, &call.parts, "ec2", &form).await?;
        anyhow::ensure!(reply.ok, "moto does not tag {interface}");
        Ok(())
    }

    /// Returns the network interface of an instance.
    pub(crate) async fn interface_of(&self, parts: &Parts, instance: &str) -> Option<String> {
        let form = [
            ("Action", "DescribeNetworkInterfaces"),
            ("Filter.1.Name", "attachment.instance-id"),
            ("Filter.1.Value.1", instance),
        ];
        let interfaces = self.read(parts, &form).await.ok()?;
        Some(interfaces.items("networkInterfaceSet").first()?.text_of("networkInterfaceId")?.to_owned())
    }

    /// Returns the two ends of an address's association: the address, and the instance if there is one.
    pub(crate) async fn association(&self, parts: &Parts, id: &str) -> Option<(String, Option<String>)> {
        // moto has no filter for it.
        let addresses = self.read(parts, &[("Action", "DescribeAddresses")]).await.ok()?;
        let addresses = addresses.items("addressesSet");
        let address = addresses.iter().find(|address| address.text_of("associationId") == Some(id))?;
        let instance = address.text_of("instanceId").map(str::to_owned);
        Some((address.text_of("allocationId")?.to_owned(), instance))
    }
}
