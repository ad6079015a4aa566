//! The program itself: its exit codes, its listener, and its orderly end.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Output, Stdio};
use std::time::Duration;

use fleet::Profile;
use futures::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testing::unused;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::support::{Stack, WORKER, s3_endpoint};
use ec2_worker::serve::Stopped;

const DEADLINE: Duration = Duration::from_secs(60);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ec2-worker"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn program_of(stack: &Stack, profile: Profile, listen: SocketAddr) -> Command {
    let mut command = program();
    command
        .env("VIGIA_STACK", "test")
        .env("VIGIA_DATA_BUCKET", &stack.data)
        .env("VIGIA_CONTROL_BUCKET", &stack.control)
        .env("VIGIA_PROFILE", profile.as_str())
        .env("VIGIA_LISTEN", listen.to_string())
        .env("VIGIA_INSTANCE_ID", WORKER)
        .env("AWS_ENDPOINT_URL", s3_endpoint())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    command
}

async fn finished(mut command: Command) -> (i32, String) {
    let Output { status, stderr, .. } =
        timeout(DEADLINE, command.output()).await.expect("it ends").expect("it runs");
    (status.code().expect("it is not killed"), String::from_utf8_lossy(&stderr).into_owned())
}

async fn answers(addr: SocketAddr, child: &mut Child) -> String {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Ok(reply) = client.get(format!("http://{addr}/healthcheck")).send().await {
            return reply.text().await.expect("a body");
        }
        assert!(child.try_wait().expect("our child").is_none(), "the worker has ended");
        assert!(Instant::now() < deadline, "the worker does not answer");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_worker_names_all_wrong_settings_and_exits_64() {
    let (code, stderr) = finished(program()).await;
    assert_eq!(code, 64, "{stderr}");
    for name in ["VIGIA_STACK", "VIGIA_DATA_BUCKET", "VIGIA_CONTROL_BUCKET"] {
        assert!(stderr.contains(name), "{stderr}");
    }
}

#[tokio::test]
async fn the_worker_serves_until_sigterm_and_exits_0() {
    let stack = Stack::new().await;
    let addr = unused().expect("an address");
    let mut child = program_of(&stack, Profile::Secure, addr).spawn().expect("it starts");
    let health = answers(addr, &mut child).await;
    assert!(health.contains(WORKER), "{health}");
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it is ours");
    let output = timeout(DEADLINE, child.wait_with_output()).await.expect("it ends").expect("it ran");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(lines.lines().all(|line| line.starts_with('{')), "one JSON object on each line: {lines}");
}

/// A pipe holds 64 KiB.
#[tokio::test]
async fn an_unread_log_holds_up_no_request() {
    let stack = Stack::new().await;
    let addr = unused().expect("an address");
    // A line for each request.
    let mut command = program_of(&stack, Profile::Secure, addr);
    let mut child = command.env("VIGIA_LOG", "debug").spawn().expect("it starts");
    answers(addr, &mut child).await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let ask = async |number: usize| {
        let path = ["nothing", "protected", "openapi.json", "healthcheck"][number % 4];
        let reply = timeout(DEADLINE, client.get(format!("http://{addr}/{path}")).send()).await;
        reply.expect("it answers in time").expect("it answers").status().as_u16()
    };
    let statuses: Vec<u16> = futures::stream::iter(0..4000).map(ask).buffer_unordered(16).collect().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 2000);
    answers(addr, &mut child).await;
    // The log is read at last, and its reader learns that lines are missing.
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let read = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains("log lines were dropped") {
                return line;
            }
        }
        panic!("the log has ended")
    };
    let notice = timeout(DEADLINE, read).await.expect("it logs how many lines it dropped");
    assert!(notice.starts_with('{') && notice.contains("0 of them audit lines"), "{notice}");
}

