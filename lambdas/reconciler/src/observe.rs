//! Fills an `Observation` from AWS. Everything is read at the same time, so that no part is much
//! older than another; probes follow, because they need the addresses.

use std::time::Duration;

use aws::error::describe;
use aws_sdk_ec2::types::{Filter, InstanceStateName, Reservation};
use fleet::memory::Memory;
use fleet::stack::{ROLE_LB, ROLE_WORKER, TAG_ATTEMPT, TAG_RELEASE, TAG_ROLE, TAG_SLOT, TAG_STACK};
use fleet::{StackName, WorkerId};
use jiff::Timestamp;
use planner::observation::{Address, Instance, Observation, Role, State};
use tokio::time::timeout;

use aws_sdk_ec2::error::ProvideErrorMetadata as _;

use crate::store::Store;

/// For all pages of a listing, and for all requests by id; the client's own limit is for each request. A
/// plan is not carried out later than 15 s after its survey began, and probes take up to 8 s of that.
const LISTING: Duration = Duration::from_secs(6);
/// Ids in one request. EC2 takes a thousand; it fails the request as a whole.
const IDS_AT_ONCE: usize = 100;
/// How often a request is repeated without the ids that EC2 does not know. EC2 names all unknown ids at
/// once; if it named one at a time, this would end the loop.
const MOST_ROUNDS: usize = 10;

pub struct Observer {
    pub ec2: aws_sdk_ec2::Client,
    pub store: Store,
    pub stack: StackName,
}

impl Observer {
    /// Everything but the probes.
    pub async fn survey(&self) -> Observation {
        let (desired, release, (registry, registry_etag), instances, addresses) = tokio::join!(
            self.store.desired(),
            self.store.release(),
            self.store.registry(),
            within("EC2 does not list the instances", self.instances()),
            within("EC2 does not show the Elastic IP", self.addresses())
        );
        Observation {
            desired,
            release,
            registry,
            registry_etag,
            instances,
            addresses,
            dark: Default::default(),
            is_partial: false,
            probes: Default::default(),
            started: Default::default(),
        }
    }

    /// Every instance that carries the stack's tag, all pages or an error.
    async fn instances(&self) -> Result<Vec<Instance>, String> {
        let mut pages =
            self.ec2.describe_instances().filters(self.of_stack()).into_paginator().page_size(1000).send();
        let mut instances = Vec::new();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| format!("EC2 does not list the instances: {}", describe(&error)))?;
            instances.extend(rows(page.reservations));
        }
        Ok(instances)
    }

    /// These instances, as far as EC2 knows them and they are of this stack.
    pub async fn describe(&self, ids: &[WorkerId]) -> Result<Vec<Instance>, String> {
        within("EC2 does not describe instances by their ids", self.describe_all(ids)).await
    }

    async fn describe_all(&self, ids: &[WorkerId]) -> Result<Vec<Instance>, String> {
        let mut instances = Vec::new();
        for ids in ids.chunks(IDS_AT_ONCE) {
            instances.extend(self.describe_known(ids.to_vec()).await?);
        }
        Ok(instances)
    }

    async fn describe_known(&self, mut ids: Vec<WorkerId>) -> Result<Vec<Instance>, String> {
        let failed = |why: &str| format!("EC2 does not describe instances by their ids: {why}");
        for _ in 0..MOST_ROUNDS {
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let names = ids.iter().map(WorkerId::to_string).collect();
            // No page size: EC2 refuses one together with ids.
            let sent =
                self.ec2.describe_instances().set_instance_ids(Some(names)).filters(self.of_stack()).send();
            let error = match sent.await {
                Ok(described) => return Ok(rows(described.reservations)),
                Err(error) => error,
            };
            let unknown = match error.code() {
                Some("InvalidInstanceID.NotFound") => named_in(error.message().unwrap_or_default(), &ids),
                _ => Vec::new(),
            };
            if unknown.is_empty() {
                return Err(failed(&describe(&error)));
            }
            ids.retain(|id| !unknown.contains(id));
        }
        Err(failed("it knows too few of them"))
    }

    async fn addresses(&self) -> Result<Vec<Address>, String> {
        let described = self.ec2.describe_addresses().filters(self.of_stack()).send().await;
        let described =
            described.map_err(|error| format!("EC2 does not show the Elastic IP: {}", describe(&error)))?;
        let address = |row: aws_sdk_ec2::types::Address| {
            let instance = row.instance_id().and_then(|id| id.parse().ok());
            Some(Address { allocation: row.allocation_id?, instance })
        };
        Ok(described.addresses.unwrap_or_default().into_iter().filter_map(address).collect())
    }

    fn of_stack(&self) -> Filter {
        Filter::builder().name(format!("tag:{TAG_STACK}")).values(self.stack.as_str()).build()
    }
}

