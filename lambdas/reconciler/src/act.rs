//! Launches, terminates and moves the address: one call each, and each safe to do twice.
//!
//! Nothing is decided here. What an error means for the next tick is `settle`'s to say.

use std::time::Duration;

use aws::error::{describe, kind};
use aws_ec2::launch::{Tags, tag};
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::modify_instance_credit_specification::ModifyInstanceCreditSpecificationOutput;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{InstanceCreditSpecificationRequest, Tag};
use fleet::aws_code::AwsErrorKind;
use fleet::stack::{ROLE_LB, ROLE_WORKER, TAG_ATTEMPT, TAG_RELEASE, TAG_ROLE, TAG_SLOT, TAG_STACK};
use fleet::{StackName, WorkerId};
use planner::effect::{Failure, Launch};
use planner::observation::Role;

/// RunInstances takes 1.5 s as a rule and several seconds in a bad hour. At half of this, a launch that
/// succeeds would now and then count as failed. It is called once: if the outcome is unknown, the next tick
/// repeats the launch with the same token. At twice this, four slow calls would outlast the tick, because a
/// plan is not carried out when it is 15 s old.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(8);

const STANDARD_CREDITS: &str = "standard";

pub struct Actor {
    pub ec2: aws_sdk_ec2::Client,
    pub stack: StackName,
}

impl Actor {
    pub async fn launch(&self, launch: &Launch) -> Result<WorkerId, Failure> {
        let sent = self.request(launch).customize().config_override(patient()).send().await;
        let launched = sent.map_err(launch_failure)?;
        let id = launched.instances().first().and_then(|instance| instance.instance_id()?.parse().ok());
        id.ok_or_else(|| Failure {
            kind: AwsErrorKind::Other,
            why: "EC2 launched an instance without an id".to_owned(),
        })
    }

    /// Builds the request: the same each time, or EC2 refuses the token.
    fn request(&self, launch: &Launch) -> RunInstancesFluentBuilder {
        let tags = self.tags(launch);
        let tags = Tags { instance: tags.clone(), parts: tags };
        aws_ec2::launch::request(&self.ec2, &launch.spec, &launch.subnet, tags).client_token(&launch.token)
    }

    fn tags(&self, launch: &Launch) -> Vec<Tag> {
        let role = match launch.role {
            Role::Worker => ROLE_WORKER,
            Role::LoadBalancer => ROLE_LB,
        };
        let mut tags = vec![
            ("Name", self.stack.resource(role)),
            (TAG_STACK, self.stack.to_string()),
            (TAG_ROLE, role.to_owned()),
            (TAG_ATTEMPT, launch.attempt.to_string()),
            (TAG_RELEASE, launch.release.clone()),
        ];
        // The first place is told by the absence of a number, as before there were several.
        if launch.role == Role::Worker || launch.slot > 0 {
            tags.push((TAG_SLOT, launch.slot.to_string()));
        }
        tags.into_iter().map(|(key, value)| tag(key, &value)).collect()
    }

    /// One id per request: one bad id fails the whole request.
    pub async fn terminate(&self, id: &WorkerId) -> Result<(), Failure> {
        match self.ec2.terminate_instances().instance_ids(id.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error) if kind(&error) == AwsErrorKind::NotFound => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    /// Switches the instance to `standard` credits. EC2 reports a failure for it in the body of a success.
    pub async fn cap_credits(&self, id: &WorkerId) -> Result<(), Failure> {
        let capped = InstanceCreditSpecificationRequest::builder()
            .instance_id(id.as_str())
            .cpu_credits(STANDARD_CREDITS);
        let request = self.ec2.modify_instance_credit_specification();
        let answer = request.instance_credit_specifications(capped.build()).send().await.map_err(failure)?;
        capped_by(&answer)
    }

    /// Moves the address to `instance`, whatever instance holds it. The address is the fence.
    pub async fn associate(&self, allocation: &str, instance: &WorkerId) -> Result<(), Failure> {
        let associated = self
            .ec2
            .associate_address()
            .allocation_id(allocation)
            .instance_id(instance.as_str())
            .allow_reassociation(true)
            .send()
            .await;
        associated.map(drop).map_err(failure)
    }
}

/// Reads from EC2's answer whether the instance was switched.
fn capped_by(answer: &ModifyInstanceCreditSpecificationOutput) -> Result<(), Failure> {
    let Some(refused) = answer.unsuccessful_instance_credit_specifications().first() else { return Ok(()) };
    let code = refused.error().and_then(|error| error.code()).map_or("", |code| code.as_str());
    let message = refused.error().and_then(|error| error.message()).unwrap_or_default();
    Err(Failure { kind: AwsErrorKind::of(code, message), why: format!("{code}: {message}") })
}

/// One attempt, and the time that a launch may take; the rest is as for all calls.
fn patient() -> aws_sdk_ec2::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(LAUNCH_TIMEOUT)
        .operation_timeout(LAUNCH_TIMEOUT)
        .build();
    aws_sdk_ec2::Config::builder().timeout_config(timeouts).retry_config(RetryConfig::disabled())
}

