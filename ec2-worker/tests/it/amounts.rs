//! `/checkamount` and `/setamount`.

use axum::http::Method;
use ec2_worker::{Worker, app};
use fleet::{Profile, keys};
use futures::future::join_all;
use serde_json::json;

use crate::support::{Http, Reply, Stack, registry};

#[tokio::test]
async fn the_amount_comes_from_the_object() {
    let stack = Stack::new().await;
    let worker = stack.worker(Profile::Secure).await;
    let check = async || check(&worker).await;
    assert_eq!(check().await.code(), (503, "no_desired_count".to_owned()), "nothing is deployed");
    stack.write(keys::DESIRED_COUNT, "3\n").await;
    assert_eq!(check().await.json(), json!({"desired": 3, "healthy": 0}));
    stack.write(keys::REGISTRY, &registry(3, None)).await;
    assert_eq!(check().await.json(), json!({"desired": 3, "healthy": 2}));
    stack.write(keys::REGISTRY, &registry(3, Some("an earlier text was wrong"))).await;
    assert_eq!(check().await.json(), json!({"desired": 3, "healthy": 2}));
}

/// Asks as if a second had passed since the last request.
async fn check(worker: &Worker) -> Reply {
    worker.desired_counts.forget();
    Http { app: app(worker.clone()) }.get("/checkamount").await
}

#[tokio::test]
async fn a_new_amount_is_shown_at_once() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    for amount in 4..8 {
        http.as_admin(&format!("/setamount/{amount}")).await;
        assert_eq!(http.get("/checkamount").await.json()["desired"], amount);
    }
}

#[tokio::test]
async fn nonsense_leaves_the_last_good_value_in_force() {
    let stack = Stack::new().await;
    let worker = stack.worker(Profile::Secure).await;
    stack.write(keys::REGISTRY, &registry(4, None)).await;
    for text in ["banana", "", "3.5", "1000", "-1", &"9".repeat(100_000)] {
        stack.write(keys::DESIRED_COUNT, text).await;
        let reply = check(&worker).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["desired"]), (200, &4.into()), "{text:.20}");
        let problem = reply.json()["problem"].as_str().unwrap_or_default().to_owned();
        assert!(problem.contains("desired-count holds") && problem.len() < 200, "{problem}");
    }
    stack.delete(&stack.control, keys::DESIRED_COUNT).await;
    let reply = check(&worker).await.json();
    assert_eq!(reply["problem"], "desired-count is missing; the last good value stays in force");
}

#[tokio::test]
async fn the_admin_sets_the_amount_by_path_and_by_query() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    assert_eq!(
        http.as_admin("/setamount/5").await.json(),
        json!({"desired": 5, "previous": null}),
        "created"
    );
    assert_eq!(http.as_admin("/setamount?amount=7").await.json(), json!({"desired": 7, "previous": 5}));
    assert_eq!(http.as_admin("/setamount/7").await.json(), json!({"desired": 7, "previous": 7}));
    assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "7");
    stack.write(keys::DESIRED_COUNT, "banana").await;
    assert_eq!(
        http.as_admin("/setamount/2").await.json(),
        json!({"desired": 2, "previous": null}),
        "corrected"
    );
}

#[tokio::test]
async fn a_wrong_amount_is_refused_with_what_to_do() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    stack.write(keys::DESIRED_COUNT, "3").await;
    let table = [
        ("/setamount", 400, "bad_request"),
        ("/setamount?amount=", 400, "not_a_number"),
        ("/setamount?amount=1&amount=2", 400, "bad_request"),
        ("/setamount/banana", 400, "not_a_number"),
        ("/setamount/3.5", 400, "not_a_number"),
        ("/setamount/%FF", 400, "bad_request"),
        ("/setamount/5?amount=7", 400, "bad_request"),
        ("/setamount/0", 422, "out_of_range"),
        ("/setamount/101", 422, "out_of_range"),
        ("/setamount/-1", 422, "out_of_range"),
        ("/setamount?amount=99999999999999999999", 422, "out_of_range"),
    ];
    for (path, status, code) in table {
        assert_eq!(http.as_admin(path).await.code(), (status, code.to_owned()), "{path}");
    }
    assert_eq!(stack.read(&stack.control, keys::DESIRED_COUNT).await, "3");
}

#[tokio::test]
async fn only_the_admin_sets_the_amount() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    for headers in [vec![], vec![("authorization", "Bearer wrong")], vec![("authorization", "Basic x")]] {
        for path in ["/setamount/5", "/setamount?amount=5", "/setamount/banana", "/list"] {
            let reply = http.with(Method::GET, path, &headers).await;
            assert_eq!(reply.code(), (401, "admin_only".to_owned()), "{path}");
            assert_eq!(reply.header("www-authenticate"), "Bearer");
        }
    }
    stack.delete(&stack.control, keys::ADMIN_TOKEN_HASH).await;
    let http = stack.client(Profile::Secure).await;
    assert_eq!(http.as_admin("/setamount/5").await.code(), (403, "admin_not_configured".to_owned()));
    assert_eq!(http.as_admin("/list").await.code(), (403, "admin_not_configured".to_owned()));
}

#[tokio::test]
async fn any_client_sets_the_amount_in_classic() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    assert_eq!(http.get("/setamount/5").await.json(), json!({"desired": 5, "previous": null}));
    assert_eq!(http.get("/setamount?amount=6").await.json(), json!({"desired": 6, "previous": 5}));
    assert_eq!(http.get("/setamount/0").await.status, 422);
}

#[tokio::test]
async fn concurrent_changes_each_learn_their_outcome() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    stack.write(keys::DESIRED_COUNT, "1").await;
    let attempts = (10..20).map(|n| {
        let http = http.clone();
        async move { (n, http.as_admin(&format!("/setamount/{n}")).await.status.as_u16()) }
    });
    let outcomes = join_all(attempts).await;
    assert!(outcomes.iter().all(|(_, status)| [200, 409].contains(status)), "{outcomes:?}");
    let last = stack.read(&stack.control, keys::DESIRED_COUNT).await;
    assert!(
        outcomes.iter().any(|(n, status)| *status == 200 && n.to_string() == last),
        "{last}: {outcomes:?}"
    );
}