#[tokio::test]
async fn id_and_address_come_from_the_instance_metadata() {
    // The port is fixed, so each run of this test needs an address of its own.
    let [.., c, d] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 99, c, d.clamp(1, 254));
    let metadata = axum::Router::new()
        .route(
            "/latest/api/token",
            axum::routing::put(async || ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "token")),
        )
        .route("/latest/meta-data/instance-id", axum::routing::get(async || "i-00000000000000abc"))
        .route("/latest/meta-data/local-ipv4", axum::routing::get(async move || ip.to_string()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = async { axum::serve(listener, metadata).await.expect("it serves") };
    let stack = Stack::new().await;
    let mut command = program_of(&stack, Profile::Classic, unused().expect("an address"));
    command.env_remove("VIGIA_LISTEN").env_remove("VIGIA_INSTANCE_ID");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint);
    let mut child = command.spawn().expect("it starts");
    tokio::select! {
        () = serving => unreachable!("it never ends"),
        health = answers(SocketAddr::from((ip, fleet::WORKER_PORT)), &mut child) => {
            assert!(health.contains("i-00000000000000abc"), "{health}");
        }
    }
}

#[tokio::test]
async fn a_bucket_of_the_other_profile_exits_65() {
    let stack = Stack::new().await;
    stack.worker(Profile::Classic).await;
    let (code, stderr) = finished(program_of(&stack, Profile::Secure, unused().expect("an address"))).await;
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.contains("`classic`"), "{stderr}");
}

#[tokio::test]
async fn a_port_in_use_exits_69() {
    let stack = Stack::new().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let addr = taken.local_addr().expect("an address");
    let (code, stderr) = finished(program_of(&stack, Profile::Secure, addr)).await;
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains(&addr.to_string()), "{stderr}");
}

/// Draining, seen from a connection with a request in flight and from one without.
#[tokio::test]
async fn the_worker_drains_before_it_stops() {
    let stack = Stack::new().await;
    let config = stack.config(Profile::Classic);
    let worker = stack.worker(Profile::Classic).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let watched = worker.clone();
    let running = tokio::spawn(async move {
        ec2_worker::run(&config, worker, listener, async { drop(stopped.await) }).await
    });

    let mut idle = TcpStream::connect(addr).await.expect("it listens");
    let mut busy = TcpStream::connect(addr).await.expect("it listens");
    idle.write_all(b"GET /healthcheck HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let first = read_head(&mut idle).await;
    assert!(first.starts_with("HTTP/1.1 200") && !first.contains("connection: close"), "{first}");
    // The head and half of the body: the request is in flight until we send the rest.
    let body = r#"{"login":"ana","password":"pw"}"#;
    let head = format!(
        "POST /signup HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    busy.write_all(head.as_bytes()).await.expect("sent");
    let go_on = read_head(&mut busy).await;
    assert!(go_on.starts_with("HTTP/1.1 100"), "the handler has begun to read: {go_on}");

    stop.send(()).expect("it runs");
    watched.draining().wait_for(|draining| *draining).await.expect("the worker is there");
    assert_eq!(read_head(&mut idle).await, "", "an idle connection is closed");
    let refused = timeout(DEADLINE, async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    refused.await.expect("no new connections");
    busy.write_all(body.as_bytes()).await.expect("sent");
    let reply = read_head(&mut busy).await;
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    assert!(reply.to_ascii_lowercase().contains("connection: close"), "{reply}");
    assert!(reply.to_ascii_lowercase().contains("x-vigia-draining: 1"), "{reply}");
    let stopped = timeout(DEADLINE, running).await.expect("it stops").expect("without a panic");
    assert_eq!(stopped, Stopped::Drained);
    assert_eq!(stack.user_keys().await, ["users/ana"]);
}

/// Up to the empty line; an empty text when the connection ends before it.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                head.clear();
                break;
            }
            head.push(byte[0]);
        }
    };
    timeout(DEADLINE, read).await.expect("an answer or an end");
    String::from_utf8(head).expect("ASCII")
}