/// A call without an answer is a failure of no particular kind: it may have been carried out.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn failure<E>(error: SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
    let why = fleet::quota::explain(code, message).unwrap_or_else(|| describe(&error));
    Failure { kind: kind(&error), why }
}

/// Returns the failure of a launch as [`failure`] does, with the cause that EC2's answer names. Without a
/// code EC2 has not answered.
fn launch_failure<E>(error: SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
    let kind = (!code.is_empty()).then(|| AwsErrorKind::of_launch(code, message));
    let failure = failure(error);
    Failure { kind: kind.unwrap_or(failure.kind), ..failure }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_sdk_ec2::config::BehaviorVersion;
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::types::ResourceType;
    use aws_sdk_ec2::types::{
        UnsuccessfulInstanceCreditSpecificationErrorCode, UnsuccessfulInstanceCreditSpecificationItem,
        UnsuccessfulInstanceCreditSpecificationItemError,
    };
    use aws_sdk_s3::primitives::SdkBody;
    use fleet::release::{Credits, InstanceSpec, Market};

    use super::*;

    fn actor() -> Actor {
        let config = aws_sdk_ec2::Config::builder().behavior_version(BehaviorVersion::latest()).build();
        Actor { ec2: aws_sdk_ec2::Client::from_conf(config), stack: "a".parse().expect("a name") }
    }

    fn launch(instance_type: &str) -> Launch {
        let spec = InstanceSpec {
            ami: "ami-1".to_owned(),
            instance_type: instance_type.to_owned(),
            subnets: Vec::new(),
            security_group: "sg-1".to_owned(),
            instance_profile: "p".to_owned(),
            user_data: String::new(),
            market: Market::OnDemand,
            credits: Credits::Standard,
        };
        Launch {
            role: Role::Worker,
            slot: 3,
            attempt: 2,
            subnet: "subnet-1".to_owned(),
            release: "r1".to_owned(),
            token: "t".to_owned(),
            spec: Arc::new(spec),
        }
    }

    #[test]
    fn burstable_types_boot_with_unlimited_credits() {
        let credits = |kind: &str| {
            let request = actor().request(&launch(kind));
            request.as_input().get_credit_specification().clone()
        };
        for kind in ["t3.micro", "t4g.nano"] {
            let credits = credits(kind).expect("a credit option");
            assert_eq!(credits.cpu_credits(), Some("unlimited"), "{kind}");
        }
        assert_eq!(credits("m7g.medium"), None, "EC2 refuses the option");
    }

    #[test]
    fn an_answer_says_whether_credits_are_capped() {
        let answer = |code: Option<UnsuccessfulInstanceCreditSpecificationErrorCode>| {
            let error = UnsuccessfulInstanceCreditSpecificationItemError::builder().set_code(code).build();
            let item = UnsuccessfulInstanceCreditSpecificationItem::builder().error(error).build();
            let answer = ModifyInstanceCreditSpecificationOutput::builder();
            capped_by(&answer.unsuccessful_instance_credit_specifications(item).build())
        };
        use UnsuccessfulInstanceCreditSpecificationErrorCode as Code;
        for (code, kind) in [
            (Some(Code::InstanceCreditSpecificationNotSupported), AwsErrorKind::NotSupported),
            (Some(Code::InstanceNotFound), AwsErrorKind::NotFound),
            (Some(Code::IncorrectInstanceState), AwsErrorKind::Other),
            (None, AwsErrorKind::Other),
        ] {
            let failure = answer(code.clone()).expect_err("it is not capped");
            assert_eq!(failure.kind, kind, "{code:?}");
        }
        assert_eq!(capped_by(&ModifyInstanceCreditSpecificationOutput::builder().build()), Ok(()));
    }

    #[test]
    fn a_launch_tags_instance_volume_and_interface_alike() {
        let request = actor().request(&launch("t4g.nano"));
        let tagged = request.as_input().get_tag_specifications().clone().expect("tags");
        let kinds = [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface];
        for kind in kinds {
            let of_kind =
                tagged.iter().find(|tags| tags.resource_type() == Some(&kind)).expect("it is tagged");
            let has = |key: &str, value: &str| {
                of_kind.tags().iter().any(|tag| (tag.key(), tag.value()) == (Some(key), Some(value)))
            };
            assert!(has(TAG_STACK, "a") && has(TAG_ROLE, ROLE_WORKER) && has(TAG_SLOT, "3"), "{of_kind:?}");
        }
    }

    fn refused(code: &str) -> Failure {
        let error = ErrorMetadata::builder().code(code).build();
        let response = HttpResponse::new(400.try_into().expect("a status"), SdkBody::empty());
        launch_failure(SdkError::service_error(error, response))
    }

    #[test]
    fn a_launch_without_its_image_blames_the_definition() {
        for code in ["InvalidAMIID.NotFound", "InvalidGroup.NotFound", "InvalidParameterCombination"] {
            assert_eq!(refused(code).kind, AwsErrorKind::Definition, "{code}");
        }
    }

    #[test]
    fn a_refused_launch_names_the_quota() {
        let failure = refused("MaxSpotInstanceCountExceeded");
        assert_eq!(failure.kind, AwsErrorKind::AccountLimit);
        assert!(failure.why.contains(fleet::quota::SPOT_VCPUS), "{}", failure.why);
    }
}
