//! Service Quotas, which neither emulator has: the values of this account's quotas.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Collected};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ACCOUNT;
use crate::account::Account;
use crate::quotas::Quota;
use crate::reply::refusal;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    service_code: String,
    quota_code: Option<String>,
}

/// Answers the operation of this name.
pub fn answer(account: &Account, region: &str, operation: &str, body: &[u8]) -> Response<Body> {
    let Ok(asked) = serde_json::from_slice::<Asked>(body) else {
        return refused("IllegalArgumentException", "The request lacks a ServiceCode.");
    };
    let of_service: Vec<Quota> =
        Quota::ALL.into_iter().filter(|quota| quota.listing().service == asked.service_code).collect();
    if of_service.is_empty() {
        return refused(
            "NoSuchResourceException",
            "The request failed because the specified service does not exist.",
        );
    }
    let applied = |quota: Quota| describe(quota, account.quota(quota), region);
    let default = |quota: Quota| describe(quota, quota.listing().default, region);
    let one = |show: &dyn Fn(Quota) -> Value| {
        let found = of_service.iter().find(|quota| Some(quota.listing().code) == asked.quota_code.as_deref());
        found.map_or_else(
            || {
                let message = "The request failed because the specified quota does not exist.";
                refused("NoSuchResourceException", message)
            },
            |quota| reply(&json!({"Quota": show(*quota)})),
        )
    };
    let all = |show: &dyn Fn(Quota) -> Value| {
        let quotas: Vec<Value> = of_service.iter().map(|quota| show(*quota)).collect();
        reply(&json!({"Quotas": quotas}))
    };
    match operation {
        "GetServiceQuota" => one(&applied),
        "GetAWSDefaultServiceQuota" => one(&default),
        "ListServiceQuotas" => all(&applied),
        "ListAWSDefaultServiceQuotas" => all(&default),
        _ => refused("UnknownOperationException", "The local cloud only reads quotas."),
    }
}

/// Returns Lambda's answer to GetAccountSettings with this account's quota. The emulator's is fixed.
pub async fn with_concurrency(account: &Account, answer: Response<Body>) -> Response<Body> {
    let (head, body) = answer.into_parts();
    let Ok(body) = body.collect().await.map(Collected::to_bytes) else {
        let message = "an emulator's answer is cut off";
        return refusal("lambda", StatusCode::BAD_GATEWAY, "InternalError", message);
    };
    let Ok(mut settings) = serde_json::from_slice::<Value>(&body) else {
        return Response::from_parts(head, Body::from(body));
    };
    let limit = account.quota(Quota::Concurrency);
    let number = |name: &str| settings["AccountLimit"][name].as_u64().unwrap_or(0);
    let reserved = number("ConcurrentExecutions").saturating_sub(number("UnreservedConcurrentExecutions"));
    if settings["AccountLimit"].is_object() {
        settings["AccountLimit"]["ConcurrentExecutions"] = limit.into();
        settings["AccountLimit"]["UnreservedConcurrentExecutions"] =
            u64::from(limit).saturating_sub(reserved).into();
    }
    reply(&settings)
}

fn describe(quota: Quota, value: u32, region: &str) -> Value {
    let listing = quota.listing();
    json!({
        "ServiceCode": listing.service,
        "ServiceName": listing.service_name,
        "QuotaArn": format!("arn:aws:servicequotas:{region}:{ACCOUNT}:{}/{}", listing.service, listing.code),
        "QuotaCode": listing.code,
        "QuotaName": listing.name,
        // A number with a decimal point, as AWS sends it.
        "Value": f64::from(value),
        "Unit": "None",
        "Adjustable": true,
        "GlobalQuota": false,
    })
}

fn reply(body: &Value) -> Response<Body> {
    Response::builder()
        .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
        .body(Body::from(body.to_string()))
        .expect("a reply is made of valid header values")
}

fn refused(code: &str, message: &str) -> Response<Body> {
    refusal("servicequotas", StatusCode::BAD_REQUEST, code, message)
}
