use super::*;

fn call(service: &str, action: &str) -> Call {
    Call::example(service, action, "/bucket/users/ann?x-id=PutObject")
}

fn launch(subnet: &str, zone: Option<&str>) -> Call {
    let mut launch = call("ec2", "RunInstances").with("SubnetId", subnet);
    launch.zone = zone.map(str::to_owned);
    launch
}

fn filter(service: Service, action: Option<&str>) -> CallFilter {
    let action = action.map(str::to_owned);
    CallFilter { service: Some(service), action, ..CallFilter::default() }
}

fn throttle(calls: CallFilter, after: u32, limit: Limit) -> Rule {
    Rule { effect: Effect::Throttle, calls, after, limit }
}

fn times(times: u32) -> Limit {
    Limit::Times(NonZeroU32::new(times).expect("not zero"))
}

fn for_seconds(seconds: u32) -> Limit {
    Limit::ForSeconds(NonZeroU32::new(seconds).expect("not zero"))
}

/// Returns, for each of `calls`, the rule that hit it.
fn hits(faults: &mut ApiFaults, calls: &[Call]) -> Vec<Option<u32>> {
    let now = Instant::now();
    calls.iter().map(|call| faults.decide(call, now).map(|hit| hit.rule)).collect()
}

#[test]
fn a_filter_matches_what_agrees_with_all_that_it_names() {
    use Service::{Ec2, Events, S3};
    let put = || call("s3", "PUT");
    let with = |change: fn(&mut CallFilter)| {
        let mut filter = filter(S3, Some("PUT"));
        change(&mut filter);
        filter
    };
    let in_zone = |subnet: Option<&str>, zone: Option<&str>| {
        let (subnet, zone) = (subnet.map(str::to_owned), zone.map(str::to_owned));
        CallFilter { subnet, zone, ..filter(Ec2, Some("RunInstances")) }
    };
    let changing = || CallFilter { changing: true, ..CallFilter::default() };
    for (filter, call, is_match) in [
        (CallFilter::default(), put(), true),
        (CallFilter::default(), call("another", "PutThing"), true),
        (changing(), put(), true),
        (changing(), call("s3", "GET"), false),
        (changing(), call("ec2", "DescribeVpcs"), false),
        (changing(), call("ec2", "CreateVpc"), true),
        (filter(S3, None), put(), true),
        (filter(S3, Some("put")), put(), true),
        (filter(S3, Some("GET")), put(), false),
        (filter(Ec2, None), put(), false),
        (filter(Events, Some("PutRule")), call("events", "PutRule"), true),
        (filter(Events, Some("Put")), call("events", "PutRule"), false),
        (with(|filter| filter.path = Some("/bucket/users/".to_owned())), put(), true),
        (with(|filter| filter.path = Some("x-id=PutObject".to_owned())), put(), true),
        (with(|filter| filter.path = Some("/bucket/other".to_owned())), put(), false),
        (with(|filter| filter.caller = Some("worker".to_owned())), put(), true),
        (with(|filter| filter.caller = Some("ASIAEXAMPLE".to_owned())), put(), true),
        (with(|filter| filter.caller = Some("i-1".to_owned())), put(), true),
        (with(|filter| filter.caller = Some("work".to_owned())), put(), false),
        (in_zone(Some("subnet-a"), None), launch("subnet-a", None), true),
        (in_zone(Some("subnet-a"), None), launch("subnet-b", None), false),
        (in_zone(None, Some("us-east-1a")), launch("subnet-a", Some("us-east-1a")), true),
        (in_zone(None, Some("us-east-1a")), launch("subnet-a", Some("us-east-1b")), false),
        (in_zone(None, Some("us-east-1a")), launch("subnet-a", None), false),
    ] {
        assert_eq!(filter.matches(&call), is_match, "{filter:?}\n{call:?}");
    }
}

#[test]
fn a_rule_skips_the_first_calls_and_hits_its_number_of_calls() {
    let mut faults = ApiFaults::default();
    faults.add(throttle(filter(Service::S3, None), 2, times(3)), Instant::now()).expect("valid");
    let (yes, no) = (Some(1), None);
    let mut calls = vec![call("s3", "PUT"); 7];
    calls.insert(1, call("ec2", "RunInstances"));
    assert_eq!(hits(&mut faults, &calls), [no, no, no, yes, yes, yes, no, no]);
    let view = &faults.list(Instant::now())[0];
    assert_eq!((view.seen, view.hits, view.is_active), (5, 3, false));
}

