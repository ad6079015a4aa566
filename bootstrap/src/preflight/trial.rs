//! Tests permissions without effect: with EC2's dry runs, and with calls that only read.
//!
//! An endpoint without dry runs would carry them out. So the read-only calls come first: if an endpoint
//! answers one of them with a list, no call that makes something is tried.

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{DomainType, ResourceType};
use aws_sdk_s3::config::http::HttpResponse;
use fleet::aws_code::AwsErrorKind;
use fleet::release::Release;
use fleet::stack::{ROLE_LB, ROLE_WORKER};

use super::permission::{Answer, Asked, denial, is_denial};
use crate::aws::Aws;
use crate::blueprint;
use crate::check::{Check, Verdict};
use crate::error::Result;
use crate::resources::bucket::Contents;
use crate::resources::instance::Launch;
use crate::resources::network::{filter, stack_filter, tagged};
use crate::resources::role::Role;

/// The outcome of one call.
#[derive(Clone, Debug)]
struct Said {
    action: &'static str,
    resource: Option<String>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was answered as if it were not a dry run.
    Done,
    Refused {
        code: String,
        message: String,
        status: Option<u16>,
    },
    NoReply,
}

fn said<T, E>(
    action: &'static str,
    resource: Option<String>,
    answer: std::result::Result<T, SdkError<E, HttpResponse>>,
) -> Said
where
    E: ProvideErrorMetadata,
{
    let outcome = match answer {
        Ok(_) => Outcome::Done,
        Err(error) => match error.raw_response().map(|response| response.status().as_u16()) {
            None => Outcome::NoReply,
            status => Outcome::Refused {
                code: error.code().unwrap_or_default().to_owned(),
                message: error.message().unwrap_or_default().to_owned(),
                status,
            },
        },
    };
    Said { action, resource, outcome }
}

impl Said {
    /// Interprets a call that only reads: any answer about the resource shows that it was allowed.
    fn of_a_read(self) -> Asked {
        let Self { action, resource, outcome } = self;
        let answer = match outcome {
            Outcome::Done => Answer::Allowed,
            Outcome::NoReply => Answer::Unknown,
            Outcome::Refused { code, message, status } if is_denial(&code, status) => {
                Answer::Denied(denial(action, resource.as_deref(), &message))
            }
            Outcome::Refused { code, message, status } => {
                let is_absent = AwsErrorKind::of(&code, &message) == AwsErrorKind::NotFound;
                let is_allowed = is_absent || status == Some(404) || code == DRY_RUN;
                if is_allowed { Answer::Allowed } else { Answer::Unknown }
            }
        };
        Asked { action: action.to_owned(), answer }
    }

    /// Interprets a dry run of a call that would make something: only EC2's own code for it counts as
    /// allowed.
    fn of_a_dry_run(self) -> Asked {
        let Self { action, resource, outcome } = self;
        let answer = match outcome {
            Outcome::Refused { code, .. } if code == DRY_RUN => Answer::Allowed,
            Outcome::Refused { code, message, status } if is_denial(&code, status) => {
                Answer::Denied(denial(action, resource.as_deref(), &message))
            }
            Outcome::Done | Outcome::NoReply | Outcome::Refused { .. } => Answer::Unknown,
        };
        Asked { action: action.to_owned(), answer }
    }
}

/// EC2's code for a dry run that would have succeeded.
const DRY_RUN: &str = "DryRunOperation";

/// Tries all actions that the existing resources allow to try.
pub(crate) async fn permissions(aws: &Aws, release: Option<&Release>) -> Vec<Asked> {
    let (lists, others) = tokio::join!(lists(aws), reads(aws));
    let knows_dry_runs = lists.iter().all(|said| said.outcome != Outcome::Done);
    let mut all: Vec<Asked> = lists.into_iter().map(Said::of_a_read).collect();
    all.extend(others);
    if knows_dry_runs {
        all.extend(makes(aws, release).await);
    }
    all
}

/// Makes the list calls of EC2, as dry runs.
async fn lists(aws: &Aws) -> Vec<Said> {
    let ec2 = &aws.ec2;
    macro_rules! list {
        ($action:literal, $call:ident) => {
            async { said($action, None, ec2.$call().dry_run(true).send().await) }
        };
    }
    // All at once: few enough for EC2.
    let (vpcs, zones, images, internet, egress, tables, groups, subnets, endpoints, addresses, instances) = tokio::join!(
        list!("ec2:DescribeVpcs", describe_vpcs),
        list!("ec2:DescribeAvailabilityZones", describe_availability_zones),
        async {
            said("ec2:DescribeImages", None, ec2.describe_images().owners("self").dry_run(true).send().await)
        },
        list!("ec2:DescribeInternetGateways", describe_internet_gateways),
        list!("ec2:DescribeEgressOnlyInternetGateways", describe_egress_only_internet_gateways),
        list!("ec2:DescribeRouteTables", describe_route_tables),
        list!("ec2:DescribeSecurityGroups", describe_security_groups),
        list!("ec2:DescribeSubnets", describe_subnets),
        list!("ec2:DescribeVpcEndpoints", describe_vpc_endpoints),
        list!("ec2:DescribeAddresses", describe_addresses),
        list!("ec2:DescribeInstances", describe_instances),
    );
    vec![vpcs, zones, images, internet, egress, tables, groups, subnets, endpoints, addresses, instances]
}

