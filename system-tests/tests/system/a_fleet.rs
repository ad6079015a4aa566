//! The whole system on one machine: the README's promises, used as people use them.
//!
//! One story in one test, because the machine has room for one fleet at a time.

use std::time::Duration;

use crate::privileges::{self, Policy, Use};
use crate::second_judge::{self, Principals};
use crate::support::{Cloud, Poller, bootstrap, deployer_of, eventually, say, text};
use aws_sdk_ec2::types::Instance;
use reqwest::blocking::{Client, Response};
use reqwest::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE};
use serde_json::Value;

const ALPHA: &str = "alpha";
const BETA: &str = "beta";
const MINUTE: Duration = Duration::from_secs(60);
/// A count that takes most of the fleet away is read again for 35 s before it counts; no worker is terminated
/// in the first minute of a stack.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn serves_heals_scales_survives_a_restart_and_goes_without_a_trace() {
    let cloud = Cloud::start();
    // In production's policy: every other test has a faster one.
    let first = cloud.deploy(ALPHA, &["--workers", "3", "--policy", "default"]);
    assert!(first.contains("URL") && first.contains("Admin token"), "{first}");
    classic_is_not_published(&cloud);
    cloud.deploy(
        BETA,
        &["--workers", "2", "--profile", "classic", "--allow-cidr", "127.0.0.0/8", "--policy", "default"],
    );
    let alpha = Api::new(&cloud, ALPHA);
    let beta = Api::new(&cloud, BETA);

    people_sign_up_and_in(&alpha);
    a_user_leaves(&alpha);
    workers_answer_only_the_load_balancer(&cloud, &alpha);
    signups_are_spread_over_workers(&cloud, &alpha);
    classic_is_the_original(&cloud, &beta);
    // During this, the reconciler of beta works on a fault that no other story needs it for.
    let dead_balancer = cloud.fault_of("kill-host", BETA, "lb");
    wrong_credentials_are_named(&cloud);

    let bystanders = cloud.instances(BETA, "running");
    assert_eq!(bystanders.len(), 2);
    a_dead_host_is_replaced_unnoticed(&cloud, &alpha);
    the_amount_follows_setamount_and_a_text_editor(&cloud, &alpha);
    assert_eq!(cloud.instances(BETA, "running"), bystanders, "nothing in alpha ever touches beta");
    a_load_balancer_is_replaced(&cloud, &beta, &dead_balancer);

    deploying_again_changes_nothing(&cloud);
    an_operator_looks_after_it(&cloud);
    // The local cloud forgets the used permissions when it ends.
    let before = cloud.control("uses");
    let policies = deployed_policies(&cloud);
    users_survive_a_restart_of_the_local_cloud(&cloud);
    destroy_leaves_nothing(&cloud);
    let reports = [before, cloud.control("uses")];
    let uses: Vec<Use> = reports.iter().flat_map(privileges::uses).collect();
    policies_allow_the_used_permissions_and_no_more(&policies, &uses);
    a_second_evaluator_agrees(&cloud, &policies, &reports);
    cloud.down();
    assert_eq!(cloud.processes(), Vec::<String>::new(), "local-cloud down leaves no process");
}

fn people_sign_up_and_in(api: &Api) {
    assert_eq!(api.post("/signup/ana/correct-horse-battery").status(), 201);
    assert_eq!(api.post("/signup/ana/another-long-one").status(), 409);
    let signin = api.get("/signin/ana/correct-horse-battery");
    assert_eq!(signin.status(), 303);
    assert_eq!(signin.headers()[LOCATION], "/protected");
    let cookie =
        signin.headers()[SET_COOKIE].to_str().expect("text").split(';').next().expect("a value").to_owned();
    assert_eq!(api.get("/protected").status(), 401);
    let page =
        api.client.get(api.at("/protected")).header(COOKIE, &cookie).header("accept", "text/html").send();
    let page = page.expect("an answer");
    assert_eq!(page.status(), 200);
    assert!(page.text().expect("a page").contains("ana"));
    assert_eq!(api.get("/signin/ana/wrong-horse-battery").status(), 401);
    assert_eq!(api.get("/signin/unknown/wrong-horse-battery").status(), 401);
    assert_eq!(api.get("/list").status(), 401);
    let list: Value = api.admin_get("/list").json().expect("JSON");
    assert_eq!(list[0]["login"], "ana");
    let stored = list[0]["password"].as_str().expect("the stored record");
    assert!(stored.starts_with("$argon2id$"), "{stored}");
    assert_eq!(api.get("/setamount/3").status(), 401);
}

