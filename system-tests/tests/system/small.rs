//! The cheapest machines: each has a tenth of a core, as a t4g.nano or t3.nano without credits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cloud, eventually, say};

const STACK: &str = "small";
const QUOTA: &[&str] = &["--cpu-quota", "10%"];

/// Many times what two tenths of a core can check.
const PEOPLE: usize = 48;

/// A worker that times out is dead in the second tick, so after three ticks a worker that is too slow would
/// be dead.
const TICKS: usize = 3;

/// Ticks are 20 s apart.
const PATIENCE: Duration = Duration::from_secs(150);

#[test]
fn workers_with_a_tenth_of_a_core_shed_and_live() {
    let cloud = Cloud::start_with(QUOTA);
    cloud.deploy(STACK, &["--workers", "2"]);
    let url = cloud.url(STACK);
    let client = client();
    let signed_up = client.post(format!("{url}/signup/ana/correct-horse-battery")).send().expect("an answer");
    assert_eq!(signed_up.status(), 201);
    let workers = cloud.instances(STACK, "running");
    let launches = cloud.launches().len();

    let is_over = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let (url, is_over) = (url.as_str(), &is_over);
        let people: Vec<_> =
            (0..PEOPLE).map(|number| scope.spawn(move || sign_in(url, number, is_over))).collect();
        let over = Over(is_over);
        let mut ticks = BTreeSet::new();
        eventually("the reconciler has looked often enough", PATIENCE, || {
            ticks.insert(last_tick(&cloud));
            if ticks.len() > TICKS { Ok(()) } else { Err(format!("{ticks:?}")) }
        });
        drop(over);
        let mut all = BTreeMap::<u16, usize>::new();
        for answers in people.into_iter().map(|one| one.join().expect("it does not panic")) {
            for (status, number) in answers {
                *all.entry(status).or_default() += number;
            }
        }
        all
    });
    say(&format!("sign-ins by status, with a tenth of a core each: {answers:?}"));
    assert!(answers.contains_key(&303) && answers.contains_key(&503), "let in and shed: {answers:?}");
    let odd: Vec<u16> = answers.keys().copied().filter(|status| ![303, 503].contains(status)).collect();
    assert!(odd.is_empty(), "neither let in nor shed: {answers:?}");
    assert_eq!(cloud.instances(STACK, "running"), workers, "a worker was replaced for being slow");
    assert_eq!(cloud.launches().len(), launches, "something was launched");
}

/// Stops the clients, however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn client() -> reqwest::blocking::Client {
    let client = reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .timeout(Duration::from_secs(30));
    client.build().expect("a client")
}

/// Signs up and then signs in again and again; counts the answers to sign-ins by status, 0 for none. Each
/// person has a login of its own: attempts at one login wait for each other.
fn sign_in(url: &str, number: usize, is_over: &AtomicBool) -> BTreeMap<u16, usize> {
    let (client, mut answers) = (client(), BTreeMap::new());
    let sign_up = || client.post(format!("{url}/signup/p{number}/correct-horse-battery")).send();
    while !is_over.load(Ordering::Relaxed)
        && !sign_up().is_ok_and(|answer| matches!(answer.status().as_u16(), 201 | 409))
    {}
    while !is_over.load(Ordering::Relaxed) {
        let answer = client.get(format!("{url}/signin/p{number}/correct-horse-battery")).send();
        *answers.entry(answer.map_or(0, |answer| answer.status().as_u16())).or_default() += 1;
    }
    answers
}

fn last_tick(cloud: &Cloud) -> String {
    let bucket = format!("vigia-{STACK}-control-000000000000-us-east-1");
    let state = cloud.observer.s3.get_object().bucket(bucket).key("fleet/state.json");
    let read = cloud.observer.wait(async { state.send().await.expect("the state").body.collect().await });
    let state: Value = serde_json::from_slice(&read.expect("the whole of it").into_bytes()).expect("JSON");
    state["last_tick"].as_str().unwrap_or_default().to_owned()
}
