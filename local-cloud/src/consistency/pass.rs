//! The path of a call through the rules: refused, or carried out and its answer changed.

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, header};
use http_body_util::BodyExt as _;

use super::behaviour::Behaviour;
use super::{Refused, Target, lambda};
use crate::call::{Admitted, Call};
use crate::form::{encode_form, parse_form};
use crate::shared::Shared;

/// Answers a call as AWS does. A call that a fault on purpose hit is never refused here: it is carried out,
/// as the fault says.
pub(crate) async fn answer(shared: &Shared, call: &Call, admitted: Admitted, is_hit: bool) -> Response<Body> {
    let target = Target::of(&admitted);
    if !is_hit && let Some(refused) = shared.consistency.refuse(call, &target, Instant::now()) {
        return refuse(shared, call, &refused);
    }
    match target {
        Target::Ec2 => ec2(shared, call, admitted).await,
        Target::Lambda(target) => function(shared, call, admitted, &target).await,
        Target::Iam | Target::S3(_) => {
            // The body of a bucket's setting; an object's body is not read.
            let body = admitted.body.clone();
            let response = shared.ministack.forward(admitted.parts, admitted.body).await;
            if response.status().is_success() {
                shared.consistency.answered(call, &target, &body, Instant::now());
            }
            response
        }
        Target::Other => shared.ministack.forward(admitted.parts, admitted.body).await,
    }
}

fn refuse(shared: &Shared, call: &Call, refused: &Refused) -> Response<Body> {
    let (code, action) = (refused.code, &call.action);
    tracing::debug!(service = call.service, action, code, message = refused.message, "too early");
    shared.consistency.count(refused.behaviour, call);
    refused.response(&call.service)
}

async fn ec2(shared: &Shared, call: &Call, mut admitted: Admitted) -> Response<Body> {
    if let Some(refused) = shared.consistency.refuse_block(call, Instant::now()) {
        return refuse(shared, call, &refused);
    }
    shared.consistency.speak_inwards(call, &mut admitted);
    let parts = admitted.parts.clone();
    let response = shared.ec2.handle(admitted).await;
    if !response.status().is_success() {
        return response;
    }
    let (head, body) = whole(response).await;
    let body = shared.consistency.ec2_answered(call, body, Instant::now());
    lose_ipv6_egress(shared, call, &parts, &body).await;
    Response::from_parts(head, Body::from(body))
}

/// Removes the egress rule. On AWS a group that is made before its VPC has an IPv6 block never gets the rule
/// that allows IPv6 out. The emulator has the block already and made the rule.
async fn lose_ipv6_egress(shared: &Shared, call: &Call, parts: &Parts, answer: &Bytes) {
    if call.action != "CreateSecurityGroup" || !shared.consistency.lacks_ipv6(call, Instant::now()) {
        return;
    }
    match shared.ec2.revoke_ipv6_egress(parts, answer).await {
        Ok(()) => shared.consistency.count(Behaviour::WithoutIpv6Egress, call),
        Err(error) => tracing::warn!(error = format!("{error:#}"), "a new security group lets IPv6 out"),
    }
}

async fn function(
    shared: &Shared,
    call: &Call,
    admitted: Admitted,
    target: &lambda::Target,
) -> Response<Body> {
    let subnets = target.dual_stack_subnets();
    if !subnets.is_empty() {
        match shared.ec2.without_ipv6(&admitted.parts, &subnets).await {
            Ok(without) if without.is_empty() => {}
            Ok(without) => return refuse(shared, call, &lambda::not_dual_stack(&without)),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "subnets of a function are not known"),
        }
    }
    let response = shared.ministack.forward(admitted.parts, admitted.body).await;
    if !response.status().is_success() {
        return response;
    }
    shared.consistency.function_answered(target, response, Instant::now()).await
}

impl super::Consistency {
    /// Replaces the IPv6 blocks that callers know by the emulator's.
    fn speak_inwards(&self, call: &Call, admitted: &mut Admitted) {
        let is_ours = |value: &str| self.lock().blocks.inwards(value).map(str::to_owned);
        if !call.parameters().iter().any(|(_, value)| is_ours(value).is_some()) {
            return;
        }
        let mut form = parse_form(&admitted.body);
        for (_, value) in &mut form {
            if let Some(inside) = is_ours(value) {
                *value = inside;
            }
        }
        admitted.body = encode_form(&form).into();
    }

    /// Returns whether a new security group's VPC waits for its IPv6 block.
    fn lacks_ipv6(&self, call: &Call, now: Instant) -> bool {
        call.parameter("VpcId").is_some_and(|vpc| self.lock().blocks.is_associating(vpc, now))
    }

    async fn function_answered(
        &self,
        target: &lambda::Target,
        response: Response<Body>,
        now: Instant,
    ) -> Response<Body> {
        self.lock().functions.answered(target, now);
        if !self.lock().functions.has_to_show(target, now) {
            return response;
        }
        let (head, body) = whole(response).await;
        let body = match serde_json::from_slice(&body) {
            Ok(mut answer) => {
                self.lock().functions.show(target, &mut answer, now);
                answer.to_string().into()
            }
            Err(_) => body,
        };
        Response::from_parts(head, Body::from(body))
    }
}

/// Returns the head of a response, without fields that depend on the body's length, and the body. The
/// inspected answers of the emulators are short.
async fn whole(response: Response<Body>) -> (axum::http::response::Parts, Bytes) {
    let (mut head, body) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::TRANSFER_ENCODING);
    match body.collect().await {
        Ok(body) => (head, body.to_bytes()),
        Err(error) => {
            tracing::error!(%error, "an emulator's answer is cut off");
            head.status = StatusCode::BAD_GATEWAY;
            (head, Bytes::new())
        }
    }
}
