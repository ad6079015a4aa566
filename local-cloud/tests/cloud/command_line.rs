//! The program `local-cloud`: local clouds as processes of their own.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use local_cloud::addresses::unused;
use local_cloud::api_faults::RuleView;
use local_cloud::emulators::default_venv;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Aws, Network, REGION, UserData, cloud, eventually, launched, nothing_runs_in, processes_in,
    public_addresses,
};

/// Directory and addresses of a local cloud other than that of this process.
struct Place {
    dir: TempDir,
    listen: SocketAddr,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), listen: unused().expect("an address") }
    }

    fn dir(&self) -> PathBuf {
        self.dir.path().join("cloud")
    }

    fn aws(&self) -> Aws {
        Aws::at(&format!("http://{}", self.listen), REGION, ("test", "test", None))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
        let addresses: Vec<String> = public_addresses(1).iter().map(ToString::to_string).collect();
        command
            .args([name, "--listen", &self.listen.to_string(), "--elastic-ips", &addresses.join(",")])
            .arg("--dir")
            .arg(self.dir())
            .arg("--venv")
            .arg(default_venv());
        command
    }

    fn up(&self, more: &[&str]) -> (Option<i32>, String) {
        outcome(self.command("up").args(more))
    }

    fn down(&self) -> (Option<i32>, String) {
        outcome(Command::new(env!("CARGO_BIN_EXE_local-cloud")).arg("down").arg("--dir").arg(self.dir()))
    }

    /// Runs in the foreground; returns once it answers.
    async fn serve(&self) -> Serve {
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log");
        let mut serve = self.command("serve");
        let child = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        eventually("the local cloud answers", async || {
            let status = local_cloud::daemon::status(&format!("http://{}", self.listen)).await;
            status.map(drop).ok_or_else(|| self.log())
        })
        .await;
        Serve(child)
    }

    /// Runs `serve` in a directory where it cannot start; returns its exit code and log.
    async fn fails_to_serve(&self, dir: &Path) -> (Option<i32>, String) {
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
        command.args(["serve", "--listen", &self.listen.to_string(), "--dir"]).arg(dir);
        command.arg("--venv").arg(default_venv()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut serve = Serve(command.spawn().expect("it starts"));
        let status = serve.ends(self).await;
        (status.code(), self.log())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn pid_of(&self, emulator: &str) -> Pid {
        let found = processes_in(&self.dir());
        let line = found.iter().find(|line| line.contains(emulator) && line.contains("bin/python"));
        let line = line.unwrap_or_else(|| panic!("no {emulator} in {found:?}"));
        Pid::from_raw(line.split(' ').next().expect("a first word").parse().expect("a process id"))
    }
}

/// Killed when the test is over, however it ends.
struct Serve(Child);

impl Serve {
    async fn ends(&mut self, place: &Place) -> ExitStatus {
        eventually("the local cloud ends", async || {
            self.0.try_wait().expect("it can be looked after").ok_or_else(|| place.log())
        })
        .await
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.down());
    }
}

