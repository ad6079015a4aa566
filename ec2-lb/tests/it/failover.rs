//! Workers that die, hang, fail or are not there.

use std::io;
use std::time::Duration;

use crate::support;
use crate::support::{FakeWorker, Lb, Stream, eventually, ok, registry, short};
use ec2_lb::{Config, Limits, NonIdempotent};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Returns an address without a listener, on a host of its own, so that no other test is given the port.
async fn nobody(host: u8) -> std::net::SocketAddr {
    let listener = TcpListener::bind(format!("127.0.0.{host}:0")).await.expect("a free port");
    listener.local_addr().expect("bound")
}

fn is_ejected(view: &Value, id: &str) -> bool {
    view["workers"][id]["ejected"] == true
}

/// Asks for a check after a moment, and gives up soon.
fn impatient() -> Limits {
    short(|limits| {
        limits.silence = Duration::from_millis(100);
        limits.response = Duration::from_millis(1000);
        limits.check_timeout = Duration::from_millis(300);
        limits.check_every = Duration::from_secs(3600);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_costs_no_get() {
    let mut doomed = FakeWorker::healthy(21).await;
    let survivor = FakeWorker::healthy(22).await;
    let lb = std::sync::Arc::new(Lb::start(Limits::default(), &[&doomed, &survivor]).await);
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let lb = std::sync::Arc::clone(&lb);
        clients.spawn(async move {
            for _ in 0..50 {
                let answer = lb.get("/signin/ana/secret").await;
                assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            }
        });
    }
    eventually("it has served a while", async || doomed.arrivals(), |arrivals| *arrivals >= 20).await;
    doomed.kill().await;
    while let Some(client) = clients.join_next().await {
        client.expect("no request failed");
    }
    for _ in 0..200 {
        let answer = lb.get("/signin/ana/secret").await;
        assert_eq!(answer.text(), "i-22");
    }
    assert!(is_ejected(&lb.view().await, "i-21"), "{}", lb.view().await);
}

#[tokio::test]
async fn a_hung_worker_is_ejected_and_costs_no_get() {
    let hung = FakeWorker::hung(21).await;
    let healthy = FakeWorker::healthy(22).await;
    let limits = short(|limits| {
        limits.silence = Duration::from_millis(200);
        limits.check_timeout = Duration::from_millis(200);
        limits.check_every = Duration::from_secs(3600);
    });
    let lb = Lb::start(limits, &[&hung, &healthy]).await;
    let ejected = eventually(
        "a request has met the hung worker",
        async || {
            assert_eq!(lb.get("/").await.text(), "i-22");
            lb.view().await
        },
        |view| is_ejected(view, "i-21"),
    );
    ejected.await;
}

#[tokio::test]
async fn a_worker_that_passes_its_check_is_not_ejected_by_silence() {
    let one = FakeWorker::start(21, |_| std::future::pending()).await;
    let two = FakeWorker::start(22, |_| std::future::pending()).await;
    let lb = Lb::start(impatient(), &[&one, &two]).await;
    for path in ["/", "/signin/ana/secret"] {
        let before = one.arrivals() + two.arrivals();
        let answer = lb.get(path).await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(one.arrivals() + two.arrivals(), before + 1, "{path} is not repeated: it is worked at");
    }
    let view = lb.view().await;
    assert!(!is_ejected(&view, "i-21") && !is_ejected(&view, "i-22"), "{view}");
}

#[tokio::test]
async fn a_get_that_changes_something_is_not_repeated_after_silence() {
    let (one, two) = (FakeWorker::mute(21).await, FakeWorker::mute(22).await);
    for (path, times) in
        [("/signin/ana/secret", 1), ("/setamount/3", 1), ("/setamount?amount=3", 1), ("/", 2)]
    {
        let lb = Lb::start(impatient(), &[&one, &two]).await;
        let before = one.arrivals() + two.arrivals();
        let answer = lb.get(path).await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(one.arrivals() + two.arrivals(), before + times, "{path}");
    }
}

#[tokio::test]
async fn a_worker_that_is_silent_to_a_check_too_is_ejected() {
    let mute = FakeWorker::mute(21).await;
    let lb = Lb::start(impatient(), &[&mute]).await;
    assert_eq!(lb.get("/").await.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(is_ejected(&lb.view().await, "i-21"), "{}", lb.view().await);
}

#[tokio::test]
async fn a_worker_that_cuts_off_an_upload_is_not_ejected() {
    let listener = TcpListener::bind("127.0.0.26:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let worker = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            support::read_until(&mut stream, "\r\n\r\n").await;
            // With bytes unread, closing is a reset.
            drop(stream);
        }
    });
    let limits = short(|limits| limits.check_every = Duration::from_secs(3600));
    let lb = Lb::with_registry(limits, Some(registry(1, &[("i-26", addr)]))).await;
    lb.knows(1).await;
    let answer = lb.post("/", vec![b'x'; 900_000]).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(!is_ejected(&lb.view().await, "i-26"), "{}", lb.view().await);
    worker.abort();
}

/// As at one login: the worker takes one after the other, and the last waits far longer than a silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_ins_that_wait_in_line_are_carried_out_once_each() {
    const CLIENTS: usize = 100;
    let line = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
    let mut workers = Vec::new();
    for host in [21, 22, 23] {
        let line = std::sync::Arc::clone(&line);
        let worker = FakeWorker::start(host, move |_| {
            let line = std::sync::Arc::clone(&line);
            async move {
                let _turn = line.acquire().await.expect("never closed");
                tokio::time::sleep(Duration::from_millis(10)).await;
                ok("in")
            }
        });
        workers.push(worker.await);
    }
    let limits = short(|limits| limits.silence = Duration::from_millis(100));
    let lb = std::sync::Arc::new(Lb::start(limits, &workers.iter().collect::<Vec<_>>()).await);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let lb = std::sync::Arc::clone(&lb);
        clients.spawn(async move { lb.get("/signin/ana/secret").await.status });
    }
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.expect("no panic"), StatusCode::OK);
    }
    assert_eq!(workers.iter().map(FakeWorker::arrivals).sum::<usize>(), CLIENTS);
    let metrics = lb.admin(Method::GET, "/metrics").await;
    assert!(metrics.text().contains("vigia_lb_ejections_total 0\n"), "{}", metrics.text());
}