fn a_user_leaves(api: &Api) {
    assert_eq!(api.post("/signup/dora/correct-horse-battery").status(), 201);
    let cookie = || {
        let signin = api.get("/signin/dora/correct-horse-battery");
        assert_eq!(signin.status(), 303);
        signin.headers()[SET_COOKIE].to_str().expect("text").split(';').next().expect("a value").to_owned()
    };
    let (first, second) = (cookie(), cookie());
    let send = |request: reqwest::blocking::RequestBuilder, cookie: &str| {
        request.header(COOKIE, cookie).send().expect("an answer").status()
    };
    assert_eq!(send(api.client.post(api.at("/signout")), &first), 204);
    assert_eq!(send(api.client.delete(api.at("/account")), &second), 204);
    assert_eq!(api.get("/signin/dora/correct-horse-battery").status(), 401);
}

/// Except for health checks, which the reconciler sends.
fn workers_answer_only_the_load_balancer(cloud: &Cloud, api: &Api) {
    let addresses = cloud.instances_of(ALPHA, "worker", "running", Instance::private_ip_address);
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    for address in addresses {
        let ask =
            |path: &str| api.client.get(format!("http://{address}:8080{path}")).send().expect("an answer");
        assert_eq!(ask("/healthcheck").status(), 200);
        let refused = ask("/checkamount");
        assert_eq!(refused.status(), 403);
        let body: Value = refused.json().expect("JSON");
        assert_eq!(body["error"], "direct_traffic", "{body}");
    }
    assert_eq!(api.get("/checkamount").status(), 200);
}

fn signups_are_spread_over_workers(cloud: &Cloud, api: &Api) {
    let admin = cloud.admin_of(&api.url);
    let requests = || -> Vec<(String, u64)> {
        let view: Value =
            api.client.get(format!("{admin}/view")).send().expect("an answer").json().expect("JSON");
        let workers = view["workers"].as_object().expect("workers by id");
        workers
            .iter()
            .map(|(id, worker)| (id.clone(), worker["requests"].as_u64().expect("a count")))
            .collect()
    };
    let before = requests();
    for n in 0..20 {
        assert_eq!(api.post(&format!("/signup/user{n}/correct-horse-battery")).status(), 201);
    }
    let served = requests().iter().zip(&before).filter(|((_, after), (_, before))| after > before).count();
    assert!(served >= 2, "20 signups went to {served} worker");
    let mut names: Vec<String> = (0..20).map(|_| api.healthy_worker()).collect();
    names.sort();
    names.dedup();
    assert!(names.len() >= 2, "20 health checks were answered by {names:?}");
}

/// It is refused before anything is made.
fn classic_is_not_published(cloud: &Cloud) {
    let artifacts = crate::support::stripped().to_string_lossy().into_owned();
    for blocks in [&[][..], &["--allow-cidr", "10.0.0.0/8,203.0.113.0/24"]] {
        let arguments = [&["deploy", "--artifacts", &artifacts, "--profile", "classic"], blocks].concat();
        let output = cloud.bootstrap(BETA, &arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("is not a private block"), "{}", text(&output));
    }
    let buckets = cloud.aws(&["s3api", "list-buckets", "--query", "Buckets[].Name"]);
    assert!(!buckets.contains(&format!("vigia-{BETA}-")), "{buckets}");
}

