//! Reads and changes the emulator's IPv6 for other modules.

use std::collections::BTreeSet;

use anyhow::Context as _;
use axum::http::request::Parts;

use super::Ec2;
use super::call::{in_region, owned, region_of};
use crate::xml::Element;

impl Ec2 {
    /// Removes the rule that allows all IPv6 out from the group in this answer.
    pub(crate) async fn revoke_ipv6_egress(&self, parts: &Parts, answer: &[u8]) -> anyhow::Result<()> {
        let answer = Element::parse(answer)?;
        let group = answer.text_of("groupId").context("a security group without an id")?;
        let revoke = [
            ("Action", "RevokeSecurityGroupEgress"),
            ("GroupId", group),
            ("IpPermissions.1.IpProtocol", "-1"),
            ("IpPermissions.1.Ipv6Ranges.1.CidrIpv6", "::/0"),
        ];
        self.read(parts, &revoke).await.map(drop)
    }

    /// Returns the subnets that exist and have no IPv6 block, in the region of a call to any service.
    pub(crate) async fn without_ipv6(
        &self,
        parts: &Parts,
        subnets: &[String],
    ) -> anyhow::Result<Vec<String>> {
        let mut form = owned(&[("Action", "DescribeSubnets"), ("Filter.1.Name", "subnet-id")]);
        let numbered = (1..).zip(subnets);
        form.extend(numbered.map(|(number, subnet)| (format!("Filter.1.Value.{number}"), subnet.clone())));
        let form: Vec<(&str, &str)> =
            form.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let described = self.read(&in_region(region_of(parts))?, &form).await?;
        let without = described.items("subnetSet").into_iter().filter(|subnet| {
            let blocks: BTreeSet<&str> =
                subnet.all("ipv6CidrBlock").iter().map(|it| it.text.as_str()).collect();
            blocks.is_empty()
        });
        Ok(without.filter_map(|subnet| subnet.text_of("subnetId")).map(str::to_owned).collect())
    }
}
