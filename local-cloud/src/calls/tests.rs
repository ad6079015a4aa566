use axum::http::header;

use super::*;
use crate::api_faults::Effect;
use crate::call::Admitted;
use crate::credentials::Principal;

fn request(service: &str, method: &str, path: &str, target: Option<&str>, body: &'static str) -> Admitted {
    let mut request = hyper::Request::builder().method(method).uri(format!("http://local-cloud{path}"));
    if let Some(target) = target {
        request = request.header("x-amz-target", target);
    }
    let (parts, ()) = request.body(()).expect("a valid request").into_parts();
    let caller = Caller::new("test", &Principal::Operator);
    Admitted { service: service.to_owned(), caller, parts, body: Bytes::from_static(body.as_bytes()) }
}

#[test]
fn each_format_names_its_action() {
    let form = "Action=RunInstances&SubnetId=subnet%2D1&Action=Other";
    for (admitted, action, path, is_mutating) in [
        (request("ec2", "POST", "/", None, form), "RunInstances", "/", true),
        (request("ec2", "POST", "/", None, "Action=DescribeVpcs"), "DescribeVpcs", "/", false),
        (request("ec2", "POST", "/", None, "Action=CreateVpc&DryRun=true"), "CreateVpc", "/", false),
        (request("iam", "POST", "/", None, "Action=CreateRole"), "CreateRole", "/", true),
        (request("sts", "POST", "/", None, "Action=AssumeRole"), "AssumeRole", "/", false),
        (request("events", "POST", "/", Some("AWSEvents.PutRule"), "{}"), "PutRule", "/", true),
        (request("events", "POST", "/", Some("AWSEvents.ListRules"), "{}"), "ListRules", "/", false),
        (request("s3", "PUT", "/b/a%20b?x=%26", None, "Action=X"), "PUT", "/b/a b?x=&", true),
        (request("s3", "POST", "/b?delete", None, ""), "POST", "/b?delete", true),
        (request("s3", "GET", "/b/k", None, ""), "GET", "/b/k", false),
        (request("s3", "HEAD", "/b/k", None, ""), "HEAD", "/b/k", false),
        (request("lambda", "DELETE", "/functions/f", None, ""), "DELETE", "/functions/f", true),
    ] {
        let call = Call::of(&admitted);
        assert_eq!((call.action.as_str(), call.path.as_str()), (action, path));
        assert_eq!(call.is_mutating(), is_mutating, "{call:?}");
    }
    let launch = Call::of(&request("ec2", "POST", "/", None, form));
    assert_eq!(launch.parameter("SubnetId"), Some("subnet-1"));
}