fn classic_is_the_original(cloud: &Cloud, api: &Api) {
    assert_eq!(api.post("/signup/bob/x").status(), 201);
    assert_eq!(api.get("/signin/bob/x").status(), 303);
    assert_eq!(api.get("/signin/bob/y").status(), 401);
    let list: Value = api.get("/list").json().expect("JSON");
    assert_eq!(list, serde_json::json!([{"login": "bob", "password": "x"}]));
    let object = format!("s3://vigia-{BETA}-data-000000000000-us-east-1/users/bob");
    assert_eq!(cloud.aws(&["s3", "cp", "--quiet", &object, "-"]), "x");
    assert_eq!(api.get("/setamount/2").status(), 200);
}

fn wrong_credentials_are_named(cloud: &Cloud) {
    for (key, says) in
        [(("unknown", "test"), "InvalidClientTokenId"), (("test", "wrong"), "SignatureDoesNotMatch")]
    {
        let output = bootstrap(&cloud.endpoint, key, ALPHA, &cloud.dir.path().join("none"), &["status"]);
        assert_eq!(output.status.code(), Some(4), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
    }
}

fn a_dead_host_is_replaced_unnoticed(cloud: &Cloud, api: &Api) {
    let before = cloud.instances(ALPHA, "running");
    let poller = Poller::start(&api.url);
    let victim = cloud.fault("kill-host", ALPHA);
    eventually("a new worker serves in the place of the dead one", PATIENCE, || {
        let running = cloud.instances(ALPHA, "running");
        let replaced = !running.contains(&victim) && running.len() == 3;
        let newcomer = running.iter().find(|id| !before.contains(id));
        let serves = newcomer.is_some_and(|id| api.healthy_workers(30).contains(id));
        if replaced && serves { Ok(()) } else { Err(format!("running {running:?}")) }
    });
    assert!(cloud.instances(ALPHA, "terminated").contains(&victim));
    api.wait_for_amount(3, MINUTE);
    poller.must_have_lost_nothing("a host died");
}

fn the_amount_follows_setamount_and_a_text_editor(cloud: &Cloud, api: &Api) {
    let poller = Poller::start(&api.url);
    let set: Value = api.admin_get("/setamount/5").json().expect("JSON");
    assert_eq!(set, serde_json::json!({"desired": 5, "previous": 3}));
    api.wait_for_amount(5, MINUTE);
    poller.must_have_lost_nothing("scaling up");

    let poller = Poller::start(&api.url);
    let bucket = format!("vigia-{ALPHA}-control-000000000000-us-east-1");
    cloud.write_object(&bucket, "desired-count", "2");
    api.wait_for_amount(2, PATIENCE);
    let count = || cloud.instances(ALPHA, "running").len();
    // Drained first: they are out of the registry and still run.
    assert!(count() > 2, "the surplus workers were terminated before they were drained");
    eventually("the surplus workers are terminated", MINUTE, || match count() {
        2 => Ok(()),
        n => Err(format!("{n} run")),
    });
    poller.must_have_lost_nothing("scaling down");

    cloud.write_object(&bucket, "desired-count", "banana");
    // A worker repeats its last answer for a second.
    eventually("the banana is said", MINUTE, || {
        let amount = api.amount();
        assert_eq!((amount["desired"].as_u64(), amount["healthy"].as_u64()), (Some(2), Some(2)), "{amount}");
        let is_said = amount["problem"].as_str().is_some_and(|why| why.contains("banana"));
        if is_said { Ok(()) } else { Err(amount.to_string()) }
    });
    eventually("a tick has seen the banana", MINUTE, || {
        let status = cloud.status(ALPHA);
        let held = status["held"].to_string();
        if held.contains("banana") { Ok(()) } else { Err(held) }
    });
    let status = cloud.status(ALPHA);
    assert!(status["problem"].as_str().is_some_and(|why| why.contains("banana")), "{status}");
    assert_eq!(cloud.instances(ALPHA, "running").len(), 2);
    for (amount, code) in
        [("", 400), ("/abc", 400), ("/0", 422), ("/-1", 422), ("/100000", 422), ("?amount=x", 400)]
    {
        assert_eq!(api.admin_get(&format!("/setamount{amount}")).status(), code, "{amount}");
    }
    cloud.must(ALPHA, &["scale", "2"]);
    eventually("the banana is forgotten", MINUTE, || {
        let amount = api.amount();
        if amount == serde_json::json!({"desired": 2, "healthy": 2}) {
            Ok(())
        } else {
            Err(amount.to_string())
        }
    });
}

fn a_load_balancer_is_replaced(cloud: &Cloud, api: &Api, dead: &String) {
    eventually("the reconciler has replaced the load balancer of beta", PATIENCE, || {
        let terminated = cloud.balancers(BETA, "terminated");
        let answer = api.client.get(api.at("/healthcheck")).send();
        let serves = answer.is_ok_and(|answer| answer.status() == 200);
        if serves && terminated.contains(dead) { Ok(()) } else { Err(format!("terminated {terminated:?}")) }
    });
}

/// Of both stacks: the roles' policies as IAM has them, and the policy that a deployer is told to have.
fn deployed_policies(cloud: &Cloud) -> Vec<Policy> {
    let mut policies = Vec::new();
    for stack in [ALPHA, BETA] {
        for what in ["worker", "lb", "reconciler"] {
            let who = format!("vigia-{stack}-{what}");
            let name = ["--role-name", &who, "--policy-name", "vigia"];
            let how = ["--query", "PolicyDocument", "--output", "json"];
            let text = cloud.aws(&[&["iam", "get-role-policy"], &name[..], &how].concat());
            policies.push(Policy { what, who, document: serde_json::from_str(&text).expect("a policy") });
        }
        let document = cloud.deployer_policy(stack);
        policies.push(Policy { what: "deployer", who: deployer_of(stack), document });
    }
    policies
}

fn policies_allow_the_used_permissions_and_no_more(policies: &[Policy], uses: &[Use]) {
    let wrong = privileges::wrong(policies, uses);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let judged = uses.iter().filter(|one| policies.iter().any(|policy| policy.who == one.who)).count();
    say(&format!("{judged} uses judged by {} policies", policies.len()));
}

fn a_second_evaluator_agrees(cloud: &Cloud, policies: &[Policy], reports: &[Value]) {
    let mut principals = Principals::default();
    for policy in policies {
        let kind = if policy.what == "deployer" { "user" } else { "role" };
        let arn = format!("arn:aws:iam::000000000000:{kind}/{}", policy.who);
        principals.add(arn, &policy.document);
    }
    let uses = reports.iter().flat_map(|report| report["uses"].as_array().expect("a list").clone());
    second_judge::must_agree(cloud, &principals, &uses.collect::<Vec<_>>());
}

/// Other tests check their output; this one checks their permissions.
fn an_operator_looks_after_it(cloud: &Cloud) {
    for stack in [ALPHA, BETA] {
        for command in ["doctor", "logs", "status"] {
            cloud.must(stack, &[command]);
        }
    }
}

fn deploying_again_changes_nothing(cloud: &Cloud) {
    for stack in [ALPHA, BETA] {
        let said = cloud.deploy(stack, &[]);
        assert!(said.contains("nothing changed"), "{said}");
    }
    let artifacts = crate::support::stripped().to_string_lossy().into_owned();
    let other = cloud.bootstrap(ALPHA, &["deploy", "--artifacts", &artifacts, "--profile", "classic"]);
    assert_eq!(other.status.code(), Some(2), "{}", text(&other));
    assert!(text(&other).contains("belong to the profile secure"), "{}", text(&other));
}

fn users_survive_a_restart_of_the_local_cloud(cloud: &Cloud) {
    cloud.down();
    assert_eq!(cloud.processes(), Vec::<String>::new(), "local-cloud down leaves no process");
    cloud.up();
    cloud.deploy(ALPHA, &[]);
    let api = Api::new(cloud, ALPHA);
    assert_eq!(api.get("/signin/ana/correct-horse-battery").status(), 303);
    let list: Value = api.admin_get("/list?fields=login").json().expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(21));
}

