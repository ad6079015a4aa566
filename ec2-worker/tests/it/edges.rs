//! What holds for every route: methods, headers, error shapes, and requests from elsewhere.

use axum::body::Body;
use axum::http::{Method, Request};
use ec2_worker::app;
use fleet::{Profile, keys};

use crate::support::{Http, PASSWORD, Stack, WORKER, escape};

#[tokio::test]
async fn the_health_check_needs_no_storage() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    for bucket in [&stack.data, &stack.control] {
        for key in ["meta/profile", keys::SESSION_KEYS, keys::ADMIN_TOKEN_HASH] {
            stack.delete(bucket, key).await;
        }
        stack.s3.delete_bucket().bucket(bucket).send().await.expect("an empty bucket goes");
    }
    let reply = http.get("/healthcheck").await;
    assert_eq!(reply.status, 200);
    assert_eq!((&reply.json()["status"], &reply.json()["worker"]), (&"ok".into(), &WORKER.into()));
    assert!(reply.json()["uptime_seconds"].is_u64(), "the reconciler finds restarts by it");
    assert!(reply.json()["version"].is_string());
    // A bucket that is gone is an outage, not a user who is not there.
    assert_eq!(http.get(&format!("/signin/ana/{}", escape(PASSWORD))).await.status, 503);
}

/// One user and a desired count, in the profile in which GET changes both.
async fn stack_with_something_to_change() -> (Stack, Http) {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    http.sign_up("ana").await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    (stack, http)
}

async fn assert_unchanged(stack: &Stack) {
    assert_eq!(stack.user_keys().await, ["users/ana"]);
    assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "3");
}

#[tokio::test]
async fn head_never_changes_anything() {
    let (stack, http) = stack_with_something_to_change().await;
    let signin = format!("/signin/ana/{}", escape(PASSWORD));
    let signup = format!("/signup/bob/{}", escape(PASSWORD));
    for (path, allow) in [
        (signin.as_str(), "GET"),
        ("/setamount/5", "GET"),
        ("/setamount?amount=5", "GET"),
        (signup.as_str(), "POST"),
    ] {
        let reply = http.with(Method::HEAD, path, &[]).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, allow), "{path}");
        assert!(!reply.headers.contains_key("set-cookie"), "{path}");
    }
    assert_unchanged(&stack).await;
}

#[tokio::test]
async fn an_undeclared_method_is_405_with_the_allowed_ones() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    let table = [
        (Method::POST, "/healthcheck", "GET,HEAD"),
        (Method::POST, "/checkamount", "GET,HEAD"),
        (Method::POST, "/setamount/5", "GET"),
        (Method::PUT, "/setamount", "GET"),
        (Method::DELETE, "/list", "GET,HEAD"),
        (Method::GET, "/signup/ana/password", "POST"),
        (Method::GET, "/signup", "POST"),
        (Method::POST, "/signin/ana/password", "GET"),
        (Method::GET, "/signin", "POST"),
        (Method::GET, "/signout", "POST"),
        (Method::POST, "/protected", "GET,HEAD"),
        (Method::POST, "/", "GET,HEAD"),
        (Method::GET, "/admin/amount", "POST"),
        (Method::POST, "/admin/fleet", "GET,HEAD"),
        (Method::OPTIONS, "/setamount/5", "GET"),
        (Method::TRACE, "/signup/ana/password", "POST"),
    ];
    for (method, path, allow) in table {
        let reply = http.with(method.clone(), path, &[]).await;
        assert_eq!(reply.code(), (405, "method_not_allowed".to_owned()), "{method} {path}");
        assert_eq!(reply.header("allow"), allow, "{method} {path}");
    }
    assert!(stack.user_keys().await.is_empty());
}

