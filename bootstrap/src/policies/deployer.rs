//! The IAM managed policy that `bootstrap` needs for one stack; `iam-policy` prints it.
//!
//! | statements | cover |
//! |---|---|
//! | `Look` | calls that know no resources: everything is found by tag and name |
//! | `Buckets`, `Objects` | the stack's two buckets, by name |
//! | `Roles`, `Profiles`, `HandTo…`, `SpotRole` | the stack's three roles and two profiles, by name |
//! | `Function`, `Schedule`, `Log` | the reconciler, by name |
//! | `MakeTagged`, `TagNew` | a new resource carries the stack's tag from its first moment |
//! | `UseOwn` | what carries the tag may be built upon, changed and removed, and nothing else |
//! | `Image`, `Interface` | what takes part and may be without the tag |
//!
//! A caller who may write a role's policy and pass the role can give itself every permission. A permissions
//! boundary prevents that: with one, roles are made and written only within it (`OnlyWithin`).
//!
//! `sts:GetCallerIdentity` needs no permission. EC2 authorizes a call once for each resource it touches, with
//! the keys that this kind of resource has: a new resource has the tags of the request, an existing one its
//! own. That is why most ways of making something are in two statements.
//!
//! Not allowed on purpose: `iam:DeleteRolePermissionsBoundary` (an operator who set a boundary wants to keep
//! it), `iam:UpdateAssumeRolePolicy` (no other principal is to assume the roles),
//! `ec2:DescribeInstanceAttribute`, and tags on existing resources (the tag is what opens everything else).

use fleet::stack::TAG_STACK;
use serde_json::{Map, Value, json};

use super::bucket_arn;
use crate::names::Names;

/// IAM's limit for one managed policy; it does not count white space.
pub const MAX_CHARS: usize = 6144;

/// Calls that every command makes to find the stack's resources, and `doctor` to check the account.
const LOOK: [&str; 17] = [
    // AccountAttributes, Addresses, AvailabilityZones: a policy has few characters to spare.
    "ec2:DescribeA*",
    "ec2:DescribeE*",
    "ec2:DescribeImages",
    // Not DescribeInstanceAttribute, which shows the user data of every machine in the account.
    "ec2:DescribeInstanceType*",
    "ec2:DescribeInstances",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpc*",
    // Lambda calls this with the deployer's identity when a function gets into a VPC.
    "ec2:GetSecurityGroupsForVpc",
    // For roles that `cargo lambda` left behind.
    "iam:ListRoles",
    // `deploy` and `plan` check beforehand what these credentials may do. IAM has no policy variable for a
    // role's name, so this cannot be limited to the caller's own role.
    "iam:SimulatePrincipalPolicy",
    "lambda:GetAccountSettings",
    "logs:DescribeLogGroups",
    // An interface endpoint brings a private hosted zone with it, which EC2 associates with the deployer's
    // identity.
    "route53:AssociateVPCWithHostedZone",
    "servicequotas:GetServiceQuota",
];

/// Actions that decide on the permissions of the stack's roles.
const WRITE_ROLES: [&str; 2] = ["iam:CreateRole", "iam:PutRole*"];

/// Returns the `Sid`s of the statements that allow an action: a caller who is denied it lacks them.
pub fn statements_with(action: &str) -> Vec<String> {
    let names = Names {
        stack: "vigia".parse().expect("a name of a stack"),
        account: "000000000000".to_owned(),
        region: "us-east-1".to_owned(),
        partition: "aws".to_owned(),
    };
    let policy = deployer(&names, None);
    let allows = |statement: &&Value| {
        let actions = statement["Action"].as_array().into_iter().flatten();
        actions.filter_map(Value::as_str).any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => action.starts_with(start),
            None => action == pattern,
        })
    };
    let statements = policy["Statement"].as_array().into_iter().flatten();
    statements.filter(allows).filter_map(|statement| statement["Sid"].as_str()).map(str::to_owned).collect()
}