fn destroy_leaves_nothing(cloud: &Cloud) {
    for stack in [ALPHA, BETA] {
        let said = cloud.must(stack, &["destroy", "--yes"]);
        assert!(said.contains("is removed"), "{said}");
        let again = cloud.must(stack, &["destroy", "--yes"]);
        assert!(again.contains("nothing to remove"), "{again}");
    }
    for (what, list) in [
        ("buckets", &["s3api", "list-buckets", "--query", "Buckets[].Name"][..]),
        ("roles", &["iam", "list-roles", "--query", "Roles[].RoleName"]),
        ("profiles", &["iam", "list-instance-profiles", "--query", "InstanceProfiles[].InstanceProfileName"]),
        ("functions", &["lambda", "list-functions", "--query", "Functions[].FunctionName"]),
        ("rules", &["events", "list-rules", "--query", "Rules[].Name"]),
        ("log groups", &["logs", "describe-log-groups", "--query", "logGroups[].logGroupName"]),
        ("addresses", &["ec2", "describe-addresses", "--query", "Addresses[].PublicIp"]),
    ] {
        assert_eq!(cloud.aws(list), "", "{what} are left");
    }
    for kind in [
        "vpcs",
        "subnets",
        "security-groups",
        "route-tables",
        "internet-gateways",
        "vpc-endpoints",
        "volumes",
        "network-interfaces",
    ] {
        let left = cloud.aws(&[
            "ec2",
            &format!("describe-{kind}"),
            "--filters",
            "Name=tag-key,Values=vigia:stack",
            "--query",
            "*[].Tags[].Value",
        ]);
        assert_eq!(left, "", "{kind} are left");
    }
    for state in ["pending", "running", "stopping", "stopped"] {
        assert_eq!(cloud.instances(ALPHA, state), Vec::<String>::new());
        assert_eq!(cloud.instances(BETA, state), Vec::<String>::new());
    }
}

