//! What a failing S3 makes of our answers: never a lie about a user, never an open door.

use axum::http::{Method, Request};
use ec2_worker::{StartError, app};
use fleet::{Profile, keys};
use testing::client::s3;
use testing::proxy::{ALWAYS, Fault, Proxy};

use crate::support::{ADMIN_TOKEN, Http, PASSWORD, Reply, Stack, escape, registry, s3_endpoint};

const SLOW_DOWN: Fault = Fault::Answer(503, "SlowDown");
const DENIED: Fault = Fault::Answer(403, "AccessDenied");
const CONFLICT: Fault = Fault::Answer(409, "ConditionalRequestConflict");
const PROFILES: [Profile; 2] = [Profile::Secure, Profile::Classic];

/// A worker behind a proxy that can fail.
async fn broken_stack(profile: Profile) -> (Stack, Proxy, Http) {
    let stack = Stack::new().await;
    let proxy = Proxy::before(s3_endpoint()).await;
    let worker = stack.worker_through(&s3(&proxy.endpoint), profile).await.expect("the worker starts");
    (stack, proxy, Http { app: app(worker) })
}

/// The same with a user, and the cookie of her session.
async fn broken_stack_with_ana(profile: Profile) -> (Stack, Proxy, Http, String) {
    let (stack, proxy, http) = broken_stack(profile).await;
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    (stack, proxy, http, cookie)
}

#[tokio::test]
async fn a_lost_reply_is_a_success() {
    for profile in PROFILES {
        let (stack, proxy, http) = broken_stack(profile).await;
        proxy.fail(Method::PUT, "/users/ana", 1, Fault::LoseReply);
        let reply = http.sign_up("ana").await;
        assert_eq!(reply.status, 201, "the object is ours: {reply:?}");
        assert_eq!(proxy.count(&Method::PUT, "/users/ana"), 2, "it was sent again and refused by itself");
        http.sign_in("ana").await;
        assert_eq!(http.sign_up("ana").await.status, 409);
        assert_eq!(stack.user_keys().await, ["users/ana"]);
    }
}

#[tokio::test]
async fn all_replies_lost_is_a_success_if_the_object_exists() {
    let (_stack, proxy, http) = broken_stack(Profile::Secure).await;
    proxy.fail(Method::PUT, "/users/ana", ALWAYS, Fault::LoseReply);
    assert_eq!(http.sign_up("ana").await.status, 201);
    http.sign_in("ana").await;
}

#[tokio::test]
async fn all_requests_lost_is_an_outage() {
    let (stack, proxy, http) = broken_stack(Profile::Secure).await;
    proxy.fail(Method::PUT, "/users/ana", ALWAYS, Fault::LoseRequest);
    assert_eq!(http.sign_up("ana").await.code(), (503, "storage_unavailable".to_owned()));
    assert!(stack.user_keys().await.is_empty());
    proxy.heal();
    assert_eq!(http.sign_up("ana").await.status, 201, "and the login is not burnt");
}

#[tokio::test]
async fn a_lost_reply_does_not_take_another_users_login() {
    let (stack, proxy, http) = broken_stack(Profile::Secure).await;
    // The cheap check looks away; the write is what finds the other user.
    proxy.fail(Method::HEAD, "/users/ana", ALWAYS, Fault::Answer(404, ""));
    stack.client(Profile::Secure).await.sign_up("ana").await;
    let before = stack.read(&stack.data, "users/ana").await;
    assert_eq!(http.sign_up("ana").await.code(), (409, "taken".to_owned()));
    assert_eq!(stack.read(&stack.data, "users/ana").await, before);
}

#[tokio::test]
async fn a_write_under_way_is_tried_again() {
    let (_stack, proxy, http) = broken_stack(Profile::Secure).await;
    proxy.fail(Method::PUT, "/users/ana", 2, CONFLICT);
    assert_eq!(http.sign_up("ana").await.status, 201);
    assert_eq!(proxy.count(&Method::PUT, "/users/ana"), 3);
    proxy.fail(Method::PUT, "/users/bob", ALWAYS, CONFLICT);
    assert_eq!(http.sign_up("bob").await.status, 503, "bounded");
    assert!(proxy.count(&Method::PUT, "/users/bob") <= 4);
}

