//! The program itself under thousands of bodies that never end, all from one address: clients from other
//! addresses are answered, and the bodies take no more memory than is documented.
//!
//! `VIGIA_SLOW_BODIES=4400 VIGIA_SLOW_SECONDS=30` is the full size.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::raw;
use crate::raw::process::LoadBalancer;
use crate::raw::worker::Worker;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// More than an address may have arriving at once.
const BODIES: u64 = 1200;
const SECONDS: u64 = 3;

/// From docs/load-balancer.md: a request holds at most so much.
const MOST_KIB_EACH: u64 = 100;

/// What the process may need besides: idle connections, and what its allocator keeps.
const BESIDES_KIB: u64 = 24 * 1024;

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Half send little of a body, half all but the end of it.
fn begins() -> [Vec<u8>; 2] {
    let head = b"POST /signin HTTP/1.1\r\nHost: a\r\nContent-Length: 64000\r\n\r\n";
    [10, 63_000].map(|length| [&head[..], &vec![b'x'; length]].concat())
}

#[test]
#[expect(clippy::print_stdout, reason = "the full size prints its figures")]
fn slow_bodies_do_not_hold_up_other_addresses() {
    let (bodies, seconds) =
        (setting("VIGIA_SLOW_BODIES").unwrap_or(BODIES), setting("VIGIA_SLOW_SECONDS").unwrap_or(SECONDS));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("every process may raise it to the hard limit");
    let worker = Worker::start();
    let lb = LoadBalancer::start(env!("CARGO_BIN_EXE_ec2-lb"), worker.addr);
    assert!(get(lb.addr).is_ok());
    let before_kib = lb.resident_kib();
    let is_over = Arc::new(AtomicBool::new(false));
    let attack = std::thread::spawn({
        let (addr, is_over) = (lb.addr, Arc::clone(&is_over));
        move || attack(addr, bodies, &is_over)
    });
    let began = Instant::now();
    let (mut answered, mut failures, mut peak_kib) = (0_u64, Vec::new(), 0);
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(seconds) {
        let asked = Instant::now();
        match get(lb.addr) {
            Ok(()) => answered += 1,
            Err(error) => failures.push(error),
        }
        slowest = slowest.max(asked.elapsed());
        peak_kib = peak_kib.max(lb.resident_kib());
    }
    is_over.store(true, Ordering::Relaxed);
    let sent = attack.join().expect("no panic");
    let most_kib = MOST_KIB_EACH * SHARE.min(bodies) + BESIDES_KIB;
    let grown_kib = peak_kib.saturating_sub(before_kib);
    println!(
        "{bodies} slow bodies for {seconds} s ({sent} connections): {answered} other requests answered, {} not; \
         the slowest took {slowest:?}; memory {before_kib} KiB before, {grown_kib} KiB more at most, \
         {most_kib} KiB allowed",
        failures.len(),
    );
    assert!(failures.is_empty(), "{} requests failed, {:?}", failures.len(), failures.first());
    assert!(answered > 0 && sent >= bodies, "this tests nothing: {answered} answered, {sent} attacked");
    assert!(grown_kib <= most_kib, "{grown_kib} KiB more, {most_kib} KiB allowed");
}

/// Requests of one address that may arrive at once.
const SHARE: u64 = 512;

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "lets a developer ask for the full size")]
    std::env::var(name).ok()?.parse().ok()
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Keeps so many bodies open, each with a byte now and then; returns how many connections it took.
fn attack(addr: SocketAddr, bodies: u64, is_over: &AtomicBool) -> u64 {
    let begins = begins();
    let (mut open, mut sent): (Vec<TcpStream>, u64) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        while (open.len() as u64) < bodies && !is_over.load(Ordering::Relaxed) {
            let Ok(mut stream) = connect(ATTACKER, addr) else { break };
            stream.set_nonblocking(true).expect("a socket option");
            // What the socket does not take at once is not sent.
            drop(stream.write(&begins[usize::from(sent % 2 == 0)]));
            sent += 1;
            open.push(stream);
        }
        let since = Instant::now();
        open.retain_mut(|stream| {
            let is_refused = !matches!(
                stream.read(&mut [0; 512]), Err(error) if error.kind() == ErrorKind::WouldBlock
            );
            let is_dead = matches!(
                stream.write(b"x"), Err(error) if error.kind() != ErrorKind::WouldBlock
            );
            !is_refused && !is_dead
        });
        // A byte every half second is now and then.
        std::thread::sleep(Duration::from_millis(500).saturating_sub(since.elapsed()));
    }
    sent
}

/// A request of another address, half of the time with a body in two pieces.
fn get(addr: SocketAddr) -> Result<(), String> {
    let exchange = |pieces: &[&[u8]]| -> std::io::Result<String> {
        let mut stream = connect(OTHER, addr)?;
        stream.set_read_timeout(Some(raw::PATIENCE))?;
        for piece in pieces {
            stream.write_all(piece)?;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let requests: [&[&[u8]]; 2] = [
        &[b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"],
        &[b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbo", b"dy"],
    ];
    for request in requests {
        let answer = exchange(request).map_err(|error| error.to_string())?;
        if !answer.starts_with("HTTP/1.1 200 ") {
            return Err(answer);
        }
    }
    Ok(())
}
