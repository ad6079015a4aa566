//! Signing up and signing in.

use axum::http::Method;
use fleet::Profile;
use futures::future::join_all;

use crate::support::{PASSWORD, Stack, escape};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

#[tokio::test]
async fn a_user_signs_up_and_in_in_both_profiles() {
    for profile in [Profile::Secure, Profile::Classic] {
        let stack = Stack::new().await;
        let http = stack.client(profile).await;
        let reply = http.sign_up("ana").await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (201, r#"{"login":"ana"}"#));
        assert_eq!(http.sign_up("ana").await.code(), (409, "taken".to_owned()));
        let cookie = http.sign_in("ana").await;
        assert_eq!(http.with_cookie("/protected", &cookie).await.json()["login"], "ana");
        assert_eq!(stack.user_keys().await, ["users/ana"]);
        assert_eq!(stack.read(&stack.data, "meta/profile").await, profile.as_str());
    }
}

#[tokio::test]
async fn the_object_of_a_user_is_as_documented() {
    let stack = Stack::new().await;
    stack.client(Profile::Secure).await.sign_up("ana").await;
    let record: serde_json::Value =
        serde_json::from_str(&stack.read(&stack.data, "users/ana").await).expect("JSON");
    assert_eq!((&record["v"], &record["epoch"], &record["login"]), (&1.into(), &0.into(), &"ana".into()));
    let phc = record["phc"].as_str().expect("text");
    assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
    for id in ["uid", "nonce"] {
        assert_eq!(record[id].as_str().map(str::len), Some(32), "{id}");
    }
    assert_eq!(record["created"], record["changed"]);

    let stack = Stack::new().await;
    stack.client(Profile::Classic).await.sign_up("Ana").await;
    assert_eq!(stack.read(&stack.data, "users/Ana").await, PASSWORD);
    let head = stack.s3.head_object().bucket(&stack.data).key("users/Ana").send().await.expect("there");
    assert_eq!(head.content_type(), Some("text/plain; charset=utf-8"));
    assert!(head.metadata().is_some_and(|metadata| metadata.contains_key("nonce")));
}

#[tokio::test]
async fn json_and_forms_do_what_the_paths_do() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let json = format!(r#"{{"login":"ana","password":"{PASSWORD}"}}"#);
    let form = format!("login=bob&password={}", escape(PASSWORD));
    assert_eq!(http.post_body("/signup", JSON, json.clone()).await.status, 201);
    assert_eq!(http.post_body("/signup", FORM, form.clone()).await.status, 201);
    assert_eq!(http.post_body("/signup", "application/json; charset=utf-8", json.clone()).await.status, 409);
    for (content_type, body) in [(JSON, json), (FORM, form)] {
        let reply = http.post_body("/signin", content_type, body).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (303, "/protected"));
        assert!(reply.cookie().starts_with("vigia_session="));
    }
    http.sign_in("ana").await;
}

#[tokio::test]
async fn a_login_is_one_user_however_it_is_typed() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    assert_eq!(http.sign_up("Ana").await.json()["login"], "ana");
    assert_eq!(http.sign_up("ANA").await.status, 409);
    http.sign_in("aNa").await;
    assert_eq!(stack.user_keys().await, ["users/ana"]);
}

#[tokio::test]
async fn a_broken_rule_is_named() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let long = "a".repeat(65);
    for login in
        ["..", "%2e%2e", ".", "a%2Fb", "a%5Cb", "a%00", "a%20b", long.as_str(), "..%2Fmeta%2Fprofile"]
    {
        assert_eq!(http.sign_up(login).await.code(), (422, "login_refused".to_owned()), "{login}");
    }
    for password in ["short", "password1", "anamaria", "AnaMaria"] {
        let reply = http.post(&format!("/signup/anamaria/{password}")).await;
        assert_eq!(reply.code(), (422, "password_refused".to_owned()), "{password}");
    }
    let empty = r#"{"login":"","password":"correct horse"}"#;
    assert_eq!(http.post_body("/signup", JSON, empty).await.code().0, 422);
    assert!(stack.user_keys().await.is_empty());
}

#[tokio::test]
async fn classic_takes_any_login_and_password() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    let logins = ["..", "a/b", "../meta/profile", "Ana", "a b", "é"];
    for login in logins {
        let path = format!("{}/{}", escape(login), escape("1"));
        assert_eq!(http.post(&format!("/signup/{path}")).await.status, 201, "{login}");
        assert_eq!(http.get(&format!("/signin/{path}")).await.status, 303, "{login}");
    }
    assert_eq!(stack.user_keys().await.len(), logins.len());
    assert_eq!(stack.read(&stack.data, "meta/profile").await, "classic");
    let password = "x".repeat(1025);
    assert_eq!(http.post(&format!("/signup/b/{password}")).await.code().0, 422);
}

