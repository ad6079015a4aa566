//! Memory is written by compare-and-swap.

use fleet::keys;
use fleet::memory::Memory;
use hyper::Method;
use reconciler::store::{Store, StoreError, Written};

use crate::proxy::Fault;
use crate::support::Control;

fn with_revision(revision: u64) -> Memory {
    Memory { revision, ..Memory::default() }
}

/// The version that was written, or `None` if somebody else was faster.
async fn write(store: &Store, revision: u64, etag: Option<&str>) -> Option<String> {
    match store.write_memory(with_revision(revision), etag).await.expect("S3 answers") {
        Written::Ours { memory, etag } => {
            assert_eq!(memory.revision, revision);
            Some(etag)
        }
        Written::Lost => None,
    }
}

async fn stored(store: &Store) -> u64 {
    store.memory().await.expect("it is read").0.revision
}

#[tokio::test]
async fn a_new_stack_remembers_nothing() {
    let control = Control::new().await;
    assert_eq!(control.store.memory().await.expect("it is read"), (Memory::default(), None));
}

#[tokio::test]
async fn what_was_written_is_read_with_its_version() {
    let control = Control::new().await;
    let Written::Ours { memory, etag } =
        control.store.write_memory(with_revision(1), None).await.expect("it is written")
    else {
        panic!("nobody else writes");
    };
    assert_eq!(control.store.memory().await.expect("it is read"), (*memory, Some(etag.clone())));
    assert!(write(&control.store, 2, Some(&etag)).await.is_some());
    assert_eq!(stored(&control.store).await, 2);
}

#[tokio::test]
async fn a_write_over_another_version_than_was_read_is_lost() {
    let control = Control::new().await;
    let first = write(&control.store, 1, None).await.expect("nobody else writes");
    assert_eq!(write(&control.store, 9, None).await, None, "there is one by now");
    write(&control.store, 2, Some(&first)).await.expect("nobody else writes");
    assert_eq!(write(&control.store, 9, Some(&first)).await, None, "that version is gone");
    assert_eq!(stored(&control.store).await, 2);
}

#[tokio::test]
async fn of_many_writers_one_wins() {
    let control = Control::new().await;
    let first = write(&control.store, 1, None).await.expect("nobody else writes");
    let writes = (10..18).map(|revision| {
        let (store, etag) = (&control.store, &first);
        async move { write(store, revision, Some(etag)).await.map(|_| revision) }
    });
    let won: Vec<u64> = futures::future::join_all(writes).await.into_iter().flatten().collect();
    assert_eq!(won, [stored(&control.store).await]);
}

#[tokio::test]
async fn a_write_over_what_was_deleted_is_lost() {
    let control = Control::new().await;
    let etag = write(&control.store, 1, None).await.expect("nobody else writes");
    control.delete(keys::STATE).await;
    assert_eq!(write(&control.store, 2, Some(&etag)).await, None);
    assert_eq!(control.store.memory().await.expect("it is read").1, None);
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_known_as_ours() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, 1, Fault::LoseReply);
    let first = write(&store, 1, None).await.expect("it is ours");
    assert_eq!(proxy.writes(), 2, "the second met the result of the first");
    proxy.fail(Method::PUT, 1, Fault::LoseReply);
    let second = write(&store, 2, Some(&first)).await.expect("it is ours");
    assert_eq!(proxy.writes(), 4);
    assert_eq!(control.store.memory().await.expect("it is read").1, Some(second));
    assert_eq!(stored(&control.store).await, 2);
}

#[tokio::test]
async fn a_write_that_is_lost_on_its_way_is_repeated() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, 1, Fault::LoseRequest);
    assert!(write(&store, 1, None).await.is_some());
    assert_eq!(stored(&control.store).await, 1);
}

#[tokio::test]
async fn a_write_that_conflicts_with_another_in_progress_is_lost() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, 9, Fault::Answer(409, "ConditionalRequestConflict"));
    assert_eq!(write(&store, 1, None).await, None);
}

#[tokio::test]
async fn an_s3_that_fails_is_an_error_and_not_a_lost_race() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, 9, Fault::Answer(500, "InternalError"));
    let written = store.write_memory(with_revision(1), None).await;
    let Err(error @ StoreError::Write { .. }) = written else { panic!("it is not written") };
    assert_eq!(error.to_string(), "could not write fleet/state.json: InternalError: on purpose");
    proxy.fail(Method::GET, 9, Fault::Answer(500, "InternalError"));
    let Err(error @ StoreError::Read { .. }) = store.memory().await else { panic!("it is not read") };
    assert_eq!(error.to_string(), "could not read fleet/state.json: InternalError: on purpose");
}

#[tokio::test]
async fn a_memory_that_is_no_memory_is_not_taken_for_an_empty_one() {
    let control = Control::new().await;
    control.write(keys::STATE, "banana").await;
    assert!(matches!(control.store.memory().await, Err(StoreError::Malformed { .. })));
    control.write(keys::STATE, vec![b' '; 3 << 20]).await;
    assert!(matches!(control.store.memory().await, Err(StoreError::TooLarge { .. })));
}
