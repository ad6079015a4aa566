//! The fleet heals: each story breaks one thing and ends with exactly the desired number of workers and one
//! load balancer, nothing launched twice and nothing left over.
//!
//! Four stacks at the same time, because most of the time is waiting for the next tick.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use aws_sdk_ec2::types::Tag;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::support::{Cloud, Poller, eventually, say, stripped, text};

const MINUTE: Duration = Duration::from_secs(60);
/// Two silent ticks, a schedule that was just missed, and a boot.
const PATIENCE: Duration = Duration::from_secs(150);

#[test]
fn a_fleet_heals_without_double_launches_or_leftovers() {
    let cloud = Cloud::start();
    std::thread::scope(|scope| {
        for (stack, story) in [
            ("alpha", workers_and_the_reconciler_fail as fn(&Fleet<'_>)),
            ("beta", the_load_balancer_and_then_a_zone_fail),
            ("gamma", the_desired_count_is_garbage_and_ec2_throttles),
            ("delta", a_new_release_replaces_workers_that_run),
        ] {
            let fleet = Fleet { cloud: &cloud, stack, client: client() };
            scope.spawn(move || {
                fleet.cloud.deploy(stack, &["--workers", "2"]);
                story(&fleet);
            });
        }
    });
    let mut instances: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (token, ids) in cloud.launches() {
        assert!(!token.is_empty(), "a launch without a client token");
        instances.entry(token).or_default().extend(ids);
    }
    for (token, ids) in &instances {
        assert_eq!(ids.len(), 1, "{token} was used for {ids:?}");
    }
    say(&format!("{} launches, each once", instances.len()));
    cloud.down();
    assert_eq!(cloud.processes(), Vec::<String>::new(), "a machine outlives its stack");
}

fn workers_and_the_reconciler_fail(fleet: &Fleet<'_>) {
    fleet.is_whole_within(2, MINUTE, "deployed");
    the_reconciler_is_killed_in_mid_tick(fleet);
    let hung = fleet.cloud.fault("hang", fleet.stack);
    fleet.is_whole_without(&hung, "a hung worker is replaced");
    two_invocations_come_at_once(fleet);
}

/// Killed after EC2 has carried the launch out and before the function gets the reply.
fn the_reconciler_is_killed_in_mid_tick(fleet: &Fleet<'_>) {
    let faults = fleet.break_launches(&json!({"kind": "delay", "millis": 30_000}));
    let before = fleet.cloud.launches().len();
    let hits = || -> u64 { faults.iter().map(|(_, fault)| fleet.cloud.api_fault_hits(*fault)).sum() };
    let dead = fleet.cloud.fault("kill-host", fleet.stack);
    eventually("alpha: EC2 has launched, and the function waits for the reply", PATIENCE, || {
        let launched = fleet.cloud.launches().len();
        if launched > before && hits() > 0 { Ok(()) } else { Err(format!("{launched} launches")) }
    });
    let pids = fleet.cloud.functions(fleet.stack);
    assert!(!pids.is_empty(), "the function's process is not found");
    for pid in pids {
        kill(pid);
    }
    for (_, fault) in &faults {
        fleet.cloud.clear_api_fault(*fault);
    }
    let phases: Vec<String> = fleet.state()["slots"]
        .as_object()
        .expect("slots")
        .values()
        .map(|slot| slot["phase"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(phases.iter().any(|phase| phase == "launching"), "not in mid-tick: {phases:?}");
    fleet.is_whole_without(&dead, "the reconciler is killed in mid-tick");
}

fn two_invocations_come_at_once(fleet: &Fleet<'_>) {
    let dead = fleet.cloud.fault("kill-host", fleet.stack);
    // Ten seconds after a tick, so that the next one does not count as its repetition.
    let time = eventually("alpha: the last tick is 11 to 17 s old", MINUTE, || {
        let now = jiff::Timestamp::now();
        let last = fleet.state()["last_tick"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        match last.map(|last| now.duration_since(last).as_secs()) {
            Some(11..=17) => Ok(now),
            age => Err(format!("{age:?}")),
        }
    });
    let reports: Vec<Value> = std::thread::scope(|scope| {
        let invocations: Vec<_> =
            (0..2).map(|number| scope.spawn(move || fleet.invoke_and_wait(time, number))).collect();
        fleet.is_whole_without(&dead, "two invocations at once");
        invocations.into_iter().map(|one| one.join().expect("an invocation ends")).collect()
    });
    let skipped: u64 = reports.iter().filter_map(|report| report["skipped"].as_u64()).sum();
    assert!(skipped >= 3, "each of the three ticks is made by one at most: {reports:?}");
}

/// EC2 refuses launches in the first zone tried, and from then on only there.
fn a_zone_has_no_capacity(fleet: &Fleet<'_>) {
    let before = fleet.cloud.instances(fleet.stack, "running");
    let faults = fleet.break_launches(&json!({"kind": "refuse-capacity"}));
    let dead = fleet.cloud.fault("kill-host", fleet.stack);
    let full = eventually("beta: a launch is refused", PATIENCE, || {
        let hit = faults.iter().find(|(_, fault)| fleet.cloud.api_fault_hits(*fault) > 0);
        hit.map(|(zone, _)| zone.clone()).ok_or_else(|| "none".to_owned())
    });
    for (_, fault) in faults.iter().filter(|(zone, _)| *zone != full) {
        fleet.cloud.clear_api_fault(*fault);
    }
    fleet.is_whole_without(&dead, "a zone has no capacity");
    for new in fleet.cloud.instances(fleet.stack, "running").iter().filter(|id| !before.contains(id)) {
        assert_ne!(fleet.zone_of(new), full, "{new} is where there is no capacity");
    }
}

fn the_load_balancer_and_then_a_zone_fail(fleet: &Fleet<'_>) {
    fleet.is_whole_within(2, MINUTE, "deployed");
    let dead = fleet.cloud.fault_of("kill-host", fleet.stack, "lb");
    fleet.answers_no_more();
    eventually("beta: the same URL answers again after the load balancer's host died", PATIENCE, || {
        fleet.ask("/healthcheck").map(drop)
    });
    fleet.is_whole_within(2, PATIENCE, "the dead load balancer is gone");
    let ended = fleet.cloud.balancers(fleet.stack, "terminated");
    assert!(ended.contains(&dead), "{dead} is not among the terminated {ended:?}");
    fleet.has_a_healthy_load_balancer_that_deploy_knows();
    a_zone_has_no_capacity(fleet);
    a_new_load_balancer_takes_the_address(fleet);
}

fn a_new_load_balancer_takes_the_address(fleet: &Fleet<'_>) {
    let old = fleet.balancers();
    let artifacts = with_another("ec2-lb");
    let directory = artifacts.path().to_string_lossy().into_owned();
    let poller = Poller::start(&fleet.url());
    let said = fleet.cloud.must(fleet.stack, &["deploy", "--artifacts", &directory]);
    assert!(said.contains("a new load balancer boots, the old one serves"), "{said}");
    fleet.is_whole_within(2, MINUTE, "a new load balancer has the address");
    poller.must_have_lost_nothing("beta: a new load balancer");
    assert!(!fleet.balancers().contains(&old[0]), "{old:?} is still there");
    let again = fleet.cloud.must(fleet.stack, &["deploy", "--artifacts", &directory]);
    assert!(again.contains("nothing changed"), "{again}");
}

fn a_new_release_replaces_workers_that_run(fleet: &Fleet<'_>) {
    fleet.is_whole_within(2, MINUTE, "deployed");
    let poller = fleet.poller_with_sign_ins();
    let old = fleet.releases();
    let artifacts = with_another("ec2-worker");
    let directory = artifacts.path().to_string_lossy().into_owned();
    let said = fleet.cloud.must(fleet.stack, &["deploy", "--until", "healthy", "--artifacts", &directory]);
    assert!(said.contains("replaces the workers"), "{said}");
    let left = eventually("delta: a rollout is under way", MINUTE, || {
        let status = fleet.cloud.status(fleet.stack);
        status["rollout"]["left"].as_u64().ok_or_else(|| status["rollout"].to_string())
    });
    assert!((1..=2).contains(&left), "{left}");
    let said = fleet.cloud.must(fleet.stack, &["deploy", "--artifacts", &directory]);
    say(&format!("delta: {said}"));
    // The last old one is out of the registry and drains.
    eventually("delta: every worker is of the new release", 4 * MINUTE, || {
        let now = fleet.releases();
        if now.is_disjoint(&old) && now.len() == 1 { Ok(()) } else { Err(format!("{now:?}")) }
    });
    fleet.is_whole_within(2, PATIENCE, "a new release is rolled out");
    poller.must_have_lost_nothing("delta: a new release");
    assert_eq!(fleet.cloud.status(fleet.stack)["rollout"], Value::Null);
}

/// Two boots are given up, after 45 s each with the policy of tests.
#[test]
fn a_release_that_does_not_start_is_frozen() {
    let cloud = Cloud::start();
    let fleet = &Fleet { cloud: &cloud, stack: "epsilon", client: client() };
    cloud.deploy(fleet.stack, &["--workers", "2"]);
    fleet.is_whole_within(2, MINUTE, "deployed");
    let poller = fleet.poller_with_sign_ins();
    let (old, workers) = (fleet.releases(), fleet.cloud.instances(fleet.stack, "running"));
    let artifacts = with_another("ec2-worker");
    std::fs::copy("/bin/false", artifacts.path().join("ec2-worker")).expect("a program that exits at once");
    let directory = artifacts.path().to_string_lossy().into_owned();
    let output = fleet.cloud.bootstrap(fleet.stack, &["deploy", "--artifacts", &directory]);
    let said = text(&output);
    say(&format!("epsilon: {said}"));
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("did not start") && said.contains("2 workers of an older release stay"), "{said}");
    let status = fleet.cloud.status(fleet.stack);
    assert!(status["held"].to_string().contains("the old workers keep serving"), "{status}");
    assert_eq!(status["rollout"]["left"], 2, "{status}");
    let running = fleet.cloud.instances(fleet.stack, "running");
    assert!(workers.iter().all(|id| running.contains(id)), "{workers:?} stay, of {running:?}");
    // The old programs are deployed again, and the fleet is whole again.
    let said = fleet.cloud.deploy(fleet.stack, &[]);
    fleet.is_whole_within(2, PATIENCE, "what served is deployed again");
    eventually("epsilon: every worker is of the release before", PATIENCE, || {
        let now = fleet.releases();
        if now == old { Ok(()) } else { Err(format!("{now:?}: {said}")) }
    });
    poller.must_have_lost_nothing("epsilon: a release that does not start");
}

/// Copies the programs, and changes one of them in bytes that do not matter.
fn with_another(program_name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in ["ec2-lb", "ec2-worker", "reconciler"] {
        std::fs::copy(stripped().join(name), directory.path().join(name)).expect("a copy");
    }
    let file = directory.path().join(program_name);
    let mut bytes = std::fs::read(&file).expect("the copy");
    bytes.extend(b"another release");
    std::fs::write(&file, bytes).expect("writable");
    directory
}

fn the_desired_count_is_garbage_and_ec2_throttles(fleet: &Fleet<'_>) {
    fleet.is_whole_within(2, MINUTE, "deployed");
    let before = fleet.cloud.instances(fleet.stack, "running");
    let large = "1".repeat(3 << 20);
    let bucket = fleet.control_bucket();
    for (content, says) in [
        ("", "an empty text is not a whole number"),
        ("banana", "`banana` is not a whole number"),
        ("-1", "-1 is out of range"),
        ("1e9", "`1e9` is not a whole number"),
        (large.as_str(), "more than 256 bytes, not a number"),
    ] {
        fleet.cloud.write_object(&bucket, "desired-count", content);
        fleet.two_stay_in_force(says, &before);
    }
    fleet.cloud.aws(&["s3", "rm", "--quiet", &format!("s3://{bucket}/desired-count")]);
    fleet.two_stay_in_force("desired-count is missing", &before);
    fleet.cloud.write_object(&bucket, "desired-count", "2");
    let fault = fleet.cloud.api_fault(&json!({
        "effect": {"kind": "error", "status": 500, "code": "InternalError", "message": "on purpose"},
        "calls": {"service": "s3", "action": "GET", "path": format!("/{bucket}/desired-count"), "caller": "function"},
        "limit": {"for_seconds": 600}
    }));
    fleet.two_stay_in_force("could not read desired-count: InternalError", &before);
    fleet.cloud.clear_api_fault(fault);

    let faults = fleet.break_launches(&json!({"kind": "throttle"}));
    let dead = fleet.cloud.fault("kill-host", fleet.stack);
    eventually("gamma: a throttled launch is held back, with the reason", PATIENCE, || {
        let held = fleet.cloud.status(fleet.stack)["held"].to_string();
        if held.contains("RequestLimitExceeded") { Ok(()) } else { Err(held) }
    });
    for (_, fault) in faults {
        fleet.cloud.clear_api_fault(fault);
    }
    fleet.is_whole_without(&dead, "EC2 throttles launches");
    fleet.cloud.write_object(&bucket, "desired-count", "3");
    fleet.is_whole_within(3, MINUTE, "a number counts again");
}

fn client() -> Client {
    Client::builder().timeout(Duration::from_secs(5)).pool_max_idle_per_host(0).build().expect("a client")
}

fn kill(pid: u32) {
    let killed = Command::new("sh").args(["-c", &format!("kill -9 {pid}")]).status().expect("a shell");
    assert!(killed.success(), "{pid} cannot be killed");
}

/// One stack, and the properties that it must have.
struct Fleet<'a> {
    cloud: &'a Cloud,
    stack: &'static str,
    client: Client,
}

impl Fleet<'_> {
    fn url(&self) -> String {
        self.cloud.url(self.stack)
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let answer =
            self.client.get(format!("{}{path}", self.url())).send().map_err(|error| error.to_string())?;
        let status = answer.status();
        if status == 200 { answer.json().map_err(|error| error.to_string()) } else { Err(status.to_string()) }
    }

    /// Returns the releases of the existing workers.
    fn releases(&self) -> BTreeSet<String> {
        let seen = self.cloud.instances_of(self.stack, "worker", "pending,running", |one| {
            one.tags().iter().find(|tag| tag.key() == Some("vigia:release")).and_then(Tag::value)
        });
        seen.into_iter().collect()
    }

    fn poller_with_sign_ins(&self) -> Poller {
        let (login, password) = ("ana", "correct-horse-battery");
        let signed_up = self.client.post(format!("{}/signup/{login}/{password}", self.url())).send();
        assert_eq!(signed_up.expect("an answer").status(), 201);
        Poller::with_sign_ins(&self.url(), login, password)
    }

    fn answers_no_more(&self) {
        eventually("beta: the URL does not answer", MINUTE, || match self.ask("/healthcheck") {
            Ok(answer) => Err(answer.to_string()),
            Err(_) => Ok(()),
        });
    }

    fn control_bucket(&self) -> String {
        format!("vigia-{}-control-000000000000-us-east-1", self.stack)
    }

    fn state(&self) -> Value {
        let observer = &self.cloud.observer;
        let state = observer.s3.get_object().bucket(self.control_bucket()).key("fleet/state.json");
        let state = observer.wait(async { state.send().await.expect("the state").body.collect().await });
        serde_json::from_slice(&state.expect("the whole of it").into_bytes()).expect("JSON")
    }

    /// The stack's subnets, and their zones.
    fn subnets(&self) -> Vec<(String, String)> {
        let listed = self.cloud.aws(&[
            "ec2",
            "describe-subnets",
            "--filters",
            &format!("Name=tag:vigia:stack,Values={}", self.stack),
            &format!("Name=tag:Name,Values=vigia-{}-private-*", self.stack),
            "--query",
            "Subnets[].[SubnetId, AvailabilityZone]",
        ]);
        let words: Vec<&str> = listed.split_whitespace().collect();
        words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
    }

    fn zone_of(&self, id: &str) -> String {
        let query = "Reservations[].Instances[].Placement.AvailabilityZone";
        self.cloud.aws(&["ec2", "describe-instances", "--instance-ids", id, "--query", query])
    }

    /// Breaks the launches of this stack's workers, and of no other's; returns the rule for each zone.
    fn break_launches(&self, effect: &Value) -> Vec<(String, u64)> {
        let rule = |subnet: &str| {
            json!({
                "effect": effect,
                "calls": {"service": "ec2", "action": "RunInstances", "subnet": subnet},
                "limit": {"for_seconds": 600}
            })
        };
        self.subnets()
            .into_iter()
            .map(|(subnet, zone)| (zone, self.cloud.api_fault(&rule(&subnet))))
            .collect()
    }

    /// Invokes the function as the schedule does, and does not wait for its end.
    fn invoke(&self, time: jiff::Timestamp) {
        let event = json!({"source": "test", "time": time.to_string()}).to_string();
        let function = format!("vigia-{}-reconciler", self.stack);
        let how = ["--invocation-type", "Event", "--payload", &event, "/dev/null"];
        self.cloud.aws(&[&["lambda", "invoke", "--function-name", &function][..], &how].concat());
    }

    /// Returns the report of an invocation, some 45 s later.
    fn invoke_and_wait(&self, time: jiff::Timestamp, number: u32) -> Value {
        let event = json!({"source": "test", "time": time.to_string()}).to_string();
        let function = format!("vigia-{}-reconciler", self.stack);
        let file = self.cloud.dir.path().join(format!("report-{number}"));
        let how = ["--payload", &event, &file.to_string_lossy()];
        self.cloud.aws(&[&["lambda", "invoke", "--function-name", &function][..], &how].concat());
        serde_json::from_slice(&std::fs::read(file).expect("a report")).expect("JSON")
    }

    /// Returns whether there are exactly this many workers, one load balancer, and nothing else.
    fn is_whole(&self, workers: usize) -> Result<(), String> {
        let there = "pending,running,stopping,stopped";
        let running = self.cloud.instances(self.stack, there);
        let balancers = self.cloud.balancers(self.stack, there);
        let amount = self.ask("/checkamount")?;
        let is_amount = amount["desired"] == workers && amount["healthy"] == workers;
        if running.len() == workers && balancers.len() == 1 && is_amount {
            Ok(())
        } else {
            Err(format!("workers {running:?}, load balancers {balancers:?}, {amount}"))
        }
    }

    fn balancers(&self) -> Vec<String> {
        self.cloud.balancers(self.stack, "pending,running")
    }

    fn has_a_healthy_load_balancer_that_deploy_knows(&self) {
        eventually(&format!("{}: status shows a healthy load balancer", self.stack), MINUTE, || {
            let balancer = &self.cloud.status(self.stack)["load_balancer"];
            let is_well = balancer["state"] == "healthy" && balancer["id"] == self.balancers()[0];
            if is_well { Ok(()) } else { Err(balancer.to_string()) }
        });
        let said = self.cloud.deploy(self.stack, &[]);
        assert!(said.contains("nothing changed"), "the reconciler's load balancer is as good: {said}");
    }

    fn is_whole_within(&self, workers: usize, within: Duration, what: &str) {
        eventually(&format!("{}: {what}", self.stack), within, || self.is_whole(workers));
    }

    /// Returns whether there are two workers as before, and this one is terminated.
    fn is_whole_without(&self, id: &str, what: &str) {
        eventually(&format!("{}: {what}", self.stack), PATIENCE, || {
            if !self.cloud.instances(self.stack, "terminated").contains(&id.to_owned()) {
                return Err(format!("{id} is not terminated"));
            }
            self.is_whole(2)
        });
    }

    /// Waits until a tick has read the count and changed only the message for people.
    fn two_stay_in_force(&self, says: &str, running: &[String]) {
        self.invoke(jiff::Timestamp::now());
        eventually(&format!("gamma: `{says}` in status"), MINUTE, || {
            let held = self.cloud.status(self.stack)["held"].to_string();
            let is_said = held.contains(says) && held.contains("2 stays in force");
            if is_said { Ok(()) } else { Err(held) }
        });
        assert_eq!(self.cloud.instances(self.stack, "running"), running, "{says}");
        let amount = self.ask("/checkamount").expect("it answers");
        assert_eq!((amount["desired"].as_u64(), amount["healthy"].as_u64()), (Some(2), Some(2)), "{amount}");
    }
}
