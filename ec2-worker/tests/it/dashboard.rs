//! The operator's dashboard: its access control, its content, its actions.

use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::IntoResponse as _;
use ec2_worker::client::Transport;
use ec2_worker::cookies::{KeyRing, Kind};
use ec2_worker::{app, secrets};
use fleet::{Profile, keys};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{ADMIN_TOKEN, Http, PASSWORD, Reply, Stack, WORKER, escape, key_ring, registry};

const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn post(http: &Http, path: &str, body: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::post(path).header(FORM.0, FORM.1);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    http.send(request.body(Body::from(body.to_owned())).expect("a request")).await
}

async fn sign_in(http: &Http) -> String {
    let reply = post(http, "/admin/signin", &format!("token={ADMIN_TOKEN}"), &[HTML]).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "/admin"), "{reply:?}");
    reply.cookie_named("vigia_admin")
}

async fn page(http: &Http, path: &str, cookie: &str) -> Reply {
    http.with(Method::GET, path, &[HTML, ("cookie", cookie)]).await
}

fn slot(phase: &str, worker: Option<&str>) -> serde_json::Value {
    json!({"attempt": 1, "release": "r1<b>", "subnet": "s", "zone": "zone-<b>", "phase": phase,
           "since": "2026-01-01T00:00:00Z", "worker": worker, "addr": null})
}

fn memory() -> String {
    json!({
        "last_tick": "2026-01-01T00:01:00Z",
        "desired": 3,
        "held": ["held <b>back</b>"],
        "slots": {"1": slot("healthy", Some("i-a")), "2": slot("launching", None), "7": slot("suspect", Some("i-c"))},
        "leaving": {"i-d": {"stage": "terminating", "since": "2026-01-01T00:00:00Z", "reason": "it <b>broke</b>"}},
        "events": (0..60).map(|n| json!({"at": "2026-01-01T00:00:00Z", "text": format!("event <b>{n}</b>.")})).collect::<Vec<_>>(),
    })
    .to_string()
}

#[tokio::test]
async fn only_the_token_opens_the_dashboard() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let closed = page(&http, "/admin", "").await;
    assert_eq!(closed.status, 401);
    assert!(closed.body.contains(r#"action="/admin/signin""#) && !closed.body.contains("/admin/amount"));
    for path in ["/admin", "/admin/fleet"] {
        assert_eq!(http.get(path).await.code(), (401, "admin_only".to_owned()), "{path}");
    }
    let wrong = post(&http, "/admin/signin", "token=wr%3Cb%3Eng", &[HTML]).await;
    assert_eq!(wrong.status, 401);
    assert!(!wrong.headers.contains_key("set-cookie"));
    assert!(wrong.body.contains("not the admin token") && !wrong.body.contains("wr&lt;b"), "{}", wrong.body);
    assert_eq!(post(&http, "/admin/signin", "token=wrong", &[]).await.code(), (401, "admin_only".to_owned()));
    assert_eq!(post(&http, "/admin/signin", "", &[]).await.code(), (400, "bad_request".to_owned()));
    assert_eq!(post(&http, "/admin/signin", "token=a&token=b", &[]).await.code().0, 400);
    assert_eq!(http.post_body("/admin/signin", "application/json", "{}").await.code().0, 415);

    let cookie = sign_in(&http).await;
    let open = page(&http, "/admin", &cookie).await;
    assert_eq!(open.status, 200);
    assert!(
        open.body.contains(r#"action="/admin/amount""#) && open.body.contains(r#"action="/admin/signout""#)
    );
    assert_eq!(http.as_admin("/admin/fleet").await.status, 200, "a program sends the token");

    let out = post(&http, "/admin/signout", "", &[HTML, ("cookie", &cookie)]).await;
    assert_eq!((out.status.as_u16(), out.header("location")), (303, "/admin"));
    let set = out.header("set-cookie");
    assert!(set.starts_with("vigia_admin=;") && set.contains("Max-Age=0"), "{set}");
}

#[tokio::test]
async fn only_an_admin_cookie_opens_admin_pages() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    http.sign_up("ana").await;
    let session = http.sign_in("ana").await;
    let cookie = sign_in(&http).await;
    assert!(cookie.starts_with("vigia_admin="), "{cookie}");
    let renamed = session.replacen("vigia_session", "vigia_admin", 1);
    for path in ["/admin/fleet", "/list", "/setamount/4"] {
        assert_eq!(http.with_cookie(path, &cookie).await.status, 200, "{path}");
        for other in [&session, &renamed, "vigia_admin=x"] {
            assert_eq!(http.with_cookie(path, other).await.code(), (401, "admin_only".to_owned()), "{path}");
        }
    }
    let as_session = cookie.replacen("vigia_admin", "vigia_session", 1);
    assert_eq!(http.with_cookie("/protected", &as_session).await.code(), (401, "signed_out".to_owned()));
}

#[tokio::test]
async fn another_site_cannot_use_the_cookie() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    let cookie = sign_in(&http).await;
    for site in ["cross-site", "same-site"] {
        let headers = [("cookie", &*cookie), ("sec-fetch-site", site)];
        for path in ["/admin", "/admin/fleet", "/list", "/setamount/5"] {
            let reply = http.with(Method::GET, path, &headers).await;
            assert_eq!(reply.code(), (403, "cross_site".to_owned()), "{path} {site}");
        }
        for (path, body) in
            [("/admin/amount", "amount=5"), ("/admin/signin", "token=x"), ("/admin/signout", "")]
        {
            let reply = post(&http, path, body, &headers).await;
            assert_eq!(reply.code(), (403, "cross_site".to_owned()), "{path} {site}");
        }
    }
    assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "3");
    for site in ["same-origin", "none"] {
        let headers = [("cookie", &*cookie), ("sec-fetch-site", site)];
        assert_eq!(http.with(Method::GET, "/admin/fleet", &headers).await.status, 200, "{site}");
    }
}

