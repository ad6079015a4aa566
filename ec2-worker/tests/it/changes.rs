//! A new password, signing out, deleting the account, and what becomes of sessions.

use axum::body::Body;
use axum::http::{Method, Request};
use ec2_worker::app;
use fleet::Profile;
use futures::future::join_all;

use crate::support::{Http, PASSWORD, Reply, Stack, escape, key_ring};

const NEW: &str = "staple battery";

async fn send(http: &Http, method: Method, path: &str, cookie: &str, body: serde_json::Value) -> Reply {
    let request = Request::builder().method(method).uri(path).header("cookie", cookie);
    let request = match body {
        serde_json::Value::Null => request.body(Body::empty()),
        body => request.header("content-type", "application/json").body(body.to_string().into()),
    };
    http.send(request.expect("a request")).await
}

async fn change(http: &Http, cookie: &str, current: &str, new: &str) -> Reply {
    let body = serde_json::json!({"current": current, "new": new});
    send(http, Method::POST, "/password", cookie, body).await
}

async fn page(http: &Http, cookie: &str) -> u16 {
    http.with_cookie("/protected", cookie).await.status.as_u16()
}

async fn signs_in(http: &Http, login: &str, password: &str) -> u16 {
    http.get(&format!("/signin/{login}/{}", escape(password))).await.status.as_u16()
}

#[tokio::test]
async fn a_new_password_ends_all_sessions_but_this_one() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let (here, elsewhere) = (http.sign_in("ana").await, http.sign_in("ana").await);
    let reply = change(&http, &here, PASSWORD, NEW).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    assert_eq!(page(&http, &reply.cookie()).await, 200);
    assert_eq!((page(&http, &here).await, page(&http, &elsewhere).await), (401, 401));
    // A worker that has not seen the sessions asks S3.
    let other = stack.client(Profile::Secure).await;
    assert_eq!((page(&other, &reply.cookie()).await, page(&other, &elsewhere).await), (200, 401));
    assert_eq!((signs_in(&http, "ana", PASSWORD).await, signs_in(&http, "ana", NEW).await), (401, 303));
}

#[tokio::test]
async fn a_stolen_cookie_does_not_live_on_the_new_one() {
    let stack = Stack::new().await;
    let workers = join_all((0..3).map(|_| stack.client(Profile::Secure))).await;
    workers[0].sign_up("ana").await;
    let stolen = workers[0].sign_in("ana").await;
    let new = change(&workers[0], &stolen, PASSWORD, NEW).await.cookie();
    for http in &workers {
        // The owner is first: what a worker believes of the new cookie is not about the old one.
        assert_eq!((page(http, &new).await, page(http, &stolen).await), (200, 401));
    }
    for http in &workers {
        let out = send(http, Method::POST, "/signout", &stolen, serde_json::Value::Null).await;
        assert_eq!(
            (out.status.as_u16(), page(http, &new).await),
            (401, 200),
            "it ends nothing of the owner's"
        );
    }
}

#[tokio::test]
async fn a_thief_who_signs_out_does_not_end_the_new_session() {
    let stack = Stack::new().await;
    let (here, there) = (stack.client(Profile::Secure).await, stack.client(Profile::Secure).await);
    here.sign_up("ana").await;
    let stolen = here.sign_in("ana").await;
    assert_eq!(page(&there, &stolen).await, 200, "that worker believes in it for some seconds");
    let new = change(&here, &stolen, PASSWORD, NEW).await.cookie();
    let out = send(&there, Method::POST, "/signout", &stolen, serde_json::Value::Null).await;
    assert_eq!(out.status, 204, "in time to sign out");
    for http in [&here, &there, &stack.client(Profile::Secure).await] {
        assert_eq!((page(http, &new).await, page(http, &stolen).await), (200, 401));
    }
}