/// Returns the policy for one stack. With a boundary, only roles that have it may be made or given policies.
pub fn deployer(names: &Names, boundary: Option<&str>) -> Value {
    let Names { account, region, partition, stack } = names;
    let buckets = [names.data_bucket(), names.control_bucket()].map(|bucket| bucket_arn(names, &bucket));
    let ec2 = |what: &str| format!("arn:{partition}:ec2:{region}:{account}:{what}/*");
    let [worker, lb, reconciler] =
        ["worker", "lb", "reconciler"].map(|what| names.role_arn(&stack.resource(what)));
    let profile =
        |what: &str| format!("arn:{partition}:iam::{account}:instance-profile/{}", stack.resource(what));
    let group = format!("arn:{partition}:logs:{region}:{account}:log-group:{}", stack.log_group());
    let equals = |key: String, value: Value| json!({"StringEquals": Map::from_iter([(key, value)])});
    let with_tag = || equals(format!("aws:RequestTag/{TAG_STACK}"), json!(stack));
    let of_stack = || equals(format!("aws:ResourceTag/{TAG_STACK}"), json!(stack));
    let passed_to = |service: &str| equals("iam:PassedToService".to_owned(), json!(service));
    let statements = [
        allow("Look", &LOOK, json!("*")),
        allow(
            "Buckets",
            &[
                "s3:CreateBucket",
                "s3:DeleteBucket",
                "s3:Get*",
                "s3:ListBucket*",
                "s3:PutBucketOwnershipControls",
                "s3:PutBucketPolicy",
                "s3:PutBucketPublicAccessBlock",
                "s3:PutBucketTagging",
                "s3:PutBucketVersioning",
                "s3:PutEncryptionConfiguration",
                "s3:PutLifecycleConfiguration",
            ],
            json!(buckets),
        ),
        allow(
            "Objects",
            &["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"],
            json!(buckets.each_ref().map(|bucket| format!("{bucket}/*"))),
        ),
        allow(
            "Roles",
            &[
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:DeleteRolePolicy",
                "iam:GetRole*",
                "iam:ListRolePolicies",
                "iam:PutRolePermissionsBoundary",
                "iam:PutRolePolicy",
                "iam:TagRole",
            ],
            json!([worker, lb, reconciler]),
        ),
        allow(
            "Profiles",
            &[
                "iam:AddRoleToInstanceProfile",
                "iam:CreateInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:GetInstanceProfile",
                "iam:RemoveRoleFromInstanceProfile",
                "iam:TagInstanceProfile",
            ],
            json!([profile("worker"), profile("lb")]),
        ),
        allow("HandToInstances", &["iam:PassRole"], json!([worker, lb])).when(passed_to("ec2.amazonaws.com")),
        allow("HandToFunction", &["iam:PassRole"], json!(reconciler)).when(passed_to("lambda.amazonaws.com")),
        // Once in an account, the first time that it uses spot instances.
        allow(
            "SpotRole",
            &["iam:CreateServiceLinkedRole"],
            json!(names.role_arn("aws-service-role/spot.amazonaws.com/*")),
        ),
        // `cargo lambda deploy` publishes a version each time; older versions are deleted.
        allow(
            "Function",
            &[
                "lambda:AddPermission",
                "lambda:CreateFunction",
                "lambda:DeleteFunction",
                "lambda:Get*",
                "lambda:InvokeFunction",
                "lambda:List*",
                "lambda:PublishVersion",
                "lambda:PutFunctionEventInvokeConfig",
                "lambda:TagResource",
                "lambda:UpdateFunctionCode",
                "lambda:UpdateFunctionConfiguration",
            ],
            // Of a version, its own name.
            json!([names.function_arn(), format!("{}:*", names.function_arn())]),
        ),
        allow(
            "Schedule",
            &[
                "events:DeleteRule",
                "events:DescribeRule",
                "events:ListTargetsByRule",
                "events:PutRule",
                "events:PutTargets",
                "events:RemoveTargets",
                "events:TagResource",
            ],
            json!(names.rule_arn()),
        ),
        // Tagging uses the group's ARN without the asterisk, all other calls with it.
        allow(
            "Log",
            &[
                "logs:CreateLogGroup",
                "logs:DeleteLogGroup",
                "logs:FilterLogEvents",
                "logs:PutRetentionPolicy",
                "logs:TagResource",
            ],
            json!([group, format!("{group}:*")]),
        ),
        allow(
            "MakeTagged",
            &[
                "ec2:AllocateAddress",
                "ec2:CreateEgressOnlyInternetGateway",
                "ec2:CreateInternetGateway",
                "ec2:CreateRouteTable",
                "ec2:CreateSecurityGroup",
                "ec2:CreateSubnet",
                "ec2:CreateVpc",
                "ec2:CreateVpcEndpoint",
                "ec2:RunInstances",
            ],
            json!(ec2("*")),
        )
        .when(with_tag()),
        allow("TagNew", &["ec2:CreateTags"], json!(ec2("*")))
            .when(json!({"Null": {"ec2:CreateAction": "false"}})),
        allow(
            "UseOwn",
            &[
                "ec2:AssociateAddress",
                "ec2:AssociateRouteTable",
                "ec2:AssociateSubnetCidrBlock",
                "ec2:AssociateVpcCidrBlock",
                "ec2:AttachInternetGateway",
                "ec2:AuthorizeSecurityGroupEgress",
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:CreateEgressOnlyInternetGateway",
                "ec2:CreateRoute",
                "ec2:CreateRouteTable",
                "ec2:CreateSecurityGroup",
                "ec2:CreateSubnet",
                "ec2:CreateVpcEndpoint",
                "ec2:DeleteEgressOnlyInternetGateway",
                "ec2:DeleteInternetGateway",
                "ec2:DeleteRouteTable",
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteSubnet",
                "ec2:DeleteVpc",
                "ec2:DeleteVpcEndpoints",
                "ec2:DetachInternetGateway",
                "ec2:DisassociateAddress",
                "ec2:DisassociateRouteTable",
                "ec2:GetConsoleOutput",
                "ec2:ModifyVpcAttribute",
                "ec2:ReleaseAddress",
                "ec2:ReplaceRoute",
                "ec2:RevokeSecurityGroupIngress",
                "ec2:RunInstances",
                "ec2:TerminateInstances",
            ],
            json!(ec2("*")),
        )
        .when(of_stack()),
        allow("Image", &["ec2:RunInstances"], json!(format!("arn:{partition}:ec2:{region}::image/*"))),
        // Load balancers of earlier versions have interfaces without the tag. Only the stack's own address,
        // which the statement above checks, can be disassociated.
        allow("Interface", &["ec2:DisassociateAddress"], json!(ec2("network-interface"))),
    ];
    let mut statements = statements.map(|statement| statement.0).to_vec();
    // A denial, so that no other policy of the deployer allows it again. A role without a boundary has no
    // such key, and then the condition holds.
    statements.extend(boundary.map(|arn| {
        json!({
            "Sid": "OnlyWithin", "Effect": "Deny", "Action": WRITE_ROLES, "Resource": "*",
            "Condition": {"StringNotEquals": {"iam:PermissionsBoundary": arn}}
        })
    }));
    super::policy(&statements)
}

