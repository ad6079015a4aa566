//! Lists the stack's instances in EC2, and launches one from its definition.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_ec2::launch::{self, Tags};
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{Instance, InstanceStateName, Tag};
use fleet::release::{InstanceSpec, SubnetSpec};
use fleet::stack::{TAG_ATTEMPT, TAG_RELEASE, TAG_ROLE, TAG_SLOT};
use tokio::time::{Instant, sleep};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::Part;
use crate::patience::Look;
use crate::resources::network::{filter, id, stack_filter};

/// An instance is usually pending for seconds, and for minutes when EC2 is busy.
const RUNNING_DEADLINE: Duration = Duration::from_secs(300);
/// Shutting down usually takes 30 to 60 s.
const TERMINATED_DEADLINE: Duration = Duration::from_secs(300);

/// Returns all instances of the stack in one of these states.
pub async fn list(aws: &Aws, states: &[InstanceStateName]) -> Result<Vec<Instance>> {
    let mut wanted = aws_sdk_ec2::types::Filter::builder().name("instance-state-name");
    for state in states {
        wanted = wanted.values(state.as_str());
    }
    let mut pages = aws
        .ec2
        .describe_instances()
        .filters(stack_filter(aws))
        .filters(wanted.build())
        .into_paginator()
        .page_size(1000)
        .send();
    let mut instances = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.step(|| "list the instances".to_owned())?;
        instances.extend(
            page.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default()),
        );
    }
    Ok(instances)
}

pub const LIVE: [InstanceStateName; 4] = [
    InstanceStateName::Pending,
    InstanceStateName::Running,
    InstanceStateName::Stopping,
    InstanceStateName::Stopped,
];

pub const NOT_GONE: [InstanceStateName; 5] = [
    InstanceStateName::Pending,
    InstanceStateName::Running,
    InstanceStateName::Stopping,
    InstanceStateName::Stopped,
    InstanceStateName::ShuttingDown,
];

pub fn tag<'a>(instance: &'a Instance, key: &str) -> Option<&'a str> {
    instance.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value())
}

/// One instance to launch.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    pub role: &'a str,
    pub release: &'a str,
    pub spec: &'a InstanceSpec,
    pub subnet: &'a SubnetSpec,
    /// Its number among its kind.
    pub place: u32,
}

impl Launch<'_> {
    /// Launches the instance and returns its id. The same token and definition return the same instance, however
    /// often they are sent.
    pub async fn send(self, aws: &Aws, token: &str) -> Result<String> {
        let Self { role, spec, subnet, .. } = self;
        let request = self.request(aws).client_token(token);
        let launched =
            async || request.clone().send().await.step(|| format!("launch the {role} in {}", subnet.zone));
        let needs = format!(
            "{}, {} and the instance profile {}",
            subnet.id, spec.security_group, spec.instance_profile
        );
        let launched = aws.patience.depends_on(&needs, launched).await?;
        id(launched.instances().first().and_then(|i| i.instance_id()), "instance")
    }

    /// Returns the launch request without its client token; a dry run sends the same.
    pub fn request(self, aws: &Aws) -> RunInstancesFluentBuilder {
        let tags = aws.names.tags(self.role).into_iter();
        let mut tags: Vec<Tag> = tags.map(|(key, value)| launch::tag(&key, &value)).collect();
        tags.push(launch::tag(TAG_ROLE, self.role));
        let parts = tags.clone();
        tags.push(launch::tag(TAG_RELEASE, self.release));
        // The reconciler's attempts begin with one, so it never takes this launch for its own.
        tags.push(launch::tag(TAG_ATTEMPT, "0"));
        if self.place > 0 {
            tags.push(launch::tag(TAG_SLOT, &self.place.to_string()));
        }
        launch::request(&aws.ec2, self.spec, &self.subnet.id, Tags { instance: tags, parts })
    }
}

/// Returns a definition without subnets and without a program.
#[cfg(test)]
pub(crate) fn example() -> InstanceSpec {
    use fleet::release::{Credits, Market};
    InstanceSpec {
        ami: "ami-1".to_owned(),
        instance_type: "t4g.micro".to_owned(),
        subnets: Vec::new(),
        security_group: "sg-1".to_owned(),
        instance_profile: "p".to_owned(),
        user_data: String::new(),
        market: Market::OnDemand,
        credits: Credits::Standard,
    }
}

