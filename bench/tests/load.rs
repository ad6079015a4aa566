//! The load generator and the raw worker, against each other.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bench::backend::serve;
use bench::load::{Plan, Report, run};

/// Starts a worker in a thread that ends with this process.
fn worker(pause: Duration) -> SocketAddr {
    let addr = free();
    std::thread::spawn(move || serve(addr, pause));
    while std::net::TcpStream::connect(addr).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    addr
}

/// Not on 127.0.0.1, where another test may take the port before the server does.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.7.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn short(target: SocketAddr) -> Plan {
    Plan { connections: 4, seconds: 0.2, warm_up_seconds: 0.0, ..Plan::new(target) }
}

fn report(plan: &Plan) -> Report {
    let report = run(plan).expect("it can be run");
    assert!(report.failures.is_empty(), "{report:?}");
    report
}

#[test]
fn each_request_is_answered() {
    let target = worker(Duration::ZERO);
    let kept = report(&short(target));
    assert!(kept.answered.get > 4 && kept.answered.post == 0, "{kept:?}");
    assert_eq!(kept.connections_opened, 4);
    let churned = report(&Plan { churn: true, ..short(target) });
    assert!(churned.connections_opened >= churned.answered.get, "{churned:?}");
}

#[test]
fn large_bodies_go_both_ways() {
    let target = worker(Duration::ZERO);
    let down = report(&Plan { path: "/1m".to_owned(), ..short(target) });
    assert!(down.answered.get > 0, "{down:?}");
    let up = report(&Plan { post_percent: 100, post_bytes: 1 << 20, ..short(target) });
    assert!(up.answered.post > 0 && up.answered.get == 0, "{up:?}");
}

#[test]
fn a_rate_is_kept_and_a_pause_is_seen() {
    let pause = Duration::from_millis(5);
    let steady = report(&Plan { rate: Some(200), post_percent: 50, ..short(worker(pause)) });
    assert_eq!((steady.answered.get, steady.answered.post), (20, 20));
    assert!(steady.latency.p50 >= 5.0, "{steady:?}");
}

#[test]
fn an_unanswered_request_is_a_failure() {
    let refused = run(&Plan { rate: Some(100), ..short(free()) }).expect("it can be run");
    assert_eq!(refused.failed().get, 20);
    // A server that listens and never answers.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = deaf.local_addr().expect("bound");
    let plan = Plan { patience_seconds: 0.1, ..short(target) };
    let silent = run(&plan).expect("it can be run");
    assert!(silent.failures["timeout"].get >= 4, "{silent:?}");
    assert_eq!(silent.answered.all(), 0);
}