#[tokio::test]
async fn an_outage_is_never_an_answer_about_a_user() {
    for profile in PROFILES {
        let (stack, proxy, http, cookie) = broken_stack_with_ana(profile).await;
        for fault in [SLOW_DOWN, DENIED, Fault::LoseReply, Fault::Answer(404, "NoSuchBucket")] {
            for method in [Method::GET, Method::HEAD, Method::PUT] {
                proxy.fail(method, "/users/", ALWAYS, fault);
            }
            let signin = http.get(&format!("/signin/ana/{}", escape(PASSWORD))).await;
            let wrong = http.get("/signin/ana/correct%20house").await;
            let unknown = http.get(&format!("/signin/bob/{}", escape(PASSWORD))).await;
            let protected = http.with_cookie("/protected", &cookie).await;
            let signup = http.sign_up("carl").await;
            for (what, reply) in [
                ("sign-in", signin),
                ("wrong password", wrong),
                ("unknown login", unknown),
                ("protected page", protected),
                ("sign-up", signup),
            ] {
                assert_eq!(reply.code(), (503, "storage_unavailable".to_owned()), "{fault:?}: {what}");
                assert!(["1", "2", "3"].contains(&reply.header("retry-after")), "{reply:?}");
            }
            proxy.heal();
        }
        assert_eq!(http.with_cookie("/protected", &cookie).await.status, 200);
        // A lost reply to sign-up's look, not to its write: nothing was written.
        assert_eq!(stack.user_keys().await, ["users/ana"]);
    }
}

/// Tries each change of an account; returns the answers.
async fn change_account(http: &Http, cookie: &str) -> [Reply; 3] {
    let change = serde_json::json!({"current": PASSWORD, "new": "staple battery"});
    let proof = serde_json::json!({"password": PASSWORD});
    [
        with_body(http, Method::POST, "/password", cookie, change).await,
        http.with(Method::POST, "/signout/everywhere", &[("cookie", cookie)]).await,
        with_body(http, Method::DELETE, "/account", cookie, proof).await,
    ]
}

async fn with_body(http: &Http, method: Method, path: &str, cookie: &str, body: serde_json::Value) -> Reply {
    let request = Request::builder().method(method).uri(path).header("cookie", cookie);
    let request = request.header("content-type", "application/json").body(body.to_string().into());
    http.send(request.expect("a request")).await
}

#[tokio::test]
async fn a_new_password_whose_reply_was_lost_is_the_password() {
    let (stack, proxy, http, cookie) = broken_stack_with_ana(Profile::Secure).await;
    proxy.fail(Method::PUT, "/users/ana", 1, Fault::LoseReply);
    let change = serde_json::json!({"current": PASSWORD, "new": "staple battery"});
    let reply = with_body(&http, Method::POST, "/password", &cookie, change.clone()).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    assert_eq!(http.get("/signin/ana/staple%20battery").await.status, 303);
    // All replies lost: it is there, so it is done.
    let cookie = http.get("/signin/ana/staple%20battery").await.cookie();
    proxy.fail(Method::PUT, "/users/ana", ALWAYS, Fault::LoseReply);
    let back = serde_json::json!({"current": "staple battery", "new": PASSWORD});
    assert_eq!(with_body(&http, Method::POST, "/password", &cookie, back).await.status, 204);
    proxy.heal();
    let cookie = http.sign_in("ana").await;
    // Nothing arrives: it is not done, and not said to be.
    proxy.fail(Method::PUT, "/users/ana", ALWAYS, Fault::LoseRequest);
    assert_eq!(with_body(&http, Method::POST, "/password", &cookie, change).await.status, 503);
    proxy.heal();
    http.sign_in("ana").await;
    assert_eq!(stack.user_keys().await, ["users/ana"]);
}

#[tokio::test]
async fn a_deletion_whose_reply_was_lost_is_done() {
    let (stack, proxy, http, cookie) = broken_stack_with_ana(Profile::Secure).await;
    proxy.fail(Method::DELETE, "/users/ana", 1, Fault::LoseReply);
    let proof = serde_json::json!({"password": PASSWORD});
    assert_eq!(with_body(&http, Method::DELETE, "/account", &cookie, proof).await.status, 204);
    assert!(stack.user_keys().await.is_empty());
}