/// A stack's API as a person uses it.
struct Api {
    url: String,
    token: String,
    client: Client,
}

impl Api {
    fn new(cloud: &Cloud, stack: &str) -> Self {
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client");
        Self { url: cloud.url(stack), token: cloud.token(stack), client }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn get(&self, path: &str) -> Response {
        self.client.get(self.at(path)).send().expect("an answer")
    }

    fn post(&self, path: &str) -> Response {
        self.client.post(self.at(path)).send().expect("an answer")
    }

    fn admin_get(&self, path: &str) -> Response {
        let bearer = format!("Bearer {}", self.token);
        self.client.get(self.at(path)).header(AUTHORIZATION, bearer).send().expect("an answer")
    }

    fn amount(&self) -> Value {
        self.get("/checkamount").json().expect("JSON")
    }

    fn wait_for_amount(&self, n: u64, within: Duration) {
        eventually(&format!("{n} of {n} workers are healthy"), within, || {
            let amount = self.amount();
            let is_reached = amount["desired"] == n && amount["healthy"] == n;
            if is_reached { Ok(()) } else { Err(amount.to_string()) }
        });
    }

    fn healthy_worker(&self) -> String {
        let health: Value = self.get("/healthcheck").json().expect("JSON");
        health["worker"].as_str().expect("the worker's id").to_owned()
    }

    fn healthy_workers(&self, asks: usize) -> Vec<String> {
        (0..asks).map(|_| self.healthy_worker()).collect()
    }
}
