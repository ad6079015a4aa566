//! Carries a plan out: launches and terminations, each safe to do twice.
//!
//! Nothing is decided here. What an error means for the next tick is `settle`'s to say.

use std::time::Duration;

use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, HttpTokensState, IamInstanceProfileSpecification,
    InstanceMetadataOptionsRequest, InstanceType, ResourceType, ShutdownBehavior, Tag, TagSpecification,
    VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::aws_code::AwsErrorKind;
use fleet::release::Release;
use fleet::stack::{ROLE_WORKER, TAG_ATTEMPT, TAG_RELEASE, TAG_ROLE, TAG_SLOT, TAG_STACK};
use fleet::{StackName, WorkerId};
use futures::StreamExt as _;

use crate::plan::{Launch, Plan};
use crate::store::{describe, kind};
use crate::token::client_token;

/// RunInstances has a bucket of five, refilled at two a second: more at once are only throttled.
const LAUNCHES_AT_ONCE: usize = 4;
/// Observations age: what has not happened by then is planned anew.
const TIMEOUT: Duration = Duration::from_secs(8);

pub struct Actor {
    pub ec2: aws_sdk_ec2::Client,
    pub stack: StackName,
}

#[derive(Debug, Default)]
pub struct Outcomes {
    pub launched: Vec<LaunchOutcome>,
    pub not_terminated: Vec<(WorkerId, String)>,
}

#[derive(Debug)]
pub struct LaunchOutcome {
    pub launch: Launch,
    pub result: Result<WorkerId, (AwsErrorKind, String)>,
}

impl Outcomes {
    pub fn is_empty(&self) -> bool {
        self.launched.is_empty() && self.not_terminated.is_empty()
    }
}

impl Actor {
    pub async fn act(&self, plan: &Plan, release: Option<&Release>) -> Outcomes {
        let mut outcomes = Outcomes::default();
        if let Some(release) = release {
            outcomes.launched = futures::stream::iter(plan.launches.iter().cloned())
                .map(|launch| async {
                    let result = self.launch(&launch, release).await;
                    LaunchOutcome { launch, result }
                })
                .buffered(LAUNCHES_AT_ONCE)
                .collect()
                .await;
        }
        // One id per request: one bad id fails the whole request.
        for id in &plan.terminations {
            let sent = self.ec2.terminate_instances().instance_ids(id.as_str()).send();
            let why = match tokio::time::timeout(TIMEOUT, sent).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) if kind(&error) == AwsErrorKind::NotFound => continue,
                Ok(Err(error)) => describe(&error),
                Err(_) => "no answer in time".to_owned(),
            };
            outcomes.not_terminated.push((id.clone(), why));
        }
        outcomes
    }

    async fn launch(&self, launch: &Launch, release: &Release) -> Result<WorkerId, (AwsErrorKind, String)> {
        let spec = &release.worker;
        let tags = [
            ("Name", self.stack.resource(ROLE_WORKER)),
            (TAG_STACK, self.stack.to_string()),
            (TAG_ROLE, ROLE_WORKER.to_owned()),
            (TAG_SLOT, launch.slot.to_string()),
            (TAG_ATTEMPT, launch.attempt.to_string()),
            (TAG_RELEASE, release.id.clone()),
        ];
        let tags: Vec<Tag> =
            tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let tagged =
            |kind| TagSpecification::builder().resource_type(kind).set_tags(Some(tags.clone())).build();
        let disk = EbsBlockDevice::builder()
            .volume_size(8)
            .volume_type(VolumeType::Gp3)
            .encrypted(true)
            .delete_on_termination(true)
            .build();
        let metadata = InstanceMetadataOptionsRequest::builder()
            .http_tokens(HttpTokensState::Required)
            .http_put_response_hop_limit(1)
            .build();
        let sent = self
            .ec2
            .run_instances()
            .image_id(&spec.ami)
            .instance_type(InstanceType::from(spec.instance_type.as_str()))
            .min_count(1)
            .max_count(1)
            .client_token(client_token(release, launch.slot, launch.attempt))
            .subnet_id(&launch.subnet)
            .security_group_ids(&spec.security_group)
            .iam_instance_profile(
                IamInstanceProfileSpecification::builder().name(&spec.instance_profile).build(),
            )
            .user_data(STANDARD.encode(&spec.user_data))
            .metadata_options(metadata)
            .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
            .block_device_mappings(BlockDeviceMapping::builder().device_name("/dev/xvda").ebs(disk).build())
            .tag_specifications(tagged(ResourceType::Instance))
            .tag_specifications(tagged(ResourceType::Volume))
            .send();
        match tokio::time::timeout(TIMEOUT, sent).await {
            Ok(Ok(launched)) => launched
                .instances()
                .first()
                .and_then(|instance| instance.instance_id()?.parse().ok())
                .ok_or((AwsErrorKind::Other, "EC2 launched an instance without an id".to_owned())),
            Ok(Err(error)) => Err((kind(&error), describe(&error))),
            Err(_) => Err((AwsErrorKind::Other, "no answer in time".to_owned())),
        }
    }
}
