//! One local cloud for this process, AWS clients for it, and instances that run a small web server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    Filter, IamInstanceProfileSpecification, Instance as Described, InstanceType, ResourceType, Tag,
    TagSpecification,
};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{Credentials, Region, SharedCredentialsProvider};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use local_cloud::consistency::Report;
use local_cloud::cpu::Policy;
use local_cloud::emulators::default_venv;
use local_cloud::quotas::{Quota, Quotas};
use local_cloud::{LocalCloud, Options};
use rand::RngExt as _;
use serde_json::{Value, json};
use testing::emulator::{own_dir, until_the_end};
use tokio::sync::{Mutex, MutexGuard, RwLock};

pub(crate) const REGION: &str = "us-east-1";

/// Elastic IPs of [`cloud`]: enough for all tests that run at a time.
pub(crate) const ELASTIC_IPS: u8 = 24;

/// Each test that allocates one reads this. The test that takes the whole pool is alone.
pub(crate) static ELASTIC_IP_POOL: RwLock<()> = RwLock::const_new(());

/// The port of the web server of an instance.
pub(crate) const PORT: u16 = 5000;

pub(crate) struct Cloud {
    pub(crate) endpoint: String,
    pub(crate) dir: PathBuf,
}

/// The local cloud of this process.
pub(crate) fn cloud() -> &'static Cloud {
    static CLOUD: OnceLock<Cloud> = OnceLock::new();
    // All tests together have more instances and networks than an account is allowed.
    let more = [(Quota::Vcpus, 1000), (Quota::Vpcs, 1000)];
    let quotas = Quotas::generous(usize::from(ELASTIC_IPS)).change(&Quotas::parse(&more));
    CLOUD.get_or_init(|| start(String::from("shared"), ELASTIC_IPS, quotas))
}

/// Returns another one, whose account may be changed by the test that holds it. There are three, so that tests that
/// wait for new resources do not wait for each other as well.
pub(crate) async fn other_cloud() -> (MutexGuard<'static, ()>, &'static Cloud) {
    static CLOUDS: [OnceLock<Cloud>; 3] = [const { OnceLock::new() }; 3];
    static TURNS: [Mutex<()>; 3] = [const { Mutex::const_new(()) }; 3];
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let free = TURNS.iter().enumerate().find_map(|(number, turn)| Some((number, turn.try_lock().ok()?)));
    let (number, turn) = match free {
        Some(free) => free,
        None => {
            let number = CALLS.fetch_add(1, Ordering::Relaxed) % TURNS.len();
            (number, TURNS[number].lock().await)
        }
    };
    (turn, CLOUDS[number].get_or_init(|| start(format!("other-{number}"), 4, Quotas::generous(4))))
}

fn start(name: String, elastic_ips: u8, quotas: Quotas) -> Cloud {
    until_the_end(async move |started| {
        let dir = own_dir(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let cloud = LocalCloud::start(Options {
            listen: "127.0.0.1:0".parse().expect("an address"),
            dir: dir.clone(),
            venv: default_venv(),
            elastic_ips: public_addresses(elastic_ips),
            consistency_seed: None,
            quotas,
            cpu: Policy { quota: None, baseline: "10%".parse().ok() },
        })
        .await
        .expect("the local cloud starts");
        started.send(Cloud { endpoint: cloud.endpoint.clone(), dir }).expect("a task waits");
        cloud.serve(std::future::pending()).await.expect("the emulators live on");
    })
}

/// Loopback addresses that, almost certainly, no other program on this machine uses.
pub(crate) fn public_addresses(count: u8) -> Vec<Ipv4Addr> {
    let mut random = rand::rng();
    let (second, third) = (random.random_range(90..=110), random.random_range(0..=255));
    (1..=count).map(|last| Ipv4Addr::new(127, second, third, last)).collect()
}

/// An access key, its secret and perhaps its session token.
type Key<'a> = (&'a str, &'a str, Option<&'a str>);

/// Clients with one key.
pub(crate) struct Aws {
    endpoint: String,
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) s3: aws_sdk_s3::Client,
    pub(crate) iam: aws_sdk_iam::Client,
    pub(crate) sts: aws_sdk_sts::Client,
    pub(crate) lambda: aws_sdk_lambda::Client,
    pub(crate) events: aws_sdk_eventbridge::Client,
    pub(crate) logs: aws_sdk_cloudwatchlogs::Client,
    pub(crate) quotas: aws_sdk_servicequotas::Client,
}

