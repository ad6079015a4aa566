//! Guessing: at one login, over the whole fleet, and from one address.

use std::time::Duration;

use axum::extract::Extension;
use axum::http::{Method, Request};
use ec2_worker::app;
use ec2_worker::client::{Peer, TrustedProxies};
use fleet::Profile;
use futures::future::join_all;

use crate::support::{Http, PASSWORD, Reply, Stack, escape};

const WRONG: &str = "wrong horse";

async fn guess(http: &Http, login: &str) -> Reply {
    http.get(&format!("/signin/{login}/{}", escape(WRONG))).await
}

/// Puts the count of a login where a fleet under attack would have brought it.
async fn set_failures(stack: &Stack, key: &str, count: u32, seconds_ago: i64) {
    let last = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds_ago);
    let text = serde_json::json!({"count": count, "last": last, "nonce": "x"}).to_string();
    stack.write_user(key, &text).await;
}

/// Brings the count of strangers at a login to where they wait for minutes. No other attempt may have failed.
async fn lock_strangers_out(stack: &Stack, http: &Http, login: &str) {
    guess(http, login).await;
    set_failures(stack, &only_throttle_key(stack).await, 20, 0).await;
}

async fn only_throttle_key(stack: &Stack) -> String {
    let keys = stack.keys("throttle/").await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

#[tokio::test]
async fn a_login_waits_after_five_failures_even_if_unknown() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let mut answers = Vec::new();
    for login in ["ana", "carol"] {
        let worker = stack.worker(Profile::Secure).await;
        let http = Http { app: app(worker.clone()) };
        for _ in 0..5 {
            assert_eq!(guess(&http, login).await.code(), (401, "wrong_credentials".to_owned()));
        }
        let refused = guess(&http, login).await;
        assert_eq!(refused.code(), (429, "too_many_attempts".to_owned()));
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(worker.hashes.evaluations(), 5, "what comes too early is not hashed");
        answers.push(refused.body);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(guess(&http, "bob").await.status, 401, "other logins go on");
}

#[tokio::test]
async fn the_fleet_shares_one_count_under_a_pseudonym() {
    let stack = Stack::new().await;
    let workers = join_all((0..3).map(|_| stack.client(Profile::Secure))).await;
    for failure in 0..5 {
        assert_eq!(guess(&workers[failure % 3], "ana").await.status, 401);
    }
    for http in &workers {
        assert_eq!(guess(http, "ana").await.status, 429);
    }
    let key = only_throttle_key(&stack).await;
    assert!(!key.contains("ana"), "{key}");
    assert!(!stack.read(&stack.data, &key).await.contains("ana"));
}

#[tokio::test]
async fn a_success_after_the_wait_resets_the_count() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    guess(&http, "ana").await;
    let key = only_throttle_key(&stack).await;
    set_failures(&stack, &key, 8, 9).await;
    let http = stack.client(Profile::Secure).await;
    http.sign_in("ana").await;
    for _ in 0..4 {
        assert_eq!(guess(&http, "ana").await.status, 401);
    }
    http.sign_in("ana").await;
}

#[tokio::test]
async fn a_hundred_failures_lock_a_login_for_a_day() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    guess(&http, "ana").await;
    let key = only_throttle_key(&stack).await;
    let right = format!("/signin/ana/{}", escape(PASSWORD));
    set_failures(&stack, &key, 100, 20 * 3600).await;
    let reply = stack.client(Profile::Secure).await.get(&right).await;
    assert_eq!(reply.code(), (429, "too_many_attempts".to_owned()));
    let wait: u32 = reply.header("retry-after").parse().expect("seconds");
    assert!((4 * 3600 - 60..=4 * 3600).contains(&wait), "{wait}");
    // The worker that counted takes it from S3, too.
    assert_eq!(http.get(&right).await.status, 429);
    stack.delete(&stack.data, &key).await;
    // A worker trusts the last count that it read for some seconds.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while http.get(&right).await.status != 303 {
        assert!(tokio::time::Instant::now() < deadline, "it is still told to wait");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_success_on_one_worker_resets_the_count_on_all() {
    let stack = Stack::new().await;
    let (here, there) = (stack.client(Profile::Secure).await, stack.client(Profile::Secure).await);
    here.sign_up("ana").await;
    for _ in 0..4 {
        guess(&here, "ana").await;
    }
    there.sign_in("ana").await;
    for _ in 0..5 {
        assert_eq!(guess(&here, "ana").await.status, 401);
    }
    assert_eq!(guess(&here, "ana").await.status, 429);
}

