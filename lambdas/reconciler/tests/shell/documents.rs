//! The documents that others write, and the registry.

use std::sync::Arc;

use fleet::memory::Memory;
use fleet::release::{Credits, InstanceSpec, Market, Release};
use fleet::{DesiredCount, Profile, Registry, keys};
use hyper::Method;
use jiff::Timestamp;
use planner::effect::Written;
use testing::proxy::{ALWAYS, Fault};

use crate::support::Control;

/// Publishes where there is no other writer.
async fn must_publish(control: &Control, revision: u64, etag: Option<&str>) {
    let written = control.store.publish(&registry(revision), etag).await;
    assert!(matches!(written, Written::Done { .. }), "{written:?}");
}

fn registry(revision: u64) -> Registry {
    Registry {
        revision,
        written_at: Timestamp::UNIX_EPOCH,
        desired: DesiredCount::try_from(2).expect("2 is within bounds"),
        notice: None,
        workers: [].into(),
    }
}

#[tokio::test]
async fn the_desired_count_is_a_number_or_a_sentence_why_not() {
    let control = Control::new().await;
    let missing = control.store.desired().await;
    assert_eq!(missing, Err("the object desired-count is missing".to_owned()));
    for (bytes, why) in [
        (Vec::new(), "an empty text is not a whole number"),
        (b"banana".to_vec(), "`banana` is not a whole number"),
        (b"101".to_vec(), "101 is out of range"),
        (vec![0xff], "a text that is not UTF-8 is not a whole number"),
        (vec![b'1'; 3 << 20], "it holds more than 256 bytes, not a number"),
    ] {
        control.write(keys::DESIRED_COUNT, bytes).await;
        let error = control.store.desired().await.expect_err(why);
        assert!(error.starts_with(&format!("desired-count is not acted on: {why}")), "{error}");
    }
    control.write(keys::DESIRED_COUNT, " 3\r\n").await;
    assert_eq!(control.store.desired().await.map(DesiredCount::get), Ok(3));
}

#[tokio::test]
async fn an_unreadable_document_is_an_error() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::GET, "", ALWAYS, Fault::Answer(500, "InternalError"));
    let why = |key: &str| format!("could not read {key}: InternalError: on purpose");
    assert_eq!(store.desired().await, Err(why(keys::DESIRED_COUNT)));
    assert_eq!(store.release().await, Err(why(keys::RELEASE)));
    assert_eq!(store.registry().await, (Err(why(keys::REGISTRY)), None));
}

#[tokio::test]
async fn a_release_is_read_whole_or_not_at_all() {
    let control = Control::new().await;
    assert_eq!(control.store.release().await, Ok(None));
    control.write(keys::RELEASE, r#"{"id":"x"}"#).await;
    let malformed = control.store.release().await.expect_err("most is missing");
    assert!(malformed.starts_with("fleet/release.json cannot be parsed: missing field"), "{malformed}");
    let spec = InstanceSpec {
        ami: "ami-1".to_owned(),
        instance_type: "t4g.nano".to_owned(),
        subnets: Vec::new(),
        security_group: "sg-1".to_owned(),
        instance_profile: "worker".to_owned(),
        user_data: "#cloud-config\n".to_owned(),
        market: Market::OnDemand,
        credits: Credits::Standard,
    };
    let release = Release::new("test".parse().expect("a name"), Profile::Secure, "1".to_owned(), spec);
    control.write(keys::RELEASE, serde_json::to_vec(&release).expect("plain data")).await;
    assert_eq!(control.store.release().await, Ok(Some(Arc::new(release))));
}

#[tokio::test]
async fn a_registry_replaces_the_one_that_was_read() {
    let control = Control::new().await;
    assert_eq!(control.store.registry().await, (Ok(None), None));
    must_publish(&control, 1, None).await;
    let (read, etag) = control.store.registry().await;
    assert_eq!(read, Ok(Some(Arc::new(registry(1)))));
    must_publish(&control, 2, etag.as_deref()).await;
    assert_eq!(control.store.registry().await.0, Ok(Some(Arc::new(registry(2)))));
}

#[tokio::test]
async fn a_registry_never_replaces_one_that_was_not_read() {
    let control = Control::new().await;
    must_publish(&control, 1, None).await;
    let (_, etag) = control.store.registry().await;
    must_publish(&control, 2, etag.as_deref()).await;
    for etag in [None, etag] {
        let written = control.store.publish(&registry(9), etag.as_deref()).await;
        assert_eq!(written, Written::Conflict, "a newer one is there");
        assert_eq!(control.store.registry().await.0, Ok(Some(Arc::new(registry(2)))));
    }
}

#[tokio::test]
async fn a_malformed_registry_is_replaced() {
    let control = Control::new().await;
    for (revision, nonsense) in [(1, b"banana".to_vec()), (2, vec![b' '; 3 << 20])] {
        control.write(keys::REGISTRY, nonsense).await;
        let (read, etag) = control.store.registry().await;
        assert_eq!(read, Ok(None));
        must_publish(&control, revision, etag.as_deref()).await;
        assert_eq!(control.store.registry().await.0, Ok(Some(Arc::new(registry(revision)))));
    }
}

#[tokio::test]
async fn a_registry_that_its_readers_would_refuse_is_not_written() {
    let control = Control::new().await;
    must_publish(&control, 1, None).await;
    let (_, etag) = control.store.registry().await;
    let large = Registry { notice: Some("x".repeat(Registry::MAX_BYTES)), ..registry(2) };
    let written = control.store.publish(&large, etag.as_deref()).await;
    assert!(matches!(&written, Written::Unknown(why) if why.contains("its readers take")), "{written:?}");
    assert_eq!(control.store.registry().await.0, Ok(Some(Arc::new(registry(1)))));
}

#[tokio::test]
async fn a_registry_that_is_not_written_has_a_reason() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, "", 9, Fault::Answer(500, "InternalError"));
    let why = "could not write fleet/registry.json: InternalError: on purpose".to_owned();
    assert_eq!(store.publish(&registry(1), None).await, Written::Unknown(why));
}

/// The client's time limits end with the head of an answer.
#[tokio::test]
async fn a_body_that_stalls_is_named() {
    let control = Control::new().await;
    control.write(keys::DESIRED_COUNT, "12345678").await;
    control.write(keys::RELEASE, "{}").await;
    must_publish(&control, 1, None).await;
    let written = control.store.write_memory(&Memory::default(), None).await;
    assert!(matches!(written, Written::Done { .. }), "{written:?}");
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::GET, "", ALWAYS, Fault::StallBody);
    let why = |key: &str| format!("could not read {key}: S3 sent no whole body within 2 s");
    let (desired, release, registry, (memory, _)) =
        tokio::join!(store.desired(), store.release(), store.registry(), store.memory());
    assert_eq!(desired, Err(why(keys::DESIRED_COUNT)));
    assert_eq!(release.map(drop), Err(why(keys::RELEASE)));
    assert_eq!(registry.0, Err(why(keys::REGISTRY)));
    assert_eq!(memory, Err(why(keys::STATE)));
}