#[tokio::test]
async fn a_failed_sign_out_does_not_report_success() {
    let (_stack, proxy, http, cookie) = broken_stack_with_ana(Profile::Secure).await;
    proxy.fail(Method::PUT, "/revoked/", ALWAYS, SLOW_DOWN);
    let reply = http.with(Method::POST, "/signout", &[("cookie", &cookie)]).await;
    assert_eq!(reply.code(), (503, "storage_unavailable".to_owned()));
    assert_eq!(reply.header("set-cookie"), "", "the browser keeps its good cookie");
    proxy.heal();
    assert_eq!(http.with_cookie("/protected", &cookie).await.status, 200);
    assert_eq!(http.with(Method::POST, "/signout", &[("cookie", &cookie)]).await.status, 204);
}

#[tokio::test]
async fn signing_out_is_not_done_while_another_write_is_under_way() {
    let (stack, proxy, http, cookie) = broken_stack_with_ana(Profile::Secure).await;
    proxy.fail(Method::PUT, "/revoked/", ALWAYS, CONFLICT);
    let reply = http.with(Method::POST, "/signout", &[("cookie", &cookie)]).await;
    assert_eq!(reply.code(), (503, "storage_busy".to_owned()));
    assert!(["1", "2", "3"].contains(&reply.header("retry-after")), "{reply:?}");
    assert!(stack.keys("revoked/").await.is_empty());
    assert_eq!(
        http.with_cookie("/protected", &cookie).await.status,
        200,
        "it has not ended, and none says so"
    );
    proxy.heal();
    proxy.fail(Method::PUT, "/revoked/", 1, CONFLICT);
    assert_eq!(http.with(Method::POST, "/signout", &[("cookie", &cookie)]).await.status, 204, "tried again");
    assert_eq!(stack.keys("revoked/").await.len(), 1);
    assert_eq!(stack.client(Profile::Secure).await.with_cookie("/protected", &cookie).await.status, 401);
}

#[tokio::test]
async fn the_operators_sign_out_is_not_done_either() {
    let (stack, proxy, http) = broken_stack(Profile::Secure).await;
    let form = "application/x-www-form-urlencoded";
    let reply = http.post_body("/admin/signin", form, format!("token={ADMIN_TOKEN}")).await;
    let cookie = reply.cookie_named("vigia_admin");
    proxy.fail(Method::PUT, "/revoked/", ALWAYS, CONFLICT);
    let reply = http.with(Method::POST, "/admin/signout", &[("cookie", &cookie)]).await;
    assert_eq!(reply.code(), (503, "storage_busy".to_owned()));
    assert!(stack.keys("revoked/").await.is_empty());
}

#[tokio::test]
async fn changes_that_meet_another_write_are_not_done() {
    let (stack, proxy, http, cookie) = broken_stack_with_ana(Profile::Secure).await;
    let before = stack.read(&stack.data, "users/ana").await;
    proxy.fail(Method::PUT, "/users/ana", ALWAYS, CONFLICT);
    proxy.fail(Method::DELETE, "/users/ana", ALWAYS, CONFLICT);
    for reply in change_account(&http, &cookie).await {
        assert_eq!(reply.code(), (503, "storage_busy".to_owned()));
    }
    assert_eq!(stack.read(&stack.data, "users/ana").await, before);
    assert_eq!(http.with_cookie("/protected", &cookie).await.status, 200);
}

#[tokio::test]
async fn each_lost_race_names_what_was_not_done() {
    let (_stack, proxy, http, cookie) = broken_stack_with_ana(Profile::Secure).await;
    let changed = Fault::Answer(412, "PreconditionFailed");
    proxy.fail(Method::PUT, "/users/ana", ALWAYS, changed);
    proxy.fail(Method::DELETE, "/users/ana", ALWAYS, changed);
    let lost = ["your password was not changed", "your sessions were not ended", "it was not deleted"];
    for (reply, lost) in change_account(&http, &cookie).await.into_iter().zip(lost) {
        assert_eq!(reply.code(), (409, "lost_race".to_owned()));
        assert!(reply.body.contains(&format!("this account at the same moment, so {lost};")), "{reply:?}");
    }
}

