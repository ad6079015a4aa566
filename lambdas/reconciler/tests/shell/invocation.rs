//! Whole invocations over the wire: what a lost reply does to a tick.
//!
//! There is no EC2 here, so a tick holds everything back; that it took place is seen in memory.

use fleet::keys;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use planner::effect::MemoryObject;
use planner::invocation::Report;
use reconciler::Reconciler;
use reconciler::act::Actor;
use reconciler::observe::Observer;
use reconciler::probe::Prober;
use reconciler::store::Store;
use testing::proxy::{ALWAYS, Fault};

use crate::support::{Control, ec2};

/// Nothing listens on the discard port.
const NO_EC2: &str = "http://127.0.0.1:9";

/// One invocation of a minute that is almost over: its last tick, and no time for more.
async fn last_tick(store: Store) -> Report {
    let stack: fleet::StackName = "test".parse().expect("a name");
    let ec2 = ec2(NO_EC2);
    let reconciler = Reconciler {
        store: store.clone(),
        observer: Observer { ec2: ec2.clone(), store, stack: stack.clone() },
        prober: Prober::default(),
        actor: Actor { ec2, stack },
    };
    reconciler.invoke(Timestamp::now() - SignedDuration::from_secs(50)).await
}

async fn has_memory_of_a_tick(control: &Control) -> bool {
    match control.store.memory().await.0 {
        Ok(MemoryObject::Found { memory, .. }) => memory.last_tick.is_some(),
        _ => false,
    }
}

#[tokio::test]
async fn a_tick_is_made_once() {
    let control = Control::new().await;
    let report = last_tick(control.store.clone()).await;
    assert_eq!((report.ticks, report.skipped), (1, 0), "{report:?}");
    assert!(has_memory_of_a_tick(&control).await);
    let again = last_tick(control.store.clone()).await;
    assert_eq!((again.ticks, again.skipped), (0, 1), "{again:?}");
}

#[tokio::test]
async fn one_of_two_concurrent_invocations_makes_the_tick() {
    let control = Control::new().await;
    let (one, other) = tokio::join!(last_tick(control.store.clone()), last_tick(control.store.clone()));
    assert_eq!((one.ticks + other.ticks, one.skipped + other.skipped), (1, 1), "{one:?} {other:?}");
}

#[tokio::test]
async fn a_tick_goes_on_if_only_the_reply_to_its_write_is_lost() {
    // If only the first reply is lost, the retry meets the first write. If all are lost, only a read tells.
    for lost in [1, ALWAYS] {
        let control = Control::new().await;
        let (store, proxy) = control.behind_proxy().await;
        proxy.fail(Method::PUT, "", lost, Fault::LoseReply);
        let report = last_tick(store).await;
        assert_eq!((report.ticks, report.skipped), (1, 0), "{lost}: {report:?}");
        assert!(has_memory_of_a_tick(&control).await);
    }
}

#[tokio::test]
async fn a_tick_whose_write_is_lost_is_dropped() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::PUT, "", ALWAYS, Fault::LoseRequest);
    let report = last_tick(store).await;
    assert_eq!(report.ticks, 0, "{report:?}");
    assert!(!has_memory_of_a_tick(&control).await);
}

#[tokio::test]
async fn a_tick_without_a_memory_to_read_is_dropped_with_the_reason() {
    let control = Control::new().await;
    let (store, proxy) = control.behind_proxy().await;
    proxy.fail(Method::GET, "", ALWAYS, Fault::Answer(500, "InternalError"));
    let report = last_tick(store).await;
    assert_eq!(report.ticks, 0);
    assert!(report.failures.iter().any(|why| why.contains("InternalError")), "{report:?}");
    assert!(!has_memory_of_a_tick(&control).await);
}

#[tokio::test]
async fn a_garbled_memory_is_replaced() {
    let control = Control::new().await;
    control.write(keys::STATE, "banana").await;
    let report = last_tick(control.store.clone()).await;
    assert_eq!(report.ticks, 1, "{report:?}");
    let Ok(MemoryObject::Found { memory, .. }) = control.store.memory().await.0 else {
        panic!("it is still garbage")
    };
    assert!(
        memory.events.iter().any(|event| event.text.contains("the state began empty")),
        "{:?}",
        memory.events
    );
}