impl Aws {
    pub(crate) fn new() -> Self {
        Self::with_key(("test", "test", None))
    }

    pub(crate) fn with_key(key: Key<'_>) -> Self {
        Self::at(&cloud().endpoint, REGION, key)
    }

    pub(crate) fn at(endpoint: &str, region: &str, (access, secret, token): Key<'_>) -> Self {
        let key = Credentials::new(access, secret, token.map(str::to_owned), None, "tests");
        let config = testing::client::config(endpoint)
            .into_builder()
            .region(Region::new(region.to_owned()))
            .credentials_provider(SharedCredentialsProvider::new(key))
            // A test wants the first answer.
            .retry_config(RetryConfig::disabled())
            .build();
        let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        Self {
            endpoint: endpoint.to_owned(),
            ec2: aws_sdk_ec2::Client::new(&config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            iam: aws_sdk_iam::Client::new(&config),
            sts: aws_sdk_sts::Client::new(&config),
            lambda: aws_sdk_lambda::Client::new(&config),
            events: aws_sdk_eventbridge::Client::new(&config),
            logs: aws_sdk_cloudwatchlogs::Client::new(&config),
            quotas: aws_sdk_servicequotas::Client::new(&config),
        }
    }

    /// Makes a new bucket with a name of its own.
    pub(crate) async fn bucket(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("bucket-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.s3.create_bucket().bucket(&name).send().await.expect("a bucket");
        name
    }

    pub(crate) async fn put(&self, bucket: &str, key: &str, text: &str) {
        let body = text.as_bytes().to_vec().into();
        self.s3.put_object().bucket(bucket).key(key).body(body).send().await.expect("an object is written");
    }

    pub(crate) async fn read(&self, bucket: &str, key: &str) -> String {
        let object = self.s3.get_object().bucket(bucket).key(key).send().await.expect("an object");
        let bytes = object.body.collect().await.expect("its content").into_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    /// Returns the local cloud's report about new resources, and how often they were missed.
    pub(crate) async fn consistency(&self) -> Report {
        let url = format!("{}/_local-cloud/consistency", self.endpoint);
        reqwest::get(url).await.expect("an answer").json().await.expect("a report")
    }

    /// Waits until every call knows these ids or names.
    pub(crate) async fn settled(&self, names: &[&str]) {
        eventually(&format!("{names:?} are known"), async || {
            let young = self.consistency().await.young;
            let is_young = young.iter().any(|text| text.split(' ').any(|word| names.contains(&word)));
            if is_young { Err(format!("{young:?}")) } else { Ok(()) }
        })
        .await;
    }

    /// Waits until every call knows all present resources.
    pub(crate) async fn caught_up(&self) {
        let young = self.consistency().await.young;
        let ids: Vec<&str> = young.iter().flat_map(|text| text.split(' ').next_back()).collect();
        self.settled(&ids).await;
    }

    /// Makes a VPC; returns it and its real block.
    pub(crate) async fn vpc(&self, block: &str) -> (String, String) {
        let created = self.ec2.create_vpc().cidr_block(block).send().await.expect("a VPC");
        let id = created.vpc().and_then(|vpc| vpc.vpc_id()).expect("an id").to_owned();
        self.settled(&[&id]).await;
        let described = self.ec2.describe_vpcs().vpc_ids(&id).send().await.expect("described");
        let block = described.vpcs()[0].cidr_block().expect("a block").to_owned();
        (id, block)
    }

    pub(crate) async fn subnet(&self, vpc: &str, block: &str) -> String {
        let created = self.ec2.create_subnet().vpc_id(vpc).cidr_block(block);
        let created = known(async || created.clone().send().await).await;
        let subnet = created.subnet().and_then(|subnet| subnet.subnet_id()).expect("an id").to_owned();
        self.settled(&[&subnet]).await;
        subnet
    }

    /// Makes a subnet in a VPC of its own.
    pub(crate) async fn network(&self) -> Network {
        static NUMBER: AtomicU8 = AtomicU8::new(1);
        let created = self.ec2.create_vpc().cidr_block("10.78.0.0/16").send().await.expect("a VPC");
        let vpc = created.vpc().expect("a VPC");
        assert_eq!(vpc.cidr_block(), Some("127.78.0.0/16"));
        let vpc = vpc.vpc_id().expect("an id").to_owned();
        let block = format!("127.78.{}.0/24", NUMBER.fetch_add(1, Ordering::Relaxed));
        let subnet = self.subnet(&vpc, &block).await;
        self.settled(&[&vpc]).await;
        Network { vpc, subnet }
    }

    /// A security group that opens these ports to the world.
    pub(crate) async fn group(&self, network: &Network, ports: &[u16]) -> String {
        let vpc = &network.vpc;
        let created = self.ec2.create_security_group().group_name("web").description("web").vpc_id(vpc);
        let group = created.send().await.expect("a group").group_id().expect("an id").to_owned();
        for port in ports {
            self.open(&group, *port).await;
        }
        group
    }

    pub(crate) async fn open(&self, group: &str, port: u16) {
        let port = i32::from(port);
        let rule = self.ec2.authorize_security_group_ingress().group_id(group).ip_protocol("tcp");
        let rule = rule.from_port(port).to_port(port).cidr_ip("0.0.0.0/0");
        known(async || rule.clone().send().await).await;
    }

    /// An instance profile with a role of the same name, which may do everything.
    pub(crate) async fn profile(&self, name: &str) {
        self.profile_with(name, &json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}])).await;
    }