#[tokio::test]
async fn a_sign_in_that_meets_another_write_is_kept() {
    let (stack, proxy, http) = broken_stack(Profile::Secure).await;
    http.sign_up("ana").await;
    proxy.fail(Method::PUT, "/users/ana", 1, CONFLICT);
    http.sign_in("ana").await;
    let record: serde_json::Value =
        serde_json::from_str(&stack.read(&stack.data, "users/ana").await).expect("JSON");
    assert_eq!(record["sign_ins"].as_array().map(Vec::len), Some(1), "{record}");
}

#[tokio::test]
async fn a_session_is_refused_while_its_end_is_unknown() {
    let (_stack, proxy, http, cookie) = broken_stack_with_ana(Profile::Secure).await;
    proxy.fail(Method::HEAD, "/revoked/", ALWAYS, DENIED);
    assert_eq!(http.with_cookie("/protected", &cookie).await.code().0, 503);
}

#[tokio::test]
async fn no_password_is_hashed_without_the_failure_count() {
    let stack = Stack::new().await;
    let proxy = Proxy::before(s3_endpoint()).await;
    let worker =
        stack.worker_through(&s3(&proxy.endpoint), Profile::Secure).await.expect("the worker starts");
    let http = Http { app: app(worker.clone()) };
    proxy.fail(Method::GET, "/throttle/", ALWAYS, SLOW_DOWN);
    assert_eq!(http.get("/signin/ana/wrong%20horse").await.code(), (503, "storage_unavailable".to_owned()));
    assert_eq!(worker.hashes.evaluations(), 0);
    // A count that cannot be written is kept by this worker, and one whose reply was lost counts once.
    proxy.heal();
    proxy.fail(Method::PUT, "/throttle/", ALWAYS, SLOW_DOWN);
    for _ in 0..4 {
        assert_eq!(http.get("/signin/ana/wrong%20horse").await.status, 401);
    }
    proxy.heal();
    proxy.fail(Method::PUT, "/throttle/", 1, Fault::LoseReply);
    assert_eq!(http.get("/signin/ana/wrong%20horse").await.status, 401);
    let refused = http.get("/signin/ana/wrong%20horse").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"), "five, not four or six");
    assert_eq!(worker.hashes.evaluations(), 5);
}

#[tokio::test]
async fn a_failure_that_meets_another_write_is_counted() {
    let (_stack, proxy, http) = broken_stack(Profile::Secure).await;
    proxy.fail(Method::PUT, "/throttle/", 1, CONFLICT);
    for _ in 0..5 {
        assert_eq!(http.get("/signin/ana/wrong%20horse").await.status, 401);
    }
    assert_eq!(http.get("/signin/ana/wrong%20horse").await.status, 429, "five, not four");
}

#[tokio::test]
async fn one_failed_try_is_invisible_to_the_client() {
    let (_stack, proxy, http) = broken_stack(Profile::Secure).await;
    for method in [Method::HEAD, Method::PUT, Method::GET] {
        proxy.fail(method, "/users/ana", 1, SLOW_DOWN);
    }
    assert_eq!(http.sign_up("ana").await.status, 201);
    http.sign_in("ana").await;
}

#[tokio::test]
async fn an_amount_that_cannot_be_read_is_503() {
    let stack = Stack::new().await;
    let proxy = Proxy::before(s3_endpoint()).await;
    let worker = stack.worker_through(&s3(&proxy.endpoint), Profile::Classic).await.expect("it starts");
    let http = Http { app: app(worker.clone()) };
    stack.write(keys::DESIRED_COUNT, "3").await;
    stack.write(keys::REGISTRY, &registry(2, None)).await;
    for (key, fault) in
        [("/desired-count", DENIED), ("/desired-count", SLOW_DOWN), ("/registry.json", SLOW_DOWN)]
    {
        proxy.fail(Method::GET, key, ALWAYS, fault);
        // As if a second had passed.
        worker.desired_counts.forget();
        assert_eq!(http.get("/checkamount").await.code(), (503, "storage_unavailable".to_owned()), "{key}");
        proxy.heal();
    }
    stack.write(keys::REGISTRY, "{}").await;
    worker.desired_counts.forget();
    assert_eq!(http.get("/checkamount").await.code(), (503, "no_desired_count".to_owned()));
}

