//! Calls are carried out only if the caller's policies allow them, and refused as AWS refuses.

use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType as Decision};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use local_cloud::ACCOUNT;
use local_cloud::iam::verdicts::Report;
use serde_json::{Value, json};

use crate::metadata::aws_of;
use crate::support::{Aws, ELASTIC_IP_POOL, cloud, code, known, launched, profile};

fn allow(action: &str, resource: &str) -> Value {
    json!({"Effect": "Allow", "Action": action, "Resource": resource})
}

async fn control(path: &str) -> String {
    let url = format!("{}/_local-cloud/{path}", cloud().endpoint);
    reqwest::get(url).await.expect("an answer").text().await.expect("text")
}

fn tagged(kind: ResourceType, value: &str) -> TagSpecification {
    let tag = Tag::builder().key("stack").value(value).build();
    TagSpecification::builder().resource_type(kind).tags(tag).build()
}

#[tokio::test]
async fn a_call_that_no_policy_allows_is_refused_and_changes_nothing() {
    let root = Aws::new();
    let bucket = root.bucket().await;
    root.put(&bucket, "k", "old").await;
    let user =
        root.user("reader", &json!([allow("s3:GetObject", &format!("arn:aws:s3:::{bucket}/*"))])).await;
    assert_eq!(user.read(&bucket, "k").await, "old");
    let put = user.s3.put_object().bucket(&bucket).key("k").body(b"new".to_vec().into()).send().await;
    let error = put.expect_err("refused");
    assert_eq!(error.raw_response().map(|response| response.status().as_u16()), Some(403));
    assert_eq!(error.code(), Some("AccessDenied"));
    assert_eq!(
        error.message(),
        Some(
            format!(
                "User: arn:aws:iam::{ACCOUNT}:user/reader is not authorized to perform: s3:PutObject on resource: \
                 \"arn:aws:s3:::{bucket}/k\" because no identity-based policy allows the s3:PutObject action"
            )
            .as_str()
        )
    );
    assert_eq!(root.read(&bucket, "k").await, "old");
}

#[tokio::test]
async fn refusals_are_recorded_and_counted() {
    let root = Aws::new();
    let user = root.user("counted", &json!([allow("iam:ListRoles", "*")])).await;
    user.iam.list_roles().send().await.expect("allowed");
    let refused = user.ec2.create_vpc().cidr_block("10.81.0.0/16").send().await;
    assert_eq!(code(refused), "UnauthorizedOperation");
    let report: Report = serde_json::from_str(&control("iam").await).expect("a report");
    assert!(report.allowed > 0 && report.judged == report.allowed + report.denied, "{report:?}");
    let own: Vec<_> = report.denials.iter().filter(|one| one.principal.ends_with("user/counted")).collect();
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!(own[0].action, "ec2:CreateVpc");
    let calls: Vec<Value> = serde_json::from_str(&control("calls").await).expect("records");
    let own: Vec<_> = calls.iter().filter(|call| call["caller"] == "counted").collect();
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!((&own[0]["outcome"], &own[0]["error"]), (&json!("refused"), &json!("UnauthorizedOperation")));
}

#[tokio::test]
async fn services_that_speak_json_refuse_with_their_own_code() {
    let root = Aws::new();
    let user = root.user("idle", &json!([])).await;
    assert_eq!(code(user.lambda.list_functions().send().await), "AccessDeniedException");
    assert_eq!(code(user.events.list_targets_by_rule().rule("r").send().await), "AccessDeniedException");
    assert_eq!(code(user.logs.describe_log_groups().send().await), "AccessDeniedException");
    assert_eq!(code(user.iam.list_roles().send().await), "AccessDenied");
}

#[tokio::test]
async fn every_caller_may_learn_its_identity() {
    let root = Aws::new();
    let arn = async |aws: &Aws| {
        let identity = aws.sts.get_caller_identity().send().await.expect("this needs no permission");
        assert_eq!(identity.account(), Some(ACCOUNT));
        identity.arn().expect("an ARN").to_owned()
    };
    assert_eq!(arn(&root).await, format!("arn:aws:iam::{ACCOUNT}:root"));
    let user = root.user("curious", &json!([])).await;
    assert_eq!(arn(&user).await, format!("arn:aws:iam::{ACCOUNT}:user/curious"));
}

