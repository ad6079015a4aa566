use axum::body::Bytes;

use super::*;
use crate::call::Caller;
use crate::consistency::young::WINDOW;
use crate::credentials::Principal;

const ENABLED: &[u8] = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";

fn target(request: &str) -> Target {
    let (method, path) = request.split_once(' ').expect("a method and a path");
    let (parts, ()) =
        hyper::Request::builder().method(method).uri(path).body(()).expect("valid").into_parts();
    let caller = Caller::new("test", &Principal::Operator);
    Target::of(&Admitted { service: "s3".to_owned(), caller, parts, body: Bytes::new() })
}

struct Cloud {
    young: Young,
    buckets: Buckets,
    now: Instant,
}

impl Cloud {
    fn new(seed: u64) -> Self {
        let seed = Seed(seed);
        Self { young: Young::new(seed), buckets: Buckets::new(seed), now: Instant::now() }
    }

    /// Returns the code of the refusal; otherwise the request is done.
    fn ask(&mut self, request: &str) -> Option<&'static str> {
        let target = target(request);
        let refused = self.buckets.refuse(&mut self.young, &target, self.now);
        if refused.is_none() {
            self.buckets.answered(&mut self.young, &target, ENABLED, self.now);
        }
        refused.map(|refused| refused.code)
    }
}

/// Returns in how many of 60 clouds the last request is refused with this code, the others being done at
/// once.
fn refused(code: &str, before: &[&str], wait: Duration, request: &str) -> usize {
    let is_refused = |seed| {
        let mut cloud = Cloud::new(seed);
        for request in before {
            // Refusals during this loop are not the subject of the test.
            while cloud.ask(request).is_some() {
                cloud.now += Duration::from_millis(50);
            }
        }
        cloud.now += wait;
        cloud.ask(request) == Some(code)
    };
    (0..60).filter(|seed| is_refused(*seed)).count()
}

#[test]
fn a_new_bucket_is_not_found_by_some_calls() {
    for request in ["HEAD /b", "GET /b?tagging", "PUT /b?publicAccessBlock", "DELETE /b"] {
        let some = refused("NoSuchBucket", &["PUT /b"], Duration::ZERO, request);
        assert!((6..50).contains(&some), "{request}: {some} of 60");
        assert_eq!(refused("NoSuchBucket", &["PUT /b"], WINDOW, request), 0, "{request}");
    }
}

#[test]
fn objects_of_a_new_bucket_are_there_at_once() {
    for request in
        ["PUT /b/k", "GET /b/k", "GET /b?list-type=2", "GET /b", "GET /b?versions", "POST /b?delete"]
    {
        assert_eq!(refused("NoSuchBucket", &["PUT /b"], Duration::ZERO, request), 0, "{request}");
    }
    assert_eq!(refused("NoSuchKey", &["PUT /b", "PUT /b/k"], Duration::ZERO, "GET /b/k"), 0);
}

#[test]
fn a_setting_just_after_another_is_a_conflict() {
    let before = ["PUT /b", "PUT /b?encryption"];
    for request in ["PUT /b?lifecycle", "DELETE /b?policy"] {
        let some = refused("OperationAborted", &before, Duration::ZERO, request);
        assert!((6..50).contains(&some), "{request}: {some} of 60");
        assert_eq!(refused("OperationAborted", &before, WINDOW, request), 0, "{request}");
    }
    for request in ["GET /b?lifecycle", "PUT /b/k", "PUT /c?lifecycle"] {
        assert_eq!(refused("OperationAborted", &before, Duration::ZERO, request), 0, "{request}");
    }
}

#[test]
fn a_name_is_busy_just_after_its_bucket_is_deleted() {
    let before = ["PUT /b", "DELETE /b"];
    assert!(refused("OperationAborted", &before, Duration::ZERO, "PUT /b") > 5);
    assert_eq!(refused("OperationAborted", &before, WINDOW, "PUT /b"), 0);
}

#[test]
fn a_new_object_may_be_missed_after_versioning_is_enabled() {
    let versioned = ["PUT /b", "PUT /b?versioning"];
    for request in ["GET /b/k", "HEAD /b/k", "GET /b/k?x-id=GetObject"] {
        let new = [&versioned[..], &["PUT /b/k?x-id=PutObject"]].concat();
        let some = refused("NoSuchKey", &new, Duration::ZERO, request);
        assert!((6..50).contains(&some), "{request}: {some} of 60");
        assert_eq!(refused("NoSuchKey", &new, WINDOW, request), 0, "{request}");
        assert_eq!(refused("NoSuchKey", &versioned, Duration::ZERO, request), 0, "an older object");
    }
    let written = ["PUT /b", "PUT /b?versioning", "PUT /b/k"];
    assert_eq!(refused("NoSuchKey", &written, Duration::ZERO, "PUT /b/k"), 0, "writes are always right");
}

#[test]
fn later_objects_of_a_versioned_bucket_are_there_at_once() {
    for seed in 0..60 {
        let mut cloud = Cloud::new(seed);
        cloud.now += WINDOW;
        cloud.ask("PUT /b?versioning");
        cloud.now += VERSIONING;
        cloud.ask("PUT /b/k");
        assert_eq!(cloud.ask("GET /b/k"), None);
    }
}