#[tokio::test]
async fn setting_the_amount_tells_its_own_lost_reply_from_a_lost_race() {
    let (stack, proxy, http) = broken_stack(Profile::Classic).await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    proxy.fail(Method::PUT, "/desired-count", 1, Fault::LoseReply);
    let reply = http.get("/setamount/5").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, r#"{"desired":5,"previous":3}"#));
    for refusal in [CONFLICT, Fault::Answer(412, "PreconditionFailed")] {
        proxy.fail(Method::PUT, "/desired-count", 1, refusal);
        let reply = http.get("/setamount/6").await;
        assert_eq!(reply.code(), (409, "lost_race".to_owned()), "{refusal:?}");
        assert!(reply.body.contains("the desired count"), "{reply:?}");
        assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "5");
    }
    proxy.fail(Method::PUT, "/desired-count", ALWAYS, SLOW_DOWN);
    assert_eq!(http.get("/setamount/6").await.code(), (503, "storage_unavailable".to_owned()));
}

#[tokio::test]
async fn a_list_that_fails_at_once_is_503() {
    let (_stack, proxy, http) = broken_stack(Profile::Classic).await;
    http.sign_up("ana").await;
    proxy.fail(Method::GET, "list-type=2", ALWAYS, DENIED);
    assert_eq!(http.get("/list").await.code(), (503, "storage_unavailable".to_owned()));
    proxy.heal();
    proxy.fail(Method::GET, "/users/ana", ALWAYS, DENIED);
    assert_eq!(http.get("/list").await.code(), (503, "storage_unavailable".to_owned()));
}

#[tokio::test]
async fn a_list_that_fails_midway_is_a_broken_transfer() {
    let (stack, proxy, _http) = broken_stack(Profile::Classic).await;
    for n in 0..40 {
        stack.write_user(&format!("users/u{n:02}"), "pw").await;
    }
    proxy.fail(Method::GET, "/users/u30", ALWAYS, DENIED);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/list", listener.local_addr().expect("an address"));
    let config = stack.config(Profile::Classic);
    let worker = stack.worker_through(&s3(&proxy.endpoint), Profile::Classic).await.expect("starts");
    let client = async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let reply = client.get(&url).send().await.expect("the head comes");
        assert_eq!(reply.status(), 200);
        reply.bytes().await.expect_err("half a list is not a list")
    };
    tokio::select! {
        _ = ec2_worker::run(&config, worker, listener, std::future::pending()) => unreachable!("never stops"),
        error = client => drop(error),
    }
}

#[tokio::test]
async fn a_user_deleted_while_listing_is_left_out() {
    let (_stack, proxy, http) = broken_stack(Profile::Classic).await;
    for login in ["ana", "bob", "carl"] {
        http.sign_up(login).await;
    }
    proxy.fail(Method::GET, "/users/bob", ALWAYS, Fault::Answer(404, "NoSuchKey"));
    let rows = http.get("/list").await.json();
    let logins: Vec<_> = rows.as_array().expect("an array").iter().map(|row| row["login"].clone()).collect();
    assert_eq!(logins, ["ana", "carl"]);
}

#[tokio::test]
async fn the_profiles_never_share_a_bucket() {
    for (first, second) in [(Profile::Secure, Profile::Classic), (Profile::Classic, Profile::Secure)] {
        let stack = Stack::new().await;
        stack.worker(first).await;
        stack.worker(first).await;
        let error = stack.worker_through(&stack.s3, second).await.err().expect("refused");
        assert!(matches!(error, StartError::OtherProfile { .. }), "{error}");
        assert_eq!(error.exit_code(), 65);
        assert_eq!(stack.read(&stack.data, keys::PROFILE_MARKER).await, first.as_str());
    }
}