/// Makes the deployment's read calls to other services.
async fn reads(aws: &Aws) -> Vec<Asked> {
    let names = &aws.names;
    let bucket = async |contents: Contents| {
        let bucket = contents.bucket(aws);
        let arn = format!("arn:{}:s3:::{bucket}", names.partition);
        said("s3:ListBucket", Some(arn), aws.s3.head_bucket().bucket(bucket).send().await)
    };
    let role = async |role: Role| {
        let name = role.name(names);
        said("iam:GetRole", Some(names.role_arn(&name)), aws.iam.get_role().role_name(&name).send().await)
    };
    let profile = Role::Worker.name(names);
    let function = aws.lambda.get_function().function_name(names.stack.function());
    let rule = aws.events.describe_rule().name(names.stack.schedule_rule());
    let groups = aws.logs.describe_log_groups().log_group_name_prefix(names.stack.log_group());
    let all = tokio::join!(
        bucket(Contents::Users),
        bucket(Contents::Control),
        role(Role::Worker),
        role(Role::LoadBalancer),
        role(Role::Reconciler),
        async {
            let got = aws.iam.get_instance_profile().instance_profile_name(&profile).send().await;
            said("iam:GetInstanceProfile", None, got)
        },
        async { said("lambda:GetFunction", Some(names.function_arn()), function.send().await) },
        async { said("events:DescribeRule", Some(names.rule_arn()), rule.send().await) },
        async { said("logs:DescribeLogGroups", None, groups.send().await) },
    );
    let all = [all.0, all.1, all.2, all.3, all.4, all.5, all.6, all.7, all.8];
    all.into_iter().map(Said::of_a_read).collect()
}

/// Makes the creating calls, as dry runs. A resource inside a VPC needs a VPC; a launch needs a whole
/// network.
async fn makes(aws: &Aws, release: Option<&Release>) -> Vec<Asked> {
    let ec2 = &aws.ec2;
    let tags = |kind: ResourceType, what: &str| tagged(aws, kind, what);
    let vpc = ec2
        .create_vpc()
        .cidr_block(blueprint::Blocks::default().ipv4.to_string())
        .amazon_provided_ipv6_cidr_block(true)
        .tag_specifications(tags(ResourceType::Vpc, "vpc"))
        .dry_run(true);
    let address = ec2
        .allocate_address()
        .domain(DomainType::Vpc)
        .tag_specifications(tags(ResourceType::ElasticIp, ROLE_LB))
        .dry_run(true);
    let gateway = ec2
        .create_internet_gateway()
        .tag_specifications(tags(ResourceType::InternetGateway, "internet"))
        .dry_run(true);
    let (vpc, address, gateway, inside, launch) = tokio::join!(
        async { said("ec2:CreateVpc", None, vpc.send().await) },
        async { said("ec2:AllocateAddress", None, address.send().await) },
        async { said("ec2:CreateInternetGateway", None, gateway.send().await) },
        inside_of_the_vpc(aws),
        async {
            match release {
                None => None,
                Some(release) => try_launch(aws, release).await,
            }
        },
    );
    let mut all = vec![vpc, address, gateway];
    all.extend(inside);
    all.extend(launch);
    all.into_iter().map(Said::of_a_dry_run).collect()
}

async fn inside_of_the_vpc(aws: &Aws) -> Vec<Said> {
    let ec2 = &aws.ec2;
    let Ok(described) = ec2.describe_vpcs().filters(stack_filter(aws)).send().await else {
        return Vec::new();
    };
    let Some(vpc) = described.vpcs().first().and_then(|vpc| vpc.vpc_id()) else { return Vec::new() };
    let table = ec2
        .create_route_table()
        .vpc_id(vpc)
        .tag_specifications(tagged(aws, ResourceType::RouteTable, "public"))
        .dry_run(true);
    let egress = ec2
        .create_egress_only_internet_gateway()
        .vpc_id(vpc)
        .tag_specifications(tagged(aws, ResourceType::EgressOnlyInternetGateway, "egress"))
        .dry_run(true);
    let group = ec2
        .create_security_group()
        .vpc_id(vpc)
        .group_name(aws.names.stack.resource("trial"))
        .description("A dry run of Vigia")
        .tag_specifications(tagged(aws, ResourceType::SecurityGroup, "trial"))
        .dry_run(true);
    let (table, egress, group) = tokio::join!(
        async { said("ec2:CreateRouteTable", None, table.send().await) },
        async { said("ec2:CreateEgressOnlyInternetGateway", None, egress.send().await) },
        async { said("ec2:CreateSecurityGroup", None, group.send().await) },
    );
    vec![table, egress, group]
}