    /// An instance profile with a role of the same name and these statements.
    pub(crate) async fn profile_with(&self, name: &str, statements: &Value) {
        let role = self.iam.create_role().role_name(name).assume_role_policy_document("{}");
        role.send().await.expect("a role");
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let put = self.iam.put_role_policy().role_name(name).policy_name("own").policy_document(policy);
        known(async || put.clone().send().await).await;
        self.iam.create_instance_profile().instance_profile_name(name).send().await.expect("a profile");
        let add = self.iam.add_role_to_instance_profile().instance_profile_name(name).role_name(name);
        known(async || add.clone().send().await).await;
        self.settled(&[name]).await;
    }

    /// Clients of a new user who may do everything. A rule or a count for a caller is for one test alone only if the
    /// test has its own user: tests with one key met each other's faults.
    pub(crate) async fn of_user(name: &str) -> Self {
        let everything = json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}]);
        Self::new().user(name, &everything).await
    }

    /// Clients of a new user of IAM with these statements.
    pub(crate) async fn user(&self, name: &str, statements: &Value) -> Self {
        self.iam.create_user().user_name(name).send().await.expect("a user");
        // IAM takes no policy without statements.
        if *statements != json!([]) {
            self.user_policy(name, statements).await;
        }
        let made = self.iam.create_access_key().user_name(name).send().await.expect("a key");
        let key = made.access_key().expect("a key");
        Self::with_key((key.access_key_id(), key.secret_access_key(), None))
    }

    /// Replaces the statements of a user.
    pub(crate) async fn user_policy(&self, name: &str, statements: &Value) {
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let put = self.iam.put_user_policy().user_name(name).policy_name("own").policy_document(policy);
        put.send().await.expect("a policy");
    }

    /// Returns RunInstances for one instance, with all required parameters.
    pub(crate) fn launch(&self, network: &Network) -> RunInstancesFluentBuilder {
        self.ec2
            .run_instances()
            .image_id("ami-12345678")
            .instance_type(InstanceType::T3Micro)
            .min_count(1)
            .max_count(1)
            .subnet_id(&network.subnet)
    }

    /// An instance with a web server, once it answers.
    pub(crate) async fn web_server(&self, network: &Network) -> Instance {
        let instance = launched(self.launch(network).user_data(web_server().encode())).await;
        instance.answers().await;
        instance
    }

    pub(crate) async fn describe(&self, id: &str) -> Described {
        self.settled(&[id]).await;
        let described = self.ec2.describe_instances().instance_ids(id).send().await.expect("described");
        described.reservations()[0].instances()[0].clone()
    }

    pub(crate) async fn state(&self, id: &str) -> String {
        let described = self.describe(id).await;
        described.state().and_then(|state| state.name()).expect("a state").as_str().to_owned()
    }

    /// Ids of the instances with this name that are not terminated.
    pub(crate) async fn named(&self, name: &str) -> Vec<String> {
        self.caught_up().await;
        let running = Filter::builder().name("instance-state-name").values("running").build();
        let named = Filter::builder().name("tag:Name").values(name).build();
        let described = self.ec2.describe_instances().filters(running).filters(named).send().await;
        let described = described.expect("described");
        let instances = described.reservations().iter().flat_map(|reservation| reservation.instances());
        instances.filter_map(|instance| instance.instance_id().map(str::to_owned)).collect()
    }

    pub(crate) async fn terminate(&self, id: &str) {
        let terminate = self.ec2.terminate_instances().instance_ids(id);
        known(async || terminate.clone().send().await).await;
    }

    pub(crate) async fn console(&self, id: &str) -> String {
        let output = self.ec2.get_console_output().instance_id(id);
        let output = known(async || output.clone().send().await).await;
        let text = STANDARD.decode(output.output().unwrap_or_default()).expect("base64");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until the console shows this text.
    pub(crate) async fn shows(&self, id: &str, text: &str) {
        eventually(&format!("the console of {id} shows `{text}`"), async || {
            let console = self.console(id).await;
            if console.contains(text) { Ok(()) } else { Err(console) }
        })
        .await;
    }
}

