//! Refusals, in the words of AWS (IAM user guide, "Troubleshoot access denied error messages").

use axum::body::Body;
use axum::http::{Response, StatusCode};

use quick_xml::escape::escape;

use super::evaluate::Decision;
use super::{Identity, Judged, Judgement};
use crate::call::Call;
use crate::reply::{refusal, xml};

/// Returns the answer to a call whose caller lacks a permission.
pub(crate) fn refuse(call: &Call, judgement: &Judgement, denied: &Judged) -> Response<Body> {
    let service = call.service.as_str();
    if service == "s3" && denied.asked.action.starts_with("s3:DeleteObject") && call.action == "POST" {
        return refuse_deletions(judgement);
    }
    refuse_one(service, &judgement.identity, denied)
}

/// S3 answers a request to delete many objects with success, and names the objects that it did not delete.
///
/// Here none is deleted if one may not be: the answer also names objects that the caller may delete.
fn refuse_deletions(judgement: &Judgement) -> Response<Body> {
    let denied = judgement.denied();
    let errors: String = judgement
        .all
        .iter()
        .filter_map(|judged| {
            let key = judged.asked.resource.split_once('/')?.1;
            let message = message("s3", &judgement.identity, denied.unwrap_or(judged));
            let (key, message) = (escape(key), escape(&message));
            Some(format!(
                "<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>{message}</Message></Error>"
            ))
        })
        .collect();
    xml(format!("<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{errors}</DeleteResult>"))
}

fn refuse_one(service: &str, identity: &Identity, judged: &Judged) -> Response<Body> {
    let message = message(service, identity, judged);
    match service {
        "ec2" => {
            let message = format!("You are not authorized to perform this operation. {message}");
            refusal(service, StatusCode::FORBIDDEN, "UnauthorizedOperation", &message)
        }
        "s3" | "iam" | "sts" => refusal(service, StatusCode::FORBIDDEN, "AccessDenied", &message),
        "lambda" => refusal(service, StatusCode::FORBIDDEN, "AccessDeniedException", &message),
        // EventBridge, Logs and other JSON services ("Common errors" of their API references).
        _ => refusal(service, StatusCode::BAD_REQUEST, "AccessDeniedException", &message),
    }
}

fn message(service: &str, identity: &Identity, judged: &Judged) -> String {
    let Judged { asked, decision } = judged;
    let action = &asked.action;
    // S3 alone puts the resource in quotation marks.
    let resource = if service == "s3" { format!("\"{}\"", asked.resource) } else { asked.resource.clone() };
    let why = match decision {
        Decision::Allowed | Decision::NotAllowed => {
            format!("because no identity-based policy allows the {action} action")
        }
        Decision::OutsideBoundary => format!("because no permissions boundary allows the {action} action"),
        Decision::DeniedByIdentity => "with an explicit deny in an identity-based policy".to_owned(),
        Decision::DeniedByBoundary => "with an explicit deny in a permissions boundary".to_owned(),
        Decision::DeniedByResource => "with an explicit deny in a resource-based policy".to_owned(),
    };
    format!("User: {} is not authorized to perform: {action} on resource: {resource} {why}", identity.arn())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::needs::Asked;

    async fn refused(service: &str, action: &str, resource: &str, decision: Decision) -> (u16, String) {
        let asked =
            Asked { action: action.to_owned(), resource: resource.to_owned(), context: BTreeMap::new() };
        let denied = Judged { asked, decision };
        let judgement = Judgement { identity: Identity::User("u".to_owned()), all: vec![denied.clone()] };
        let answer = refuse(&Call::example(service, "POST", "/"), &judgement, &denied);
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).replace("&quot;", "\""))
    }

    #[tokio::test]
    async fn each_service_refuses_with_its_own_code_and_status() {
        for (service, action, code, status) in [
            ("s3", "s3:GetObject", "AccessDenied", 403),
            ("iam", "iam:GetRole", "AccessDenied", 403),
            ("sts", "sts:AssumeRole", "AccessDenied", 403),
            ("ec2", "ec2:RunInstances", "UnauthorizedOperation", 403),
            ("lambda", "lambda:GetFunction", "AccessDeniedException", 403),
            ("events", "events:PutRule", "AccessDeniedException", 400),
            ("logs", "logs:PutLogEvents", "AccessDeniedException", 400),
        ] {
            let (answered, body) = refused(service, action, "arn:x", Decision::NotAllowed).await;
            assert_eq!(answered, status, "{service}");
            let says = format!("user/u is not authorized to perform: {action} on resource: ");
            let why = format!("because no identity-based policy allows the {action} action");
            assert!(body.contains(code) && body.contains(&says) && body.contains(&why), "{body}");
        }
    }

    #[tokio::test]
    async fn deletions_are_refused_object_by_object() {
        let (status, body) =
            refused("s3", "s3:DeleteObject", "arn:aws:s3:::b/k/1", Decision::NotAllowed).await;
        assert_eq!(status, 200);
        assert!(body.contains("<Error><Key>k/1</Key><Code>AccessDenied</Code>"), "{body}");
    }

    #[tokio::test]
    async fn a_refusal_says_which_kind_of_policy_it_comes_from() {
        for (decision, why) in [
            (Decision::DeniedByIdentity, "with an explicit deny in an identity-based policy"),
            (Decision::DeniedByBoundary, "with an explicit deny in a permissions boundary"),
            (Decision::DeniedByResource, "with an explicit deny in a resource-based policy"),
            (Decision::OutsideBoundary, "because no permissions boundary allows the s3:GetObject action"),
        ] {
            let (_, body) = refused("s3", "s3:GetObject", "arn:aws:s3:::b/k", decision).await;
            assert!(body.contains(why), "{body}");
        }
    }
}