#[tokio::test]
async fn no_worker_starts_during_a_migration() {
    for profile in PROFILES {
        let stack = Stack::new().await;
        stack.write_user(keys::PROFILE_MARKER, keys::MIGRATING).await;
        let error = stack.worker_through(&stack.s3, profile).await.err().expect("it does not start");
        assert!(matches!(error, StartError::Migrating), "{error}");
        assert_eq!(error.exit_code(), 65);
    }
}

#[tokio::test]
async fn starting_survives_a_passing_outage() {
    let stack = Stack::new().await;
    let proxy = Proxy::before(s3_endpoint()).await;
    // More than one call's own retries, as with a role that does not work yet.
    proxy.fail(Method::PUT, "/meta/profile", 2, DENIED);
    proxy.fail(Method::GET, "/secrets/", 2, DENIED);
    assert!(stack.worker_through(&s3(&proxy.endpoint), Profile::Secure).await.is_ok());
    assert!(proxy.count(&Method::PUT, "/meta/profile") >= 3);
}

#[tokio::test]
async fn a_worker_without_good_secrets_does_not_start() {
    let stack = Stack::new().await;
    stack.write(keys::SESSION_KEYS, "{}").await;
    let error = stack.worker_through(&stack.s3, Profile::Secure).await.err().expect("refused");
    assert_eq!(error.exit_code(), 78, "{error}");
    for profile in PROFILES {
        let stack = Stack::new().await;
        stack.delete(&stack.control, keys::SESSION_KEYS).await;
        let error = stack.worker_through(&stack.s3, profile).await.err().expect("refused");
        assert_eq!(error.exit_code(), 78, "{error}");
    }
}

#[tokio::test]
async fn a_bad_token_hash_closes_the_admin_interface_alone() {
    let stack = Stack::new().await;
    let worker = stack.worker(Profile::Secure).await;
    let http = Http { app: app(worker.clone()) };
    assert_eq!(http.as_admin("/list").await.status, 200);
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    // The token has leaked, and its replacement is written wrongly.
    stack.write(keys::ADMIN_TOKEN_HASH, "t0ken").await;
    let mut slot = worker.secrets_slot().subscribe();
    slot.mark_unchanged();
    let (control, every) = (worker.control.clone(), std::time::Duration::from_millis(1));
    tokio::select! {
        () = ec2_worker::secrets::keep_fresh(control, worker.profile, every, worker.secrets_slot()) => unreachable!(),
        changed = slot.changed() => changed.expect("the worker is there"),
    }
    for http in [&http, &stack.client(Profile::Secure).await] {
        for path in ["/list", "/admin/fleet", "/setamount/3"] {
            assert_eq!(http.as_admin(path).await.code(), (503, "admin_unreadable".to_owned()), "{path}");
        }
        let form = "application/x-www-form-urlencoded";
        let reply = http.post_body("/admin/signin", form, format!("token={ADMIN_TOKEN}")).await;
        assert_eq!(reply.code(), (503, "admin_unreadable".to_owned()));
        assert_eq!(http.with_cookie("/protected", &cookie).await.status, 200, "users are not affected");
    }
}

#[tokio::test]
async fn good_secrets_stay_in_force_when_they_cannot_be_read_again() {
    let (stack, proxy, _http) = broken_stack(Profile::Secure).await;
    let worker = stack.worker_through(&s3(&proxy.endpoint), Profile::Secure).await.expect("starts");
    let http = Http { app: app(worker.clone()) };
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    proxy.fail(Method::GET, "/secrets/", ALWAYS, DENIED);
    let before = proxy.count(&Method::GET, "/secrets/session-keys.json");
    let refresh = ec2_worker::secrets::keep_fresh(
        worker.control.clone(),
        worker.profile,
        std::time::Duration::from_millis(1),
        worker.secrets_slot(),
    );
    let failed_twice = async {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while proxy.count(&Method::GET, "/secrets/session-keys.json") < before + 3 {
            assert!(tokio::time::Instant::now() < deadline, "the secrets are not read again");
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = refresh => unreachable!("it never ends"),
        () = failed_twice => {}
    }
    assert_eq!(http.with_cookie("/protected", &cookie).await.status, 200);
    assert_eq!(http.as_admin("/list").await.status, 200);
}
