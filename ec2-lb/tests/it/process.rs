//! The program itself: its exit codes, its address, and the secrets that it must never log.

use std::process::{Output, Stdio};

use crate::support;
use crate::support::{FakeWorker, PATIENCE, eventually, registry};
use axum::Router;
use axum::routing::{get, put};
use process::settings::EX_USAGE;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ec2-lb"));
    command.env_clear().kill_on_drop(true).stderr(Stdio::piped());
    command
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    endpoint
}

async fn terminate(child: Child) -> Output {
    let pid = child.id().expect("it runs").to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill exists");
    assert!(killed.success());
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").expect("it ran")
}

#[tokio::test]
async fn the_program_names_all_wrong_settings_and_exits_64() {
    let output = program().env("VIGIA_POLICY", "best").output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(i32::from(EX_USAGE)));
    let text = String::from_utf8_lossy(&output.stderr);
    for name in ["VIGIA_STACK", "VIGIA_CONTROL_BUCKET", "VIGIA_POLICY"] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = taken.local_addr().expect("bound").to_string();
    let output = program()
        .envs([("VIGIA_STACK", "vigia"), ("VIGIA_CONTROL_BUCKET", "control"), ("VIGIA_LISTEN", &addr)])
        .output()
        .await
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("cannot listen on {addr}")), "{text}");
}

/// Everything as on an instance: its address from the metadata service, the registry from S3 with
/// credentials of its own, a request with a password in its path, SIGTERM.
#[tokio::test]
async fn the_program_serves_until_sigterm_and_logs_no_password() {
    // An address of its own, because the default ports are fixed.
    let host = format!("127.77.{}.{}", rand::random::<u8>(), rand::random_range(1..255_u8));
    let worker = FakeWorker::healthy(51).await;
    let document = serde_json::to_vec(&registry(1, &[("i-51", worker.addr)])).expect("plain data");
    let s3 = serve(Router::new().route(
        "/control/fleet/registry.json",
        get(move || {
            let document = document.clone();
            async move { ([("etag", "\"1\"")], document) }
        }),
    ));
    let address = host.clone();
    let metadata = serve(
        Router::new()
            .route(
                "/latest/api/token",
                put(|| async { ([("x-aws-ec2-metadata-token-ttl-seconds", "60")], "t") }),
            )
            .route("/latest/meta-data/local-ipv4", get(move || async { address })),
    );
    let mut child = program()
        .env("VIGIA_STACK", "vigia")
        .env("VIGIA_CONTROL_BUCKET", "control")
        .env("VIGIA_LOG", "trace")
        .env("VIGIA_ACCESS_LOG", "1")
        .env("AWS_ENDPOINT_URL", s3.await)
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.await)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "key")
        .spawn()
        .expect("it starts");
    // The log is read while it is written: at this level it fills a pipe.
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let log = tokio::spawn(async move {
        let mut log = String::new();
        while let Ok(Some(line)) = lines.next_line().await {
            log += &line;
            log.push('\n');
        }
        log
    });

    let serves = async || TcpStream::connect((host.as_str(), fleet::PUBLIC_PORT)).await.is_ok();
    eventually("it serves", serves, |serves| *serves).await;
    let mut stream = TcpStream::connect((host.as_str(), fleet::PUBLIC_PORT)).await.expect("it serves");
    let request = b"GET /signin/ana/Tr0ub4dor?q=Tr0ub4dor HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.expect("it reads");
    let answer = support::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let output = terminate(child).await;
    assert_eq!(output.status.code(), Some(0));
    let log = log.await.expect("it is read");
    assert!(log.contains("a worker joined the table"), "{log}");
    assert!(log.contains("asked to stop by SIGTERM"), "{log}");
    assert!(
        log.contains("\"route\":\"/signin/{login}/{password}\""),
        "the access log names the route: {log}"
    );
    assert!(!log.contains("Tr0ub4dor"), "the log has a password in it");
}