#[test]
fn the_oldest_rule_that_is_due_hits_and_the_others_count() {
    let mut faults = ApiFaults::default();
    let any = || filter(Service::S3, None);
    for (after, limit) in [(1, times(1)), (0, times(2)), (3, times(1))] {
        faults.add(throttle(any(), after, limit), Instant::now()).expect("valid");
    }
    let calls = vec![call("s3", "PUT"); 5];
    assert_eq!(hits(&mut faults, &calls), [Some(2), Some(1), Some(2), Some(3), None]);
}

#[test]
fn two_rules_cut_a_caller_off_after_its_second_change() {
    let mut faults = ApiFaults::default();
    let calls = CallFilter { changing: true, caller: Some("worker".to_owned()), ..CallFilter::default() };
    let rule = |effect, after, limit| Rule { effect, calls: calls.clone(), after, limit };
    faults.add(rule(Effect::HoldReply, 1, times(1)), Instant::now()).expect("valid");
    faults.add(rule(Effect::HoldRequest, 2, for_seconds(60)), Instant::now()).expect("valid");
    let calls = [("ec2", "CreateVpc"), ("s3", "GET"), ("s3", "PUT"), ("iam", "CreateRole"), ("s3", "GET")];
    let calls = calls.map(|(service, action)| call(service, action));
    assert_eq!(hits(&mut faults, &calls), [None, None, Some(1), Some(2), None]);
    assert!(Effect::HoldReply.instead("s3").is_none(), "it is carried out");
    assert!(Effect::HoldRequest.instead("s3").is_some(), "it is not");
}

#[test]
fn a_hold_lasts_until_its_rule_is_released_or_cleared() {
    let (mut faults, now) = (ApiFaults::default(), Instant::now());
    let calls = filter(Service::S3, None);
    let rule = || Rule { effect: Effect::HoldReply, calls: calls.clone(), after: 0, limit: times(1) };
    let ids = [1, 2, 3].map(|_| faults.add(rule(), now).expect("valid"));
    assert_eq!(faults.release(ids[0], now).map(|view| view.id), Some(ids[0]));
    assert!(faults.clear_one(ids[1], now).is_some() && faults.release(ids[1], now).is_none());
    assert_eq!(ids.map(|id| faults.hold(id)), [Hold::Released, Hold::Ended, Hold::Lasts]);
}

#[test]
fn a_window_ends_and_hits_every_call_before() {
    let (mut faults, start) = (ApiFaults::default(), Instant::now());
    faults.add(throttle(filter(Service::S3, None), 0, for_seconds(10)), start).expect("valid");
    let mut hit = |millis| faults.decide(&call("s3", "PUT"), start + Duration::from_millis(millis)).is_some();
    assert_eq!([hit(0), hit(1), hit(9_999), hit(10_000)], [true, true, true, false]);
    assert!(!faults.list(start + Duration::from_secs(10))[0].is_active);
}

#[test]
fn zones_are_asked_for_only_as_long_as_a_rule_needs_them() {
    let (mut faults, now) = (ApiFaults::default(), Instant::now());
    faults.add(throttle(filter(Service::Ec2, None), 0, times(1)), now).expect("valid");
    assert!(!faults.ask_for_zones(now));
    let calls =
        CallFilter { zone: Some("us-east-1a".to_owned()), ..filter(Service::Ec2, Some("RunInstances")) };
    faults.add(throttle(calls, 0, for_seconds(10)), now).expect("valid");
    assert!(faults.ask_for_zones(now));
    assert!(!faults.ask_for_zones(now + Duration::from_secs(10)));
}

