//! The instance metadata service, version 2, of one instance.
//!
//! It listens on the instance's own address, so no process can ask for another's credentials by
//! mistake. A request without a token is refused, as with `HttpTokens=required`.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};

use crate::credentials::{Credentials, SessionKey, random_text};

pub struct Metadata {
    pub instance_id: String,
    pub local_ipv4: String,
    pub zone: String,
    pub region: String,
    pub instance_type: String,
    pub ami: String,
    /// Name of the role in the instance profile, if there is one.
    pub role: Option<String>,
    pub user_data: String,
    pub credentials: Arc<Credentials>,
    /// Issued at the first request and returned again after that, as on EC2.
    pub session: OnceLock<SessionKey>,
    pub token: String,
}

impl Metadata {
    pub fn new_token() -> String {
        random_text(40)
    }
}

pub fn router(metadata: Arc<Metadata>) -> Router {
    Router::new()
        .route("/latest/api/token", put(token))
        .route("/latest/{*path}", get(read))
        .with_state(metadata)
}

async fn token(State(metadata): State<Arc<Metadata>>, headers: HeaderMap) -> Response {
    match headers.get("x-aws-ec2-metadata-token-ttl-seconds") {
        Some(ttl) => {
            ([("x-aws-ec2-metadata-token-ttl-seconds", ttl.clone())], metadata.token.clone()).into_response()
        }
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn read(
    State(metadata): State<Arc<Metadata>>,
    headers: HeaderMap,
    axum::extract::Path(path): axum::extract::Path<String>,
) -> Response {
    let given = headers.get("x-aws-ec2-metadata-token").and_then(|value| value.to_str().ok());
    if given != Some(metadata.token.as_str()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let role = metadata.role.as_deref();
    let text = match path.trim_end_matches('/') {
        "meta-data/instance-id" => metadata.instance_id.clone(),
        "meta-data/local-ipv4" => metadata.local_ipv4.clone(),
        "meta-data/placement/availability-zone" => metadata.zone.clone(),
        "meta-data/placement/region" => metadata.region.clone(),
        "meta-data/instance-type" => metadata.instance_type.clone(),
        "meta-data/ami-id" => metadata.ami.clone(),
        "user-data" => metadata.user_data.clone(),
        "dynamic/instance-identity/document" => {
            serde_json::json!({"region": metadata.region, "instanceId": metadata.instance_id}).to_string()
        }
        "meta-data/iam/security-credentials" if role.is_some() => role.unwrap_or_default().to_owned(),
        path if role.is_some() && path.strip_prefix("meta-data/iam/security-credentials/") == role => {
            let issue = || metadata.credentials.issue(&metadata.instance_id, role.unwrap_or_default());
            let key = metadata.session.get_or_init(issue);
            let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(6);
            serde_json::json!({
                "Code": "Success",
                "Type": "AWS-HMAC",
                "LastUpdated": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "AccessKeyId": key.access_key,
                "SecretAccessKey": key.secret,
                "Token": key.token,
                "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            })
            .to_string()
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    text.into_response()
}