#[tokio::test]
async fn the_active_check_ejects_a_hung_worker_without_any_request() {
    let hung = FakeWorker::hung(21).await;
    let healthy = FakeWorker::healthy(22).await;
    let limits = short(|limits| {
        limits.check_every = Duration::from_millis(50);
        limits.check_timeout = Duration::from_millis(200);
    });
    let lb = Lb::start(limits, &[&hung, &healthy]).await;
    eventually("it is ejected", async || lb.view().await, |view| is_ejected(view, "i-21")).await;
    assert!(!is_ejected(&lb.view().await, "i-22"));
}

#[tokio::test]
async fn a_worker_that_comes_back_gets_requests_again() {
    let mut first = FakeWorker::healthy(27).await;
    let other = FakeWorker::healthy(22).await;
    let limits = short(|limits| limits.check_every = Duration::from_millis(20));
    let lb = Lb::start(limits, &[&first, &other]).await;
    first.kill().await;
    eventually("it is ejected", async || lb.view().await, |view| is_ejected(view, "i-27")).await;
    let second = FakeWorker::start_at(first.addr, |_| async { ok("again") }).await;
    eventually("it is back", async || lb.get("/").await.text().to_owned(), |text| text == "again").await;
    assert!(second.arrivals() > 0);
}

#[tokio::test]
async fn a_post_that_arrived_is_never_sent_again() {
    let die = |_| async { Err(io::Error::other("dies after reading")) };
    let one = FakeWorker::start(21, die).await;
    let two = FakeWorker::start(22, die).await;
    let lb = Lb::start(Limits::default(), &[&one, &two]).await;
    let answer = lb.post("/signup/ana/secret", "").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["error"], "worker_lost");
    assert!(answer.headers.contains_key("x-request-id"));
    assert_eq!(one.arrivals() + two.arrivals(), 1);
}