#[tokio::test]
async fn the_admin_session_ends_by_age_and_by_idleness() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let ring = KeyRing::from_json(key_ring("k1", &["k1"]).as_bytes()).expect("the stack's ring");
    let ago = |minutes| Timestamp::now() - SignedDuration::from_mins(minutes);
    for (age, idle, status, is_renewed) in [
        (0, 0, 200, false),
        (30, 2, 200, true),
        (59, 14, 200, true),
        (30, 15, 401, false),
        (60, 0, 401, false),
    ] {
        let content = json!({"token": ADMIN_TOKEN, "sid": "s1", "iat": ago(age), "seen": ago(idle)});
        let sealed = ring.seal(Kind::Admin, Transport::Plain, &content).into_response();
        let set = sealed.headers()["set-cookie"].to_str().expect("ASCII");
        let cookie = set.split(';').next().expect("name=value").to_owned();
        for path in ["/admin", "/admin/fleet"] {
            let reply = page(&http, path, &cookie).await;
            assert_eq!(reply.status, status, "{path}: {age} min old, idle for {idle}");
            assert_eq!(reply.headers.contains_key("set-cookie"), is_renewed, "{path}: {age}, {idle}");
            if is_renewed {
                assert!(reply.header("set-cookie").contains("; HttpOnly; SameSite=Strict"), "{reply:?}");
                assert_eq!(
                    http.with_cookie("/admin/fleet", &reply.cookie_named("vigia_admin")).await.status,
                    200
                );
            }
        }
    }
}

#[tokio::test]
async fn signing_out_ends_the_session_on_every_worker() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let cookie = sign_in(&http).await;
    assert_eq!(http.with_cookie("/admin/fleet", &cookie).await.status, 200);
    let reply = http.with(Method::POST, "/admin/signout", &[("cookie", &cookie)]).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "/admin"));
    for http in [http, stack.client(Profile::Secure).await] {
        assert_eq!(http.with_cookie("/admin/fleet", &cookie).await.code(), (401, "admin_only".to_owned()));
    }
}

#[tokio::test]
async fn signing_in_again_ends_the_session_before() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let before = sign_in(&http).await;
    let token = format!("token={ADMIN_TOKEN}");
    let again = post(&http, "/admin/signin", &token, &[HTML, ("cookie", &before)]).await;
    let after = again.cookie_named("vigia_admin");
    assert_eq!(http.with_cookie("/admin/fleet", &before).await.status, 401);
    assert_eq!(http.with_cookie("/admin/fleet", &after).await.status, 200);
}

#[tokio::test]
async fn a_link_from_elsewhere_does_not_set_the_amount_by_the_cookie() {
    let stack = Stack::new().await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    let http = stack.client(Profile::Secure).await;
    let cookie = sign_in(&http).await;
    for (site, status) in [("none", 403), ("cross-site", 403), ("same-origin", 200)] {
        let headers = [("cookie", &*cookie), ("sec-fetch-site", site)];
        assert_eq!(http.with(Method::GET, "/setamount/4", &headers).await.status, status, "{site}");
    }
    let headers = [("authorization", &*format!("Bearer {ADMIN_TOKEN}")), ("sec-fetch-site", "none")];
    assert_eq!(http.with(Method::GET, "/setamount/5", &headers).await.status, 200);
}