#[tokio::test]
async fn a_new_password_needs_the_current_one_and_obeys_the_rules() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    assert_eq!(change(&http, &cookie, "wrong horse", NEW).await.code(), (403, "wrong_password".to_owned()));
    assert_eq!(change(&http, &cookie, PASSWORD, "short").await.code(), (422, "password_refused".to_owned()));
    assert_eq!(change(&http, "", PASSWORD, NEW).await.code(), (401, "signed_out".to_owned()));
    for body in [serde_json::json!({"current": PASSWORD}), serde_json::json!({"new": NEW, "current": 1})] {
        assert_eq!(send(&http, Method::POST, "/password", &cookie, body).await.status, 400);
    }
    let foreign = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(http.with(Method::POST, "/password", &foreign).await.code().0, 403);
    assert_eq!(signs_in(&http, "ana", PASSWORD).await, 303);
    // Guessing with a stolen cookie is throttled like guessing at the door.
    for _ in 0..4 {
        assert_eq!(change(&http, &cookie, "wrong horse", NEW).await.status, 403);
    }
    assert_eq!(change(&http, &cookie, PASSWORD, NEW).await.status, 429);
    assert_eq!(signs_in(&http, "ana", PASSWORD).await, 303, "the door is open");
}

#[tokio::test]
async fn a_thief_does_not_lock_the_owner_out_of_a_change() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let stolen = http.sign_in("ana").await;
    for _ in 0..5 {
        assert_eq!(change(&http, &stolen, "wrong horse", NEW).await.status, 403);
    }
    assert_eq!(change(&http, &stolen, PASSWORD, NEW).await.status, 429);
    let proof = serde_json::json!({"password": PASSWORD});
    assert_eq!(
        send(&http, Method::DELETE, "/account", &stolen, proof).await.status,
        429,
        "one count for both"
    );
    let own = http.sign_in("ana").await;
    let changed = change(&http, &own, PASSWORD, NEW).await;
    assert_eq!(changed.status, 204, "{changed:?}");
    // The session that goes on has a count of its own as well.
    assert_eq!(change(&http, &changed.cookie(), NEW, PASSWORD).await.status, 204);
}

#[tokio::test]
async fn one_of_sixty_four_concurrent_changes_succeeds() {
    let stack = Stack::new().await;
    let workers = join_all((0..3).map(|_| stack.client(Profile::Secure))).await;
    workers[0].sign_up("ana").await;
    let cookie = workers[0].sign_in("ana").await;
    let changes = (0..64).map(|at| {
        let (http, cookie) = (workers[at % 3].clone(), cookie.clone());
        async move { (at, change(&http, &cookie, PASSWORD, &format!("new password {at}")).await) }
    });
    let replies = join_all(changes).await;
    let winners: Vec<_> = replies.iter().filter(|(_, reply)| reply.status == 204).collect();
    assert_eq!(winners.len(), 1, "{replies:#?}");
    for (_, reply) in &replies {
        assert!([204, 401, 403, 409].contains(&reply.status.as_u16()), "{reply:?}");
    }
    let winner = winners[0].0;
    for http in &workers {
        assert_eq!(signs_in(http, "ana", &format!("new password {winner}")).await, 303);
    }
    assert_eq!(signs_in(&workers[1], "ana", PASSWORD).await, 401);
}

#[tokio::test]
async fn signing_out_ends_the_session_on_every_worker() {
    for profile in [Profile::Secure, Profile::Classic] {
        let stack = Stack::new().await;
        let http = stack.client(profile).await;
        http.sign_up("ana").await;
        let (cookie, other) = (http.sign_in("ana").await, http.sign_in("ana").await);
        assert_eq!(page(&http, &cookie).await, 200);
        let reply = send(&http, Method::POST, "/signout", &cookie, serde_json::Value::Null).await;
        assert_eq!(reply.status, 204);
        assert!(reply.header("set-cookie").contains("Max-Age=0"));
        assert_eq!(reply.header("clear-site-data"), "\"cache\", \"storage\"");
        assert_eq!(page(&http, &cookie).await, 401);
        assert_eq!(page(&stack.client(profile).await, &cookie).await, 401);
        assert_eq!(page(&http, &other).await, 200, "another session of the user goes on");
        let again = send(&http, Method::POST, "/signout", &cookie, serde_json::Value::Null).await;
        assert_eq!(again.code(), (401, "signed_out".to_owned()));
    }
}