pub(crate) struct Network {
    pub(crate) vpc: String,
    pub(crate) subnet: String,
}

pub(crate) fn name(name: &str) -> TagSpecification {
    let tag = Tag::builder().key("Name").value(name).build();
    TagSpecification::builder().resource_type(ResourceType::Instance).tags(tag).build()
}

pub(crate) fn profile(name: &str) -> IamInstanceProfileSpecification {
    IamInstanceProfileSpecification::builder().name(name).build()
}

pub(crate) async fn launched(request: RunInstancesFluentBuilder) -> Instance {
    let reply = known(async || request.clone().send().await).await;
    let instance = &reply.instances()[0];
    Instance {
        id: instance.instance_id().expect("an id").to_owned(),
        address: instance.private_ip_address().expect("an address").parse().expect("an IPv4 address"),
    }
}

/// Repeats a call until it knows the new resources that it names.
pub(crate) async fn known<T, E: ProvideErrorMetadata + std::fmt::Debug>(
    call: impl AsyncFn() -> Result<T, E>,
) -> T {
    eventually("a call knows the resource it names", async || match call().await {
        Ok(done) => Ok(done),
        Err(error) if comes_too_early(&error) => Err(format!("{error:?}")),
        Err(error) => panic!("{error:?}"),
    })
    .await
}

/// Returns whether a refusal passes by itself.
pub(crate) fn comes_too_early(error: &impl ProvideErrorMetadata) -> bool {
    let code = error.code().unwrap_or_default();
    let is_about_profile =
        error.message().is_some_and(|message| message.contains("Invalid IAM Instance Profile"));
    matches!(
        code,
        "NoSuchEntity" | "NoSuchBucket" | "NotFound" | "OperationAborted" | "ResourceConflictException"
    ) || code.ends_with(".NotFound")
        || is_about_profile
}

/// Returns the code of a refusal.
#[track_caller]
pub(crate) fn code<T, E: ProvideErrorMetadata + std::fmt::Debug>(result: Result<T, E>) -> String {
    let Err(error) = result else { panic!("it was not refused") };
    error.code().unwrap_or_else(|| panic!("no code in {error:?}")).to_owned()
}

#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) address: Ipv4Addr,
}

impl Instance {
    pub(crate) async fn get(&self, path: &str) -> Result<String, String> {
        get(SocketAddr::new(IpAddr::V4(self.address), PORT), path).await
    }

    /// Waits for the web server and returns its process id.
    pub(crate) async fn answers(&self) -> u32 {
        let what = format!("{} answers", self.id);
        let answer = eventually(&what, async || {
            self.get("/pid").await.map_err(|error| format!("{error}; console: {}", self.console_file()))
        });
        answer.await.parse().expect("a process id")
    }

    /// Returns the console's text, without asking the API.
    pub(crate) fn console_file(&self) -> String {
        std::fs::read_to_string(self.disk().join("console.log")).unwrap_or_default()
    }