#[tokio::test]
async fn another_token_ends_the_sessions_of_the_one_before() {
    let stack = Stack::new().await;
    let worker = stack.worker(Profile::Secure).await;
    let http = Http { app: app(worker.clone()) };
    let cookie = sign_in(&http).await;
    assert_eq!(http.with_cookie("/admin/fleet", &cookie).await.status, 200);
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest("another token"));
    stack.write(keys::ADMIN_TOKEN_HASH, &hash).await;
    let control = aws::bucket::Bucket::new(stack.s3.clone(), &stack.control);
    let fresh = secrets::fetch(&control, Profile::Secure).await.expect("the secrets");
    worker.secrets_slot().send_replace(std::sync::Arc::new(fresh));
    assert_eq!(http.with_cookie("/admin/fleet", &cookie).await.code(), (401, "admin_only".to_owned()));
    assert_eq!(page(&http, "/admin", &cookie).await.status, 401);

    stack.delete(&stack.control, keys::ADMIN_TOKEN_HASH).await;
    let http = stack.client(Profile::Secure).await;
    let refused = (403, "admin_not_configured".to_owned());
    assert_eq!(http.with_cookie("/admin/fleet", &cookie).await.code(), refused);
    assert_eq!(post(&http, "/admin/signin", &format!("token={ADMIN_TOKEN}"), &[]).await.code(), refused);
}

#[tokio::test]
async fn the_dashboard_shows_the_fleet_and_escapes_it() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    stack.write(keys::REGISTRY, &registry(3, None)).await;
    stack.write(keys::STATE, &memory()).await;
    let cookie = sign_in(&http).await;
    let body = page(&http, "/admin", &cookie).await.body;
    for text in [
        "i-a",
        "i-c",
        "i-d",
        "healthy",
        "launching",
        "suspect",
        "terminating",
        "no id yet",
        "zone-&lt;b&gt;",
        "r1&lt;b&gt;",
        "it &lt;b&gt;broke",
        "held &lt;b&gt;back",
        "event &lt;b&gt;59&lt;/b&gt;.",
        "event &lt;b&gt;10&lt;/b&gt;.",
        "Last check",
        WORKER,
    ] {
        assert!(body.contains(text), "{text}: {body}");
    }
    assert!(!body.contains("<b>"), "{body}");
    assert!(!body.contains("event &lt;b&gt;9&lt;/b&gt;."), "fifty events are enough");

    let picture = http.with_cookie("/admin/fleet", &cookie).await.json();
    assert_eq!((&picture["desired"], &picture["healthy"]), (&json!(3), &json!(2)));
    assert_eq!(picture["problems"], json!([]));
    assert_eq!(picture["held"], json!(["held <b>back</b>"]));
    assert_eq!(picture["last_check"], "2026-01-01T00:01:00Z");
    let events = picture["events"].as_array().expect("a list");
    assert_eq!((events.len(), &events[0]["text"]), (50, &json!("event <b>59</b>.")));
    let rows: Vec<_> = picture["workers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            (
                row["id"].as_str(),
                row["slot"].as_u64(),
                row["state"]["name"].as_str(),
                row["is_registered"].as_bool(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            (Some("i-a"), Some(1), Some("healthy"), Some(true)),
            (None, Some(2), Some("launching"), Some(false)),
            (Some("i-c"), Some(7), Some("suspect"), Some(false)),
            (Some("i-d"), None, Some("terminating"), Some(false)),
        ]
    );
}

#[tokio::test]
async fn the_dashboard_names_every_unreadable_object() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let cookie = sign_in(&http).await;
    let huge = format!("[{}", "0,".repeat(600_000));
    for (state, says) in [
        (None, "fleet/state.json is missing"),
        (Some("<b>"), "fleet/state.json cannot be parsed"),
        (Some(r#"{"slots":7}"#), "fleet/state.json cannot be parsed"),
        (Some(&*huge), "fleet/state.json cannot be parsed"),
    ] {
        if let Some(state) = state {
            stack.write(keys::STATE, state).await;
        }
        let reply = page(&http, "/admin", &cookie).await;
        assert_eq!(reply.status, 200, "{says}");
        assert!(reply.body.contains(says) && !reply.body.contains("<b>"), "{says}: {}", reply.body);
        let problems = http.with_cookie("/admin/fleet", &cookie).await.json()["problems"].to_string();
        assert!(problems.contains(says), "{says}: {problems}");
    }
    stack.write(keys::STATE, &memory()).await;
    stack.write(keys::REGISTRY, "<b>").await;
    stack.write(keys::DESIRED_COUNT, "<b>").await;
    let body = page(&http, "/admin", &cookie).await.body;
    assert!(body.contains("fleet/registry.json cannot be parsed"), "{body}");
    assert!(body.contains("desired-count holds `&lt;b&gt;`") && !body.contains("<b>"), "{body}");
}

#[tokio::test]
async fn the_amount_is_set_by_the_form() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    let cookie = sign_in(&http).await;
    let session = [HTML, ("cookie", &cookie)];
    let reply = post(&http, "/admin/amount", "amount=4", &session).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "/admin"), "{reply:?}");
    assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "4");
    for (body, status) in
        [("amount=0", 422), ("amount=101", 422), ("amount=", 400), ("amount=%3Cb%3E", 400), ("", 400)]
    {
        let reply = post(&http, "/admin/amount", body, &session).await;
        assert_eq!(reply.status, status, "{body}");
        assert!(reply.header("content-type").starts_with("text/html"), "{body}");
        assert!(reply.body.contains(r#"href="/admin""#) && !reply.body.contains("<b>"), "{}", reply.body);
    }
    for headers in [vec![], vec![("cookie", "vigia_admin=x")], vec![("authorization", "Bearer x")]] {
        let reply = post(&http, "/admin/amount", "amount=9", &headers).await;
        assert_eq!(reply.code(), (401, "admin_only".to_owned()), "{headers:?}");
    }
    assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "4");
}

