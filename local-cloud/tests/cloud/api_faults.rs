//! API faults on purpose, and the record of calls. The command line makes the rules; each is for the calls of
//! one test: by its bucket, its subnet, or a user that only this test has.

use std::process::{Command, Output};
use std::time::Duration;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::Filter;
use local_cloud::api_faults::RuleView;
use local_cloud::calls::{Outcome, Record};
use tokio::time::Instant;

use crate::support::{Aws, Network, cloud, code, eventually, launched, name, web_server};

/// Runs `local-cloud` with these words, for the local cloud of this process; returns exit code and both
/// outputs.
fn local_cloud(words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
    let Output { status, stdout, stderr } =
        command.args(words).args(["--endpoint", &cloud().endpoint]).output().expect("local-cloud runs");
    (status.code(), [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}

/// A rule, which is removed when the test is over.
struct Rule(String);

impl Rule {
    fn new(words: &[&str]) -> Self {
        let (code, said) = local_cloud(&[&["fault-api"], words].concat());
        assert_eq!(code, Some(0), "{said}");
        Self(said.trim().to_owned())
    }

    fn view(&self) -> RuleView {
        let (code, said) = local_cloud(&["fault-api", "list"]);
        assert_eq!(code, Some(0), "{said}");
        let rules: Vec<RuleView> = serde_json::from_str(&said).expect("JSON");
        let is_it = |rule: &RuleView| rule.id.to_string() == self.0;
        rules.into_iter().find(is_it).expect("it is listed")
    }

    fn hits(&self) -> u32 {
        self.view().hits
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        local_cloud(&["fault-api", "clear", "--rule", &self.0]);
    }
}

/// Returns the calls that these words request.
fn calls(words: &[&str]) -> Vec<Record> {
    let (code, said) = local_cloud(&[&["calls"], words].concat());
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).expect("JSON")
}

/// Asserts that the connection was closed before a single byte of an answer.
#[track_caller]
fn unanswered<T: std::fmt::Debug, E: std::fmt::Debug, R: std::fmt::Debug>(result: Result<T, SdkError<E, R>>) {
    match result {
        Err(SdkError::DispatchFailure(failure)) => {
            let text = format!("{failure:?}");
            assert!(text.contains("IncompleteMessage"), "{text}");
        }
        other => panic!("it was answered: {other:?}"),
    }
}

/// Returns code and HTTP status of a refusal.
#[track_caller]
fn refused<T, E>(result: Result<T, SdkError<E>>) -> (String, u16)
where
    E: std::fmt::Debug,
    SdkError<E>: ProvideErrorMetadata,
{
    let Err(error) = result else { panic!("it was not refused") };
    let status = error.raw_response().map(|response| response.status().as_u16()).unwrap_or_default();
    (error.code().unwrap_or_else(|| panic!("no code in {error:?}")).to_owned(), status)
}

async fn has_object(aws: &Aws, bucket: &str, key: &str) -> bool {
    aws.s3.get_object().bucket(bucket).key(key).send().await.is_ok()
}

#[tokio::test]
async fn a_token_whose_reply_was_lost_returns_the_same_instance() {
    let aws = Aws::of_user("repeats-a-launch").await;
    let network = aws.network().await;
    let request = || {
        let launch = aws.launch(&network).client_token("lost").tag_specifications(name("lost"));
        launch.user_data(web_server().encode())
    };
    let rule = Rule::new(&[
        "lose-reply",
        "--service",
        "ec2",
        "--action",
        "RunInstances",
        "--caller",
        "repeats-a-launch",
    ]);
    unanswered(request().send().await);
    let named = aws.named("lost").await;
    assert_eq!(named.len(), 1, "it was not carried out, or twice: {named:?}");
    let instance = launched(request()).await;
    assert_eq!(aws.named("lost").await, std::slice::from_ref(&instance.id));
    instance.answers().await;
    assert_eq!(rule.hits(), 1);

    let of_token = |record: &Record| record.client_token.as_deref() == Some("lost");
    let launches: Vec<Record> = calls(&[]).into_iter().filter(of_token).collect();
    let kinds: Vec<_> =
        launches.iter().map(|launch| launch.fault.as_ref().map(|fault| &*fault.kind)).collect();
    assert_eq!(kinds, [Some("lose-reply"), None]);
    for launch in &launches {
        assert_eq!((launch.service.as_str(), launch.action.as_str()), ("ec2", "RunInstances"));
        assert_eq!(launch.caller.name, "repeats-a-launch");
        assert_eq!((launch.outcome, launch.status), (Outcome::Done, Some(200)));
        assert_eq!(launch.instances, std::slice::from_ref(&instance.id));
    }
}

#[tokio::test]
async fn a_dropped_request_does_nothing() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    let path = format!("/{bucket}/dropped");
    let rule = Rule::new(&["drop-request", "--service", "s3", "--action", "PUT", "--path", &path]);
    let put = |key: &str| aws.s3.put_object().bucket(&bucket).key(key).body(b"x".to_vec().into()).send();
    put("kept").await.expect("another key");
    unanswered(put("dropped").await);
    assert!(has_object(&aws, &bucket, "kept").await && !has_object(&aws, &bucket, "dropped").await);
    put("dropped").await.expect("once only");
    assert_eq!(rule.hits(), 1);
    let of_key = |record: &Record| record.path.as_ref().is_some_and(|known| known.starts_with(&path));
    let outcomes: Vec<_> =
        calls(&[]).into_iter().filter(of_key).map(|put| (put.outcome, put.status)).collect();
    assert_eq!(outcomes, [(Outcome::Stopped, None), (Outcome::Done, Some(200))]);
}

