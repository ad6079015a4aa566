//! Clients that are slow, many or greedy: each bound is met, and others do not feel it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{FakeWorker, Lb, PATIENCE, eventually, ok, read_to_end, read_until, short};
use ec2_lb::Limits;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Limits that one address may use up.
fn alone(change: impl FnOnce(&mut Limits)) -> Limits {
    short(|limits| {
        limits.shares = 1;
        change(limits);
    })
}

async fn connect(lb: &Lb) -> TcpStream {
    TcpStream::connect(lb.addr).await.expect("it listens")
}

/// Sends a head, the first bytes of its body, and then a byte every 20 ms; returns how the answer begins.
async fn answer_to_a_trickle(lb: &Lb, length: usize, at_first: usize) -> String {
    let mut stream = connect(lb).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    stream.write_all(&vec![b'x'; at_first]).await.expect("it reads");
    let (mut read, mut write) = stream.into_split();
    let trickle = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = vec![0; "HTTP/1.1 408".len()];
    let reading = tokio::time::timeout(PATIENCE, read.read_exact(&mut answer));
    reading.await.expect("in time").expect("an answer");
    trickle.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_stops_coming_is_refused() {
    let worker = FakeWorker::healthy(71).await;
    let limits = short(|limits| limits.upload_pause = Duration::from_millis(100));
    let lb = Lb::start(limits, &[&worker]).await;
    for length in [10, 500_000] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nfew");
        let answer = lb.raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_too_slow"), "{answer}");
    }
    assert_eq!(worker.arrivals(), 0);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_refused_however_steadily() {
    let worker = FakeWorker::healthy(71).await;
    let limits = short(|limits| limits.upload = Duration::from_millis(300));
    let lb = Lb::start(limits, &[&worker]).await;
    for length in [1000, 500_000] {
        assert_eq!(answer_to_a_trickle(&lb, length, 0).await, "HTTP/1.1 408", "{length}");
    }
}

#[tokio::test]
async fn a_body_below_the_minimum_rate_is_refused() {
    let worker = FakeWorker::healthy(71).await;
    let limits = short(|limits| {
        limits.upload_grace = Duration::from_millis(200);
        limits.client_rate = 100_000;
    });
    let lb = Lb::start(limits, &[&worker]).await;
    // Kept whole, and streamed: what comes at first is enough for a worker to be chosen.
    for (length, at_first) in [(60_000, 10), (900_000, 20_000)] {
        assert_eq!(answer_to_a_trickle(&lb, length, at_first).await, "HTTP/1.1 408", "{length}");
    }
    assert_eq!(worker.arrivals(), 0);
}

#[tokio::test]
async fn a_client_that_reads_below_the_minimum_rate_is_cut() {
    let (write, worker) = FakeWorker::streaming(72).await;
    let limits = short(|limits| {
        limits.client_pause = Duration::from_millis(500);
        limits.client_rate = 1024 * 1024 * 1024;
    });
    let lb = Lb::start(limits, &[&worker]).await;
    let mut slow = connect(&lb).await;
    slow.write_all(GET).await.expect("it reads");
    let sips = tokio::spawn(async move {
        let mut sip = vec![0; 64 * 1024];
        while slow.read_exact(&mut sip).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let fed =
        tokio::spawn(
            async move { while write.send(Ok(Bytes::from(vec![b'x'; 1024 * 1024]))).await.is_ok() {} },
        );
    tokio::time::timeout(PATIENCE, fed).await.expect("the worker is freed").expect("no panic");
    sips.await.expect("no panic");
}

#[tokio::test]
async fn a_large_body_reaches_a_worker_only_when_it_comes() {
    let worker = FakeWorker::healthy(71).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let mut stream = connect(&lb).await;
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\nfew";
    stream.write_all(head).await.expect("it reads");
    let arrives = |metrics: &String| metrics.contains("vigia_lb_arriving 1\n");
    let metrics = async || lb.admin(Method::GET, "/metrics").await.text().to_owned();
    let metrics = eventually("the request arrives", metrics, arrives).await;
    assert!(metrics.contains("vigia_lb_in_flight 0\n"), "{metrics}");
    stream.write_all(&vec![b'x'; 500_000 - 3]).await.expect("it reads");
    assert!(read_until(&mut stream, "i-71").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn leave_to_send_a_small_body_needs_no_worker() {
    let worker = FakeWorker::healthy(71).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let mut stream = connect(&lb).await;
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.expect("it reads");
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(lb.view().await["workers"]["i-71"]["requests"], 0);
    stream.write_all(b"hello").await.expect("it reads");
    assert!(read_until(&mut stream, "i-71").await.starts_with("HTTP/1.1 200 "));
    assert!(!worker.seen()[0].headers.contains_key("expect"));
}

#[tokio::test]
async fn a_worker_gets_no_more_than_it_serves() {
    let worker = FakeWorker::start(74, |_| std::future::pending()).await;
    let limits = short(|limits| {
        limits.per_worker = 3;
        limits.check_every = Duration::from_millis(20);
    });
    let lb = Lb::start(limits, &[&worker]).await;
    let mut busy = Vec::new();
    for count in 1..=3 {
        let mut stream = connect(&lb).await;
        stream.write_all(GET).await.expect("it reads");
        busy.push(stream);
        eventually("it arrived", async || worker.arrivals(), |arrivals| *arrivals == count).await;
    }
    let answer = lb.get("/").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"overloaded".into())
    );
    assert_eq!(worker.arrivals(), 3);
    assert_eq!(lb.view().await["workers"]["i-74"]["ejected"], false, "its health checks are answered");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_frees_its_worker() {
    let (write, worker) = FakeWorker::streaming(72).await;
    let limits = short(|limits| limits.client_pause = Duration::from_millis(200));
    let lb = Lb::start(limits, &[&worker]).await;
    let mut deaf = connect(&lb).await;
    deaf.write_all(GET).await.expect("it reads");
    // More than all buffers on the way hold; the worker is stopped in the middle and then let go.
    let fed = tokio::spawn(async move {
        let mut pieces = 0;
        while write.send(Ok(Bytes::from(vec![b'x'; 1024 * 1024]))).await.is_ok() {
            pieces += 1;
            assert!(pieces < 200, "a client that reads nothing has taken {pieces} MiB");
        }
    });
    tokio::time::timeout(PATIENCE, fed).await.expect("the worker is freed").expect("no panic");
    let is_over = |view: &serde_json::Value| view["workers"]["i-72"]["in_flight"] == 0;
    eventually("the request is over", async || lb.view().await, is_over).await;
}

#[tokio::test]
async fn a_worker_that_stops_in_the_middle_of_its_response_is_cut() {
    let (write, worker) = FakeWorker::streaming(73).await;
    let limits = short(|limits| limits.reply_pause = Duration::from_millis(100));
    let lb = Lb::start(limits, &[&worker]).await;
    write.send(Ok(Bytes::from_static(b"half"))).await.expect("room");
    let answer = lb.raw(GET).await;
    assert!(answer.contains("half") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(lb.view().await["workers"]["i-73"]["failures"], 1);
}

#[tokio::test]
async fn too_many_requests_at_once_are_refused_early() {
    let gate = Arc::new(Semaphore::new(0));
    let opens = Arc::clone(&gate);
    let worker = FakeWorker::start(74, move |_| {
        let gate = Arc::clone(&opens);
        async move {
            gate.acquire().await.expect("never closed").forget();
            ok("late")
        }
    })
    .await;
    // Two threads: each takes one request.
    let lb = Arc::new(Lb::start(alone(|limits| limits.in_flight = 2), &[&worker]).await);
    let mut held = Vec::new();
    let refused = eventually(
        "one is refused",
        async || {
            let mut stream = connect(&lb).await;
            stream.write_all(GET).await.expect("it reads");
            let answer =
                tokio::time::timeout(Duration::from_millis(200), read_to_end(&mut stream)).await.ok();
            held.extend(answer.is_none().then_some(stream));
            answer
        },
        Option::is_some,
    );
    let refused = refused.await.expect("refused");
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("overloaded"), "{refused}");
    assert!(refused.contains("Retry-After: 2\r\n") && refused.contains("Connection: close\r\n"), "{refused}");
    assert!(worker.arrivals() <= 2);
    gate.add_permits(held.len());
    for stream in &mut held {
        read_until(stream, "late").await;
    }
    let metrics = lb.admin(Method::GET, "/metrics").await;
    assert!(!metrics.text().contains("vigia_lb_shed_total 0\n"), "{}", metrics.text());
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room_for_a_new_one() {
    let worker = FakeWorker::healthy(75).await;
    let lb = Lb::start(alone(|limits| limits.connections = 20), &[&worker]).await;
    let mut idle = Vec::new();
    for _ in 0..60 {
        let mut stream = connect(&lb).await;
        stream.write_all(GET).await.expect("it reads");
        read_until(&mut stream, "i-75").await;
        idle.push(stream);
    }
    let mut open = 0;
    for stream in &mut idle {
        let ended = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 9])).await;
        open += usize::from(ended.is_err());
    }
    assert!((10..=22).contains(&open), "{open} of 60 are open");
    assert_eq!(lb.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_new_connection_is_refused_when_all_are_busy() {
    let worker = FakeWorker::start(76, |_| std::future::pending()).await;
    let lb = Lb::start(alone(|limits| limits.connections = 4), &[&worker]).await;
    let mut busy = Vec::new();
    let refused = eventually(
        "one is refused",
        async || {
            let mut stream = connect(&lb).await;
            // It may be refused, and reset, before it has sent anything.
            drop(stream.write_all(GET).await);
            let mut answer = Vec::new();
            let read =
                tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut answer)).await;
            busy.extend(read.is_err().then_some(stream));
            String::from_utf8_lossy(&answer).into_owned()
        },
        |answer| answer.contains("overloaded"),
    );
    let refused = refused.await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(busy.len() <= 4);
}

#[tokio::test]
async fn slow_heads_do_not_hold_up_others() {
    let worker = FakeWorker::healthy(77).await;
    let limits = short(|limits| limits.head = Duration::from_millis(500));
    let lb = Lb::start(limits, &[&worker]).await;
    let begin_head = async || {
        let mut stream = connect(&lb).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await.expect("it reads");
        stream
    };
    let (mut stalled, mut trickling) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        stalled.push(begin_head().await);
        trickling.push(begin_head().await);
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        assert_eq!(lb.get("/").await.status, StatusCode::OK);
        for stream in &mut trickling {
            // A refused connection cannot be written to.
            drop(stream.write_all(b"x").await);
        }
    }
    for mut stream in stalled {
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    // A byte that crosses the refusal resets the connection, and then the client loses its answer. So the
    // refusals of the trickling heads are counted, not read.
    let is_refused = |metrics: &String| metrics.contains("vigia_lb_requests_total{class=\"4xx\"} 200\n");
    let metrics = async || lb.admin(Method::GET, "/metrics").await.text().to_owned();
    eventually("all 200 slow heads are refused", metrics, is_refused).await;
}