#[tokio::test]
async fn unknown_addresses_are_404() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    for path in ["/nothing", "/signin/a/b/c", "/signup/a", "/healthcheck/", "/admin/x", "/assets/x"] {
        assert_eq!(http.get(path).await.code(), (404, "not_found".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn other_sites_and_prefetches_change_nothing() {
    let (stack, http) = stack_with_something_to_change().await;
    let signin = format!("/signin/ana/{}", escape(PASSWORD));
    let signup = format!("/signup/bob/{}", escape(PASSWORD));
    let requests = [
        (Method::GET, signin.as_str()),
        (Method::GET, "/setamount/5"),
        (Method::GET, "/setamount?amount=5"),
        (Method::POST, signup.as_str()),
        (Method::POST, "/signin"),
    ];
    for (method, path) in requests {
        for header in
            [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("sec-purpose", "prefetch")]
        {
            let reply = http.with(method.clone(), path, &[header]).await;
            assert_eq!(reply.code(), (403, "cross_site".to_owned()), "{method} {path} {header:?}");
        }
    }
    assert_unchanged(&stack).await;
    for own in ["same-origin", "none"] {
        assert_eq!(http.with(Method::GET, &signin, &[("sec-fetch-site", own)]).await.status, 303, "{own}");
    }
}

#[tokio::test]
async fn a_host_name_that_is_not_accepted_is_misdirected() {
    let stack = Stack::new().await;
    let http = Http { app: app(stack.worker_named("login.example.org").await) };
    let ask = async |path: &str, host: &str| http.with(Method::GET, path, &[("host", host)]).await;
    assert_eq!(ask("/", "login.example.org:5000").await.status, 200);
    // As host and as origin: to the check of origins it looks like our own page.
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
    let reply = http.with(Method::POST, &format!("/signup/ana/{}", escape(PASSWORD)), &rebound).await;
    assert_eq!(reply.code(), (421, "wrong_host".to_owned()));
    assert!(stack.user_keys().await.is_empty());
    for path in ["/", "/protected", "/nothing"] {
        assert_eq!(ask(path, "evil.example").await.status, 421, "{path}");
    }
    assert_eq!(ask("/healthcheck", "10.77.0.5:8080").await.status, 200, "who checks knows the address only");
}

#[tokio::test]
async fn a_query_would_cut_the_password_and_is_refused() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    for query in ["?", "?x", "?a=b"] {
        let reply = http.post(&format!("/signup/ana/sentinel{query}")).await;
        assert_eq!(reply.code(), (400, "bad_request".to_owned()), "{query}");
        assert!(!reply.body.contains("sentinel"));
        assert_eq!(http.get(&format!("/signin/ana/sentinel{query}")).await.code().0, 400, "{query}");
    }
    assert!(stack.user_keys().await.is_empty());
}

#[tokio::test]
async fn bad_input_is_refused_in_one_shape_and_never_repeated() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    let huge = format!(r#"{{"login":"a","password":"{}"}}"#, "sentinel".repeat(4096));
    let table = [
        (json, "sentinel".to_owned(), 400),
        (json, r#"{"login":"ana"}"#.to_owned(), 400),
        (json, r#"{"login":"ana","password":["sentinel"]}"#.to_owned(), 400),
        (json, r#""sentinel""#.to_owned(), 400),
        (json, String::new(), 400),
        (form, "login=ana".to_owned(), 400),
        (form, "login=ana&password=sentinel%FF".to_owned(), 400),
        (form, "login=ana&password=sentinel&password=x".to_owned(), 400),
        ("text/plain", "sentinel".to_owned(), 415),
        ("", "sentinel".to_owned(), 415),
        (json, huge, 413),
    ];
    for route in ["/signup", "/signin"] {
        for (content_type, body, status) in &table {
            let reply = http.post_body(route, content_type, body.clone()).await;
            assert_eq!(reply.code().0, *status, "{route} {content_type} {body:.60}");
            assert!(!reply.body.contains("sentinel"), "{reply:?}");
        }
    }
    for path in ["/signup/sentinel%FF/x", "/signup/ana/sentinel%FF", "/signup/ana/%C3sentinel"] {
        let reply = http.post(path).await;
        assert_eq!(reply.code().0, 400, "{path}");
        assert!(!reply.body.contains("sentinel"), "{reply:?}");
    }
}

#[tokio::test]
async fn every_answer_has_the_same_protective_headers() {
    for profile in [Profile::Secure, Profile::Classic] {
        let stack = Stack::new().await;
        let http = stack.client(profile).await;
        for path in
            ["/", "/healthcheck", "/protected", "/nothing", "/signin/ana/wrong", "/signup", "/setamount/x"]
        {
            let reply = http.get(path).await;
            // None where a password may be in the address.
            let is_secret = path.starts_with("/signin/") || path == "/nothing";
            let referrer = if is_secret { "no-referrer" } else { "same-origin" };
            let expected = [
                ("cache-control", "no-store"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", referrer),
                ("access-control-allow-origin", ""),
                (
                    "content-security-policy",
                    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
                ),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
                ("strict-transport-security", ""),
                ("server", ""),
                ("connection", ""),
                ("x-profile", if profile == Profile::Classic { "classic" } else { "" }),
            ];
            for (name, value) in expected {
                assert_eq!(reply.header(name), value, "{path}: {name}");
                assert!(reply.headers.get_all(name).iter().count() <= 1, "{path}: {name}");
            }
            assert_eq!(reply.header("x-request-id").len(), 32, "{path}");
        }
        let reply = http.with(Method::GET, "/nothing", &[("x-request-id", "from-the-lb_1")]).await;
        assert_eq!(reply.header("x-request-id"), "from-the-lb_1");
    }
}

#[tokio::test]
async fn a_browser_gets_its_refusals_as_pages() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let reply = http.with(Method::GET, "/nothing", &[html]).await;
    assert_eq!(reply.status, 404);
    assert!(reply.header("content-type").starts_with("text/html"), "{reply:?}");
    assert!(reply.body.contains("404"), "{reply:?}");
    let length: usize = reply.header("content-length").parse().unwrap_or(reply.body.len());
    assert_eq!(length, reply.body.len());
    let form = Request::post("/signup")
        .header("accept", html.1)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(format!("login=ana&password={}", escape(PASSWORD))))
        .expect("a request");
    let reply = http.send(form).await;
    assert_eq!(reply.status, 201);
    assert!(reply.body.contains("<strong>ana</strong>"), "{reply:?}");
}