#[tokio::test]
async fn all_workers_learn_of_an_ended_session_in_fifteen_seconds() {
    let stack = Stack::new().await;
    let (here, there) = (stack.client(Profile::Secure).await, stack.client(Profile::Secure).await);
    here.sign_up("ana").await;
    let (one, two) = (here.sign_in("ana").await, here.sign_in("ana").await);
    assert_eq!((page(&there, &one).await, page(&there, &two).await), (200, 200));
    send(&here, Method::POST, "/signout", &one, serde_json::Value::Null).await;
    change(&here, &two, PASSWORD, NEW).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
    loop {
        let pages = (page(&there, &one).await, page(&there, &two).await);
        if pages == (401, 401) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{pages:?} after 15 s");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn signing_in_again_ends_the_session_before() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let before = http.sign_in("ana").await;
    let again = format!("/signin/ana/{}", escape(PASSWORD));
    let wrong = http.with_cookie("/signin/ana/wrong%20horse", &before).await;
    assert_eq!((wrong.status.as_u16(), page(&http, &before).await), (401, 200), "a failure ends nothing");
    let reply = http.with_cookie(&again, &before).await;
    assert_eq!((page(&http, &before).await, page(&http, &reply.cookie()).await), (401, 200));
}

#[tokio::test]
async fn signing_out_everywhere_ends_all_of_them() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let (one, two) = (http.sign_in("ana").await, http.sign_in("ana").await);
    assert_eq!((page(&http, &one).await, page(&http, &two).await), (200, 200));
    let reply = send(&http, Method::POST, "/signout/everywhere", &one, serde_json::Value::Null).await;
    assert_eq!(reply.status, 204);
    assert_eq!((page(&http, &one).await, page(&http, &two).await), (401, 401));
    assert_eq!(page(&stack.client(Profile::Secure).await, &two).await, 401);
    let new = http.sign_in("ana").await;
    assert_eq!(page(&http, &new).await, 200);
}

#[tokio::test]
async fn a_deleted_account_loses_its_sessions_and_frees_its_login() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let (one, two) = (http.sign_in("ana").await, http.sign_in("ana").await);
    let wrong = serde_json::json!({"password": "wrong horse"});
    let reply = send(&http, Method::DELETE, "/account", &one, wrong).await;
    assert_eq!(reply.code(), (403, "wrong_password".to_owned()));
    let right = serde_json::json!({"password": PASSWORD});
    let reply = send(&http, Method::DELETE, "/account", &one, right).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    assert!(stack.user_keys().await.is_empty());
    assert_eq!((page(&http, &one).await, page(&http, &two).await), (401, 401));
    assert_eq!(http.sign_up("ana").await.status, 201);
    assert_eq!((page(&http, &one).await, page(&http, &two).await), (401, 401), "of another user");
    let reply = send(&http, Method::DELETE, "/account", &two, serde_json::Value::Null).await;
    assert_eq!(reply.status, 401);
    assert_eq!(stack.user_keys().await, ["users/ana"]);
}

#[tokio::test]
async fn only_a_fresh_session_deletes_without_a_password() {
    let stack = Stack::new().await;
    let worker = stack.worker(Profile::Secure).await;
    let http = Http { app: app(worker.clone()) };
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    let old = aged(&worker, &cookie, 6);
    let reply = send(&http, Method::DELETE, "/account", &old, serde_json::Value::Null).await;
    assert_eq!(reply.code(), (403, "password_needed".to_owned()));
    assert_eq!(send(&http, Method::DELETE, "/account", &cookie, serde_json::Value::Null).await.status, 204);
}

