use std::time::Duration;

use axum::body::Bytes;

use super::*;
use crate::call::Caller;
use crate::consistency::young::WINDOW;
use crate::credentials::Principal;

const CREATE: (&str, &str) = ("POST", "/2015-03-31/functions");
const OVER: Duration = Duration::from_millis(TAKES.1);

fn target((method, path): (&str, &str), body: &Value) -> Target {
    let scope = "AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/lambda/aws4_request, SignedHeaders=host, Signature=0";
    let request = hyper::Request::builder().method(method).uri(path).header("authorization", scope);
    let (parts, ()) = request.body(()).expect("valid").into_parts();
    let caller = Caller::new("test", &Principal::Operator);
    let body = Bytes::from(body.to_string());
    Target::of(&Admitted { service: "lambda".to_owned(), caller, parts, body })
}

fn of_function(method: &str, what: &str) -> Target {
    target((method, &format!("/2015-03-31/functions/f{what}")), &Value::Null)
}

/// Returns a cloud in which a function was just made, and perhaps updated later.
fn cloud(seed: u64) -> (Functions, Instant) {
    let now = Instant::now();
    let mut functions = Functions::new(Seed(seed));
    functions.answered(&target(CREATE, &json!({"FunctionName": "f"})), now);
    (functions, now)
}

fn busy(functions: &mut Functions, target: &Target, now: Instant) -> Option<(u16, &'static str, String)> {
    functions.is_busy(target, now).map(|refused| (refused.status, refused.code, refused.message))
}

#[test]
fn a_function_that_is_being_made_cannot_be_used() {
    let (mut functions, now) = cloud(1);
    for (method, what) in
        [("PUT", "/code"), ("PUT", "/configuration"), ("POST", "/invocations"), ("POST", "/versions")]
    {
        let (status, code, message) = busy(&mut functions, &of_function(method, what), now).expect("refused");
        assert_eq!((status, code), (409, "ResourceConflictException"), "{what}");
        assert!(message.ends_with("in the following state: Pending"), "{message}");
        assert_eq!(busy(&mut functions, &of_function(method, what), now + OVER), None, "{what}");
    }
    for (method, what) in [("GET", ""), ("GET", "/configuration"), ("DELETE", "")] {
        assert_eq!(busy(&mut functions, &of_function(method, what), now), None, "{method} {what}");
    }
}

#[test]
fn a_function_that_is_being_updated_cannot_be_changed() {
    let (mut functions, now) = cloud(1);
    let now = now + OVER;
    functions.answered(&of_function("PUT", "/code"), now);
    let (status, code, message) =
        busy(&mut functions, &of_function("PUT", "/configuration"), now).expect("refused");
    assert_eq!((status, code), (409, "ResourceConflictException"));
    let arn = "arn:aws:lambda:eu-west-1:000000000000:function:f";
    assert!(message.ends_with(&format!("An update is in progress for resource: {arn}")), "{message}");
    assert_eq!(busy(&mut functions, &of_function("POST", "/invocations"), now), None, "it goes on running");
}

#[test]
fn a_function_is_shown_as_not_ready_for_as_long() {
    let (mut functions, now) = cloud(1);
    let look = of_function("GET", "");
    let shown = |functions: &Functions, now| {
        let mut answer = json!({"Configuration": {"State": "Active", "LastUpdateStatus": "Successful"}});
        functions.show(&look, &mut answer, now);
        let text = |key: &str| answer["Configuration"][key].as_str().expect("text").to_owned();
        (text("State"), text("LastUpdateStatus"))
    };
    let pair = |state: &str, update: &str| (state.to_owned(), update.to_owned());
    assert!(functions.has_to_show(&look, now) && !functions.has_to_show(&look, now + OVER));
    assert_eq!(shown(&functions, now), pair("Pending", "InProgress"));
    assert_eq!(shown(&functions, now + OVER), pair("Active", "Successful"));
    functions.answered(&of_function("PUT", "/configuration"), now + OVER);
    assert_eq!(shown(&functions, now + OVER), pair("Active", "InProgress"));
    functions.answered(&of_function("DELETE", ""), now + OVER);
    assert!(!functions.has_to_show(&look, now + OVER));
}

#[test]
fn a_policy_is_busy_for_a_moment_in_some_seeds() {
    let add = of_function("POST", "/policy");
    let is_busy = |seed| {
        let (mut functions, now) = cloud(seed);
        let now = now + OVER * 5;
        let first = busy(&mut functions, &add, now);
        assert_eq!(busy(&mut functions, &add, now + WINDOW), None);
        first.inspect(|(status, code, message)| {
            assert_eq!((*status, *code), (409, "ResourceConflictException"));
            assert!(message.contains("An update is in progress"), "{message}");
        })
    };
    let some = (0..60).filter_map(is_busy).count();
    assert!((6..50).contains(&some), "{some} of 60");
}

#[test]
fn lambda_knows_new_roles_and_networks_later() {
    let create = target(
        CREATE,
        &json!({"FunctionName": "f", "Role": "arn:aws:iam::0:role/r", "Code": {"ZipFile": "UEs="},
            "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}}),
    );
    for (thing, behaviour, says) in [
        (iam::role("r"), Behaviour::RoleNotInLambda, "cannot be assumed by Lambda"),
        ("subnet-1".to_owned(), Behaviour::NotFoundByLambda, "EC2 Error Code: InvalidSubnetID.NotFound"),
        ("sg-1".to_owned(), Behaviour::NotFoundByLambda, "EC2 Error Code: InvalidGroup.NotFound"),
    ] {
        let now = Instant::now();
        let ask = |seed, age| {
            let mut young = Young::new(Seed(seed));
            young.named(&thing, now);
            unknown(&mut young, &create, now + age)
        };
        let refused: Vec<Refused> = (0..60).filter_map(|seed| ask(seed, Duration::ZERO)).collect();
        assert!((6..50).contains(&refused.len()), "{thing}: {} of 60", refused.len());
        for one in refused {
            assert_eq!((one.behaviour, one.code), (behaviour, "InvalidParameterValueException"));
            assert!(one.message.contains(says), "{}", one.message);
        }
        assert!((0..60).all(|seed| ask(seed, WINDOW).is_none()));
    }
}

#[test]
fn only_dual_stack_functions_need_ipv6_in_their_subnets() {
    let subnets = |allowed: Value| {
        let vpc = json!({"SubnetIds": ["subnet-1"], "Ipv6AllowedForDualStack": allowed});
        let configure = ("PUT", "/2015-03-31/functions/f/configuration");
        target(configure, &json!({"VpcConfig": vpc})).dual_stack_subnets()
    };
    assert_eq!(subnets(json!(true)), ["subnet-1"]);
    assert_eq!(subnets(json!(false)), [""; 0]);
}

#[test]
fn a_function_is_known_by_its_name_and_its_arn() {
    let by_arn = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A000000000000%3Afunction%3Af/code";
    assert_eq!(target(("PUT", by_arn), &Value::Null).function, "f");
    assert_eq!(target(("GET", "/2017-03-31/tags/f"), &Value::Null).function, "");
}
