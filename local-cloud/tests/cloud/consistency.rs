//! AWS's answers in the first seconds. The seed decides whether a single call meets such an answer, so each
//! test makes new resources until one does: of 60, several do in every seed.

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::operation::create_vpc::CreateVpcOutput;
use aws_sdk_ec2::types::{
    Filter, ResourceType, SecurityGroup, Tag, TagSpecification, VpcIpv6CidrBlockAssociation,
};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{FunctionCode, Runtime, State, VpcConfig};
use aws_sdk_s3::types::{BucketVersioningStatus, Tagging, VersioningConfiguration};
use local_cloud::calls::{Outcome, Record};
use local_cloud::consistency::Behaviour;

use crate::support::{Aws, ELASTIC_IP_POOL, cloud, code, comes_too_early, eventually, known, profile};

/// Any valid policy.
const POLICY: &str =
    r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}"#;

/// Tries with a new number each time until such an answer is met.
async fn met<T>(what: &str, mut attempt: impl AsyncFnMut(u32) -> Option<T>) -> T {
    for number in 1..=60 {
        if let Some(met) = attempt(number).await {
            return met;
        }
    }
    panic!("not once in 60 attempts: {what}");
}

/// Returns the code of a passing refusal, if it is one.
fn early<T, E: ProvideErrorMetadata + std::fmt::Debug>(result: Result<T, E>) -> Option<String> {
    let error = result.err()?;
    assert!(comes_too_early(&error), "{error:?}");
    error.code().map(str::to_owned)
}

async fn create_vpc(aws: &Aws) -> CreateVpcOutput {
    let create = aws.ec2.create_vpc().cidr_block("10.83.0.0/16").amazon_provided_ipv6_cidr_block(true);
    create.send().await.expect("a VPC")
}

/// Makes a VPC with an IPv6 block.
async fn dual_stack_vpc(aws: &Aws) -> String {
    create_vpc(aws).await.vpc().and_then(|vpc| vpc.vpc_id()).expect("an id").to_owned()
}

async fn blocks(aws: &Aws, vpc: &str) -> Vec<VpcIpv6CidrBlockAssociation> {
    let describe = aws.ec2.describe_vpcs().vpc_ids(vpc);
    let described = known(async || {
        let described = describe.clone().send().await?;
        // An answer without it comes too early.
        if described.vpcs().is_empty() {
            aws.ec2.describe_vpcs().vpc_ids("vpc-1").send().await
        } else {
            Ok(described)
        }
    });
    described.await.vpcs()[0].ipv6_cidr_block_association_set().to_vec()
}

fn state(block: &VpcIpv6CidrBlockAssociation) -> &str {
    block.ipv6_cidr_block_state().and_then(|state| state.state()).map_or("", |state| state.as_str())
}

/// The VPC's block, once it is associated.
async fn associated(aws: &Aws, vpc: &str) -> String {
    eventually("the block is associated", async || {
        let blocks = blocks(aws, vpc).await;
        let block = blocks.iter().find(|block| state(block) == "associated");
        block
            .and_then(|block| block.ipv6_cidr_block().map(str::to_owned))
            .ok_or_else(|| format!("{blocks:?}"))
    })
    .await
}

#[tokio::test]
async fn a_new_vpc_has_an_empty_block_that_associates() {
    let aws = Aws::new();
    let created = create_vpc(&aws).await;
    let vpc = created.vpc().expect("a VPC");
    let [block] = vpc.ipv6_cidr_block_association_set() else { panic!("{vpc:?}") };
    assert_eq!((state(block), block.ipv6_cidr_block()), ("associating", Some("")));
    let id = vpc.vpc_id().expect("an id");
    let block = associated(&aws, id).await;
    assert!(block.ends_with("/56") && !block.starts_with("2400:6500:"), "{block}");

    let table = known(async || aws.ec2.create_route_table().vpc_id(id).send().await).await;
    let routes = table.route_table().expect("a table").routes().iter();
    let routes: Vec<&str> = routes.filter_map(|route| route.destination_ipv6_cidr_block()).collect();
    assert_eq!(routes, [block.as_str()], "the emulator's own block is never shown");
    let filter = Filter::builder().name("ipv6-cidr-block-association.ipv6-cidr-block").values(block).build();
    aws.caught_up().await;
    let found = aws.ec2.describe_vpcs().filters(filter).send().await.expect("described");
    assert_eq!(found.vpcs().iter().filter_map(|vpc| vpc.vpc_id()).collect::<Vec<_>>(), [id]);
}

