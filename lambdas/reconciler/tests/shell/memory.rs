//! Memory is written by compare-and-swap.

use fleet::keys;
use fleet::memory::{Event, Memory};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use planner::effect::{MemoryObject, Written};
use reconciler::store::Store;
use testing::proxy::{ALWAYS, Fault};

use crate::support::Control;

fn with_revision(revision: u64) -> Memory {
    Memory { revision, ..Memory::default() }
}

fn event(text: &str) -> Event {
    Event { at: Timestamp::UNIX_EPOCH, text: text.to_owned(), first: None, count: 1 }
}

async fn write(store: &Store, revision: u64, etag: Option<&str>) -> Written {
    store.write_memory(&with_revision(revision), etag).await
}

/// Writes where there is no other writer, and returns the version.
async fn must_write(store: &Store, revision: u64, etag: Option<&str>) -> String {
    match write(store, revision, etag).await {
        Written::Done { etag } => etag,
        other => panic!("it is not written: {other:?}"),
    }
}

async fn read(store: &Store) -> MemoryObject {
    store.memory().await.0.expect("it is read")
}

/// Returns the stored document and its version.
async fn stored(store: &Store) -> (u64, String) {
    match read(store).await {
        MemoryObject::Found { memory, etag } => (memory.revision, etag),
        other => panic!("there is no memory: {other:?}"),
    }
}

#[tokio::test]
async fn a_new_stack_remembers_nothing() {
    let control = Control::new().await;
    assert_eq!(read(&control.store).await, MemoryObject::Missing);
}

#[tokio::test]
async fn a_written_memory_is_read_with_its_version() {
    let control = Control::new().await;
    let first = must_write(&control.store, 1, None).await;
    assert_eq!(stored(&control.store).await, (1, first.clone()));
    let second = must_write(&control.store, 2, Some(&first)).await;
    assert_eq!(stored(&control.store).await, (2, second));
}

#[tokio::test]
async fn the_time_of_the_answer_is_that_of_s3() {
    let control = Control::new().await;
    for is_there in [false, true] {
        if is_there {
            must_write(&control.store, 1, None).await;
        }
        let (object, date) = control.store.memory().await;
        assert_eq!(matches!(object, Ok(MemoryObject::Found { .. })), is_there);
        let age = Timestamp::now().duration_since(date.expect("S3 says when it answers"));
        assert!(age.abs() < SignedDuration::from_secs(5), "{age}");
    }
}

#[tokio::test]
async fn a_write_over_another_version_than_was_read_is_a_conflict() {
    let control = Control::new().await;
    let first = must_write(&control.store, 1, None).await;
    assert_eq!(write(&control.store, 9, None).await, Written::Conflict, "there is one by now");
    must_write(&control.store, 2, Some(&first)).await;
    assert_eq!(write(&control.store, 9, Some(&first)).await, Written::Conflict, "that version is gone");
    assert_eq!(stored(&control.store).await.0, 2);
}

#[tokio::test]
async fn one_of_many_writers_wins() {
    let control = Control::new().await;
    let first = must_write(&control.store, 1, None).await;
    let writes =
        (10..18).map(|revision| {
            let (store, etag) = (&control.store, &first);
            async move {
                matches!(write(store, revision, Some(etag)).await, Written::Done { .. }).then_some(revision)
            }
        });
    let won: Vec<u64> = futures::future::join_all(writes).await.into_iter().flatten().collect();
    assert_eq!(won, [stored(&control.store).await.0]);
}

#[tokio::test]
async fn a_write_over_a_deleted_memory_is_a_conflict() {
    let control = Control::new().await;
    let etag = must_write(&control.store, 1, None).await;
    control.delete(keys::STATE).await;
    assert_eq!(write(&control.store, 2, Some(&etag)).await, Written::Conflict);
    assert_eq!(read(&control.store).await, MemoryObject::Missing);
}

#[tokio::test]
async fn a_write_whose_first_reply_is_lost_meets_its_own_result() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, "", 1, Fault::LoseReply);
    assert_eq!(write(&store, 1, None).await, Written::Conflict, "whose it is, the nonce says");
    assert_eq!(proxy.count(&Method::PUT, ""), 2);
    assert_eq!(stored(&control.store).await.0, 1);
}

#[tokio::test]
async fn a_write_that_is_lost_on_its_way_is_repeated() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, "", 1, Fault::LoseRequest);
    let etag = must_write(&store, 1, None).await;
    assert_eq!(stored(&control.store).await, (1, etag));
}

#[tokio::test]
async fn a_write_that_meets_another_in_progress_is_a_conflict() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, "", 9, Fault::Answer(409, "ConditionalRequestConflict"));
    assert_eq!(write(&store, 1, None).await, Written::Conflict);
}

#[tokio::test]
async fn a_write_without_an_answer_has_an_unknown_outcome() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, "", ALWAYS, Fault::Answer(500, "InternalError"));
    let why = "could not write fleet/state.json: InternalError: on purpose".to_owned();
    assert_eq!(write(&store, 1, None).await, Written::Unknown(why));
    for fault in [Fault::LoseReply, Fault::LoseRequest] {
        proxy.fail(Method::PUT, "", ALWAYS, fault);
        assert!(matches!(write(&store, 1, None).await, Written::Unknown(_)), "{fault:?}");
    }
    assert_eq!(stored(&control.store).await.0, 1, "one of those took place");
}

#[tokio::test]
async fn a_memory_that_is_not_given_is_not_taken_for_an_empty_one() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::GET, "", 9, Fault::Answer(500, "InternalError"));
    let error = store.memory().await.0.expect_err("S3 fails");
    assert_eq!(error, "could not read fleet/state.json: InternalError: on purpose");
}

#[tokio::test]
async fn a_memory_that_its_readers_would_refuse_is_not_written() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    let long = Memory { events: vec![event(&"x".repeat(100_000)); 20], ..with_revision(1) };
    let Written::Done { etag } = store.write_memory(&long, None).await else { panic!("it sheds") };
    assert_eq!(stored(&store).await, (1, etag.clone()));
    let hopeless = Memory { nonce: "x".repeat(2 * Memory::MAX_BYTES), ..with_revision(2) };
    let written = store.write_memory(&hopeless, Some(&etag)).await;
    assert!(matches!(&written, Written::Unknown(why) if why.contains("its readers take")), "{written:?}");
    assert_eq!((stored(&store).await, proxy.count(&Method::PUT, "")), ((1, etag), 1));
}

#[tokio::test]
async fn a_malformed_memory_can_be_replaced_by_its_version() {
    let control = Control::new().await;
    for nonsense in [b"banana".to_vec(), br#"{"slots": 3}"#.to_vec(), vec![0xff; 9], vec![b' '; 3 << 20]] {
        control.write(keys::STATE, nonsense).await;
        let MemoryObject::Unreadable { why, etag } = read(&control.store).await else {
            panic!("nonsense is read as memory")
        };
        let is_named = ["fleet/state.json cannot be parsed: ", "fleet/state.json is larger than "]
            .iter()
            .any(|beginning| why.starts_with(beginning));
        assert!(is_named, "{why}");
        must_write(&control.store, 1, Some(&etag)).await;
        assert_eq!(stored(&control.store).await.0, 1);
    }
}
