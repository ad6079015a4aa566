//! What arrives at a worker, what comes back, and what does not get through.

use std::net::SocketAddr;

use crate::support::{FakeWorker, Lb, Stream, eventually, ok, read_until, short};
use ec2_lb::Limits;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_request_and_its_response_are_relayed() {
    let worker = FakeWorker::start(11, |_| async {
        Ok(Response::builder()
            .status(StatusCode::CREATED)
            .header("x-worker", "yes")
            .header("connection", "x-private")
            .header("x-private", "1")
            .body(Stream::of("made"))
            .expect("a response"))
    })
    .await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}/signup?a=b", lb.addr))
        .header("x-request-id", "my-id_1")
        .header("x-forwarded-for", "10.9.9.9")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .header("upgrade", "websocket")
        .body(Full::new(Bytes::from_static(b"hello")))
        .expect("a request");
    let answer = lb.request(request).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::CREATED, "made"));
    assert_eq!(answer.headers["x-worker"], "yes");
    assert_eq!(answer.headers["x-request-id"], "my-id_1");
    assert!(!answer.headers.contains_key("x-private"), "{:?}", answer.headers);

    let seen = &worker.seen()[0];
    assert_eq!(
        (&seen.method, seen.path.as_str(), &seen.body[..]),
        (&Method::POST, "/signup?a=b", &b"hello"[..])
    );
    assert_eq!(seen.headers["host"], lb.addr.to_string());
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen.headers["x-forwarded-proto"], "http");
    assert_eq!(seen.headers["x-forwarded-host"], lb.addr.to_string());
    assert_eq!(seen.headers["x-request-id"], "my-id_1");
    assert_eq!(seen.headers["content-length"], "5");
    for gone in ["x-mine", "upgrade", "connection"] {
        assert!(!seen.headers.contains_key(gone), "{gone}: {:?}", seen.headers);
    }
}

/// Workers refuse who comes from elsewhere.
#[tokio::test]
async fn a_worker_sees_the_address_that_the_load_balancer_listens_on() {
    let worker = FakeWorker::healthy(11).await;
    for listen in ["127.0.0.7:0", "127.0.0.1:0"] {
        let listen: SocketAddr = listen.parse().expect("an address");
        let lb = Lb::start_at(listen, &[&worker]).await;
        assert_eq!(lb.get("/x").await.status, StatusCode::OK);
        let seen = worker.seen();
        assert_eq!(seen.last().expect("a request").from.ip(), listen.ip());
    }
}

#[tokio::test]
async fn a_listener_on_all_addresses_reaches_workers() {
    let worker = FakeWorker::healthy(11).await;
    let lb = Lb::start_at("0.0.0.0:0".parse().expect("an address"), &[&worker]).await;
    assert_eq!(lb.get("/x").await.status, StatusCode::OK);
    assert_eq!(worker.seen()[0].from.ip().to_string(), "127.0.0.1", "the kernel's choice");
}

#[tokio::test]
async fn a_request_without_an_id_gets_one() {
    let worker = FakeWorker::healthy(11).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let answer = lb.get("/").await;
    assert_eq!(answer.headers["x-request-id"].len(), 32);
    assert_eq!(answer.headers["x-request-id"], worker.seen()[0].headers["x-request-id"]);
}