    /// Where this machine has the instance's files.
    pub(crate) fn disk(&self) -> PathBuf {
        cloud().dir.join("instances").join(&self.id)
    }

    /// Waits until no process of the instance is left.
    pub(crate) async fn is_gone(&self) {
        nothing_runs_in(&self.disk()).await;
    }
}

/// Returns the text that a web server answers with.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let fetch = async {
        // A new connection each time, because the test is about new connections.
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build()?;
        let response = client.get(format!("http://{address}{path}")).send().await?.error_for_status()?;
        response.text().await
    };
    fetch.await.map_err(|error: reqwest::Error| format!("{error:?}"))
}

/// Waits for a condition; if it does not come, the panic shows the last result.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    // Many times what a busy machine needs.
    testing::wait::eventually(what, Duration::from_secs(60), look).await
}

pub(crate) async fn nothing_runs_in(dir: &Path) {
    eventually(&format!("nothing runs in {}", dir.display()), async || {
        let found = processes_in(dir);
        if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
    })
    .await;
}

/// Returns processes that work in a directory or name it in their arguments or environment.
pub(crate) fn processes_in(dir: &Path) -> Vec<String> {
    let needle = dir.to_string_lossy();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("Linux").flatten() {
        let read = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let works_there = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        let command = read("cmdline");
        if works_there || command.contains(&*needle) || read("environ").contains(&*needle) {
            found.push(format!("{} {command}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

/// Sends a fault, as the command line does.
pub(crate) async fn fault(kind: &str, id: &str) -> Result<(), String> {
    inject(&serde_json::json!({"kind": kind, "instance": id, "region": REGION})).await
}

pub(crate) async fn inject(fault: &serde_json::Value) -> Result<(), String> {
    let url = format!("{}/_local-cloud/fault", cloud().endpoint);
    let response = reqwest::Client::new().post(url).json(fault).send().await.expect("an answer");
    if response.status().is_success() { Ok(()) } else { Err(response.text().await.expect("text")) }
}

/// A `#cloud-config` in the making.
pub(crate) struct UserData(String);

impl UserData {
    pub(crate) fn new() -> Self {
        Self("#cloud-config\nwrite_files:\n".to_owned())
    }

    pub(crate) fn file(mut self, path: &str, mode: &str, content: &str) -> Self {
        let content: String = content.lines().map(|line| format!("    {line}\n")).collect();
        self.0.push_str(&format!("- path: {path}\n  permissions: '{mode}'\n  content: |\n{content}"));
        self
    }

    /// The lines of the unit's `[Service]`, and the command that starts it.
    pub(crate) fn service(self, lines: &str) -> Self {
        let unit = format!("[Service]\n{lines}\nRestartSec=50ms\n");
        let mut data = self.file("/etc/systemd/system/web.service", "0644", &unit);
        data.0.push_str("runcmd:\n- [systemctl, daemon-reload]\n- systemctl enable --now web.service\n");
        data
    }

    pub(crate) fn encode(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

/// An instance whose only service is [`SERVER`].
pub(crate) fn web_server() -> UserData {
    UserData::new()
        .file("/srv/server", "0755", SERVER)
        .service("ExecStart=/srv/server\nWorkingDirectory=/srv\nRestart=always")
}

/// Answers `/pid`, `/id` (the instance's address) and `/env/NAME`; on SIGTERM it ends, after waiting
/// for a file `may-end` if there is a file `finishes-late`.
pub(crate) const SERVER: &str = r#"#!/usr/bin/env python3
import http.server, os, signal, sys, threading, time
address = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"].split("/")[2].split(":")[0]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rsplit("/", 1)[1]
        answers = {"pid": str(os.getpid()), "id": address, "cwd": os.getcwd()}
        body = answers.get(name, os.environ.get(name, "")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
def finish():
    print("asked to end", flush=True)
    while os.path.exists("finishes-late") and not os.path.exists("may-end"):
        time.sleep(0.02)
    print("ended its work", flush=True)
    os._exit(0)
# In a thread, so that requests are still answered.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=finish).start())
server = http.server.ThreadingHTTPServer((address, 5000), Handler)
print("serving", flush=True)
server.serve_forever()
"#;