/// An answer to HEAD has no body that could be cut off.
#[tokio::test]
async fn a_lost_reply_has_no_head_either() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    aws.put(&bucket, "key", "text").await;
    let path = format!("/{bucket}/key");
    for method in ["HEAD", "GET", "PUT", "DELETE"] {
        let _rule = Rule::new(&["lose-reply", "--service", "s3", "--action", method, "--path", &path]);
        let s3 = &aws.s3;
        match method {
            "HEAD" => unanswered(s3.head_object().bucket(&bucket).key("key").send().await),
            "GET" => unanswered(s3.get_object().bucket(&bucket).key("key").send().await),
            "PUT" => unanswered(s3.put_object().bucket(&bucket).key("key").send().await),
            _ => unanswered(s3.delete_object().bucket(&bucket).key("key").send().await),
        }
    }
    assert!(!has_object(&aws, &bucket, "key").await, "the deletion was not carried out");
}

#[tokio::test]
async fn a_delayed_reply_is_late_but_the_call_is_done_at_once() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    let path = format!("/{bucket}/late");
    let rule =
        Rule::new(&["delay", "--seconds", "3.5", "--service", "s3", "--action", "PUT", "--path", &path]);
    let start = Instant::now();
    let put = async {
        aws.put(&bucket, "late", "text").await;
        start.elapsed()
    };
    let done = async {
        eventually("the object is there", async || {
            if has_object(&aws, &bucket, "late").await { Ok(()) } else { Err("no".to_owned()) }
        })
        .await;
        start.elapsed()
    };
    let (answered, done) = tokio::join!(put, done);
    assert!(answered >= Duration::from_millis(3500), "answered after {answered:?}");
    assert!(done < answered, "done after {done:?}, answered after {answered:?}");
    assert_eq!(rule.hits(), 1);
}

#[tokio::test]
async fn a_caller_that_does_not_wait_finds_it_done() {
    let aws = Aws::of_user("impatient").await;
    let network = aws.network().await;
    let _rule = Rule::new(&[
        "delay",
        "--seconds",
        "60",
        "--service",
        "ec2",
        "--action",
        "RunInstances",
        "--caller",
        "impatient",
    ]);
    let request = || aws.launch(&network).client_token("impatient").tag_specifications(name("impatient"));
    let short =
        aws_sdk_ec2::config::timeout::TimeoutConfig::builder().operation_timeout(Duration::from_secs(2));
    let impatient = aws_sdk_ec2::Config::builder().timeout_config(short.build());
    let result = request().customize().config_override(impatient).send().await;
    assert!(matches!(result, Err(SdkError::TimeoutError(_))), "{result:?}");
    let instance = launched(request()).await;
    assert_eq!(aws.named("impatient").await, [instance.id]);
}

