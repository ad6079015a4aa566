//! A guesser of unlimited patience at one login, through three workers at once.
//!
//! Evaluations of argon2 cannot be counted from outside a process. Each 401 is exactly one (the worker's own
//! tests count them); 429 and 503 are none. So 401s are counted.
//!
//! The waits are skipped by putting the throttle's object back in time, by more than the longest wait and
//! less than the day after which a count starts again: a guesser who comes back day after day has a hundred
//! guesses a day.

use std::collections::BTreeMap;
use std::sync::Arc;

use accounts::Cost;
use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::task::JoinSet;

use super::client::{Ask, Pool, float};
use super::findings::Findings;
use super::ground::{Crowd, DATA, Ground, PASSWORD};
use super::worker::Worker;
use crate::table::{progress, thousands};

const WORKERS: usize = 3;
const GUESSES: usize = 10_000;
/// Guesses at each worker at the same time. More would only wait for each other, and in the end longer than a
/// worker allows.
const AT_ONCE: usize = 10;
/// More than the longest wait, which is a quarter of an hour.
const BACK: SignedDuration = SignedDuration::from_mins(16);

const GOAL: usize = 100 + WORKERS;

pub async fn measure(ground: &mut Ground) -> anyhow::Result<Findings> {
    progress(&format!("{} guesses at one login over {WORKERS} workers", thousands(GUESSES)));
    let cost = Cost::default();
    let crowd = Crowd::named("victim", 2);
    ground.clear();
    ground.settle(&crowd, &cost)?;
    let mut workers = Vec::new();
    let mut pools = Vec::new();
    for _ in 0..WORKERS {
        let worker = Worker::start(ground, &cost).await?;
        pools.push(Arc::new(Pool::open(worker.addr, AT_ONCE).await?));
        workers.push(worker);
    }
    let login = crowd.login(0).to_owned();
    let mut statuses = BTreeMap::<u16, usize>::new();
    let mut batches = 0;
    let mut guess = 0;
    while guess < GUESSES {
        let mut batch = JoinSet::new();
        for pool in &pools {
            for _ in 0..AT_ONCE.min(GUESSES - guess) {
                let (pool, ask) = (Arc::clone(pool), Ask::sign_in(&login, &format!("guess number {guess}")));
                batch.spawn(async move { pool.send(&ask).await });
                guess += 1;
            }
        }
        while let Some(answer) = batch.join_next().await {
            *statuses.entry(answer??.status).or_default() += 1;
        }
        put_back(ground)?;
        batches += 1;
    }
    let count = |status: u16| statuses.get(&status).copied().unwrap_or_default();
    let right = pools[0].send(&Ask::sign_in(&login, PASSWORD)).await?.status;
    let other = pools[0].send(&Ask::sign_in(crowd.login(1), PASSWORD)).await?.status;
    let mut found = Findings::new(
        "Guesses at one login, waits always being over",
        ["guesses", "workers", "at once", "batches", "401: hashed", "429: to wait", "503: busy", "others"],
    );
    let known = [401, 429, 503].map(count);
    found.row([
        thousands(GUESSES),
        WORKERS.to_string(),
        (WORKERS * AT_ONCE).to_string(),
        batches.to_string(),
        known[0].to_string(),
        known[1].to_string(),
        known[2].to_string(),
        (GUESSES - known.iter().sum::<usize>()).to_string(),
    ]);
    found.notes.push(format!(
        "Evaluations are the 401s: a 401 is one evaluation, 429 and 503 are none. Afterwards the right \
            password is answered {right}, and"
    ));
    found.notes.push(format!(
        "another login {other}. The throttle's object is put back by {} minutes after each batch.",
        BACK.as_mins()
    ));
    found.goal(
        format!(
            "{} guesses had {} evaluations, one in {:.0} (goal: at most 100 + {WORKERS}); all others 429 or 503",
            thousands(GUESSES),
            known[0],
            float(GUESSES) / float(known[0].max(1))
        ),
        known[0] <= GOAL && known.iter().sum::<usize>() == GUESSES,
    );
    found.goal(format!("another login signs in during the guessing: {other} (goal: 303)"), other == 303);
    Ok(found)
}

/// Makes all counts this much older, as if the time had passed.
fn put_back(ground: &Ground) -> anyhow::Result<()> {
    for key in ground.s3.keys(DATA, "throttle/") {
        let path = format!("{DATA}/{key}");
        let text = ground.s3.get(&path).context("it was listed")?;
        let mut document: Value = serde_json::from_slice(&text)?;
        let last = document.get_mut("last").context("a count has a time")?;
        *last = serde_json::to_value(Timestamp::now() - BACK)?;
        ground.s3.put(&path, document.to_string());
    }
    Ok(())
}
