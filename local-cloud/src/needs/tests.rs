use axum::body::Bytes;

use super::*;
use crate::call::Caller;
use crate::credentials::Principal;

const REGION: &str = "eu-west-1";

/// Returns the needs of a signed request with these headers.
fn needs(service: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Needs {
    let scope = format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    );
    let mut request = hyper::Request::builder().method(method).uri(path).header("authorization", scope);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).expect("a valid request").into_parts();
    let caller = Caller::new("test", &Principal::Operator);
    let body = Bytes::from(body.to_owned());
    let admitted = Admitted { service: service.to_owned(), caller, parts, body };
    Needs::of(&Call::of(&admitted), &admitted)
}

fn pairs(needs: &Needs) -> Vec<(&str, &str)> {
    needs.all.iter().map(|asked| (asked.action.as_str(), asked.resource.as_str())).collect()
}

#[test]
fn an_s3_request_is_named_by_method_path_and_query() {
    for (method, path, action, resource) in [
        ("GET", "/", "s3:ListAllMyBuckets", "*"),
        ("PUT", "/b", "s3:CreateBucket", "arn:aws:s3:::b"),
        ("HEAD", "/b", "s3:ListBucket", "arn:aws:s3:::b"),
        ("GET", "/b?list-type=2&prefix=users%2F", "s3:ListBucket", "arn:aws:s3:::b"),
        ("GET", "/b/?list-type=2", "s3:ListBucket", "arn:aws:s3:::b"),
        ("GET", "/b?versions", "s3:ListBucketVersions", "arn:aws:s3:::b"),
        ("DELETE", "/b", "s3:DeleteBucket", "arn:aws:s3:::b"),
        ("PUT", "/b?versioning", "s3:PutBucketVersioning", "arn:aws:s3:::b"),
        ("GET", "/b?tagging", "s3:GetBucketTagging", "arn:aws:s3:::b"),
        ("PUT", "/b?lifecycle", "s3:PutLifecycleConfiguration", "arn:aws:s3:::b"),
        ("DELETE", "/b?policy", "s3:DeleteBucketPolicy", "arn:aws:s3:::b"),
        ("PUT", "/b/users/a%20b?x-id=PutObject", "s3:PutObject", "arn:aws:s3:::b/users/a b"),
        ("HEAD", "/b/k", "s3:GetObject", "arn:aws:s3:::b/k"),
        ("GET", "/b/k?versionId=1", "s3:GetObjectVersion", "arn:aws:s3:::b/k"),
        ("DELETE", "/b/k", "s3:DeleteObject", "arn:aws:s3:::b/k"),
        ("DELETE", "/b/k?versionId=1", "s3:DeleteObjectVersion", "arn:aws:s3:::b/k"),
        ("DELETE", "/b/k?uploadId=1", "s3:AbortMultipartUpload", "arn:aws:s3:::b/k"),
        ("PUT", "/b/k?partNumber=1&uploadId=1", "s3:PutObject", "arn:aws:s3:::b/k"),
        ("PATCH", "/b/k", "s3:PATCH object", "arn:aws:s3:::b/k"),
    ] {
        assert_eq!(pairs(&needs("s3", method, path, &[], "")), [(action, resource)], "{method} {path}");
    }
    let many =
        "<Delete><Object><Key>a</Key></Object><Object><Key>b</Key><VersionId>1</VersionId></Object></Delete>";
    assert_eq!(
        pairs(&needs("s3", "POST", "/b?delete", &[], many)),
        [("s3:DeleteObject", "arn:aws:s3:::b/a"), ("s3:DeleteObjectVersion", "arn:aws:s3:::b/b")]
    );
    let copy = needs("s3", "PUT", "/b/k", &[("x-amz-copy-source", "/c/l%2Fm")], "");
    assert_eq!(pairs(&copy), [("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:GetObject", "arn:aws:s3:::c/l/m")]);
}