/// Terminates every instance of the stack and waits until EC2 shows all as terminated.
pub async fn terminate_all(aws: &Aws) -> Result<Vec<Part>> {
    let mut seen = BTreeSet::new();
    let deadline = Instant::now() + TERMINATED_DEADLINE;
    loop {
        let left = list(aws, &NOT_GONE).await?;
        if left.is_empty() {
            return Ok(seen.into_iter().map(|id| Part::removed(format!("instance {id}"))).collect());
        }
        seen.extend(left.iter().filter_map(Instance::instance_id).map(str::to_owned));
        if Instant::now() > deadline {
            let ids: Vec<&str> = left.iter().filter_map(Instance::instance_id).collect();
            return Err(DeployError::new(Exit::Failed, format!("still shutting down: {}", ids.join(", ")))
                .hint("Run destroy again in a few minutes; it continues where this run stopped."));
        }
        // Listed again each time: the reconciler may have launched one just before it was removed.
        for id in left.iter().filter(|i| !is_shutting_down(i)).filter_map(Instance::instance_id) {
            let done = aws.ec2.terminate_instances().instance_ids(id).send().await;
            found(done.step(|| format!("terminate {id}")))?;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

pub async fn terminate(aws: &Aws, id: &str) -> Result<()> {
    let done = aws.ec2.terminate_instances().instance_ids(id).send().await;
    found(done.step(|| format!("terminate {id}")))?;
    Ok(())
}

fn is_shutting_down(instance: &Instance) -> bool {
    instance.state().and_then(|state| state.name()) == Some(&InstanceStateName::ShuttingDown)
}

/// Waits until EC2 shows `running`, so that an address can be associated.
pub async fn wait_until_running(aws: &Aws, id: &str) -> Result<()> {
    let look = async || {
        let described = aws.ec2.describe_instances().filters(filter("instance-id", id)).send().await;
        let described = described.step(|| format!("look at {id}"))?;
        let state = described
            .reservations()
            .iter()
            .flat_map(|reservation| reservation.instances())
            .find_map(|instance| instance.state().and_then(|state| state.name()).cloned());
        match state {
            Some(InstanceStateName::Running) => Ok(Look::Reached(())),
            None => Ok(Look::NotYet("not visible yet".to_owned())),
            Some(InstanceStateName::Pending) => Ok(Look::NotYet("pending".to_owned())),
            Some(state) => {
                let what = format!("{id} does not run: it is {}", state.as_str());
                Err(DeployError::new(Exit::Failed, what).hint(
                    "`bootstrap logs lb` (make logs OF=lb) may show why. Deploy again to launch a new \
                        one.",
                ))
            }
        }
    };
    aws.patience.until(&format!("the instance {id}"), RUNNING_DEADLINE, look).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;

    #[tokio::test]
    async fn a_new_instance_is_waited_for_until_it_runs() {
        let seen = |state: &str| {
            format!(
                "<reservationSet><item><instancesSet><item><instanceId>i-1</instanceId>\
                 <instanceState><name>{state}</name></instanceState></item></instancesSet></item></reservationSet>"
            )
        };
        let stub = Stub::default()
            .answers("DescribeInstances", "<reservationSet/>")
            .answers("DescribeInstances", &seen("pending"))
            .answers("DescribeInstances", &seen("running"));
        wait_until_running(&stub.serve().await, "i-1").await.expect("it runs");
        assert_eq!(stub.count("DescribeInstances"), 3);
    }

    #[test]
    fn a_launch_tags_the_interface_and_boots_with_unlimited_credits() {
        let aws = crate::aws::stub::client("http://127.0.0.1:1");
        let (spec, subnet) = (example(), SubnetSpec { id: "subnet-1".to_owned(), zone: "z".to_owned() });
        let launch = Launch { role: "lb", release: "r", spec: &spec, subnet: &subnet, place: 0 };
        let request = launch.request(&aws);
        let request = request.as_input();
        let specifications = request.get_tag_specifications().iter().flatten();
        let mut kinds = specifications.filter_map(|tags| tags.resource_type());
        assert!(kinds.any(|kind| kind.as_str() == "network-interface"));
        let credits = request.get_credit_specification().as_ref().and_then(|it| it.cpu_credits());
        assert_eq!(credits, Some("unlimited"));
    }
}
