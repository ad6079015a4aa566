//! A classic stack becomes a secure one, while S3 loses replies; then its session keys are rotated.

use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use serde_json::{Value, json};

use crate::support::{Cloud, eventually, text};

const STACK: &str = "epsilon";
/// A count of 0 is read again for 35 s before it counts; no worker is terminated in a stack's first minute.
const PATIENCE: Duration = Duration::from_secs(150);
/// Workers read their secrets every 60 s.
const TWO_READINGS: Duration = Duration::from_secs(130);

#[test]
fn users_become_secure_ones_and_keep_their_passwords() {
    let cloud = Cloud::start();
    cloud.deploy(STACK, &["--workers", "1", "--profile", "classic", "--allow-cidr", "127.0.0.0/8"]);
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let url = cloud.url(STACK);
    let post = |path: &str| client.post(format!("{url}{path}")).send().expect("an answer");
    let get = |path: &str| client.get(format!("{url}{path}")).send().expect("an answer");
    for path in ["/signup/Ana/x", "/signup/bob/plain-text-of-bob", "/signup/Zo%C3%AB/%7B%22v%22:1%7D"] {
        assert_eq!(post(path).status(), 201, "{path}");
    }

    let refused = |arguments: &[&str], code: i32, says: &str| {
        let output = cloud.bootstrap(STACK, arguments);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
    };
    refused(&["migrate-profile"], 1, "make scale N=0");
    let dry = cloud.must(STACK, &["migrate-profile", "--dry-run"]);
    assert!(dry.contains("3 users would be converted"), "{dry}");
    let artifacts = crate::support::stripped().to_string_lossy().into_owned();
    let secure = ["deploy", "--artifacts", artifacts.as_str(), "--profile", "secure", "--workers", "1"];
    refused(&secure, 2, "make migrate-profile");

    cloud.must(STACK, &["scale", "0"]);
    let migrated = eventually("no worker is left, and the users are converted", PATIENCE, || {
        if !cloud.instances(STACK, "pending,running,shutting-down").is_empty() {
            return Err("workers run".to_owned());
        }
        // Each write of a user is carried out, and its answer lost.
        let fault = cloud.api_fault(&json!({
            "effect": {"kind": "lose-reply"},
            "calls": {"service": "s3", "action": "PUT", "path": format!("/vigia-{STACK}-data-000000000000-us-east-1/users/")},
            "limit": {"times": 3}
        }));
        let output = cloud.bootstrap(STACK, &["migrate-profile"]);
        let hits = cloud.api_fault_hits(fault);
        cloud.clear_api_fault(fault);
        if output.status.success() { Ok((text(&output), hits)) } else { Err(text(&output)) }
    });
    assert!(migrated.0.contains("All 3 users") && migrated.0.contains("PROFILE=secure"), "{}", migrated.0);
    assert_eq!(migrated.1, 3, "replies were lost on purpose");
    let again = cloud.must(STACK, &["migrate-profile"]);
    assert!(again.contains("nothing changed"), "{again}");

    cloud.must(STACK, &secure);
    // All spellings of a login are one user now.
    for path in [
        "/signin/Ana/x",
        "/signin/ana/x",
        "/signin/bob/plain-text-of-bob",
        "/signin/zo%C3%AB/%7B%22v%22:1%7D",
    ] {
        assert_eq!(get(path).status(), 303, "{path}");
    }
    assert_eq!(get("/signin/ana/y").status(), 401);
    assert_eq!(get("/list").status(), 401);
    let list =
        client.get(format!("{url}/list")).header(AUTHORIZATION, format!("Bearer {}", cloud.token(STACK)));
    let list: Value = list.send().expect("an answer").json().expect("JSON");
    let users = list.as_array().expect("a list");
    assert!(
        users.len() == 3 && users.iter().all(|user| user["password"].to_string().contains("argon2id")),
        "{list}"
    );

    let cookie = |response: &Response| {
        let cookie = response.headers()[SET_COOKIE].to_str().expect("text");
        cookie.split(';').next().expect("a value").to_owned()
    };
    let status = |cookie: &str| {
        client.get(format!("{url}/protected")).header(COOKIE, cookie).send().expect("an answer").status()
    };
    let before = cookie(&get("/signin/ana/x"));
    assert_eq!(status(&before), 200);
    let said = cloud.must(STACK, &["rotate-session-keys", "--now"]);
    assert!(said.contains("k2 is the only key"), "{said}");
    eventually("sessions of the leaked key end", TWO_READINGS, || match status(&before).as_u16() {
        401 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(status(&cookie(&get("/signin/ana/x"))), 200, "a user who signs in again has a session");
}