#[tokio::test]
async fn some_vpcs_list_a_disassociated_block_first() {
    let aws = Aws::new();
    let blocks = met("a disassociated block", async |_| {
        let vpc = dual_stack_vpc(&aws).await;
        let blocks = blocks(&aws, &vpc).await;
        (blocks.len() == 2).then_some(blocks)
    })
    .await;
    assert_eq!(state(&blocks[0]), "disassociated");
    assert_ne!(state(&blocks[1]), "disassociated");
}

#[tokio::test]
async fn a_block_of_an_existing_vpc_takes_a_moment_too() {
    let aws = Aws::new();
    let (vpc, _) = aws.vpc("10.83.0.0/16").await;
    let associate = aws.ec2.associate_vpc_cidr_block().vpc_id(&vpc).amazon_provided_ipv6_cidr_block(true);
    let answer = associate.send().await.expect("a block");
    assert_eq!(answer.ipv6_cidr_block_association().map(state), Some("associating"));
    assert!(associated(&aws, &vpc).await.ends_with("/56"));
}

/// The first /64 of a VPC's block.
fn first_subnet(block: &str) -> String {
    block.replace("/56", "/64")
}

#[tokio::test]
async fn a_subnet_waits_for_the_block_of_its_vpc() {
    let aws = Aws::new();
    let vpc = dual_stack_vpc(&aws).await;
    let create = |block: &str| {
        let create = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block("127.83.1.0/24");
        create.ipv6_cidr_block(block)
    };
    // It may not know the VPC either.
    let refused = create("2600:1f16:abc::/64").send().await;
    let refused = code(refused);
    assert!(["InvalidSubnet.Range", "InvalidVpcID.NotFound"].contains(&refused.as_str()), "{refused}");
    let block = associated(&aws, &vpc).await;
    aws.settled(&[&vpc]).await;
    let outside = create("2001:db8::/64").send().await.expect_err("outside");
    assert_eq!(outside.code(), Some("InvalidSubnet.Range"));
    assert_eq!(outside.message(), Some("The IPv6 CIDR '2001:db8::/64' is invalid."));
    let created = create(&first_subnet(&block)).send().await.expect("a subnet");
    let [own] = created.subnet().expect("a subnet").ipv6_cidr_block_association_set() else {
        panic!("{created:?}")
    };
    assert_eq!(own.ipv6_cidr_block(), Some(first_subnet(&block).as_str()));
    let again = create(&first_subnet(&block)).cidr_block("127.83.2.0/24").send().await;
    assert_eq!(code(again), "InvalidSubnet.Conflict");
}

