//! A local cloud of this test's own, and the commands that people use, as processes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_ec2::types::{Filter, Instance};
use process::settings::{Env, Vars as _};
use serde_json::Value;

use crate::aws_cli;
use crate::census::Observer;

/// Local clouds at a time. A test waits most of its time, for boots, ticks and drains. With more clouds,
/// their simultaneous work makes each of them late.
const MOST_CLOUDS: usize = 4;

/// A test's turn to have a local cloud.
struct Turn;

static TURNS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    fn wait() -> Self {
        let (taken, freed) = &TURNS;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = freed.wait_while(taken, |taken| *taken >= MOST_CLOUDS);
        *taken.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TURNS.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        TURNS.1.notify_one();
    }
}

pub(crate) struct Cloud {
    pub(crate) endpoint: String,
    pub(crate) dir: tempfile::TempDir,
    listen: SocketAddr,
    addresses: Vec<Ipv4Addr>,
    /// Seed of the delays after which the cloud knows new resources; random if there is none.
    seed: Option<u64>,
    /// Additional arguments of `local-cloud up`.
    more: &'static [&'static str],
    client: reqwest::blocking::Client,
    /// Tests list resources again and again, and the AWS command line takes a second of CPU time for each.
    pub(crate) observer: Observer,
    /// Keys of the deploying users, by stack.
    deployers: Mutex<BTreeMap<String, Key>>,
    _turn: Turn,
}

/// An access key and its secret.
pub(crate) type Key = (String, String);

/// Returns the IAM user that deploys a stack, by the local cloud's name of the caller.
pub(crate) fn deployer_of(stack: &str) -> String {
    format!("deployer-{stack}")
}

impl Cloud {
    pub(crate) fn start() -> Self {
        Self::with(None, &[])
    }

    pub(crate) fn start_with_seed(seed: u64) -> Self {
        Self::with(Some(seed), &[])
    }