#[tokio::test]
async fn each_service_throttles_in_its_own_way() {
    let aws = Aws::of_user("throttled").await;
    let bucket = aws.bucket().await;
    let _rules = ["ec2", "s3", "iam", "sts", "lambda", "events", "logs"]
        .map(|service| Rule::new(&["throttle", "--caller", "throttled", "--service", service]));
    let expected = |code: &str, status| (code.to_owned(), status);
    let vpc = || aws.ec2.create_vpc().cidr_block("10.81.0.0/16").send();
    assert_eq!(refused(vpc().await), expected("RequestLimitExceeded", 503));
    let put = aws.s3.put_object().bucket(&bucket).key("key").send().await;
    assert_eq!(refused(put), expected("SlowDown", 503));
    assert_eq!(refused(aws.iam.list_users().send().await), expected("Throttling", 400));
    assert_eq!(refused(aws.sts.get_session_token().send().await), expected("Throttling", 400));
    let functions = aws.lambda.list_functions().send().await;
    assert_eq!(refused(functions), expected("TooManyRequestsException", 429));
    assert_eq!(refused(aws.events.list_rules().send().await), expected("ThrottlingException", 400));
    assert_eq!(refused(aws.logs.describe_log_groups().send().await), expected("ThrottlingException", 400));

    vpc().await.expect("once only");
    assert!(!has_object(&aws, &bucket, "key").await);
    aws.lambda.list_functions().send().await.expect("once only");
    aws.events.list_rules().send().await.expect("once only");
}

/// So `--times 1` is invisible to a client with retries.
#[tokio::test]
async fn an_sdk_tries_again_when_it_is_throttled_or_cut_off() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    let path = format!("/{bucket}/again");
    let of_bucket = ["--service", "s3", "--action", "PUT", "--path", &path];
    let throttled = Rule::new(&[&["throttle"], &of_bucket[..]].concat());
    let lost = Rule::new(&[&["lose-reply"], &of_bucket[..]].concat());
    let retries = aws_sdk_s3::config::retry::RetryConfig::standard().with_max_attempts(3);
    let patient = aws_sdk_s3::Config::builder().retry_config(retries);
    let put = aws.s3.put_object().bucket(&bucket).key("again");
    put.customize().config_override(patient).send().await.expect("the third attempt is answered");
    assert_eq!((throttled.hits(), lost.hits()), (1, 1));
    assert_eq!((throttled.view().seen, lost.view().seen), (1, 2));
}

#[tokio::test]
async fn capacity_is_refused_in_one_subnet_or_one_zone_only() {
    let aws = Aws::new();
    let (vpc, _) = aws.vpc("10.82.0.0/16").await;
    let mut networks = Vec::new();
    for (zone, block) in [("us-east-1a", "127.82.1.0/24"), ("us-east-1b", "127.82.2.0/24")] {
        let subnet = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block(block).availability_zone(zone).send();
        let subnet =
            subnet.await.expect("a subnet").subnet().and_then(|subnet| subnet.subnet_id().map(str::to_owned));
        networks.push(Network { vpc: vpc.clone(), subnet: subnet.expect("an id") });
    }
    aws.caught_up().await;
    let launch = |number: usize| aws.launch(&networks[number]).send();
    let capacity = ("InsufficientInstanceCapacity".to_owned(), 500);

    let rule = Rule::new(&["refuse-capacity", "--subnet", &networks[0].subnet, "--times", "2"]);
    assert_eq!(refused(launch(0).await), capacity);
    launch(1).await.expect("another subnet");
    assert_eq!(refused(launch(0).await), capacity);
    launch(0).await.expect("twice only");
    assert_eq!(rule.hits(), 2);

    let aws = Aws::of_user("short-of-capacity").await;
    let launch = |number: usize| aws.launch(&networks[number]).send();
    let rule = Rule::new(&["refuse-capacity", "--zone", "us-east-1b", "--caller", "short-of-capacity"]);
    launch(0).await.expect("another zone");
    assert_eq!(refused(launch(1).await), capacity);
    launch(1).await.expect("once only");
    assert_eq!((rule.hits(), rule.view().seen), (1, 1));

    aws.caught_up().await;
    let in_vpc = Filter::builder().name("vpc-id").values(&vpc).build();
    let described = aws.ec2.describe_instances().filters(in_vpc).send().await.expect("described");
    let instances = described.reservations().iter().map(|reservation| reservation.instances().len());
    assert_eq!(instances.sum::<usize>(), 4, "one for each launch that was not refused");
}

