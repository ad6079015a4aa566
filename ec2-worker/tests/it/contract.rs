//! `/openapi.json` against the routes.

use std::collections::BTreeSet;

use axum::http::Method;
use fleet::Profile;

use crate::support::Stack;

#[tokio::test]
async fn documented_paths_exist_with_exactly_their_methods() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let reply = http.get("/openapi.json").await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/json"));
    let document = reply.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{document}");
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 14, "{:?}", paths.keys());
    for (path, item) in paths {
        let documented: BTreeSet<String> = item.as_object().expect("methods").keys().cloned().collect();
        let concrete =
            path.replace("{login}", "ana").replace("{password}", "zzyzxroad").replace("{amount}", "3");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let status =
                http.with(method.parse::<Method>().expect("a method"), &concrete, &[]).await.status.as_u16();
            let is_documented = documented.contains(&method.to_ascii_lowercase());
            assert_eq!(status != 405, is_documented, "{method} {path} is {status}");
            assert_ne!(status, 404, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn secrets_in_paths_are_marked_as_deprecated() {
    let stack = Stack::new().await;
    let http = stack.client(Profile::Secure).await;
    let document = http.get("/openapi.json").await.json();
    assert_eq!(document["paths"]["/signup/{login}/{password}"]["post"]["deprecated"], true);
    assert_eq!(document["paths"]["/signin/{login}/{password}"]["get"]["deprecated"], true);
    assert!(document["paths"]["/signin"]["post"]["deprecated"].is_null());
    assert!(http.sign_up("ana").await.headers.contains_key("deprecation"));
}
