//! Refused attempts cost other clients nothing.

use std::time::Duration;

use axum::http::Method;
use ec2_worker::app;
use fleet::Profile;
use futures::stream::{self, StreamExt as _};
use reqwest::redirect::Policy;
use testing::client::s3;
use testing::proxy::Proxy;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::support::{Http, PASSWORD, Stack, escape, s3_endpoint};

const ATTACKER: &str = "192.0.2.7";
/// One is under attack; the other fifty sign in.
const USERS: usize = 51;
/// A second, of an attacker.
const RATE: u64 = 250;

async fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client")
}

async fn status(client: &reqwest::Client, url: &str, from: &str) -> u16 {
    let reply = client.get(url).header("x-forwarded-for", from).send().await.expect("the worker answers");
    reply.status().as_u16()
}

/// Users with one password, and one hash for all of them.
async fn many_users(stack: &Stack) {
    stack.client(Profile::Secure).await.sign_up("user0").await;
    let record = stack.read(&stack.data, "users/user0").await;
    for user in 1..USERS {
        let record = record.replace("\"user0\"", &format!("\"user{user}\""));
        stack.write_user(&format!("users/user{user}"), &record).await;
    }
}

/// Tries at one login that has to wait and at many others, until the task is dropped.
async fn attack(base: String) -> u16 {
    let client = client().await;
    let mut tick = interval(Duration::from_millis(1000 / RATE));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tries = JoinSet::new();
    for number in 0_u64.. {
        tick.tick().await;
        let login = if number % 2 == 0 { "user0".to_owned() } else { format!("stranger{number}") };
        let (client, url) = (client.clone(), format!("{base}/signin/{login}/wrong%20horse"));
        tries.spawn(async move { status(&client, &url, ATTACKER).await });
        // Not more of them than the machine of this test can carry.
        while tries.len() > 512 {
            tries.join_next().await;
        }
        while let Some(done) = tries.try_join_next() {
            let status = done.expect("a try does not panic");
            assert!([401, 429, 503].contains(&status), "{status}");
        }
    }
    unreachable!("it is dropped")
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_attempts_keep_no_other_client_out() {
    let stack = Stack::new().await;
    many_users(&stack).await;
    let proxies = "127.0.0.0/8".parse().expect("a network");
    let worker = stack.small_worker_behind(proxies).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let config = stack.config(Profile::Secure);
    let client = client().await;
    let sign_ins = async {
        // Enough failures at one login for it to wait for minutes.
        while status(&client, &format!("{base}/signin/user0/wrong%20horse"), ATTACKER).await != 429 {}
        let attack = tokio::spawn(attack(base.clone()));
        let sign_in = async |user: usize| {
            let url = format!("{base}/signin/user{user}/{}", escape(PASSWORD));
            status(&client, &url, &format!("198.51.100.{user}")).await
        };
        let statuses: Vec<u16> = stream::iter(1..USERS).map(sign_in).buffer_unordered(3).collect().await;
        attack.abort();
        assert!(attack.await.is_err_and(|error| error.is_cancelled()), "the attack lasted to the end");
        statuses
    };
    tokio::select! {
        _ = ec2_worker::run(&config, worker.clone(), listener, std::future::pending()) => unreachable!("never stops"),
        statuses = sign_ins => {
            let rejected = statuses.iter().filter(|status| **status != 303).count();
            assert_eq!(rejected, 0, "{statuses:?}");
        }
    }
}

#[tokio::test]
async fn a_login_that_must_wait_costs_no_reads() {
    let stack = Stack::new().await;
    let proxy = Proxy::before(s3_endpoint()).await;
    let worker = stack.worker_through(&s3(&proxy.endpoint), Profile::Secure).await.expect("it starts");
    let http = Http { app: app(worker) };
    // Sixteen seconds to wait.
    for _ in 0..5 {
        assert_eq!(http.get("/signin/ana/wrong%20horse").await.status, 401);
    }
    let key = stack.keys("throttle/").await.remove(0);
    let count = serde_json::json!({"count": 20, "last": jiff::Timestamp::now(), "nonce": "x"}).to_string();
    stack.write_user(&key, &count).await;
    let reads = || proxy.count(&Method::GET, "/throttle/") + proxy.count(&Method::GET, "/users/ana");
    while http.get("/signin/ana/wrong%20horse").await.header("retry-after").len() < 3 {}
    let (before, tries) = (reads(), 200);
    for _ in 0..tries {
        assert_eq!(http.get("/signin/ana/wrong%20horse").await.status, 429);
    }
    assert!(reads() - before < tries / 10, "{} reads for {tries} refusals", reads() - before);
}