/// Without that permission S3 says 403, so "not there" and "not allowed" look the same.
#[test]
fn a_not_found_object_needs_permission_to_list_the_bucket() {
    let read = needs("s3", "GET", "/b/k", &[], "");
    assert_eq!(pairs(&read), [("s3:GetObject", "arn:aws:s3:::b/k")]);
    assert_eq!(read.after(StatusCode::OK), None);
    assert_eq!(read.after(StatusCode::NOT_FOUND), Some(Asked::new("s3:ListBucket", "arn:aws:s3:::b")));
}

#[test]
fn a_launch_needs_all_that_it_makes_names_tags_and_hands_over() {
    let form = "Action=RunInstances&SubnetId=subnet-1a&SecurityGroupId.1=sg-2b&ImageId=ami-3c\
        &IamInstanceProfile.Name=worker&UserData=i-said%20so\
        &TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v";
    let needs = needs("ec2", "POST", "/", &[], form);
    let own = |what: &str| format!("arn:aws:ec2:{REGION}:{ACCOUNT}:{what}");
    let (instance, volume, interface) = (own("instance/*"), own("volume/*"), own("network-interface/*"));
    let (subnet, group) = (own("subnet/subnet-1a"), own("security-group/sg-2b"));
    let role = format!("arn:aws:iam::{ACCOUNT}:role/worker");
    assert_eq!(
        pairs(&needs),
        [
            ("ec2:RunInstances", instance.as_str()),
            ("ec2:CreateTags", &instance),
            ("ec2:RunInstances", &volume),
            ("ec2:RunInstances", &interface),
            ("ec2:RunInstances", "arn:aws:ec2:eu-west-1::image/ami-3c"),
            ("ec2:RunInstances", &group),
            ("ec2:RunInstances", &subnet),
            ("iam:PassRole", &role),
        ]
    );
    let context = |number: usize, key: &str| needs.all[number].context.get(key).map(String::as_str);
    assert_eq!(context(0, "aws:RequestTag/k"), Some("v"));
    assert_eq!(
        (context(1, "aws:RequestTag/k"), context(1, "ec2:CreateAction")),
        (Some("v"), Some("RunInstances"))
    );
    assert_eq!(context(2, "aws:RequestTag/k"), None, "the volume is not tagged");
    assert_eq!(context(7, "iam:PassedToService"), Some("ec2.amazonaws.com"));
}

#[test]
fn tags_of_a_resource_are_only_in_its_own_context() {
    let mut needs =
        needs("ec2", "POST", "/", &[], "Action=AssociateAddress&AllocationId=eipalloc-1&InstanceId=i-2");
    assert_eq!(needs.ids(), ["eipalloc-1", "i-2"]);
    let tags = Tags::from([("vigia:stack".to_owned(), "a".to_owned())]);
    needs.add_resource_tags(&BTreeMap::from([("i-2".to_owned(), tags)]));
    let tagged: Vec<_> =
        needs.all.iter().filter(|asked| asked.context.contains_key("aws:ResourceTag/vigia:stack")).collect();
    assert_eq!(tagged.len(), 1, "{tagged:?}");
    assert!(tagged[0].resource.ends_with("instance/i-2"), "{tagged:?}");
}

#[test]
fn ids_exclude_kinds_and_associations_map_to_their_tables() {
    let make = "Action=CreateVpcEndpoint&VpcId=vpc-1a&TagSpecification.1.ResourceType=vpc-endpoint\
        &TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v";
    let vpc = format!("arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/vpc-1a");
    let named: Vec<_> = pairs(&needs("ec2", "POST", "/", &[], make))
        .into_iter()
        .filter(|(action, resource)| *action == "ec2:CreateVpcEndpoint" && !resource.ends_with("/*"))
        .map(|(_, resource)| resource.to_owned())
        .collect();
    assert_eq!(named, [vpc]);

    let mut release =
        needs("ec2", "POST", "/", &[], "Action=DisassociateRouteTable&AssociationId=rtbassoc-1a");
    release.are_about(&["rtb-2b".to_owned()]);
    let table = format!("arn:aws:ec2:{REGION}:{ACCOUNT}:route-table/rtb-2b");
    assert_eq!(pairs(&release), [("ec2:DisassociateRouteTable", table.as_str())]);
    assert_eq!(release.ids(), ["rtb-2b"]);
}

