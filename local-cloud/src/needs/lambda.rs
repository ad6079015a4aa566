//! Lambda: the action follows from the method and the end of the path.

use serde_json::Value;

use super::{Asked, arn, ec2};
use crate::call::Admitted;

/// Below `/functions/NAME/`: the method, the path, the permission.
const OF_FUNCTION: [(&str, &str, &str); 19] = [
    ("GET", "", "GetFunction"),
    ("DELETE", "", "DeleteFunction"),
    ("GET", "configuration", "GetFunctionConfiguration"),
    ("PUT", "configuration", "UpdateFunctionConfiguration"),
    ("PUT", "code", "UpdateFunctionCode"),
    ("GET", "concurrency", "GetFunctionConcurrency"),
    ("PUT", "concurrency", "PutFunctionConcurrency"),
    ("DELETE", "concurrency", "DeleteFunctionConcurrency"),
    ("GET", "event-invoke-config", "GetFunctionEventInvokeConfig"),
    ("PUT", "event-invoke-config", "PutFunctionEventInvokeConfig"),
    ("POST", "event-invoke-config", "UpdateFunctionEventInvokeConfig"),
    ("DELETE", "event-invoke-config", "DeleteFunctionEventInvokeConfig"),
    ("POST", "invocations", "InvokeFunction"),
    ("GET", "policy", "GetPolicy"),
    ("POST", "policy", "AddPermission"),
    ("GET", "versions", "ListVersionsByFunction"),
    ("POST", "versions", "PublishVersion"),
    ("GET", "aliases", "ListAliases"),
    ("POST", "aliases", "CreateAlias"),
];

pub(super) fn needs(admitted: &Admitted, region: &str) -> Vec<Asked> {
    let method = admitted.parts.method.as_str();
    let path =
        percent_encoding::percent_decode_str(admitted.parts.uri.path()).decode_utf8_lossy().into_owned();
    let body: Value = serde_json::from_slice(&admitted.body).unwrap_or_default();
    let function = |name: &str| match name.strip_prefix("arn:") {
        Some(_) => name.to_owned(),
        None => arn("lambda", region, &format!("function:{name}")),
    };
    // The first segment is the date of the API's version.
    let segments: Vec<&str> = path.trim_matches('/').splitn(4, '/').skip(1).collect();
    let (action, resource) = match segments[..] {
        ["functions"] if method == "GET" => ("ListFunctions", "*".to_owned()),
        ["functions"] if method == "POST" => {
            ("CreateFunction", function(body["FunctionName"].as_str().unwrap_or("*")))
        }
        ["functions", name] => (of_function(method, ""), function(name)),
        ["functions", name, rest] if method == "DELETE" && rest.starts_with("policy/") => {
            ("RemovePermission", function(name))
        }
        ["functions", name, rest] => (of_function(method, rest), function(name)),
        ["account-settings"] => ("GetAccountSettings", "*".to_owned()),
        ["tags", ..] => {
            let action = match method {
                "GET" => "ListTags",
                "POST" => "TagResource",
                "DELETE" => "UntagResource",
                _ => "",
            };
            (action, segments[1..].join("/"))
        }
        _ => ("", "*".to_owned()),
    };
    let name = if action.is_empty() { format!("lambda:{method} {path}") } else { format!("lambda:{action}") };
    let mut all = vec![Asked::new(name, &resource)];
    if !matches!(action, "CreateFunction" | "UpdateFunctionConfiguration") {
        return all;
    }
    if let Some(role) = body["Role"].as_str().and_then(|role| role.rsplit('/').next()) {
        all.push(ec2::pass_to_lambda(role));
    }
    if body["Tags"].as_object().is_some_and(|tags| !tags.is_empty()) {
        all.push(Asked::new("lambda:TagResource", resource));
    }
    // Lambda looks these up on behalf of the caller (developer guide, "Giving Lambda functions access to
    // resources in an Amazon VPC").
    if body["VpcConfig"]["SubnetIds"].as_array().is_some_and(|subnets| !subnets.is_empty()) {
        let looks = ["ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs"];
        all.extend(looks.map(|look| Asked::new(look, "*")));
    }
    all
}

fn of_function(method: &str, rest: &str) -> &'static str {
    OF_FUNCTION.iter().find(|(m, path, _)| *m == method && *path == rest).map_or("", |(.., action)| action)
}