#[tokio::test]
async fn only_callers_who_may_list_learn_of_a_missing_object() {
    let root = Aws::new();
    let bucket = root.bucket().await;
    let get = allow("s3:GetObject", &format!("arn:aws:s3:::{bucket}/*"));
    let user = root.user("unlisted", &json!([get])).await;
    assert_eq!(code(user.s3.get_object().bucket(&bucket).key("none").send().await), "AccessDenied");
    let list = allow("s3:ListBucket", &format!("arn:aws:s3:::{bucket}"));
    root.user_policy("unlisted", &json!([get, list])).await;
    assert_eq!(code(user.s3.get_object().bucket(&bucket).key("none").send().await), "NoSuchKey");
}

#[tokio::test]
async fn deletions_are_refused_object_by_object() {
    let root = Aws::new();
    let bucket = root.bucket().await;
    root.put(&bucket, "k", "kept").await;
    let user = root.user("keeper", &json!([])).await;
    let object = ObjectIdentifier::builder().key("k").build().expect("a key");
    let delete = Delete::builder().objects(object).build().expect("one object");
    let deleted = user.s3.delete_objects().bucket(&bucket).delete(delete).send().await.expect("an answer");
    let errors: Vec<_> = deleted.errors().iter().map(|error| (error.key(), error.code())).collect();
    assert_eq!(errors, [(Some("k"), Some("AccessDenied"))]);
    assert_eq!(root.read(&bucket, "k").await, "kept");
}