#[test]
fn moving_an_address_concerns_the_interface_of_the_instance() {
    let form = "Action=AssociateAddress&AllocationId=eipalloc-1&InstanceId=i-2";
    let mut associate = needs("ec2", "POST", "/", &[], form);
    associate.concerns_interface("eni-3");
    assert_eq!(associate.ids(), ["eni-3", "eipalloc-1", "i-2"]);
    let mut release = needs("ec2", "POST", "/", &[], "Action=DisassociateAddress&AssociationId=eipassoc-4");
    release.are_about(&["eipalloc-1".to_owned(), "eni-3".to_owned()]);
    assert_eq!(release.ids(), ["eipalloc-1", "eni-3"]);
}

#[test]
fn a_launch_of_a_spot_instance_makes_a_request_for_one() {
    let spot = "Action=RunInstances&InstanceMarketOptions.MarketType=spot";
    let is_request = |form| {
        let needs = needs("ec2", "POST", "/", &[], form);
        pairs(&needs).iter().any(|(_, resource)| resource.ends_with(":spot-instances-request/*"))
    };
    assert!(is_request(spot) && !is_request("Action=RunInstances"));
}

#[test]
fn a_launch_hands_over_the_role_in_its_profile() {
    let mut launch = needs("ec2", "POST", "/", &[], "Action=RunInstances&IamInstanceProfile.Name=profile");
    launch.hands_over("role");
    assert!(pairs(&launch).contains(&("iam:PassRole", &format!("arn:aws:iam::{ACCOUNT}:role/role"))));
}

#[test]
fn a_role_has_the_boundary_it_is_given_or_has_already() {
    let boundary = |body| {
        let mut needs = needs("iam", "POST", "/", &[], body);
        needs.are_of_role_within("arn:old");
        needs.all[0].context["iam:PermissionsBoundary"].clone()
    };
    assert_eq!(boundary("Action=PutRolePolicy&RoleName=r"), "arn:old");
    assert_eq!(
        boundary("Action=PutRolePermissionsBoundary&RoleName=r&PermissionsBoundary=arn:new"),
        "arn:new"
    );
}

#[test]
fn users_policies_and_roles_are_named_by_their_parameters() {
    let resource = |body| needs("iam", "POST", "/", &[], body).all[0].resource.clone();
    let own = |what: &str| format!("arn:aws:iam::{ACCOUNT}:{what}");
    assert_eq!(resource("Action=CreateUser&UserName=u"), own("user/u"));
    assert_eq!(resource("Action=CreatePolicy&PolicyName=p"), own("policy/p"));
    assert_eq!(resource("Action=SimulatePrincipalPolicy&PolicySourceArn=arn:x"), "arn:x");
    let spot = own("role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot");
    assert_eq!(resource("Action=CreateServiceLinkedRole&AWSServiceName=spot.amazonaws.com"), spot);
}

#[test]
fn an_ec2_read_has_no_resource_and_remembers_its_ids() {
    let form =
        "Action=DescribeInstances&Filter.1.Name=tag%3Avigia%3Astack&Filter.1.Value.1=a&InstanceId.1=i-1";
    let needs = needs("ec2", "POST", "/", &[], form);
    assert_eq!(pairs(&needs), [("ec2:DescribeInstances", "*")]);
    assert_eq!(needs.names, BTreeSet::from(["a".to_owned(), "i-1".to_owned()]));
}