struct Statement(Value);

impl Statement {
    fn when(mut self, condition: Value) -> Self {
        self.0["Condition"] = condition;
        self
    }
}

fn allow(sid: &str, actions: &[&str], resource: impl Into<Value>) -> Statement {
    let resource = resource.into();
    Statement(json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}))
}

/// Returns the length as IAM counts it. No name that Vigia uses has white space in it.
pub fn chars(policy: &Value) -> usize {
    policy.to_string().chars().filter(|c| !c.is_whitespace()).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(stack: &str, region: &str, partition: &str) -> Names {
        Names { region: region.to_owned(), partition: partition.to_owned(), ..Names::example(stack) }
    }

    fn statements(policy: &Value) -> &Vec<Value> {
        policy["Statement"].as_array().expect("statements")
    }

    fn texts(value: &Value) -> Vec<&str> {
        match value {
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        }
    }

    #[test]
    fn with_the_longest_names_it_fits_a_managed_policy() {
        for (region, partition) in [("us-gov-west-1", "aws-us-gov"), ("ap-southeast-1", "aws")] {
            let boundary = format!("arn:{partition}:iam::123456789012:policy/{}", "b".repeat(48));
            let policy = deployer(&names("abcdefghijklmnopqrst", region, partition), Some(&boundary));
            let chars = chars(&policy);
            assert!(chars <= MAX_CHARS, "{chars} in {region}");
        }
    }

    #[test]
    fn each_statement_has_a_name_of_its_own_that_iam_takes() {
        let policy = deployer(&names("a", "eu-west-1", "aws"), None);
        let sids: BTreeSet<&str> = statements(&policy).iter().filter_map(|s| s["Sid"].as_str()).collect();
        assert_eq!(sids.len(), statements(&policy).len());
        assert!(sids.iter().all(|sid| sid.bytes().all(|b| b.is_ascii_alphanumeric())), "{sids:?}");
    }

    #[test]
    fn only_looking_is_allowed_by_patterns_and_on_everything() {
        let policy = deployer(&names("a", "eu-west-1", "aws"), None);
        for statement in statements(&policy) {
            for action in texts(&statement["Action"]) {
                let looks = ["Describe", "Get", "List", "Simulate"]
                    .iter()
                    .any(|verb| action.contains(&format!(":{verb}")));
                let in_our_name = action == "route53:AssociateVPCWithHostedZone";
                let on_all = texts(&statement["Resource"]).contains(&"*");
                assert!(!on_all || looks || in_our_name, "{action} on everything");
                assert!(!action.contains('*') || looks, "{action}");
            }
        }
    }

    /// Actions that neither a name nor a tag of the stack limits.
    #[test]
    fn everything_else_is_bound_to_the_stack() {
        let policy = deployer(&names("team-a", "eu-west-1", "aws"), None);
        let unbound: Vec<&str> = statements(&policy)
            .iter()
            .filter(|s| {
                let named = texts(&s["Resource"]).iter().all(|arn| arn.contains("vigia-team-a-"));
                let tagged = s["Condition"].to_string().contains("vigia:stack\":\"team-a\"");
                !named && !tagged
            })
            .filter_map(|s| s["Sid"].as_str())
            .collect();
        assert_eq!(unbound, ["Look", "SpotRole", "TagNew", "Image", "Interface"]);
    }

    #[test]
    fn a_boundary_is_a_condition_of_all_that_gives_roles_permissions() {
        const ARN: &str = "arn:aws:iam::123456789012:policy/limits";
        let policy = deployer(&names("a", "eu-west-1", "aws"), Some(ARN));
        let denying: Vec<_> = statements(&policy).iter().filter(|s| s["Effect"] == "Deny").collect();
        assert_eq!(denying.len(), 1);
        assert_eq!(texts(&denying[0]["Action"]), WRITE_ROLES);
        assert_eq!(
            (&denying[0]["Resource"], &denying[0]["Condition"]["StringNotEquals"]["iam:PermissionsBoundary"]),
            (&json!("*"), &json!(ARN))
        );
        assert!(!policy.to_string().contains("DeleteRolePermissionsBoundary"));
    }

    #[test]
    fn an_address_goes_to_interfaces_of_the_stack_only() {
        let policy = deployer(&names("a", "eu-west-1", "aws"), None);
        for action in ["ec2:AssociateAddress", "ec2:RunInstances"] {
            let unconditional = statements(&policy).iter().filter(|s| {
                texts(&s["Action"]).contains(&action)
                    && texts(&s["Resource"]).iter().any(|arn| arn.contains("network-interface"))
            });
            assert_eq!(unconditional.count(), 0, "{action}");
        }
    }

    #[test]
    fn a_denied_action_leads_to_its_statements() {
        for (action, expected) in [
            ("iam:PutRolePolicy", &["Roles"][..]),
            ("ec2:DescribeInstanceTypes", &["Look"]),
            ("ec2:CreateSubnet", &["MakeTagged", "UseOwn"]),
            ("iam:PassRole", &["HandToInstances", "HandToFunction"]),
            ("iam:DeleteUser", &[]),
        ] {
            assert_eq!(statements_with(action), expected, "{action}");
        }
    }

    #[test]
    fn tags_are_given_only_to_what_is_being_made() {
        let policy = deployer(&names("a", "eu-west-1", "aws"), None);
        let tagging: Vec<&Value> =
            statements(&policy).iter().filter(|s| texts(&s["Action"]).contains(&"ec2:CreateTags")).collect();
        assert_eq!(tagging.len(), 1);
        assert_eq!(tagging[0]["Condition"]["Null"]["ec2:CreateAction"], "false");
    }
}
