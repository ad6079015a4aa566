//! The operator's commands as processes: logs, doctor, status --watch, interruptions, and commands that need
//! no AWS.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Cloud, bootstrap, eventually, program, say, stripped, text, venv};

/// Nothing listens on the discard port of this address.
const UNREACHABLE: &str = "http://127.0.0.1:9";

/// Passwords that nothing may ever show.
const RIGHT: &str = "sentinel-right-5e1f";
const WRONG: &str = "sentinel-wrong-5e1f";

/// Returns a call of `bootstrap` for the stack, with the keys of its deployer.
fn command(cloud: &Cloud, stack: &str, arguments: &[&str]) -> Command {
    let (key, secret) = cloud.deployer(stack);
    let mut command = Command::new(program("bootstrap"));
    command
        .args(["--endpoint-url", &cloud.endpoint, "--region", "us-east-1", "--stack", stack, "--token-file"])
        .arg(cloud.dir.path().join(format!("{stack}.token")))
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env_remove("AWS_SESSION_TOKEN")
        .env_remove("AWS_PROFILE")
        .env("VIGIA_CARGO_LAMBDA", venv().join("bin/cargo-lambda"));
    command
}

/// Returns what `bootstrap` prints on a terminal without colours.
fn on_a_terminal(cloud: &Cloud, stack: &str, arguments: &[&str]) -> String {
    let inner = command(cloud, stack, arguments);
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("{word:?}"))
        .collect();
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]).stdin(Stdio::null());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let output = terminal.env("NO_COLOR", "1").output().expect("script runs, a part of Debian's base");
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).expect("a text").replace("\r\n", "\n")
}

/// A command that keeps running, with its outputs in files.
struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    fn start(cloud: &Cloud, stack: &str, arguments: &[&str]) -> Self {
        let file = |name: &str| {
            let path = cloud.dir.path().join(format!("{}-{name}", arguments.join("-").replace('/', "")));
            (std::fs::File::create(&path).expect("writable"), path)
        };
        let ((out, stdout), (err, stderr)) = (file("stdout"), file("stderr"));
        let child = command(cloud, stack, arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("bootstrap runs");
        Self { child, stdout, stderr }
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.stdout).expect("its output is text")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("its output is text")
    }

    /// Sends a signal, and returns the exit code.
    fn stop(&mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill runs");
        assert!(sent.success());
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it goes on after {signal}: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn must_hold_no_secret(cloud: &Cloud, stack: &str, shown: &str, what: &str) {
    for secret in [RIGHT, WRONG, &cloud.token(stack)] {
        assert!(!shown.contains(secret), "{what} shows {secret}");
    }
}

#[test]
fn logs_doctor_and_status_of_a_stack() {
    let cloud = Cloud::start();
    let stack = "ops";
    cloud.deploy(stack, &["--workers", "2"]);
    let url = cloud.url(stack);
    let client = reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let signed_up = client.post(format!("{url}/signup/zoe/{RIGHT}")).send().expect("an answer");
    assert_eq!(signed_up.status(), 201);
    let signed_in = client.get(format!("{url}/signin/zoe/{RIGHT}")).send().expect("an answer");
    assert_eq!(signed_in.status(), 303);
    let refused = client.get(format!("{url}/signin/zoe/{WRONG}")).send().expect("an answer");
    assert_eq!(refused.status(), 401);

    logs_of_each_kind(&cloud, stack);
    logs_are_readable_on_a_terminal(&cloud, stack);
    following_shows_what_is_new_once(&cloud, stack);
    watching_shows_the_stack_again_and_again(&cloud, stack);
    doctor_is_content_and_names_what_is_left_over(&cloud, stack);
    drift_is_named_and_repaired_by_the_next_deployment(&cloud, stack);
    both_spellings_rotate_the_token(&cloud, stack);
}

/// Returns the lines of `logs` in a pipe, each an object with its source.
fn objects(printed: &str) -> Vec<Value> {
    let object = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        let is_event = ["time", "level", "message"].iter().all(|name| object[name].is_string())
            && object["fields"]["target"].is_string();
        assert!(object["source"].is_string() && is_event != object["line"].is_string(), "{line}");
        object
    };
    printed.lines().map(object).collect()
}