/// The same session as if it had begun so many minutes earlier.
fn aged(worker: &ec2_worker::Worker, cookie: &str, minutes: i64) -> String {
    use axum::http::header::{COOKIE, SET_COOKIE};
    use axum::http::{HeaderMap, HeaderValue};
    use axum::response::IntoResponse as _;
    use ec2_worker::client::Transport;
    use ec2_worker::session::Session;

    let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookie).expect("a value"))]);
    let secrets = worker.secrets();
    let ring = secrets.ring().expect("fresh");
    let now = jiff::Timestamp::now();
    let session = Session::open(ring, &headers, Transport::Plain, worker.profile, now).expect("a session");
    let older = Session { iat: session.iat - jiff::SignedDuration::from_mins(minutes), ..session };
    let response = older.seal(ring, Transport::Plain).into_response();
    let set = response.headers()[SET_COOKIE].to_str().expect("ASCII");
    set.split(';').next().expect("name=value").to_owned()
}

#[tokio::test]
async fn classic_has_no_more_than_the_original() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    let refused = (403, "secure_only".to_owned());
    assert_eq!(change(&http, &cookie, PASSWORD, NEW).await.code(), refused);
    for (method, path) in [(Method::POST, "/signout/everywhere"), (Method::DELETE, "/account")] {
        assert_eq!(send(&http, method, path, &cookie, serde_json::Value::Null).await.code(), refused);
    }
    assert_eq!(stack.read(&stack.data, "users/ana").await, PASSWORD);
}

#[tokio::test]
async fn a_sign_in_rehashes_a_dated_record_and_is_recorded() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let text = stack.read(&stack.data, "users/ana").await;
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let cost: accounts::Cost = "m=7168,t=5,p=1".parse().expect("a cost");
    let dated = accounts::phc::hash(&mut accounts::Arena::new(&cost), &cost, PASSWORD.as_bytes());
    record["phc"] = dated.clone().into();
    stack.write_user("users/ana", &record.to_string()).await;
    assert_eq!(signs_in(&http, "ana", "wrong horse").await, 401);
    let unchanged = stack.read(&stack.data, "users/ana").await;
    assert!(unchanged.contains(&dated), "a wrong password changes nothing");
    let cookie = http.sign_in("ana").await;
    let text = stack.read(&stack.data, "users/ana").await;
    let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(record["phc"].as_str().is_some_and(|phc| phc.contains("m=19456,t=2,p=1")), "{text}");
    assert_eq!(record["sign_ins"].as_array().map(Vec::len), Some(1), "{text}");
    assert_eq!(page(&http, &cookie).await, 200, "no session ends for that");
    http.sign_in("ana").await;
    assert_eq!(stack.read(&stack.data, "users/ana").await, text, "one within a minute is enough");
}

#[tokio::test]
async fn rotating_keys_signs_no_user_out() {
    let stack = Stack::new().await;
    let worker = stack.worker(Profile::Secure).await;
    let http = Http { app: app(worker.clone()) };
    http.sign_up("ana").await;
    let mut cookies = vec![http.sign_in("ana").await];
    let stages: [(&str, &[&str]); 4] =
        [("k1", &["k1", "k2"]), ("k2", &["k1", "k2"]), ("k2", &["k2", "k3"]), ("k3", &["k2", "k3"])];
    for (at, (active, kids)) in stages.into_iter().enumerate() {
        stack.write(fleet::keys::SESSION_KEYS, &key_ring(active, kids)).await;
        let fetched =
            ec2_worker::secrets::fetch(&worker.control, worker.profile).await.expect("good secrets");
        worker.secrets_slot().send_replace(fetched.into());
        cookies.push(http.sign_in("ana").await);
        // The first key is dropped in the third stage, when sessions sealed with it are over.
        let alive = if at >= 2 { &cookies[2..] } else { &cookies[..] };
        for cookie in alive {
            assert_eq!(page(&http, cookie).await, 200, "stage {at}");
        }
    }
}