#[tokio::test]
async fn tags_decide_on_existing_and_new_resources() {
    let root = Aws::new();
    let (vpc, _) = root.vpc("10.82.0.0/16").await;
    let ec2 = format!("arn:aws:ec2:us-east-1:{ACCOUNT}");
    let user = root
        .user(
            "tagger",
            &json!([
                {"Effect": "Allow", "Action": "ec2:CreateSecurityGroup", "Resource": format!("{ec2}:security-group/*"),
                 "Condition": {"StringEquals": {"aws:RequestTag/stack": "a"}}},
                allow("ec2:CreateSecurityGroup", &format!("{ec2}:vpc/{vpc}")),
                {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": format!("{ec2}:*/*"),
                 "Condition": {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}}},
                {"Effect": "Allow", "Action": "ec2:DeleteSecurityGroup", "Resource": format!("{ec2}:security-group/*"),
                 "Condition": {"StringEquals": {"aws:ResourceTag/stack": "a"}}},
            ]),
        )
        .await;
    let make = |aws: &Aws, name: &str, tag: Option<&str>| {
        let tags = tag.map(|tag| vec![tagged(ResourceType::SecurityGroup, tag)]);
        let create = aws.ec2.create_security_group().group_name(name).description("x").vpc_id(&vpc);
        create.set_tag_specifications(tags).send()
    };
    root.settled(&[&vpc]).await;
    assert_eq!(code(make(&user, "untagged", None).await), "UnauthorizedOperation");
    assert_eq!(code(make(&user, "other", Some("b")).await), "UnauthorizedOperation");
    let own = make(&user, "own", Some("a")).await.expect("allowed").group_id().expect("an id").to_owned();
    let other = make(&root, "other", Some("b")).await.expect("a group").group_id().expect("an id").to_owned();
    root.settled(&[&own, &other]).await;
    let delete = async |id: &str| user.ec2.delete_security_group().group_id(id).send().await;
    assert_eq!(code(delete(&other).await), "UnauthorizedOperation");
    delete(&own).await.expect("allowed");
    assert_eq!(code(delete(&own).await), "InvalidGroup.NotFound", "a removed resource has no tags to match");
}

#[tokio::test]
async fn a_dry_run_says_whether_it_is_allowed_and_does_nothing() {
    let root = Aws::new();
    let user = root.user("careful", &json!([allow("ec2:CreateVpc", "*")])).await;
    let vpc = user.ec2.create_vpc().cidr_block("10.183.0.0/16").dry_run(true).send().await;
    assert_eq!(code(vpc), "DryRunOperation");
    let address = user.ec2.allocate_address().dry_run(true).send().await;
    assert_eq!(code(address), "UnauthorizedOperation");
    let of_block = Filter::builder().name("cidr-block").values("127.183.0.0/16").build();
    let made = root.ec2.describe_vpcs().filters(of_block).send().await.expect("listed");
    assert_eq!(made.vpcs().len(), 0, "{made:?}");
}

#[tokio::test]
async fn a_launch_needs_permission_to_pass_the_profiles_role() {
    let root = Aws::new();
    root.profile("handed-over").await;
    let network = root.network().await;
    let run = allow("ec2:RunInstances", "*");
    let user = root.user("launcher", &json!([run])).await;
    let launch = |aws: &Aws| aws.launch(&network).iam_instance_profile(profile("handed-over"));
    let refused = launch(&user).send().await.expect_err("refused");
    assert!(refused.message().unwrap_or_default().contains("iam:PassRole on resource: "), "{refused:?}");
    launch(&Aws::with_key(("test", "test", None))).dry_run(true).send().await.expect_err("a dry run");
    let pass = json!({"Effect": "Allow", "Action": "iam:PassRole",
        "Resource": format!("arn:aws:iam::{ACCOUNT}:role/handed-over"),
        "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}});
    root.user_policy("launcher", &json!([run, pass])).await;
    let instance = launched(launch(&user)).await;
    root.terminate(&instance.id).await;
}

#[tokio::test]
async fn an_instance_has_the_policy_of_its_role_within_its_boundary() {
    let root = Aws::new();
    let bucket = root.bucket().await;
    root.put(&bucket, "k", "v").await;
    let all = format!("arn:aws:s3:::{bucket}/*");
    root.profile_with("bounded", &json!([allow("s3:GetObject", &all), allow("s3:PutObject", &all)])).await;
    let network = root.network().await;
    let instance = launched(root.launch(&network).iam_instance_profile(profile("bounded"))).await;
    let aws = aws_of(&instance, "bounded").await;
    aws.put(&bucket, "k", "w").await;
    let limits = json!({"Version": "2012-10-17", "Statement": [allow("s3:GetObject", "*")]}).to_string();
    let limits = root.iam.create_policy().policy_name("limits").policy_document(limits).send().await;
    let limits =
        limits.expect("a policy").policy().and_then(|policy| policy.arn()).expect("an ARN").to_owned();
    let put = root.iam.put_role_permissions_boundary().role_name("bounded").permissions_boundary(limits);
    put.send().await.expect("a boundary");
    assert_eq!(aws.read(&bucket, "k").await, "w");
    let refused = aws.s3.put_object().bucket(&bucket).key("k").send().await.expect_err("refused");
    let said = refused.message().unwrap_or_default();
    assert!(said.contains(&format!("assumed-role/bounded/{}", instance.id)), "{said}");
    assert!(said.contains("no permissions boundary allows"), "{said}");
    root.terminate(&instance.id).await;
}

#[tokio::test]
async fn an_address_moves_only_to_an_interface_with_the_tag() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let root = Aws::new();
    let network = root.network().await;
    let of_stack = json!({"StringEquals": {"aws:ResourceTag/stack": "a"}});
    let mut move_own = allow("ec2:AssociateAddress", &format!("arn:aws:ec2:us-east-1:{ACCOUNT}:*/*"));
    move_own["Condition"] = of_stack;
    let user = root.user("mover", &json!([move_own])).await;
    let address = root.ec2.allocate_address().tag_specifications(tagged(ResourceType::ElasticIp, "a"));
    let address = address.send().await.expect("an address").allocation_id().expect("an id").to_owned();
    for (kinds, is_allowed) in [
        (&[ResourceType::Instance][..], false),
        (&[ResourceType::Instance, ResourceType::NetworkInterface], true),
    ] {
        let tags = kinds.iter().map(|kind| tagged(kind.clone(), "a")).collect();
        let instance = launched(root.launch(&network).set_tag_specifications(Some(tags))).await;
        root.settled(&[&instance.id, &address]).await;
        let moved =
            user.ec2.associate_address().allocation_id(&address).instance_id(&instance.id).send().await;
        assert_eq!(moved.is_ok(), is_allowed, "{moved:?}");
        root.terminate(&instance.id).await;
    }
    root.ec2.release_address().allocation_id(&address).send().await.expect("released");
}

#[tokio::test]
async fn a_bucket_policy_denies_even_the_root() {
    let root = Aws::new();
    let bucket = root.bucket().await;
    let deny = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": format!("arn:aws:s3:::{bucket}/*"),
        "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]});
    let put = root.s3.put_bucket_policy().bucket(&bucket).policy(deny.to_string());
    known(async || put.clone().send().await).await;
    let refused = root.s3.put_object().bucket(&bucket).key("k").send().await.expect_err("refused");
    assert!(refused.message().unwrap_or_default().contains("explicit deny in a resource-based policy"));
    // The root may always do this.
    known(async || root.s3.delete_bucket_policy().bucket(&bucket).send().await).await;
    root.put(&bucket, "k", "v").await;
}

#[tokio::test]
async fn a_role_is_assumed_by_trusted_principals_with_its_own_policy() {
    let root = Aws::new();
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:user/trusted")}}]});
    let made = root.iam.create_role().role_name("assumed").assume_role_policy_document(trust.to_string());
    made.send().await.expect("a role");
    let assume = json!([allow("sts:AssumeRole", "*")]);
    let (trusted, stranger) = (root.user("trusted", &assume).await, root.user("stranger", &assume).await);
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/assumed");
    let ask = |aws: &Aws| aws.sts.assume_role().role_arn(&arn).role_session_name("s").send();
    assert_eq!(code(ask(&stranger).await), "AccessDenied");
    let given = ask(&trusted).await.expect("allowed");
    let given = given.credentials().expect("credentials");
    let (key, secret, token) = (given.access_key_id(), given.secret_access_key(), given.session_token());
    let session = Aws::with_key((key, secret, Some(token)));
    let refused = session.iam.list_roles().send().await.expect_err("it has no policy");
    assert!(refused.message().unwrap_or_default().contains("assumed-role/assumed/s"), "{refused:?}");
}

#[tokio::test]
async fn a_simulation_agrees_with_the_front_door() {
    let root = Aws::new();
    let user = json!([
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*",
         "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}},
        allow("ec2:CreateVpc", "*"),
        {"Effect": "Deny", "Action": "ec2:DeleteVpc", "Resource": "*"},
    ]);
    root.user("simulated", &user).await;
    let arn = format!("arn:aws:iam::{ACCOUNT}:user/simulated");
    let ask = root.iam.simulate_principal_policy().policy_source_arn(&arn);
    let ask = ask.action_names("ec2:CreateVpc").action_names("ec2:DeleteVpc").action_names("iam:PassRole");
    let decisions =
        |answer: aws_sdk_iam::operation::simulate_principal_policy::SimulatePrincipalPolicyOutput| {
            answer
                .evaluation_results()
                .iter()
                .map(|result| result.eval_decision().clone())
                .collect::<Vec<_>>()
        };
    let without = decisions(ask.clone().send().await.expect("an answer"));
    assert_eq!(without, [Decision::Allowed, Decision::ExplicitDeny, Decision::ImplicitDeny]);
    let service = ContextEntry::builder()
        .context_key_name("iam:PassedToService")
        .context_key_type(ContextKeyTypeEnum::String)
        .context_key_values("ec2.amazonaws.com")
        .build();
    let with = decisions(ask.context_entries(service).send().await.expect("an answer"));
    assert_eq!(with[2], Decision::Allowed);
}

#[tokio::test]
async fn a_key_that_is_deleted_is_refused() {
    let root = Aws::new();
    root.iam.create_user().user_name("leaver").send().await.expect("a user");
    let made = root.iam.create_access_key().user_name("leaver").send().await.expect("a key");
    let key = made.access_key().expect("a key");
    let user = Aws::with_key((key.access_key_id(), key.secret_access_key(), None));
    user.sts.get_caller_identity().send().await.expect("it is known");
    let delete = root.iam.delete_access_key().user_name("leaver").access_key_id(key.access_key_id());
    delete.send().await.expect("deleted");
    assert_eq!(code(user.sts.get_caller_identity().send().await), "InvalidClientTokenId");
}