fn sources(objects: &[Value]) -> BTreeSet<&str> {
    objects.iter().map(|object| object["source"].as_str().expect("it has a source")).collect()
}

/// Returns whether a line that is not an event of our programs has this text.
fn has_line(objects: &[Value], text: &str) -> bool {
    objects.iter().any(|object| object["line"].as_str().is_some_and(|line| line.contains(text)))
}

/// Returns what `logs` prints in a pipe.
fn logs(cloud: &Cloud, stack: &str, arguments: &[&str]) -> String {
    let output = cloud.bootstrap(stack, &[&["logs"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).expect("JSON is text")
}

fn logs_of_each_kind(cloud: &Cloud, stack: &str) {
    let workers = cloud.instances(stack, "running");
    let balancer = format!("lb {}", cloud.balancers(stack, "running").remove(0));
    let names: Vec<String> = workers.iter().map(|id| format!("worker {id}")).collect();
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let printed = logs(cloud, stack, &["worker"]);
    must_hold_no_secret(cloud, stack, &printed, "logs worker");
    let of_workers = objects(&printed);
    assert_eq!(sources(&of_workers), names);
    assert!(has_line(&of_workers, "vigia: fetching ec2-worker"), "the boot is shown: {printed}");
    let signed_in = of_workers.iter().find(|object| object["fields"]["event"] == "signed_in");
    assert_eq!(signed_in.expect("a user has signed in")["fields"]["login"], "zoe", "{printed}");

    let printed = logs(cloud, stack, &["lb", "--json"]);
    must_hold_no_secret(cloud, stack, &printed, "logs lb");
    let of_lb = objects(&printed);
    assert_eq!(sources(&of_lb), BTreeSet::from([balancer.as_str()]));
    assert!(has_line(&of_lb, "vigia: fetching ec2-lb"), "{printed}");

    let one = format!("worker {}", workers[0]);
    let of_one = objects(&logs(cloud, stack, &["--instance", &workers[0]]));
    assert_eq!(sources(&of_one), BTreeSet::from([one.as_str()]));
    let few = logs(cloud, stack, &["worker", "--lines", "1", "--instance", &workers[0]]);
    assert_eq!(objects(&few).len(), 1, "{few}");

    let of_reconciler = eventually("the reconciler's log", Duration::from_secs(90), || {
        let log = logs(cloud, stack, &["reconciler"]);
        let is_there =
            objects(&log).iter().any(|object| object["message"] == "ready for the first invocation");
        if is_there { Ok(log) } else { Err(log) }
    });
    must_hold_no_secret(cloud, stack, &of_reconciler, "logs reconciler");
    assert_eq!(sources(&objects(&of_reconciler)), BTreeSet::from(["reconciler"]));
    let all = logs(cloud, stack, &[]);
    must_hold_no_secret(cloud, stack, &all, "logs");
    let expected: BTreeSet<&str> = names.into_iter().chain(["reconciler", &balancer]).collect();
    assert_eq!(sources(&objects(&all)), expected);

    let unknown = cloud.bootstrap(stack, &["logs", "--instance", "i-00000000000000000"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("stack ops has no such instance"), "{}", text(&unknown));
    let nonsense = cloud.bootstrap(stack, &["logs", "reconciler", "--instance", &workers[0]]);
    assert_eq!(nonsense.status.code(), Some(2), "{}", text(&nonsense));
}

fn logs_are_readable_on_a_terminal(cloud: &Cloud, stack: &str) {
    let printed = on_a_terminal(cloud, stack, &["logs", "worker"]);
    must_hold_no_secret(cloud, stack, &printed, "logs on a terminal");
    for id in cloud.instances(stack, "running") {
        assert!(printed.contains(&format!("==> worker {id} (us-east-1")), "{printed}");
    }
    let signed_in = printed.lines().find(|line| line.contains(" INFO  audit: a user has signed in  "));
    assert!(signed_in.is_some_and(|line| line.contains(" login=zoe")), "{printed}");
    assert!(printed.contains("\nvigia: fetching ec2-worker "), "{printed}");
    assert!(!printed.contains("\"timestamp\"") && !printed.contains('\u{1b}'), "{printed}");
}

fn following_shows_what_is_new_once(cloud: &Cloud, stack: &str) {
    let mut follow = Running::start(cloud, stack, &["logs", "worker", "-f"]);
    let before = eventually("the first look", Duration::from_secs(20), || {
        let printed = follow.printed();
        if printed.contains("worker i-") { Ok(printed) } else { Err(follow.said()) }
    });
    // A sign-in fails: the worker logs it, without login and password.
    let url = cloud.url(stack);
    let grown = eventually("something new", Duration::from_secs(30), || {
        reqwest::blocking::get(format!("{url}/signin/unknown/{WRONG}")).ok();
        let printed = follow.printed();
        if printed.len() > before.len() { Ok(printed) } else { Err("nothing new".to_owned()) }
    });
    assert!(grown.starts_with(&before), "the printed lines stay");
    let lines: Vec<&str> = grown.lines().filter(|line| line.contains("\"time\"")).collect();
    let distinct: BTreeSet<&&str> = lines.iter().collect();
    assert!(!lines.is_empty() && lines.len() == distinct.len(), "a line is printed twice: {grown}");
    assert_eq!(follow.stop("INT"), Some(130), "{}", follow.said());
    assert!(follow.said().contains("interrupted"), "{}", follow.said());
    must_hold_no_secret(cloud, stack, &follow.printed(), "logs -f");
}

fn watching_shows_the_stack_again_and_again(cloud: &Cloud, stack: &str) {
    let mut watch = Running::start(cloud, stack, &["status", "--watch", "--json"]);
    let printed = eventually("two looks", Duration::from_secs(30), || {
        let printed = watch.printed();
        if printed.lines().count() >= 2 { Ok(printed) } else { Err(format!("{printed}{}", watch.said())) }
    });
    for line in printed.lines().take(2) {
        let status: Value = serde_json::from_str(line).expect("one object a line");
        assert_eq!(status["healthy"], 2, "{status}");
    }
    assert_eq!(watch.stop("INT"), Some(130));
    let mut plain = Running::start(cloud, stack, &["status", "--watch"]);
    eventually("two blocks", Duration::from_secs(30), || {
        let printed = plain.printed();
        if printed.matches("Workers    2 healthy of 2 desired").count() >= 2 { Ok(()) } else { Err(printed) }
    });
    assert!(!plain.printed().contains('\u{1b}'), "a file is no screen");
    assert_eq!(plain.stop("TERM"), Some(143));
}

/// Returns verdict and detail of a check.
fn check<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = report["checks"].as_array().expect("checks");
    let check =
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
    (check["verdict"].as_str().expect("a word"), check["detail"].as_str().expect("a text"))
}

fn doctor(cloud: &Cloud, stack: &str) -> Value {
    let output = cloud.bootstrap(stack, &["doctor", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {}", text(&output)))
}

fn doctor_is_content_and_names_what_is_left_over(cloud: &Cloud, stack: &str) {
    let shown = cloud.must(stack, &["doctor"]);
    say(&shown);
    assert!(shown.lines().any(|line| line.starts_with("ok ") && line.contains("reachability")), "{shown}");
    must_hold_no_secret(cloud, stack, &shown, "doctor");
    let report = doctor(cloud, stack);
    assert_eq!(report["ok"], true, "{report}");
    for name in [
        "credentials",
        "clock",
        "cargo-lambda",
        "launch permission",
        "vCPU quota",
        "VPC quota",
        "workers",
        "reconciler",
        "leftovers",
    ] {
        assert_eq!(check(&report, name).0, "ok", "{name}: {report}");
    }
    assert_eq!(check(&report, "EC2 over IPv6").0, "not-known-here", "{report}");

    let vpc = cloud.aws(&[
        "ec2",
        "create-vpc",
        "--cidr-block",
        "10.9.0.0/16",
        "--tag-specifications",
        "ResourceType=vpc,Tags=[{Key=vigia:stack,Value=gone}]",
        "--query",
        "Vpc.VpcId",
    ]);
    // EC2 lists it, and stops listing it, a moment later.
    let leftovers = |is_right: &dyn Fn(&str, &str) -> bool| {
        eventually("doctor sees the leftovers", Duration::from_secs(60), || {
            let report = doctor(cloud, "gone");
            let (verdict, detail) = check(&report, "leftovers");
            if is_right(verdict, detail) { Ok(()) } else { Err(report.to_string()) }
        });
    };
    leftovers(&|verdict, detail| verdict == "warning" && detail.contains(&vpc));
    assert_eq!(check(&doctor(cloud, "gone"), "stack").0, "not-known-here");
    cloud.wait_until_all_is_known();
    cloud.aws(&["ec2", "delete-vpc", "--vpc-id", &vpc]);
    leftovers(&|verdict, detail| (verdict, detail) == ("ok", "none"));
}

fn drift_is_named_and_repaired_by_the_next_deployment(cloud: &Cloud, stack: &str) {
    let drift = || {
        let status = cloud.status(stack);
        let drift = status["drift"].as_array().expect("a list").iter();
        drift.map(|one| one.as_str().expect("a sentence").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(drift(), Vec::<String>::new());
    cloud.aws(&["events", "disable-rule", "--name", "vigia-ops-reconcile"]);
    let group = cloud.aws(&[
        "ec2",
        "describe-security-groups",
        "--filters",
        "Name=group-name,Values=vigia-ops-worker",
        "--query",
        "SecurityGroups[0].GroupId",
    ]);
    let rule = ["--group-id", &group, "--protocol", "tcp", "--port", "22", "--cidr", "0.0.0.0/0"];
    cloud.aws(&[&["ec2", "authorize-security-group-ingress"], &rule[..]].concat());
    let zip = cloud.dir.path().join("other.zip");
    std::fs::write(&zip, OTHER_PACKAGE).expect("writable");
    let zip = format!("fileb://{}", zip.display());
    cloud.aws(&[
        "lambda",
        "update-function-code",
        "--function-name",
        "vigia-ops-reconciler",
        "--zip-file",
        &zip,
    ]);
    take_ipv6_away(cloud);
    let seen = drift();
    for says in [
        "is disabled",
        "in on port 22",
        "does not run the program",
        "private-1 has no IPv6 block",
        "of the worker does not let everything out to ::/0",
        "private subnets have no working route to ::/0",
    ] {
        assert!(seen.iter().any(|sentence| sentence.contains(says)), "{says}: {seen:?}");
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    let bucket = format!("vigia-{stack}-data-000000000000-us-east-1");
    cloud.aws(&["s3api", "delete-public-access-block", "--bucket", &bucket]);
    let suspended = ["--versioning-configuration", "Status=Suspended"];
    let suspend = [&["s3api", "put-bucket-versioning", "--bucket", &bucket], &suspended[..]].concat();
    // S3 refuses it while the change before is in progress.
    eventually("versions are suspended", Duration::from_secs(60), || cloud.try_aws(&suspend));
    cloud.aws(&[&["ec2", "revoke-security-group-ingress"], &rule[..]].concat());
    cloud.deploy(stack, &[]);
    assert_eq!(drift(), Vec::<String>::new());
    let versions = cloud.aws(&["s3api", "get-bucket-versioning", "--bucket", &bucket, "--query", "Status"]);
    assert!(versions.contains("Enabled"), "{versions}");
    cloud.aws(&["s3api", "get-public-access-block", "--bucket", &bucket]);
    assert!(cloud.deploy(stack, &[]).contains("nothing changed"), "the second time");
}

/// Removes IPv6 from a subnet, a security group and a route table, as if they had been made too early.
fn take_ipv6_away(cloud: &Cloud) {
    let one = |what: &str, name: &str, query: &str| {
        cloud.aws(&["ec2", what, "--filters", &format!("Name=tag:Name,Values={name}"), "--query", query])
    };
    let association = one(
        "describe-subnets",
        "vigia-ops-private-1",
        "Subnets[0].Ipv6CidrBlockAssociationSet[0].AssociationId",
    );
    cloud.aws(&["ec2", "disassociate-subnet-cidr-block", "--association-id", &association]);
    let group = one("describe-security-groups", "vigia-ops-worker", "SecurityGroups[0].GroupId");
    let everything = "IpProtocol=-1,Ipv6Ranges=[{CidrIpv6=::/0}]";
    let revoke = ["--group-id", &group, "--ip-permissions", everything];
    cloud.aws(&[&["ec2", "revoke-security-group-egress"], &revoke[..]].concat());
    let table = one("describe-route-tables", "vigia-ops-private", "RouteTables[0].RouteTableId");
    let route = ["--route-table-id", &table, "--destination-ipv6-cidr-block", "::/0"];
    cloud.aws(&[&["ec2", "delete-route"], &route[..]].concat());
}

/// A zip file without a file in it.
const OTHER_PACKAGE: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn both_spellings_rotate_the_token(cloud: &Cloud, stack: &str) {
    let mut tokens = BTreeSet::from([cloud.token(stack)]);
    for arguments in [&["token", "--rotate"][..], &["token", "rotate"]] {
        let printed = cloud.must(stack, arguments);
        assert!(printed.contains(&cloud.token(stack)));
        tokens.insert(cloud.token(stack));
    }
    assert_eq!(tokens.len(), 3);
    assert!(cloud.must(stack, &["token"]).contains(&cloud.token(stack)));
}

#[test]
fn the_next_deployment_completes_an_interrupted_one() {
    let cloud = Cloud::start();
    let stack = "cut";
    let artifacts = stripped().to_string_lossy().into_owned();
    let deploy = ["deploy", "--artifacts", &artifacts, "--workers", "1"];
    type IsThere = fn(&Running, &Cloud) -> bool;
    let cuts: [(&str, IsThere, &str, i32); 2] = [
        ("the roles are made", |running, _| running.said().contains("\nroles "), "INT", 130),
        ("cargo lambda runs", |_, cloud| !deployers_of(&cloud.endpoint).is_empty(), "TERM", 143),
    ];
    for (what, is_there, signal, code) in cuts {
        let mut running = Running::start(&cloud, stack, &deploy);
        eventually(what, Duration::from_secs(120), || {
            if is_there(&running, &cloud) { Ok(()) } else { Err(running.said()) }
        });
        assert_eq!(running.stop(signal), Some(code), "{}", running.said());
        let said = running.said();
        assert!(said.contains("the next run continues where this one stopped"), "{said}");
        eventually("its children end", Duration::from_secs(10), || {
            let left = deployers_of(&cloud.endpoint);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
    cloud.deploy(stack, &["--workers", "1"]);
    assert_eq!(cloud.balancers(stack, "pending,running").len(), 1);
    assert_eq!(cloud.launches().len(), 2, "one load balancer and one worker: {:?}", cloud.launches());
    let again = cloud.deploy(stack, &["--workers", "1"]);
    assert!(again.contains("nothing changed"), "{again}");

    let output = cloud.bootstrap(stack, &["deploy", "--artifacts", &artifacts, "--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let result: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(
        (&result["changes"], result["url"].as_str()),
        (&Value::from(0), Some(cloud.url(stack).as_str()))
    );
    assert!(Path::new(result["token_file"].as_str().expect("a path")).exists());
    let events: Vec<Value> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let steps: Vec<&Value> = events.iter().filter(|event| event["event"] == "step").collect();
    assert!(steps.iter().any(|step| step["what"] == "buckets" && step["change"] == "unchanged"), "{steps:?}");
    assert!(steps.iter().all(|step| step["seconds"].is_number()), "{steps:?}");
    must_hold_no_secret(&cloud, stack, &text(&output), "deploy --json");

    let quiet = cloud.bootstrap(stack, &["destroy", "--yes", "--quiet"]);
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{}", text(&quiet));
    let output = cloud.bootstrap(stack, &["destroy", "--yes", "--json"]);
    let result: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(
        (&result["stack"], &result["changes"], &result["kept"]),
        (&"cut".into(), &0.into(), &Value::Null)
    );
}

/// Processes of `cargo lambda` that work for this endpoint.
fn deployers_of(endpoint: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains("lambda deploy") && line.contains(endpoint))
        .collect()
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        bootstrap(UNREACHABLE, ("test", "test"), "team-a", Path::new("/nonexistent/token"), arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_deployers_policy_is_printed_without_calls_to_aws() {
    let (code, policy, said) = run(&["iam-policy", "--account", "123456789012"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(policy.chars().filter(|c| !c.is_whitespace()).count() <= 6144);
    let policy: Value = serde_json::from_str(&policy).expect("JSON");
    let statements = policy["Statement"].as_array().expect("statements");
    assert!(statements.iter().all(|statement| statement["Sid"].is_string()));
    assert!(policy.to_string().contains("vigia-team-a-control-123456789012-us-east-1"));
    let (code, _, said) = run(&["iam-policy", "--account", "12345"]);
    assert!(code == Some(2) && said.contains("12 digits"), "{said}");
    let (code, _, said) = run(&["iam-policy"]);
    assert!(code == Some(7) && said.contains("does not answer"), "{said}");
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    for (shell, begins) in
        [("bash", "_bootstrap() {"), ("zsh", "#compdef bootstrap"), ("fish", "# Print an optspec")]
    {
        let (code, script, said) = run(&["completions", shell]);
        assert_eq!(code, Some(0), "{said}");
        assert!(script.starts_with(begins) && script.contains("doctor"), "{shell}: {}", &script[..200]);
    }
    let (code, _, said) = run(&["completions", "tcsh"]);
    assert!(code == Some(2) && said.contains("bash, zsh, fish"), "{said}");
    let (code, page, said) = run(&["man"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(page.contains(".TH bootstrap") && page.contains(".SH DEPLOY"), "{page}");
}

#[test]
fn an_error_is_one_object_where_objects_are_asked_for() {
    let (code, printed, said) = run(&["deploy", "--json", "--artifacts", "/nonexistent"]);
    assert_eq!((code, printed.as_str()), (Some(8), ""));
    let event: Value = serde_json::from_str(said.trim()).expect("one object");
    assert_eq!((&event["event"], &event["exit"]), (&Value::from("error"), &Value::from(8)));
    assert!(event["text"].as_str().expect("a text").contains("/nonexistent/ec2-lb"));
}

#[test]
fn without_an_endpoint_doctor_still_looks_at_this_machine() {
    let (code, report, said) = run(&["doctor", "--json"]);
    assert_eq!(code, Some(1), "{said}");
    let report: Value = serde_json::from_str(&report).expect("one object");
    assert_eq!(check(&report, "credentials").0, "failed");
    assert_eq!(check(&report, "clock").0, "not-known-here");
    assert_eq!(check(&report, "cargo-lambda").0, "ok");
    assert_eq!(check(&report, "account and stack").0, "not-known-here");
}
