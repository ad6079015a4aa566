//! A small stack: its definition, and rows as EC2 shows them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fleet::release::{Credits, InstanceSpec, Market, Release, SubnetSpec};
use fleet::{DesiredCount, Profile, Registry, WorkerId};
use jiff::Timestamp;
use planner::observation::{Instance, Observation, Role, State};

/// A full minute, as the schedule says it.
pub(crate) fn minute() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

pub(crate) fn count(number: u32) -> DesiredCount {
    number.try_into().expect("within bounds")
}

pub(crate) fn id(name: &str) -> WorkerId {
    name.parse().expect("an id")
}

fn spec(ami: &str) -> InstanceSpec {
    let subnet = |zone| SubnetSpec { id: format!("subnet-{zone}"), zone: format!("zone-{zone}") };
    InstanceSpec {
        ami: ami.to_owned(),
        instance_type: "t4g.nano".to_owned(),
        subnets: ["a", "b"].map(subnet).to_vec(),
        security_group: "sg-1".to_owned(),
        instance_profile: "worker".to_owned(),
        user_data: "#cloud-config\n".to_owned(),
        market: Market::OnDemand,
        credits: Credits::Standard,
    }
}

pub(crate) fn release() -> Release {
    Release::new("test".parse().expect("a name"), Profile::Secure, "1".to_owned(), spec("ami-1"))
}

/// A worker that runs in a slot, at its first attempt.
pub(crate) fn worker(name: &str, slot: u32, launched: Timestamp) -> Instance {
    let zone = if slot.is_multiple_of(2) { "a" } else { "b" };
    let host = u8::try_from(slot).expect("few slots");
    Instance {
        id: id(name),
        role: Role::Worker,
        state: State::Running,
        address: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))),
        subnet: format!("subnet-{zone}"),
        zone: format!("zone-{zone}"),
        slot: Some(slot),
        attempt: Some(1),
        release: release().id,
        launched: Some(launched),
    }
}

pub(crate) fn observation(desired: u32, rows: Vec<Instance>, registry: Option<Registry>) -> Observation {
    Observation {
        desired: Ok(count(desired)),
        release: Ok(Some(Arc::new(release()))),
        registry: Ok(registry.map(Arc::new)),
        registry_etag: Some("registry-1".to_owned()),
        instances: Ok(rows),
        addresses: Ok(Vec::new()),
        is_partial: false,
        dark: BTreeMap::new(),
        probes: BTreeMap::new(),
        started: BTreeMap::new(),
    }
}