#[tokio::test]
async fn a_browser_is_known_until_the_password_or_the_user_changes() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let right = format!("/signin/ana/{}", escape(PASSWORD));
    http.sign_up("ana").await;
    let (here, there) = (http.get(&right).await, http.get(&right).await);
    let (known_here, known_there) = (here.cookie_named("vigia_device"), there.cookie_named("vigia_device"));
    let both = format!("{}; {known_here}", here.cookie());
    let change = serde_json::json!({"current": PASSWORD, "new": "staple battery"}).to_string();
    let request =
        Request::post("/password").header("cookie", both).header("content-type", "application/json");
    let changed = http.send(request.body(change.into()).expect("a request")).await;
    assert_eq!(changed.status, 204);
    let known_here = changed.cookie_named("vigia_device");
    lock_strangers_out(&stack, &http, "ana").await;
    let right = "/signin/ana/staple%20battery";
    assert_eq!(http.with_cookie(right, &known_here).await.status, 303);
    assert_eq!(http.with_cookie(right, &known_there).await.status, 429, "it knew the password before");

    stack.delete(&stack.data, "users/ana").await;
    assert_eq!(http.sign_up("ana").await.status, 201);
    lock_strangers_out(&stack, &http, "ana").await;
    let right = format!("/signin/ana/{}", escape(PASSWORD));
    assert_eq!(http.with_cookie(&right, &known_here).await.status, 429, "it knew another user of this name");
}

#[tokio::test]
async fn a_known_browser_is_not_locked_out_by_a_stranger() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let right = format!("/signin/ana/{}", escape(PASSWORD));
    let device = http.get(&right).await.cookie_named("vigia_device");
    lock_strangers_out(&stack, &http, "ana").await;
    assert_eq!(http.get(&right).await.status, 429, "the stranger, should it guess right");
    assert_eq!(http.with_cookie(&right, &device).await.status, 303);
    assert_eq!(http.get(&right).await.status, 429, "the owner's success is not the stranger's");

    // Its own guesses count, and it is known for one login only.
    let wrong = format!("/signin/ana/{}", escape(WRONG));
    for _ in 0..5 {
        assert_eq!(http.with_cookie(&wrong, &device).await.status, 401);
    }
    assert_eq!(http.with_cookie(&right, &device).await.status, 429);
    http.sign_up("bob").await;
    for _ in 0..5 {
        assert_eq!(guess(&http, "bob").await.status, 401);
    }
    let bob = format!("/signin/bob/{}", escape(PASSWORD));
    assert_eq!(http.with_cookie(&bob, &device).await.status, 429);
}

#[tokio::test]
async fn guesses_before_a_registration_do_not_lock_its_owner_out() {
    let stack = Stack::new().await;
    let (http, other) = (stack.client(Profile::Secure).await, stack.client(Profile::Secure).await);
    for _ in 0..6 {
        guess(&http, "ana").await;
    }
    set_failures(&stack, &only_throttle_key(&stack).await, 100, 1).await;
    assert_eq!(guess(&http, "ana").await.status, 429);
    assert_eq!(http.sign_up("ana").await.status, 201);
    http.sign_in("ana").await;
    other.sign_in("ana").await;
}

/// So from the first to the hundredth at most 100 in a row, and one more for each worker but the first.
#[tokio::test]
async fn each_worker_hashes_at_most_one_guess_too_many() {
    let stack = Stack::new().await;
    guess(&stack.client(Profile::Secure).await, "ana").await;
    let key = only_throttle_key(&stack).await;
    for count in [1, 40, 98, 99] {
        // All waits are over: the worst moment.
        set_failures(&stack, &key, count, 1000).await;
        let workers = join_all((0..3).map(|_| stack.worker(Profile::Secure))).await;
        let clients: Vec<_> = workers.iter().map(|worker| Http { app: app(worker.clone()) }).collect();
        let guesses = (0..300).map(|at| {
            let http = clients[at % 3].clone();
            async move { guess(&http, "ana").await.status.as_u16() }
        });
        let statuses = join_all(guesses).await;
        assert!(statuses.iter().all(|status| [401, 429, 503].contains(status)), "{statuses:?}");
        let spent: u64 = workers.iter().map(|worker| worker.hashes.evaluations()).sum();
        // After a few failures waits are seconds, and on a busy machine some of them pass during the test.
        let allowed = if count < 40 { 300 } else { 3 };
        assert!((1..=allowed).contains(&spent), "{spent} evaluations after {count} failures");
        let text = stack.read(&stack.data, &key).await;
        let now: serde_json::Value = serde_json::from_str(&text).expect("a count");
        let expected = (u64::from(count) + spent).min(100);
        assert_eq!(now["count"], expected, "every evaluation is counted");
    }
}

