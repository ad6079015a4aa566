//! What the program spares the kernel and itself, as `/proc` shows it: without it each of these requests
//! costs as much as another proxy's, or more.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::raw::PATIENCE;
use crate::raw::process::LoadBalancer;
use crate::raw::split::Split;
use crate::raw::worker::{Script, Step, Then, Worker};

fn start() -> (Worker, LoadBalancer) {
    let worker = Worker::start();
    let lb = LoadBalancer::start(env!("CARGO_BIN_EXE_ec2-lb"), worker.addr);
    (worker, lb)
}

/// What its descriptors are, such as `socket:[4711]`.
fn descriptors(lb: &LoadBalancer) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{}/fd", lb.pid())).expect("it lives");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

fn pipes(lb: &LoadBalancer) -> usize {
    descriptors(lb).iter().filter(|link| link.starts_with("pipe:")).count()
}

fn upload(lb: &LoadBalancer, size: usize) {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n");
    let mut stream = TcpStream::connect(lb.addr).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    stream.write_all(&[head.as_bytes(), &vec![b'x'; size]].concat()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn the_rest_of_a_large_body_passes_through_a_pipe() {
    let (worker, lb) = start();
    let before = pipes(&lb);
    upload(&lb, 64 * 1024);
    assert_eq!(pipes(&lb), before, "a body that is kept is read");
    upload(&lb, 1024 * 1024);
    // It is kept for the next.
    assert!(pipes(&lb) > before, "{:?}", descriptors(&lb));
    let sizes: Vec<usize> =
        worker.record().arrivals.iter().map(|arrival| arrival.request.body.content.len()).collect();
    assert_eq!(sizes, [64 * 1024, 1024 * 1024]);
}

/// The inode of the socket that a client of this port is connected to.
fn inode(lb: SocketAddr, client: SocketAddr) -> Option<u64> {
    let ends = [lb, client].map(|end| format!(":{:04X}", end.port()));
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux tells");
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&ends[0]) && fields.get(2)?.ends_with(&ends[1]);
        fields.get(9).filter(|_| is_it)?.parse().ok()
    })
}

/// Whether the program has asked the kernel to be told of what happens to a socket.
fn is_watched(lb: &LoadBalancer, inode: u64) -> bool {
    let infos = fs::read_dir(format!("/proc/{}/fdinfo", lb.pid())).expect("it lives");
    let watched = format!("ino:{inode:x} ");
    infos.filter_map(|info| fs::read_to_string(info.ok()?.path()).ok()).any(|info| info.contains(&watched))
}

fn signal(lb: &LoadBalancer, name: &str) {
    let sent = Command::new("kill").args([name, &lb.pid().to_string()]).status().expect("kill exists");
    assert!(sent.success());
}

/// Whether all of its threads are stopped.
fn sleeps(lb: &LoadBalancer) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", lb.pid())).expect("it lives");
    let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).ok();
    threads.filter_map(|thread| status(thread.ok()?)).all(|status| status.contains("State:\tT"))
}

/// Sends a request to which the worker answers late, and returns whether the load balancer watches its
/// connection until then. The program sleeps until the request has arrived.
fn is_watched_meanwhile(worker: &Worker, lb: &LoadBalancer, pieces: [&[u8]; 2]) -> bool {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let steps = vec![Step::Pause(Duration::from_secs(1)), Step::Send(answer)];
    worker.play(Some(Script { steps, split: Split::Whole, is_early: false, then: Then::Keep }));
    signal(lb, "-STOP");
    let deadline = Instant::now() + PATIENCE;
    // One thread after the other.
    while !sleeps(lb) {
        assert!(Instant::now() < deadline, "waited in vain until it sleeps");
    }
    let mut client = TcpStream::connect(lb.addr).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    client.write_all(pieces[0]).expect("the kernel takes it");
    signal(lb, "-CONT");
    let inode = || inode(lb.addr, client.local_addr().expect("connected")).filter(|inode| *inode > 0);
    if !pieces[1].is_empty() {
        while !inode().is_some_and(|inode| is_watched(lb, inode)) {
            assert!(Instant::now() < deadline, "waited in vain until the rest is waited for");
        }
        (&client).write_all(pieces[1]).expect("it reads");
    }
    while worker.record().begun == 0 {
        assert!(Instant::now() < deadline, "waited in vain until the worker is asked");
    }
    let is_watched = is_watched(lb, inode().expect("it is connected"));
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it answers");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    is_watched
}

#[test]
fn only_a_client_that_is_waited_for_is_watched() {
    let (worker, lb) = start();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(!is_watched_meanwhile(&worker, &lb, [request, b""]));
    let (begin, rest) = request.split_at(20);
    assert!(is_watched_meanwhile(&worker, &lb, [begin, rest]));
}