#[tokio::test]
async fn an_operator_may_allow_to_repeat_a_lost_post() {
    let die = |_| async { Err(io::Error::other("dies after reading")) };
    let one = FakeWorker::start(21, die).await;
    let two = FakeWorker::start(22, die).await;
    let config = Config { non_idempotent: NonIdempotent::Repeat, ..support::with(Limits::default()) };
    let lb = Lb::with_config(config, None, &[&one, &two]).await;
    let answer = lb.post("/signup/ana/secret", "small").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!((one.arrivals(), two.arrivals()), (1, 1));
}

#[tokio::test]
async fn a_post_that_hangs_is_never_sent_again() {
    let hang = |_| std::future::pending();
    let one = FakeWorker::start(21, hang).await;
    let two = FakeWorker::start(22, hang).await;
    let lb = Lb::start(impatient(), &[&one, &two]).await;
    let answer = lb.post("/signup/ana/secret", "").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (StatusCode::GATEWAY_TIMEOUT, &"worker_silent".into())
    );
    assert_eq!(one.arrivals() + two.arrivals(), 1);
}

#[tokio::test]
async fn a_lost_safe_request_goes_to_each_worker_once() {
    let die = |_| async { Err(io::Error::other("dies after reading")) };
    let one = FakeWorker::start(21, die).await;
    let two = FakeWorker::start(22, die).await;
    let lb = Lb::start(Limits::default(), &[&one, &two]).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let before = (one.arrivals(), two.arrivals());
        let answer = lb.send(method.clone(), "/", "").await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{method}");
        assert_eq!((one.arrivals(), two.arrivals()), (before.0 + 1, before.1 + 1), "{method}");
    }
}

#[tokio::test]
async fn a_post_that_was_not_sent_goes_elsewhere() {
    let healthy = FakeWorker::healthy(22).await;
    for body in [Bytes::from_static(b"small"), Bytes::from(vec![b'x'; 500_000])] {
        let listed = registry(1, &[("i-21", nobody(28).await), ("i-22", healthy.addr)]);
        let limits = short(|limits| limits.check_every = Duration::from_secs(3600));
        let lb = Lb::with_registry(limits, Some(listed)).await;
        lb.knows(1).await;
        let tried = eventually(
            "a request has met the dead worker",
            async || {
                let answer = lb.post("/signup/ana/secret", body.clone()).await;
                assert_eq!(answer.text(), "i-22");
                lb.view().await
            },
            |view| view["workers"]["i-21"]["failures"] == 1,
        );
        tried.await;
        assert!(healthy.seen().iter().rev().all(|seen| !seen.body.is_empty()));
    }
}

#[tokio::test]
async fn a_connection_that_went_stale_is_not_the_workers_fault() {
    // One closes a connection after its response without saying so; the other waits for the next
    // request on it, so that this one is lost although the worker is well.
    for requests_before_it_closes in [0, 1] {
        let listener = TcpListener::bind("127.0.0.26:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let worker = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    support::read_until(&mut stream, "\r\n\r\n").await;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    drop(tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await);
                    for _ in 0..requests_before_it_closes {
                        drop(tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 9]).await);
                    }
                });
            }
        });
        let lb = Lb::with_registry(Limits::default(), Some(registry(1, &[("i-26", addr)]))).await;
        lb.knows(1).await;
        for round in 0..100 {
            let answer = lb.get("/").await;
            assert_eq!(answer.text(), "ok", "{round}");
            let answer = lb.post("/", "x").await;
            assert_eq!(answer.text(), "ok", "{round}");
        }
        assert_eq!(lb.view().await["workers"]["i-26"]["failures"], 0);
        worker.abort();
    }
}