    pub(crate) fn start_with(more: &'static [&'static str]) -> Self {
        Self::with(None, more)
    }

    fn with(seed: Option<u64>, more: &'static [&'static str]) -> Self {
        let turn = Turn::wait();
        let listen = testing::unused().expect("an address");
        // Public addresses that no other program on this machine uses: the port is always 5000.
        let [second, third] = [listen.port() / 250 % 100 + 111, listen.port() % 250]
            .map(|n| u8::try_from(n).expect("below 250"));
        let addresses = (1..=8).map(|last| Ipv4Addr::new(127, second, third, last)).collect();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let endpoint = format!("http://{listen}");
        let cloud = Self {
            observer: Observer::new(&endpoint),
            endpoint,
            dir,
            listen,
            addresses,
            seed,
            more,
            client: reqwest::blocking::Client::new(),
            deployers: Mutex::default(),
            _turn: turn,
        };
        cloud.up();
        cloud
    }

    pub(crate) fn up(&self) {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let output = Command::new(program("local-cloud"))
            .args(["up", "--listen", &self.listen.to_string(), "--elastic-ips", &addresses.join(",")])
            .args(self.more)
            .arg("--dir")
            .arg(self.cloud_dir())
            .arg("--venv")
            .arg(venv())
            .args(self.seed.map(|seed| format!("--consistency-seed={seed}")))
            // A test program that is killed leaves nothing behind.
            .arg(format!("--owner={}", std::process::id()))
            .output()
            .expect("local-cloud runs");
        assert!(output.status.success(), "local-cloud up: {}", text(&output));
    }

    pub(crate) fn down(&self) {
        let output =
            Command::new(program("local-cloud")).arg("down").arg("--dir").arg(self.cloud_dir()).output();
        let output = output.expect("local-cloud runs");
        assert!(output.status.success(), "local-cloud down: {}", text(&output));
    }

    /// Breaks a random worker.
    pub(crate) fn fault(&self, kind: &str, stack: &str) -> String {
        self.fault_of(kind, stack, "worker")
    }

    pub(crate) fn fault_of(&self, kind: &str, stack: &str, role: &str) -> String {
        let output = Command::new(program("local-cloud"))
            .args(["fault", kind, "--endpoint", &self.endpoint, "--tag", &format!("vigia:role={role}")])
            .args(["--tag", &format!("vigia:stack={stack}")])
            .output()
            .expect("local-cloud runs");
        assert!(output.status.success(), "local-cloud fault: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Breaks calls of the AWS API, see `local-cloud fault-api`; returns the rule's id.
    pub(crate) fn api_fault(&self, rule: &Value) -> u64 {
        let url = format!("{}/_local-cloud/api-faults", self.endpoint);
        let answer = reqwest::blocking::Client::new().post(url).json(rule).send().expect("an answer");
        assert!(answer.status().is_success(), "{rule}: {answer:?}");
        answer.json().expect("the id of the rule")
    }

    /// Returns how many calls a rule broke.
    pub(crate) fn api_fault_hits(&self, id: u64) -> u64 {
        self.api_fault_view(id)["hits"].as_u64().expect("a number")
    }

    /// Returns a rule as it is listed.
    pub(crate) fn api_fault_view(&self, id: u64) -> Value {
        let Value::Array(rules) = self.control("api-faults") else { panic!("no list of rules") };
        rules.into_iter().find(|rule| rule["id"] == id).unwrap_or_else(|| panic!("there is no rule {id}"))
    }

    /// Releases the calls that a rule holds, and removes it.
    pub(crate) fn release_api_fault(&self, id: u64) {
        let url = format!("{}/_local-cloud/api-faults/{id}/release", self.endpoint);
        let answer = self.client.post(url).send().expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Returns an answer of the local cloud's own interface.
    pub(crate) fn control(&self, path: &str) -> Value {
        let url = format!("{}/_local-cloud/{path}", self.endpoint);
        self.client.get(url).send().expect("an answer").json().expect("JSON")
    }

    /// Waits until every call knows all resources.
    pub(crate) fn wait_until_all_is_known(&self) {
        eventually("everything that was made is known", Duration::from_secs(30), || {
            let young = self.control("consistency")["young"].clone();
            if young.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(young.to_string()) }
        });
    }

    /// Returns the number of the last call that changed something.
    pub(crate) fn last_call(&self) -> u64 {
        self.control("calls?last=1")[0]["number"].as_u64().unwrap_or(0)
    }

    /// Returns records of calls with a number above this one.
    pub(crate) fn calls_since(&self, number: u64) -> Vec<Value> {
        match self.control(&format!("calls?since={number}")) {
            Value::Array(calls) => calls,
            other => panic!("no list of calls: {other}"),
        }
    }

    pub(crate) fn clear_api_fault(&self, id: u64) {
        let url = format!("{}/_local-cloud/api-faults/{id}", self.endpoint);
        let answer = reqwest::blocking::Client::new().delete(url).send().expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Returns every launch so far that was carried out: its client token, and its instances.
    pub(crate) fn launches(&self) -> Vec<(String, Vec<String>)> {
        let url = format!("{}/_local-cloud/calls", self.endpoint);
        let calls: Value = reqwest::blocking::get(url).expect("an answer").json().expect("JSON");
        let calls = calls.as_array().expect("a list").iter();
        calls
            .filter(|call| call["action"] == "RunInstances" && call["outcome"] == "done")
            .map(|call| {
                let ids = call["instances"].as_array().expect("a list").iter();
                let ids = ids.map(|id| id.as_str().expect("an id").to_owned()).collect();
                (call["client_token"].as_str().unwrap_or_default().to_owned(), ids)
            })
            .collect()
    }

    /// Returns the processes of a stack's function: children of this cloud that run it.
    pub(crate) fn functions(&self, stack: &str) -> Vec<u32> {
        let (cloud, stack) =
            (self.cloud_dir().to_string_lossy().into_owned(), format!("VIGIA_STACK={stack}"));
        let is_function = |environ: &[u8]| {
            let text = String::from_utf8_lossy(environ);
            let has = |wanted: &str| text.split('\0').any(|pair| pair == wanted);
            text.contains(&cloud) && has(&stack) && text.contains("AWS_LAMBDA_RUNTIME_API=")
        };
        let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| is_function(&text)))
            .collect()
    }

    /// Returns a command, run by a user with exactly the policy that `iam-policy` prints for the stack.
    pub(crate) fn bootstrap(&self, stack: &str, arguments: &[&str]) -> Output {
        let (key, secret) = self.deployer(stack);
        bootstrap(&self.endpoint, (&key, &secret), stack, &self.token_file(stack), arguments)
    }

    /// Returns the key of the user that deploys a stack.
    pub(crate) fn deployer(&self, stack: &str) -> Key {
        let mut deployers = self.deployers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = deployers.get(stack) {
            return key.clone();
        }
        let key = self.user(&deployer_of(stack), &self.deployer_policy(stack));
        deployers.insert(stack.to_owned(), key.clone());
        key
    }

    /// Returns the policy that `iam-policy` prints for a stack.
    pub(crate) fn deployer_policy(&self, stack: &str) -> Value {
        let account = ["iam-policy", "--account", "000000000000"];
        let output = bootstrap(&self.endpoint, ("test", "test"), stack, &self.token_file(stack), &account);
        assert!(output.status.success(), "bootstrap iam-policy: {}", text(&output));
        serde_json::from_slice(&output.stdout).expect("a policy is JSON")
    }

    /// Makes an IAM user with exactly this policy, or replaces the user's policy.
    pub(crate) fn user(&self, name: &str, policy: &Value) -> Key {
        let url = format!("{}/_local-cloud/users", self.endpoint);
        let wanted = serde_json::json!({"name": name, "policy": policy});
        let answer = self.client.post(url).json(&wanted).send().expect("an answer");
        assert!(answer.status().is_success(), "{name}: {}", answer.text().unwrap_or_default());
        let key: Value = answer.json().expect("JSON");
        let part = |name: &str| key[name].as_str().expect("a key has two parts").to_owned();
        (part("access_key"), part("secret"))
    }

    /// Runs a command that must succeed; returns both its outputs.
    pub(crate) fn must(&self, stack: &str, arguments: &[&str]) -> String {
        let output = self.bootstrap(stack, arguments);
        assert!(output.status.success(), "bootstrap {arguments:?}: {}", text(&output));
        text(&output)
    }

    pub(crate) fn deploy(&self, stack: &str, more: &[&str]) -> String {
        let artifacts = stripped().to_str().expect("a path of letters");
        self.must(stack, &[&["deploy", "--artifacts", artifacts], more].concat())
    }

    pub(crate) fn token(&self, stack: &str) -> String {
        std::fs::read_to_string(self.token_file(stack)).expect("deploy wrote the token").trim().to_owned()
    }

    pub(crate) fn url(&self, stack: &str) -> String {
        let output = self.bootstrap(stack, &["url"]);
        assert!(output.status.success(), "bootstrap url: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn status(&self, stack: &str) -> Value {
        let output = self.bootstrap(stack, &["status", "--json"]);
        assert!(output.status.success(), "bootstrap status: {}", text(&output));
        serde_json::from_slice(&output.stdout).expect("status --json is JSON")
    }

    /// Runs the AWS command line and returns its output as text. Its key differs from `bootstrap`'s, so that
    /// the local cloud can tell a test's calls from a deployment's.
    pub(crate) fn aws(&self, arguments: &[&str]) -> String {
        self.try_aws(arguments).unwrap_or_else(|said| panic!("aws {arguments:?}: {said}"))
    }

    pub(crate) fn try_aws(&self, arguments: &[&str]) -> Result<String, String> {
        let common = ["--endpoint-url", &self.endpoint, "--output", "text"];
        aws_cli::run(&[&common[..], arguments].concat())
    }

    /// Writes an object as a person with a text editor would.
    pub(crate) fn write_object(&self, bucket: &str, key: &str, content: &str) {
        let file = self.dir.path().join(format!("edited-{bucket}"));
        std::fs::write(&file, content).expect("writable");
        self.aws(&["s3", "cp", "--quiet", &file.to_string_lossy(), &format!("s3://{bucket}/{key}")]);
    }

    /// Returns the ids of a stack's workers in one of these states, sorted.
    pub(crate) fn instances(&self, stack: &str, states: &str) -> Vec<String> {
        self.instances_of(stack, "worker", states, Instance::instance_id)
    }

    /// Returns the ids of a stack's load balancers in one of these states, sorted.
    pub(crate) fn balancers(&self, stack: &str, states: &str) -> Vec<String> {
        self.instances_of(stack, "lb", states, Instance::instance_id)
    }

    /// Returns a field of each instance of a stack with this role and in one of these states, sorted.
    pub(crate) fn instances_of(
        &self,
        stack: &str,
        role: &str,
        states: &str,
        what: impl Fn(&Instance) -> Option<&str>,
    ) -> Vec<String> {
        let filter = |name: &str, values: &str| {
            let values = values.split(',').map(str::to_owned).collect();
            Filter::builder().name(name).set_values(Some(values)).build()
        };
        let listed = self
            .observer
            .ec2
            .describe_instances()
            .filters(filter("tag:vigia:stack", stack))
            .filters(filter("tag:vigia:role", role))
            .filters(filter("instance-state-name", states));
        let listed = self.observer.wait(listed.send()).expect("instances are listed");
        let instances = listed.reservations().iter().flat_map(|reservation| reservation.instances());
        let mut seen: Vec<String> = instances.filter_map(what).map(str::to_owned).collect();
        seen.sort();
        seen
    }

    /// Returns the admin address of the load balancer with this public URL.
    pub(crate) fn admin_of(&self, url: &str) -> String {
        let output =
            Command::new(program("local-cloud")).args(["status", "--endpoint", &self.endpoint]).output();
        let status: Value = serde_json::from_slice(&output.expect("local-cloud runs").stdout).expect("JSON");
        let public = url.trim_start_matches("http://");
        let pair = status["public"].as_array().expect("a list").iter().find(|pair| pair[0] == public);
        let private =
            pair.expect("the public address leads somewhere")[1].as_str().expect("an address").to_owned();
        format!("http://{}:9000", private.split(':').next().expect("an address has a host"))
    }

    /// Returns the command lines of processes that work in this cloud's directory or name it.
    pub(crate) fn processes(&self) -> Vec<String> {
        let needle = self.cloud_dir().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("Linux").flatten() {
            let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
            let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if command.contains(&needle) || environment.contains(&needle) || cwd.starts_with(self.cloud_dir())
            {
                found.push(command);
            }
        }
        found
    }

    fn cloud_dir(&self) -> PathBuf {
        self.dir.path().join("cloud")
    }

    /// Returns the file for `curl --cacert`.
    pub(crate) fn certificate_file(&self, stack: &str) -> PathBuf {
        self.dir.path().join(format!("{stack}.certificate.pem"))
    }

    pub(crate) fn token_file(&self, stack: &str) -> PathBuf {
        self.dir.path().join(format!("{stack}.token"))
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Ok(status) = self.client.get(format!("{}/_local-cloud/status", self.endpoint)).send() {
                say(&format!("local cloud: {}", status.text().unwrap_or_default()));
            }
            let log = std::fs::read_to_string(self.cloud_dir().join("local-cloud.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                say(&format!("local cloud: {line}"));
            }
        }
        Command::new(program("local-cloud")).arg("down").arg("--dir").arg(self.cloud_dir()).output().ok();
    }
}

pub(crate) fn bootstrap(
    endpoint: &str,
    key: (&str, &str),
    stack: &str,
    token: &Path,
    arguments: &[&str],
) -> Output {
    let mut command = bootstrap_command(endpoint, key, stack, token, arguments);
    command.stdin(Stdio::null()).output().expect("bootstrap runs")
}

pub(crate) fn bootstrap_command(
    endpoint: &str,
    key: (&str, &str),
    stack: &str,
    token: &Path,
    arguments: &[&str],
) -> Command {
    let mut command = Command::new(program("bootstrap"));
    command
        .args(["--endpoint-url", endpoint, "--region", "us-east-1", "--stack", stack, "--token-file"])
        .arg(token)
        .args(arguments)
        .args(policy(arguments))
        .env("AWS_ACCESS_KEY_ID", key.0)
        .env("AWS_SECRET_ACCESS_KEY", key.1)
        .env_remove("AWS_SESSION_TOKEN")
        .env_remove("AWS_PROFILE")
        .env("VIGIA_CARGO_LAMBDA", venv().join("bin/cargo-lambda"));
    command
}

/// Returns the option for the fast policy, unless the arguments name another: a test waits for ticks and
/// drains most of its time.
fn policy(arguments: &[&str]) -> Vec<OsString> {
    let is_deployment = matches!(arguments.first(), Some(&"deploy" | &"plan"));
    if !is_deployment || arguments.contains(&"--policy") {
        return Vec::new();
    }
    vec!["--policy".into(), workspace().join("crates/fleet/policies/fast.json").into()]
}

/// Returns a program of this workspace, which `make build` puts into the directory above that of the tests.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    let directory = own.parent().and_then(Path::parent).expect("tests are in a directory of the programs'");
    let path = directory.join(name);
    assert!(path.exists(), "{} is not built; `make test` builds all programs first", path.display());
    path
}