#[tokio::test]
async fn any_error_has_the_format_of_its_service() {
    let aws = Aws::of_user("refused").await;
    let bucket = aws.bucket().await;
    let rule = |service: &str, status: &str, more: &[&str]| {
        let words = [
            "error",
            "--code",
            "Some.Code",
            "--status",
            status,
            "--message",
            "a < b & c",
            "--caller",
            "refused",
        ];
        Rule::new(&[&words[..], &["--service", service], more].concat())
    };
    let _rules = [
        rule("ec2", "500", &["--action", "CreateVpc"]),
        rule("s3", "409", &["--action", "PUT"]),
        rule("iam", "500", &["--action", "listusers"]),
        rule("sts", "403", &["--action", "GetSessionToken"]),
        rule("lambda", "502", &["--action", "GET", "--path", "/functions/some-function"]),
        rule("events", "400", &["--action", "PutRule"]),
        rule("logs", "599", &["--action", "CreateLogGroup"]),
    ];
    fn seen<T, E>(result: Result<T, SdkError<E>>) -> (u16, Option<String>)
    where
        E: std::fmt::Debug,
        SdkError<E>: ProvideErrorMetadata,
    {
        let message = result.as_ref().err().and_then(|error| error.message().map(str::to_owned));
        let (code, status) = refused(result);
        assert_eq!(code, "Some.Code");
        (status, message)
    }
    let expected = |status| (status, Some("a < b & c".to_owned()));
    assert_eq!(seen(aws.ec2.create_vpc().cidr_block("10.81.0.0/16").send().await), expected(500));
    assert_eq!(seen(aws.s3.put_object().bucket(&bucket).key("key").send().await), expected(409));
    assert_eq!(seen(aws.iam.list_users().send().await), expected(500));
    assert_eq!(seen(aws.sts.get_session_token().send().await), expected(403));
    aws.lambda.list_functions().send().await.expect("another path");
    let function = aws.lambda.get_function().function_name("some-function").send().await;
    assert_eq!(seen(function), expected(502));
    let put_rule = || aws.events.put_rule().name("some-rule").schedule_expression("rate(1 hour)").send();
    assert_eq!(seen(put_rule().await), expected(400));
    assert_eq!(seen(aws.logs.create_log_group().log_group_name("some-group").send().await), expected(599));
    put_rule().await.expect("once only");
    let records = calls(&[]);
    let rules = records.iter().filter(|record| record.action == "PutRule" && record.caller.name == "refused");
    let outcomes: Vec<_> =
        rules.map(|record| (record.outcome, record.status, record.error.as_deref())).collect();
    let (stopped, done) =
        ((Outcome::Stopped, Some(400), Some("Some.Code")), (Outcome::Done, Some(200), None));
    assert_eq!(outcomes, [stopped, done]);
}

#[tokio::test]
async fn everything_after_the_kth_call_is_cut_off() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    let path = format!("/{bucket}/");
    let words = ["lose-reply", "--service", "s3", "--path", &path, "--after", "2", "--for", "3600"];
    let rule = Rule::new(&words);
    for key in ["1", "2"] {
        aws.put(&bucket, key, "").await;
    }
    for key in ["3", "4"] {
        unanswered(aws.s3.put_object().bucket(&bucket).key(key).send().await);
    }
    assert_eq!((rule.view().seen, rule.hits()), (4, 2));
    drop(rule);
    for key in ["1", "2", "3", "4"] {
        assert!(has_object(&aws, &bucket, key).await, "{key}");
    }
}

#[tokio::test]
async fn a_window_ends_by_itself() {
    let aws = Aws::new();
    let bucket = aws.bucket().await;
    let path = format!("/{bucket}/key");
    let start = Instant::now();
    let rule = Rule::new(&["throttle", "--service", "s3", "--path", &path, "--for", "3"]);
    eventually("the window is over", async || {
        let put = aws.s3.put_object().bucket(&bucket).key("key").send().await;
        put.map(drop).map_err(|error| error.code().unwrap_or("none").to_owned())
    })
    .await;
    assert!(start.elapsed() >= Duration::from_secs(3), "over after {:?}", start.elapsed());
    let view = rule.view();
    assert!(view.hits > 1 && !view.is_active, "{view:?}");
}