#[test]
fn cleared_rules_hit_nothing_and_no_id_is_used_again() {
    let (mut faults, now) = (ApiFaults::default(), Instant::now());
    let any = || throttle(filter(Service::S3, None), 0, times(9));
    assert_eq!([faults.add(any(), now), faults.add(any(), now)], [Ok(1), Ok(2)]);
    assert_eq!(faults.clear_one(1, now).map(|view| view.id), Some(1));
    assert!(faults.clear_one(1, now).is_none());
    assert_eq!(hits(&mut faults, &[call("s3", "PUT")]), [Some(2)]);
    let cleared = faults.clear(now);
    assert_eq!(cleared.iter().map(|view| (view.id, view.hits)).collect::<Vec<_>>(), [(2, 1)]);
    assert_eq!(hits(&mut faults, &[call("s3", "PUT")]), [None]);
    assert_eq!(faults.add(any(), now), Ok(3));
}

#[test]
fn there_are_at_most_a_hundred_rules() {
    let (mut faults, now) = (ApiFaults::default(), Instant::now());
    let any = || throttle(filter(Service::S3, None), 0, times(1));
    for _ in 0..MAX_RULES {
        faults.add(any(), now).expect("room");
    }
    assert_eq!(faults.add(any(), now), Err(RuleError::TooMany));
    faults.clear(now);
    faults.add(any(), now).expect("room");
}

#[test]
fn a_rule_that_makes_no_sense_is_refused() {
    let rule = |effect| Rule { effect, calls: filter(Service::S3, None), after: 0, limit: times(1) };
    let error =
        |status, code: &str| rule(Effect::Error { status, code: code.to_owned(), message: String::new() });
    let no_code = |code: &str| RuleError::NoErrorCode(code.to_owned());
    let everywhere = throttle(filter(Service::Ec2, Some("RunInstances")), 0, times(1));
    let somewhere = |service, action| {
        let calls = CallFilter { subnet: Some("subnet-a".to_owned()), ..filter(service, action) };
        Rule { calls, ..everywhere.clone() }
    };
    let refuse = |service, action| Rule { effect: Effect::RefuseCapacity, ..somewhere(service, action) };
    let long = "x".repeat(MAX_CODE_BYTES + 1);
    for (rule, outcome) in [
        (rule(Effect::Delay { millis: 60_000 }), Ok(())),
        (rule(Effect::Delay { millis: 60_001 }), Err(RuleError::DelayTooLong(60_001))),
        (throttle(filter(Service::S3, None), 0, for_seconds(3600)), Ok(())),
        (throttle(filter(Service::S3, None), 0, for_seconds(3601)), Err(RuleError::WindowTooLong(3601))),
        (error(400, "Client.Some_Error-1"), Ok(())),
        (error(399, "X"), Err(RuleError::NoErrorStatus(399))),
        (error(600, "X"), Err(RuleError::NoErrorStatus(600))),
        (error(400, ""), Err(no_code(""))),
        (error(400, "a b\n"), Err(no_code("a b\n"))),
        (error(400, &long), Err(no_code(&long))),
        (throttle(CallFilter::default(), 0, times(1)), Err(RuleError::TooBroad)),
        (somewhere(Service::Ec2, Some("RunInstances")), Ok(())),
        (somewhere(Service::Ec2, None), Err(RuleError::OnlyLaunches)),
        (refuse(Service::Ec2, Some("runinstances")), Ok(())),
        (refuse(Service::Ec2, Some("StartInstances")), Err(RuleError::OnlyLaunches)),
        (refuse(Service::S3, Some("RunInstances")), Err(RuleError::OnlyLaunches)),
    ] {
        assert_eq!(rule.check(), outcome, "{rule:?}");
    }
}

#[test]
fn a_misspelt_field_is_refused() {
    let read = |text: &str| serde_json::from_str::<Rule>(text);
    let rule = read(r#"{"effect": {"kind": "throttle"}, "calls": {"service": "s3"}}"#).expect("whole");
    assert_eq!(rule, throttle(filter(Service::S3, None), 0, times(1)));
    for text in [
        r#"{"effect": {"kind": "throttle"}, "calls": {"service": "s3"}, "time": 3}"#,
        r#"{"effect": {"kind": "throttle"}, "calls": {"service": "s3", "key": "x"}}"#,
        r#"{"effect": {"kind": "delay", "millis": 3, "seconds": 3}, "calls": {"service": "s3"}}"#,
        r#"{"effect": {"kind": "throttle"}, "calls": {"service": "eventbridge"}}"#,
        r#"{"effect": {"kind": "throttle"}, "calls": {"service": "s3"}, "limit": {"times": 0}}"#,
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}