/// Returns `None` if the release names no subnet.
async fn try_launch(aws: &Aws, release: &Release) -> Option<Said> {
    let spec = &release.worker;
    let launch =
        Launch { role: ROLE_WORKER, release: &release.id, spec, subnet: spec.subnets.first()?, place: 0 };
    // The deployer itself launches load balancers alone, which are on demand. Spot workers are launched by
    // the reconciler, whose role may make spot requests.
    let request = launch.request(aws).set_instance_market_options(None);
    Some(said("ec2:RunInstances", None, request.dry_run(true).send().await))
}

/// Tries a launch that EC2 evaluates and does not carry out. It needs subnets, so it works only with a stack.
pub(crate) async fn launch(aws: &Aws, release: Option<&Release>) -> Result<Vec<Check>> {
    let name = "launch permission";
    let Some(release) = release else {
        let why = "there is no network to launch into before the first deployment";
        return Ok(vec![Check::new(name, Verdict::NotKnownHere, why)]);
    };
    // No launch is tried where a dry run of a list is carried out.
    let probe = aws.ec2.describe_route_tables().filters(filter("vpc-id", "vpc-0")).dry_run(true).send().await;
    let probe = said("ec2:DescribeRouteTables", None, probe);
    if probe.outcome == Outcome::Done {
        let why = "the endpoint does not support dry runs";
        return Ok(vec![Check::new(name, Verdict::NotKnownHere, why)]);
    }
    let Some(said) = try_launch(aws, release).await else {
        return Ok(vec![
            Check::new(name, Verdict::Failed, "the release names no subnet").hint("Deploy again."),
        ]);
    };
    Ok(vec![match said.outcome {
        Outcome::Done => {
            Check::new(name, Verdict::NotKnownHere, "the endpoint did not say what a dry run would do")
        }
        Outcome::NoReply => {
            Check::new(name, Verdict::NotKnownHere, "EC2 did not answer a dry run of a launch")
        }
        Outcome::Refused { code, .. } if code == DRY_RUN => {
            Check::new(name, Verdict::Ok, format!("a worker of release {} could be launched", release.id))
        }
        Outcome::Refused { code, message, status } if is_denial(&code, status) => {
            Check::new(name, Verdict::Failed, format!("these credentials may not launch a worker: {message}"))
                .hint("`bootstrap iam-policy` (make iam-policy) prints the policy that they need.")
        }
        // The permission is there; `preflight` reports whether the quota fits.
        Outcome::Refused { code, message, .. } if fleet::quota::explain(&code, &message).is_some() => {
            let why = fleet::quota::explain(&code, &message).unwrap_or_default();
            Check::new(name, Verdict::Warning, format!("another worker could not be launched: {why}"))
        }
        Outcome::Refused { code, message, .. } => {
            Check::new(name, Verdict::Failed, format!("EC2 would refuse a worker: {code}: {message}"))
                .hint("`make deploy` writes a new release with the resources that exist now.")
        }
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(outcome: Outcome, judge: fn(Said) -> Asked) -> Answer {
        judge(Said { action: "ec2:CreateVpc", resource: None, outcome }).answer
    }

    fn refused(code: &str, status: u16) -> Outcome {
        Outcome::Refused { code: code.to_owned(), message: String::new(), status: Some(status) }
    }

    #[test]
    fn only_ec2s_own_word_makes_a_dry_run_allowed() {
        let judge = |outcome| answer(outcome, Said::of_a_dry_run);
        assert_eq!(judge(refused("DryRunOperation", 412)), Answer::Allowed);
        assert!(matches!(judge(refused("UnauthorizedOperation", 403)), Answer::Denied(_)));
        for unknown in [Outcome::Done, Outcome::NoReply, refused("VpcLimitExceeded", 400)] {
            assert_eq!(judge(unknown.clone()), Answer::Unknown, "{unknown:?}");
        }
    }

    #[test]
    fn a_missing_resource_may_be_read() {
        let judge = |outcome| answer(outcome, Said::of_a_read);
        for allowed in [Outcome::Done, refused("NoSuchEntity", 404), refused("", 404), refused(DRY_RUN, 412)]
        {
            assert_eq!(judge(allowed.clone()), Answer::Allowed, "{allowed:?}");
        }
        assert!(matches!(judge(refused("", 403)), Answer::Denied(_)));
        for unknown in [Outcome::NoReply, refused("InternalError", 500), refused("PermanentRedirect", 301)] {
            assert_eq!(judge(unknown.clone()), Answer::Unknown, "{unknown:?}");
        }
    }
}