#[tokio::test]
async fn users_are_found_by_the_beginning_of_their_login() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    for key in ["ana", "ana!2eb", "anton", "bob", "Not.A.User", "!2ehidden"] {
        stack.write_user(&format!("users/{key}"), "never read").await;
    }
    let cookie = sign_in(&http).await;
    let found = async |query: &str| {
        let body = page(&http, &format!("/admin{query}"), &cookie).await.body;
        let list =
            body.split(r#"<ul class="list names">"#).nth(1).and_then(|rest| rest.split("</ul>").next());
        let items = list.unwrap_or_default().split("<li>").skip(1);
        items.map(|item| item.trim_end_matches("</li>").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("").await, [".hidden", "ana", "ana.b", "anton", "bob"]);
    assert_eq!(found("?q=An").await, ["ana", "ana.b", "anton"]);
    assert_eq!(found("?q=ana.").await, ["ana.b"]);
    assert_eq!(found("?q=.").await, [".hidden"]);
    assert_eq!(found("?q=an&after=ana.b").await, ["anton"]);
    assert_eq!(found("?q=carol").await, [""; 0]);
    let refused = page(&http, "/admin?q=a%2Fb%3Cb%3E", &cookie).await;
    assert_eq!(refused.status, 200);
    assert!(
        refused.body.contains("a login cannot contain") && !refused.body.contains("<b>"),
        "{}",
        refused.body
    );
    assert!(refused.body.contains(r#"value="a/b&lt;b&gt;""#), "{}", refused.body);
    for bad in ["?q=%FF", "?q=a&q=b"] {
        assert_eq!(page(&http, &format!("/admin{bad}"), &cookie).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn more_users_than_a_page_are_reached_by_its_links() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let expected: Vec<String> = (0..120).map(|n| format!("u.{n:03}")).collect();
    let write = async |login: &String| {
        stack.write_user(&format!("users/{}", login.replace('.', "!2e")), "never read").await;
    };
    futures::future::join_all(expected.iter().map(write)).await;
    let cookie = sign_in(&http).await;
    let (mut path, mut seen, mut pages) = ("/admin?q=u".to_owned(), Vec::new(), 0);
    loop {
        let body = page(&http, &path, &cookie).await.body;
        seen.extend(expected.iter().filter(|login| body.contains(&format!("<li>{login}</li>"))).cloned());
        pages += 1;
        let next = body.split(r#"href=""#).find(|part| part.contains(">Next page<"));
        let Some(next) = next.and_then(|part| part.split_once("\">Next page")) else { break };
        path = next.0.replace("&amp;", "&").replace("#users", "");
    }
    assert_eq!((seen, pages), (expected, 3));
}

#[tokio::test]
async fn the_dashboard_counts_this_workers_requests() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    http.sign_in("ana").await;
    assert_eq!(http.get(&format!("/signin/ana/{}x", escape(PASSWORD))).await.status, 401);
    assert_eq!(http.get(&format!("/signin/carol/{}", escape(PASSWORD))).await.status, 401);
    let picture = http.as_admin("/admin/fleet").await.json();
    assert_eq!(picture["worker"], WORKER);
    assert_eq!((&picture["sign_ins_per_minute"], &picture["refused_per_minute"]), (&json!(1), &json!(2)));
    assert!(picture["requests_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{picture}");
    let body = http.as_admin("/admin").await.body;
    assert!(body.contains("those of the worker that answered"), "{body}");
}

#[tokio::test]
async fn classic_is_open() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    let open = page(&http, "/admin", "").await;
    assert_eq!(open.status, 200);
    assert!(!open.body.contains("/admin/signout"), "there is no session to end");
    assert_eq!(http.get("/admin/fleet").await.status, 200);
    assert_eq!(post(&http, "/admin/amount", "amount=2", &[]).await.status, 303);
    assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "2");
    let foreign = post(&http, "/admin/amount", "amount=9", &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(foreign.code(), (403, "cross_site".to_owned()));
}
