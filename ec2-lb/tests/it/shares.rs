//! No address takes all of a limit: what one holds, slowly or for long, keeps no other out.

use std::time::Duration;

use crate::support::{FakeWorker, Lb, PATIENCE, eventually, read_to_end, read_until, short};
use ec2_lb::Limits;
use hyper::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BODY_TO_COME: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";

/// The attacker's 127.0.0.`host`, and another client's.
const GREEDY: u8 = 81;
const OTHER: u8 = 82;

/// On each of the load balancer's two threads: two places for each address, and eight in all.
const ALL: usize = 16;

async fn send(lb: &Lb, host: u8, bytes: &[u8]) -> TcpStream {
    let mut stream = lb.connect_from(host).await;
    // A connection that is refused at once may be reset before it has sent anything.
    drop(stream.write_all(bytes).await);
    stream
}

/// The metric shows this value.
async fn shows(lb: &Lb, line: &str) {
    let metrics = async || lb.admin(Method::GET, "/metrics").await.text().to_owned();
    eventually(line, metrics, |metrics| metrics.contains(&format!("vigia_lb_{line}\n"))).await;
}

async fn asked(stream: &mut TcpStream) -> String {
    stream.write_all(GET).await.expect("it reads");
    read_until(stream, "\r\n\r\n").await
}

/// Waits until the address gets this answer; the connections that get none stay open.
async fn refused(lb: &Lb, host: u8, bytes: &[u8], held: &mut Vec<TcpStream>) -> String {
    let look = async || {
        let mut stream = send(lb, host, bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut answer)).await;
        held.extend(read.is_err().then_some(stream));
        String::from_utf8_lossy(&answer).into_owned()
    };
    eventually("it is refused", look, |answer| answer.starts_with("HTTP/1.1 ")).await
}

#[tokio::test]
async fn slow_bodies_take_no_place_in_flight() {
    let worker = FakeWorker::healthy(91).await;
    let limits = short(|limits| (limits.in_flight, limits.shares) = (2, 1));
    let lb = Lb::start(limits, &[&worker]).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(send(&lb, GREEDY, BODY_TO_COME).await);
    }
    shows(&lb, "arriving 20").await;
    for _ in 0..20 {
        assert!(asked(&mut lb.connect_from(GREEDY).await).await.starts_with("HTTP/1.1 200 "));
    }
    for stream in &mut slow {
        stream.write_all(b"the body.").await.expect("it reads");
        assert!(read_until(stream, "i-91").await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn slow_bodies_of_one_address_leave_room_for_others() {
    let worker = FakeWorker::healthy(91).await;
    let lb = Lb::start(short(|limits| limits.arriving = ALL), &[&worker]).await;
    let mut slow = Vec::new();
    for _ in 0..60 {
        slow.push(send(&lb, GREEDY, BODY_TO_COME).await);
    }
    shows(&lb, "arriving 4").await;
    let mut other = send(&lb, OTHER, BODY_TO_COME).await;
    shows(&lb, "arriving 5").await;
    other.write_all(b"the body.").await.expect("it reads");
    assert!(read_until(&mut other, "i-91").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn slow_heads_of_one_address_leave_room_for_others() {
    let worker = FakeWorker::healthy(91).await;
    let lb = Lb::start(short(|limits| limits.arriving = ALL), &[&worker]).await;
    let mut slow = Vec::new();
    for _ in 0..60 {
        slow.push(send(&lb, GREEDY, b"GET / HTTP/1.1\r\n").await);
    }
    shows(&lb, "arriving 4").await;
    let mut other = send(&lb, OTHER, b"GET / HTTP/1.1\r\n").await;
    shows(&lb, "arriving 5").await;
    other.write_all(b"Host: a\r\n\r\n").await.expect("it reads");
    assert!(read_until(&mut other, "i-91").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_slowest_body_makes_room_for_the_next() {
    let worker = FakeWorker::healthy(91).await;
    // One thread's share is one, and nothing else ends a slow body.
    let limits = short(|limits| {
        limits.arriving = 8;
        (limits.upload_grace, limits.upload_pause) = (PATIENCE, PATIENCE);
    });
    let lb = Lb::start(limits, &[&worker]).await;
    let mut oldest = send(&lb, GREEDY, BODY_TO_COME).await;
    let mut later = Vec::new();
    let mut answer = [0; 12];
    let dropped = eventually(
        "the oldest makes room",
        async || {
            later.push(send(&lb, GREEDY, BODY_TO_COME).await);
            let read = tokio::time::timeout(Duration::from_millis(200), oldest.read_exact(&mut answer)).await;
            read.is_ok_and(|read| read.is_ok())
        },
        |is_dropped| *is_dropped,
    );
    dropped.await;
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 503");
    let rest = read_to_end(&mut oldest).await;
    assert!(rest.contains("Retry-After: 2\r\n") && rest.contains("the slowest"), "{rest}");
    shows(&lb, "shed_total 0").await;
}

#[tokio::test]
async fn requests_in_flight_of_one_address_leave_room_for_others() {
    let worker = FakeWorker::start(92, |_| std::future::pending()).await;
    let lb = Lb::start(short(|limits| limits.in_flight = ALL), &[&worker]).await;
    let mut held = Vec::new();
    let answer = refused(&lb, GREEDY, GET, &mut held).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("too_many_from_address"), "{answer}");
    assert!(answer.contains("Retry-After: 2\r\n"), "{answer}");
    let before = worker.arrivals();
    let _other = send(&lb, OTHER, GET).await;
    eventually("the other's request arrived", async || worker.arrivals(), |now| *now == before + 1).await;
}

#[tokio::test]
async fn held_requests_of_one_address_leave_room_for_others() {
    let lb = Lb::with_registry(short(|limits| (limits.held, limits.hold) = (ALL, PATIENCE)), None).await;
    let mut held = Vec::new();
    let answer = refused(&lb, GREEDY, GET, &mut held).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let before = held.len();
    shows(&lb, &format!("held {before}")).await;
    let _other = send(&lb, OTHER, GET).await;
    shows(&lb, &format!("held {}", before + 1)).await;
}

#[tokio::test]
async fn connections_of_one_address_leave_room_for_others() {
    let worker = FakeWorker::healthy(91).await;
    let lb = Lb::start(short(|limits| limits.connections = ALL), &[&worker]).await;
    let mut other = lb.connect_from(OTHER).await;
    assert!(asked(&mut other).await.starts_with("HTTP/1.1 200 "));
    let mut idle = Vec::new();
    for _ in 0..60 {
        let mut stream = lb.connect_from(GREEDY).await;
        assert!(asked(&mut stream).await.starts_with("HTTP/1.1 200 "), "its own idle ones make room");
        idle.push(stream);
    }
    assert!(asked(&mut other).await.starts_with("HTTP/1.1 200 "), "it was idle for longest, and stays");
    shows(&lb, "connections 5").await;
}

#[test]
fn an_address_has_a_quarter() {
    assert_eq!(Limits::default().shares, 4);
}