/// Returns a directory with a stack's programs, without debug symbols: they are uploaded and installed in a
/// fraction of the time.
pub(crate) fn stripped() -> &'static Path {
    static STRIPPED: LazyLock<PathBuf> = LazyLock::new(|| {
        let is_optimised = Env.get("VIGIA_OPTIMISED").is_some();
        let name = if is_optimised { "stripped-optimised" } else { "stripped" };
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        for name in ["ec2-lb", "ec2-worker", "reconciler"] {
            let (mut from, to) = (program(name), directory.join(name));
            // The function, of which a release build takes a quarter of an hour, is not attacked.
            if is_optimised && name != "reconciler" {
                from = from.with_file_name("../release").join(name);
            }
            let time = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
            if time(&to) > time(&from) {
                continue;
            }
            // Written next to its place and then moved there, because another test program may do the same.
            let new = directory.join(format!("{name}.{}", std::process::id()));
            let output = Command::new("strip").arg("-o").arg(&new).arg(&from).output();
            let output = output.expect("strip runs: it comes with the linker");
            assert!(output.status.success(), "strip {name}: {}", text(&output));
            std::fs::rename(&new, &to).expect("it moves");
        }
        directory
    });
    &STRIPPED
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

pub(crate) fn venv() -> PathBuf {
    workspace().join(".venv")
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Prints at once and always, so that a test of minutes shows its progress.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "  {text}").ok();
}

