//! The pages for users, and the assets they load.

use std::net::SocketAddr;

use aws::bucket::Bucket;
use axum::body::Body;
use axum::http::{Method, Request};
use ec2_worker::client::Peer;
use ec2_worker::hash_pool::HashLimits;
use ec2_worker::identity::Identity;
use ec2_worker::{app, start};
use fleet::Profile;

use crate::support::{Http, Reply, Stack, WORKER, escape};

const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

async fn page(http: &Http, path: &str, more: &[(&str, &str)]) -> Reply {
    http.with(Method::GET, path, &[&[HTML], more].concat()).await
}

/// The addresses in attributes of this name.
fn addresses(body: &str, attribute: &str) -> Vec<String> {
    let begin = format!(" {attribute}=\"");
    let parts = body.split(&begin).skip(1);
    parts.filter_map(|part| part.split('"').next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_start_offers_to_sign_in_and_up_by_post() {
    let stack = Stack::new().await;
    let reply = page(&stack.client(Profile::Secure).await, "/", &[]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(addresses(&reply.body, "action"), ["/signin", "/signup"]);
    assert_eq!(reply.body.matches(r#"<form class="fields" method="post""#).count(), 2, "{}", reply.body);
    for id in addresses(&reply.body, "for") {
        assert!(reply.body.contains(&format!(r#" id="{id}""#)), "a label leads to nothing: {id}");
    }
    assert!(!reply.body.contains("classic profile"));
    let classic = Stack::new().await;
    let reply = page(&classic.client(Profile::Classic).await, "/", &[]).await;
    assert!(reply.body.contains("classic profile"), "{}", reply.body);
}

#[tokio::test]
async fn assets_of_a_page_exist_and_may_be_cached() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    let body = [page(&http, "/", &[]).await.body, page(&http, "/admin", &[]).await.body].concat();
    let mut loaded: Vec<String> = [addresses(&body, "src"), addresses(&body, "href")].concat();
    loaded.retain(|address| address.starts_with("/assets/"));
    loaded.sort();
    loaded.dedup();
    assert_eq!(loaded.len(), 3, "{loaded:?}");
    for (address, content_type) in
        loaded.iter().zip(["text/javascript; charset=utf-8", "image/svg+xml", "text/css; charset=utf-8"])
    {
        let reply = http.get(address).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, content_type), "{address}");
        assert_eq!(reply.header("cache-control"), "public, max-age=3600", "{address}");
        assert!(!reply.body.contains("url(") && !reply.body.contains("@import"), "{address}");
        let (bare, _) = address.split_once('?').expect("a version");
        let other = http.get(&format!("{bare}?v=00000000")).await;
        assert_eq!((other.status.as_u16(), other.header("cache-control")), (200, "no-store"), "{bare}");
    }
    assert_eq!(http.get("/assets/style.css%2F..").await.code().0, 404);
}

#[tokio::test]
async fn no_page_has_a_style_or_a_script_in_itself() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    http.sign_up("ana").await;
    let cookie = http.sign_in("ana").await;
    for (path, status) in
        [("/", 200), ("/protected", 200), ("/admin", 200), ("/nothing", 404), ("/list?limit=0", 400)]
    {
        let reply = page(&http, path, &[("cookie", &cookie)]).await;
        assert_eq!(reply.status, status, "{path}");
        let body = &reply.body;
        assert!(!body.contains("<style") && !body.contains(" style="), "{path}: {body}");
        let handler = body.split(' ').find(|word| word.starts_with("on") && word.contains("=\""));
        assert_eq!(handler, None, "{path}");
        let scripts = body.matches("<script").count();
        assert_eq!(scripts, body.matches(r#"<script src="/assets/dashboard.js?v="#).count(), "{path}");
        for part in
            [r#"<html lang="en">"#, r##"href="#content""##, r#"<main id="content""#, "<h1>", "<title>"]
        {
            assert!(body.contains(part), "{path}: {part}: {body}");
        }
    }
}

#[tokio::test]
async fn a_login_is_shown_as_it_is_and_runs_nothing() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    let login = "<script>alert(\"1\")</script>&";
    let form = Request::post("/signup")
        .header(HTML.0, HTML.1)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(format!("login={}&password=x", escape(login))))
        .expect("a request");
    let signed_up = http.send(form).await;
    assert_eq!(signed_up.status, 201);
    let cookie = http.get(&format!("/signin/{}/x", escape(login))).await.cookie();
    let protected = page(&http, "/protected", &[("cookie", &cookie)]).await;
    let listed = page(&http, "/admin", &[]).await;
    for reply in [signed_up, protected, listed] {
        assert!(reply.body.contains("&lt;script&gt;alert("), "{}", reply.body);
        assert!(!reply.body.contains("<script>"), "{}", reply.body);
    }
}

#[tokio::test]
async fn the_protected_page_shows_the_session_and_its_actions() {
    for (profile, actions) in [
        (Profile::Secure, &["/signout", "/signout/everywhere", "/password", "/account/delete"][..]),
        (Profile::Classic, &["/signout"]),
    ] {
        let stack = Stack::new().await;
        let http = stack.client(profile).await;
        http.sign_up("ana").await;
        let cookie = http.sign_in("ana").await;
        let reply = page(&http, "/protected", &[("cookie", &cookie)]).await;
        assert_eq!(addresses(&reply.body, "action"), actions, "{profile}");
        assert!(reply.body.contains(WORKER) && reply.body.contains(" ago"), "{}", reply.body);
        assert!(
            reply.body.contains("in 11h 59m at the latest") || reply.body.contains("in 12h at"),
            "{}",
            reply.body
        );
    }
}

#[tokio::test]
async fn browsers_are_held_to_tls_once_they_came_over_it() {
    let stack = Stack::new().await;
    let mut config = stack.config(Profile::Secure);
    config.proxies = "10.77.0.0/24".parse().expect("a network");
    let listen: SocketAddr = config.listen.expect("set");
    let identity = Identity { id: WORKER.parse().expect("an id"), listen };
    let [data, control] = [&stack.data, &stack.control].map(|name| Bucket::new(stack.s3.clone(), name));
    let hashing = HashLimits {
        permits: 1,
        waiters: 1,
        wait: std::time::Duration::from_secs(60),
        cost: accounts::Cost::default(),
    };
    let worker = start::prepare(&config, &identity, data, control, hashing).await.expect("it starts");
    let http = Http { app: app(worker) };
    for (scheme, expected) in [("https", "max-age=31536000"), ("http", "")] {
        for path in ["/", "/nothing", "/assets/style.css"] {
            let request = Request::get(path)
                .header("x-forwarded-for", "192.0.2.7")
                .header("x-forwarded-proto", scheme)
                .extension(Peer("10.77.0.9:1".parse().expect("an address")))
                .body(Body::empty())
                .expect("a request");
            let reply = http.send(request).await;
            assert_eq!(reply.header("strict-transport-security"), expected, "{scheme} {path}");
        }
    }
}
