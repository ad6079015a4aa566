//! Nothing in flight is lost when a worker leaves or the load balancer stops.

use std::sync::Arc;
use std::time::Duration;

use crate::support;
use crate::support::{FakeWorker, Lb, PATIENCE, eventually, ok, registry, short};
use ec2_lb::Limits;
use hyper::StatusCode;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// A worker that answers when the gate has a permit.
async fn gated(host: u8) -> (FakeWorker, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opens = Arc::clone(&gate);
    let worker = FakeWorker::start(host, move |_| {
        let gate = Arc::clone(&opens);
        async move {
            gate.acquire().await.expect("the gate is never closed").forget();
            ok("in the end")
        }
    });
    (worker.await, gate)
}

#[tokio::test]
async fn a_leaving_worker_finishes_its_requests_and_gets_no_new_ones() {
    let (leaving, gate) = gated(31).await;
    let staying = FakeWorker::healthy(32).await;
    let lb = Lb::start(Limits::default(), &[&leaving]).await;
    let (answers, ()) =
        tokio::join!(async { tokio::join!(lb.get("/1"), lb.get("/2"), lb.post("/3", "x")) }, async {
            eventually("all are in flight", async || leaving.arrivals(), |arrivals| *arrivals == 3).await;
            lb.source.send_replace(Some(registry(2, &[("i-32", staying.addr)])));
            lb.knows(2).await;
            for _ in 0..20 {
                assert_eq!(lb.get("/new").await.text(), "i-32");
            }
            gate.add_permits(3);
        });
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "in the end"));
    }
    assert_eq!(leaving.arrivals(), 3);
}

#[tokio::test]
async fn a_stopping_worker_gets_nothing_new_before_the_registry_knows() {
    let stopping = FakeWorker::start(33, |_| async {
        let response =
            hyper::Response::builder().header(fleet::DRAINING_HEADER, "1").header("connection", "close");
        Ok(response.body(support::Stream::of("last")).expect("a response"))
    })
    .await;
    let staying = FakeWorker::healthy(34).await;
    let limits = short(|limits| limits.check_every = Duration::from_secs(3600));
    let lb = Lb::start(limits, &[&stopping, &staying]).await;
    let last = async || lb.get("/").await;
    let last = eventually("it has answered once", last, |answer| answer.text() == "last").await;
    assert!(!last.headers.contains_key(fleet::DRAINING_HEADER), "that is between the worker and us");
    for _ in 0..50 {
        assert_eq!(lb.get("/").await.text(), "i-34");
    }
    assert_eq!(stopping.arrivals(), 1);
    assert_eq!(lb.view().await["workers"]["i-33"]["ejected"], true);
}

#[tokio::test]
async fn an_open_connection_is_answered_after_the_order_to_stop() {
    let (worker, gate) = gated(31).await;
    let mut lb = Lb::start(Limits::default(), &[&worker]).await;
    let mut stream = TcpStream::connect(lb.addr).await.expect("it listens");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.expect("it reads");
    eventually("it is in flight", async || worker.arrivals(), |arrivals| *arrivals == 1).await;
    lb.stop();
    // The next one is already on its way when the answer to the first comes.
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.expect("it reads");
    gate.add_permits(2);
    let answer = support::read_to_end(&mut stream).await;
    assert!(answer.contains("Connection: close\r\n") && answer.contains("in the end"), "{answer}");
}

#[tokio::test]
async fn stopping_answers_requests_in_flight_and_accepts_no_new_ones() {
    let (worker, gate) = gated(31).await;
    let mut lb = Lb::start(Limits::default(), &[&worker]).await;
    let addr = lb.addr;
    let idle = TcpStream::connect(addr).await.expect("it listens");
    let request = {
        let url = format!("http://{addr}/");
        let client =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
        tokio::spawn(async move {
            let request =
                hyper::Request::get(url).body(http_body_util::Full::<hyper::body::Bytes>::default());
            support::collect(client.request(request.expect("a request")).await.expect("it answers")).await
        })
    };
    eventually("it is in flight", async || worker.arrivals(), |arrivals| *arrivals == 1).await;
    lb.stop();
    let refused = async || TcpStream::connect(addr).await.is_err();
    eventually("new connections are refused", refused, |refused| *refused).await;
    assert!(!lb.task.is_finished(), "it stopped before it had answered");
    gate.add_permits(1);
    assert_eq!(request.await.expect("answered").text(), "in the end");
    let ended = tokio::time::timeout(PATIENCE, lb.task).await.expect("it ends");
    assert!(ended.expect("no panic").is_ok());
    drop(idle);
}

#[tokio::test]
async fn a_request_without_end_does_not_keep_it_from_stopping() {
    let (worker, _gate) = gated(31).await;
    let limits = short(|limits| limits.drain = Duration::from_millis(100));
    let mut lb = Lb::start(limits, &[&worker]).await;
    let addr = lb.addr;
    let request = tokio::spawn(async move {
        let mut stream = TcpStream::connect(addr).await.expect("it listens");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .expect("it reads");
        support::read_to_end(&mut stream).await
    });
    eventually("it is in flight", async || worker.arrivals(), |arrivals| *arrivals == 1).await;
    lb.stop();
    let ended = tokio::time::timeout(PATIENCE, lb.task).await.expect("it ends");
    assert!(ended.expect("no panic").is_ok());
    assert_eq!(request.await.expect("cut"), "");
}