/// Repeats a look until it succeeds; the panic shows the last result.
pub(crate) fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let since = Instant::now();
    loop {
        match look() {
            Ok(value) => {
                say(&format!("{what}: after {:.1} s", since.elapsed().as_secs_f64()));
                return value;
            }
            Err(seen) if since.elapsed() > within => {
                panic!("{what}: not within {within:?}; last seen: {seen}")
            }
            // Each look costs the emulators CPU time that other tests wait for.
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// A client that sends twenty requests a second, each on a new connection, and never repeats one.
pub(crate) struct Poller {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Vec<String>)>,
}

impl Poller {
    pub(crate) fn start(url: &str) -> Self {
        Self::over(url, &[("/healthcheck", 200)])
    }

    /// One in five requests signs this user in, one reads the desired count.
    pub(crate) fn with_sign_ins(url: &str, login: &str, password: &str) -> Self {
        let sign_in = format!("/signin/{login}/{password}");
        let healthcheck = ("/healthcheck", 200);
        Self::over(url, &[healthcheck, (&sign_in, 303), healthcheck, ("/checkamount", 200), healthcheck])
    }

    /// Requests these paths in turn; each has its expected status.
    fn over(url: &str, paths: &[(&str, u16)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let paths: Vec<(String, u16)> =
            paths.iter().map(|(path, status)| (format!("{url}{path}"), *status)).collect();
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let client = reqwest::blocking::Client::builder()
                .pool_max_idle_per_host(0)
                .timeout(Duration::from_secs(10))
                .retry(reqwest::retry::never())
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("a client");
            let (mut sent, mut failures) = (0, Vec::new());
            for (number, (url, status)) in paths.iter().cycle().enumerate() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                let next = Instant::now() + Duration::from_millis(50);
                let path = number % paths.len();
                match client.get(url).send() {
                    Ok(response) if response.status() == *status => {}
                    Ok(response) => failures.push(format!("request {path}: {}", response.status())),
                    Err(error) => failures.push(format!("request {path}: {error:?}")),
                }
                sent += 1;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            (sent, failures)
        });
        Self { stop, thread }
    }

    /// Ends the polling; every request must have had its expected answer.
    pub(crate) fn must_have_lost_nothing(self, during: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, failures) = self.thread.join().expect("the poller does not panic");
        say(&format!("{during}: {sent} requests, {} failed", failures.len()));
        assert!(sent > 20, "the poller hardly ran: {sent} requests");
        assert!(failures.is_empty(), "{during}: {} of {sent} failed: {failures:?}", failures.len());
    }
}