/// Returns exit code and both outputs.
fn outcome(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("local-cloud runs");
    (status.code(), [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}

/// A shell and its child that both ignore SIGTERM.
fn stubborn() -> UserData {
    let script = "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho waiting\nwait\n";
    UserData::new()
        .file("/srv/wait", "0755", script)
        .service("ExecStart=/srv/wait\nWorkingDirectory=/srv\nRestart=always")
}

/// A shell that waits for a child.
fn forking() -> UserData {
    let script = "#!/bin/sh\nsleep 1000 &\necho waiting\nwait\n";
    UserData::new().file("/srv/wait", "0755", script).service("ExecStart=/srv/wait\nRestart=always")
}

async fn network(aws: &Aws) -> Network {
    let (vpc, _) = aws.vpc("10.80.0.0/16").await;
    let subnet = aws.subnet(&vpc, "127.80.1.0/24").await;
    Network { vpc, subnet }
}

#[tokio::test]
async fn objects_and_roles_survive_a_restart_and_machines_do_not() {
    let place = Place::new();
    let (code, said) = place.up(&[]);
    assert_eq!(code, Some(0), "{said}");
    let aws = place.aws();
    let bucket = aws.bucket().await;
    aws.put(&bucket, "users/a b+c", "kept").await;
    aws.profile("kept").await;
    let network = network(&aws).await;
    let instance = launched(aws.launch(&network).user_data(stubborn().encode())).await;
    aws.shows(&instance.id, "waiting").await;

    let (code, said) = place.down();
    assert_eq!((code, said.as_str()), (Some(0), "The local cloud is stopped.\n"));
    assert_eq!(processes_in(&place.dir()), Vec::<String>::new());
    let (code, said) = place.down();
    assert_eq!((code, said.as_str()), (Some(0), "No local cloud is running.\n"));

    let (code, said) = place.up(&[]);
    assert_eq!(code, Some(0), "{said}");
    // Connections of the old one are closed.
    let aws = place.aws();
    assert_eq!(aws.read(&bucket, "users/a b+c").await, "kept");
    aws.iam.get_instance_profile().instance_profile_name("kept").send().await.expect("it is there");
    let gone = aws.ec2.describe_instances().instance_ids(&instance.id).send().await.expect_err("gone");
    assert_eq!(gone.code(), Some("InvalidInstanceID.NotFound"));
    assert!(!place.dir().join("instances").join(&instance.id).exists(), "its disk is still there");
}

#[tokio::test]
async fn a_local_cloud_ends_with_its_owner() {
    let place = Place::new();
    let mut owner = Command::new("sleep").arg("1000").spawn().expect("it runs");
    let (code, said) = place.up(&["--owner", &owner.id().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(place.aws().s3.list_buckets().send().await.is_ok());
    owner.kill().and_then(|()| owner.wait()).expect("it ends");
    nothing_runs_in(&place.dir()).await;
}

#[tokio::test]
async fn up_finds_a_running_local_cloud() {
    let place = Place::new();
    assert_eq!(place.up(&[]).0, Some(0));
    let (code, said) = place.up(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("The local cloud is already running (process "), "{said}");

    let elsewhere = Place { dir: tempfile::tempdir().expect("a directory"), listen: place.listen };
    let (code, said) = elsewhere.up(&[]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("another local cloud (process ") && said.contains("stop it first"), "{said}");

    // The same directory at another port: the two would write over each other's state.
    let other_port = Place::new();
    let (code, said) = up_in(&place.dir(), &other_port);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains(&format!("is at http://{}; stop it first", place.listen)), "{said}");
    assert!(place.aws().s3.list_buckets().send().await.is_ok(), "the first one goes on");
}

fn up_in(dir: &Path, place: &Place) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
    command.args(["up", "--listen", &place.listen.to_string(), "--dir"]).arg(dir);
    outcome(command.arg("--venv").arg(default_venv()))
}

#[test]
fn up_names_the_obstacle() {
    let place = Place::new();
    let taken = TcpListener::bind(place.listen).expect("free");
    let (code, said) = place.up(&[]);
    let (host, port) = (place.listen.ip(), place.listen.port());
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains(&format!("port {port} of {host} is taken by another program")), "{said}");
    drop(taken);

    let reserved = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = reserved.local_addr().expect("bound");
    let (code, said) = place.up(&["--reserve", &address.to_string()]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains(&format!("port {} of 127.0.0.1 is taken", address.port())), "{said}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
    command.args(["up", "--listen", &place.listen.to_string(), "--venv", "/nonexistent", "--dir"]);
    let (code, said) = outcome(command.arg(place.dir()));
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("/nonexistent has no emulators; run `make venv`"), "{said}");
    assert_eq!(processes_in(&place.dir()), Vec::<String>::new());
}

#[tokio::test]
async fn serve_names_the_obstacle() {
    let place = Place::new();
    let taken = TcpListener::bind(place.listen).expect("free");
    let (code, said) = place.fails_to_serve(&place.dir()).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("{} is taken by another program", place.listen)), "{said}");
    drop(taken);

    let (code, said) = place.fails_to_serve(&cloud().dir).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("another local cloud uses {}", cloud().dir.display())), "{said}");
}