#[tokio::test]
async fn a_large_response_streams_while_it_is_written() {
    const PIECE: usize = 1024 * 1024;
    let (write, worker) = FakeWorker::streaming(11).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let request = Request::get(format!("http://{}/list", lb.addr)).body(Full::default()).expect("a request");
    let mut body = lb.open(request).await.into_body();
    for round in 1..=5_u8 {
        // The next piece is written only after the one before has been read.
        write.send(Ok(Bytes::from(vec![round; PIECE]))).await.expect("the worker streams");
        let mut read = 0;
        while read < PIECE {
            let frame = body.frame().await.expect("more comes").expect("the stream is whole");
            let data = frame.into_data().expect("data");
            assert!(data.iter().all(|byte| *byte == round));
            read += data.len();
        }
        assert_eq!(read, PIECE);
    }
    drop(write);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_large_upload_streams_up_to_the_limit() {
    let worker = FakeWorker::start(11, |seen| async move { ok(&seen.body.len().to_string()) }).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    for size in [0, 1, 64 * 1024, 64 * 1024 + 1, 1024 * 1024] {
        for method in [Method::POST, Method::PUT] {
            let answer = lb.send(method, "/", vec![b'x'; size]).await;
            assert_eq!(answer.text(), size.to_string());
        }
    }
    let arrivals = worker.arrivals();
    let refused = lb.raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert!(refused.contains(r#""error":"body_too_large""#), "{refused}");
    assert_eq!(worker.arrivals(), arrivals);
}

#[tokio::test]
async fn a_chunked_upload_is_cut_at_the_limit() {
    let worker = FakeWorker::healthy(11).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..17 {
        request.extend_from_slice(b"10000\r\n");
        request.extend_from_slice(&[b'x'; 0x10000]);
        request.extend_from_slice(b"\r\n");
    }
    let mut stream = TcpStream::connect(lb.addr).await.expect("it listens");
    let (mut read, mut write) = stream.split();
    // The writing may fail when the answer comes first; the answer is what matters.
    let (_, answer) = tokio::join!(write.write_all(&request), async {
        let mut answer = vec![0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut read, &mut answer).await.expect("an answer comes");
        answer
    });
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    assert_eq!(worker.arrivals(), 0, "the worker never saw a whole request");
}

#[tokio::test]
async fn ambiguous_requests_reach_no_worker() {
    let worker = FakeWorker::healthy(11).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for request in [
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{body}"
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n{body}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n{body}"),
        format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n{body}"),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\nHost: a\n\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n".to_owned(),
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"
            .to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n0\r\n\r\n".to_owned(),
    ] {
        let answer = lb.raw(format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?} got {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?} got {answer:?}");
    }
    assert_eq!(worker.arrivals(), 0, "{:?}", worker.seen());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let worker = FakeWorker::start(11, |seen| async move { ok(&format!("<{}>", seen.path)) }).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let answer = lb
        .raw(
            b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
              GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("no {text} in {answer}"));
    assert!(at("</1>") < at("</2>") && at("</2>") < at("</3>"), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_gets_it() {
    let worker = FakeWorker::start(11, |seen| async move { ok(&format!("{} bytes", seen.body.len())) }).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let mut stream = TcpStream::connect(lb.addr).await.expect("it listens");
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.expect("it reads");
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"hello").await.expect("it reads");
    read_until(&mut stream, "5 bytes").await;
}

#[tokio::test]
async fn a_head_response_keeps_its_length() {
    let worker = FakeWorker::start(11, |_| async {
        Ok(Response::builder().header("content-length", "1234").body(Stream::of("")).expect("a response"))
    })
    .await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let answer = lb.send(Method::HEAD, "/", "").await;
    assert_eq!(answer.headers["content-length"], "1234");
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_answer_it_can_read() {
    let worker = FakeWorker::healthy(11).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    let answer = lb.raw(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\ni-11"), "{answer}");
    assert_eq!(worker.seen()[0].headers["host"], worker.addr.to_string());
}

#[tokio::test]
async fn connections_to_a_worker_are_used_again_unless_it_closes_them() {
    let keeps = FakeWorker::healthy(11).await;
    let lb = Lb::start(Limits::default(), &[&keeps]).await;
    for _ in 0..20 {
        assert_eq!(lb.get("/").await.status, StatusCode::OK);
    }
    // A connection may come back a moment after the client has read the response.
    assert!(keeps.connections() < 10, "{} connections", keeps.connections());

    let closes = FakeWorker::start(12, |_| async {
        Ok(Response::builder().header("connection", "close").body(Stream::of("x")).expect("a response"))
    })
    .await;
    let lb = Lb::start(Limits::default(), &[&closes]).await;
    for _ in 0..5 {
        assert_eq!(lb.get("/").await.status, StatusCode::OK);
    }
    assert_eq!(closes.connections(), 5);
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_and_an_idle_client_is_not() {
    let worker = FakeWorker::healthy(11).await;
    let limits = short(|limits| limits.head = std::time::Duration::from_millis(100));
    let lb = Lb::start(limits, &[&worker]).await;
    let mut idle = TcpStream::connect(lb.addr).await.expect("it listens");
    let answer = lb.raw(b"GET / HTTP/1.1\r\nHos").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("head_too_slow"), "{answer}");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    read_until(&mut idle, "i-11").await;
}

#[tokio::test]
async fn an_idle_client_connection_ends_without_a_word() {
    let worker = FakeWorker::healthy(11).await;
    let limits = short(|limits| limits.idle_client = std::time::Duration::from_millis(100));
    let lb = Lb::start(limits, &[&worker]).await;
    let answer = lb.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n4\r\ni-11\r\n0\r\n\r\n"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_admin_port_shows_what_the_load_balancer_sees() {
    let worker = FakeWorker::healthy(11).await;
    let lb = Lb::start(Limits::default(), &[&worker]).await;
    lb.get("/").await;
    let health = lb.admin(Method::GET, "/healthz").await;
    assert_eq!((health.status, &health.json()["revision"]), (StatusCode::OK, &1.into()));
    assert!(health.json()["age_seconds"].as_f64().is_some_and(|age| age >= 0.0), "{health:?}");
    assert!(health.json()["uptime_seconds"].is_u64(), "the reconciler finds restarts by it");

    let is_done = |view: &serde_json::Value| view["workers"]["i-11"]["in_flight"] == 0;
    let view = eventually("the request is over", async || lb.view().await, is_done).await;
    let seen = &view["workers"]["i-11"];
    assert_eq!(seen["addr"], worker.addr.to_string());
    assert_eq!(
        (&seen["ejected"], &seen["requests"], &seen["failures"]),
        (&false.into(), &1.into(), &0.into())
    );

    let metrics = lb.admin(Method::GET, "/metrics").await;
    for line in [
        "vigia_lb_requests_total{class=\"2xx\"} 1",
        "vigia_lb_worker_requests_total{worker=\"i-11\"} 1",
        "vigia_lb_retries_total 0",
        "vigia_lb_ejections_total 0",
        "vigia_lb_registry_revision 1",
        "vigia_lb_registry_age_seconds ",
    ] {
        assert!(metrics.text().contains(line), "no {line} in {}", metrics.text());
    }

    let refreshed = lb.admin(Method::POST, "/refresh").await;
    assert_eq!((refreshed.status, refreshed.json()), (StatusCode::OK, serde_json::json!({"revision": 1})));
    assert_eq!(lb.admin(Method::GET, "/refresh").await.status, StatusCode::METHOD_NOT_ALLOWED);
}