#[tokio::test]
async fn a_password_may_hold_any_character_that_is_written_escaped() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let path = format!("ana/{}", escape("a/b?c#d%e+f 👨‍👩‍👧"));
    assert_eq!(http.post(&format!("/signup/{path}")).await.status, 201);
    assert_eq!(http.get(&format!("/signin/{path}")).await.status, 303);
    assert_eq!(http.get("/signin/ana/a%2Fb").await.status, 401);
}

#[tokio::test]
async fn all_failed_sign_ins_get_one_answer() {
    for profile in [Profile::Secure, Profile::Classic] {
        let stack = Stack::new().await;
        let worker = stack.worker(profile).await;
        let http = crate::support::Http { app: ec2_worker::app(worker.clone()) };
        http.sign_up("ana").await;
        let huge = "x".repeat(2000);
        let body = |login: &str, password: &str| {
            serde_json::json!({"login": login, "password": password}).to_string()
        };
        let attempts = [
            ("wrong password", body("ana", "correct house")),
            ("unknown login", body("bob", PASSWORD)),
            ("invalid login", body("a\u{0}b", PASSWORD)),
            ("path as login", body("../x", PASSWORD)),
            ("empty login", body("", PASSWORD)),
            ("empty password", body("ana", "")),
            ("over-long password", body("ana", &huge)),
            ("the stored record as password", body("ana", &stack.read(&stack.data, "users/ana").await[..8])),
        ];
        let mut answers = Vec::new();
        for (what, attempt) in attempts {
            let before = worker.hashes.evaluations();
            let reply = http.post_body("/signin", JSON, attempt).await;
            let hashes = worker.hashes.evaluations() - before;
            assert_eq!(reply.status, 401, "{what}");
            assert_eq!(hashes, u64::from(profile == Profile::Secure), "{what}: evaluations of argon2");
            assert!(!reply.headers.contains_key("set-cookie"), "{what}");
            let names: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
            answers.push((reply.body, names));
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        let before = worker.hashes.evaluations();
        http.sign_in("ana").await;
        assert_eq!(worker.hashes.evaluations() - before, u64::from(profile == Profile::Secure));
    }
}

#[tokio::test]
async fn empty_parts_of_a_path_never_create_or_open_anything() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    for path in ["/signup//correct%20horse", "/signup/ana/", "/signup//"] {
        let reply = http.post(path).await;
        assert!(reply.status.is_client_error(), "{path}: {reply:?}");
    }
    for path in ["/signin//correct%20horse", "/signin/ana/", "/signin//"] {
        let reply = http.get(path).await;
        assert!([401, 404].contains(&reply.status.as_u16()), "{path}: {reply:?}");
    }
    assert!(stack.user_keys().await.is_empty());
}

#[tokio::test]
async fn one_of_twenty_concurrent_sign_ups_gets_the_login() {
    for profile in [Profile::Secure, Profile::Classic] {
        let stack = Stack::new().await;
        let workers = [stack.client(profile).await, stack.client(profile).await, stack.client(profile).await];
        let attempts = (0..20).map(|n| {
            let http = workers[n % workers.len()].clone();
            async move {
                let reply = http.post(&format!("/signup/ana/password-number-{n}")).await;
                (n, reply.status.as_u16())
            }
        });
        let outcomes = join_all(attempts).await;
        let winners: Vec<usize> =
            outcomes.iter().filter(|(_, status)| *status == 201).map(|(n, _)| *n).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert!(outcomes.iter().all(|(_, status)| [201, 409].contains(status)), "{outcomes:?}");
        let reply = workers[0].get(&format!("/signin/ana/password-number-{}", winners[0])).await;
        assert_eq!(reply.status, 303, "the stored password is the winner's");
    }
}

#[tokio::test]
async fn a_damaged_record_is_a_server_error() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    stack.write_user("users/ana", "hunter2").await;
    let reply = http.get(&format!("/signin/ana/{}", escape(PASSWORD))).await;
    assert_eq!(reply.code(), (500, "unreadable_record".to_owned()));
    let reply = http.with(Method::GET, "/signin/ana/hunter2", &[]).await;
    assert_eq!(reply.status, 500, "a classic object in a secure bucket opens nothing");
}
