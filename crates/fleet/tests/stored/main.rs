//! Reads `release.json` and `state.json` as version 0.1.0 wrote them, before there was a policy.
//!
//! Never edit the stored files: a stack that is updated has such documents in its bucket.

use fleet::memory::{Memory, Phase, RefusalCause};
use fleet::policy::Policy;
use fleet::release::{Market, Release, Rollout};
use fleet::{document, keys};
use jiff::SignedDuration;

const RELEASE: &str = include_str!("release.json");
const STATE: &str = include_str!("state.json");

#[test]
fn the_stored_release_is_read_and_written_back() {
    let release: Release = serde_json::from_str(RELEASE).expect("a stored release");
    assert_eq!(release.policy, Policy::default());
    assert_eq!((release.id.as_str(), release.rollout), ("954c59fe312c", Rollout::StopFirst));
    let written = document::encode(keys::RELEASE, &release, Release::MAX_BYTES).expect("within bounds");
    assert_eq!(String::from_utf8(written).expect("JSON"), RELEASE);
}

#[test]
fn the_stored_state_is_read_and_written_back() {
    let state: Memory = serde_json::from_str(STATE).expect("a stored state");
    assert_eq!(state.slots[&0].phase, Phase::Dead);
    assert_eq!(state.refusals[&Market::OnDemand].cause, RefusalCause::Limit);
    assert!(state.restarts.values().any(|restarts| restarts.is_loop));
    let release = state.last_release().expect("the state knows a release");
    assert_eq!((release.id.as_str(), &release.policy), ("954c59fe312c", &Policy::default()));
    let written = state.encode(jiff::Timestamp::UNIX_EPOCH).expect("within bounds");
    assert_eq!(String::from_utf8(written).expect("JSON"), STATE);
}

#[test]
fn the_stored_release_takes_a_policy() {
    let mut release: serde_json::Value = serde_json::from_str(RELEASE).expect("a stored release");
    release["policy"] = serde_json::json!({ "drain": "5s", "of_a_later_version": 7 });
    let release: Release = serde_json::from_value(release).expect("a release with a policy");
    let drain = SignedDuration::from_secs(5);
    assert_eq!(release.policy, Policy { drain, ..Policy::default() });
    let text = serde_json::to_string(&release).expect("plain data");
    assert!(text.ends_with(r#","policy":{"drain":"5s"}}"#), "{text}");
}

#[test]
fn the_stored_release_is_refused_with_a_wrong_policy() {
    let mut release: serde_json::Value = serde_json::from_str(RELEASE).expect("a stored release");
    release["policy"] = serde_json::json!({ "drain": "1s" });
    let error = serde_json::from_value::<Release>(release).expect_err("a drain that is too short");
    assert_eq!(error.to_string(), "policy field drain is 1s, out of bounds: choose a value from 3s to 10m");
}
