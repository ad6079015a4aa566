//! `/list`.

use fleet::Profile;
use serde_json::{Value, json};

use crate::support::{PASSWORD, Stack};

fn logins(reply: &crate::support::Reply) -> Vec<String> {
    let rows = reply.json();
    let rows = rows.as_array().unwrap_or_else(|| panic!("not an array: {reply:?}"));
    rows.iter().map(|row| row["login"].as_str().expect("a login").to_owned()).collect()
}

#[tokio::test]
async fn the_admin_sees_the_stored_records_in_order() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    assert_eq!(http.as_admin("/list").await.json(), json!([]));
    for login in ["carl", "ana", "bob"] {
        http.sign_up(login).await;
    }
    let reply = http.as_admin("/list").await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(logins(&reply), ["ana", "bob", "carl"]);
    for row in reply.json().as_array().expect("an array") {
        assert!(row["password"].as_str().is_some_and(|phc| phc.starts_with("$argon2id$")), "{row}");
    }
    assert!(!reply.body.contains(PASSWORD));
    let names = http.as_admin("/list?fields=login").await.json();
    assert_eq!(names, json!([{"login": "ana"}, {"login": "bob"}, {"login": "carl"}]));
}

#[tokio::test]
async fn classic_lists_the_passwords_to_any_client() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    http.sign_up("Ana").await;
    assert_eq!(http.get("/list").await.json(), json!([{"login": "Ana", "password": PASSWORD}]));
}

#[tokio::test]
async fn a_list_can_be_read_in_pieces() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    for login in ["a", "b", "c.d", "c", "Z"] {
        http.sign_up(login).await;
    }
    let all = logins(&http.get("/list").await);
    assert_eq!(all, ["Z", "a", "b", "c", "c.d"], "in the order of the keys");
    let mut pieces = Vec::new();
    let mut after = String::new();
    loop {
        let piece = logins(&http.get(&format!("/list?limit=2{after}")).await);
        assert!(piece.len() <= 2);
        let Some(last) = piece.last() else { break };
        after = format!("&after={last}");
        pieces.extend(piece);
    }
    assert_eq!(pieces, all);
}

#[tokio::test]
async fn a_list_spans_several_pages_of_s3() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Classic).await;
    let expected: Vec<String> = (0..1050).map(|n| format!("u{n:04}")).collect();
    for chunk in expected.chunks(50) {
        let write = async |login: &String| stack.write_user(&format!("users/{login}"), "pw").await;
        futures::future::join_all(chunk.iter().map(write)).await;
    }
    assert_eq!(logins(&http.get("/list?fields=login").await), expected);
    let reply = http.get("/list?limit=1010&after=u0009").await;
    assert_eq!(logins(&reply), expected[10..1020]);
    assert_eq!(reply.json()[0]["password"], "pw");
}

#[tokio::test]
async fn a_list_omits_objects_that_are_not_users() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    http.sign_up("ana").await;
    for key in ["users/Not.Escaped", "users/a/b", "users/!zz", "users/damaged"] {
        stack.write_user(key, "not a record").await;
    }
    assert_eq!(logins(&http.as_admin("/list").await), ["ana"]);
    assert_eq!(logins(&http.as_admin("/list?limit=5").await), ["ana"]);
}

#[tokio::test]
async fn a_wrong_question_is_refused() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    for query in ["limit=0", "limit=10001", "limit=x", "limit=", "fields=phc", "limit=1&limit=2", "after=%FF"]
    {
        assert_eq!(
            http.as_admin(&format!("/list?{query}")).await.code(),
            (400, "bad_request".to_owned()),
            "{query}"
        );
    }
    assert_eq!(http.as_admin("/list?after=a%2Fb").await.code(), (422, "login_refused".to_owned()));
    assert_eq!(http.as_admin("/list?after=").await.json(), Value::Array(vec![]), "a form says nothing so");
    assert_eq!(http.as_admin("/list?limit=10000&unknown=1").await.json(), Value::Array(vec![]));
}