#[tokio::test]
async fn some_subnets_blocks_associate_later() {
    let aws = Aws::new();
    let vpc = dual_stack_vpc(&aws).await;
    let block = associated(&aws, &vpc).await;
    let prefix = block.parse::<ipnet::Ipv6Net>().expect("a block");
    let mut blocks = prefix.subnets(64).expect("64 is longer");
    let id = met("a subnet's block that is associating", async |number| {
        let create = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block(format!("127.83.{number}.0/24"));
        let create = create.ipv6_cidr_block(blocks.next().expect("256 of them").to_string());
        let created = known(async || create.clone().send().await).await;
        let subnet = created.subnet().expect("a subnet");
        let state = subnet.ipv6_cidr_block_association_set()[0].ipv6_cidr_block_state();
        let state = state.and_then(|state| state.state()).expect("a state").as_str();
        assert!(["associating", "associated"].contains(&state), "{state}");
        (state == "associating").then(|| subnet.subnet_id().expect("an id").to_owned())
    })
    .await;
    eventually("it is associated", async || {
        let by_id = Filter::builder().name("subnet-id").values(&id).build();
        let described = aws.ec2.describe_subnets().filters(by_id).send().await.expect("described");
        let subnets = described.subnets();
        let state = subnets.first().and_then(|subnet| subnet.ipv6_cidr_block_association_set().first());
        let state = state.and_then(|block| block.ipv6_cidr_block_state()).and_then(|state| state.state());
        if state.is_some_and(|state| state.as_str() == "associated") {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    })
    .await;
}

/// Returns a group in the VPC as EC2 describes it.
async fn group(aws: &Aws, vpc: &str, name: &str) -> SecurityGroup {
    let create = aws.ec2.create_security_group().group_name(name).description("x").vpc_id(vpc);
    let created = known(async || create.clone().send().await).await;
    let id = created.group_id().expect("an id");
    aws.settled(&[id]).await;
    let described = aws.ec2.describe_security_groups().group_ids(id).send().await.expect("described");
    described.security_groups()[0].clone()
}

/// Returns the blocks of both families that a group allows all egress to.
fn egress(group: &SecurityGroup) -> Vec<&str> {
    let all = group.ip_permissions_egress().iter();
    all.flat_map(|rule| {
        let ipv4 = rule.ip_ranges().iter().filter_map(|range| range.cidr_ip());
        ipv4.chain(rule.ipv6_ranges().iter().filter_map(|range| range.cidr_ipv6()))
    })
    .collect()
}

#[tokio::test]
async fn a_group_of_a_vpc_without_its_block_lets_no_ipv6_out() {
    let aws = Aws::new();
    let (vpc, early) = met("a group made before the block", async |_| {
        let vpc = dual_stack_vpc(&aws).await;
        let before = aws.consistency().await.answers.get(&Behaviour::WithoutIpv6Egress).copied();
        let early = group(&aws, &vpc, "early").await;
        let after = aws.consistency().await.answers.get(&Behaviour::WithoutIpv6Egress).copied();
        (before != after && egress(&early) == ["0.0.0.0/0"]).then_some((vpc, early))
    })
    .await;
    associated(&aws, &vpc).await;
    let late = group(&aws, &vpc, "late").await;
    assert_eq!(egress(&late), ["0.0.0.0/0", "::/0"]);
    let id = early.group_id().expect("an id");
    let still = aws.ec2.describe_security_groups().group_ids(id).send().await.expect("described");
    assert_eq!(egress(&still.security_groups()[0]), ["0.0.0.0/0"], "it does not come by itself");
    let range = aws_sdk_ec2::types::Ipv6Range::builder().cidr_ipv6("::/0").build();
    let all = aws_sdk_ec2::types::IpPermission::builder().ip_protocol("-1").ipv6_ranges(range).build();
    let allow = aws.ec2.authorize_security_group_egress().group_id(id).ip_permissions(all);
    allow.send().await.expect("the rule can be added");
}

fn tagged(kind: ResourceType, value: &str) -> TagSpecification {
    let tag = Tag::builder().key("test").value(value).build();
    TagSpecification::builder().resource_type(kind).tags(tag).build()
}

#[tokio::test]
async fn calls_may_miss_a_new_resource() {
    let aws = Aws::new();
    let met_by = async |what: &str| {
        met(what, async |_| {
            let gateway = aws.ec2.create_internet_gateway().send().await.expect("a gateway");
            let gateway = gateway.internet_gateway().and_then(|gateway| gateway.internet_gateway_id());
            let gateway = gateway.expect("an id").to_owned();
            let ec2 = &aws.ec2;
            let refused = match what {
                "tag" => {
                    let tag = Tag::builder().key("k").value("v").build();
                    early(ec2.create_tags().resources(&gateway).tags(tag).send().await)
                }
                "describe" => {
                    early(ec2.describe_internet_gateways().internet_gateway_ids(&gateway).send().await)
                }
                _ => early(ec2.delete_internet_gateway().internet_gateway_id(&gateway).send().await),
            };
            refused.map(|code| (gateway, code))
        })
        .await
    };
    for what in ["tag", "describe", "delete"] {
        let (gateway, code) = met_by(what).await;
        assert_eq!(code, "InvalidInternetGatewayID.NotFound", "{what}");
        aws.settled(&[&gateway]).await;
        let described = aws.ec2.describe_internet_gateways().internet_gateway_ids(&gateway).send().await;
        described.expect("it was there all the time");
    }
}

#[tokio::test]
async fn a_list_may_omit_a_new_resource() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let listed = async |value: &str| {
        let by_tag = Filter::builder().name("tag:test").values(value).build();
        let listed = aws.ec2.describe_addresses().filters(by_tag).send().await.expect("a list");
        listed.addresses().len()
    };
    // Addresses are few, so each is released.
    let value = met("an address that is not listed", async |number| {
        let value = format!("left out {number}");
        let allocate = aws.ec2.allocate_address().tag_specifications(tagged(ResourceType::ElasticIp, &value));
        let Ok(allocated) = allocate.send().await else { return None };
        let seen = listed(&value).await;
        if seen == 0 {
            return Some((value, allocated));
        }
        let release = aws.ec2.release_address().allocation_id(allocated.allocation_id().expect("an id"));
        known(async || release.clone().send().await).await;
        None
    });
    let (value, allocated) = value.await;
    let id = allocated.allocation_id().expect("an id");
    aws.settled(&[id]).await;
    assert_eq!(listed(&value).await, 1);
    aws.ec2.release_address().allocation_id(id).send().await.expect("released");
}