/// Gives up what takes too long, however many requests it is.
async fn within<T>(what: &str, read: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let stalled = |_| Err(format!("{what}: no whole answer within {} s", LISTING.as_secs()));
    timeout(LISTING, read).await.unwrap_or_else(stalled)
}

/// Those of `ids` that stand in a message of EC2.
fn named_in(message: &str, ids: &[WorkerId]) -> Vec<WorkerId> {
    let words: Vec<&str> = message.split(|c: char| c != '-' && !c.is_ascii_alphanumeric()).collect();
    ids.iter().filter(|id| words.contains(&id.as_str())).cloned().collect()
}

fn rows(reservations: Option<Vec<Reservation>>) -> Vec<Instance> {
    let reservations = reservations.unwrap_or_default().into_iter();
    let rows = reservations.flat_map(|reservation| reservation.instances.unwrap_or_default());
    rows.filter_map(|row| instance(&row)).collect()
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
        attempt: tag(TAG_ATTEMPT).and_then(attempt),
        release: tag(TAG_RELEASE).unwrap_or_default().to_owned(),
        launched: row.launch_time().and_then(|time| Timestamp::from_second(time.secs()).ok()),
    })
}

/// Parses the number of an attempt. A number that the reconciler cannot have counted to is refused, because
/// the next attempt would have to be higher.
fn attempt(text: &str) -> Option<u32> {
    text.parse().ok().filter(|attempt| *attempt <= Memory::MAX_ATTEMPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_a_number_that_has_a_next_one() {
        for (text, read) in [("0", Some(0)), ("7", Some(7)), ("2147483647", Some(Memory::MAX_ATTEMPT))] {
            assert_eq!(attempt(text), read, "{text}");
        }
        for text in ["4294967295", "2147483648", "4294967296", "-1", "seven", ""] {
            assert_eq!(attempt(text), None, "{text}");
        }
    }

    fn ids(texts: &[&str]) -> Vec<WorkerId> {
        texts.iter().map(|text| text.parse().expect("an id")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_without_end_is_stopped() {
        let asked = tokio::time::Instant::now();
        let read = within("EC2 does not list", std::future::pending::<Result<(), String>>());
        assert_eq!(read.await, Err("EC2 does not list: no whole answer within 6 s".to_owned()));
        assert_eq!(asked.elapsed(), LISTING);
        assert_eq!(within("EC2 does not list", async { Ok(7) }).await, Ok(7));
    }

    #[test]
    fn an_id_is_recognised_as_a_whole() {
        let asked = ids(&["i-0a", "i-0a1", "i-0b"]);
        assert_eq!(named_in("The instance ID 'i-0a1' does not exist", &asked), ids(&["i-0a1"]));
        let two = "The instance IDs 'i-0a, i-0b' do not exist";
        assert_eq!(named_in(two, &asked), ids(&["i-0a", "i-0b"]));
        assert_eq!(named_in("no such thing", &asked), ids(&[]));
    }
}
