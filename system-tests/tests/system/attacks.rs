//! Attacks that strangers ran against the service in a review, against a whole stack; other clients are
//! served during them.
//!
//! Figures are printed, and no time is asserted: a request that took too long was not answered, or ended a
//! worker.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::gettid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::{Cloud, say};

const STACK: &str = "attacked";
const PASSWORD: &str = "correct-horse-battery";
/// A client that waits longer was not served.
const PATIENCE: Duration = Duration::from_secs(30);
const CROWD: usize = 4400;
/// Addresses of a crowd with more than one.
const ADDRESSES: usize = 32;
const SECONDS: u64 = 30;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 98, 1);
const OTHERS: Ipv4Addr = Ipv4Addr::new(127, 0, 97, 1);

struct Stack {
    cloud: Cloud,
    url: String,
    address: SocketAddr,
    runtime: Runtime,
    strangers: Runtime,
}

impl Stack {
    fn start(workers: &str) -> Self {
        let cloud = Cloud::start();
        cloud.deploy(STACK, &["--workers", workers]);
        // As in AWS, a list may lack a new instance for some seconds.
        cloud.wait_until_all_is_known();
        let url = cloud.url(STACK);
        let address = url.trim_start_matches("http://").parse().expect("an address");
        let runtime = Runtime::new().expect("a runtime");
        Self { cloud, url, address, runtime, strangers: strangers() }
    }

    /// Returns a counter of the load balancer.
    fn metric(&self, name: &str) -> u64 {
        let text = reqwest::blocking::get(format!("{}/metrics", self.cloud.admin_of(&self.url)));
        let text = text.expect("the load balancer answers its operator").text().expect("text");
        let line = text.lines().find(|line| line.split(' ').next().is_some_and(|it| it.ends_with(name)));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Returns the resident memory of the load balancer, in KiB.
    fn memory(&self) -> usize {
        let is_ours = |pid: &u32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let directory = self.cloud.dir.path().to_string_lossy().into_owned();
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            name.trim() == "ec2-lb"
                && (String::from_utf8_lossy(&environ).contains(&directory) || cwd.starts_with(&directory))
        };
        let pids = std::fs::read_dir("/proc").expect("Linux").flatten();
        let pid = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_ours);
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.expect("a load balancer runs")));
        let status = status.expect("it still runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    fn sign_up(&self, login: &str) {
        let path = format!("/signup/{login}/{PASSWORD}");
        let status = self.runtime.block_on(ask(OTHERS, self.address, "POST", &path));
        assert_eq!(status, 201, "{login}");
    }

    /// No worker was taken out of the choice, and none was ended.
    fn must_be_whole(&self, workers: &[String]) {
        assert_eq!(self.metric("ejections_total"), 0, "a healthy worker is not ejected");
        assert_eq!(self.cloud.instances(STACK, "pending,running"), workers);
    }
}

/// Returns a runtime for attackers. Real ones have their own computers; here their work must not count as the
/// service's, so it is done by a thread of its own, which gets the CPU time that the others leave.
fn strangers() -> Runtime {
    let yields = || {
        let thread = gettid().to_string();
        let idle = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).output();
        assert!(idle.is_ok_and(|output| output.status.success()), "chrt is part of every Linux");
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).on_thread_start(yields).enable_all().build().expect("a runtime")
}