#[tokio::test]
async fn a_guess_counts_when_the_client_disconnects() {
    let stack = Stack::new().await;
    let worker = stack.worker(Profile::Secure).await;
    let http = Http { app: app(worker.clone()) };
    for _ in 0..5 {
        // Long enough to have begun, too short for a hash.
        drop(tokio::time::timeout(Duration::from_millis(1), guess(&http, "ana")).await);
        worker.attempts_are_over(Duration::from_secs(60)).await;
    }
    assert_eq!(guess(&http, "ana").await.status, 429);
}

/// A client of a worker behind a load balancer, from this address.
async fn behind_lb(stack: &Stack, peer: &str) -> Http {
    let proxies: TrustedProxies = "10.77.0.0/24".parse().expect("a network");
    let worker = stack.worker_behind(proxies).await;
    let peer = Peer(format!("{peer}:1").parse().expect("an address"));
    Http { app: app(worker).layer(Extension(peer)) }
}

#[tokio::test]
async fn failures_count_for_the_address_that_the_load_balancer_saw() {
    let stack = Stack::new().await;
    let http = behind_lb(&stack, "10.77.0.9").await;
    let try_from = async |left: usize, right: &str| {
        let forwarded = format!("6.6.{}.{}, {right}", left / 256, left % 256);
        // A login that none can have costs a hash, and no throttle object.
        http.with(Method::GET, "/signin/a%20b/zzyzxroad", &[("x-forwarded-for", &forwarded)]).await
    };
    let mut refused = None;
    for attempt in 0..110 {
        let reply = try_from(attempt, "192.0.2.7").await;
        if reply.status == 429 {
            refused = Some((attempt, reply));
            break;
        }
        assert_eq!(reply.status, 401, "{reply:?}");
    }
    let (attempt, reply) = refused.expect("refused in the end");
    assert!((100..=105).contains(&attempt), "after {attempt} failures");
    assert_eq!(reply.code().1, "too_many_requests");
    assert!((1..=10).contains(&reply.header("retry-after").parse::<u32>().expect("seconds")));
    assert_eq!(try_from(1, "192.0.2.8").await.status, 401, "another address");
}

#[tokio::test]
async fn sign_ups_of_one_address_are_limited() {
    let stack = Stack::new().await;
    let http = behind_lb(&stack, "10.77.0.9").await;
    let mut statuses = Vec::new();
    for user in 0..32 {
        let path = format!("/signup/user{user}/{}", escape(PASSWORD));
        let reply = http.with(Method::POST, &path, &[("x-forwarded-for", "192.0.2.7")]).await;
        statuses.push(reply.status.as_u16());
    }
    assert!(statuses[..30].iter().all(|status| *status == 201), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn direct_traffic_is_refused_but_for_the_health_check() {
    let stack = Stack::new().await;
    let http = behind_lb(&stack, "10.77.9.9").await;
    let forwarded = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")];
    for path in ["/", "/protected", "/checkamount", "/list", "/openapi.json", "/signin/ana/zzyzxroad"] {
        let reply = http.with(Method::GET, path, &forwarded).await;
        assert_eq!(reply.code(), (403, "direct_traffic".to_owned()), "{path}");
    }
    assert_eq!(http.post(&format!("/signup/ana/{}", escape(PASSWORD))).await.status, 403);
    assert!(stack.user_keys().await.is_empty());
    assert_eq!(http.get("/healthcheck").await.status, 200);
}

#[tokio::test]
async fn behind_tls_cookies_are_for_this_host_alone() {
    let stack = Stack::new().await;
    let http = behind_lb(&stack, "10.77.0.9").await;
    let tls = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")];
    http.with(Method::POST, &format!("/signup/ana/{}", escape(PASSWORD)), &tls).await;
    let reply = http.with(Method::GET, &format!("/signin/ana/{}", escape(PASSWORD)), &tls).await;
    let cookie = reply.cookie_named("__Host-vigia_session");
    for set in reply.headers.get_all("set-cookie") {
        let set = set.to_str().expect("ASCII");
        assert!(set.starts_with("__Host-") && set.contains("; Secure"), "{set}");
    }
    let status = async |scheme: &str, cookie: &str| {
        let headers = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", scheme), ("cookie", cookie)];
        http.with(Method::GET, "/protected", &headers).await.status.as_u16()
    };
    assert_eq!(status("https", &cookie).await, 200);
    assert_eq!(status("http", &cookie).await, 401, "never sent there by a browser");
    let renamed = cookie.replace("__Host-", "");
    assert_eq!(status("https", &renamed).await, 401);
    assert_eq!(status("http", &renamed).await, 401);
}