#[tokio::test]
async fn a_list_may_show_a_deleted_resource() {
    let aws = Aws::new();
    let count = async |value: &str| {
        let by_tag = Filter::builder().name("tag:test").values(value).build();
        let listed = aws.ec2.describe_internet_gateways().filters(by_tag).send().await.expect("a list");
        listed.internet_gateways().len()
    };
    let value = met("a deleted gateway that is listed", async |number| {
        let value = format!("deleted {number}");
        let tag = tagged(ResourceType::InternetGateway, &value);
        let made = aws.ec2.create_internet_gateway().tag_specifications(tag).send().await.expect("a gateway");
        let id = made.internet_gateway().and_then(|gateway| gateway.internet_gateway_id()).expect("an id");
        if count(&value).await == 0 {
            return None;
        }
        let delete = aws.ec2.delete_internet_gateway().internet_gateway_id(id);
        known(async || delete.clone().send().await).await;
        (count(&value).await == 1).then_some(value)
    })
    .await;
    eventually("it is no longer listed", async || match count(&value).await {
        0 => Ok(()),
        more => Err(more.to_string()),
    })
    .await;
}

#[tokio::test]
async fn iam_may_not_find_a_new_role() {
    let aws = Aws::new();
    let put = async |name: &str| {
        let put = aws.iam.put_role_policy().role_name(name).policy_name("p").policy_document(POLICY);
        put.send().await
    };
    let (name, code) = met("a role that is not found", async |number| {
        let name = format!("new-role-{number}");
        let create = aws.iam.create_role().role_name(&name).assume_role_policy_document("{}");
        create.send().await.expect("a role");
        early(put(&name).await).map(|code| (name, code))
    })
    .await;
    assert_eq!(code, "NoSuchEntity");
    aws.settled(&[&name]).await;
    put(&name).await.expect("it is known");
}