/// Sends a request on its own connection; returns the status, or 0 without an answer.
async fn ask(from: Ipv4Addr, to: SocketAddr, method: &str, path: &str) -> u16 {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let asked = async {
        let mut stream = connect(from, to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.ok().and_then(Result::ok).unwrap_or_default();
    answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

/// One attacker's connection.
struct Drip {
    from: Ipv4Addr,
    to: SocketAddr,
    head: String,
    bit: &'static [u8],
    every: Duration,
    /// They do not all send at the same moment.
    after: Duration,
    /// How many bits all connections have sent.
    sent: Arc<AtomicU64>,
}

/// Sends the head of a request, and then a bit of its body now and then, for ever; reconnects when cut.
async fn drip(drip: Drip) {
    tokio::time::sleep(drip.after).await;
    loop {
        drip_until_cut(&drip).await.ok();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn drip_until_cut(drip: &Drip) -> std::io::Result<Infallible> {
    let mut stream = connect(drip.from, drip.to).await?;
    stream.write_all(drip.head.as_bytes()).await?;
    loop {
        tokio::time::sleep(drip.every).await;
        stream.write_all(drip.bit).await?;
        drip.sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends one request after the other until it is stopped; keeps the times, and all answers other than 200.
struct Others {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(Vec<Duration>, Vec<u16>)>,
}

impl Others {
    fn start(stack: &Stack, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = stack.runtime.spawn(async move {
            let (mut took, mut failed) = (Vec::new(), Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let since = Instant::now();
                match ask(OTHERS, to, "GET", "/healthcheck").await {
                    200 => took.push(since.elapsed()),
                    status => failed.push(status),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (took, failed)
        });
        Self { stop, task }
    }

    /// Prints the results; no request may have failed.
    fn end(self, stack: &Stack, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut took, failed) = stack.runtime.block_on(self.task).expect("no panic");
        took.sort();
        let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
        let (count, most) = (took.len(), took.last().copied().unwrap_or_default());
        say(&format!(
            "{what}: {count} answered, {} failed; p50 {:?}, p99 {:?}, most {most:?}",
            failed.len(),
            at(50),
            at(99)
        ));
        assert!(count > 0 && failed.is_empty(), "{what}: {failed:?}");
    }
}

fn spread(number: usize, over: Duration) -> Duration {
    let part = |whole: usize| u32::try_from(whole).expect("a small number");
    over * part(number) / part(CROWD)
}

fn crowd_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 96, u8::try_from(1 + number % ADDRESSES).expect("a byte"))
}

fn quiet(stack: &Stack) {
    let others = Others::start(stack, stack.address);
    std::thread::sleep(Duration::from_secs(SECONDS));
    others.end(stack, "quiet");
}

#[test]
#[ignore = "minutes; `make attacks` runs it"]
fn slow_bodies_stop_no_other_client() {
    let stack = Stack::start("3");
    let workers = stack.cloud.instances(STACK, "pending,running");
    quiet(&stack);
    let before = stack.memory();
    let head = "POST /signin HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 16000\r\n\r\n";
    type From = fn(usize) -> Ipv4Addr;
    let crowds: [(&str, From); 2] = [("one address", |_| STRANGER), ("32 addresses", crowd_address)];
    for (what, from) in crowds {
        let sent = Arc::new(AtomicU64::new(0));
        let crowd: Vec<JoinHandle<()>> = (0..CROWD)
            .map(|number| {
                stack.strangers.spawn(drip(Drip {
                    from: from(number),
                    to: stack.address,
                    head: head.to_owned(),
                    bit: b"x",
                    every: Duration::from_secs(2),
                    after: spread(number, Duration::from_secs(2)),
                    sent: Arc::clone(&sent),
                }))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(5));
        let before_them = sent.load(Ordering::Relaxed);
        let others = Others::start(&stack, stack.address);
        let mut most = 0;
        for _ in 0..SECONDS {
            most = most.max(stack.memory());
            std::thread::sleep(Duration::from_secs(1));
        }
        others.end(&stack, &format!("during {CROWD} slow bodies of {what}"));
        say(&format!(
            "bytes that they sent: {} a second",
            (sent.load(Ordering::Relaxed) - before_them) / SECONDS
        ));
        say(&format!("memory of the load balancer: {before} KiB before, {most} KiB at most"));
        crowd.iter().for_each(JoinHandle::abort);
        stack.must_be_whole(&workers);
    }
}

#[test]
#[ignore = "minutes; `make attacks` runs it"]
fn streamed_bodies_leave_health_checks_alone() {
    let stack = Stack::start("1");
    let workers = stack.cloud.instances(STACK, "pending,running");
    let registry = format!("s3://vigia-{STACK}-control-000000000000-us-east-1/{}", fleet::keys::REGISTRY);
    let registry: serde_json::Value =
        serde_json::from_str(&stack.cloud.aws(&["s3", "cp", &registry, "-"])).expect("JSON");
    let worker = registry["workers"].to_string();
    let worker = worker.split('"').find_map(|part| part.parse::<SocketAddr>().ok());
    let worker = worker.unwrap_or_else(|| panic!("no address in {registry}"));
    // More than the load balancer waits for, so it passes the body on as it comes.
    let head = format!(
        "POST /signin HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n",
        40_000,
        "x".repeat(40_000)
    );
    let sent = Arc::new(AtomicU64::new(0));
    let crowd: Vec<JoinHandle<()>> = (0..CROWD)
        .map(|number| {
            stack.strangers.spawn(drip(Drip {
                from: crowd_address(number),
                to: stack.address,
                head: head.clone(),
                bit: b"400\r\n",
                every: Duration::from_millis(500),
                after: spread(number, Duration::from_millis(500)),
                sent: Arc::clone(&sent),
            }))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(5));
    let checks = Others::start(&stack, worker);
    std::thread::sleep(Duration::from_secs(SECONDS));
    checks.end(&stack, &format!("health checks of the worker during {CROWD} streamed bodies"));
    crowd.iter().for_each(JoinHandle::abort);
    stack.must_be_whole(&workers);
}

#[test]
#[ignore = "minutes; `make attacks` runs it"]
fn many_sign_ins_at_one_login_eject_no_worker() {
    let stack = Stack::start("3");
    let workers = stack.cloud.instances(STACK, "pending,running");
    stack.sign_up("ana");
    let path: &'static str = "/signin/ana/correct-horse-battery";
    let asked: Vec<JoinHandle<u16>> =
        (0..400).map(|_| stack.strangers.spawn(ask(STRANGER, stack.address, "GET", path))).collect();
    let mut seen = std::collections::BTreeMap::new();
    for one in asked {
        *seen.entry(stack.runtime.block_on(one).expect("no panic")).or_insert(0) += 1;
    }
    say(&format!("400 correct sign-ins at one login: {seen:?}"));
    assert!(seen.contains_key(&303) && !seen.contains_key(&504) && !seen.contains_key(&0), "{seen:?}");
    assert_eq!(stack.metric("retries_total"), 0, "each is sent to one worker at most");
    stack.must_be_whole(&workers);
}

#[test]
#[ignore = "minutes; `make attacks` runs it"]
fn rejected_attempts_cost_others_nothing() {
    let stack = Stack::start("3");
    let workers = stack.cloud.instances(STACK, "pending,running");
    for number in 0..50 {
        stack.sign_up(&format!("user{number}"));
    }
    stack.sign_up("victim");
    let address = stack.address;
    let attack = stack.strangers.spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(4));
        let mut attempts = Vec::new();
        for number in 0..SECONDS * 250 {
            every.tick().await;
            let path = format!("/signin/victim/wrong-horse-{}", number % 10);
            attempts.push(tokio::spawn(async move { ask(STRANGER, address, "GET", &path).await }));
        }
        let mut seen = std::collections::BTreeMap::new();
        for attempt in attempts {
            *seen.entry(attempt.await.unwrap_or(0)).or_insert(0) += 1;
        }
        seen
    });
    std::thread::sleep(Duration::from_secs(5));
    let mut seen = std::collections::BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for number in 0..50 {
        let since = Instant::now();
        let path = format!("/signin/user{number}/{PASSWORD}");
        let status = stack.runtime.block_on(ask(OTHERS, address, "GET", &path));
        slowest = slowest.max(since.elapsed());
        *seen.entry(status).or_insert(0) += 1;
        std::thread::sleep(Duration::from_millis(400));
    }
    let attempts = stack.runtime.block_on(attack).expect("no panic");
    say(&format!("{} attempts of one address, 250 a second: {attempts:?}", SECONDS * 250));
    say(&format!("50 sign-ins of others during it: {seen:?}, the slowest {slowest:?}"));
    assert_eq!(seen, std::collections::BTreeMap::from([(303, 50)]), "all succeed");
    stack.must_be_whole(&workers);
}
