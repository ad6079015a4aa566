//! Elastic IPs: the calls that change where a public address leads, and the forwards that follow them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::Response;
use axum::http::request::Parts;

use super::call::Call;
use super::{Ec2, limits};
use crate::account::Refusal;
use crate::elastic_ip::{self, Target, Wanted};
use crate::quotas::Quota;
use crate::xml::Element;

impl Ec2 {
    pub(super) async fn allocate_address(&self, mut call: Call) -> anyhow::Result<Response<Body>> {
        // Two calls at once must not get the same address.
        let _one_at_a_time = self.elastic.lock().await;
        if !self.has_room_for(&call, Quota::Addresses, "DescribeAddresses", "addressesSet").await? {
            return Ok(limits::refused(&Refusal::addresses()));
        }
        let mut used: Vec<Ipv4Addr> = Vec::new();
        for parts in self.every_region()? {
            let described = self.read(&parts, &[("Action", "DescribeAddresses")]).await?;
            used.extend(
                described.all("publicIp").iter().filter_map(|element| element.text.parse::<Ipv4Addr>().ok()),
            );
        }
        let Some(address) = elastic_ip::next_free(&self.pool, &used) else {
            return Ok(limits::refused(&Refusal::addresses()));
        };
        call.form.push(("Address".to_owned(), address.to_string()));
        Ok(self.to_moto(&call).await?.into_response())
    }

    /// Associates an address. If the port cannot be bound, the call is refused and the address is not
    /// associated either, so that the next try does not find it done.
    pub(super) async fn associate_address(&self, call: Call) -> anyhow::Result<Response<Body>> {
        let _one_at_a_time = self.revocable.lock().await;
        let reply = self.to_moto(&call).await?;
        if reply.ok
            && let Err(error) = self.forward_traffic().await
        {
            let association = Element::parse(&reply.body)?.text_of("associationId").unwrap_or("").to_owned();
            self.ask(&call.parts, &[("Action", "DisassociateAddress"), ("AssociationId", &association)])
                .await?;
            self.forward_traffic_or_warn().await;
            return Err(error);
        }
        Ok(reply.into_response())
    }

    /// Refused if an address already in use would have to forward a port that is taken. Earlier faults do not
    /// concern this call.
    pub(super) async fn authorize_ingress(&self, mut call: Call) -> anyhow::Result<Response<Body>> {
        let _one_at_a_time = self.revocable.lock().await;
        let was_fine = self.forward_traffic().await.is_ok();
        let reply = self.to_moto(&call).await?;
        if reply.ok
            && let Err(error) = self.forward_traffic().await
            && was_fine
        {
            call.take("Action");
            call.form.push(("Action".to_owned(), "RevokeSecurityGroupIngress".to_owned()));
            self.to_moto(&call).await?;
            self.forward_traffic_or_warn().await;
            return Err(error);
        }
        Ok(reply.into_response())
    }

    pub(super) async fn then_forward_traffic(&self, call: Call) -> anyhow::Result<Response<Body>> {
        let reply = self.to_moto(&call).await?;
        if reply.ok {
            self.forward_traffic_or_warn().await;
        }
        Ok(reply.into_response())
    }

    /// Updates the forwards for calls that succeed whatever the outcome.
    pub(super) async fn forward_traffic_or_warn(&self) {
        if let Err(error) = self.forward_traffic().await {
            tracing::warn!(error = format!("{error:#}"), "a public address leads nowhere");
        }
    }

    /// Brings the forwards in line with moto's addresses, instances and groups.
    pub(super) async fn forward_traffic(&self) -> anyhow::Result<()> {
        let mut elastic = self.elastic.lock().await;
        let mut wanted = Wanted::new();
        for parts in self.every_region()? {
            let addresses = self.read(&parts, &[("Action", "DescribeAddresses")]).await?;
            for address in addresses.items("addressesSet") {
                let (Some(public), Some(instance)) =
                    (address.text_of("publicIp"), address.text_of("instanceId"))
                else {
                    continue;
                };
                let Some(machine) = self.machines.lock().await.get(instance).cloned() else { continue };
                let public: Ipv4Addr = public.parse().context(
                    "moto lists a public address that is not an \
                    address",
                )?;
                for port in self.world_ports(&parts, instance).await? {
                    let address = (machine.address, port).into();
                    wanted.insert((public, port).into(), Target { address, power: machine.power() });
                }
            }
        }
        elastic.apply(&wanted).await
    }

    /// Returns the TCP ports that an instance's security groups open to addresses (not to groups).
    async fn world_ports(&self, parts: &Parts, instance: &str) -> anyhow::Result<BTreeSet<u16>> {
        let tree = self.read(parts, &[("Action", "DescribeInstances"), ("InstanceId.1", instance)]).await?;
        let groups: BTreeSet<&str> =
            tree.all("groupId").iter().map(|element| element.text.as_str()).collect();
        let mut ports = BTreeSet::new();
        for group in groups {
            let described =
                self.read(parts, &[("Action", "DescribeSecurityGroups"), ("GroupId.1", group)]).await?;
            for rule in described.items("ipPermissions") {
                let to_the_world = !rule.items("ipRanges").is_empty() || !rule.items("ipv6Ranges").is_empty();
                let port = rule.text_of("fromPort").and_then(|text| text.parse::<u16>().ok());
                let is_tcp = rule.text_of("ipProtocol") == Some("tcp");
                if let (true, Some(port)) = (to_the_world && is_tcp, port) {
                    ports.insert(port);
                }
            }
        }
        Ok(ports)
    }
}