#[tokio::test]
async fn ec2_may_not_know_a_new_profile() {
    let aws = Aws::new();
    let network = aws.network().await;
    let (name, code) = met("a profile that EC2 does not know", async |number| {
        let name = format!("new-profile-{number}");
        let iam = &aws.iam;
        iam.create_role().role_name(&name).assume_role_policy_document("{}").send().await.expect("a role");
        iam.create_instance_profile().instance_profile_name(&name).send().await.expect("a profile");
        let add = iam.add_role_to_instance_profile().instance_profile_name(&name).role_name(&name);
        known(async || add.clone().send().await).await;
        // A dry run: it launches nothing and asks whether a launch would succeed.
        let launch = aws.launch(&network).iam_instance_profile(profile(&name)).send().await;
        match launch {
            Ok(launched) => {
                aws.terminate(launched.instances()[0].instance_id().expect("an id")).await;
                None
            }
            Err(error) => Some((name, error.code().unwrap_or_default().to_owned())),
        }
    })
    .await;
    assert_eq!(code, "InvalidParameterValue");
    aws.settled(&[&name]).await;
    let launched =
        aws.launch(&network).iam_instance_profile(profile(&name)).send().await.expect("it is known");
    aws.terminate(launched.instances()[0].instance_id().expect("an id")).await;
}

/// Sends CreateFunction with a package that is never run.
fn create_function(
    aws: &Aws,
    name: &str,
    role: &str,
) -> aws_sdk_lambda::operation::create_function::builders::CreateFunctionFluentBuilder {
    const EMPTY_ZIP: [u8; 22] = *b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let code = FunctionCode::builder().zip_file(Blob::new(EMPTY_ZIP)).build();
    let create = aws.lambda.create_function().function_name(name).runtime(Runtime::Providedal2023);
    create.handler("bootstrap").role(format!("arn:aws:iam::000000000000:role/{role}")).code(code)
}