#[tokio::test]
async fn all_workers_unreachable_is_a_503_to_be_tried_again() {
    let listed = registry(1, &[("i-21", nobody(28).await), ("i-22", nobody(29).await)]);
    let lb = Lb::with_registry(Limits::default(), Some(listed)).await;
    lb.knows(1).await;
    for method in [Method::GET, Method::POST] {
        let answer = lb.send(method, "/", "").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["error"], "workers_unreachable");
        assert_eq!(answer.headers["retry-after"], "2");
    }
}

#[tokio::test]
async fn a_request_is_held_until_a_worker_appears() {
    let lb = Lb::with_registry(Limits::default(), None).await;
    let worker = FakeWorker::healthy(21).await;
    let (answer, ()) = tokio::join!(lb.get("/"), async {
        let is_waiting = |metrics: &String| metrics.contains("vigia_lb_held 1\n");
        let metrics = async || lb.admin(Method::GET, "/metrics").await.text().to_owned();
        eventually("the request is held", metrics, is_waiting).await;
        lb.source.send_replace(Some(registry(1, &[("i-21", worker.addr)])));
    });
    assert_eq!(answer.text(), "i-21");
}

#[tokio::test]
async fn a_held_request_is_refused_when_no_worker_comes() {
    let limits = short(|limits| limits.hold = Duration::from_millis(100));
    let lb = Lb::with_registry(limits, Some(registry(1, &[]))).await;
    let answer = lb.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["error"], "no_workers");
    assert_eq!(answer.headers["retry-after"], "2");
}

#[tokio::test]
async fn held_requests_are_limited() {
    let limits = short(|limits| limits.held = 0);
    let lb = Lb::with_registry(limits, None).await;
    let answer = lb.get("/").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"too_many_waiting".into())
    );
}

#[tokio::test]
async fn a_worker_that_fails_fast_draws_no_traffic() {
    let failing = FakeWorker::start(21, |_| async {
        Ok(Response::builder().status(500).body(Stream::of("no")).expect("a response"))
    })
    .await;
    let healthy = FakeWorker::healthy(22).await;
    let lb = Lb::start(Limits::default(), &[&failing, &healthy]).await;
    for _ in 0..200 {
        lb.get("/").await;
    }
    assert!(failing.arrivals() < 50, "{} of 200 went to the failing worker", failing.arrivals());
}

#[tokio::test]
async fn a_response_that_breaks_off_is_seen_to_be_truncated() {
    let (write, worker) = FakeWorker::streaming(21).await;
    let other = FakeWorker::start(22, |_| std::future::pending()).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let request = Request::get(format!("http://{}/list", lb.addr)).body(Full::default()).expect("a request");
    write.send(Ok(Bytes::from_static(b"half"))).await.expect("room");
    let mut body = lb.open(request).await.into_body();
    assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
    write.send(Err(io::Error::other("dies"))).await.expect("the worker streams");
    assert!(body.frame().await.is_some_and(|frame| frame.is_err()), "the client would take half for all");
    assert_eq!(other.arrivals(), 0);
}

#[tokio::test]
async fn an_old_client_sees_that_a_response_is_truncated() {
    let (write, worker) = FakeWorker::streaming(23).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let mut client = tokio::net::TcpStream::connect(lb.addr).await.expect("it listens");
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it reads");
    write.send(Ok(Bytes::from_static(b"half"))).await.expect("room");
    support::read_until(&mut client, "half").await;
    write.send(Err(io::Error::other("dies"))).await.expect("the worker streams");
    let end = tokio::time::timeout(support::PATIENCE, client.read(&mut [0; 9])).await.expect("it ends");
    assert!(end.is_err(), "an orderly end would say that this was all: {end:?}");
}
