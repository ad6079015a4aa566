//! `rotate-session-keys`: a worker with any version of the ring opens every session that another worker
//! seals.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::response::IntoResponse as _;
use bootstrap::output::Progress;
use bootstrap::part::RunMode;
use bootstrap::resources::secrets;
use bootstrap::session_keys::{Mode, rotate};
use ec2_worker::client::Transport;
use ec2_worker::cookies::{KeyRing, Kind};
use fleet::keys;

use crate::support::{Budget, Stack};

/// While no worker reads the ring, a moment is enough.
const GRADUAL: Mode = Mode::Gradual { wait: Duration::from_millis(1) };

async fn ring(stack: &Stack) -> KeyRing {
    let bytes = stack.read_control(keys::SESSION_KEYS).await.expect("a ring");
    KeyRing::from_json(&bytes).expect("workers can read it")
}

/// Returns whether a worker with one ring opens sessions that a worker with the other seals.
fn opens(reader: &KeyRing, sealer: &KeyRing) -> bool {
    let response = sealer.seal(Kind::Session, Transport::Plain, &"content").into_response();
    let cookie = response.headers()[SET_COOKIE].to_str().expect("text");
    let pair = cookie.split(';').next().expect("a pair").to_owned();
    let headers = HeaderMap::from_iter([(COOKIE, pair.parse().expect("a value"))]);
    reader.open::<String>(Kind::Session, Transport::Plain, &headers).is_some()
}

async fn deployed() -> Stack {
    let stack = Stack::new().await;
    secrets::ensure_session_keys(&stack.aws, RunMode::Apply).await.expect("a first ring");
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_signed_out_wherever_it_is_cut() {
    let mut cuts = 0;
    loop {
        let stack = deployed().await;
        let before = ring(&stack).await;
        let budget = Budget::calls(cuts);
        let was_cut = rotate(&stack.with(&budget), GRADUAL, &mut Progress::default()).await.is_err();
        let between = ring(&stack).await;
        assert!(opens(&between, &before), "an earlier session, {cuts} calls");
        if was_cut {
            // Until the wait is over a worker may have the old ring, and must open new sessions with it.
            assert!(opens(&before, &between), "the new key was active too early, {cuts} calls");
        }
        let kid = rotate(&stack.aws, GRADUAL, &mut Progress::default()).await.expect("it goes on");
        let after = ring(&stack).await;
        assert!(opens(&after, &before) && opens(&after, &between), "{cuts} calls");
        assert!(!opens(&before, &after), "another key seals now");
        if !was_cut {
            assert_eq!(kid, "k3", "the first run was whole, so this was another rotation");
            break;
        }
        assert_eq!(kid, "k2", "the key that waited was used");
        cuts += 1;
    }
    assert_eq!(cuts, 4, "two reads and two writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_key_opens_nothing_any_more() {
    let stack = deployed().await;
    let before = ring(&stack).await;
    rotate(&stack.aws, GRADUAL, &mut Progress::default()).await.expect("rotated");
    let gradual = ring(&stack).await;
    assert!(opens(&gradual, &before));
    rotate(&stack.aws, Mode::Now, &mut Progress::default()).await.expect("rotated");
    let after = ring(&stack).await;
    assert!(!opens(&after, &before) && !opens(&after, &gradual) && opens(&after, &after));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_another_writer_is_not_overwritten() {
    let stack = deployed().await;
    let (first, second) =
        tokio::join!(async { rotate(&stack.aws, GRADUAL, &mut Progress::default()).await }, async {
            rotate(&stack.aws, GRADUAL, &mut Progress::default()).await
        },);
    let kids = [first.expect("one of the two"), second.expect("the other")];
    let text =
        String::from_utf8(stack.read_control(keys::SESSION_KEYS).await.expect("a ring")).expect("text");
    for kid in kids {
        assert!(text.contains(&format!("\"kid\":\"{kid}\"")), "{kid} is lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ring_it_says_so_and_shows_nothing_of_a_broken_one() {
    let stack = Stack::new().await;
    for mode in [GRADUAL, Mode::Now] {
        let error = rotate(&stack.aws, mode, &mut Progress::default()).await.expect_err("there is none");
        assert!(error.message().contains("there is no stack"), "{}", error.message());
    }
    stack.write(keys::SESSION_KEYS, r#"{"active":"k1","keys":["sentinel"]}"#).await;
    let error = rotate(&stack.aws, GRADUAL, &mut Progress::default()).await.expect_err("it is broken");
    let said = error.message();
    assert!(said.contains("is not a valid key ring") && !said.contains("sentinel"), "{said}");
}