/// Makes a function and waits until it is ready.
async fn function(aws: &Aws, name: &str) {
    create_function(aws, name, "old").send().await.expect("a function");
    eventually("the function is active", async || {
        let got = aws.lambda.get_function().function_name(name).send().await.expect("a function");
        let state = got.configuration().and_then(|configuration| configuration.state()).cloned();
        if state == Some(State::Active) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
}

#[tokio::test]
async fn lambda_may_not_assume_a_new_role() {
    let aws = Aws::new();
    let (name, error) = met("a role that Lambda cannot assume", async |number| {
        let name = format!("new-function-{number}");
        let create = aws.iam.create_role().role_name(&name).assume_role_policy_document("{}");
        create.send().await.expect("a role");
        create_function(&aws, &name, &name).send().await.err().map(|error| (name, error))
    })
    .await;
    assert_eq!(error.code(), Some("InvalidParameterValueException"));
    assert_eq!(error.message(), Some("The role defined for the function cannot be assumed by Lambda."));
    aws.settled(&[&name]).await;
    create_function(&aws, &name, &name).send().await.expect("it is known");
}

#[tokio::test]
async fn a_function_is_busy_after_each_change() {
    let aws = Aws::new();
    create_function(&aws, "busy", "old").send().await.expect("a function");
    let configure = || aws.lambda.update_function_configuration().function_name("busy").timeout(5).send();
    assert_eq!(code(configure().await), "ResourceConflictException");
    let state = async || {
        let got = aws.lambda.get_function_configuration().function_name("busy").send().await;
        let got = got.expect("a configuration");
        let update = got.last_update_status().map(|status| status.as_str().to_owned());
        (got.state().map(|state| state.as_str().to_owned()), update)
    };
    let pair = |state: &str, update: &str| (Some(state.to_owned()), Some(update.to_owned()));
    assert_eq!(state().await, pair("Pending", "InProgress"));
    known(async || configure().await).await;
    assert_eq!(state().await, pair("Active", "InProgress"));
    let error = configure().await.expect_err("it is being updated");
    assert!(error.message().is_some_and(|message| message.contains("An update is in progress")), "{error:?}");
    eventually("it is ready", async || match state().await {
        ready if ready == pair("Active", "Successful") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_permission_may_meet_another_change_or_itself() {
    let aws = Aws::new();
    let add = async |name: &str| {
        let add = aws
            .lambda
            .add_permission()
            .function_name(name)
            .statement_id("rule")
            .action("lambda:InvokeFunction");
        add.principal("events.amazonaws.com").send().await
    };
    let (name, error) = met("another change of the policy", async |number| {
        let name = format!("permission-{number}");
        function(&aws, &name).await;
        add(&name).await.err().map(|error| (name, error))
    })
    .await;
    assert_eq!(error.code(), Some("ResourceConflictException"));
    assert!(error.message().is_some_and(|message| message.contains("An update is in progress")), "{error:?}");
    known(async || add(&name).await).await;
    let error = add(&name).await.expect_err("it is there");
    assert_eq!(error.code(), Some("ResourceConflictException"));
    assert!(error.message().is_some_and(|message| message.contains("already exists")), "{error:?}");
}

#[tokio::test]
async fn lambda_refuses_ipv6_in_subnets_without_it() {
    let aws = Aws::new();
    let network = aws.network().await;
    let vpc = dual_stack_vpc(&aws).await;
    let block = first_subnet(&associated(&aws, &vpc).await);
    let create = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block("127.83.1.0/24").ipv6_cidr_block(block);
    let created = known(async || create.clone().send().await).await;
    let dual_stack = created.subnet().and_then(|subnet| subnet.subnet_id()).expect("an id");
    aws.settled(&[dual_stack]).await;
    let create = |subnets: &[&str], allowed: bool| {
        let vpc = VpcConfig::builder().security_group_ids("sg-1").ipv6_allowed_for_dual_stack(allowed);
        let vpc = vpc.set_subnet_ids(Some(subnets.iter().map(|subnet| (*subnet).to_owned()).collect()));
        create_function(&aws, "dual-stack", "old").vpc_config(vpc.build())
    };
    let mixed = [dual_stack, network.subnet.as_str()];
    let error = create(&mixed, true).send().await.expect_err("refused");
    assert_eq!(error.code(), Some("InvalidParameterValueException"));
    let message = error.message().unwrap_or_default();
    assert!(message.contains(&network.subnet) && !message.contains(dual_stack), "{message}");
    create(&[dual_stack], true).send().await.expect("dual-stack");
    aws.lambda.delete_function().function_name("dual-stack").send().await.expect("deleted");
    create(&mixed, false).send().await.expect("IPv4 alone");
}

#[tokio::test]
async fn a_new_bucket_may_not_be_found() {
    let aws = Aws::new();
    let (bucket, code) = met("a bucket that is not found", async |number| {
        let bucket = format!("new-bucket-{number}");
        aws.s3.create_bucket().bucket(&bucket).send().await.expect("a bucket");
        let encryption = aws.s3.get_bucket_tagging().bucket(&bucket).send().await;
        let error = encryption.expect_err("it has no tags");
        (error.code() != Some("NoSuchTagSet")).then(|| (bucket, error.code().unwrap_or_default().to_owned()))
    })
    .await;
    assert_eq!(code, "NoSuchBucket");
    aws.put(&bucket, "key", "its objects are there at once").await;
    aws.settled(&[&bucket]).await;
    aws.s3.head_bucket().bucket(&bucket).send().await.expect("it is known");
}

#[tokio::test]
async fn settings_of_a_bucket_get_into_each_others_way() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    aws.settled(&[&bucket]).await;
    let tag = async || {
        let tag = aws_sdk_s3::types::Tag::builder().key("k").value("v").build().expect("complete");
        let tags = Tagging::builder().tag_set(tag).build().expect("complete");
        aws.s3.put_bucket_tagging().bucket(&bucket).tagging(tags).send().await
    };
    let code = met("a conflict", async |_| early(tag().await)).await;
    assert_eq!(code, "OperationAborted");
    aws.put(&bucket, "key", "objects are not settings").await;
    known(async || tag().await).await;
}

#[tokio::test]
async fn new_objects_may_be_missed_after_versions_are_switched_on() {
    let aws = Aws::new();
    let versions = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let put = async |bucket: &str, key: &str| {
        let put = aws.s3.put_object().bucket(bucket).key(key).if_none_match("*");
        put.body(b"text".to_vec().into()).send().await
    };
    let bucket = aws.bucket().await;
    let enable = aws.s3.put_bucket_versioning().bucket(&bucket).versioning_configuration(versions);
    known(async || enable.clone().send().await).await;
    let key = met("an object that is not found", async |number| {
        let key = number.to_string();
        put(&bucket, &key).await.expect("written");
        let got = aws.s3.get_object().bucket(&bucket).key(&key).send().await;
        got.err().map(|error| (error.code().unwrap_or_default().to_owned(), key))
    });
    let (code, key) = key.await;
    assert_eq!(code, "NoSuchKey");
    assert_eq!(crate::support::code(put(&bucket, &key).await), "PreconditionFailed", "writes are right");
    eventually("the object is found", async || {
        let head = aws.s3.head_object().bucket(&bucket).key(&key).send().await;
        head.map(drop).map_err(|error| format!("{error:?}"))
    })
    .await;
}

async fn calls_of(user: &str) -> Vec<Record> {
    let url = format!("{}/_local-cloud/calls", cloud().endpoint);
    let all: Vec<Record> = reqwest::get(url).await.expect("an answer").json().await.expect("records");
    all.into_iter().filter(|record| record.caller.name == user).collect()
}

#[tokio::test]
async fn a_call_that_comes_too_early_is_recorded_and_counted() {
    let aws = Aws::of_user("too-early").await;
    met("a role that is not found", async |number| {
        let name = format!("recorded-{number}");
        let create = aws.iam.create_role().role_name(&name).assume_role_policy_document("{}");
        create.send().await.expect("a role");
        early(aws.iam.tag_role().role_name(&name).set_tags(Some(Vec::new())).send().await)
    })
    .await;
    let records = calls_of("too-early").await;
    let last = records.iter().rfind(|record| record.action == "TagRole").expect("a record");
    assert_eq!((last.outcome, last.status), (Outcome::Refused, Some(404)));
    assert_eq!(last.error.as_deref(), Some("NoSuchEntity"));
    let report = aws.consistency().await;
    assert!(report.callers["too-early"][&Behaviour::NoSuchEntity] >= 1, "{report:?}");
    assert_eq!(report.answers.values().sum::<u64>(), report.total);
}

/// If a rule says that a call is carried out, nothing else prevents it.
#[tokio::test]
async fn a_call_that_a_fault_hits_is_never_too_early() {
    let aws = Aws::of_user("never-too-early").await;
    let url = format!("{}/_local-cloud/api-faults", cloud().endpoint);
    let rule = serde_json::json!({
        "effect": {"kind": "delay", "millis": 1},
        "calls": {"service": "iam", "action": "PutRolePolicy", "caller": "never-too-early"},
        "limit": {"times": 60}
    });
    let http = reqwest::Client::new();
    let id: u32 = http.post(&url).json(&rule).send().await.expect("an answer").json().await.expect("an id");
    for number in 1..=60 {
        let name = format!("hit-{number}");
        let create = aws.iam.create_role().role_name(&name).assume_role_policy_document("{}");
        create.send().await.expect("a role");
        let put = aws.iam.put_role_policy().role_name(&name).policy_name("p").policy_document(POLICY);
        put.send().await.expect("carried out");
    }
    http.delete(format!("{url}/{id}")).send().await.expect("an answer");
}