#[test]
fn addresses_that_others_can_reach_are_refused() {
    for arguments in [["--listen", "0.0.0.0:4566"], ["--elastic-ips", "127.0.0.1,192.0.2.1"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
        let (code, said) = outcome(command.args(["up", "--dir", "/nonexistent"]).args(arguments));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("on loopback addresses only"), "{said}");
    }
}

#[test]
fn without_a_local_cloud_its_commands_say_so() {
    let place = Place::new();
    let endpoint = format!("http://{}", place.listen);
    let commands =
        [&["status"][..], &["fault", "crash"], &["fault-api", "throttle", "--service", "s3"], &["calls"]];
    for command in commands {
        let mut program = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
        let (code, said) = outcome(program.args(command).args(["--endpoint", &endpoint]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("no local cloud at {endpoint}")), "{said}");
    }
}

/// Returns the IPv6 block of a new VPC in a local cloud of its own with this seed, and the cloud's report
/// about it.
async fn block_of_seed(seed: &str) -> (String, Value) {
    let place = Place::new();
    let (code, said) = place.up(&["--consistency-seed", seed]);
    assert_eq!(code, Some(0), "{said}");
    let aws = place.aws();
    let create = aws.ec2.create_vpc().cidr_block("10.83.0.0/16").amazon_provided_ipv6_cidr_block(true);
    let vpc = create.send().await.expect("a VPC");
    let vpc = vpc.vpc().and_then(|vpc| vpc.vpc_id()).expect("an id");
    aws.settled(&[vpc]).await;
    let described = aws.ec2.describe_vpcs().vpc_ids(vpc).send().await.expect("described");
    let block = described.vpcs()[0].ipv6_cidr_block_association_set().last().expect("a block");
    let ask = |command: &str| -> Value {
        let mut program = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
        let endpoint = format!("http://{}", place.listen);
        let (code, said) = outcome(program.args([command, "--endpoint", &endpoint]));
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).expect("JSON")
    };
    assert_eq!(ask("status")["consistency_seed"].to_string(), seed);
    (block.ipv6_cidr_block().expect("a block").to_owned(), ask("consistency"))
}

#[tokio::test]
async fn a_seed_draws_the_same_again() {
    let ((one, report), (again, _), (other, _)) =
        futures::join!(block_of_seed("7"), block_of_seed("7"), block_of_seed("8"));
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert_eq!(report["seed"], 7);
    assert!(report["answers"]["block-associating"].as_u64() >= Some(1), "{report}");
    assert_eq!(report["callers"]["test"], report["answers"]);
}

#[tokio::test]
async fn fault_picks_by_tag_and_names_its_instance() {
    let place = Place::new();
    assert_eq!(place.up(&[]).0, Some(0));
    let aws = place.aws();
    let network = network(&aws).await;
    let instance = launched(aws.launch(&network).tag_specifications(crate::support::name("one"))).await;
    launched(aws.launch(&network).tag_specifications(crate::support::name("two"))).await;
    let endpoint = format!("http://{}", place.listen);
    let kill = |tag: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
        outcome(program.args(["fault", "kill-host", "--endpoint", &endpoint, "--tag", tag]))
    };
    assert_eq!(kill("Name=one"), (Some(0), format!("{}\n", instance.id)));
    let (code, said) = kill("Name=one");
    assert_eq!(code, Some(1), "a dead host was hit again: {said}");
    assert!(said.contains("no live instance matches"), "{said}");
    let (code, said) = kill("Name");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not KEY=VALUE"), "{said}");
}