#[tokio::test]
async fn a_rule_can_be_for_the_instances_of_one_role() {
    let aws = Aws::new();
    let network = aws.network().await;
    let bucket = aws.bucket().await;
    aws.put(&bucket, "key", "text").await;
    aws.profile("unlucky").await;
    let launch = aws.launch(&network).iam_instance_profile(crate::support::profile("unlucky"));
    let instance = launched(launch).await;
    let role = crate::metadata::aws_of(&instance, "unlucky").await;
    for name in ["unlucky", &instance.id] {
        let _rule = Rule::new(&["throttle", "--service", "s3", "--action", "PUT", "--caller", name]);
        let put = |aws: &Aws| aws.s3.put_object().bucket(&bucket).key("key").send();
        put(&aws).await.expect("not the role");
        assert_eq!(code(put(&role).await), "SlowDown");
        put(&role).await.expect("once only");
    }
    let records = calls(&[]);
    let of_role = records.iter().filter(|record| record.caller.name == "unlucky");
    assert!(of_role.map(|record| record.caller.instance.as_ref()).all(|id| id == Some(&instance.id)));
}

#[tokio::test]
async fn calls_lists_the_last_changes_and_no_reads() {
    let aws = Aws::of_user("recorded").await;
    let bucket = aws.bucket().await;
    let mine = |since: u64| {
        let records = calls(&["--since", &since.to_string()]).into_iter();
        records.filter(|record| record.caller.name == "recorded").collect::<Vec<_>>()
    };
    let last = calls(&["--last", "1"]).remove(0).number;
    aws.put(&bucket, "a b", "text").await;
    aws.read(&bucket, "a b").await;
    aws.ec2.describe_vpcs().send().await.expect("described");
    let twice = aws.s3.create_bucket().bucket("A_B").send().await;
    assert!(twice.is_err(), "{twice:?}");
    let [put, create] = &mine(last)[..] else { panic!("{:?}", mine(last)) };
    assert_eq!((put.action.as_str(), put.outcome), ("PUT", Outcome::Done));
    let path = put.path.as_deref().expect("a path");
    assert!(path.starts_with(&format!("/{bucket}/a b")), "{path}");
    assert_eq!((create.outcome, create.status), (Outcome::Refused, Some(400)));
    assert!(create.error.is_some() && create.number > put.number && create.at >= put.at, "{create:?}");
    let last_two = calls(&["--last", "2"]);
    assert_eq!(last_two.len(), 2);
}

