//! The launch of an instance from its definition: the same request for the deployer and the reconciler.
//!
//! EC2 refuses a client token that comes with other parameters, so the request depends on its arguments
//! alone.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, CreditSpecificationRequest, EbsBlockDevice, HttpTokensState,
    IamInstanceProfileSpecification, InstanceInterruptionBehavior, InstanceMarketOptionsRequest,
    InstanceMetadataOptionsRequest, InstanceType, MarketType, ResourceType, ShutdownBehavior,
    SpotInstanceType, SpotMarketOptions, Tag, TagSpecification, VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::release::{InstanceSpec, Market};

/// The tags of what a launch creates.
#[derive(Clone, Debug)]
pub struct Tags {
    pub instance: Vec<Tag>,
    /// Volume and network interface.
    pub parts: Vec<Tag>,
}

/// Returns a tag.
pub fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

/// Builds the request for one instance in a subnet, without a client token.
pub fn request(ec2: &Client, spec: &InstanceSpec, subnet: &str, tags: Tags) -> RunInstancesFluentBuilder {
    let tagged = |kind, tags| TagSpecification::builder().resource_type(kind).set_tags(Some(tags)).build();
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
    ec2.run_instances()
        .image_id(&spec.ami)
        .instance_type(InstanceType::from(spec.instance_type.as_str()))
        .min_count(1)
        .max_count(1)
        .subnet_id(subnet)
        .security_group_ids(&spec.security_group)
        .iam_instance_profile(IamInstanceProfileSpecification::builder().name(&spec.instance_profile).build())
        .user_data(STANDARD.encode(&spec.user_data))
        .metadata_options(metadata)
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
        .set_instance_market_options(market_options(spec.market))
        .set_credit_specification(credits_at_launch(spec))
        .block_device_mappings(BlockDeviceMapping::builder().device_name("/dev/xvda").ebs(disk).build())
        .tag_specifications(tagged(ResourceType::Instance, tags.instance))
        .tag_specifications(tagged(ResourceType::Volume, tags.parts.clone()))
        // AssociateAddress may name an interface instead of an instance: its policy asks for this tag.
        .tag_specifications(tagged(ResourceType::NetworkInterface, tags.parts))
}

/// T3 and T4g get no launch credits in the mode `standard`: they would boot at their baseline. The
/// reconciler caps them when the instance has served for five minutes. EC2 refuses a credit option for
/// types that have none.
fn credits_at_launch(spec: &InstanceSpec) -> Option<CreditSpecificationRequest> {
    spec.is_burstable().then(|| CreditSpecificationRequest::builder().cpu_credits("unlimited").build())
}

/// Returns nothing on demand. A spot instance is requested once: what EC2 takes back is gone, and the
/// reconciler requests another.
fn market_options(market: Market) -> Option<InstanceMarketOptionsRequest> {
    let once = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
        .build();
    let spot = InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).spot_options(once);
    match market {
        Market::OnDemand => None,
        Market::Spot => Some(spot.build()),
    }
}