#[test]
fn iam_tags_and_hands_over_what_it_makes() {
    let role = format!("arn:aws:iam::{ACCOUNT}:role/r");
    let profile = format!("arn:aws:iam::{ACCOUNT}:instance-profile/p");
    let create = "Action=CreateRole&RoleName=r&Tags.member.1.Key=k&Tags.member.1.Value=v";
    let put = "Action=AddRoleToInstanceProfile&InstanceProfileName=p&RoleName=r";
    let needs = |body| needs("iam", "POST", "/", &[], body);
    assert_eq!(pairs(&needs(create)), [("iam:CreateRole", role.as_str()), ("iam:TagRole", &role)]);
    assert_eq!(
        pairs(&needs(put)),
        [("iam:AddRoleToInstanceProfile", profile.as_str()), ("iam:PassRole", &role)]
    );
    assert_eq!(pairs(&needs("Action=ListRoles")), [("iam:ListRoles", "*")]);
}

#[test]
fn a_lambda_request_is_named_by_method_and_path() {
    let function = format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:f");
    for (method, path, action) in [
        ("GET", "/2015-03-31/functions/f", "lambda:GetFunction"),
        ("PUT", "/2015-03-31/functions/f/code", "lambda:UpdateFunctionCode"),
        ("POST", "/2015-03-31/functions/f/invocations", "lambda:InvokeFunction"),
        ("DELETE", "/2015-03-31/functions/f/policy/s", "lambda:RemovePermission"),
        ("PUT", "/2019-09-25/functions/f/event-invoke-config", "lambda:PutFunctionEventInvokeConfig"),
    ] {
        assert_eq!(pairs(&needs("lambda", method, path, &[], "")), [(action, function.as_str())]);
    }
    let unknown = needs("lambda", "PUT", "/2015-03-31/functions/f/x", &[], "");
    assert_eq!(unknown.all[0].action, "lambda:PUT /2015-03-31/functions/f/x");
    let body = r#"{"FunctionName": "f", "Role": "arn:aws:iam::0:role/r", "Tags": {"k": "v"},
        "VpcConfig": {"SubnetIds": ["subnet-1"]}}"#;
    let created = needs("lambda", "POST", "/2015-03-31/functions", &[], body);
    let actions: Vec<&str> = created.all.iter().map(|asked| asked.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "lambda:CreateFunction",
            "iam:PassRole",
            "lambda:TagResource",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs"
        ]
    );
    assert_eq!(created.all[1].context["iam:PassedToService"], "lambda.amazonaws.com");
}

#[test]
fn rules_and_log_groups_are_named_in_the_body() {
    let target = |operation| [("x-amz-target", operation)];
    let rule = format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/r");
    let body = r#"{"Name": "r", "Tags": [{"Key": "k", "Value": "v"}]}"#;
    let put = needs("events", "POST", "/", &target("AWSEvents.PutRule"), body);
    assert_eq!(pairs(&put), [("events:PutRule", rule.as_str()), ("events:TagResource", &rule)]);
    let list = needs("events", "POST", "/", &target("AWSEvents.ListTargetsByRule"), r#"{"Rule": "r"}"#);
    assert_eq!(pairs(&list), [("events:ListTargetsByRule", rule.as_str())]);
    let (of_streams, group) = (
        format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/g:log-stream:"),
        format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/g"),
    );
    let body = r#"{"logGroupName": "/g", "tags": {"k": "v"}}"#;
    let create = needs("logs", "POST", "/", &target("Logs_20140328.CreateLogGroup"), body);
    assert_eq!(pairs(&create), [("logs:CreateLogGroup", of_streams.as_str()), ("logs:TagResource", &group)]);
}

#[test]
fn ec2_lists_need_no_resource_and_a_console_needs_its_instance() {
    let list = needs("ec2", "POST", "/", &[], "Action=DescribeInstances&InstanceId.1=i-1a");
    assert_eq!(pairs(&list), [("ec2:DescribeInstances", "*")]);
    let console = needs("ec2", "POST", "/", &[], "Action=GetConsoleOutput&InstanceId=i-1a&Latest=true");
    let instance = format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-1a");
    assert_eq!(pairs(&console), [("ec2:GetConsoleOutput", instance.as_str())]);
}
