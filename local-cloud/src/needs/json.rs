//! EventBridge, CloudWatch Logs, and other services that name the operation in `X-Amz-Target`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Asked, arn};
use crate::call::Call;
use crate::call::Tags;

pub(super) fn needs(call: &Call, body: &[u8], region: &str) -> Vec<Asked> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body[key].as_str();
    let (service, action) = (call.service.as_str(), call.action.as_str());
    let resource = match service {
        "events" => {
            let rule = text("Rule").or_else(|| text("Name"));
            rule.map_or("*".to_owned(), |rule| arn("events", region, &format!("rule/{rule}")))
        }
        // AWS's refusals show that a policy must match this ARN, even if the call asks for all groups.
        "logs" => {
            let (group, stream) = (text("logGroupName").unwrap_or(""), text("logStreamName").unwrap_or(""));
            arn("logs", region, &format!("log-group:{group}:log-stream:{stream}"))
        }
        _ => "*".to_owned(),
    };
    let tags = tags(&body);
    let mut all = vec![Asked::new(format!("{service}:{action}"), &resource).with_tags(&tags)];
    if !tags.is_empty() && matches!(action, "PutRule" | "CreateLogGroup") {
        // Groups are tagged by their own name, without a stream.
        let group = text("logGroupName").map(|group| arn("logs", region, &format!("log-group:{group}")));
        let tagging = Asked::new(format!("{service}:TagResource"), group.unwrap_or(resource));
        all.push(tagging.with_tags(&tags));
    }
    all
}

/// EventBridge writes a list of pairs, Logs a map.
fn tags(body: &Value) -> Tags {
    let pairs = body["Tags"].as_array().into_iter().flatten();
    let of_pair = |tag: &Value| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].as_str()?.to_owned()));
    let map = body["tags"].as_object().into_iter().flatten();
    let of_map = map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    pairs.filter_map(of_pair).chain(of_map).collect::<BTreeMap<_, _>>()
}