#[tokio::test]
async fn clear_removes_all_rules_and_prints_their_hits() {
    let place = Place::new();
    assert_eq!(place.up(&[]).0, Some(0));
    let endpoint = format!("http://{}", place.listen);
    let fault_api = |words: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_local-cloud"));
        outcome(program.arg("fault-api").args(words).args(["--endpoint", &endpoint]))
    };
    let throttle = |service| fault_api(&["throttle", "--service", service, "--times", "9"]);
    assert_eq!([throttle("s3"), throttle("ec2")], ["1\n", "2\n"].map(|id| (Some(0), id.to_owned())));
    let list = || place.aws().s3.list_buckets().send();
    assert_eq!(list().await.expect_err("throttled").code(), Some("SlowDown"));
    let (_, said) = fault_api(&["clear"]);
    let cleared: Vec<RuleView> = serde_json::from_str(&said).expect("JSON");
    assert_eq!(cleared.iter().map(|rule| (rule.id, rule.hits)).collect::<Vec<_>>(), [(1, 1), (2, 0)]);
    assert_eq!(fault_api(&["list"]), (Some(0), "[]\n".to_owned()));
    list().await.expect("no longer throttled");
}

#[tokio::test]
async fn a_killed_local_cloud_takes_its_processes_along() {
    let place = Place::new();
    let mut serve = place.serve().await;
    let aws = place.aws();
    let network = network(&aws).await;
    let script = "#!/bin/sh\necho waiting\nexec sleep 1000\n";
    let data =
        UserData::new().file("/srv/wait", "0755", script).service("ExecStart=/srv/wait\nRestart=always");
    let instance = launched(aws.launch(&network).user_data(data.encode())).await;
    aws.shows(&instance.id, "waiting").await;
    let running = processes_in(&place.dir());
    assert!(running.len() >= 4, "{running:?}");
    serve.0.kill().expect("killed");
    serve.0.wait().expect("ended");
    nothing_runs_in(&place.dir()).await;
}

#[tokio::test]
async fn the_end_of_an_emulator_ends_the_local_cloud() {
    for emulator in ["moto_server", "ministack"] {
        let place = Place::new();
        let mut serve = place.serve().await;
        let aws = place.aws();
        let network = network(&aws).await;
        let instance = launched(aws.launch(&network).user_data(forking().encode())).await;
        aws.shows(&instance.id, "waiting").await;
        kill(place.pid_of(emulator), Signal::SIGKILL).expect("killed");
        assert_eq!(serve.ends(&place).await.code(), Some(1));
        let name = emulator.trim_end_matches("_server");
        let says = format!("local-cloud: the emulator {name} ended by itself: signal: 9 (SIGKILL)");
        assert!(place.log().contains(&says), "{}", place.log());
        assert_eq!(processes_in(&place.dir()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn sigterm_stops_everything_in_order() {
    let place = Place::new();
    let mut serve = place.serve().await;
    let aws = place.aws();
    let network = network(&aws).await;
    let script = "#!/bin/sh\ntrap 'echo asked to end; exit 0' TERM\necho waiting\nsleep 1000 & wait\n";
    let data =
        UserData::new().file("/srv/wait", "0755", script).service("ExecStart=/srv/wait\nRestart=always");
    let instance = launched(aws.launch(&network).user_data(data.encode())).await;
    aws.shows(&instance.id, "waiting").await;
    kill(Pid::from_raw(i32::try_from(serve.0.id()).expect("a pid")), Signal::SIGTERM).expect("asked");
    let status = serve.ends(&place).await;
    assert!(status.success(), "{status}: {}", place.log());
    let console = place.dir().join("instances").join(&instance.id).join("console.log");
    let console = std::fs::read_to_string(console).expect("a console");
    assert!(console.contains("asked to end") && console.contains("powered off"), "{console}");
    assert_eq!(processes_in(&place.dir()), Vec::<String>::new());
}
