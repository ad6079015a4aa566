//! The session cookie and the protected page.

use std::time::Duration;

use axum::http::Method;
use ec2_worker::{app, secrets};
use fleet::{Profile, keys};

use crate::support::{Http, PASSWORD, Stack, WORKER, escape, key_ring};

#[tokio::test]
async fn the_protected_page_names_user_worker_and_age() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    let json = http.with_cookie("/protected", &cookie).await;
    assert_eq!(json.status, 200);
    assert_eq!((&json.json()["login"], &json.json()["worker"]), (&"ana".into(), &WORKER.into()));
    let page = http.with(Method::GET, "/protected", &[("cookie", &cookie), ("accept", "text/html")]).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.body.contains("ana") && page.body.contains(WORKER), "{page:?}");
}

#[tokio::test]
async fn the_cookie_has_the_attributes_that_protect_it() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let reply = http.get(&format!("/signin/ana/{}", escape(PASSWORD))).await;
    let set = reply.header("set-cookie");
    assert!(set.starts_with("vigia_session="), "{set}");
    for attribute in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Domain") && !set.contains("Max-Age") && !set.contains("Expires"), "{set}");
}

#[tokio::test]
async fn a_request_without_a_session_gets_no_page() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let refused = (401, "signed_out".to_owned());
    assert_eq!(http.get("/protected").await.code(), refused);
    assert_eq!(http.with_cookie("/protected", "vigia_session=x").await.code(), refused);
    let reply = http.with(Method::GET, "/protected", &[("accept", "text/html")]).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "/"));
}

#[tokio::test]
async fn a_changed_cookie_is_refused() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    let start = "vigia_session=".len();
    for at in (start..cookie.len()).step_by(7) {
        let mut changed = cookie.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert_eq!(http.with_cookie("/protected", &changed).await.status, 401, "byte {at}");
    }
    assert_eq!(http.with_cookie("/protected", &cookie).await.status, 200);
}

#[tokio::test]
async fn any_worker_of_the_stack_opens_a_session_and_no_other_stack() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    assert_eq!(stack.client(Profile::Secure).await.with_cookie("/protected", &cookie).await.status, 200);
    let other = Stack::new().await;
    other.write(keys::SESSION_KEYS, &key_ring("k9", &["k9"])).await;
    assert_eq!(other.client(Profile::Secure).await.with_cookie("/protected", &cookie).await.status, 401);
}

#[tokio::test]
async fn a_session_does_not_survive_its_user() {
    for profile in [Profile::Secure, Profile::Classic] {
        let stack = Stack::new().await;
        let http = stack.client(profile).await;
        http.sign_up("ana").await;
        let cookie = http.sign_in("ana").await;
        stack.delete(&stack.data, "users/ana").await;
        assert_eq!(http.with_cookie("/protected", &cookie).await.status, 401, "deleted");
        assert_eq!(http.sign_up("ana").await.status, 201);
        assert_eq!(
            http.with_cookie("/protected", &cookie).await.status,
            401,
            "another user has registered it"
        );
        let cookie = http.sign_in("ana").await;
        assert_eq!(http.with_cookie("/protected", &cookie).await.status, 200);
    }
}

#[tokio::test]
async fn signing_out_makes_the_browser_forget() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let reply = http.post("/signout").await;
    assert_eq!(reply.code(), (401, "signed_out".to_owned()), "there was none");
    let set = reply.header("set-cookie");
    assert!(
        set.starts_with("vigia_session=;") && set.contains("Max-Age=0") && set.contains("Path=/"),
        "{set}"
    );
    let reply = http.with(Method::POST, "/signout", &[("accept", "text/html")]).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "/"));
}

#[tokio::test]
async fn keys_rotate_without_ending_sessions() {
    let stack = Stack::new().await;
    let worker = stack.worker(Profile::Secure).await;
    let http = Http { app: app(worker.clone()) };
    http.sign_up("ana").await;
    let old = http.sign_in("ana").await;

    stack.write(keys::SESSION_KEYS, &key_ring("k2", &["k1", "k2"])).await;
    refreshed_once(&stack, &worker).await;
    assert_eq!(http.with_cookie("/protected", &old).await.status, 200, "sealed with the key before");
    let new = http.sign_in("ana").await;

    stack.write(keys::SESSION_KEYS, &key_ring("k2", &["k2"])).await;
    refreshed_once(&stack, &worker).await;
    assert_eq!(http.with_cookie("/protected", &old).await.status, 401, "its key is gone");
    assert_eq!(http.with_cookie("/protected", &new).await.status, 200);
}

/// Runs the background refresh until it has put new secrets in place.
async fn refreshed_once(stack: &Stack, worker: &ec2_worker::Worker) {
    let mut slot = worker.secrets_slot().subscribe();
    slot.mark_unchanged();
    let control = aws::bucket::Bucket::new(stack.s3.clone(), &stack.control);
    let refresh =
        secrets::keep_fresh(control, worker.profile, Duration::from_millis(1), worker.secrets_slot());
    tokio::select! {
        () = refresh => unreachable!("it never ends"),
        changed = slot.changed() => changed.expect("the worker is there"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the secrets are not read again"),
    }
}

#[tokio::test]
async fn the_start_page_works_without_javascript() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let page = http.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    for part in [r#"action="/signin""#, r#"action="/signup""#, r#"method="post""#, r#"type="password""#] {
        assert!(page.body.contains(part), "{part}: {page:?}");
    }
    assert!(!page.body.contains("<script"));
}
