//! Fills an `Observation` from AWS. Everything is read at the same time, so that no part is much
//! older than another; probes follow, because they need the addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use aws_sdk_ec2::types::{Filter, InstanceStateName};
use fleet::memory::{Memory, Phase};
use fleet::stack::{ROLE_LB, ROLE_WORKER, TAG_ATTEMPT, TAG_RELEASE, TAG_ROLE, TAG_SLOT, TAG_STACK};
use fleet::{LB_ADMIN_PORT, StackName, WORKER_PORT, WorkerAddr, WorkerId};
use jiff::Timestamp;

use crate::observation::{Instance, Observation, Role, Scope, State};
use crate::probe::Prober;
use crate::store::{Store, describe};

pub struct Observer {
    pub ec2: aws_sdk_ec2::Client,
    pub store: Store,
    pub stack: StackName,
    pub prober: Prober,
}

impl Observer {
    pub async fn observe(&self, tick: Timestamp, memory: &Memory, scope: Scope) -> Observation {
        let (desired, release, (registry, registry_etag), instances) =
            tokio::join!(self.store.desired(), self.store.release(), self.store.registry(), self.instances());
        let targets = targets(instances.as_deref().unwrap_or_default(), memory, scope);
        let probes = self.prober.probe_all(targets, scope).await;
        Observation { tick, desired, release, registry, registry_etag, instances, probes }
    }

    /// Every instance that carries the stack's tag, all pages or an error.
    async fn instances(&self) -> Result<Vec<Instance>, String> {
        let of_stack = Filter::builder().name(format!("tag:{TAG_STACK}")).values(self.stack.as_str()).build();
        let mut pages =
            self.ec2.describe_instances().filters(of_stack).into_paginator().page_size(1000).send();
        let mut instances = Vec::new();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| format!("EC2 does not list the instances: {}", describe(&error)))?;
            let rows = page
                .reservations
                .unwrap_or_default()
                .into_iter()
                .flat_map(|r| r.instances.unwrap_or_default());
            instances.extend(rows.filter_map(|row| instance(&row)));
        }
        Ok(instances)
    }

    pub async fn refresh_load_balancers(&self, observation: &Observation) {
        let balancers = observation
            .instances
            .iter()
            .flatten()
            .filter(|instance| instance.role == Role::LoadBalancer && instance.state == State::Running);
        let addresses = balancers.filter_map(|instance| instance.address);
        let told = addresses.map(|ip| self.prober.refresh(WorkerAddr(SocketAddr::new(ip, LB_ADMIN_PORT))));
        futures::future::join_all(told).await;
    }
}

/// Whom to ask. A worker that EC2 does not show just now is still asked where it was last.
pub(crate) fn targets(
    instances: &[Instance],
    memory: &Memory,
    scope: Scope,
) -> BTreeMap<WorkerId, WorkerAddr> {
    let known = memory.slots.values().filter_map(|slot| Some((slot.worker.clone()?, slot.addr?, slot.phase)));
    let settled: BTreeMap<WorkerId, (WorkerAddr, Phase)> =
        known.map(|(id, addr, phase)| (id, (addr, phase))).collect();
    let is_settled = |id: &WorkerId| {
        settled.get(id).is_some_and(|(_, phase)| !matches!(phase, Phase::Launching | Phase::Booting))
    };
    let mut targets: BTreeMap<WorkerId, WorkerAddr> =
        settled.iter().map(|(id, (addr, _))| (id.clone(), *addr)).collect();
    for instance in instances.iter().filter(|row| row.role == Role::Worker) {
        match instance.address {
            Some(ip) if instance.state.is_live() => {
                targets.insert(instance.id.clone(), WorkerAddr(SocketAddr::new(ip, WORKER_PORT)));
            }
            _ if !instance.state.is_live() => {
                targets.remove(&instance.id);
            }
            _ => {}
        }
    }
    targets.retain(|id, _| !memory.leaving.contains_key(id));
    if scope == Scope::Boots {
        targets.retain(|id, _| !is_settled(id));
    }
    targets
}

/// Our own view of an instance; `None` for one whose role is not ours to handle.
fn instance(row: &aws_sdk_ec2::types::Instance) -> Option<Instance> {
    let tag = |key: &str| row.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value());
    let role = match tag(TAG_ROLE)? {
        ROLE_WORKER => Role::Worker,
        ROLE_LB => Role::LoadBalancer,
        _ => return None,
    };
    let state = match row.state()?.name()? {
        InstanceStateName::Pending => State::Pending,
        InstanceStateName::Running => State::Running,
        InstanceStateName::ShuttingDown => State::ShuttingDown,
        InstanceStateName::Terminated => State::Terminated,
        _ => State::Stopped,
    };
    Some(Instance {
        id: row.instance_id()?.parse().ok()?,
        role,
        state,
        address: row.private_ip_address().and_then(|ip| ip.parse().ok()),
        subnet: row.subnet_id().unwrap_or_default().to_owned(),
        zone: row
            .placement()
            .and_then(|placement| placement.availability_zone())
            .unwrap_or_default()
            .to_owned(),
        slot: tag(TAG_SLOT).and_then(|text| text.parse().ok()),
        attempt: tag(TAG_ATTEMPT).and_then(|text| text.parse().ok()),
        release: tag(TAG_RELEASE).unwrap_or_default().to_owned(),
        launched: row.launch_time().and_then(|time| Timestamp::from_second(time.secs()).ok()),
    })
}