#[test]
fn parameters_tell_calls_apart_and_client_tokens_do_not() {
    let digest = |service, target, body| Call::of(&request(service, "POST", "/", target, body)).digest;
    let subnet = |body| digest("ec2", None, body);
    let one = subnet("Action=CreateSubnet&ClientToken=x&CidrBlock=a");
    assert_eq!(one, subnet("Action=CreateSubnet&ClientToken=y&CidrBlock=a"));
    assert_ne!(one, subnet("Action=CreateSubnet&ClientToken=x&CidrBlock=b"));
    let rule = |body| digest("events", Some("AWSEvents.PutRule"), body);
    assert_ne!(rule(r#"{"Name":"a"}"#), rule(r#"{"Name":"b"}"#));
    assert_eq!(digest("s3", None, "content"), None);
}

#[test]
fn a_caller_goes_by_role_key_or_instance() {
    let instance = Principal::Instance { id: "i-1".to_owned(), role: "worker".to_owned() };
    let caller = Caller::new("ASIAEXAMPLE", &instance);
    assert!(["worker", "ASIAEXAMPLE", "i-1"].iter().all(|name| caller.is(name)) && !caller.is("i-2"));
    assert_eq!(caller.name, "worker");
    assert_eq!(Caller::new("000000000000", &Principal::Function).name, "function");
    let function = Caller::new("000000000000", &Principal::Function).of_function(Some("f".to_owned()));
    assert!(function.is("f") && function.is("function") && !function.is("g"));
    assert_eq!(Caller::new("test", &Principal::Operator).name, "test");
}

fn answer(status: u16, body: &'static str) -> Response<Body> {
    Response::builder().status(status).body(Body::from(body)).expect("a valid response")
}

/// Returns the record of a call that gets this answer, and the caller's reading of it.
async fn recorded(call: &Call, answer: Response<Body>) -> (Record, String) {
    let calls = Calls::default();
    let number = calls.begin(call, None, jiff::Timestamp::UNIX_EPOCH).expect("it changes something");
    assert_eq!(calls.list(1, 0)[0].outcome, Outcome::Pending);
    let answer = calls.carried_out(number, call, answer).await;
    let read = answer.into_body().collect().await.expect("whole").to_bytes();
    (calls.list(1, 0).remove(0), String::from_utf8(read.to_vec()).expect("text"))
}

#[tokio::test]
async fn a_launch_is_recorded_with_its_token_and_instance() {
    let call = Call::example("ec2", "RunInstances", "/").with("ClientToken", "once");
    let body = "<R><instancesSet><item><instanceId>i-1</instanceId></item></instancesSet></R>";
    let (record, read) = recorded(&call, answer(200, body)).await;
    assert_eq!((record.outcome, record.status, record.error), (Outcome::Done, Some(200), None));
    assert_eq!(
        (record.client_token.as_deref(), &record.instances[..]),
        (Some("once"), &["i-1".to_owned()][..])
    );
    assert_eq!(read, body);
}

#[tokio::test]
async fn a_refusal_is_recorded_with_its_code() {
    let in_xml = "<Response><Errors><Error><Code>A.B</Code></Error></Errors></Response>";
    let call = Call::example("ec2", "CreateVpc", "/");
    for (status, body, outcome, code) in [
        (400, in_xml, Outcome::Refused, Some("A.B")),
        (503, in_xml, Outcome::Failed, Some("A.B")),
        (400, r#"{"__type": "C"}"#, Outcome::Refused, Some("C")),
        (404, "neither", Outcome::Refused, None),
    ] {
        let (record, read) = recorded(&call, answer(status, body)).await;
        assert_eq!((record.outcome, record.status), (outcome, Some(status)));
        assert_eq!((record.error.as_deref(), read.as_str()), (code, body));
    }
    let mut typed = answer(400, "");
    typed.headers_mut().insert("x-amzn-errortype", header::HeaderValue::from_static("D"));
    assert_eq!(recorded(&call, typed).await.0.error.as_deref(), Some("D"));
}

#[test]
fn a_call_that_was_stopped_is_recorded_with_its_fault() {
    let calls = Calls::default();
    let call = Call::example("s3", "PUT", "/bucket/key");
    let record = |effect: Effect| {
        let instead = effect.instead("s3").expect("not carried out");
        let hit = Hit { rule: 7, service: "s3".to_owned(), effect };
        let number = calls.begin(&call, Some(&hit), jiff::Timestamp::UNIX_EPOCH).expect("a change");
        calls.stopped(number, &instead);
        let record = calls.list(1, 0).remove(0);
        assert_eq!(record.outcome, Outcome::Stopped);
        (record.fault.expect("a fault").kind, record.status, record.error)
    };
    assert_eq!(record(Effect::DropRequest), ("drop-request".to_owned(), None, None));
    assert_eq!(record(Effect::Throttle), ("throttle".to_owned(), Some(503), Some("SlowDown".to_owned())));
}

#[test]
fn the_last_calls_are_kept_and_reads_are_not() {
    let calls = Calls::default();
    let begin = |action: &str| {
        calls.begin(&Call::example("s3", action, "/bucket"), None, jiff::Timestamp::UNIX_EPOCH)
    };
    assert_eq!(begin("GET"), None);
    for number in 1..=MAX_RECORDS as u64 + 2 {
        assert_eq!(begin("PUT"), Some(number));
    }
    let numbers =
        |last, since| calls.list(last, since).iter().map(|record| record.number).collect::<Vec<_>>();
    let all = numbers(usize::MAX, 0);
    assert_eq!((all.len(), all[0], all[MAX_RECORDS - 1]), (MAX_RECORDS, 3, 10_002));
    assert_eq!(numbers(2, 0), [10_001, 10_002]);
    assert_eq!(numbers(usize::MAX, 10_001), [10_002]);
    assert_eq!(numbers(2, 10_001), [10_002]);
    assert_eq!(numbers(2, 20_000), [0; 0]);
    // Its record is gone; ending it is not an error.
    calls.end(1, |_| unreachable!("there is no such record"));
}

/// A dry run of a launch is refused as well (412), and allowed or not like any other call.
#[tokio::test]
async fn only_not_found_means_absent_and_every_answer_stays_whole() {
    for (status, code, is_absent) in [
        (StatusCode::BAD_REQUEST, "InvalidSubnetID.NotFound", true),
        (StatusCode::BAD_REQUEST, "DependencyViolation", false),
        (StatusCode::PRECONDITION_FAILED, "DryRunOperation", false),
        (StatusCode::SERVICE_UNAVAILABLE, "RequestLimitExceeded", false),
    ] {
        let (answer, seen) = look_for_absence(refusal("ec2", status, code, "why")).await;
        assert_eq!((seen, answer.status()), (is_absent, status), "{code}");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(code), "{code}");
    }
}
