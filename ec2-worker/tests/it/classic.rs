//! The classic profile, route by route, as the original service behaves: everything open, passwords
//! as they are, one object for each user whose content is the password.

use axum::http::Method;
use fleet::{Profile, keys};

use crate::support::{Stack, WORKER, escape, registry};

#[tokio::test]
async fn classic_does_what_the_original_did() {
    let stack = Stack::new().await;
    stack.write(keys::DESIRED_COUNT, "2").await;
    stack.write(keys::REGISTRY, &registry(2, None)).await;
    let http = stack.client(Profile::Classic).await;

    // GET /healthcheck
    let health = http.get("/healthcheck").await;
    assert_eq!((health.status.as_u16(), &health.json()["worker"]), (200, &WORKER.into()));

    // POST /signup/<login>/<password>: any password will do, and is the object's content.
    for (login, password) in [("ana", "1"), ("Bob", "password"), ("carl", "c/d?e")] {
        let reply = http.post(&format!("/signup/{login}/{}", escape(password))).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(stack.read(&stack.data, &format!("users/{login}")).await, password);
    }
    assert_eq!(http.post("/signup/ana/2").await.code(), (409, "taken".to_owned()));
    assert_eq!(stack.read(&stack.data, "users/ana").await, "1", "the first one keeps the login");

    // A user put there by hand is a user.
    stack.write_user("users/dora", "by hand").await;

    // GET /signin/<login>/<password> leads to the protected page.
    for (login, password) in [("ana", "1"), ("Bob", "password"), ("carl", "c/d?e"), ("dora", "by hand")] {
        let reply = http.get(&format!("/signin/{login}/{}", escape(password))).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "/protected"), "{login}");
        let page = http.with_cookie("/protected", &reply.cookie()).await;
        assert_eq!((page.status.as_u16(), &page.json()["login"]), (200, &login.into()));
    }
    for wrong in ["/signin/ana/2", "/signin/bob/password", "/signin/carol/1"] {
        assert_eq!(http.get(wrong).await.code(), (401, "wrong_credentials".to_owned()), "{wrong}");
    }
    // However often: the original had no throttle.
    for _ in 0..20 {
        assert_eq!(http.get("/signin/ana/2").await.status, 401);
    }
    assert_eq!(http.get("/signin/ana/1").await.status, 303);
    assert!(stack.keys("throttle/").await.is_empty());

    // GET /list: any client sees every login with its password.
    let list = http.get("/list").await;
    let expected = serde_json::json!([
        {"login": "Bob", "password": "password"},
        {"login": "ana", "password": "1"},
        {"login": "carl", "password": "c/d?e"},
        {"login": "dora", "password": "by hand"},
    ]);
    assert_eq!((list.status.as_u16(), list.json()), (200, expected));

    // GET /checkamount and GET /setamount, for any client.
    assert_eq!(http.get("/checkamount").await.json(), serde_json::json!({"desired": 2, "healthy": 2}));
    assert_eq!(http.get("/setamount/4").await.json(), serde_json::json!({"desired": 4, "previous": 2}));
    assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "4");
    let by_query = http.get("/setamount?amount=3").await;
    assert_eq!(by_query.json(), serde_json::json!({"desired": 3, "previous": 4}));

    // Its answers say which profile this is; and no password stays in an address for want of a POST.
    assert_eq!(health.header("x-profile"), "classic");
    assert_eq!(http.with(Method::GET, "/signup/eve/1", &[]).await.status, 405);
}