#[tokio::test]
async fn a_senseless_rule_is_refused_with_advice() {
    for (words, exit, says) in [
        (
            &["throttle", "--service", "eventbridge"][..],
            2,
            "possible values: ec2, s3, iam, sts, lambda, events, logs",
        ),
        (&["throttle"], 2, "--service <SERVICE>"),
        (&["throttle", "--service", "s3", "--times", "0"], 2, "--times"),
        (&["throttle", "--service", "s3", "--times", "2", "--for", "3"], 2, "cannot be used with"),
        (&["delay", "--service", "s3", "--seconds", "-1"], 2, "--seconds"),
        (&["delay", "--service", "s3", "--seconds", "soon"], 2, "for example 2.5"),
        (&["delay", "--service", "s3", "--seconds", "60.5"], 1, "at most 60000 ms"),
        (&["throttle", "--service", "s3", "--for", "3601"], 1, "use at most 3600"),
        (&["error", "--service", "s3", "--code", "X", "--status", "200"], 1, "from 400 to 599"),
        (&["error", "--service", "s3", "--code", "a b", "--status", "400"], 1, "letters, digits"),
        (&["clear", "--rule", "4000000000"], 1, "there is no rule 4000000000; `local-cloud fault-api list`"),
    ] {
        let (code, said) = local_cloud(&[&["fault-api"], words].concat());
        assert_eq!(code, Some(exit), "{words:?}: {said}");
        assert!(said.contains(says), "{words:?}: {said}");
    }
    let url = format!("{}/_local-cloud/api-faults", cloud().endpoint);
    let post = async |body: &str| {
        let request = reqwest::Client::new().post(&url).header("content-type", "application/json");
        let response = request.body(body.to_owned()).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    };
    let (status, said) = post(r#"{"effect": {"kind": "refuse-capacity"}, "calls": {"service": "s3"}}"#).await;
    assert!(status == 400 && said.contains("use service ec2 and action RunInstances"), "{status}: {said}");
    let (status, said) =
        post(r#"{"effect": {"kind": "throttle"}, "calls": {"service": "s3", "k": 1}}"#).await;
    assert!(status == 422 && said.contains("unknown field `k`"), "{status}: {said}");
}

/// As in `bootstrap`'s tests: a caller that is killed between a call and its reply.
#[tokio::test]
async fn a_held_caller_makes_one_call_until_it_is_released() {
    let aws = Aws::of_user("held").await;
    let bucket = aws.bucket().await;
    let of_it = ["--changing", "--caller", "held"];
    let reply = Rule::new(&[&["hold-reply", "--after", "1"], &of_it[..]].concat());
    let request = Rule::new(&[&["hold-request", "--after", "2", "--for", "60"], &of_it[..]].concat());
    let put = |key: &'static str| {
        let (s3, bucket) = (aws.s3.clone(), bucket.clone());
        tokio::spawn(async move {
            s3.put_object().bucket(bucket).key(key).body(b"x".to_vec().into()).send().await
        })
    };
    put("one").await.expect("it ends").expect("the first change passes");
    let two = put("two");
    eventually("the reply to the second change is held", async || {
        if reply.view().held == 1 { Ok(()) } else { Err(format!("{:?}", reply.view())) }
    })
    .await;
    assert!(has_object(&aws, &bucket, "two").await, "it is carried out, and reading goes on");
    let three = put("three");
    eventually("the third change is held", async || {
        if request.hits() == 1 { Ok(()) } else { Err(format!("{:?}", request.view())) }
    })
    .await;
    assert!(!has_object(&aws, &bucket, "three").await && !two.is_finished() && !three.is_finished());

    let release = |rule: &Rule| local_cloud(&["fault-api", "release", "--rule", &rule.0]).0;
    assert_eq!((release(&request), release(&reply)), (Some(0), Some(0)));
    two.await.expect("it ends").expect("its reply was kept");
    three.await.expect("it ends").expect("it was done after all");
    assert!(has_object(&aws, &bucket, "three").await);
    assert_eq!(release(&reply), Some(1), "it is gone");

    let hold = Rule::new(&[&["hold-request"], &of_it[..]].concat());
    let four = put("four");
    eventually("the fourth change is held", async || {
        if hold.hits() == 1 { Ok(()) } else { Err(format!("{:?}", hold.view())) }
    })
    .await;
    drop(hold);
    unanswered(four.await.expect("it ends"));
    assert!(!has_object(&aws, &bucket, "four").await, "a rule that is cleared closes the connection");
}

#[tokio::test]
async fn the_permissions_of_a_caller_are_counted() {
    let aws = Aws::of_user("permitted").await;
    let bucket = aws.bucket().await;
    aws.put(&bucket, "key", "text").await;
    assert!(!has_object(&aws, &bucket, "none").await);
    let (vpc, _) = aws.vpc("10.79.0.0/16").await;
    let tag = aws_sdk_ec2::types::Tag::builder().key("whose").value("mine").build();
    aws.ec2.create_tags().resources(&vpc).tags(tag).send().await.expect("a tag");
    aws.subnet(&vpc, "127.79.0.0/24").await;
    let (code, said) = local_cloud(&["uses"]);
    assert_eq!(code, Some(0), "{said}");
    let report: local_cloud::uses::Report = serde_json::from_str(&said).expect("JSON");
    let of_us = |action: &str| {
        let mut uses = report.uses.iter().filter(|one| one.who.caller == "permitted");
        uses.find(|one| one.asked.action == action).unwrap_or_else(|| panic!("no {action}"))
    };
    let object = |key: &str| format!("arn:aws:s3:::{bucket}/{key}");
    assert_eq!(of_us("s3:PutObject").asked.resource, object("key"));
    assert_eq!(of_us("s3:GetObject").asked.resource, object("none"));
    assert_eq!(of_us("s3:ListBucket").count, 1, "it was told that there is no such object");
    let subnet = report.uses.iter().filter(|one| one.asked.action == "ec2:CreateSubnet");
    let of_vpc = subnet.filter(|one| one.asked.resource.ends_with(&vpc)).collect::<Vec<_>>();
    assert_eq!(of_vpc[0].asked.context["aws:ResourceTag/whose"], "mine");
}
